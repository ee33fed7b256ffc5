//! Bodies of the control API, shared by server and command line. JSON, field names as here.

use std::sync::Arc;

use policy::UnixTime;
use serde::{Deserialize, Serialize};

use crate::{approval, identity};

/// `GET /v1/status`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub started: u64,
    /// Whether new connections are being served; otherwise `not_ready` says why.
    pub ready: bool,
    pub not_ready: Option<String>,
    /// The agent's own: `on`, or why not.
    pub sandbox: String,
    pub policy_version: String,
    pub policy_files: Vec<String>,
    pub cgroup_root: String,
    pub virtual_port: u16,
    /// Whether the kernel programs refuse, or only report what they would refuse.
    #[serde(default)]
    pub mode: crate::kernel::Mode,
    pub hooks: Vec<Hook>,
    /// What the agent proved about the kernel when it started.
    #[serde(default)]
    pub self_test: Vec<crate::kernel::Probe>,
    /// When the hooks of every job were last found to be ours; absent before the first time.
    #[serde(default)]
    pub hooks_checked: Option<u64>,
    /// Jobs that are refused everything, because something was wrong with their hooks.
    #[serde(default)]
    pub quarantined: Vec<u64>,
    /// Age of the last heartbeat in milliseconds; the kernel denies from 2000 on.
    pub heartbeat_ms: Option<u64>,
    /// Network namespaces of jobs in which the gateway listens; absent when it follows none.
    pub namespaces: Option<usize>,
    pub jobs: usize,
    pub sessions: usize,
    pub approvals_waiting: usize,
    /// Kernel events lost because the ring was full. Decisions are never lost.
    pub events_dropped: u64,
}

/// One kernel hook.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hook {
    pub name: String,
    pub on: bool,
    /// Without it enforcement would have a gap; the agent refuses to start.
    pub mandatory: bool,
    /// The first Linux that has it.
    #[serde(default)]
    pub since: String,
    /// What it means while it is off.
    #[serde(default)]
    pub without: String,
    pub detail: String,
}

/// `GET /v1/sessions`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    pub id: Arc<str>,
    pub subject: Arc<str>,
    pub job: u64,
    pub cgroup: String,
    pub resource: Arc<str>,
    pub database: String,
    pub user: String,
    pub client: String,
    pub upstream: String,
    pub pid: u32,
    pub command: String,
    pub started: UnixTime,
    /// `login`, `idle`, `active`, `waiting for approval …`
    pub state: String,
    pub statements: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// `GET /v1/jobs`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobInfo {
    #[serde(flatten)]
    pub job: identity::Job,
    /// The container that it is, by the name of its cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<identity::Container>,
    pub sessions: usize,
}

/// `POST /v1/enroll/begin`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollBegin {
    /// Enrol another cgroup than the caller's own: root outside of any job only.
    pub target: Option<Cgroup>,
}

/// How a cgroup is named.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cgroup {
    /// By its directory.
    Cgroup(std::path::PathBuf),
    /// By a process in it.
    Pid(i32),
    /// By the id of the container that it is, or at least 12 digits of it.
    Container(String),
}

impl std::fmt::Display for Cgroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cgroup(dir) => write!(f, "{}", dir.display()),
            Self::Pid(pid) => write!(f, "the cgroup of process {pid}"),
            Self::Container(id) => write!(f, "container {id}"),
        }
    }
}

/// Its answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnrollBegun {
    pub nonce: String,
    /// What the token's audience has to be, by issuer.
    pub audiences: Vec<Audience>,
    /// The nonce is good for this many seconds.
    pub expires_in: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Audience {
    pub issuer: String,
    pub audience: String,
}

/// `POST /v1/enroll/complete`
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollComplete {
    pub token: String,
    /// From `begin`; absent for issuers that cannot carry one.
    pub nonce: Option<String>,
    /// As in `begin`.
    pub target: Option<Cgroup>,
    /// With a target: the user that its processes will have.
    #[serde(default)]
    pub user: identity::JobUser,
}

/// `POST /v1/release`: one of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Its cgroup id.
    pub job: Option<u64>,
    /// A directory at or below its cgroup.
    pub cgroup: Option<std::path::PathBuf>,
}

/// `POST /v1/approvals/{id}`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    pub approve: bool,
    #[serde(default)]
    pub reason: String,
}

/// `GET /v1/approvals?all=true&after=N&wait=S`: returns at once, or when anything changed after change number
/// N, or after S seconds (at most 60).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ApprovalsQuery {
    #[serde(default)]
    pub all: bool,
    pub after: Option<u64>,
    pub wait: Option<u64>,
}

/// Its answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApprovalList {
    /// For the next `after`.
    pub change: u64,
    pub approvals: Vec<approval::Record>,
}

/// A piece of what a session's job is shown.
#[derive(Debug, Serialize, Deserialize)]
pub struct Shown {
    pub channel: u64,
    /// Standard error, rather than output or a terminal.
    pub error: bool,
    /// In hexadecimal digits.
    pub data: String,
}

/// `DELETE /v1/sessions/{id}`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    #[serde(default)]
    pub reason: String,
}

/// `POST /v1/policy/reload`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reloaded {
    pub version: String,
}

/// Every refusal, with an HTTP status that fits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// A fixed word.
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}
