//! Decisions about statements: from the cache, from analysis, from a human.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use policy::{ApprovalTerms, Grant, Named, Planned};
use protocol::postgres::{AskKind, Params, Refusal, gate::Ruling};
use tokio::sync::oneshot;

use super::{
    Driver,
    gates::{Estimating, Passed},
};
use crate::{
    approval::{self, Binding},
    session::{
        observer::Approval,
        people,
        scope::{Answer, Decided},
    },
};

/// A statement may lead through this many layers of names; more is an attempt to keep the analysis busy.
const NAME_ROUNDS: usize = 3;

/// Who has to answer before the waiting statement can go on.
pub(super) enum Waiting {
    Nothing,
    /// Names may have changed: the catalogue is being read again.
    Catalogue(Pin<Box<dyn Future<Output = ()>>>),
    Analysis(Analysing),
    /// The statement may run, within limits that the server has to be asked about.
    Estimate(Estimating),
    Human(Asked),
}

pub(super) struct Analysing {
    ask: u64,
    receiver: oneshot::Receiver<Ruling>,
    epoch: u64,
    since: Instant,
    rounds: usize,
    approval: Option<Approval>,
    grant: Option<Grant>,
}

pub(super) struct Asked {
    ask: u64,
    outcome: Pin<Box<dyn Future<Output = approval::Outcome>>>,
    id: Arc<str>,
    since: Instant,
    binding: Binding,
    /// Limits are what people are asked about.
    beyond: bool,
    answer: std::rc::Rc<Answer>,
}

/// Limits that made the gateway ask.
pub(super) struct Because {
    pub(super) rules: Vec<Arc<str>>,
    pub(super) why: String,
}

pub(super) enum Answered {
    Catalogue,
    Ruling(Option<Ruling>),
    Estimate(Vec<Planned>),
    Human(approval::Outcome),
}

impl Waiting {
    /// The number of the statement that this is about.
    fn ask(&self) -> Option<u64> {
        match self {
            Self::Nothing | Self::Catalogue(_) => None,
            Self::Analysis(a) => Some(a.ask),
            Self::Estimate(e) => Some(e.ask),
            Self::Human(h) => Some(h.ask),
        }
    }

    /// The client may give up waiting.
    pub(super) fn may_be_cancelled(&self) -> bool {
        matches!(self, Self::Human(_) | Self::Estimate(_))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answered> {
        match self {
            Self::Nothing => Poll::Pending,
            Self::Catalogue(read) => read.as_mut().poll(cx).map(|()| Answered::Catalogue),
            Self::Analysis(a) => Pin::new(&mut a.receiver).poll(cx).map(|r| Answered::Ruling(r.ok())),
            Self::Estimate(e) => e.planned.as_mut().poll(cx).map(Answered::Estimate),
            Self::Human(h) => h.outcome.as_mut().poll(cx).map(Answered::Human),
        }
    }
}

impl Driver {
    /// Stops waiting for an answer about a statement that an error before it has overtaken.
    pub(super) fn drop_overtaken(&mut self) {
        if let Some(ask) = self.waiting.ask()
            && self.session.pending().is_none_or(|p| p.ask != ask)
        {
            self.waiting = Waiting::Nothing;
        }
    }

    /// A statement waits for a decision.
    pub(super) fn ask(&mut self) {
        let Some(decisions) = self.decisions.clone() else {
            // No statement is read before login, and login sets this.
            return self.session.deny(&internal("no decisions without a login"));
        };
        let open = decisions.scope().open;
        if let Some(reading) = decisions.reading().filter(|_| !open) {
            self.waiting = Waiting::Catalogue(Box::pin(reading));
            return;
        }
        if !decisions.names_known.get() && !open {
            // The next statement finds out whether it can be read by now.
            self.worker.catalogue_changed(&decisions);
            return self.session.deny(&internal("the server's catalogue cannot be read"));
        }
        if self.changed_names {
            // Its own change of names shows once it is committed, which may be after its reply.
            if self.session.settle() {
                return;
            }
            if !self.session.in_transaction() {
                self.changed_names = false;
                self.worker.catalogue_changed(&decisions);
                if let Some(reading) = decisions.reading() {
                    self.waiting = Waiting::Catalogue(Box::pin(reading));
                    return;
                }
            }
        }
        let Some(pending) = self.session.pending() else { return };
        let since = Instant::now();
        match decisions.find(pending.sql, crate::clock::now) {
            Some(answer) => self.answer(&answer, since),
            None => self.analyse(Vec::new(), 0, None, None),
        }
    }

