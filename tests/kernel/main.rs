//! Ways around the gateway, each tried by a real process in namespaces and a cgroup of the test's own.
//!
//! The oracle is the wire: nothing may reach the far end. Beyond that, a refusal is immediate, carries EPERM,
//! and leaves an event with its reason.

mod ask;
mod ground;

use std::net::{IpAddr, SocketAddr};

use ask::{Answer, Ask};
use gateway_agent::kernel::{Destination, Disposition, Hook, Protocol, Reason};
use ground::{Actor, FAR_V4, FAR_V6, Gateway, Ground, PORT};

const RESOURCE: u16 = 5432;

fn destination(net: &str, port: u16, protocol: Protocol, disposition: Disposition) -> Destination {
    let net = net.parse().unwrap();
    Destination { net, port, protocol, disposition }
}

/// The far end's port 5432 is a resource; UDP port 53 there is open to jobs.
fn declared() -> Vec<Destination> {
    vec![
        destination("198.51.100.2/32", RESOURCE, Protocol::Tcp, Disposition::Redirect),
        destination("2001:db8:51::2/128", RESOURCE, Protocol::Tcp, Disposition::Redirect),
        destination("198.51.100.2/32", 53, Protocol::Udp, Disposition::Allow),
        destination("2001:db8:51::/64", 53, Protocol::Udp, Disposition::Allow),
    ]
}

fn start() -> (Ground, Gateway, Actor) {
    let ground = Ground::new();
    let gateway = Gateway::start(&ground);
    gateway.kernel.replace_destinations(&declared()).unwrap();
    let id = gateway.kernel.job_cgroup(&ground.cgroup.join("job")).unwrap();
    gateway.kernel.add_job(id).unwrap();
    let job = ground.actor("job");
    assert_eq!(ground.canary(), 0);
    (ground, gateway, job)
}

fn connect(to: &str) -> Ask {
    Ask::Connect { to: to.parse().unwrap() }
}

fn datagram(to: &str, connected: bool) -> Ask {
    Ask::Datagram { to: to.parse().unwrap(), connected }
}

#[test]
fn every_mandatory_hook_is_on() {
    let (_ground, gateway, _job) = start();
    let status = gateway.kernel.status().unwrap();
    for hook in &status.hooks {
        match &hook.program {
            Ok(id) => assert!(*id > 0),
            Err(why) if hook.about.optional => println!("{} is off: {why}", hook.hook.name()),
            Err(why) => panic!("{}: {why}", hook.hook.name()),
        }
    }
    assert!(status.heartbeat_age.unwrap().as_secs() < 2);
}

#[test]
fn a_redirected_connect_arrives_with_its_origin() {
    let (ground, gateway, mut job) = start();
    for (dialled, original) in [
        (format!("{FAR_V4}:{RESOURCE}"), format!("{FAR_V4}:{RESOURCE}")),
        (format!("[{FAR_V6}]:{RESOURCE}"), format!("[{FAR_V6}]:{RESOURCE}")),
        (format!("[::ffff:{FAR_V4}]:{RESOURCE}"), format!("{FAR_V4}:{RESOURCE}")),
        (format!("[64:ff9b::{FAR_V4}]:{RESOURCE}"), format!("{FAR_V4}:{RESOURCE}")),
    ] {
        let peer = job.connect(&dialled);
        assert_eq!(peer, dialled.parse().unwrap(), "the client sees the peer that it asked for");
        let flow = gateway.flow().unwrap();
        assert_eq!(flow.original, original.parse().unwrap());
        assert_eq!(flow.job, ground.id("job"));
        assert_eq!((flow.process.pid, flow.process.uid), (job.pid(), 0));
        assert_eq!(flow.process.comm, "kernel-actor");
    }
    assert_eq!(ground.canary(), 0);
    assert_eq!(gateway.count(Reason::Redirected), 4);
    let origins = gateway.kernel.status().unwrap().maps.into_iter().find(|map| map.name == "ORIGINS");
    assert_eq!(origins.unwrap().used, 0, "each record is taken once");
}

