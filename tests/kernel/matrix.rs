//! Every attempt, as both users, in every state of the gateway: one world a state.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use gateway_agent::kernel::{Events, Hook, Kernel, Reason};

use crate::{
    ask::{Answer, Ask},
    attempt::{Attempt, Expect, Verdict, answered},
    ground::{Actor, Agent, Doors, FAR_V4, FAR_V6, Ground, User, declared, emulated},
    options,
    vectors::{self, Place},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Up,
    /// Up, and every resolver is the gateway.
    Resolving,
    /// SIGKILL a moment ago, and until the heartbeat counts as dead.
    Killed,
    /// SIGSTOP, long enough ago that the heartbeat counts as dead.
    Stopped,
    /// Its programs are replaced over and over.
    Upgrading,
}

impl State {
    pub(crate) const ALL: [Self; 5] =
        [Self::Up, Self::Resolving, Self::Killed, Self::Stopped, Self::Upgrading];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Resolving => "resolving",
            Self::Killed => "killed",
            Self::Stopped => "stopped",
            Self::Upgrading => "upgrading",
        }
    }

    /// Nobody serves.
    fn is_dead(self) -> bool {
        matches!(self, Self::Killed | Self::Stopped)
    }
}

pub(crate) struct Outcome {
    pub(crate) rows: &'static [u8],
    pub(crate) name: String,
    pub(crate) user: User,
    pub(crate) state: State,
    pub(crate) verdict: Verdict,
}

pub(crate) struct Run {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) took: Duration,
    /// In the upgrading state: how often the programs were replaced meanwhile.
    pub(crate) swaps: u32,
}

/// Runs the attempts whose row or name the filter admits.
pub(crate) fn run(state: State, wanted: &dyn Fn(&Attempt) -> bool) -> Run {
    let started = Instant::now();
    let mut world = World::new(if state == State::Resolving { Ground::with_dns() } else { Ground::new() });
    world.prove_the_canary();
    let attempts: Vec<Attempt> =
        vectors::attempts(&world.place()).into_iter().filter(|attempt| wanted(attempt)).collect();
    let mut outcomes = Vec::new();
    let mut swaps = 0;
    match state {
        State::Up | State::Resolving => world.pass(state, &attempts, &mut outcomes),
        State::Killed => {
            if let Some(agent) = world.agent.take() {
                agent.kill();
            }
            world.pass(state, &attempts, &mut outcomes);
            world.wait_until_stale();
            world.pass(state, &attempts, &mut outcomes);
        }
        State::Stopped => {
            if let Some(agent) = &world.agent {
                agent.signal(rustix::process::Signal::STOP);
            }
            world.wait_until_stale();
            world.pass(state, &attempts, &mut outcomes);
        }
        State::Upgrading => swaps = world.upgrade_meanwhile(&attempts, &mut outcomes),
    }
    Run { outcomes, took: started.elapsed(), swaps }
}

struct World {
    actors: Vec<(User, Actor)>,
    bystander: Actor,
    agent: Option<Agent>,
    kernel: Kernel,
    events: Events,
    job: u64,
    lsm: bool,
    doors: Doors,
    ground: Ground,
}

impl World {
    fn new(ground: Ground) -> Self {
        // Maps and reader of this process; the agent takes the programs over.
        let kernel = ground.attach();
        let events = kernel.events().unwrap().unwrap();
        kernel.replace_destinations(&declared()).unwrap();
        let job = ground.id("job");
        kernel.add_job(job).unwrap();
        let agent = Some(ground.agent());
        let lsm = lsm_is_on(&kernel);
        let actors = User::JOBS.map(|user| (user, ground.actor_as("job", user))).into();
        let bystander = ground.actor("bystander");
        let doors = Doors::open(&ground);
        Self { actors, bystander, agent, kernel, events, job, lsm, doors, ground }
    }

    fn place(&self) -> Place {
        Place {
            cgroup: self.ground.cgroup.clone(),
            pin_dir: self.ground.pin_dir.clone(),
            far: self.ground.far().into(),
            stream: self.doors.stream.clone(),
            datagram: self.doors.datagram.clone(),
            neighbours: self.doors.neighbours(),
        }
    }

    /// A counter that counts nothing would pass everything.
    fn prove_the_canary(&mut self) {
        for to in [format!("{FAR_V4}:9999"), format!("[{FAR_V6}]:9999"), "203.0.113.9:9999".to_owned()] {
            self.bystander.done(&Ask::Datagram { to: to.parse().unwrap(), connected: false });
            assert_eq!(self.ground.canary(), 1, "the canary does not see {to}");
        }
    }

    fn wait_until_stale(&self) {
        let stale = Duration::from_millis(2100);
        while self.kernel.status().unwrap().heartbeat_age.unwrap() <= stale {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn pass(&mut self, state: State, attempts: &[Attempt], outcomes: &mut Vec<Outcome>) {
        for attempt in attempts {
            // With a hook off on purpose, many would wait for their end, and a few prove it.
            let failed =
                outcomes.iter().filter(|outcome| matches!(outcome.verdict, Verdict::Fail(_))).count();
            if options().broken.is_some() && failed >= 5 {
                return;
            }
            for place in 0..self.actors.len() {
                let user = self.actors[place].0;
                let verdict = self.attempt(state, attempt, place);
                outcomes.push(Outcome {
                    rows: attempt.rows,
                    name: attempt.name.clone(),
                    user,
                    state,
                    verdict,
                });
            }
        }
    }

    /// At least one pass, and at least some swaps in all of it.
    fn upgrade_meanwhile(&mut self, attempts: &[Attempt], outcomes: &mut Vec<Outcome>) -> u32 {
        let wanted = if emulated() { 2 } else { 10 };
        let swaps = AtomicU32::new(0);
        let done = AtomicBool::new(false);
        let config = self.ground.config();
        std::thread::scope(|scope| {
            let upgrading = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // A broken hook stays broken; it is the library alone that is asked here.
                    let attached = Kernel::attach(config.clone());
                    assert!(attached.is_ok(), "{:?}", attached.err());
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            });
            while swaps.load(Ordering::Relaxed) < wanted && !upgrading.is_finished() {
                self.pass(State::Upgrading, attempts, outcomes);
            }
            done.store(true, Ordering::Relaxed);
        });
        swaps.into_inner()
    }

