//! Limits of a rule.

use std::{sync::Arc, time::Duration};

use crate::{
    diagnostic::{Findings, Place},
    gate::{Bound, Gate, OnExceed},
    raw::{RawLimit, RawLimits, RawRule, RuleEffect},
    rule::RuleLimits,
    verdict::ApprovalTerms,
};

/// Whether anybody has to be asked beyond one of them.
pub(super) fn asks(raw: &RawLimits) -> bool {
    fn asks<T>(limit: Option<&RawLimit<T>>) -> bool {
        limit.is_some_and(|limit| limit.parts().1 == Some(OnExceed::Ask))
    }
    asks(raw.max_cost.as_ref())
        || asks(raw.max_rows_estimated.as_ref())
        || asks(raw.statements_per_minute.as_ref())
        || asks(raw.statements_per_job.as_ref())
}

pub(super) fn limits(
    rule: &RawRule,
    terms: &ApprovalTerms,
    place: &Place,
    findings: &mut Findings,
) -> RuleLimits {
    let raw = &rule.limits;
    let mut limits = RuleLimits {
        rows: while_running(raw.rows.as_ref(), &place.at("rows"), findings, |most| whole(*most)),
        bytes: while_running(raw.bytes.as_ref(), &place.at("bytes"), findings, |most| whole(*most)),
        time: while_running(raw.time.as_ref(), &place.at("time"), findings, |most| time(most)),
        lock_wait: while_running(raw.lock_wait.as_ref(), &place.at("lock_wait"), findings, |most| time(most)),
        before: Vec::new(),
    };
    let mut gates = Gates { rule, terms, findings, before: &mut limits.before };
    gates.add(raw.max_cost.as_ref(), &place.at("max_cost"), |most| {
        (most.is_finite() && *most > 0.0).then_some(Bound::Cost(*most)).ok_or(ZERO)
    });
    gates.add(raw.max_rows_estimated.as_ref(), &place.at("max_rows_estimated"), |most| {
        whole(*most).map(Bound::RowsEstimated)
    });
    gates.add(raw.statements_per_minute.as_ref(), &place.at("statements_per_minute"), |most| {
        whole(*most).map(Bound::PerMinute)
    });
    gates.add(raw.statements_per_job.as_ref(), &place.at("statements_per_job"), |most| {
        whole(*most).map(Bound::PerJob)
    });
    if rule.effect == RuleEffect::Deny && !limits.is_empty() {
        findings.add(
            place.clone(),
            format!("rule `{}` denies, so there is nothing to limit", rule.id),
            "drop `limits` here, or write them into the rule that allows",
        );
    }
    limits
}

/// What is wrong, and what would be right.
type Wrong = (&'static str, &'static str);

const ZERO: Wrong = ("a limit of 0", "leave the limit out for none, or write a deny rule");

fn whole(most: u64) -> Result<u64, Wrong> {
    if most == 0 { Err(ZERO) } else { Ok(most) }
}

fn time(most: &str) -> Result<Duration, Wrong> {
    match humantime::parse_duration(most) {
        Ok(time) if time.is_zero() => Err(ZERO),
        Ok(time) => Ok(time),
        Err(_) => Err(("not a length of time", "for example 500ms, 30s or 5m")),
    }
}

/// A limit that only shows while the statement runs.
fn while_running<T, B>(
    limit: Option<&RawLimit<T>>,
    place: &Place,
    findings: &mut Findings,
    check: impl Fn(&T) -> Result<B, Wrong>,
) -> Option<B> {
    let (most, on_exceed) = limit?.parts();
    if on_exceed.is_some_and(|on_exceed| on_exceed != OnExceed::Cancel) {
        findings.add(
            place.at("on_exceed"),
            "this limit shows only while the statement runs",
            "write `on_exceed: cancel`, or leave it out",
        );
    }
    match check(most) {
        Ok(bound) => Some(bound),
        Err((message, hint)) => {
            findings.add(place.clone(), message, hint);
            None
        }
    }
}

struct Gates<'a> {
    rule: &'a RawRule,
    terms: &'a ApprovalTerms,
    findings: &'a mut Findings,
    before: &'a mut Vec<Gate>,
}

impl Gates<'_> {
    /// A limit that is looked at before the statement runs.
    fn add<T>(
        &mut self,
        limit: Option<&RawLimit<T>>,
        place: &Place,
        check: impl Fn(&T) -> Result<Bound, Wrong>,
    ) {
        let Some((most, on_exceed)) = limit.map(RawLimit::parts) else { return };
        if on_exceed == Some(OnExceed::Cancel) {
            self.findings.add(
                place.at("on_exceed"),
                "this limit is looked at before the statement runs: there is nothing to cancel",
                "write `on_exceed: deny` or `on_exceed: ask`",
            );
        }
        match check(most) {
            Ok(bound) => self.before.push(Gate {
                rule: Arc::from(self.rule.id.as_str()),
                bound,
                ask: (on_exceed == Some(OnExceed::Ask)).then(|| self.terms.clone()),
            }),
            Err((message, hint)) => self.findings.add(place.clone(), message, hint),
        }
    }
}
