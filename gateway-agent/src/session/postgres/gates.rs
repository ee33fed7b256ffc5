//! Limits that are looked at before an allowed statement runs.

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc, time::Instant};

use policy::{Gates, Judgement, Planned};
use protocol::postgres::{AskKind, Decision, Plannable, Refusal};

use super::{
    Driver,
    ask::{Because, Waiting},
};
use crate::session::scope::{About, Answer};

/// Waiting for the server's estimates of a statement.
pub(super) struct Estimating {
    pub(super) ask: u64,
    pub(super) planned: Pin<Box<dyn Future<Output = Vec<Planned>>>>,
    answer: Rc<Answer>,
    decision: Arc<Decision>,
    since: Instant,
    asked: Instant,
}

/// People agreed to this ask, whatever its limits say.
pub(super) struct Passed {
    pub(super) ask: u64,
    pub(super) policy_version: Arc<str>,
}

impl Driver {
    /// Looks at the limits of an allowed statement, and then lets it run or not.
    pub(super) fn gate(&mut self, answer: &Rc<Answer>, decision: &Arc<Decision>, since: Instant) {
        let Some(pending) = self.session.pending() else { return };
        // Preparing runs nothing; what was prepared is looked at each time that it runs.
        if matches!(pending.kind, AskKind::Parse | AskKind::Bind) {
            return self.session.defer();
        }
        let estimates = decision.statements.iter().any(|s| s.plan != Plannable::Nothing);
        if !estimates || self.has_passed() {
            return self.judge(answer, decision, &[], since);
        }
        let Some(side) = self.estimator.clone() else {
            let unknown = vec![Planned::Unknown("there is no connection to ask on".to_owned())];
            return self.judge(answer, decision, &unknown, since);
        };
        let (types, params) = (pending.types.to_vec(), pending.params.bytes().to_vec());
        let complete = pending.params.complete();
        let of = Arc::clone(decision);
        let planned = async move {
            let mut planned = Vec::with_capacity(of.statements.len());
            for statement in &of.statements {
                planned.push(match &statement.plan {
                    Plannable::Nothing => Planned::Nothing,
                    Plannable::Unknown(why) => Planned::Unknown((*why).to_owned()),
                    Plannable::Text(_) if !complete => {
                        Planned::Unknown("its parameters are too long to be kept".to_owned())
                    }
                    Plannable::Text(sql) => side.plan(&statement.allow.permit, sql, &types, &params).await,
                });
            }
            planned
        };
        self.waiting = Waiting::Estimate(Estimating {
            ask: pending.ask,
            planned: Box::pin(planned),
            answer: Rc::clone(answer),
            decision: Arc::clone(decision),
            since,
            asked: Instant::now(),
        });
    }

    /// The server's estimates have come.
    pub(super) fn estimated(&mut self, asked: Estimating, planned: &[Planned]) {
        let Estimating { answer, decision, since, asked, .. } = asked;
        self.observer.estimated(planned, asked.elapsed());
        match self.decisions.as_ref().is_some_and(|decisions| decisions.epoch() == decision.epoch) {
            true => self.judge(&answer, &decision, planned, since),
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

    fn judge(&mut self, answer: &Rc<Answer>, decision: &Arc<Decision>, planned: &[Planned], since: Instant) {
        let gates: Vec<&Gates> =
            decision.statements.iter().filter_map(|s| s.allow.obligations.gates.as_deref()).collect();
        let mut judged = Judgement::Within;
        for (statement, planned) in decision.statements.iter().zip(planned) {
            let before = statement.allow.obligations.gates.iter().flat_map(|gates| &gates.before);
            for gate in before.filter(|gate| gate.needs_estimate()) {
                judged = judged.and(gate.judge(planned, 0));
            }
        }
        let approved = self.has_passed();
        let job = self.registration.live.job;
        match self.worker.shared.budgets.spend(job, &gates, judged, approved) {
            Judgement::Within => self.session.allow(Arc::clone(decision)),
            Judgement::Beyond { rule, limit, why } => {
                self.worker.shared.metrics.limit_exceeded(limit, "deny");
                self.refuse_beyond(answer, &rule, &why, since);
            }
            Judgement::Ask { rules, terms, why } => {
                self.worker.shared.metrics.limit_exceeded("before", "ask");
                self.ask_human(answer, &terms, Some(Because { rules, why }), since);
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
