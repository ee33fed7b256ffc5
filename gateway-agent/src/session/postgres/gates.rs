//! Limits that are looked at before a statement runs.

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc, time::Instant};

use policy::{Gates, Judgement, Permit, Planned};
use protocol::postgres::{AskKind, Plannable, Refusal};

use super::{
    Driver,
    ask::{Because, Waiting},
};
use crate::session::scope::{About, Answer, Decided};

/// Waiting for the server's estimates of a statement.
pub(super) struct Estimating {
    pub(super) ask: u64,
    pub(super) planned: Pin<Box<dyn Future<Output = Vec<Planned>>>>,
    answer: Rc<Answer>,
    epoch: u64,
    since: Instant,
    asked: Instant,
}

/// People agreed to this ask, whatever its limits say.
pub(super) struct Passed {
    pub(super) ask: u64,
    pub(super) policy_version: Arc<str>,
}

/// A statement of a text, as limits look at it.
struct Limited<'a> {
    plan: &'a Plannable,
    gates: Option<&'a Gates>,
    permit: &'a Permit,
}

/// The statements of a text that is allowed, or that people have to agree to.
fn limited(answer: &Answer) -> Vec<Limited<'_>> {
    match &answer.outcome {
        Decided::Allow(decision) => {
            let all = decision.statements.iter().map(|one| Limited {
                plan: &one.plan,
                gates: one.allow.obligations.gates.as_deref(),
                permit: &one.allow.permit,
            });
            all.collect()
        }
        Decided::Approve(asking) => {
            let all = asking.ahead.iter().map(|one| Limited {
                plan: &one.plan,
                gates: Some(&one.gates),
                permit: one.permit.opens(),
            });
            all.collect()
        }
        Decided::Deny(_) => Vec::new(),
    }
}

impl Driver {
    /// Looks at the limits of a statement, and then lets it run or not, or asks the people whom its rules or limits name.
    pub(super) fn gate(&mut self, answer: &Rc<Answer>, since: Instant) {
        let (Some(pending), Some(decisions)) = (self.session.pending(), &self.decisions) else { return };
        // Preparing runs nothing; what was prepared is looked at each time that it runs.
        if matches!(pending.kind, AskKind::Parse | AskKind::Bind) {
            return self.session.defer();
        }
        let epoch = decisions.epoch();
        let estimates = limited(answer).iter().any(|statement| *statement.plan != Plannable::Nothing);
        if !estimates || self.has_passed() {
            return self.judge(answer, &[], since);
        }
        let Some(side) = self.estimator.clone() else {
            let unknown = vec![Planned::Unknown("there is no connection to ask on".to_owned())];
            return self.judge(answer, &unknown, since);
        };
        let (types, params) = (pending.types.to_vec(), pending.params.bytes().to_vec());
        let complete = pending.params.complete();
        let of = Rc::clone(answer);
        let planned = async move {
            let mut planned = Vec::new();
            for statement in limited(&of) {
                planned.push(match statement.plan {
                    Plannable::Nothing => Planned::Nothing,
                    Plannable::Unknown(why) => Planned::Unknown((*why).to_owned()),
                    Plannable::Text(_) if !complete => {
                        Planned::Unknown("its parameters are too long to be kept".to_owned())
                    }
                    Plannable::Text(sql) => side.plan(statement.permit, sql, &types, &params).await,
                });
            }
            planned
        };
        self.waiting = Waiting::Estimate(Estimating {
            ask: pending.ask,
            planned: Box::pin(planned),
            answer: Rc::clone(answer),
            epoch,
            since,
            asked: Instant::now(),
        });
    }

    /// The server's estimates have come.
    pub(super) fn estimated(&mut self, asked: Estimating, planned: &[Planned]) {
        let Estimating { answer, epoch, since, asked, .. } = asked;
        self.observer.estimated(planned, asked.elapsed());
        match self.decisions.as_ref().is_some_and(|decisions| decisions.epoch() == epoch) {
            true => self.judge(&answer, planned, since),
            // Decided under what is no longer in force.
            false => self.ask(),
        }
    }

    fn has_passed(&self) -> bool {
        let (Some(passed), Some(pending), Some(decisions)) =
            (&self.passed, self.session.pending(), &self.decisions)
        else {
            return false;
        };
        passed.ask == pending.ask && passed.policy_version == *decisions.scope().policy.version()
    }

    fn judge(&mut self, answer: &Rc<Answer>, planned: &[Planned], since: Instant) {
        let statements = limited(answer);
        let gates: Vec<&Gates> = statements.iter().filter_map(|statement| statement.gates).collect();
        let mut judged = Judgement::Within;
        for (statement, planned) in statements.iter().zip(planned) {
            let before = statement.gates.iter().flat_map(|gates| &gates.before);
            for gate in before.filter(|gate| gate.needs_estimate()) {
                judged = judged.and(gate.judge(planned, 0));
            }
        }
        let job = self.registration.live.job;
        let budgets = &self.worker.shared.budgets;
        let judged = match &answer.outcome {
            // It counts once it runs.
            Decided::Approve(_) => budgets.look(job, &gates, judged),
            _ => budgets.spend(job, &gates, judged, self.has_passed()),
        };
        match judged {
            Judgement::Within => match &answer.outcome {
                Decided::Allow(decision) => self.session.allow(Arc::clone(decision)),
                Decided::Approve(asking) => self.ask_human(answer, &asking.terms, None, since),
                Decided::Deny(refusal) => self.session.deny(refusal),
            },
            Judgement::Beyond { rule, limit, why } => {
                self.worker.shared.metrics.limit_exceeded(limit, "deny");
                self.refuse_beyond(answer, &rule, &why, since);
            }
            Judgement::Ask { rules, terms, why } => {
                let (terms, because) = match &answer.outcome {
                    Decided::Approve(asking) => match asking.terms.both(&terms) {
                        Some(both) => (both, Some(also(answer, rules, &why))),
                        // Nobody may answer for both: the limit's people are asked when the rule's have agreed.
                        None => (asking.terms.clone(), None),
                    },
                    _ => (terms, Some(Because { rules, why })),
                };
                if because.is_some() {
                    self.worker.shared.metrics.limit_exceeded("before", "ask");
                }
                self.ask_human(answer, &terms, because, since);
            }
        }
    }

    fn refuse_beyond(&mut self, answer: &Answer, rule: &Arc<str>, why: &str, since: Instant) {
        let Some(pending) = self.session.pending() else { return };
        let refusal = Refusal {
            sqlstate: "54000",
            hint: Some(
                "Ask for less: narrow the WHERE, use an index, or run fewer statements; or ask for the rule's limit \
                 to be raised."
                    .to_owned(),
            ),
            ..Refusal::policy(rule, why, None)
        };
        let about = About::denied_by(rule, &answer.about, pending.sql, why, &self.worker.shared.metrics);
        let kept = self.observer.denied(pending.sql, &about, &refusal, since.elapsed());
        self.session.deny(&refusal);
        if let Err(lost) = kept {
            self.end_unrecorded(&lost);
        }
    }
}

/// A rule asks, and so do limits.
fn also(answer: &Answer, limits: Vec<Arc<str>>, why: &str) -> Because {
    let rules = &answer.about.rules;
    let asks = rules.first().map_or_else(|| "a rule asks".to_owned(), |rule| format!("rule {rule} asks"));
    let others = limits.into_iter().filter(|limit| !rules.contains(limit));
    Because { rules: rules.iter().cloned().chain(others).collect(), why: format!("{asks}; {why}") }
}