    fn analyse(
        &mut self,
        names: Vec<(Named, String)>,
        rounds: usize,
        grant: Option<Grant>,
        approval: Option<Approval>,
    ) {
        let (Some(decisions), Some(pending)) = (&self.decisions, self.session.pending()) else { return };
        let asked = self.worker.analysis.decide(
            &decisions.scope(),
            pending.sql.to_owned(),
            names,
            grant.clone(),
            crate::clock::now(),
        );
        match asked {
            Ok(receiver) => {
                self.waiting = Waiting::Analysis(Analysing {
                    ask: pending.ask,
                    receiver,
                    epoch: decisions.epoch(),
                    since: Instant::now(),
                    rounds,
                    approval,
                    grant,
                });
            }
            Err(error) => self.session.deny(&internal(&error.to_string())),
        }
    }

    /// An answer that was waited for has come.
    pub(super) fn answered(&mut self, answered: Answered) {
        match (std::mem::replace(&mut self.waiting, Waiting::Nothing), answered) {
            (Waiting::Catalogue(_), Answered::Catalogue) => {
                self.follow_epoch();
                self.ask();
            }
            (Waiting::Analysis(asked), Answered::Ruling(Some(ruling))) => self.ruled(asked, ruling),
            (Waiting::Estimate(asked), Answered::Estimate(planned)) => self.estimated(asked, &planned),
            (Waiting::Human(asked), Answered::Human(outcome)) => self.human_answered(asked, outcome),
            _ => self.session.deny(&internal("statement analysis failed")),
        }
    }

    fn ruled(&mut self, asked: Analysing, ruling: Ruling) {
        let Analysing { ask, epoch, since, rounds, approval, grant, .. } = asked;
        self.observer.analysed(since.elapsed());
        let Some(decisions) = self.decisions.clone() else { return };
        if decisions.epoch() != epoch {
            // Decided under what is no longer in force.
            return self.ask();
        }
        if !ruling.unresolved.is_empty() && rounds < NAME_ROUNDS {
            // A name means what it means once everything before has run.
            if self.session.pending().is_some_and(|p| p.ask == ask) && self.session.settle() {
                return;
            }
            let names: Vec<_> = ruling
                .unresolved
                .iter()
                .filter_map(|name| Some((name.clone(), self.text_behind(name)?)))
                .collect();
            if !names.is_empty() {
                return self.analyse(names, rounds + 1, grant, approval);
            }
        }
        let Some(pending) = self.session.pending() else { return };
        let answer = decisions.keep(pending.sql, ruling, epoch, approval, &self.worker.shared.metrics);
        self.answer(&answer, since);
    }

    /// The text that a statement name or cursor of this session stands for.
    fn text_behind(&self, name: &Named) -> Option<String> {
        let (by_protocol, by_sql) = match name {
            Named::Prepared(n) => (self.session.prepared(n), self.observer.defined(name)),
            Named::Cursor(n) => (self.session.portal(n), self.observer.defined(name)),
        };
        by_protocol.map(|(sql, _)| sql.to_owned()).or(by_sql)
    }

    fn answer(&mut self, answer: &std::rc::Rc<Answer>, since: Instant) {
        let Some(pending) = self.session.pending() else { return };
        match &answer.outcome {
            Decided::Allow(_) if answer.gated => self.gate(answer, since),
            Decided::Allow(decision) => self.session.allow(Arc::clone(decision)),
            Decided::Deny(refusal) => {
                let kept = self.observer.denied(pending.sql, &answer.about, refusal, since.elapsed());
                self.session.deny(refusal);
                if let Err(lost) = kept {
                    self.end_unrecorded(&lost);
                }
            }
            // Preparing does nothing yet; the human sees the parameters when it is run.
            Decided::Approve(_) if matches!(pending.kind, AskKind::Parse | AskKind::Bind) => {
                self.session.defer()
            }
            // What limits have to say is asked about together with it.
            Decided::Approve(asking) if asking.ahead.is_empty() => {
                self.ask_human(answer, &asking.terms, None, since)
            }
            Decided::Approve(_) => self.gate(answer, since),
        }
    }

