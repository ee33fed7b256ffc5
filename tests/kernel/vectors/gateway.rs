//! The gateway's own port, and sockets that were redirected before.

use gateway_agent::kernel::{
    Destination, Disposition, Protocol,
    Reason::{self, BindAddress, Undeclared},
};

use super::{
    BEYOND_V4, BEYOND_V6, RESOURCE, far,
    steps::{addr, datagram, send, stream, tcp, to, udp},
};
use crate::{
    ask::{Answer, Ask, Step},
    attempt::{Attempt, Expect, both, refused},
    ground::{FAR_V4, FAR_V6, PORT, World, declared},
    scenario::{Scenario, scenarios},
};

pub(super) fn attempts() -> Vec<Attempt> {
    let mut all = Vec::new();
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"] {
        let dial = format!("{host}:{PORT}");
        all.push(refused(&[39], format!("tcp to the gateway at {dial}"), tcp(&dial), &[Undeclared]));
        all.push(refused(&[39], format!("udp to the gateway at {dial}"), udp(&dial), &[Undeclared]));
        if !host.starts_with("[::ffff") {
            for (kind, on) in [(libc::SOCK_STREAM, "tcp"), (libc::SOCK_DGRAM, "udp")] {
                let family = if host.starts_with('[') { libc::AF_INET6 } else { libc::AF_INET };
                all.push(refused(
                    &[46],
                    format!("bind {on} to the gateway's {dial}"),
                    vec![Step::Socket { family, kind, protocol: 0 }, Step::Bind { to: addr(&dial) }],
                    &[BindAddress],
                ));
            }
        }
    }

    // A socket that was redirected once goes nowhere else.
    for (resource, beyond) in
        far(RESOURCE).into_iter().zip([format!("{BEYOND_V4}:80"), format!("[{BEYOND_V6}]:80")])
    {
        let again = |last: Step| vec![stream(&resource), to(&resource), Step::Disconnect, last];
        all.push(refused(
            &[43],
            format!("reconnect from {resource} to {beyond}"),
            again(to(&beyond)),
            &[Undeclared],
        ));
        all.push(both(
            &[43],
            format!("reconnect from {resource} to itself"),
            again(to(&resource)),
            Expect::Gateway { original: addr(&resource), shown: addr(&resource) },
        ));
        let open = beyond.replace(":80", ":9999");
        let allowed = resource.replace(&format!(":{RESOURCE}"), ":53");
        all.push(refused(
            &[43],
            format!("udp reconnect from {allowed} to {open}"),
            vec![datagram(&allowed), to(&allowed), Step::Disconnect, to(&open)],
            &[Undeclared],
        ));
        all.push(refused(
            &[43],
            format!("udp connected to {allowed}, then sendto {open}"),
            vec![datagram(&allowed), to(&allowed), send(&open)],
            &[Undeclared],
        ));
    }
    all
}

pub(super) const SCENARIOS: &[Scenario] = scenarios![
    [46] the_gateways_port_cannot_be_squatted,
    [39] dialling_the_gateway_by_hand_leads_nowhere,
    [44] a_reused_source_port_has_a_new_origin,
    [51] a_name_is_not_an_identity,
];

fn the_gateways_port_cannot_be_squatted() {
    let World { ground, mut gateway, mut job } = World::start();
    let mut squatter = ground.actor("bystander");
    for on in ["127.0.0.1", "[::1]"] {
        let on = addr(&format!("{on}:{PORT}"));
        assert!(matches!(squatter.ask(&Ask::Listen { on }), Answer::Done { .. }));
        assert_eq!(job.refused(&Ask::Listen { on }), libc::EPERM, "a job does not even bind it");
        gateway.event(Reason::BindAddress);
    }
    for dial in far(RESOURCE) {
        job.connect(&dial);
        assert_eq!(gateway.flow().unwrap().original, addr(&dial));
    }
    gateway.stop_listening();
    for dial in far(RESOURCE) {
        assert_eq!(job.refused(&Ask::Connect { to: addr(&dial) }), libc::ECONNREFUSED);
        gateway.event(Reason::NoListener);
    }
    assert_eq!(ground.canary(), 0);
}

fn dialling_the_gateway_by_hand_leads_nowhere() {
    let World { ground, mut gateway, mut job } = World::start();
    for port in [format!("127.0.0.1:{PORT}"), format!("[::1]:{PORT}")] {
        assert_eq!(job.refused(&Ask::Connect { to: addr(&port) }), libc::EPERM);
        gateway.event(Reason::Undeclared);
        let mut bystander = ground.actor("bystander");
        bystander.connect(&port);
        assert!(gateway.flow().unwrap_err().contains("not redirected"));
    }
}

/// The same four-tuple at the listener, twice: the record belongs to the socket, not to its addresses.
fn a_reused_source_port_has_a_new_origin() {
    let World { ground, gateway, mut job } = World::start();
    let second = Destination {
        net: format!("{FAR_V4}/32").parse().unwrap(),
        port: RESOURCE + 1,
        protocol: Protocol::Tcp,
        disposition: Disposition::Redirect,
    };
    let mut destinations = declared();
    destinations.push(second);
    gateway.kernel.replace_destinations(&destinations).unwrap();
    let mut from = addr("127.0.0.1:0");
    for turn in 0..4 {
        let to = addr(&format!("{FAR_V4}:{}", RESOURCE + turn % 2));
        match job.ask(&Ask::ConnectFrom { from, to }) {
            Answer::Done { local: Some(local), .. } => from = local,
            other => panic!("{turn}: {other:?}"),
        }
        let flow = gateway.flow().unwrap();
        assert_eq!((flow.original, flow.peer), (to, from));
        assert_eq!(flow.job, ground.id("job"));
        job.ask(&Ask::CloseAll);
    }
    let origins = gateway.kernel.status().unwrap().maps.into_iter().find(|map| map.name == "ORIGINS");
    assert_eq!(origins.unwrap().used, 0, "no record outlives its connection");
    assert_eq!(ground.canary(), 0);
}

/// A process that calls itself the gateway, or any allowed program, is judged by its cgroup all the same.
fn a_name_is_not_an_identity() {
    let World { ground, mut gateway, mut job } = World::start();
    for name in ["gateway-agent", "psql", "systemd"] {
        let mut steps = vec![Step::Comm { name: name.to_owned() }];
        steps.extend(tcp(&format!("[{FAR_V6}]:80")));
        assert_eq!(job.refused(&Ask::Script(steps)), libc::EPERM);
        let event = gateway.event(Reason::Undeclared);
        assert_eq!(event.job, Some(ground.id("job")));
        assert_eq!(event.process.unwrap().comm, name, "the name is told, and decides nothing");
    }
    assert_eq!(ground.canary(), 0);
}
