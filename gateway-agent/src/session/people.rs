//! Asking people about an action.

use std::sync::Arc;

use policy::{ApprovalTerms, Grant, Policy};

use super::{
    Shared,
    log::Log,
    observer::{Approval, Lost},
    registry::Live,
};
use crate::{
    approval::{self, Binding, Ticket},
    telemetry::Phase,
};

/// What they are asked.
pub(super) struct Question<'a> {
    /// The action, as they read it and as it is bound.
    pub(super) statement: String,
    pub(super) params: Vec<Option<Vec<u8>>>,
    pub(super) rules: &'a [Arc<str>],
    pub(super) terms: &'a ApprovalTerms,
    /// What else led to it.
    pub(super) because: Option<String>,
}

/// A yes, good under the version of the policy that asked; or why there is none.
pub(super) type Said = Result<(Grant, Approval), String>;

/// Asks, and writes down what was asked and answered. `wait` waits for the answer, or says why it no longer does; dropping this takes the
/// request back.
///
/// # Errors
/// When it cannot be written down.
pub(super) async fn ask(
    shared: &Shared,
    (live, log): (&Live, &Log),
    policy: &Policy,
    question: Question<'_>,
    wait: impl AsyncFnOnce(&mut Ticket) -> Result<approval::Outcome, String>,
) -> Result<Said, Lost> {
    let Question { statement, params, rules, terms, because } = question;
    let since = std::time::Instant::now();
    let binding = Binding {
        statement,
        params,
        job: live.job,
        resource: live.resource(),
        policy_version: Arc::clone(policy.version()),
    };
    let asking = request(live, binding.clone(), rules, terms, because);
    let mut ticket = match shared.approvals.request(asking) {
        Ok(ticket) => ticket,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let id = Arc::clone(ticket.id());
    log.approval(&id, "asked", &[]).await?;
    let outcome = match wait(&mut ticket).await {
        Ok(outcome) => outcome,
        Err(why) => return Ok(Err(why)),
    };
    log.took(Phase::Approval, since.elapsed());
    let (word, by) = outcome.told();
    log.approval(&id, word, by).await?;
    let approved = match outcome {
        approval::Outcome::Approved(approved) => approved,
        approval::Outcome::Denied { by, reason } => {
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            return Ok(Err(format!("{by} denied approval {id}{reason}")));
        }
        approval::Outcome::Expired => return Ok(Err(format!("nobody approved request {id} in time"))),
    };
    let by = approved.by.clone();
    Ok(match approved.redeem(&binding) {
        Ok((rules, version)) => Ok((Grant::approved(rules, version), Approval { id, by })),
        Err(stale) => Err(stale.to_string()),
    })
}

/// A request of a session.
pub(super) fn request(
    live: &Live,
    binding: Binding,
    rules: &[Arc<str>],
    terms: &ApprovalTerms,
    because: Option<String>,
) -> approval::Request {
    approval::Request {
        binding,
        session: Arc::clone(&live.id),
        subject: Arc::clone(&live.subject),
        cgroup: live.cgroup.clone(),
        job_uid: live.job_uid,
        process: approval::Process { pid: live.pid, uid: live.uid, command: live.command.clone() },
        rules: rules.to_vec(),
        because,
        terms: terms.clone(),
    }
}
