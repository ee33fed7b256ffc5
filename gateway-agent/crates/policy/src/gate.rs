//! Bounds that are looked at before a statement runs or while it does, and what happens beyond them.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use crate::verdict::ApprovalTerms;

/// What happens when a limit is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnExceed {
    /// The statement does not run.
    Deny,
    /// It is cancelled on the server.
    Cancel,
    /// It waits until people agree to it, who are shown by how much it exceeds the limit.
    Ask,
}

/// All limits on one statement besides the size of its result, each with the rule that set it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gates {
    /// Looked at before it runs: those of every rule that grants part of it.
    pub before: Vec<Gate>,
    /// From being sent to the server until its end; the strictest.
    pub time: Option<Timed>,
    /// Waiting for one lock; the strictest.
    pub lock_wait: Option<Timed>,
    /// The rules behind [`Limits`](crate::Limits).
    pub rows: Option<Arc<str>>,
    pub bytes: Option<Arc<str>>,
}

/// One limit that is looked at before a statement runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    pub rule: Arc<str>,
    pub bound: Bound,
    /// Whom to ask beyond it; `None` = it is a deny.
    pub ask: Option<ApprovalTerms>,
}

/// What is bounded, and how much may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// The planner's cost, in its own units.
    Cost(f64),
    /// Rows that the planner expects to come back or to be changed.
    RowsEstimated(u64),
    /// Statements of the job that the rule granted, in any 60 seconds.
    PerMinute(u64),
    /// The same, as long as the job lives.
    PerJob(u64),
}

/// A time that is not to be exceeded: the statement is cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed {
    pub rule: Arc<str>,
    pub most: Duration,
}

/// What the planner expects of a statement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub cost: f64,
    pub rows: u64,
}

/// What is known of a statement's cost.
#[derive(Debug, Clone, PartialEq)]
pub enum Planned {
    /// The planner makes no plan for it, and it runs none: SET, BEGIN, CREATE TABLE.
    Nothing,
    Estimate(Estimate),
    /// It may cost anything, and why that is: beyond every limit.
    Unknown(String),
}

/// What the limits looked at before a statement say.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    Within,
    /// People have to agree.
    Ask {
        rules: Vec<Arc<str>>,
        terms: ApprovalTerms,
        why: String,
    },
    Beyond {
        rule: Arc<str>,
        limit: &'static str,
        why: String,
    },
}

impl Bound {
    /// Its name in a policy, and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cost(_) => "max_cost",
            Self::RowsEstimated(_) => "max_rows_estimated",
            Self::PerMinute(_) => "statements_per_minute",
            Self::PerJob(_) => "statements_per_job",
        }
    }

    /// What is wrong, when something is. `count` is how many statements of its kind there are with this one.
    fn exceeded(&self, planned: &Planned, count: u64) -> Option<String> {
        match (self, planned) {
            (Self::Cost(_) | Self::RowsEstimated(_), Planned::Nothing) => None,
            (Self::Cost(_) | Self::RowsEstimated(_), Planned::Unknown(why)) => {
                Some(format!("its cost cannot be told: {why}"))
            }
            // A cost that is no number is beyond every limit.
            (Self::Cost(most), Planned::Estimate(of)) => match of.cost <= *most {
                true => None,
                false => Some(format!("its estimated cost is {:.0}, the limit {most:.0}", of.cost)),
            },
            (Self::RowsEstimated(most), Planned::Estimate(of)) => {
                (of.rows > *most).then(|| format!("{} rows are expected, the limit is {most}", of.rows))
            }
            (Self::PerMinute(most), _) => {
                (count > *most).then(|| format!("the job's limit of {most} statements a minute is used up"))
            }
            (Self::PerJob(most), _) => {
                (count > *most).then(|| format!("the job's limit of {most} statements is used up"))
            }
        }
    }
}