    fn attempt(&mut self, state: State, attempt: &Attempt, place: usize) -> Verdict {
        let user = self.actors[place].0;
        let up = attempt.expect(user).clone();
        match &up {
            Expect::Skip(why) => return Verdict::NotHere((*why).to_owned()),
            Expect::Lsm(_) if !self.lsm => {
                return Verdict::NotHere(
                    "the LSM tier is off, and nothing else on this level sees it".into(),
                );
            }
            _ => {}
        }
        let expect = in_state(&up, state);
        self.forget();
        let answer = self.actors[place].1.ask(&attempt.ask());
        let arrived = self.ground.canary();
        if arrived > 0 {
            return Verdict::Fail(format!("{arrived} packets reached the far end: {answer:?}"));
        }
        // Cut off in the middle of a gateway's death, a connect may have got through to the listener.
        if state == State::Killed && matches!(up, Expect::Gateway { .. }) {
            return match &answer {
                Answer::Failed { errno: libc::EPERM | libc::ECONNREFUSED, .. } => Verdict::Pass,
                other if attempt.may_lack && is_lacking(other) => {
                    Verdict::NotHere("this kernel has none".into())
                }
                other => Verdict::Fail(format!("expected a refusal, got {other:?}")),
            };
        }
        match answered(&expect, &answer, attempt.may_lack, attempt.steps.len(), state.is_dead()) {
            Verdict::Pass => {}
            other => return other,
        }
        match &expect {
            Expect::Refused(reasons) | Expect::Lsm(reasons) | Expect::Dropped(reasons) => {
                // A packet that the kernel refused to build leaves no event.
                self.told(reasons)
            }
            Expect::Gateway { original, .. } => self.arrived(*original, attempt),
            Expect::Kernel(_) | Expect::Skip(_) => Verdict::Pass,
        }
    }

    fn forget(&mut self) {
        while self.events.next(Duration::ZERO).unwrap().is_some() {}
        if let Some(agent) = &self.agent {
            while agent.line_within(Duration::ZERO).is_some() {}
        }
    }

    /// An event with one of these reasons, about this job (or about nobody's process, where that is the point).
    fn told(&mut self, reasons: &[Reason]) -> Verdict {
        let mut seen = Vec::new();
        while let Some(event) = self.events.next(Duration::from_millis(300)).unwrap() {
            // Where a bystander is refused, or a listener is missing, no job is named.
            let of_nobody = matches!(event.reason, Reason::Protected | Reason::NoListener);
            let right_job = event.job == Some(self.job) || of_nobody;
            if right_job && reasons.contains(&event.reason) {
                return Verdict::Pass;
            }
            seen.push((event.hook.name(), event.reason.name()));
        }
        Verdict::Fail(format!("no event says {reasons:?}; there was {seen:?}"))
    }

    /// The agent saw exactly what the last connect of the script asked for.
    fn arrived(&self, original: std::net::SocketAddr, attempt: &Attempt) -> Verdict {
        let Some(agent) = &self.agent else { return Verdict::Fail("there is no agent".into()) };
        let mut said = Vec::new();
        while let Some(line) = agent.line_within(Duration::from_secs(2)) {
            if line == original.to_string() {
                return Verdict::Pass;
            }
            said.push(line);
        }
        Verdict::Fail(format!("{} did not come to the gateway as {original}; it said {said:?}", attempt.name))
    }
}

fn is_lacking(answer: &Answer) -> bool {
    matches!(answer, Answer::Failed { errno, .. } if crate::attempt::is_lack(*errno))
}

/// What an attempt comes to when the gateway is not up: what it would have refused it still refuses, perhaps
/// because nobody has heard of it for too long; what it would have served is refused.
fn in_state(up: &Expect, state: State) -> Expect {
    let dead = state.is_dead();
    let with_stale = |reasons: &[Reason]| {
        let mut reasons = reasons.to_vec();
        if dead {
            reasons.extend([Reason::Stale, Reason::NoListener]);
        }
        reasons
    };
    match up {
        Expect::Refused(reasons) => Expect::Refused(with_stale(reasons)),
        Expect::Lsm(reasons) => Expect::Lsm(with_stale(reasons)),
        Expect::Dropped(reasons) => Expect::Dropped(with_stale(reasons)),
        Expect::Gateway { .. } if dead => Expect::Refused(vec![Reason::Stale]),
        other => other.clone(),
    }
}

pub(crate) fn lsm_is_on(kernel: &Kernel) -> bool {
    let status = kernel.status().unwrap();
    status.hooks.iter().any(|hook| hook.hook == Hook::SocketCreate && hook.program.is_ok())
}