#[test]
fn an_undeclared_destination_is_refused_at_once() {
    let (ground, mut gateway, mut job) = start();
    for to in [
        format!("{FAR_V4}:80"),
        format!("[{FAR_V6}]:80"),
        format!("[::ffff:{FAR_V4}]:80"),
        format!("[64:ff9b::{FAR_V4}]:80"),
        "0.0.0.0:5432".to_owned(),
        "[::]:5432".to_owned(),
        "127.0.0.1:5432".to_owned(),
    ] {
        assert_eq!(job.refused(&connect(&to)), libc::EPERM, "{to}");
        let event = gateway.event(Reason::Undeclared);
        assert_eq!(event.job, Some(ground.id("job")));
        assert_eq!(event.process.unwrap().pid, job.pid());
        assert_eq!(event.peer.unwrap().port(), to.parse::<SocketAddr>().unwrap().port());
    }
    for special in
        ["169.254.169.254:80", "168.63.129.16:80", "[fd00:ec2::254]:80", "[fe80::1]:80", "224.0.0.251:5353"]
    {
        assert_eq!(job.refused(&connect(special)), libc::EPERM, "{special}");
        gateway.event(Reason::Special);
    }
    for tunnel in ["[2002:c633:6402::1]:5432", "[2001:0:1::1]:5432", "[fe80::5efe:198.51.100.2]:5432"] {
        assert_eq!(job.refused(&connect(tunnel)), libc::EPERM, "{tunnel}");
        gateway.event(Reason::Tunnelled);
    }
    assert_eq!(ground.canary(), 0);
}

#[test]
fn datagrams_reach_allowed_destinations_only() {
    let (ground, mut gateway, mut job) = start();
    for connected in [false, true] {
        for to in [
            format!("{FAR_V4}:9999"),
            format!("[{FAR_V6}]:9999"),
            format!("[::ffff:{FAR_V4}]:9999"),
            format!("{FAR_V4}:{RESOURCE}"),
        ] {
            assert_eq!(job.refused(&datagram(&to, connected)), libc::EPERM, "{to}");
            gateway.event(Reason::Undeclared);
        }
    }
    assert_eq!(ground.canary(), 0);
    for (sent, to) in
        (1..).zip([format!("{FAR_V4}:53"), format!("[{FAR_V6}]:53"), format!("[::ffff:{FAR_V4}]:53")])
    {
        for connected in [false, true] {
            assert!(matches!(job.ask(&datagram(&to, connected)), Answer::Done { .. }), "{to}");
        }
        assert_eq!(ground.canary(), 2, "{to} ({sent})");
    }
}

#[test]
fn only_tcp_and_udp_sockets_can_be_made() {
    let (_ground, mut gateway, mut job) = start();
    let lsm = gateway
        .kernel
        .status()
        .unwrap()
        .hooks
        .iter()
        .any(|hook| hook.hook == Hook::SocketCreate && hook.program.is_ok());
    let vectors = [
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW, true),
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP, true),
        (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6, true),
        (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE, true),
        (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE, true),
        (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP, true),
        (libc::AF_PACKET, libc::SOCK_RAW, 0, lsm),
        (libc::AF_VSOCK, libc::SOCK_STREAM, 0, lsm),
        (libc::AF_XDP, libc::SOCK_RAW, 0, lsm),
        (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER, lsm),
    ];
    for (family, kind, protocol, closed) in vectors {
        if closed {
            let errno = job.refused(&Ask::Socket { family, kind, protocol });
            assert!(
                matches!(errno, libc::EPERM | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT),
                "{family} {kind} {protocol}: {errno}"
            );
            if errno == libc::EPERM {
                let event = gateway.event(Reason::SocketKind);
                assert_eq!(i32::from(event.family), family);
            }
        }
    }
    for (family, kind, protocol) in [
        (libc::AF_INET, libc::SOCK_STREAM, 0),
        (libc::AF_INET6, libc::SOCK_DGRAM, 0),
        (libc::AF_UNIX, libc::SOCK_STREAM, 0),
        (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
    ] {
        assert!(matches!(job.ask(&Ask::Socket { family, kind, protocol }), Answer::Done { .. }));
    }
}

