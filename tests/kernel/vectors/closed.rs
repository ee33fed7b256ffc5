//! Clients that write, close and are gone before the gateway accepts: what they wrote is theirs, and nobody else's.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use gateway_agent::kernel::{Config, Destination, Disposition, Protocol, Reason};

use super::{
    RESOURCE, far,
    steps::{addr, stream, to as dial},
};
use crate::{
    ask::{Answer, Ask, Step},
    ground::{Actor, FAR_V4, Gateway, Ground, PORT, User, World, declared},
    scenario::{Scenario, scenarios},
};

pub(super) const SCENARIOS: &[Scenario] = scenarios![
    [44] what_is_closed_at_once_arrives_with_its_job,
    [44] what_was_closed_before_it_was_accepted_is_still_its_jobs,
    [44, 39] a_port_used_again_by_hand_is_not_the_jobs,
    [44, 52] a_port_used_again_by_another_job_is_that_jobs,
    [43] a_socket_that_reconnected_leaves_its_last_destination,
    [45] what_waits_to_be_accepted_has_a_quota,
    [45] what_is_never_accepted_is_swept,
    [50] what_an_ended_job_left_is_nobodys,
];

fn leave(to: &str, words: &str, count: u32) -> Ask {
    Ask::Leave { from: None, to: addr(to), words: words.to_owned(), count }
}

/// Not a flow of anybody's: its end is reset, or its record gone.
fn nobodys(gateway: &Gateway) {
    let refused = gateway.words().map(|(flow, words)| (flow.job, words)).unwrap_err();
    let nobody = ["addresses cannot be read", "reset its connection", "no socket", "not redirected"];
    assert!(nobody.iter().any(|nobody| refused.contains(nobody)), "{refused}");
}

fn released(gateway: &Gateway) -> usize {
    let maps = gateway.kernel.status().unwrap().maps;
    maps.iter().find(|map| map.name == "RELEASED").unwrap().used
}

/// As tokio-postgres cancels: two hundred in a row, while the gateway accepts.
fn what_is_closed_at_once_arrives_with_its_job() {
    let World { ground, gateway, job } = World::start();
    gateway.hear();
    drop(job);
    for user in User::JOBS {
        let mut job = ground.actor_as("job", user);
        for to in far(RESOURCE) {
            job.done(&leave(&to, user.name(), 200));
            for turn in 0..200 {
                let (flow, words) = gateway.words().unwrap();
                assert_eq!((flow.job, flow.original), (ground.id("job"), addr(&to)));
                assert_eq!(words, format!("{} {turn}", user.name()));
            }
        }
    }
    assert_eq!(released(&gateway), 0, "each record is taken once");
    assert_eq!(ground.canary(), 0);
}

/// The same while it does not accept, from two jobs by turns: every socket is gone when it does.
fn what_was_closed_before_it_was_accepted_is_still_its_jobs() {
    let World { ground, gateway, mut job } = World::start();
    gateway.hear();
    gateway.kernel.add_job(ground.id("other")).unwrap();
    let mut other = ground.actor_as("other", User::Plain);
    gateway.pause();
    let mut wanted = Vec::new();
    for turn in 0..50 {
        for to in far(RESOURCE) {
            for (name, actor) in [("job", &mut job), ("other", &mut other)] {
                let words = format!("{name} {turn}");
                actor.done(&leave(&to, &words, 1));
                wanted.push((ground.id(name), addr(&to), format!("{words} 0")));
            }
        }
    }
    assert_eq!(released(&gateway), wanted.len());
    assert_eq!(gateway.count(Reason::ClosedEarly), wanted.len() as u64);
    gateway.resume();
    // Two listeners: the families keep their order, but not between them.
    let mut came: Vec<_> = wanted
        .iter()
        .map(|_| gateway.words().map(|(flow, words)| (flow.job, flow.original, words)).unwrap())
        .collect();
    came.sort();
    wanted.sort();
    assert_eq!(came, wanted);
    assert_eq!(released(&gateway), 0);
    assert_eq!(ground.canary(), 0);
}

/// Leaves a connection that nobody accepts, waits until its port is free, and lets somebody else use it.
fn twice(
    ground: &Ground,
    gateway: &Gateway,
    first: &mut Actor,
    second: &mut Actor,
    to: SocketAddr,
) -> SocketAddr {
    // Of this namespace: how long the first socket's ends are kept from others.
    std::fs::write("/proc/sys/net/ipv4/tcp_fin_timeout", "1").unwrap();
    gateway.pause();
    let left = Ask::Leave { from: None, to: addr(&far(RESOURCE)[0]), words: "first".into(), count: 1 };
    let Answer::Done { local: Some(from), .. } = first.ask(&left) else { panic!("nothing was left") };
    assert_eq!(released(gateway), 1);
    let again = Ask::Leave { from: Some(from), to, words: "second".into(), count: 1 };
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match second.ask(&again) {
            Answer::Done { .. } => break,
            Answer::Failed { errno: libc::EADDRNOTAVAIL | libc::EADDRINUSE, .. } => {}
            other => panic!("the port cannot be used again: {other:?}"),
        }
        assert!(Instant::now() < deadline, "the port is never free");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    assert_eq!(ground.canary(), 0);
    from
}

/// Whoever gets the ends of a job's connection before the gateway has accepted that one does not get its identity.
fn a_port_used_again_by_hand_is_not_the_jobs() {
    let World { ground, gateway, mut job } = World::start();
    gateway.hear();
    let mut bystander = ground.actor("bystander");
    twice(&ground, &gateway, &mut job, &mut bystander, addr(&format!("127.0.0.1:{PORT}")));
    assert_eq!(released(&gateway), 0, "the second connection outdated what the first had left");
    gateway.resume();
    nobodys(&gateway);
    nobodys(&gateway);
    // Its place was given back.
    job.done(&leave(&far(RESOURCE)[0], "again", 1));
    assert_eq!(gateway.words().unwrap().1, "again 0");
}

