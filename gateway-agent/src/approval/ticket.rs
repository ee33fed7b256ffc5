//! The waiting side of an approval.

use std::{sync::Arc, time::Duration};

use policy::UnixTime;
use tokio::sync::oneshot;

use super::{Binding, approvals::Shared};

/// A request that waits. Dropping it before an answer withdraws the request.
pub struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) id: Arc<str>,
    pub(super) approvers: Vec<String>,
    pub(super) quorum: u32,
    pub(super) expires: UnixTime,
    pub(super) wait: Duration,
    pub(super) answer: Option<oneshot::Receiver<Outcome>>,
}

/// How a request ended.
#[derive(Debug)]
pub enum Outcome {
    Approved(Approved),
    /// Someone said no, or the policy that asked is no longer in force.
    Denied {
        by: String,
        reason: String,
    },
    /// Nobody answered in time, which is a no.
    Expired,
}

impl Outcome {
    /// The word for it, and who said it.
    pub fn told(&self) -> (&'static str, &[String]) {
        match self {
            Self::Approved(approved) => ("approved", &approved.by),
            Self::Denied { by, .. } => ("denied", std::slice::from_ref(by)),
            Self::Expired => ("expired", &[]),
        }
    }
}

impl Ticket {
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// What the client is told while it waits.
    pub fn notice(&self) -> String {
        let people = if self.quorum == 1 { String::new() } else { format!(" ({} people)", self.quorum) };
        format!(
            "waiting for approval {} by {}{people}; it expires in {}",
            self.id,
            self.approvers.join(", "),
            humantime::format_duration(self.wait)
        )
    }

    /// Until an answer or expiry. Cancel-safe: may be polled in a `select!` again and again until it has
    /// returned once; after that it reports expiry.
    pub async fn wait(&mut self) -> Outcome {
        let Some(answer) = self.answer.as_mut() else { return Outcome::Expired };
        let left = self.shared.seconds_until(self.expires);
        let outcome = tokio::select! {
            biased;
            outcome = answer => outcome.unwrap_or(Outcome::Expired),
            () = tokio::time::sleep(left) => match self.shared.expire(&self.id) {
                true => Outcome::Expired,
                // An answer came at the last moment and is already in the channel.
                false => match self.answer.as_mut().map(oneshot::Receiver::try_recv) {
                    Some(Ok(outcome)) => outcome,
                    _ => Outcome::Expired,
                },
            },
        };
        self.answer = None;
        outcome
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // With an outcome taken this finds nothing waiting and does nothing.
        self.shared.withdraw(&self.id);
    }
}

/// A yes, good once. Not Clone.
#[must_use = "an approval that is not redeemed allows nothing"]
pub struct Approved {
    pub(super) shared: Arc<Shared>,
    pub(super) id: Arc<str>,
    pub(super) hash: blake3::Hash,
    pub(super) rules: Vec<Arc<str>>,
    pub(super) policy_version: Arc<str>,
    pub(super) expires: UnixTime,
    /// Who said yes, by name.
    pub by: Vec<String>,
}

/// Why a yes is no longer good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    #[error("what would run is not what was approved")]
    Changed,
    #[error("the approval expired before it was used")]
    Expired,
    #[error("the approval was used already")]
    Used,
}

impl Approved {
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Spends the approval on what runs now. Returns the rules and the policy version it answers for, to make
    /// a grant of.
    pub fn redeem(self, now_running: &Binding) -> Result<(Vec<Arc<str>>, Arc<str>), Stale> {
        // blake3::Hash compares in constant time.
        if now_running.hash() != self.hash {
            return Err(Stale::Changed);
        }
        if self.shared.seconds_until(self.expires).is_zero() {
            return Err(Stale::Expired);
        }
        if !self.shared.mark_used(&self.id) {
            return Err(Stale::Used);
        }
        Ok((self.rules, self.policy_version))
    }
}

impl std::fmt::Debug for Approved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Approved({} by {})", self.id, self.by.join(", "))
    }
}
