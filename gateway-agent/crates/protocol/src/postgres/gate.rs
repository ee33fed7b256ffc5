//! From SQL text to one ruling: analyse every statement, ask policy about each, take the strictest answer.
//!
//! Pure, and as deep as the text nests: run it on a thread with a large stack.

use std::sync::Arc;

use policy::{
    Action, Ahead, ApprovalTerms, Class, Denial, Effect, Gates, Grant, Named, Policy, Question, Resource,
    Statement, Subject, UnixTime,
};

use super::{
    Allowed, Beforehand, Plannable,
    sql::{self, Catalogue},
};

/// Everything a ruling depends on besides the text.
pub struct Context<'a> {
    pub policy: &'a Policy,
    pub subject: &'a Subject,
    pub resource: &'a Resource,
    pub catalogue: &'a Catalogue,
    pub now: UnixTime,
    /// A human's agreement to exactly this text.
    pub grant: Option<&'a Grant>,
    /// Longest SQL text analysed, in bytes.
    pub max_bytes: usize,
}

/// The answer to one SQL string, which may hold several statements.
#[derive(Debug)]
pub struct Ruling {
    pub outcome: Outcome,
    /// Ids of the rules that decided, each once.
    pub rules: Vec<Arc<str>>,
    /// Kinds of the statements, in order.
    pub kinds: Vec<&'static str>,
    /// Earliest moment at which the answer may change by itself.
    pub valid_until: Option<UnixTime>,
    /// The same text gets the same answer in every session of this subject on this resource, until the
    /// policy or the catalogue changes.
    pub cacheable: bool,
    /// Names that `names` did not know. With them the answer could be another one.
    pub unresolved: Vec<Named>,
    /// Running it changes what names mean.
    pub changes_catalogue: bool,
    /// It is denied because the grammar does not know it.
    pub not_sql: bool,
    /// Policy lets everything through: see [`Decision::open`](super::Decision::open).
    pub open: bool,
    /// Limits that its statements meet before they run, of use where people are asked first.
    pub ahead: Vec<Beforehand>,
}

#[derive(Debug)]
pub enum Outcome {
    Allow(Vec<Allowed>),
    Approve(ApprovalTerms),
    Deny(Denial),
}

/// Decides `sql`. `names` finds the text behind a prepared statement or cursor of the session.
pub fn decide(cx: &Context<'_>, sql: &str, names: &dyn Fn(&Named) -> Option<String>) -> Ruling {
    if cx.policy.lets_everything(cx.subject, cx.resource) {
        return unrestricted(cx, sql);
    }
    let statements = match sql::analyse(sql, cx.catalogue, cx.max_bytes) {
        Ok(statements) => statements,
        Err(refused) => {
            let denial = Denial { reason: refused.reason, hint: refused.hint };
            return Ruling { not_sql: refused.not_sql, ..Ruling::deny("builtin:unparsable", denial) };
        }
    };
    let mut ruling = Ruling::about(&statements);
    for (index, statement) in statements.iter().enumerate() {
        ruling.changes_catalogue |= changes_catalogue(statement);
        if let Some(name) = &statement.refers {
            ruling.cacheable = false;
            let defined_here = || statements.iter().take(index).any(|s| s.defines.as_ref() == Some(name));
            match names(name) {
                // The definition stands in the same string and is decided with it.
                None if defined_here() => {}
                None => {
                    ruling.unresolved.push(name.clone());
                    let denial = Denial {
                        reason: format!("{} was not made in this session", describe(name)),
                        hint: "Create it through this connection first.".to_owned(),
                    };
                    ruling.refuse(&["builtin:unknown-name".into()], denial);
                }
                Some(text) => ruling.take_definition(cx, &text),
            }
        }
        ruling.take(cx, sql, index, statement.clone());
    }
    ruling
}

/// Where nothing restricts, reading only tells the log what ran.
fn unrestricted(cx: &Context<'_>, sql: &str) -> Ruling {
    let mut statements = sql::analyse(sql, cx.catalogue, cx.max_bytes).unwrap_or_default();
    if statements.is_empty() {
        statements.push(Statement::unread());
    }
    let mut ruling = Ruling { open: true, ..Ruling::about(&statements) };
    for (index, statement) in statements.into_iter().enumerate() {
        // Names are not followed: whatever they stand for is allowed.
        ruling.take(cx, sql, index, Statement { defines: None, refers: None, ..statement });
    }
    ruling
}

impl Ruling {
    /// Nothing is decided about these yet.
    fn about(statements: &[Statement]) -> Self {
        Self {
            outcome: Outcome::Allow(Vec::with_capacity(statements.len())),
            rules: Vec::new(),
            kinds: statements.iter().map(|s| s.kind).collect(),
            valid_until: None,
            cacheable: true,
            unresolved: Vec::new(),
            changes_catalogue: false,
            not_sql: false,
            open: false,
            ahead: Vec::new(),
        }
    }

    fn deny(rule: &str, denial: Denial) -> Self {
        Self { outcome: Outcome::Deny(denial), rules: vec![rule.into()], ..Self::about(&[]) }
    }

