//! The gateway's own life: killed, stopped, replaced, starved.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use gateway_agent::kernel::Reason;

use super::{RESOURCE, far, steps::addr};
use crate::{
    ask::{Answer, Ask, Hammered},
    ground::{FAR_V4, FAR_V6, Ground, World, declared},
    options,
    scenario::{Scenario, scenarios},
};

pub(super) const SCENARIOS: &[Scenario] = scenarios![
    [31] every_mandatory_hook_is_on,
    [47] nothing_works_without_a_heartbeat,
    [47, 49] a_killed_agent_leaves_everything_closed_and_comes_back_with_its_jobs,
    [47, 53] a_stopped_agent_leaves_everything_closed,
    [53] an_agent_killed_for_its_memory_leaves_everything_closed,
    [48, 49] replacing_the_programs_keeps_links_jobs_and_listeners,
    [48] swaps_under_a_hammer_leak_nothing_and_refuse_nothing,
];

fn connect(to: &str) -> Ask {
    Ask::Connect { to: addr(to) }
}

fn datagram(to: &str) -> Ask {
    Ask::Datagram { to: addr(to), connected: false }
}

fn every_mandatory_hook_is_on() {
    let World { ground: _ground, gateway, job: _job } = World::start();
    let status = gateway.kernel.status().unwrap();
    for hook in &status.hooks {
        match &hook.program {
            Ok(id) => assert!(*id > 0),
            Err(why) if hook.about.optional => println!("   {} is off: {why}", hook.hook.name()),
            Err(why) => panic!("{}: {why}", hook.hook.name()),
        }
    }
    assert!(status.heartbeat_age.unwrap().as_secs() < 2);
}

fn nothing_works_without_a_heartbeat() {
    let World { ground, mut gateway, mut job } = World::start();
    let to = &far(RESOURCE)[0];
    job.connect(to);
    gateway.flow().unwrap();
    gateway.stop_beating();
    assert_eq!(job.refused(&connect(to)), libc::EPERM);
    gateway.event(Reason::Stale);
    assert_eq!(job.refused(&datagram(&format!("{FAR_V4}:53"))), libc::EPERM);
    assert_eq!(ground.canary(), 0);
    // It comes back with the heartbeat.
    gateway.kernel.beat().unwrap();
    job.connect(to);
}

fn a_killed_agent_leaves_everything_closed_and_comes_back_with_its_jobs() {
    let ground = Ground::new();
    let agent = ground.agent();
    enrol(&ground);
    let to = &far(RESOURCE)[0];
    let mut job = ground.actor("job");
    job.connect(to);
    assert_eq!(agent.line(), *to);
    agent.kill();
    closed_after_death(&ground, &mut job);
    let agent = ground.agent();
    job.connect(to);
    assert_eq!(agent.line(), *to);
    assert_eq!(ground.canary(), 0);
}

fn a_stopped_agent_leaves_everything_closed() {
    let ground = Ground::new();
    let agent = ground.agent();
    enrol(&ground);
    let to = &far(RESOURCE)[0];
    let mut job = ground.actor("job");
    job.connect(to);
    assert_eq!(agent.line(), *to);
    agent.signal(rustix::process::Signal::STOP);
    until_refused(&mut job, &connect(to));
    assert_eq!(job.refused(&connect(to)), libc::EPERM);
    agent.signal(rustix::process::Signal::CONT);
    assert_eq!(ground.canary(), 0);
}

/// Where the memory controller is on the cgroup2 hierarchy, the kernel itself kills the agent; elsewhere the
/// signal that it would send is sent.
fn an_agent_killed_for_its_memory_leaves_everything_closed() {
    let ground = Ground::new();
    let agent = ground.agent();
    enrol(&ground);
    let mut job = ground.actor("job");
    agent.kill_for_its_memory(&ground);
    closed_after_death(&ground, &mut job);
}

/// Enrolled by another process over the same pins, as a restarted agent would find it.
fn enrol(ground: &Ground) {
    let kernel = ground.attach();
    kernel.replace_destinations(&declared()).unwrap();
    kernel.add_job(ground.id("job")).unwrap();
}

