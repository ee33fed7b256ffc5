//! What a connection counts, and how much of it there may be.

use std::{cell::Cell, rc::Rc, time::Instant};

use policy::Bounded;

use super::{Session, ask::Granted};
use crate::session::{observer::Lost, registry::State};

impl Session {
    pub(super) fn next_channel(&self) -> u64 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    /// Another channel, if there may be one; given back when dropped.
    pub(super) fn admit_channel(self: &Rc<Self>) -> Result<Counted, Bounded<u32>> {
        let limits = self.limits.borrow();
        match &limits.channels {
            Some(bound) if self.open.get() >= bound.most as usize => Err(bound.clone()),
            _ => Ok(Counted::new(Rc::clone(self), |session| &session.open)),
        }
    }

    /// As long as it lives, a human is asked.
    pub(super) fn waiting(&self) -> Asking<'_> {
        self.asking.set(self.asking.get() + 1);
        self.note_state();
        Asking(self)
    }

    pub(super) fn within_rate(&self, granted: &Granted) -> Result<(), Bounded<u32>> {
        let limits = granted.allow.obligations.ssh.as_ref().map(|ssh| ssh.limits.per_minute.as_slice());
        self.shared().budgets.request(self.live.job, limits.unwrap_or_default()).map_err(Bounded::clone)
    }

    pub(super) fn moved(&self, from_job: u64, to_job: u64) {
        self.bytes.set(self.bytes.get() + from_job + to_job);
        self.last.set(Instant::now());
        self.log.moved(from_job, to_job);
    }

    /// Limits of the connection as a whole, and the host's own on idling.
    pub(super) fn exceeded(&self) -> Result<Option<String>, Lost> {
        let limits = self.limits.borrow().clone();
        let idle = self.last.get().elapsed();
        let (limit, rule, why) = match () {
            // Who waits for a human is not idle.
            () if self.asking.get() == 0 && limits.idle.as_ref().is_some_and(|bound| idle >= bound.most) => {
                ("idle", limits.idle.map(|bound| bound.rule), "idle for too long")
            }
            () if limits.duration.as_ref().is_some_and(|bound| self.began.elapsed() >= bound.most) => {
                ("duration", limits.duration.map(|bound| bound.rule), "open for too long")
            }
            () if limits.bytes.as_ref().is_some_and(|bound| self.bytes.get() > bound.most) => {
                ("bytes", limits.bytes.map(|bound| bound.rule), "too many bytes")
            }
            () => {
                let own = self.shared().config.sessions.idle_timeout;
                let idles = self.open.get() == 0 && own.is_some_and(|limit| idle >= limit);
                return Ok(idles.then(|| "idle for longer than the gateway allows".to_owned()));
            }
        };
        let rule = rule.unwrap_or_default();
        self.log.limit_exceeded(limit, &rule, why)?;
        Ok(Some(format!("ended by policy rule {rule}: {why}")))
    }

    pub(super) fn note_state(&self) {
        self.live.state.set(match (self.asking.get(), self.open.get()) {
            (0, 0) => State::Idle,
            (0, _) => State::Active,
            _ => State::AwaitingApproval,
        });
    }
}

/// One of something that is counted.
pub(super) struct Counted {
    session: Rc<Session>,
    what: fn(&Session) -> &Cell<usize>,
}

impl Counted {
    pub(super) fn new(session: Rc<Session>, what: fn(&Session) -> &Cell<usize>) -> Self {
        what(&session).set(what(&session).get() + 1);
        Self { session, what }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let count = (self.what)(&self.session);
        count.set(count.get().saturating_sub(1));
    }
}

/// As long as it lives, a human is asked.
pub(super) struct Asking<'a>(&'a Session);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asking.set(self.0.asking.get().saturating_sub(1));
        self.0.note_state();
    }
}