#[test]
fn options_that_steer_packets_are_refused() {
    let (ground, mut gateway, mut job) = start();
    let mut header = vec![0, 2, 2, 1, 0, 0, 0, 0];
    header.extend(FAR_V6.parse::<std::net::Ipv6Addr>().unwrap().octets());
    let one = 1_i32.to_ne_bytes().to_vec();
    for (v6, level, name, value) in [
        (true, libc::IPPROTO_IPV6, 57, header.clone()), // IPV6_RTHDR
        (true, libc::IPPROTO_IPV6, 5, header.clone()),  // IPV6_2292RTHDR
        (true, libc::IPPROTO_IPV6, 54, vec![0; 8]),     // IPV6_HOPOPTS
        (true, libc::IPPROTO_IPV6, 75, one.clone()),    // IPV6_TRANSPARENT
        (false, libc::IPPROTO_IP, libc::IP_OPTIONS, vec![0x83, 7, 4, 198, 51, 100, 2, 0]),
        (false, libc::IPPROTO_IP, libc::IP_TRANSPARENT, one.clone()),
        (false, libc::IPPROTO_IP, libc::IP_FREEBIND, one.clone()),
        (false, libc::SOL_SOCKET, libc::SO_MARK, one.clone()),
        (false, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"veth0".to_vec()),
        (false, libc::IPPROTO_TCP, libc::TCP_REPAIR, one.clone()),
    ] {
        assert_eq!(job.refused(&Ask::Option { v6, level, name, value }), libc::EPERM, "{level} {name}");
        let event = gateway.event(Reason::SocketOption);
        assert_eq!((event.kind.cast_signed(), event.detail.cast_signed()), (level, name));
    }
    let nodelay = Ask::Option { v6: false, level: libc::IPPROTO_TCP, name: libc::TCP_NODELAY, value: one };
    assert!(matches!(job.ask(&nodelay), Answer::Done { .. }));
    assert_eq!(ground.canary(), 0);
}

#[test]
fn a_routing_header_in_ancillary_data_does_not_leave() {
    let (ground, mut gateway, mut job) = start();
    // The first hop is allowed, so that only the packet itself gives it away.
    let ask =
        Ask::RoutedDatagram { to: "[2001:db8:51::99]:53".parse().unwrap(), via: FAR_V6.parse().unwrap() };
    match job.ask(&ask) {
        Answer::Failed { errno, .. } if errno == libc::EPERM => {
            assert_eq!(gateway.event(Reason::PacketHeader).hook, Hook::Egress);
        }
        // The kernel may refuse such headers altogether.
        Answer::Failed { errno, .. } => assert_eq!(errno, libc::EINVAL),
        done @ Answer::Done { .. } => panic!("{done:?}"),
    }
    assert_eq!(ground.canary(), 0);
}

#[test]
fn nothing_works_without_a_heartbeat() {
    let (ground, mut gateway, mut job) = start();
    job.connect(&format!("{FAR_V4}:{RESOURCE}"));
    gateway.flow().unwrap();
    gateway.stop_beating();
    assert_eq!(job.refused(&connect(&format!("{FAR_V4}:{RESOURCE}"))), libc::EPERM);
    gateway.event(Reason::Stale);
    assert_eq!(job.refused(&datagram(&format!("{FAR_V4}:53"), false)), libc::EPERM);
    assert_eq!(ground.canary(), 0);
    // It comes back with the heartbeat.
    gateway.kernel.beat().unwrap();
    job.connect(&format!("{FAR_V4}:{RESOURCE}"));
}