fn closed_after_death(ground: &Ground, job: &mut crate::ground::Actor) {
    let to = &far(RESOURCE)[0];
    // At once: nobody listens.
    let errno = job.refused(&connect(to));
    assert!(errno == libc::ECONNREFUSED || errno == libc::EPERM, "{errno}");
    // Undeclared destinations and datagrams stay refused; what is allowed goes stale within two seconds.
    assert_eq!(job.refused(&connect(&format!("{FAR_V4}:80"))), libc::EPERM);
    assert_eq!(job.refused(&datagram(&format!("{FAR_V4}:9999"))), libc::EPERM);
    assert_eq!(ground.canary(), 0);
    until_refused(job, &datagram(&format!("{FAR_V4}:53")));
    ground.canary();
    assert_eq!(job.refused(&connect(to)), libc::EPERM);
    assert_eq!(ground.canary(), 0);
}

/// Polls until the heartbeat counts as dead.
fn until_refused(job: &mut crate::ground::Actor, ask: &Ask) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Answer::Done { .. } = job.ask(ask) {
        assert!(Instant::now() < deadline, "the heartbeat never goes stale");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn replacing_the_programs_keeps_links_jobs_and_listeners() {
    let World { ground, gateway, mut job } = World::start();
    let before = gateway.kernel.status().unwrap();
    let after = ground.attach();
    assert_eq!(after.jobs().unwrap(), [ground.id("job")]);
    let status = after.status().unwrap();
    for (old, new) in before.hooks.iter().zip(&status.hooks) {
        if let (Ok(old), Ok(new)) = (&old.program, &new.program) {
            assert_ne!(old, new, "the link holds the new program");
        }
    }
    assert_eq!(job.refused(&connect(&format!("[{FAR_V6}]:80"))), libc::EPERM);
    job.connect(&far(RESOURCE)[0]);
    gateway.flow().unwrap();
    assert_eq!(ground.canary(), 0);
}

/// Both users hammer while programs and destinations are replaced: nothing forbidden passes, nothing allowed is
/// refused, and the wire is silent.
fn swaps_under_a_hammer_leak_nothing_and_refuse_nothing() {
    let World { ground, gateway, job } = World::start();
    drop(job);
    let swaps = options().swaps;
    let done = AtomicBool::new(false);
    let (first, second) = std::thread::scope(|scope| {
        let hammers = crate::ground::User::JOBS.map(|user| {
            let mut job = ground.actor_as("job", user);
            let done = &done;
            scope.spawn(move || {
                let [redirected, v6] = far(RESOURCE).map(|to| addr(&to));
                let mut sum = Hammered::default();
                while !done.load(Ordering::Relaxed) {
                    for (redirected, allowed, forbidden) in [
                        (redirected, addr(&format!("{FAR_V4}:53")), addr(&format!("{FAR_V4}:80"))),
                        (v6, addr(&format!("[{FAR_V6}]:53")), addr(&format!("[{FAR_V6}]:80"))),
                    ] {
                        let ask = Ask::Hammer { millis: 100, redirected, allowed, forbidden };
                        let Answer::Hammered(seen) = job.ask(&ask) else { panic!("no hammer") };
                        sum.allowed += seen.allowed;
                        sum.refused += seen.refused;
                        sum.forbidden += seen.forbidden;
                        sum.passed += seen.passed;
                        sum.errno = if seen.refused > 0 { seen.errno } else { sum.errno };
                    }
                }
                sum
            })
        });
        for turn in 0..swaps {
            drop(ground.attach());
            if turn % 10 == 0 {
                gateway.kernel.replace_destinations(&declared()).unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
        let [first, second] = hammers.map(|hammer| hammer.join().unwrap());
        (first, second)
    });
    let leaked = ground.canary();
    println!(
        "   {swaps} swaps: {} allowed connects, {} refused; {} forbidden ones, {} passed; {} packets",
        first.allowed + second.allowed,
        first.refused + second.refused,
        first.forbidden + second.forbidden,
        first.passed + second.passed,
        leaked
    );
    assert_eq!(leaked, 0);
    for seen in [first, second] {
        assert!(seen.allowed > 0 && seen.forbidden > 0, "{seen:?}");
        assert_eq!((seen.refused, seen.errno), (0, 0), "{seen:?}");
        assert_eq!(seen.passed, 0, "{seen:?}");
    }
}
