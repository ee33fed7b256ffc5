//! How a question is answered.
//!
//! 1. A deny rule that the action touches denies it.
//! 2. Everything the action needs has to be granted by allow rules, or by approve rules that it touches.
//! 3. Masked columns must not tell their values by other ways than the result.
//! 4. An approve rule that it touches asks people, unless they have agreed.
//! 5. Otherwise it is allowed, under the obligations of every rule that granted something.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use crate::{
    action::{Action, Class, Column, ColumnUse, Connect, Statement},
    builtin,
    facts::{Facts, Need, Touch, write_column},
    gate::{Gates, Timed},
    http, kubernetes,
    mask_set::MaskSet,
    own::OwnPermit,
    policy::{Policy, Question, Scope},
    raw::RuleEffect,
    rule::{Rule, RuleLimits},
    ssh::evaluate,
    verdict::{
        Ahead, Allow, ApprovalTerms, Denial, Effect, Limits, Obligations, OutputMasks, Permit, UnixTime,
        Verdict,
    },
};

/// A question and what was found out about it.
pub(crate) struct Evaluation<'a> {
    question: &'a Question<'a>,
    scope: Option<&'a Scope>,
    outcome: Outcome<'a>,
    /// What nothing grants.
    pub(crate) uncovered: Vec<Need<'a>>,
    /// The same of a request to an SSH or HTTP host.
    pub(crate) missing: Vec<String>,
}

pub(crate) enum Outcome<'a> {
    Denied { rules: Vec<Arc<str>>, denial: Denial },
    Approve { asking: Vec<&'a Rule>, granting: Vec<&'a Rule> },
    Allowed { granting: Vec<&'a Rule> },
}

impl<'a> Evaluation<'a> {
    pub(crate) fn of(policy: &'a Policy, question: &'a Question<'a>) -> Self {
        let scope = policy.scope(question);
        let (mut uncovered, mut missing) = (Vec::new(), Vec::new());
        let outcome = match (scope, question.action) {
            (None, _) => nothing_known(question),
            (Some(scope), Action::Connect(connect)) => connecting(policy, question, scope, connect),
            (Some(_), Action::Statement(_)) if question.resource.postgres().is_none() => {
                let reason =
                    format!("resource {} is of kind {}", question.resource.name, question.resource.kind());
                deny(builtin::DEFAULT_DENY, reason, "connect to it by its own protocol")
            }
            (Some(scope), Action::Statement(statement)) => {
                running(policy, question, scope, statement, &mut uncovered)
            }
            (Some(scope), Action::Ssh(ssh)) => evaluate::asked(policy, question, scope, ssh, &mut missing),
            (Some(scope), Action::Http(http)) => {
                http::evaluate::asked(policy, question, scope, http, &mut missing)
            }
            (Some(scope), Action::Kubernetes(action)) => {
                kubernetes::evaluate::asked(policy, question, scope, action, &mut missing)
            }
        };
        Self { question, scope, outcome, uncovered, missing }
    }

    pub(crate) fn verdict(self) -> Verdict {
        let valid_until = self.scope.and_then(|scope| next_change(scope, self.question.now));
        let mut ahead = None;
        let (effect, rules) = match self.outcome {
            Outcome::Denied { rules, denial } => (Effect::Deny(denial), rules),
            Outcome::Approve { asking, granting } => {
                let rules = ids(asking.iter().chain(&granting));
                let permit = OwnPermit::new(&self.question.resource.name);
                ahead = match (self.question.action, limits(&granting).1) {
                    (Action::Statement(_), gates @ Some(_)) => Some(Ahead { gates, permit }),
                    (Action::Kubernetes(_), _) => Some(Ahead { gates: None, permit }),
                    _ => None,
                };
                (Effect::Approve(terms(&asking)), rules)
            }
            Outcome::Allowed { granting } => {
                let obligations =
                    self.scope.map_or_else(Obligations::default, |scope| match self.question.action {
                        Action::Ssh(ssh) => evaluate::obligations(&granting, &scope.masks, ssh),
                        Action::Http(http) => http::evaluate::obligations(&granting, &scope.masks, http),
                        Action::Kubernetes(_) => kubernetes::evaluate::obligations(&granting, &scope.masks),
                        action => obligations(&granting, &scope.masks, action),
                    });
                let permit = Permit { resource: self.question.resource.name.clone(), only: None };
                (Effect::Allow(Allow { permit, obligations }), ids(granting.iter()))
            }
        };
        Verdict { effect, rules, valid_until, ahead }
    }
}

const LEAVE_OUT: &str = "leave it out of the statement, or ask for the policy to be changed";