#[test]
fn a_killed_agent_leaves_everything_closed_and_comes_back_with_its_jobs() {
    let ground = Ground::new();
    let agent = ground.agent();
    // Enrolled by another process over the same pins, as a restarted agent would find them.
    {
        let gateway = gateway_agent::kernel::Kernel::attach(ground.config()).unwrap();
        gateway.replace_destinations(&declared()).unwrap();
        gateway.add_job(ground.id("job")).unwrap();
    }
    let to = format!("{FAR_V4}:{RESOURCE}");
    let mut agent = agent;
    let mut job = ground.actor("job");
    job.connect(&to);
    assert_eq!(agent.line(), to);
    agent.kill();
    // At once: nobody listens.
    let errno = job.refused(&connect(&to));
    assert!(errno == libc::ECONNREFUSED || errno == libc::EPERM, "{errno}");
    // Undeclared destinations and datagrams stay refused; what is allowed goes stale within two seconds.
    assert_eq!(job.refused(&connect(&format!("{FAR_V4}:80"))), libc::EPERM);
    assert_eq!(job.refused(&datagram(&format!("{FAR_V4}:9999"), false)), libc::EPERM);
    assert_eq!(ground.canary(), 0);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while let Answer::Done { .. } = job.ask(&datagram(&format!("{FAR_V4}:53"), false)) {
        assert!(std::time::Instant::now() < deadline, "the heartbeat never goes stale");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    ground.canary();
    assert_eq!(job.refused(&connect(&to)), libc::EPERM);

    let mut agent = ground.agent();
    job.connect(&to);
    assert_eq!(agent.line(), to);
    assert_eq!(ground.canary(), 0);
}

#[test]
fn a_stopped_agent_leaves_everything_closed() {
    let ground = Ground::new();
    let mut agent = ground.agent();
    {
        let kernel = gateway_agent::kernel::Kernel::attach(ground.config()).unwrap();
        kernel.replace_destinations(&declared()).unwrap();
        kernel.add_job(ground.id("job")).unwrap();
    }
    let to = format!("{FAR_V4}:{RESOURCE}");
    let mut job = ground.actor("job");
    job.connect(&to);
    assert_eq!(agent.line(), to);
    agent.signal(rustix::process::Signal::STOP);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while let Answer::Done { .. } = job.ask(&connect(&to)) {
        assert!(std::time::Instant::now() < deadline, "the heartbeat never goes stale");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(job.refused(&connect(&to)), libc::EPERM);
    agent.signal(rustix::process::Signal::CONT);
    assert_eq!(ground.canary(), 0);
}

#[test]
fn replacing_the_programs_leaves_no_gap() {
    let (ground, gateway, mut job) = start();
    let before = gateway.kernel.status().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let replacing = scope.spawn(|| {
            let mut last = None;
            for _ in 0..5 {
                last = Some(gateway_agent::kernel::Kernel::attach(ground.config()).unwrap());
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            last.unwrap()
        });
        let mut tries = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            assert_eq!(job.refused(&connect(&format!("{FAR_V4}:80"))), libc::EPERM);
            assert_eq!(job.refused(&datagram(&format!("[{FAR_V6}]:9999"), false)), libc::EPERM);
            tries += 1;
        }
        assert!(tries > 0);
        let after = replacing.join().unwrap();
        assert_eq!(after.jobs().unwrap(), [ground.id("job")]);
        let status = after.status().unwrap();
        for (old, new) in before.hooks.iter().zip(&status.hooks) {
            if let (Ok(old), Ok(new)) = (&old.program, &new.program) {
                assert_ne!(old, new, "the link holds the new program");
            }
        }
    });
    // The listeners and destinations are still the same.
    job.connect(&format!("{FAR_V4}:{RESOURCE}"));
    gateway.flow().unwrap();
    assert_eq!(ground.canary(), 0);
}

#[test]
fn the_gateways_port_cannot_be_squatted() {
    let (ground, mut gateway, mut job) = start();
    let mut squatter = ground.actor("bystander");
    for on in ["127.0.0.1", "[::1]"] {
        let on = format!("{on}:{PORT}").parse().unwrap();
        assert!(matches!(squatter.ask(&Ask::Listen { on }), Answer::Done { .. }));
        assert_eq!(job.refused(&Ask::Listen { on }), libc::EPERM, "a job does not even bind it");
        gateway.event(Reason::BindAddress);
    }
    let targets = [format!("{FAR_V4}:{RESOURCE}"), format!("[{FAR_V6}]:{RESOURCE}")];
    for to in &targets {
        job.connect(to);
        assert_eq!(gateway.flow().unwrap().original, to.parse().unwrap());
    }
    gateway.stop_listening();
    for to in &targets {
        assert_eq!(job.refused(&connect(to)), libc::ECONNREFUSED);
        gateway.event(Reason::NoListener);
    }
    assert_eq!(ground.canary(), 0);
}

#[test]
fn dialling_the_gateway_by_hand_leads_nowhere() {
    let (ground, mut gateway, mut job) = start();
    let port = format!("127.0.0.1:{PORT}");
    assert_eq!(job.refused(&connect(&port)), libc::EPERM);
    gateway.event(Reason::Undeclared);
    let mut bystander = ground.actor("bystander");
    bystander.connect(&port);
    assert!(gateway.flow().unwrap_err().contains("not redirected"));
}

#[test]
fn a_nested_cgroup_is_still_the_job() {
    let (ground, gateway, mut job) = start();
    assert!(matches!(job.ask(&Ask::Enter { cgroup: ground.cgroup.join("job/nested") }), Answer::Done { .. }));
    assert_eq!(job.refused(&connect(&format!("{FAR_V4}:80"))), libc::EPERM);
    job.connect(&format!("{FAR_V4}:{RESOURCE}"));
    assert_eq!(gateway.flow().unwrap().job, ground.id("job"));
    let nested = ground.cgroup.join("job/nested");
    assert!(gateway.kernel.job_cgroup(&nested).is_err(), "a job inside a job");
    assert_eq!(ground.canary(), 0);
}

