//! Decisions shared by all sessions of a subject on a database, one cache per worker.
//!
//! A cache entry is found by the whole statement text or by its whole shape, never by a hash alone, and dies with the
//! policy, the catalogue or the moment it was good until.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
};

use arc_swap::ArcSwap;
use policy::{ApprovalTerms, Permit, UnixTime};
use prometheus::IntCounter;
use protocol::postgres::{
    Beforehand, Decision, Origin, Origins, Refusal,
    gate::{Outcome, Ruling},
    sql::{self, Catalogue},
};

use tokio::sync::watch;

use super::{analysis::Scope, observer::Approval};
use crate::{
    audit::Facts,
    telemetry::{Metrics, Verdict},
    upstream::{Place, Stay},
};

/// Text and overhead kept per scope before the cache starts anew.
const CACHE_BYTES: usize = 16 << 20;
const ENTRY_OVERHEAD: usize = 512;

/// Who asks where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub subject: Arc<str>,
    pub place: Place,
}

/// The decisions of one [`Key`] on one worker.
pub struct Decisions {
    pub key: Key,
    /// By which the catalogue is read.
    pub permit: Permit,
    _stay: Stay,
    /// False after the catalogue could not be read again: nothing can be decided until it can.
    pub names_known: Cell<bool>,
    /// Dropped by whoever is reading the catalogue when it is done.
    reading: RefCell<Option<watch::Receiver<()>>>,
    scope: RefCell<Arc<Scope>>,
    epoch: Cell<u64>,
    answers: RefCell<Answers>,
    pub origins: Arc<Names>,
}

/// Answers by text, and by the shape of texts that are analysed alike.
#[derive(Default)]
struct Answers {
    by_text: HashMap<Box<str>, Rc<Answer>>,
    by_shape: HashMap<Box<[u8]>, Rc<Answer>>,
    bytes: usize,
    /// The shape of the text that is looked for.
    shape: Vec<u8>,
}

/// A decided text.
pub struct Answer {
    pub outcome: Decided,
    pub about: Arc<About>,
    /// Limits have to be looked at each time before it runs.
    pub gated: bool,
    valid_until: Option<UnixTime>,
}

pub enum Decided {
    Allow(Arc<Decision>),
    Deny(Refusal),
    Approve(Asking),
}

/// People have to agree.
pub struct Asking {
    pub terms: ApprovalTerms,
    /// What limits will say then, which they are told.
    pub ahead: Vec<Beforehand>,
}

/// What recording, audit and metrics say about a decided text; made once, used at every run.
#[derive(Debug)]
pub struct About {
    pub rules: Vec<Arc<str>>,
    pub kinds: Vec<&'static str>,
    pub changes_catalogue: bool,
    /// Who agreed, when a human had to.
    pub approval: Option<Approval>,
    pub facts: Facts,
    /// The facts are without a text's hash: each run has its own.
    pub many_texts: bool,
    /// Counters of the verdict, by rule.
    pub decided: Vec<IntCounter>,
}

/// Names behind column origins; follows the catalogue in force.
pub struct Names(ArcSwap<Catalogue>);

impl Origins for Names {
    fn origin(&self, table_oid: u32, attnum: i16, with: &mut dyn FnMut(Origin<'_>)) {
        Origins::origin(&**self.0.load(), table_oid, attnum, with);
    }
}

impl Decisions {
    pub fn new(key: Key, permit: Permit, stay: Stay, scope: Scope, epoch: u64) -> Self {
        Self {
            key,
            permit,
            _stay: stay,
            names_known: Cell::new(true),
            reading: RefCell::default(),
            origins: Arc::new(Names(ArcSwap::new(Arc::clone(&scope.catalogue)))),
            scope: RefCell::new(Arc::new(scope)),
            epoch: Cell::new(epoch),
            answers: RefCell::default(),
        }
    }

    /// Changes whenever earlier answers stop counting.
    pub fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// Marks the catalogue as being read until the answer is dropped; `None` when it is being read already.
    pub fn begin_reading(&self) -> Option<watch::Sender<()>> {
        if self.reading().is_some() {
            return None;
        }
        let (done, receiver) = watch::channel(());
        *self.reading.borrow_mut() = Some(receiver);
        Some(done)
    }

    /// Ready once the catalogue that is being read is in force; `None` when none is being read.
    pub fn reading(&self) -> Option<impl Future<Output = ()> + use<>> {
        let mut receiver = self.reading.borrow().clone()?;
        if receiver.has_changed().is_err() {
            *self.reading.borrow_mut() = None;
            return None;
        }
        Some(async move { while receiver.changed().await.is_ok() {} })
    }

    pub fn scope(&self) -> Arc<Scope> {
        Arc::clone(&self.scope.borrow())
    }

    /// Puts another policy or catalogue in force.
    pub fn replace(&self, scope: Scope, epoch: u64) {
        self.origins.0.store(Arc::clone(&scope.catalogue));
        *self.scope.borrow_mut() = Arc::new(scope);
        self.epoch.set(epoch);
        self.forget();
    }

    /// The answer to `sql`, if it was given before and still counts.
    pub fn find(&self, sql: &str, now: impl FnOnce() -> UnixTime) -> Option<Rc<Answer>> {
        self.answers.borrow_mut().find(sql, now)
    }