    pub(super) fn ask_human(
        &mut self,
        answer: &std::rc::Rc<Answer>,
        terms: &ApprovalTerms,
        because: Option<Because>,
        since: Instant,
    ) {
        let Some(pending) = self.session.pending() else { return };
        let (ask, sql) = (pending.ask, pending.sql.to_owned());
        if !pending.params.complete() {
            return self.refuse_approval(
                answer,
                &sql,
                "its parameters are too long to be shown to anyone",
                since,
            );
        }
        let Some(decisions) = &self.decisions else { return };
        let scope = decisions.scope();
        let live = &self.registration.live;
        let binding = Binding {
            statement: sql.clone(),
            params: values(pending.params),
            job: live.job,
            resource: live.resource(),
            policy_version: Arc::clone(scope.policy.version()),
        };
        let beyond = because.is_some();
        let mut rules = because.as_ref().map(|because| because.rules.clone()).unwrap_or_default();
        // Whoever of these asked for people was satisfied before limits were looked at, and stays so.
        rules.extend(
            answer.about.rules.iter().filter(|rule| !rules.contains(rule)).cloned().collect::<Vec<_>>(),
        );
        let request = approval::Request {
            because: because.map(|because| because.why),
            ..self.approval_request(binding.clone(), &rules, terms)
        };
        match self.worker.shared.approvals.request(request) {
            Ok(mut ticket) => {
                let id = Arc::clone(ticket.id());
                // Dropping the ticket takes the request back.
                if let Err(lost) = self.observer.approval(&id, "asked", &[]) {
                    return self.end_unrecorded(&lost);
                }
                self.session.notice(
                    &ticket.notice(),
                    Some("The statement runs when it is approved; cancel it to stop waiting."),
                );
                self.waiting = Waiting::Human(Asked {
                    ask,
                    outcome: Box::pin(async move { ticket.wait().await }),
                    id,
                    since: Instant::now(),
                    binding,
                    beyond,
                    answer: std::rc::Rc::clone(answer),
                });
            }
            Err(error) => self.refuse_approval(answer, &sql, &error.to_string(), since),
        }
    }

    pub(super) fn approval_request(
        &self,
        binding: Binding,
        rules: &[Arc<str>],
        terms: &ApprovalTerms,
    ) -> approval::Request {
        people::request(&self.registration.live, binding, rules, terms, None)
    }

    fn human_answered(&mut self, asked: Asked, outcome: approval::Outcome) {
        let Asked { ask, id, since, binding, beyond, answer, .. } = asked;
        self.observer.approval_took(since.elapsed());
        let sql = binding.statement.clone();
        let (word, by) = outcome.told();
        if let Err(lost) = self.observer.approval(&id, word, by) {
            return self.end_unrecorded(&lost);
        }
        match outcome {
            approval::Outcome::Approved(approved) => {
                let by = approved.by.clone();
                match approved.redeem(&binding) {
                    Ok((rules, version)) => {
                        if beyond {
                            self.passed = Some(Passed { ask, policy_version: Arc::clone(&version) });
                        }
                        let grant = Some(Grant::approved(rules, version));
                        self.analyse(Vec::new(), 0, grant, Some(Approval { id, by }));
                    }
                    Err(stale) => self.refuse_approval(&answer, &sql, &stale.to_string(), since),
                }
            }
            approval::Outcome::Denied { by, reason } => {
                let reason = match reason.is_empty() {
                    true => format!("{by} denied approval {id}"),
                    false => format!("{by} denied approval {id}: {reason}"),
                };
                self.refuse_approval(&answer, &sql, &reason, since);
            }
            approval::Outcome::Expired => {
                let reason = format!("nobody approved request {id} in time");
                self.refuse_approval(&answer, &sql, &reason, since);
            }
        }
    }

    fn refuse_approval(&mut self, answer: &Answer, sql: &str, reason: &str, since: Instant) {
        let rule = answer.about.rules.first().map_or("builtin:approval", |rule| &**rule);
        let refusal = Refusal::policy(
            rule,
            reason,
            Some(
                "This rule asks for a human's approval. Ask an approver, then run the statement again."
                    .to_owned(),
            ),
        );
        let kept = self.observer.denied(sql, &answer.about, &refusal, since.elapsed());
        self.session.deny(&refusal);
        if let Err(lost) = kept {
            self.end_unrecorded(&lost);
        }
    }
}

fn values(params: Params<'_>) -> Vec<Option<Vec<u8>>> {
    params.iter().map(|p| p.value.map(<[u8]>::to_vec)).collect()
}

fn internal(why: &str) -> Refusal {
    Refusal::policy(
        "builtin:fail-closed",
        why,
        Some("The gateway could not decide this and therefore refuses it; its log says more.".to_owned()),
    )
}
