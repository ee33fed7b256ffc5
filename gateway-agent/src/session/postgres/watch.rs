//! Looks after statements that run long: their limits in time, and who blocks them.
//!
//! Most statements are over before anybody looks: one timer a session, which is not touched by each of them.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use policy::{Gates, Timed};
use protocol::postgres::{Decision, Refusal};
use tokio::time::{Sleep, sleep};

use super::Driver;
use crate::session::{
    observer::Front,
    side::{Blocked, SideError},
};

/// A statement that runs this long is looked at.
const SLOW: Duration = Duration::from_secs(1);
/// Without a limit on waiting, looks become rarer, down to this.
const RARELY: Duration = Duration::from_secs(10);
/// With one, they come this often at most and at least.
const OFTEN: Duration = Duration::from_millis(50);

/// What runs, and when to look at it next.
#[derive(Default)]
pub(super) struct Watch {
    now: Option<Running>,
    timer: Option<Pin<Box<Sleep>>>,
    probe: Option<Probe>,
    /// A wait whose end has not been told yet.
    ended: Option<Duration>,
    /// A run that is known to be over, though its end was not told.
    over: Option<u64>,
}

struct Running {
    run: u64,
    n: u64,
    since: Instant,
    time: Option<Timed>,
    lock_wait: Option<Timed>,
    probed: Option<Instant>,
    /// Since when it waits for a lock.
    waits: Option<Instant>,
    /// It is being cancelled.
    over: bool,
}

type Probe = Pin<Box<dyn Future<Output = (u64, Result<Option<Blocked>, SideError>)>>>;

pub(super) enum Look {
    /// It is time to.
    Due,
    Blocked(u64, Result<Option<Blocked>, SideError>),
    /// A wait for a lock is over.
    Waited(Duration),
}

