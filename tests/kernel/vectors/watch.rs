//! What the agent does about the kernel programs over their life: observing, being upgraded over maps of another
//! shape, proving itself, watching over its hooks, and ending sockets from before.

use std::{
    io::{self, Read as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
};

use gateway_agent::kernel::{
    self, Destination, Disposition, Drift, Error, Hook, Kernel, Mode, Protocol, Reason, Verdict,
};

use super::RESOURCE;
use crate::{
    ask::{Answer, Ask},
    ground::{Actor, FAR_V4, FAR_V6, Gateway, Ground},
    pinned,
    scenario::{Scenario, scenarios},
};

pub(super) const SCENARIOS: &[Scenario] = scenarios![
    [31] observing_reports_what_would_be_refused_and_lets_it_pass,
    [21] a_resource_may_be_left_open_to_whoever_is_in_no_job,
    [49] maps_of_another_version_are_refused_and_stay,
    [29] a_quarantined_job_is_refused_everything,
    [31] a_missing_hook_is_seen_on_every_job,
    [29] a_program_inside_the_job_is_seen,
    [31] the_self_test_passes_and_fails_where_it_should,
    [34] sockets_from_before_are_ended,
];

fn destination(net: &str, port: u16, disposition: Disposition) -> Destination {
    Destination { net: net.parse().unwrap(), port, protocol: Protocol::Tcp, disposition }
}

fn connect(to: &str) -> Ask {
    Ask::Connect { to: to.parse().unwrap() }
}

fn far_listens(ground: &Ground, ports: &[u16]) -> Actor {
    let mut far = ground.far_actor();
    for port in ports {
        for host in [FAR_V4.to_owned(), format!("[{FAR_V6}]")] {
            let on = format!("{host}:{port}").parse().unwrap();
            assert!(matches!(far.ask(&Ask::Listen { on }), Answer::Done { .. }));
        }
    }
    far
}

fn observing_reports_what_would_be_refused_and_lets_it_pass() {
    let ground = Ground::new();
    let mut gateway = Gateway::start(&ground);
    let enforce = ground.config();
    let id = ground.id("job");
    gateway
        .kernel
        .replace_destinations(&[destination("198.51.100.2/32", RESOURCE, Disposition::Redirect)])
        .unwrap();
    gateway.kernel.add_job(id).unwrap();
    let _far = far_listens(&ground, &[8080]);
    let mut job = ground.actor("job");
    let to = format!("{FAR_V4}:8080");
    assert_eq!(job.refused(&connect(&to)), libc::EPERM);
    assert!(!gateway.event(Reason::Undeclared).observed);

    // A restart in the other mode, over the same pins.
    let observing = Kernel::attach(kernel::Config { mode: Mode::Observe, ..enforce.clone() }).unwrap();
    assert_eq!(observing.status().unwrap().mode, Mode::Observe);
    assert_eq!(job.connect(&to), to.parse().unwrap());
    let event = gateway.event(Reason::Undeclared);
    assert!(event.observed);
    assert_eq!(event.job, Some(id));
    assert!(ground.canary() > 0);
    // Resources still go through the gateway.
    job.connect(&format!("{FAR_V4}:{RESOURCE}"));
    assert_eq!(gateway.flow().unwrap().job, id);
    assert_eq!(ground.canary(), 0);

    drop(Kernel::attach(enforce).unwrap());
    assert_eq!(job.refused(&connect(&to)), libc::EPERM);
}

fn a_resource_may_be_left_open_to_whoever_is_in_no_job() {
    let ground = Ground::new();
    let gateway = Gateway::start(&ground);
    gateway
        .kernel
        .replace_destinations(&[
            destination("198.51.100.2/32", RESOURCE, Disposition::RedirectJobs),
            destination("198.51.100.2/32", 5433, Disposition::Redirect),
        ])
        .unwrap();
    gateway.kernel.add_job(ground.id("job")).unwrap();
    let _far = far_listens(&ground, &[RESOURCE, 5433]);
    let mut bystander = ground.actor("bystander");
    bystander.connect(&format!("{FAR_V4}:{RESOURCE}"));
    assert_eq!(bystander.refused(&connect(&format!("{FAR_V4}:5433"))), libc::EPERM);
    ground.canary();
    let mut job = ground.actor("job");
    job.connect(&format!("{FAR_V4}:{RESOURCE}"));
    assert_eq!(gateway.flow().unwrap().job, ground.id("job"), "jobs go through the gateway all the same");
    assert_eq!(ground.canary(), 0);
}

fn maps_of_another_version_are_refused_and_stay() {
    let ground = Ground::new();
    let gateway = Gateway::start(&ground);
    gateway.kernel.add_job(ground.id("job")).unwrap();
    pinned::write_first_word(&ground.pin_dir.join("CONFIG"), 0x63).unwrap();
    match Kernel::attach(ground.config()) {
        Err(Error::Layout { found: 0x63, .. }) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("maps of layout 99 were taken over"),
    }
    assert_eq!(gateway.kernel.jobs().unwrap(), [ground.id("job")], "nothing was wiped");
}

fn a_quarantined_job_is_refused_everything() {
    let ground = Ground::new();
    let mut gateway = Gateway::start(&ground);
    gateway
        .kernel
        .replace_destinations(&[destination("198.51.100.2/32", RESOURCE, Disposition::Redirect)])
        .unwrap();
    let id = ground.id("job");
    gateway.kernel.add_job(id).unwrap();
    let mut job = ground.actor("job");
    let to = format!("{FAR_V4}:{RESOURCE}");
    job.connect(&to);
    gateway.flow().unwrap();
    assert!(gateway.kernel.quarantine(id, true).unwrap());
    assert!(!gateway.kernel.quarantine(id, true).unwrap(), "once is enough");
    assert_eq!(job.refused(&connect(&to)), libc::EPERM);
    assert_eq!(gateway.event(Reason::Quarantined).job, Some(id));
    // A restart keeps it.
    let again = Kernel::attach(ground.config()).unwrap();
    assert_eq!(again.quarantined().unwrap(), [id]);
    assert_eq!(job.refused(&connect(&to)), libc::EPERM);
    assert!(again.remove_job(id).unwrap());
    assert!(again.quarantined().unwrap().is_empty(), "it ends with the job");
    assert_eq!(ground.canary(), 0);
}

fn a_missing_hook_is_seen_on_every_job() {
    let ground = Ground::new();
    let gateway = Gateway::start(&ground);
    gateway.kernel.add_job(ground.id("job")).unwrap();
    let dir = ground.cgroup.join("job");
    assert_eq!(gateway.kernel.inspect(&dir).unwrap(), []);
    // Outside of the attach root none of ours runs, as if they had been taken away.
    let elsewhere = Ground::new();
    let dir = elsewhere.cgroup.join("job");
    let drift = gateway.kernel.inspect(&dir).unwrap();
    for hook in [Hook::Connect4, Hook::Sendmsg6, Hook::Egress, Hook::SockCreate] {
        for cgroup in [dir.clone(), dir.join("nested")] {
            assert!(drift.contains(&Drift::Missing { hook, cgroup }), "{drift:?}");
        }
    }
}

fn a_program_inside_the_job_is_seen() {
    let ground = Ground::new();
    let gateway = Gateway::start(&ground);
    gateway.kernel.add_job(ground.id("job")).unwrap();
    let dir = ground.cgroup.join("job");
    // The gateway's own programs are somebody else's when somebody else attaches them.
    let cgroup = dir.join("nested");
    let foreign = Kernel::attach(kernel::Config {
        cgroup_root: cgroup.clone(),
        pin_dir: ground.pin_dir.with_file_name("foreign"),
        ..ground.config()
    })
    .unwrap();
    let foreign = foreign.status().unwrap();
    let program =
        |hook| *foreign.hooks.iter().find(|status| status.hook == hook).unwrap().program.as_ref().unwrap();
    let drift = gateway.kernel.inspect(&dir).unwrap();
    for hook in [Hook::Connect4, Hook::Sendmsg6, Hook::Setsockopt] {
        let inside = Drift::Inside { hook, cgroup: cgroup.clone(), program: program(hook) };
        assert!(drift.contains(&inside), "{drift:?}");
    }
    assert!(drift.contains(&Drift::Lookup { program: program(Hook::SkLookup) }), "{drift:?}");
    let harmless = |drift: &Drift| matches!(drift, Drift::Inside { hook: Hook::Egress | Hook::Bind4, .. });
    assert!(!drift.iter().any(harmless), "a program that can only refuse more is none of our business");
    kernel::uninstall(&ground.pin_dir.with_file_name("foreign")).unwrap();
    assert_eq!(gateway.kernel.inspect(&dir).unwrap(), []);
}

fn the_self_test_passes_and_fails_where_it_should() {
    let ground = Ground::new();
    let gateway = Gateway::start(&ground);
    let helper = || {
        let mut helper = Command::new(tests::program("kernel-actor").unwrap());
        helper.arg("self-test-helper");
        kernel::Helper::start(&mut helper).unwrap()
    };
    for closed in [true, false] {
        let probes = gateway.kernel.self_test(helper(), closed).unwrap();
        assert!(probes.len() >= 14, "{probes:?}");
        for probe in &probes {
            // Setting marks and raw sockets may be out of reach of whoever runs this.
            assert_eq!(probe.verdict(), Verdict::Refused, "{probe:?}");
        }
    }
    assert!(gateway.kernel.jobs().unwrap().is_empty(), "the test leaves no job");
    // Observing, nothing is refused: the very same test must say so.
    let observing = Kernel::attach(kernel::Config { mode: Mode::Observe, ..ground.config() }).unwrap();
    assert!(observing.self_test(helper(), true).is_err(), "packets of the job arrive");
}

fn sockets_from_before_are_ended() {
    let ground = Ground::new();
    let gateway = Gateway::start(&ground);
    let _far = far_listens(&ground, &[8080]);
    let mut job = ground.actor("job/nested");
    for host in [FAR_V4.to_owned(), format!("[{FAR_V6}]")] {
        job.connect(&format!("{host}:8080"));
    }
    let mut other = ground.actor("bystander");
    other.connect(&format!("{FAR_V4}:8080"));
    // In this process, which is in no job either.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut mine = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    mine.set_nonblocking(true).unwrap();
    let _datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();

    assert!(gateway.kernel.add_job(ground.id("job")).unwrap(), "a new job");
    assert!(!gateway.kernel.add_job(ground.id("job")).unwrap(), "the same job");
    let ended = kernel::destroy_sockets(&ground.cgroup.join("job")).unwrap();
    if ended.unsupported.is_empty() {
        assert_eq!(ended.sockets, 2);
    }
    assert_eq!(kernel::destroy_sockets(&ground.cgroup.join("job")).unwrap().sockets, 0);
    let error = mine.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "nobody else's socket ended");
    assert_eq!(other.connect(&format!("{FAR_V4}:8080")), SocketAddr::new(FAR_V4.parse().unwrap(), 8080));
}
