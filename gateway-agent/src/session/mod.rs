//! Sessions: from an accepted flow to its last byte.
//!
//! `worker` threads own them, `legs` moves bytes, a protocol's driver (`postgres`, `ssh`, `http`) takes decisions, `scope` and
//! `analysis` find them, `observer` records. `registry` is how the rest of the agent reaches a session.

mod analysis;
pub mod budget;
mod http;
pub mod legs;
mod log;
mod observer;
mod people;
mod postgres;
pub mod registry;
mod scope;
mod side;
mod ssh;
pub mod stream;
pub mod worker;

use std::sync::Arc;

use arc_swap::ArcSwap;
use policy::Policy;

use crate::{
    approval::Approvals,
    audit::{Audit, Recorder},
    config::Config,
    credential::Roles,
    state::Lazy,
    telemetry::Metrics,
    upstream::{Addresses, Catalogues, Tls},
};

/// What all sessions share.
pub struct Shared {
    pub config: Config,
    pub policy: ArcSwap<InForce>,
    pub approvals: Arc<Approvals>,
    pub registry: Arc<registry::Registry>,
    pub catalogues: Catalogues,
    pub budgets: budget::Budgets,
    /// Roles made for jobs.
    pub roles: Roles,
    /// Tokens that clusters made for the gateway.
    pub kubernetes: crate::credential::KubernetesTokens,
    pub tls: Arc<Tls>,
    /// What jobs' SSH clients verify.
    pub ssh: crate::ssh::Authority,
    /// For files whose contents are searched before a job reads them.
    pub sftp_room: Arc<protocol::ssh::sftp::Room>,
    /// For masks that hash: the same value gives the same mask as long as this key lives.
    pub mask_key: Arc<mask::Key>,
    pub recorder: Recorder,
    pub audit: Audit,
    pub metrics: Arc<Metrics>,
    pub state: Lazy,
}

/// The policy in force and where its resources are.
pub struct InForce {
    pub policy: Arc<Policy>,
    pub addresses: Addresses,
}
