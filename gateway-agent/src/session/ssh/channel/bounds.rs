//! What ends a channel by policy.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use policy::{Bounded, SshLimits};
use tokio::time::sleep;

use crate::session::{observer::Lost, ssh::Session};

/// Limits of a channel, with when they end it.
pub(super) struct Bounds {
    limits: SshLimits,
    began: Instant,
    last: Cell<Instant>,
}

impl Bounds {
    pub(super) fn new(limits: SshLimits) -> Self {
        let now = Instant::now();
        Self { limits, began: now, last: Cell::new(now) }
    }

    pub(super) fn active(&self) {
        if self.limits.idle.is_some() {
            self.last.set(Instant::now());
        }
    }

    /// Returns when time ends it.
    pub(super) async fn due(&self) {
        let idle = self.limits.idle.as_ref().map(|idle| idle.most.saturating_sub(self.last.get().elapsed()));
        let whole = self.limits.duration.as_ref().map(|all| all.most.saturating_sub(self.began.elapsed()));
        match idle.into_iter().chain(whole).min() {
            Some(left) => sleep(left).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn exceeded(&self, session: &Session, bytes: u64) -> Result<Option<String>, Lost> {
        let by = |of: &Option<Bounded<Duration>>, took: Duration| {
            of.as_ref().filter(|bound| took >= bound.most).map(|bound| (bound.rule.clone(), bound.most))
        };
        let (limit, rule, why) = if let Some((rule, most)) = by(&self.limits.idle, self.last.get().elapsed())
        {
            ("idle", rule, format!("idle for {}", humantime::format_duration(most)))
        } else if let Some((rule, most)) = by(&self.limits.duration, self.began.elapsed()) {
            ("duration", rule, format!("open for {}", humantime::format_duration(most)))
        } else if let Some(bound) = self.limits.bytes.as_ref().filter(|bound| bytes > bound.most) {
            ("bytes", bound.rule.clone(), format!("more than {} bytes", bound.most))
        } else {
            return Ok(None);
        };
        session.log.limit_exceeded(limit, &rule, &why)?;
        Ok(Some(format!("ended by policy rule {rule}: {why}")))
    }
}
