//! Decisions about requests: from policy, from a human.

use std::{sync::Arc, time::Instant};

use policy::{Action, Allow, ApprovalTerms, Denial, Effect, Grant, Policy, Question, Verdict, builtin};

use super::{Session, kind::Asked, refusal::Refused};
use crate::session::{
    log::Said,
    observer::{Approval, Lost},
    people,
};

/// Longest line of a request that is shown, recorded and bound.
const LINE: usize = 16 * 1024;

/// An allow, and what led to it.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) rules: Vec<Arc<str>>,
    pub(super) allow: Allow,
    pub(super) approval: Option<Approval>,
}

/// What an ask came to.
pub(super) type Answer = Result<Granted, Refused>;

impl Asked {
    pub(super) fn said(&self) -> Said<'_> {
        Said { kind: "request", text: self.line.get(..LINE).unwrap_or(&self.line) }
    }
}

impl Session {
    /// Asks policy, without a human and without leaving a trace.
    pub(super) fn decide(&self, policy: &Policy, action: &Action, grant: Option<&Grant>) -> Verdict {
        let Some(subject) = policy.subject_named(&self.live.subject) else {
            return Verdict {
                effect: Effect::Deny(Denial {
                    reason: "policy no longer names this job".to_owned(),
                    hint: "enrol the job again".to_owned(),
                }),
                rules: vec![builtin::DEFAULT_DENY.into()],
                valid_until: None,
                ahead: None,
            };
        };
        let resource = self.resource();
        let now = crate::clock::now();
        policy.decide(&Question { subject: &subject, resource: &resource, action, now, grant })
    }

    /// Whether policy would still not refuse this.
    pub(super) fn still(&self, action: &Action) -> Result<(), Refused> {
        let policy = self.shared().policy.load_full();
        let verdict = self.decide(&policy.policy, action, None);
        match verdict.effect {
            Effect::Deny(denial) => Err(Refused::new(&verdict.rules, denial.reason, denial.hint)),
            Effect::Allow(_) | Effect::Approve(_) => Ok(()),
        }
    }

    /// Asks policy, and a human where policy wants one; `shown` is what the human sees besides the line: the body, and what the
    /// request would do.
    ///
    /// # Errors
    /// When what happened cannot be written down.
    pub(super) async fn ask(
        &self,
        asked: &Asked,
        verdict: Verdict,
        policy: &Policy,
        shown: (Option<&[u8]>, Option<String>),
        since: Instant,
    ) -> Result<Answer, Lost> {
        let answer = match verdict.effect {
            Effect::Allow(allow) => {
                return Ok(Ok(Granted { rules: verdict.rules, allow, approval: None }));
            }
            Effect::Deny(denial) => Err(Refused::new(&verdict.rules, denial.reason, denial.hint)),
            Effect::Approve(terms) => self.ask_human(policy, asked, shown, &verdict.rules, &terms).await?,
        };
        if let Err(refused) = &answer {
            let rules = std::slice::from_ref(&refused.rule);
            self.log.denied(asked.said(), rules, &refused.reason, since.elapsed()).await?;
        }
        Ok(answer)
    }

    async fn ask_human(
        &self,
        policy: &Policy,
        asked: &Asked,
        (body, because): (Option<&[u8]>, Option<String>),
        rules: &[Arc<str>],
        terms: &ApprovalTerms,
    ) -> Result<Answer, Lost> {
        let refused = |why: String| {
            Refused::new(rules, why, "ask an approver, then try again: this rule wants a human's approval")
        };
        let question = people::Question {
            statement: asked.line.clone(),
            params: body.map(|body| Some(body.to_vec())).into_iter().collect(),
            rules,
            terms,
            because,
        };
        let answered =
            people::ask(self.shared(), (&self.live, &self.log), policy, question, async |ticket| {
                let _waiting = Waiting::new(self);
                tokio::select! {
                    outcome = ticket.wait() => Ok(outcome),
                    why = self.ended() => Err(why.to_string()),
                }
            });
        let (grant, approval) = match answered.await? {
            Ok(yes) => yes,
            Err(why) => return Ok(Err(refused(why))),
        };
        // Under what is in force now: the grant is of the version that asked.
        let policy = self.shared().policy.load_full();
        let verdict = self.decide(&policy.policy, &asked.action, Some(&grant));
        Ok(match verdict.effect {
            Effect::Allow(allow) => Ok(Granted { rules: verdict.rules, allow, approval: Some(approval) }),
            Effect::Deny(denial) => Err(Refused::new(&verdict.rules, denial.reason, denial.hint)),
            Effect::Approve(_) => Err(refused("the approval does not cover this".to_owned())),
        })
    }
}

/// A request that waits for a human, for as long as this lives.
struct Waiting<'s>(&'s Session);

impl<'s> Waiting<'s> {
    fn new(session: &'s Session) -> Self {
        session.asking.set(session.asking.get().saturating_add(1));
        session.note_state();
        Self(session)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.asking.set(self.0.asking.get().saturating_sub(1));
        self.0.note_state();
    }
}
