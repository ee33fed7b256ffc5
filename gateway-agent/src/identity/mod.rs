//! Who a job is: from a verified OIDC token to a cgroup with a subject.
//!
//! [`Verifier`] judges tokens, [`Cgroups`] places a process in the cgroup tree by what the kernel says of it,
//! and [`Enrolments`] binds the two: one cgroup, one identity, first bind wins, until the token expires, the
//! cgroup goes away or someone releases it. After that moment no bearer token is used any more.

mod cgroup;
mod claims;
mod container;
mod enrolment;
mod error;
mod jwks;
mod peer;
#[cfg(test)]
pub(crate) mod testing;
mod uids;
mod verifier;

pub use cgroup::{Cgroups, Place};
pub use claims::Claims;
pub use container::{Container, Engine};
pub use enrolment::{Begun, Enrolments, Host, JobEnd, JobUser, Target};
pub use error::{EnrolError, PlaceError, TokenError};
pub use peer::Peer;
pub use verifier::Verifier;

use std::{path::PathBuf, sync::Arc};

use policy::UnixTime;
use serde::{Deserialize, Serialize};

/// An enrolled cgroup and everything below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Kernel id of the cgroup: the inode of its directory. Unique within a boot.
    pub cgroup_id: u64,
    /// Directory of the cgroup.
    pub cgroup: PathBuf,
    /// Policy's name for it.
    pub subject: Arc<str>,
    pub issuer: String,
    /// The token's `sub`.
    pub sub: String,
    /// The token's claims without those that are about the token itself.
    pub claims: serde_json::Value,
    /// The identity ends here.
    pub expires: UnixTime,
    pub enrolled: UnixTime,
    /// Set when the identity ended before the cgroup did: the kernel keeps confining what still runs in there,
    /// but it is nobody any more.
    pub ended: Option<JobEnd>,
    /// User of the process that enrolled; when enrolled from outside, as [`JobUser`] says.
    pub uid: u32,
    /// `/proc/sys/kernel/random/boot_id` at enrolment.
    pub boot: Arc<str>,
}

impl Job {
    /// The container that it is, if an engine made its cgroup.
    pub fn container(&self) -> Option<Container> {
        Container::of(&self.cgroup)
    }

    /// Whether the identity holds at `now`.
    pub fn active(&self, now: UnixTime) -> bool {
        self.ended.is_none() && now < self.expires
    }
}

/// Time as the agent sees it; tests bring their own.
pub trait Clock: Send + Sync {
    fn now(&self) -> UnixTime;
}

/// The host's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        UnixTime(since.map(|d| d.as_secs()).unwrap_or_default())
    }
}

/// This boot, as the kernel names it.
pub fn boot_id() -> std::io::Result<Arc<str>> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().into())
}