    /// Keeps a ruling made under `epoch`, if it may be kept.
    pub fn keep(
        &self,
        sql: &str,
        ruling: Ruling,
        epoch: u64,
        approval: Option<Approval>,
        metrics: &Metrics,
    ) -> Rc<Answer> {
        let cacheable = ruling.cacheable && approval.is_none() && epoch == self.epoch.get();
        let gated = gated(&ruling);
        let answers = &mut *self.answers.borrow_mut();
        // An estimate is of one text.
        let shared = cacheable
            && !gated
            && matches!(ruling.outcome, Outcome::Allow(_))
            && sql::shape_counts(&ruling.kinds)
            && sql::shape(sql, &mut answers.shape);
        let answer = Answer::new((!shared).then_some(sql), ruling, epoch, approval, metrics);
        let answer = Rc::new(Answer { gated, ..answer });
        if cacheable {
            answers.keep(sql, shared, &answer);
        }
        answer
    }

    fn forget(&self) {
        *self.answers.borrow_mut() = Answers::default();
    }
}

impl Answers {
    fn find(&mut self, sql: &str, now: impl FnOnce() -> UnixTime) -> Option<Rc<Answer>> {
        let by_shape = match sql::shape(sql, &mut self.shape) {
            true => self.by_shape.get(&*self.shape),
            false => None,
        };
        let shared = by_shape.is_some();
        let answer = by_shape.or_else(|| self.by_text.get(sql)).map(Rc::clone)?;
        if answer.valid_until.is_some_and(|until| now() >= until) {
            match shared {
                true => self.by_shape.remove(&*self.shape),
                false => self.by_text.remove(sql),
            };
            return None;
        }
        Some(answer)
    }

    /// `shared`: for all texts of the shape that was looked at last.
    fn keep(&mut self, sql: &str, shared: bool, answer: &Rc<Answer>) {
        let size = sql.len() + ENTRY_OVERHEAD;
        if self.bytes + size > CACHE_BYTES {
            self.by_text.clear();
            self.by_shape.clear();
            self.bytes = 0;
        }
        self.bytes += size;
        let answer = Rc::clone(answer);
        match shared {
            true => self.by_shape.insert(self.shape.as_slice().into(), answer),
            false => self.by_text.insert(sql.into(), answer),
        };
    }
}

impl Answer {
    /// Without a text, the answer is for many.
    fn new(
        sql: Option<&str>,
        ruling: Ruling,
        epoch: u64,
        approval: Option<Approval>,
        metrics: &Metrics,
    ) -> Self {
        let (verdict, reason) = match &ruling.outcome {
            Outcome::Allow(_) => (Verdict::Allow, None),
            Outcome::Approve(_) => (Verdict::Approve, None),
            Outcome::Deny(denial) => (Verdict::Deny, Some(denial.reason.as_str())),
        };
        let masks = match &ruling.outcome {
            Outcome::Allow(statements) => statements.first().map(|s| Arc::clone(&s.allow.obligations.masks)),
            Outcome::Approve(_) | Outcome::Deny(_) => None,
        };
        let facts = Facts::statement(
            verdict.as_str(),
            &ruling.rules,
            &ruling.kinds.join(","),
            sql,
            false,
            masks.as_deref().unwrap_or_default(),
            reason,
        );
        let about = Arc::new(About {
            facts,
            many_texts: sql.is_none(),
            decided: ruling.rules.iter().map(|rule| metrics.decision(verdict, rule)).collect(),
            rules: ruling.rules,
            kinds: ruling.kinds,
            changes_catalogue: ruling.changes_catalogue,
            approval,
        });
        let outcome = match ruling.outcome {
            Outcome::Allow(statements) => Decided::Allow(Arc::new(Decision {
                statements,
                epoch,
                open: ruling.open,
                context: about.clone(),
            })),
            Outcome::Approve(terms) => Decided::Approve(Asking { terms, ahead: ruling.ahead }),
            Outcome::Deny(denial) => {
                let rule = about.rules.first().map_or("builtin:default-deny", |r| &**r);
                let refusal = Refusal::policy(rule, &denial.reason, Some(denial.hint));
                let sqlstate = if ruling.not_sql { Refusal::SYNTAX } else { refusal.sqlstate };
                Decided::Deny(Refusal { sqlstate, ..refusal })
            }
        };
        Self { outcome, about, gated: false, valid_until: ruling.valid_until }
    }
}

impl About {
    /// What is said of a statement that policy allows and a limit of this rule refuses.
    pub fn denied_by(rule: &Arc<str>, of: &Self, sql: &str, why: &str, metrics: &Metrics) -> Self {
        let rules = vec![Arc::clone(rule)];
        Self {
            facts: Facts::statement("deny", &rules, &of.kinds.join(","), Some(sql), false, &[], Some(why)),
            many_texts: false,
            decided: vec![metrics.decision(Verdict::Deny, rule)],
            rules,
            kinds: of.kinds.clone(),
            changes_catalogue: false,
            approval: None,
        }
    }
}

fn gated(ruling: &Ruling) -> bool {
    let Outcome::Allow(statements) = &ruling.outcome else { return false };
    let gates = statements.iter().filter_map(|statement| statement.allow.obligations.gates.as_ref());
    gates.into_iter().any(|gates| !gates.before.is_empty())
}
