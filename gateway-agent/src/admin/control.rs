//! What the control API works on.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::api;
use crate::{
    approval::{Approvals, Directory},
    identity::Enrolments,
    session::registry::Shown,
};

/// Handles of the control API.
pub struct Control {
    pub approvals: Approvals,
    pub enrolments: Arc<Enrolments>,
    pub backend: Arc<dyn Backend>,
    pub directory: Arc<dyn Directory>,
    /// Members may use the API, as root may.
    pub group: Option<String>,
}

/// The rest of the agent, as the control API needs it. Called on the control runtime; must not block for long.
pub trait Backend: Send + Sync {
    fn status(&self) -> api::Status;

    /// Live sessions.
    fn sessions(&self) -> Vec<api::Session>;

    /// Ends a session and its work upstream. `false`: there is no such session.
    fn kill_session(&self, id: &str, reason: &str) -> bool;

    /// What a session's job is shown from now on. `None`: there is no such session.
    fn watch_session(&self, id: &str) -> Option<mpsc::Receiver<Shown>>;

    /// Reads the policy files again and puts them in force if they are good; the new version, or diagnostics
    /// for the operator.
    fn reload_policy(&self) -> Result<String, Vec<String>>;

    /// For audit and metrics.
    fn observe(&self, what: &Observation<'_>);
}

/// What happened at the control API that audit and metrics want to know.
#[derive(Debug)]
pub enum Observation<'a> {
    /// A job was bound.
    Enrolled(&'a crate::identity::Job),
    /// An enrolment was refused; `code` is a fixed word, see `EnrolError::code`.
    EnrolRefused {
        pid: i32,
        uid: u32,
        cgroup: Option<String>,
        code: &'static str,
        message: String,
    },
    /// A caller asked for something that it may not do.
    ControlRefused {
        pid: i32,
        uid: u32,
        path: String,
        inside_job: Option<u64>,
    },
    /// A person answered, or tried to: `error` says why the answer was not taken.
    Answered {
        approval: &'a str,
        uid: u32,
        approve: bool,
        reason: &'a str,
        error: Option<String>,
    },
    SessionKilled {
        id: &'a str,
        uid: u32,
        reason: &'a str,
    },
    SessionWatched {
        id: &'a str,
        uid: u32,
    },
    JobReleased {
        cgroup_id: u64,
        uid: u32,
    },
    /// `Err` carries the diagnostics; the old policy stays in force.
    PolicyReload {
        uid: u32,
        result: Result<&'a str, &'a [String]>,
    },
}