/// The moment at which the first rule that counts now no longer does.
fn next_change(scope: &Scope, now: UnixTime) -> Option<UnixTime> {
    scope.rules.iter().filter_map(|rule| rule.expires).filter(|expires| *expires > now).min()
}

fn ids<'a>(rules: impl Iterator<Item = &'a &'a Rule>) -> Vec<Arc<str>> {
    let mut ids: Vec<Arc<str>> = Vec::new();
    for rule in rules {
        if !ids.contains(&rule.id) {
            ids.push(rule.id.clone());
        }
    }
    ids
}

pub(crate) fn deny<'a>(rule: &str, reason: String, hint: impl Into<String>) -> Outcome<'a> {
    Outcome::Denied { rules: vec![Arc::from(rule)], denial: Denial { reason, hint: hint.into() } }
}

fn nothing_known<'a>(question: &Question<'_>) -> Outcome<'a> {
    deny(
        builtin::DEFAULT_DENY,
        format!(
            "the policy has nothing for subject {} on resource {}",
            question.subject.name, question.resource.name
        ),
        "the policy has changed since this session began: connect again",
    )
}

fn connecting<'a>(
    policy: &Policy,
    question: &Question<'_>,
    scope: &'a Scope,
    connect: &Connect,
) -> Outcome<'a> {
    if !question.resource.has_database(&connect.database) {
        return deny(
            builtin::DEFAULT_DENY,
            format!("resource {} has no database {:?}", question.resource.name, connect.database),
            "name one of the resource's databases",
        );
    }
    let live = |effect: RuleEffect| live(scope, question.now, effect).filter(|rule| rule.connect);
    if live(RuleEffect::Deny).next().is_some() {
        let rules: Vec<_> = live(RuleEffect::Deny).collect();
        return denied_by(&rules, "connecting".to_owned(), LEAVE_OUT);
    }
    let asking: Vec<_> = live(RuleEffect::Approve).collect();
    let granting: Vec<_> = live(RuleEffect::Allow).chain(asking.iter().copied()).collect();
    if granting.is_empty() {
        return deny(
            builtin::DEFAULT_DENY,
            format!("no rule allows {} to connect to {}", question.subject.name, question.resource.name),
            "a rule with `connect: true` would",
        );
    }
    decided(policy, question, asking, granting)
}

fn running<'a>(
    policy: &Policy,
    question: &Question<'a>,
    scope: &'a Scope,
    statement: &'a Statement,
    uncovered: &mut Vec<Need<'a>>,
) -> Outcome<'a> {
    let everything: Vec<_> =
        live(scope, question.now, RuleEffect::Allow).filter(|rule| rule.lets_everything()).collect();
    if !everything.is_empty() {
        // Loading has made sure that nothing restricts.
        return Outcome::Allowed { granting: everything };
    }
    let facts = Facts::new(statement, question.resource.search_path());
    let touching = |effect: RuleEffect| {
        live(scope, question.now, effect)
            .filter_map(|rule| Some((rule, facts.touched(rule.statements.as_ref()?)?)))
            .collect::<Vec<_>>()
    };
    let denying = touching(RuleEffect::Deny);
    if let Some((_, touch)) = denying.first() {
        let what = describe_touch(&facts, *touch);
        let rules: Vec<_> = denying.iter().map(|(rule, _)| *rule).collect();
        return denied_by(&rules, what, LEAVE_OUT);
    }
    let asking: Vec<_> = touching(RuleEffect::Approve).into_iter().map(|(rule, _)| rule).collect();
    let candidates: Vec<&Rule> =
        live(scope, question.now, RuleEffect::Allow).chain(asking.iter().copied()).collect();

    let mut granting: Vec<&Rule> = Vec::new();
    let (objects, commands): (Vec<_>, Vec<_>) = facts.needs().into_iter().partition(Need::is_object);
    for need in objects {
        if !grant(&facts, need, &candidates, &mut granting) {
            uncovered.push(need);
        }
    }
    // A rule for the same command on other objects has no part in this, unless nobody else grants the command.
    for need in commands {
        let by_part =
            granting.iter().any(|rule| rule.statements.as_ref().is_some_and(|m| facts.granted(m, need)));
        if !by_part && !grant(&facts, need, &candidates, &mut granting) {
            uncovered.insert(0, need);
        }
    }
    if !uncovered.is_empty() {
        return ungranted(question, uncovered);
    }
    if let Some(outcome) = leak(&scope.masks, &facts, &granting) {
        return outcome;
    }
    decided(policy, question, asking, granting)
}