impl Watch {
    /// Notes what the server is at now.
    pub(super) fn follow(&mut self, front: Option<Front<'_>>) {
        let front = front.filter(|front| self.over != Some(front.run));
        if self.now.as_ref().map(|now| now.run) == front.map(|front| front.run) {
            return;
        }
        let was = self.now.take();
        self.ended = was.and_then(|was| was.waits).map(|since| since.elapsed());
        let Some(front) = front else { return };
        // Behind others, its time begins when theirs ends.
        let since = if front.alone { front.began } else { Instant::now() };
        let (time, lock_wait) = limits(front.decision);
        let soonest = [&time, &lock_wait].into_iter().flatten().map(|timed| timed.most).min();
        self.now = Some(Running {
            run: front.run,
            n: front.n,
            since,
            time,
            lock_wait,
            probed: None,
            waits: None,
            over: false,
        });
        match soonest {
            Some(soonest) => self.wake_in(soonest.min(SLOW).saturating_sub(since.elapsed())),
            None if self.timer.is_none() => self.timer = Some(Box::pin(sleep(SLOW))),
            None => {}
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Look> {
        if let Some(waited) = self.ended.take() {
            return Poll::Ready(Look::Waited(waited));
        }
        if let Some(probe) = &mut self.probe
            && let Poll::Ready((run, blocked)) = probe.as_mut().poll(cx)
        {
            self.probe = None;
            return Poll::Ready(Look::Blocked(run, blocked));
        }
        match &mut self.timer {
            Some(timer) => {
                std::task::ready!(timer.as_mut().poll(cx));
                self.timer = None;
                Poll::Ready(Look::Due)
            }
            None => Poll::Pending,
        }
    }

    fn wake_in(&mut self, wait: Duration) {
        self.timer = Some(Box::pin(sleep(wait.max(Duration::from_millis(1)))));
    }
}

impl Running {
    /// How long between two looks at its locks.
    fn pace(&self) -> Duration {
        match &self.lock_wait {
            Some(limit) => (limit.most / 4).clamp(OFTEN, SLOW),
            None => (self.since.elapsed() / 4).clamp(SLOW, RARELY),
        }
    }

    fn probe_in(&self) -> Duration {
        let first = self.lock_wait.as_ref().map_or(SLOW, |limit| (limit.most / 2).min(SLOW));
        match self.probed {
            None => first.saturating_sub(self.since.elapsed()),
            Some(probed) => self.pace().saturating_sub(probed.elapsed()),
        }
    }
}

/// The strictest of the statements that run together.
fn limits(decision: &Arc<Decision>) -> (Option<Timed>, Option<Timed>) {
    let gates = || decision.statements.iter().filter_map(|s| s.allow.obligations.gates.as_deref());
    let strictest =
        |of: fn(&Gates) -> Option<&Timed>| gates().filter_map(of).min_by_key(|timed| timed.most).cloned();
    (strictest(|gates| gates.time.as_ref()), strictest(|gates| gates.lock_wait.as_ref()))
}

impl Driver {
    pub(super) fn look(&mut self, look: Look) {
        match look {
            Look::Due => self.look_at_time(),
            Look::Blocked(run, blocked) => self.look_at_locks(run, blocked),
            Look::Waited(waited) => self.observer.lock_waited(waited),
        }
    }

    fn look_at_time(&mut self) {
        let Some(now) = &self.watch.now else { return };
        let (run, n, ran) = (now.run, now.n, now.since.elapsed());
        if self.session.idle() {
            // Of a text that could not be read nobody tells which result is its last.
            self.watch.over = Some(run);
            self.watch.now = None;
            return;
        }
        let late = now.time.clone().filter(|limit| ran >= limit.most && !now.over);
        if let Some(limit) = late {
            let why = format!("it ran longer than {}", humantime::format_duration(limit.most));
            self.stop_run(run, n, "time", &limit, &why);
        }
        let Some(now) = &mut self.watch.now else { return };
        let mut next = now.probe_in();
        if next.is_zero() && self.watch.probe.is_none() {
            now.probed = Some(Instant::now());
            next = now.pace();
            self.watch.probe = self.probe(run);
        }
        let Some(now) = &self.watch.now else { return };
        if let Some(limit) = now.time.as_ref().filter(|_| !now.over) {
            next = next.min(limit.most.saturating_sub(ran).max(OFTEN));
        }
        self.watch.wake_in(next.max(OFTEN));
    }

    fn probe(&self, run: u64) -> Option<Probe> {
        let (side, decisions) = (self.prober.clone()?, self.decisions.clone()?);
        let pid = self.session.upstream_key()?.pid;
        Some(Box::pin(async move { (run, side.blocked(&decisions.permit, pid).await) }))
    }

    fn look_at_locks(&mut self, run: u64, blocked: Result<Option<Blocked>, SideError>) {
        let blocked = match blocked {
            Ok(blocked) => blocked,
            Err(error) => {
                tracing::warn!(%error, session = %self.registration.live.id, "who blocks cannot be told");
                return;
            }
        };
        let Some(now) = self.watch.now.as_mut().filter(|now| now.run == run) else { return };
        let Some(blocked) = blocked else {
            if let Some(since) = now.waits.take() {
                self.observer.lock_waited(since.elapsed());
            }
            return;
        };
        let first = now.waits.is_none();
        let told = blocked.waited.and_then(|waited| Instant::now().checked_sub(waited));
        let waits = *now.waits.get_or_insert_with(|| told.unwrap_or_else(Instant::now).max(now.since));
        let waited = waits.elapsed();
        let (n, over) = (now.n, now.over);
        let late = now.lock_wait.clone().filter(|limit| waited >= limit.most && !over);
        if first {
            let server = self.flow.original;
            let session =
                blocked.by.iter().find_map(|by| self.worker.shared.registry.of_backend(server, by.pid));
            self.observer.lock_wait(n, waited, &blocked, session.as_ref().map(|live| &*live.id));
        }
        if let Some(limit) = late {
            let pids: Vec<_> = blocked.by.iter().map(|by| by.pid.to_string()).collect();
            let why = format!(
                "it waited longer than {} for {}, held by process {}",
                humantime::format_duration(limit.most),
                blocked.lock,
                pids.join(", ")
            );
            self.stop_run(run, n, "lock_wait", &limit, &why);
        }
    }

    /// Cancels what runs because of a limit.
    fn stop_run(&mut self, run: u64, n: u64, what: &'static str, limit: &Timed, why: &str) {
        let refusal = Refusal {
            sqlstate: "57014",
            message: format!("cancelled by policy rule {}: {why}", limit.rule),
            detail: None,
            hint: Some(match what {
                "time" => "Ask for less: narrow the WHERE, use an index, or split the work.".to_owned(),
                _ => "Try again later, or have whoever holds the lock finish.".to_owned(),
            }),
        };
        // Not yet at it, or it is just ending: the next look finds out.
        if self.cancelling.is_none() && self.session.cancel_run(run, &refusal) {
            if let Some(now) = &mut self.watch.now {
                now.over = true;
            }
            self.observer.limit_exceeded(n, what, &limit.rule, why);
        }
    }
}