fn a_port_used_again_by_another_job_is_that_jobs() {
    let World { ground, gateway, mut job } = World::start();
    gateway.hear();
    gateway.kernel.add_job(ground.id("other")).unwrap();
    let mut other = ground.actor("other");
    let to = addr(&far(RESOURCE)[0]);
    let from = twice(&ground, &gateway, &mut job, &mut other, to);
    gateway.resume();
    nobodys(&gateway);
    let (flow, words) = gateway.words().unwrap();
    assert_eq!((flow.job, flow.peer), (ground.id("other"), from));
    assert_eq!(words, "second 0");
    assert_eq!(released(&gateway), 0);
}

/// connect, AF_UNSPEC, connect elsewhere, close: the record is the last one's, and the first connection is over.
fn a_socket_that_reconnected_leaves_its_last_destination() {
    let World { ground, gateway, mut job } = World::start();
    gateway.hear();
    let mut destinations = declared();
    destinations.push(Destination {
        net: format!("{FAR_V4}/32").parse().unwrap(),
        port: RESOURCE + 1,
        protocol: Protocol::Tcp,
        disposition: Disposition::Redirect,
    });
    gateway.kernel.replace_destinations(&destinations).unwrap();
    let (first, second) = (far(RESOURCE)[0].clone(), far(RESOURCE + 1)[0].clone());
    gateway.pause();
    job.done(&Ask::Script(vec![stream(&first), dial(&first), Step::Disconnect, dial(&second), Step::Send]));
    job.done(&Ask::CloseAll);
    // Disconnected for good: nothing is left of it.
    job.done(&Ask::Script(vec![stream(&first), dial(&first), Step::Disconnect]));
    job.done(&Ask::CloseAll);
    assert_eq!(released(&gateway), 1);
    gateway.resume();
    let mut came = Vec::new();
    for _ in 0..3 {
        came.extend(gateway.words().ok().map(|(flow, words)| (flow.original, words)));
    }
    assert_eq!(came, [(addr(&second), "datagram".to_owned())]);
    let origins = gateway.kernel.status().unwrap().maps;
    assert!(origins.iter().filter(|map| map.name != "JOBS" && map.name != "NETNS").all(|map| map.used == 0));
    assert_eq!(ground.canary(), 0);
}

fn with_quota(ground: &Ground, flows_per_job: u32) -> (Gateway, Actor, Actor) {
    let gateway = Gateway::start_with(ground, Config { flows_per_job, ..ground.config() });
    gateway.hear();
    gateway.kernel.replace_destinations(&declared()).unwrap();
    for job in ["job", "other"] {
        gateway.kernel.add_job(ground.id(job)).unwrap();
    }
    let (job, other) = (ground.actor("job"), ground.actor("other"));
    (gateway, job, other)
}

/// A job keeps as many as it may have open; what it closes beyond is lost, and nothing of a neighbour's is. What is
/// accepted makes room.
fn what_waits_to_be_accepted_has_a_quota() {
    let ground = Ground::new();
    let (gateway, mut job, mut other) = with_quota(&ground, 3);
    let to = far(RESOURCE)[0].clone();
    for _ in 0..3 {
        gateway.pause();
        job.done(&leave(&to, "mine", 5));
        other.done(&leave(&to, "other", 2));
        assert_eq!(released(&gateway), 5);
        gateway.resume();
        for turn in 0..3 {
            let (flow, words) = gateway.words().unwrap();
            assert_eq!((flow.job, words), (ground.id("job"), format!("mine {turn}")));
        }
        nobodys(&gateway);
        nobodys(&gateway);
        for turn in 0..2 {
            let (flow, words) = gateway.words().unwrap();
            assert_eq!((flow.job, words), (ground.id("other"), format!("other {turn}")));
        }
    }
    assert_eq!(ground.canary(), 0);
}

/// Old records go, and with them the right to be served: whoever is accepted later is nobody.
fn what_is_never_accepted_is_swept() {
    let ground = Ground::new();
    let (gateway, mut job, _other) = with_quota(&ground, 3);
    let to = far(RESOURCE)[0].clone();
    gateway.pause();
    job.done(&leave(&to, "old", 3));
    assert_eq!(gateway.kernel.sweep_released(Duration::from_secs(3600)).unwrap(), 0, "they are young");
    assert_eq!(released(&gateway), 3);
    assert_eq!(gateway.kernel.sweep_released(Duration::ZERO).unwrap(), 3);
    assert_eq!(gateway.kernel.sweep_released(Duration::ZERO).unwrap(), 0);
    // They make room.
    job.done(&leave(&to, "new", 3));
    gateway.resume();
    for _ in 0..3 {
        nobodys(&gateway);
    }
    for turn in 0..3 {
        assert_eq!(gateway.words().unwrap().1, format!("new {turn}"));
    }
    assert_eq!(ground.canary(), 0);
}

fn what_an_ended_job_left_is_nobodys() {
    let World { ground, gateway, mut job } = World::start();
    gateway.hear();
    gateway.pause();
    job.done(&leave(&far(RESOURCE)[0], "before", 1));
    gateway.kernel.remove_job(ground.id("job")).unwrap();
    gateway.kernel.add_job(ground.id("job")).unwrap();
    job.done(&leave(&far(RESOURCE)[0], "after", 1));
    gateway.resume();
    nobodys(&gateway);
    assert_eq!(gateway.words().unwrap().1, "after 0");
    assert_eq!(ground.canary(), 0);
}