#[test]
fn leaving_the_job_loses_access() {
    let (ground, mut gateway, mut job) = start();
    let to = format!("{FAR_V4}:{RESOURCE}");
    assert!(matches!(job.ask(&Ask::Prepare { v6: false }), Answer::Done { .. }));
    assert!(matches!(job.ask(&Ask::Enter { cgroup: ground.cgroup.join("bystander") }), Answer::Done { .. }));
    // A socket from before stays the job's.
    assert!(matches!(job.ask(&Ask::ConnectPrepared { to: to.parse().unwrap() }), Answer::Done { .. }));
    assert_eq!(gateway.flow().unwrap().job, ground.id("job"));
    // A new one is a bystander's, to whom resources are closed.
    assert_eq!(job.refused(&connect(&to)), libc::EPERM);
    let event = gateway.event(Reason::Protected);
    assert_eq!(event.job, None);
    assert_eq!(ground.canary(), 0);
}

#[test]
fn a_socket_from_outside_is_refused_inside() {
    let (ground, mut gateway, _job) = start();
    let mut stranger = ground.actor("bystander");
    assert!(matches!(stranger.ask(&Ask::Prepare { v6: true }), Answer::Done { .. }));
    assert!(matches!(stranger.ask(&Ask::Enter { cgroup: ground.cgroup.join("job") }), Answer::Done { .. }));
    let to = format!("[{FAR_V6}]:{RESOURCE}").parse().unwrap();
    assert_eq!(stranger.refused(&Ask::ConnectPrepared { to }), libc::EPERM);
    gateway.event(Reason::ForeignSocket);
    assert_eq!(ground.canary(), 0);
}

#[test]
fn resources_are_open_to_the_gateway_and_closed_to_bystanders() {
    let (ground, mut gateway, _job) = start();
    let mut server = ground.far_actor();
    let to = [format!("{FAR_V4}:{RESOURCE}"), format!("[{FAR_V6}]:{RESOURCE}")];
    for on in &to {
        assert!(matches!(server.ask(&Ask::Listen { on: on.parse().unwrap() }), Answer::Done { .. }));
    }
    let other = format!("{FAR_V4}:8080");
    assert!(matches!(server.ask(&Ask::Listen { on: other.parse().unwrap() }), Answer::Done { .. }));
    let mut bystander = ground.actor("bystander");
    for to in &to {
        assert_eq!(bystander.refused(&connect(to)), libc::EPERM);
        gateway.event(Reason::Protected);
    }
    assert_eq!(ground.canary(), 0);
    assert_eq!(bystander.connect(&other), other.parse().unwrap(), "everything else is untouched");
    gateway.kernel.set_gateway_cgroup(ground.id("gateway")).unwrap();
    let mut agent = ground.actor("gateway");
    for to in &to {
        assert_eq!(agent.connect(to), to.parse().unwrap());
    }
    assert!(ground.canary() > 0);
}

#[test]
fn a_jobs_listener_does_not_answer_the_outside() {
    let (ground, mut gateway, mut job) = start();
    let Answer::Done { local: Some(local), .. } = job.ask(&Ask::Listen { on: "0.0.0.0:0".parse().unwrap() })
    else {
        panic!("a job may listen on no address in particular")
    };
    let mut outside = ground.far_actor();
    outside
        .send(&Ask::Connect { to: SocketAddr::new("198.51.100.1".parse::<IpAddr>().unwrap(), local.port()) });
    let event = gateway.event(Reason::PacketIn);
    assert_eq!(event.job, Some(ground.id("job")));
    assert!(matches!(outside.answer(), Answer::Failed { .. }));
    assert_eq!(ground.canary(), 0);
    let on = "198.51.100.1:0".parse().unwrap();
    assert_eq!(job.refused(&Ask::Listen { on }), libc::EPERM);
    gateway.event(Reason::BindAddress);
}

