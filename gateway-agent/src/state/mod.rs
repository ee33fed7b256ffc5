//! What survives the daemon: jobs, used token ids, approvals, sessions, roles made for jobs. One trait; SQLite behind it.

mod lazy;
mod sqlite;

pub use lazy::{Lazy, Write};
pub use sqlite::SqliteStore;

use std::sync::Arc;

use policy::UnixTime;
use serde::{Deserialize, Serialize};

use crate::{approval, credential::RoleRow, identity::Job};

/// State behind one seam. Every call is durable when it returns.
pub trait Store: Send + Sync {
    /// Drops the jobs of other boots, and frees their users: cgroup ids do not survive one. Returns how many.
    fn begin_boot(&self, boot: &str) -> Result<usize, StateError>;

    /// `false`: the cgroup has a job already, nothing was changed.
    fn insert_job(&self, job: &Job) -> Result<bool, StateError>;
    /// Replaces what is stored for its cgroup.
    fn update_job(&self, job: &Job) -> Result<(), StateError>;
    fn remove_job(&self, cgroup_id: u64) -> Result<(), StateError>;
    fn jobs(&self) -> Result<Vec<Job>, StateError>;

    /// Users of their own that jobs have or had.
    fn uids(&self) -> Result<Vec<UidUse>, StateError>;
    /// Notes that a job has this user now.
    fn take_uid(&self, uid: u32, cgroup_id: u64, boot: &str) -> Result<(), StateError>;
    /// Nobody has the job's user any more.
    fn free_uid(&self, cgroup_id: u64) -> Result<(), StateError>;

    /// Marks a token id as used until then. `false`: it was used before.
    fn use_token(&self, issuer: &str, jti: &str, until: UnixTime) -> Result<bool, StateError>;
    /// Forgets token ids that no token could carry validly any more.
    fn forget_tokens(&self, before: UnixTime) -> Result<usize, StateError>;

    /// Inserts or replaces.
    fn put_approval(&self, record: &approval::Record) -> Result<(), StateError>;
    /// Newest first.
    fn approvals(&self, limit: u32) -> Result<Vec<approval::Record>, StateError>;
    /// Waiting approvals of a dead daemon have nobody waiting: they become expired. Returns how many.
    fn expire_approvals(&self, now: UnixTime) -> Result<usize, StateError>;

    /// Inserts or replaces.
    fn put_session(&self, session: &SessionRow) -> Result<(), StateError>;
    /// Newest first.
    fn sessions(&self, limit: u32) -> Result<Vec<SessionRow>, StateError>;
    /// Ends the sessions that a dead daemon left open. Returns how many.
    fn end_sessions(&self, now: UnixTime, why: &str) -> Result<usize, StateError>;

    /// The id of this host, `fresh` from now on where it has none.
    fn host_id(&self, fresh: &str) -> Result<String, StateError>;
    /// Inserts or replaces.
    fn put_role(&self, role: &RoleRow) -> Result<(), StateError>;
    fn remove_role(&self, name: &str) -> Result<(), StateError>;
    fn roles(&self) -> Result<Vec<RoleRow>, StateError>;

    /// Applies many writes at once.
    fn write(&self, batch: &[Write]) -> Result<(), StateError>;
}

/// A user that the gateway gave to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidUse {
    pub uid: u32,
    /// The job that has it now.
    pub cgroup_id: Option<u64>,
    /// Grows with every use of any.
    pub number: u64,
}

/// One session, live or past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    pub id: Arc<str>,
    pub job: u64,
    pub subject: Arc<str>,
    pub resource: Arc<str>,
    /// As the client named it.
    pub database: String,
    /// Process that connected.
    pub pid: u32,
    pub uid: u32,
    pub started: UnixTime,
    pub ended: Option<UnixTime>,
    pub end_reason: Option<String>,
}

/// Why state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("state {path}: {source}")]
    Open { path: String, source: std::io::Error },
    #[error("state: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("state was written by a newer gateway (schema {found}, this one knows {known})")]
    Newer { found: u32, known: u32 },
    #[error("state: a stored {what} cannot be read: {source}")]
    Corrupt { what: &'static str, source: serde_json::Error },
    #[error("state: the writer is gone or too far behind")]
    Behind,
}
