//! UDP: QUIC, DTLS, resolvers, and what is allowed.

use gateway_agent::kernel::Reason::{self, Undeclared};

use super::{
    BEYOND_V4, BEYOND_V6, RESOURCE,
    steps::{addr, datagram, send, tcp, to as dial, udp, udp_connected},
};
use crate::{
    ask::{Answer, Ask, Step},
    attempt::{Attempt, refused},
    ground::{FAR_V4, FAR_V6, Gateway, Ground, User, World, resources_only},
    scenario::{Scenario, scenarios},
};

pub(super) fn attempts() -> Vec<Attempt> {
    let mut all = Vec::new();
    let hosts = [FAR_V4.to_owned(), BEYOND_V4.to_owned(), format!("[{FAR_V6}]"), format!("[{BEYOND_V6}]")];
    for host in &hosts {
        for (name, port) in [("QUIC", 443), ("DTLS", 4433), ("the resource's port", RESOURCE)] {
            let dial = format!("{host}:{port}");
            all.push(refused(&[13], format!("{name} at {dial}"), udp(&dial), &[Undeclared]));
            all.push(refused(
                &[13],
                format!("{name} at {dial}, connected"),
                udp_connected(&dial),
                &[Undeclared],
            ));
        }
        // Resolvers that nobody declared.
        for (name, port) in [("DoT", 853), ("DoH", 443)] {
            let dial = format!("{host}:{port}");
            all.push(refused(&[14], format!("{name} at {dial}"), tcp(&dial), &[Undeclared]));
        }
        let dial = format!("{host}:853");
        all.push(refused(&[14], format!("DoQ at {dial}"), udp(&dial), &[Undeclared]));
        let dial = format!("{host}:5353");
        all.push(refused(&[14], format!("mDNS by unicast at {dial}"), udp(&dial), &[Undeclared]));
    }
    all
}

pub(super) const SCENARIOS: &[Scenario] = scenarios![
    [3, 13] datagrams_reach_allowed_destinations_only,
    [14] every_resolver_is_the_gateway,
];

/// Whoever is asked on port 53, over either family, by either user: the gateway hears it, knows the job, and its
/// answer comes from where the question went.
fn every_resolver_is_the_gateway() {
    let ground = Ground::new();
    let gateway =
        Gateway::start_with(&ground, gateway_agent::kernel::Config { dns: true, ..ground.config() });
    gateway.kernel.replace_destinations(&resources_only()).unwrap();
    gateway.kernel.add_job(ground.id("job")).unwrap();
    for user in User::JOBS {
        let mut job = ground.actor_as("job", user);
        for to in [
            format!("{FAR_V4}:53"),
            format!("{BEYOND_V4}:53"),
            format!("[{FAR_V6}]:53"),
            format!("[{BEYOND_V6}]:53"),
            format!("[::ffff:{BEYOND_V4}]:53"),
        ] {
            let from = addr(&to);
            for first in [vec![send(&to)], vec![dial(&to), Step::Send]] {
                let steps = [vec![datagram(&to)], first, vec![Step::ReceiveFrom { from }]].concat();
                job.done(&Ask::Script(steps));
                let flow = gateway.question().unwrap();
                assert_eq!(flow.job, ground.id("job"));
                assert_eq!(flow.original.ip(), from.ip().to_canonical());
            }
        }
    }
    assert_eq!(ground.canary(), 0);
}

fn datagrams_reach_allowed_destinations_only() {
    let World { ground, mut gateway, mut job } = World::start();
    let send = |to: &str, connected: bool| Ask::Datagram { to: addr(to), connected };
    for connected in [false, true] {
        for to in [
            format!("{FAR_V4}:9999"),
            format!("[{FAR_V6}]:9999"),
            format!("[::ffff:{FAR_V4}]:9999"),
            format!("{FAR_V4}:{RESOURCE}"),
        ] {
            assert_eq!(job.refused(&send(&to, connected)), libc::EPERM, "{to}");
            gateway.event(Reason::Undeclared);
        }
    }
    assert_eq!(ground.canary(), 0);
    for (sent, to) in
        (1..).zip([format!("{FAR_V4}:53"), format!("[{FAR_V6}]:53"), format!("[::ffff:{FAR_V4}]:53")])
    {
        for connected in [false, true] {
            assert!(matches!(job.ask(&send(&to, connected)), Answer::Done { .. }), "{to}");
        }
        assert_eq!(ground.canary(), 2, "{to} ({sent})");
    }
}
