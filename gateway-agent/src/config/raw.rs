//! The file as written. Nothing here is trusted yet.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Algorithm, Durability, Namespaces, Transport, jobs};

/// `agent.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    #[serde(default = "state_dir")]
    pub(super) state_dir: PathBuf,
    #[serde(default = "runtime_dir")]
    pub(super) runtime_dir: PathBuf,
    #[serde(default)]
    pub(super) kernel: Kernel,
    #[serde(default)]
    pub(super) dns: Dns,
    #[serde(default)]
    pub(super) jobs: jobs::Raw,
    pub(super) identity: Identity,
    pub(super) policy: Policy,
    #[serde(default)]
    pub(super) control: Control,
    #[serde(default)]
    pub(super) approvals: Approvals,
    #[serde(default)]
    pub(super) recording: Recording,
    #[serde(default)]
    pub(super) audit: Audit,
    pub(super) metrics: Option<Metrics>,
    #[serde(default)]
    pub(super) sessions: Sessions,
    #[serde(default)]
    pub(super) sandbox: Sandbox,
}

/// A word, so that nobody wonders what a `no` means here.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Sandbox {
    #[default]
    On,
    Off,
}

fn state_dir() -> PathBuf {
    "/var/lib/gateway".into()
}

fn runtime_dir() -> PathBuf {
    "/run/gateway".into()
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Kernel {
    pub(super) cgroup_root: Option<PathBuf>,
    pub(super) pin_dir: Option<PathBuf>,
    pub(super) virtual_port: Option<u16>,
    pub(super) mode: crate::kernel::Mode,
    pub(super) allow: Vec<Destination>,
    pub(super) namespaces: Namespaces,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Dns {
    pub(super) answer: Option<bool>,
    pub(super) upstreams: Vec<String>,
    pub(super) timeout: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Destination {
    pub(super) net: String,
    pub(super) port: u16,
    pub(super) protocol: Transport,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) skew: Option<String>,
    pub(super) issuers: Vec<Issuer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Issuer {
    pub(super) issuer: String,
    pub(super) audience: String,
    #[serde(default = "yes")]
    pub(super) nonce: bool,
    pub(super) jwks_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) discovery: bool,
    pub(super) ca: Option<PathBuf>,
    pub(super) algorithms: Option<Vec<Algorithm>>,
    pub(super) max_lifetime: Option<String>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) files: Vec<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Control {
    pub(super) socket: Option<PathBuf>,
    pub(super) group: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Approvals {
    pub(super) approvers: Vec<String>,
}

impl Default for Approvals {
    fn default() -> Self {
        Self { approvers: vec!["root".into()] }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Recording {
    pub(super) dir: Option<PathBuf>,
    pub(super) signing_key: Option<PathBuf>,
    pub(super) required: Option<bool>,
    pub(super) durability: Option<Durability>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Audit {
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) listen: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Sessions {
    pub(super) workers: Option<usize>,
    pub(super) max_per_job: Option<u32>,
    pub(super) max_total: Option<u32>,
    pub(super) login_timeout: Option<String>,
    pub(super) idle_timeout: Option<String>,
    pub(super) ssh_rekey_bytes: Option<usize>,
    pub(super) ssh_rekey_after: Option<String>,
    pub(super) sql_max_bytes: Option<usize>,
}