/// Adds the rules that grant a need. False = none does.
fn grant<'a>(
    facts: &Facts<'_>,
    need: Need<'_>,
    candidates: &[&'a Rule],
    granting: &mut Vec<&'a Rule>,
) -> bool {
    let mut granted = false;
    for rule in candidates {
        if rule.statements.as_ref().is_some_and(|matcher| facts.granted(matcher, need)) {
            granted = true;
            if !granting.iter().any(|known| std::ptr::eq(*known, *rule)) {
                granting.push(rule);
            }
        }
    }
    granted
}

/// Rules of one effect that count now.
pub(crate) fn live(scope: &Scope, now: UnixTime, effect: RuleEffect) -> impl Iterator<Item = &Rule> {
    scope.rules.iter().map(|rule| &**rule).filter(move |rule| rule.effect == effect && !rule.is_expired(now))
}

pub(crate) fn decided<'a>(
    policy: &Policy,
    question: &Question<'_>,
    asking: Vec<&'a Rule>,
    granting: Vec<&'a Rule>,
) -> Outcome<'a> {
    let agreed = |rule: &&Rule| question.grant.is_some_and(|grant| grant.satisfies(&policy.version, rule));
    match asking.iter().all(agreed) {
        true => Outcome::Allowed { granting },
        false => Outcome::Approve { asking, granting },
    }
}

pub(crate) fn denied_by<'a>(rules: &[&Rule], what: String, hint: &str) -> Outcome<'a> {
    let reason = rules.iter().find_map(|rule| rule.reason.clone()).unwrap_or_else(|| match rules.first() {
        Some(rule) => format!("{what} is denied by rule {}", rule.id),
        None => format!("{what} is denied"),
    });
    Outcome::Denied { rules: ids(rules.iter()), denial: Denial { reason, hint: hint.to_owned() } }
}

fn describe_touch(facts: &Facts<'_>, touch: Touch<'_>) -> String {
    let kind = facts.statement.kind;
    match touch {
        Touch::Command(_) => touch.to_string(),
        _ => format!("{kind} with {touch}"),
    }
}

/// Most needs named in one message.
const NAMED: usize = 5;

fn ungranted<'a>(question: &Question<'_>, uncovered: &[Need<'_>]) -> Outcome<'a> {
    // `drop_table on public.orders` says `drop_table` as well.
    let said = |need: &Need<'_>| {
        match need {
        Need::Command(command) => uncovered.iter().any(|other| {
            matches!(other, Need::Act { command: acting, .. } | Need::ActColumn { command: acting, .. } if acting == command)
        }),
        _ => false,
    }
    };
    let named: Vec<_> = uncovered.iter().filter(|need| !said(need)).collect();
    let mut what = String::new();
    for need in named.iter().take(NAMED) {
        let comma = if what.is_empty() { "" } else { ", " };
        let _ = write!(what, "{comma}{need}");
    }
    if named.len() > NAMED {
        let _ = write!(what, " and {} more", named.len() - NAMED);
    }
    let (rule, hint) = if uncovered.contains(&Need::TooMuch) {
        (builtin::TOO_COMPLEX, "split the statement, and write names with their schema")
    } else if uncovered.iter().any(|need| matches!(need, Need::Setting { .. })) {
        (
            builtin::PINNED_SETTING,
            "leave the setting as it is: statements are read, and run, by its present value",
        )
    } else if uncovered.iter().any(|need| matches!(need, Need::Opaque { .. })) {
        (builtin::DEFAULT_DENY, "write it as plain statements, which can be read")
    } else {
        (
            builtin::DEFAULT_DENY,
            "leave it out, or ask for a rule that allows it; `policy explain` shows every rule",
        )
    };
    let reason = format!("no rule allows {} on {}: {what}", question.subject.name, question.resource.name);
    deny(rule, reason, hint)
}