#[test]
fn a_job_has_a_quota_of_open_flows() {
    let ground = Ground::new();
    let mut gateway = Gateway::start(&ground);
    drop(
        gateway_agent::kernel::Kernel::attach(gateway_agent::kernel::Config {
            flows_per_job: 3,
            ..ground.config()
        })
        .unwrap(),
    );
    gateway.kernel.replace_destinations(&declared()).unwrap();
    gateway.kernel.add_job(ground.id("job")).unwrap();
    let mut job = ground.actor("job");
    let to = format!("{FAR_V4}:{RESOURCE}");
    for round in 0..4 {
        if round == 3 {
            // Enrolled anew over open sockets: their end must not count against the new count.
            job.connect(&to);
            gateway.flow().unwrap();
            gateway.kernel.remove_job(ground.id("job")).unwrap();
            gateway.kernel.add_job(ground.id("job")).unwrap();
            job.ask(&Ask::CloseAll);
            job.connect(&to);
            gateway.flow().unwrap();
            return;
        }
        for _ in 0..3 {
            job.connect(&to);
            gateway.flow().unwrap();
        }
        assert_eq!(job.refused(&connect(&to)), libc::EPERM, "round {round}");
        gateway.event(Reason::Quota);
        job.ask(&Ask::CloseAll);
    }
}

#[test]
fn released_jobs_are_free_and_uninstall_detaches() {
    let (ground, gateway, mut job) = start();
    let mut server = ground.far_actor();
    let to = format!("{FAR_V4}:8080");
    assert!(matches!(server.ask(&Ask::Listen { on: to.parse().unwrap() }), Answer::Done { .. }));
    assert_eq!(job.refused(&connect(&to)), libc::EPERM);
    assert!(gateway.kernel.remove_job(ground.id("job")).unwrap());
    assert!(!gateway.kernel.remove_job(ground.id("job")).unwrap());
    let mut free = ground.actor("job");
    free.connect(&to);

    gateway.kernel.add_job(ground.id("job")).unwrap();
    assert_eq!(free.refused(&connect(&to)), libc::EPERM);
    drop(gateway);
    let removed = gateway_agent::kernel::uninstall(&ground.pin_dir).unwrap();
    assert!(
        removed.links.iter().any(|link| link == "connect4") && removed.maps.iter().any(|map| map == "JOBS")
    );
    assert!(!ground.pin_dir.exists());
    ground.actor("job").connect(&to);
}

/// Prints what a connect costs, and what each hook adds to it. Run by name: it asserts nothing.
#[test]
#[ignore = "a measurement, not a test: cargo test -p tests --test kernel -- --ignored --nocapture cost"]
fn cost_of_connect() {
    const ROUNDS: usize = 15;
    const CONNECTS: u32 = 200;
    let (ground, gateway, mut job) = start();
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // As long a queue as the gateway's: a dropped SYN costs a second.
    rustix::net::listen(&plain, 4096).unwrap();
    let local = plain.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = plain.accept() {
            drop(stream);
        }
    });
    let mut declared = declared();
    declared.push(destination("127.0.0.1/32", local.port(), Protocol::Tcp, Disposition::Allow));
    gateway.kernel.replace_destinations(&declared).unwrap();
    let resource = SocketAddr::new(FAR_V4.parse().unwrap(), RESOURCE);
    let mut free = ground.actor("..");
    let mut bystander = ground.actor("bystander");
    let time = |actor: &mut Actor, to| match actor.ask(&Ask::Cycle { to, count: CONNECTS }) {
        Answer::Done { micros, .. } => micros as f64 / f64::from(CONNECTS),
        failed @ Answer::Failed { .. } => panic!("{failed:?}"),
    };
    let measuring = gateway_agent::kernel::measure().unwrap();
    let mut ratios = vec![Vec::new(); 3];
    let mut base = Vec::new();
    for _ in 0..ROUNDS {
        let off = time(&mut free, local);
        base.push(off);
        ratios[0].push(time(&mut bystander, local) / off);
        ratios[1].push(time(&mut job, local) / off);
        ratios[2].push(time(&mut job, resource) / off);
        while let Ok(Ok(_)) = gateway.try_flow() {}
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!("connect, accept, close on loopback without programs: {:.1} us", median(&mut base));
    for (what, values) in
        ["outside every job", "job, allowed destination", "job, redirected"].iter().zip(&mut ratios)
    {
        println!("  {what}: {:.2} of that", median(values));
    }
    for cost in gateway_agent::kernel::costs(&ground.pin_dir).unwrap() {
        let each = cost.time.as_nanos() as f64 / (cost.runs.max(1) as f64);
        println!("  {:<13} {:>8} runs {:>6.0} ns each", cost.hook.name(), cost.runs, each);
    }
    drop(measuring);
}
