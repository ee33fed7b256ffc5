//! Policy's answer.

use std::{fmt, sync::Arc, time::Duration};

use mask::{Detectors, Transform};
use serde::Serialize;

use crate::{
    gate::Gates, http::HttpObligations, kubernetes::KubernetesObligations, own::OwnPermit,
    pattern::ColumnPattern, ssh::SshObligations,
};

/// Seconds since 1970-01-01 UTC. This crate never reads a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

/// Policy's answer to one action, with the ids of the rules that decided, most specific first.
#[derive(Debug)]
pub struct Verdict {
    pub effect: Effect,
    pub rules: Vec<Arc<str>>,
    /// From this moment on the same question may have another answer.
    pub valid_until: Option<UnixTime>,
    /// Of an action that people have to agree to: what may be looked at before they are asked.
    pub ahead: Option<Ahead>,
}

/// What the gateway may find out about an action that nobody has agreed to yet.
#[derive(Debug)]
pub struct Ahead {
    /// Of a statement: the limits that it will meet.
    pub gates: Option<Arc<Gates>>,
    /// By which the server may be asked: what a statement would cost, what a change would be to, and nothing that the job sent.
    pub permit: OwnPermit,
}

#[derive(Debug)]
pub enum Effect {
    Allow(Allow),
    /// A human has to agree first.
    Approve(ApprovalTerms),
    Deny(Denial),
}

/// An allow and what it is conditional on.
#[derive(Debug)]
pub struct Allow {
    pub permit: Permit,
    pub obligations: Obligations,
}

/// Proof that policy allowed an action. Only this crate can make one, and it cannot be copied: whoever holds
/// a reference was handed it by a verdict.
pub struct Permit {
    pub(crate) resource: Arc<str>,
    /// For the gateway's own statements: the one text that it is good for.
    pub(crate) only: Option<Arc<str>>,
}

impl Permit {
    /// The resource that the permit is good for.
    pub fn resource(&self) -> &str {
        &self.resource
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({})", self.resource)
    }
}

/// What an allow is conditional on.
#[derive(Debug, Clone, Default)]
pub struct Obligations {
    /// Masks by position of the result column, from lineage.
    pub outputs: OutputMasks,
    /// Masks by base column, for results whose origin the server itself names. `None` = no column is masked.
    pub columns: Option<Arc<ColumnMasks>>,
    /// Applied to every textual cell that no other mask replaced, and to errors and notices.
    pub detectors: Option<Arc<Detectors>>,
    /// Ids of the masks in force, for audit.
    pub masks: Arc<[Arc<str>]>,
    pub limits: Limits,
    /// Limits on anything but the size of the result. `None` = there are none.
    pub gates: Option<Arc<Gates>>,
    pub record: Recording,
    /// For actions on SSH hosts.
    pub ssh: Option<Arc<SshObligations>>,
    /// For requests to HTTP hosts.
    pub http: Option<Arc<HttpObligations>>,
    /// For requests to API servers.
    pub kubernetes: Option<Arc<KubernetesObligations>>,
}

/// Masks by position.
#[derive(Debug, Clone, Default)]
pub enum OutputMasks {
    /// No position is known to need a mask.
    #[default]
    None,
    /// One entry per result column.
    Columns(Vec<Option<OutputMask>>),
    /// Positions cannot be told: every column is masked unless the server names an unmasked base column as
    /// its origin.
    Unknown,
}

/// The mask of one result column that derives from masked base columns.
///
/// Showing a value in part or as a hash is safe for the value itself, not for what a job computes from it:
/// the last four characters of `left(card, 8)` are another four, and the hash of
/// `CASE WHEN false THEN card ELSE '4111' END` tells which hash means 4111. So both hold only where the
/// server says that the result column is a table's column, unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputMask(Transform);

impl OutputMask {
    pub fn new(transform: Transform) -> Self {
        Self(transform)
    }

    /// What to do to the cells. `origin_named`: the row description gives this column a table (not 0) and an
    /// attribute number above 0.
    pub fn transform(self, origin_named: bool) -> Transform {
        match self.0 {
            Transform::Redact | Transform::Null => self.0,
            _ if !origin_named => Transform::Redact,
            transform => transform,
        }
    }
}

/// Which base columns are masked for one subject on one resource.
#[derive(Debug, PartialEq, Eq)]
pub struct ColumnMasks {
    pub(crate) columns: Arc<[(ColumnPattern, Transform)]>,
}

impl ColumnMasks {
    /// The mask of whatever a name could mean: what is not told is anything.
    pub fn find(&self, schema: Option<&str>, relation: Option<&str>, column: &str) -> Option<Transform> {
        self.columns
            .iter()
            .filter(|(pattern, _)| pattern.may_match(schema, relation, column))
            .map(|(_, transform)| *transform)
            .reduce(Transform::stronger)
    }
}

/// Bounds on one action's result. `None` = unbounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Rows returned.
    pub rows: Option<u64>,
    /// Bytes of result frames.
    pub bytes: Option<u64>,
}

/// What of an action is recorded.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Recording {
    /// Audit event only.
    None,
    /// Statement, parameters, verdict, counts, timing.
    #[default]
    Statements,
    /// And the rows the job was shown, masked as it saw them.
    Results,
}

/// What a human has to do before an action may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalTerms {
    /// Distinct people who have to agree.
    pub quorum: u32,
    /// Users or `@groups` of the host who may; empty = whoever the agent's configuration lets approve.
    pub approvers: Vec<String>,
    /// How long the request waits; then it is a deny.
    pub expires_after: Duration,
}

impl ApprovalTerms {
    /// The people who may agree, in words.
    pub(crate) fn who(&self) -> String {
        match self.approvers.is_empty() {
            true => "whoever the agent lets approve".to_owned(),
            false => self.approvers.join(", "),
        }
    }

    /// What satisfies both: the larger quorum, people whom both name, the shorter wait. `None` when they name nobody in
    /// common: an empty list would mean anyone.
    pub fn both(&self, other: &Self) -> Option<Self> {
        let approvers = match (self.approvers.is_empty(), other.approvers.is_empty()) {
            (true, _) => other.approvers.clone(),
            (_, true) => self.approvers.clone(),
            _ => {
                let both = self.approvers.iter().filter(|who| other.approvers.contains(who));
                let both: Vec<_> = both.cloned().collect();
                if both.is_empty() {
                    return None;
                }
                both
            }
        };
        Some(Self {
            quorum: self.quorum.max(other.quorum),
            approvers,
            expires_after: self.expires_after.min(other.expires_after),
        })
    }

    /// The same, where the first list counts when they name nobody in common.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            quorum: self.quorum.max(other.quorum),
            approvers: common(self.approvers, &other.approvers),
            expires_after: self.expires_after.min(other.expires_after),
        }
    }
}

/// Approvers that both lists name; an empty list leaves it to the other. Where they have nobody in common,
/// who is in which group is not known here: the first list counts.
fn common(first: Vec<String>, second: &[String]) -> Vec<String> {
    if first.is_empty() {
        return second.to_vec();
    }
    let both: Vec<_> = first.iter().filter(|name| second.contains(name)).cloned().collect();
    if both.is_empty() { first } else { both }
}

/// A refusal, in words for the person at the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// What was refused and why.
    pub reason: String,
    /// What to do next.
    pub hint: String,
}
