//! A human's yes to one action.
//!
//! A session asks with [`Approvals::request`] and waits on the [`Ticket`]; people answer through the control
//! API. A yes is good once, for exactly what was shown ([`Binding`]), until it expires. Dropping the ticket
//! (the client went away) withdraws the request.

mod approvals;
mod approvers;
mod binding;
mod ticket;

pub use approvals::{Approvals, AskError, DecideError, OnChange};
pub use approvers::{Directory, HostDirectory};
pub use binding::Binding;
pub use ticket::{Approved, Outcome, Stale, Ticket};

use std::sync::Arc;

use policy::{ApprovalTerms, UnixTime};
use serde::{Deserialize, Serialize};

/// What a session asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Exactly what will run, as and for whom.
    pub binding: Binding,
    pub session: Arc<str>,
    pub subject: Arc<str>,
    /// Directory of the job's cgroup, for the eye.
    pub cgroup: String,
    /// User that the job's identity is bound to; may not approve.
    pub job_uid: u32,
    pub process: Process,
    /// The rules that asked for a human.
    pub rules: Vec<Arc<str>>,
    /// By how much a limit is exceeded, where that is what people are asked about.
    pub because: Option<String>,
    pub terms: ApprovalTerms,
}

/// The process behind a flow. For display and for "nobody approves their own"; never an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    pub uid: u32,
    pub command: String,
}

/// One approval as people and the store see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Short, unguessable, typed by humans.
    pub id: Arc<str>,
    pub state: State,
    pub statement: String,
    /// `None` = NULL.
    pub params: Vec<Option<String>>,
    pub session: Arc<str>,
    pub subject: Arc<str>,
    pub job: u64,
    pub cgroup: String,
    pub job_uid: u32,
    pub process: Process,
    pub resource: Arc<str>,
    pub rules: Vec<Arc<str>>,
    /// By how much a limit is exceeded, where that is what is asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    pub policy_version: Arc<str>,
    /// blake3 over what is bound, in hex.
    pub hash: String,
    pub quorum: u32,
    /// Users and `@groups` who may answer.
    pub approvers: Vec<String>,
    pub requested: UnixTime,
    pub expires: UnixTime,
    pub votes: Vec<Vote>,
    pub decided: Option<UnixTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Waiting,
    /// Quorum reached; not yet run.
    Approved,
    /// Quorum reached and the action was started. No approval leaves this state.
    Used,
    Denied,
    Expired,
    /// The client went away first.
    Withdrawn,
}

/// One person's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    pub uid: u32,
    pub user: String,
    pub approve: bool,
    pub reason: String,
    pub at: UnixTime,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    pub uid: u32,
    /// The enrolled cgroup that the voter's process is in, if any: such a process may never answer.
    pub inside_job: Option<u64>,
}