/// Whether masked values would get out by another way than the result.
fn leak<'a>(masks: &MaskSet, facts: &Facts<'_>, granting: &[&Rule]) -> Option<Outcome<'a>> {
    masks.columns.as_ref()?;
    let statement = facts.statement;
    // What an object is made from is stored in it, now or whenever somebody looks.
    let defines = statement.class >= Class::Ddl;
    let masked = |used: &&ColumnUse| masks.of(&used.column).is_some();
    // Whoever may run code that cannot be seen through may keep what it returns.
    let unseen = statement.stores_unseen && !facts.each_command_by(granting, |m, named| named && m.opaque);
    let stored = statement.columns.iter().filter(masked).find(|used| used.stored || (defines && used.output));
    if unseen && stored.is_none() {
        return Some(deny(
            builtin::LAUNDERING,
            "columns are masked, and where a value that would be stored comes from cannot be told".to_owned(),
            "store what is computed by built-in functions from columns that are not masked",
        ));
    }
    if let Some(used) = stored {
        return Some(deny(
            builtin::LAUNDERING,
            format!(
                "{} is masked: its values may not be stored where the mask does not follow",
                name(&used.column)
            ),
            "leave the column out of what is stored or defined",
        ));
    }
    let unseen = (statement.filters_unseen || statement.fails_unseen)
        && !facts.each_command_by(granting, |m, named| {
            (named && m.opaque) || ((named || m.grants_reads()) && m.masked_predicates)
        });
    let predicate = statement.columns.iter().filter(masked).find(|used| {
        let allowed = granting.iter().any(|rule| {
            let matcher = rule.statements.as_ref().filter(|matcher| matcher.masked_predicates);
            matcher.is_some_and(|matcher| facts.grants_reading(matcher, used))
        });
        (used.predicate || used.fails) && !allowed
    });
    let Some(predicate) = predicate else {
        return unseen.then(|| {
            deny(
                builtin::MASKED_PREDICATE,
                "columns are masked, and where a value that decides about rows or errors comes from cannot be told"
                    .to_owned(),
                "filter, join, group, order, cast and compute with columns that are not masked and built-in functions",
            )
        });
    };
    let (decides, hint) = match predicate.predicate {
        true => (
            "which rows come back, nor their order",
            "filter, join, group and order by columns that are not masked",
        ),
        false => (
            "whether the statement fails, nor how long it takes",
            "select it as it is, or with functions that cannot fail: comparisons, casts to text, ||, lower, left, count, max, json",
        ),
    };
    let reason = format!("{} is masked: it may not decide {decides}", name(&predicate.column));
    Some(deny(builtin::MASKED_PREDICATE, reason, hint))
}

fn name(column: &Column) -> String {
    let mut text = String::new();
    let _ = write_column(&mut text, column);
    text
}

/// What everybody who has to be asked asks for: the largest quorum, people whom all accept, the shortest wait.
fn terms(asking: &[&Rule]) -> ApprovalTerms {
    let mut terms: Option<ApprovalTerms> = None;
    for rule in asking {
        let new = &rule.approval;
        terms = Some(match terms {
            None => new.clone(),
            Some(old) => old.and(new.clone()),
        });
    }
    // Never empty: an approve outcome has an asking rule.
    terms.unwrap_or(ApprovalTerms {
        quorum: u32::MAX,
        approvers: Vec::new(),
        expires_after: std::time::Duration::ZERO,
    })
}

fn obligations(granting: &[&Rule], masks: &MaskSet, action: &Action) -> Obligations {
    let (limits, gates) = limits(granting);
    Obligations {
        outputs: match action {
            Action::Connect(_) | Action::Ssh(_) | Action::Http(_) | Action::Kubernetes(_) => {
                OutputMasks::None
            }
            Action::Statement(statement) => masks.outputs(&statement.outputs, statement.opaque),
        },
        columns: masks.columns.clone(),
        masks: Arc::clone(&masks.ids),
        detectors: masks.detectors.clone(),
        limits,
        gates,
        record: granting.iter().map(|rule| rule.record).max().unwrap_or_default(),
        ssh: None,
        http: None,
        kubernetes: None,
    }
}

/// The strictest bounds, and every one that is looked at before.
fn limits(granting: &[&Rule]) -> (Limits, Option<Arc<Gates>>) {
    if granting.iter().all(|rule| rule.limits.is_empty()) {
        return (Limits::default(), None);
    }
    let strictest = |bound: fn(&RuleLimits) -> Option<u64>| {
        granting
            .iter()
            .filter_map(|rule| Some((bound(&rule.limits)?, &rule.id)))
            .min_by_key(|(most, _)| *most)
    };
    let timed = |bound: fn(&RuleLimits) -> Option<Duration>| {
        let timed = granting
            .iter()
            .filter_map(|rule| Some(Timed { most: bound(&rule.limits)?, rule: Arc::clone(&rule.id) }));
        timed.min_by_key(|timed| timed.most)
    };
    let (rows, bytes) = (strictest(|limits| limits.rows), strictest(|limits| limits.bytes));
    let gates = Gates {
        before: granting.iter().flat_map(|rule| rule.limits.before.iter().cloned()).collect(),
        time: timed(|limits| limits.time),
        lock_wait: timed(|limits| limits.lock_wait),
        rows: rows.map(|(_, rule)| Arc::clone(rule)),
        bytes: bytes.map(|(_, rule)| Arc::clone(rule)),
    };
    let limits = Limits { rows: rows.map(|(most, _)| most), bytes: bytes.map(|(most, _)| most) };
    (limits, Some(Arc::new(gates)))
}
