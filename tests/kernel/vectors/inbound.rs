//! The outside comes in.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use gateway_agent::kernel::Reason;

use super::steps::addr;
use crate::{
    ask::{Answer, Ask, Step},
    ground::{User, World},
    scenario::{Scenario, scenarios},
};

const HOST: [&str; 2] = ["198.51.100.1", "2001:db8:51::1"];

/// A connect that gives up after a second.
fn knock(host: &str, port: u16) -> Ask {
    let to = SocketAddr::new(host.parse::<IpAddr>().unwrap(), port);
    let family = if to.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    Ask::Script(vec![Step::Socket { family, kind: libc::SOCK_STREAM, protocol: 0 }, Step::Connect { to }])
}

pub(super) const SCENARIOS: &[Scenario] = scenarios![
    [35] a_jobs_listener_does_not_answer_the_outside,
    [35] listening_without_binding_does_not_answer_either,
    [35] a_datagram_from_outside_reaches_no_job,
];

fn a_jobs_listener_does_not_answer_the_outside() {
    let World { ground, mut gateway, mut job } = World::start();
    let mut outside = ground.far_actor();
    for (host, any) in HOST.iter().zip(["0.0.0.0:0", "[::]:0"]) {
        let Answer::Done { local: Some(local), .. } = job.ask(&Ask::Listen { on: addr(any) }) else {
            panic!("a job may listen on no address in particular")
        };
        outside.send(&knock(host, local.port()));
        let event = gateway.event(Reason::PacketIn);
        assert_eq!(event.job, Some(ground.id("job")));
        assert!(matches!(outside.answer(), Answer::Failed { .. }));
        outside.done(&Ask::Script(Vec::new()));
        assert_eq!(ground.canary(), 0);
        let on = SocketAddr::new(host.parse().unwrap(), 0);
        assert_eq!(job.refused(&Ask::Listen { on }), libc::EPERM);
        gateway.event(Reason::BindAddress);
    }
}

/// listen(2) binds by itself, past the bind hook.
fn listening_without_binding_does_not_answer_either() {
    let World { ground, mut gateway, job } = World::start();
    drop(job);
    let mut outside = ground.far_actor();
    for user in User::JOBS {
        let mut job = ground.actor_as("job", user);
        for (host, family) in HOST.iter().zip([libc::AF_INET, libc::AF_INET6]) {
            let steps = vec![Step::Socket { family, kind: libc::SOCK_STREAM, protocol: 0 }, Step::Listen];
            let Answer::Done { local: Some(local), .. } = job.ask(&Ask::Script(steps)) else {
                panic!("a job may listen")
            };
            outside.send(&knock(host, local.port()));
            assert_eq!(gateway.event(Reason::PacketIn).job, Some(ground.id("job")));
            assert!(matches!(outside.answer(), Answer::Failed { .. }));
            // Before the listener goes: the kernel itself would answer another try with a reset.
            outside.done(&Ask::Script(Vec::new()));
            assert_eq!(ground.canary(), 0);
        }
    }
}

fn a_datagram_from_outside_reaches_no_job() {
    let World { ground, mut gateway, job } = World::start();
    drop(job);
    let mut outside = ground.far_actor();
    for user in User::JOBS {
        let mut job = ground.actor_as("job", user);
        for (port, (host, family)) in (4000..).zip(HOST.iter().zip([libc::AF_INET, libc::AF_INET6])) {
            let any = if family == libc::AF_INET { "0.0.0.0" } else { "[::]" };
            job.send(&Ask::Script(vec![
                Step::Socket { family, kind: libc::SOCK_DGRAM, protocol: 0 },
                Step::Bind { to: addr(&format!("{any}:{port}")) },
                Step::Receive,
            ]));
            let to = SocketAddr::new(host.parse().unwrap(), port);
            // Until it is bound, the kernel answers that nobody is there.
            let mut event = None;
            let deadline = Instant::now() + Duration::from_secs(20);
            while event.is_none() {
                assert!(Instant::now() < deadline, "no hook sees the datagram come in");
                outside.done(&Ask::Datagram { to, connected: false });
                event = gateway.try_event(Reason::PacketIn);
            }
            match job.answer() {
                Answer::Failed { errno: libc::ETIMEDOUT, step: 2, .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    ground.canary();
}