    /// The statement behind a name is decided anew: policy may have changed since it was made.
    fn take_definition(&mut self, cx: &Context<'_>, text: &str) {
        match sql::analyse(text, cx.catalogue, cx.max_bytes) {
            Ok(statements) => {
                for statement in statements {
                    let verdict = ask(cx, &Action::Statement(statement));
                    self.note(&verdict.rules, verdict.valid_until);
                    match verdict.effect {
                        Effect::Allow(_) => {}
                        Effect::Approve(terms) => self.need_approval(&verdict.rules, terms),
                        Effect::Deny(denial) => self.refuse(&verdict.rules, denial),
                    }
                }
            }
            Err(refused) => {
                let denial = Denial { reason: refused.reason, hint: refused.hint };
                self.refuse(&["builtin:unparsable".into()], denial);
            }
        }
    }

    fn take(&mut self, cx: &Context<'_>, sql: &str, index: usize, statement: Statement) {
        let action = Action::Statement(statement);
        let verdict = ask(cx, &action);
        self.note(&verdict.rules, verdict.valid_until);
        let Action::Statement(statement) = action else { return };
        let plan = |gates: Option<&Gates>| match gates
            .is_some_and(|gates| gates.before.iter().any(policy::Gate::needs_estimate))
        {
            true => sql::plannable(sql, index, statement.opaque),
            false => Plannable::Nothing,
        };
        match verdict.effect {
            Effect::Allow(allow) => {
                let plan = plan(allow.obligations.gates.as_deref());
                if let Some(gates) = &allow.obligations.gates {
                    let permit = allow.permit.own();
                    self.ahead.push(Beforehand { gates: Arc::clone(gates), plan: plan.clone(), permit });
                }
                if let Outcome::Allow(allowed) = &mut self.outcome {
                    let copy = (statement.kind == "copy_to_stdout")
                        .then(|| sql::copy_data(sql, index, cx.catalogue));
                    allowed.push(Allowed {
                        plan,
                        inert: inert(statement.kind),
                        allow,
                        rules: verdict.rules,
                        defines: statement.defines,
                        refers: statement.refers,
                        copy: copy.flatten(),
                    });
                }
            }
            Effect::Approve(terms) => {
                if let Some(Ahead { gates: Some(gates), permit }) = verdict.ahead {
                    let plan = plan(Some(&gates));
                    self.ahead.push(Beforehand { gates, plan, permit });
                }
                self.need_approval(&verdict.rules, terms);
            }
            Effect::Deny(denial) => self.refuse(&verdict.rules, denial),
        }
    }

    fn note(&mut self, rules: &[Arc<str>], valid_until: Option<UnixTime>) {
        // A denial is by the rules of the statement that was denied, whatever else the text holds.
        if !matches!(self.outcome, Outcome::Deny(_)) {
            for rule in rules {
                if !self.rules.contains(rule) {
                    self.rules.push(Arc::clone(rule));
                }
            }
        }
        self.valid_until = match (self.valid_until, valid_until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    fn refuse(&mut self, rules: &[Arc<str>], denial: Denial) {
        // The first reason is the one the user reads.
        if !matches!(self.outcome, Outcome::Deny(_)) {
            self.outcome = Outcome::Deny(denial);
            self.rules = rules.to_vec();
        }
    }

    fn need_approval(&mut self, rules: &[Arc<str>], terms: ApprovalTerms) {
        match &mut self.outcome {
            Outcome::Allow(_) => {
                self.outcome = Outcome::Approve(terms);
                // The rules that ask for people come first: the first one is named to the client.
                self.rules.sort_by_key(|rule| !rules.contains(rule));
            }
            Outcome::Approve(earlier) => match earlier.both(&terms) {
                Some(both) => *earlier = both,
                None => {
                    let denial = Denial {
                        reason: "the statements need approval by different people".to_owned(),
                        hint: "Send them one by one.".to_owned(),
                    };
                    let rules = self.rules.clone();
                    self.refuse(&rules, denial);
                }
            },
            Outcome::Deny(_) => {}
        }
    }
}

fn ask(cx: &Context<'_>, action: &Action) -> policy::Verdict {
    cx.policy.decide(&Question {
        subject: cx.subject,
        resource: cx.resource,
        action,
        now: cx.now,
        grant: cx.grant,
    })
}

fn changes_catalogue(statement: &Statement) -> bool {
    matches!(statement.class, Class::Ddl | Class::Privilege | Class::Code)
}

/// Commands that name objects and evaluate no expression. What triggers of theirs say carries a context.
fn inert(kind: &str) -> bool {
    const INERT: [&str; 12] = [
        "close",
        "comment",
        "deallocate",
        "listen",
        "lock",
        "notify",
        "release_savepoint",
        "rollback_to_savepoint",
        "set",
        "show",
        "truncate",
        "unlisten",
    ];
    INERT.contains(&kind) || kind.starts_with("drop_")
}

fn describe(name: &Named) -> String {
    match name {
        Named::Prepared(name) => format!("prepared statement \"{name}\""),
        Named::Cursor(name) => format!("cursor \"{name}\""),
    }
}