impl Gate {
    /// `plan`: what is known of the cost; `count`: how many statements count against it, this one included.
    pub fn judge(&self, planned: &Planned, count: u64) -> Judgement {
        match (self.bound.exceeded(planned, count), &self.ask) {
            (None, _) => Judgement::Within,
            (Some(why), None) => {
                Judgement::Beyond { rule: Arc::clone(&self.rule), limit: self.bound.name(), why }
            }
            (Some(why), Some(terms)) => {
                Judgement::Ask { rules: vec![Arc::clone(&self.rule)], terms: terms.clone(), why }
            }
        }
    }

    /// An estimate has to be had for it.
    pub fn needs_estimate(&self) -> bool {
        matches!(self.bound, Bound::Cost(_) | Bound::RowsEstimated(_))
    }
}

impl Judgement {
    /// Both: a deny stays one, and whoever has to be asked is asked once for all.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Within, other) | (other, Self::Within) => other,
            (beyond @ Self::Beyond { .. }, _) | (_, beyond @ Self::Beyond { .. }) => beyond,
            (Self::Ask { mut rules, terms, mut why }, Self::Ask { rules: more, terms: other, why: also }) => {
                rules.extend(more.into_iter().filter(|rule| !rules.contains(rule)).collect::<Vec<_>>());
                if !why.contains(&also) {
                    why.push_str("; ");
                    why.push_str(&also);
                }
                Self::Ask { rules, terms: terms.and(other), why }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(bound: Bound, ask: bool) -> Gate {
        let terms = ApprovalTerms {
            quorum: 1,
            approvers: vec!["@dba".into()],
            expires_after: Duration::from_secs(60),
        };
        Gate { rule: "r".into(), bound, ask: ask.then_some(terms) }
    }

    #[test]
    fn a_bound_holds_up_to_itself_and_not_beyond() {
        let plan = |cost, rows| Planned::Estimate(Estimate { cost, rows });
        for (bound, plan, count, within) in [
            (Bound::Cost(10.0), plan(10.0, 0), 0, true),
            (Bound::Cost(10.0), plan(10.1, 0), 0, false),
            (Bound::Cost(10.0), plan(f64::NAN, 0), 0, false),
            (Bound::Cost(10.0), plan(f64::INFINITY, 0), 0, false),
            (Bound::Cost(10.0), Planned::Nothing, 0, true),
            (Bound::Cost(10.0), Planned::Unknown("code".into()), 0, false),
            (Bound::RowsEstimated(5), plan(1e9, 5), 0, true),
            (Bound::RowsEstimated(5), plan(0.0, 6), 0, false),
            (Bound::RowsEstimated(5), Planned::Unknown("code".into()), 0, false),
            (Bound::PerMinute(2), Planned::Unknown("code".into()), 2, true),
            (Bound::PerMinute(2), Planned::Nothing, 3, false),
            (Bound::PerJob(2), Planned::Nothing, 3, false),
        ] {
            let judged = gate(bound, false).judge(&plan, count);
            assert_eq!(judged == Judgement::Within, within, "{bound:?} {plan:?} {count}: {judged:?}");
        }
    }

    #[test]
    fn a_deny_beats_a_question_and_questions_are_put_together() {
        let plan = Planned::Estimate(Estimate { cost: 100.0, rows: 100 });
        let cost = gate(Bound::Cost(1.0), true).judge(&plan, 0);
        let rows = gate(Bound::RowsEstimated(1), true).judge(&plan, 0);
        let deny = gate(Bound::PerJob(1), false).judge(&plan, 2);
        assert!(matches!(
            cost.clone().and(deny.clone()),
            Judgement::Beyond { limit: "statements_per_job", .. }
        ));
        assert!(matches!(deny.and(rows.clone()), Judgement::Beyond { .. }));
        let Judgement::Ask { rules, why, .. } = cost.and(rows) else { panic!("not asked") };
        assert_eq!(rules.len(), 1);
        assert_eq!(why, "its estimated cost is 100, the limit 1; 100 rows are expected, the limit is 1");
    }
}
