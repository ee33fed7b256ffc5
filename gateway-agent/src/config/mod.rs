//! The agent's configuration: strict file to checked values, once, at start.
//!
//! `raw` mirrors the YAML and refuses unknown fields; `check` turns it into the types below, which carry no
//! value that the rest of the agent would have to doubt again. Errors name file and line, what is wrong and
//! what would be right. Paths are absolute: relative ones are taken from the folder of the file.

mod check;
mod jobs;
mod raw;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

pub use crate::audit::Durability;
pub use jobs::{Environment, JobUser, Jobs, Limits};
pub use raw::Raw;

use crate::tls::TrustFiles;

/// Where `run` and the other commands look when `--config` is not given.
pub const DEFAULT_PATH: &str = "/etc/gateway/agent.yaml";
/// Where commands look for the daemon when neither `--socket` nor a configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/gateway/control.sock";

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from.
    pub source: PathBuf,
    /// SQLite and CA key; mode 0700.
    pub state_dir: PathBuf,
    /// Control socket and the public CA certificate for jobs; mode 0755.
    pub runtime_dir: PathBuf,
    pub kernel: Kernel,
    pub dns: Dns,
    pub jobs: Jobs,
    pub identity: Identity,
    pub policy: PolicyFiles,
    pub control: Control,
    pub approvals: Approvals,
    pub recording: Recording,
    pub audit: Audit,
    /// `None` = no TCP listener.
    pub metrics: Option<Metrics>,
    pub sessions: Sessions,
    /// Whether the agent puts itself under seccomp and Landlock and drops capabilities.
    pub sandbox: bool,
}

/// Kernel enforcement.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Programs attach here; `None` = the cgroup2 mount.
    pub cgroup_root: Option<PathBuf>,
    pub pin_dir: PathBuf,
    pub virtual_port: u16,
    pub mode: crate::kernel::Mode,
    pub allow: Vec<Destination>,
    pub namespaces: Namespaces,
}

/// What becomes of a job's processes in another network namespace than the agent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespaces {
    /// The gateway listens in there, unless a job made the namespace by itself.
    #[default]
    Follow,
    /// They are refused everything.
    Deny,
}

/// The resolver that jobs reach at port 53 of any address.
#[derive(Debug, Clone)]
pub struct Dns {
    /// Otherwise port 53 is like any other.
    pub answer: bool,
    /// Who is asked; empty = the servers of /etc/resolv.conf.
    pub upstreams: Vec<SocketAddr>,
    /// How long one of them is waited for.
    pub timeout: Duration,
}

/// A destination that jobs may reach without the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    pub net: IpNet,
    pub port: u16,
    pub protocol: Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Udp,
}

/// Who may vouch for a job.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Tolerated clock difference; at most 5 minutes.
    pub skew: Duration,
    pub issuers: Vec<Issuer>,
}

/// One allowed issuer.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// Compared byte for byte with `iss`.
    pub issuer: String,
    pub audience: String,
    /// The audience must be `<audience>:<nonce>` of this enrolment.
    pub nonce: bool,
    pub keys: KeySource,
    pub algorithms: Vec<Algorithm>,
    /// Longest accepted `exp - iat`.
    pub max_lifetime: Duration,
}

/// Where an issuer's public keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A pinned file, read again when it changes.
    File(PathBuf),
    /// `<issuer>/.well-known/openid-configuration` over HTTPS; `ca` replaces the host's roots.
    Discovery { ca: Option<PathBuf> },
}

/// The signature algorithms that are ever accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
pub enum Algorithm {
    RS256,
    ES256,
    EdDSA,
}

#[derive(Debug, Clone)]
pub struct PolicyFiles {
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Control {
    pub socket: PathBuf,
    /// Members may use the control API, as root may; `None` = root alone.
    pub group: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Approvals {
    /// Users and `@groups` of the host who may approve where a rule names nobody.
    pub approvers: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Recording {
    pub dir: PathBuf,
    pub signing_key: PathBuf,
    /// Refuse actions that cannot be recorded.
    pub required: bool,
    pub durability: Durability,
}

#[derive(Debug, Clone)]
pub struct Audit {
    pub file: PathBuf,
}

#[derive(Debug, Clone)]
pub struct Metrics {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone)]
pub struct Sessions {
    pub workers: usize,
    pub max_per_job: u32,
    pub max_total: u32,
    pub login_timeout: Duration,
    pub idle_timeout: Option<Duration>,
    /// SSH: keys are changed after this many bytes in either direction.
    pub ssh_rekey_bytes: usize,
    /// And after this long.
    pub ssh_rekey_after: Duration,
    /// Longest statement that is parsed; longer ones are refused.
    pub sql_max_bytes: usize,
}

/// Why a configuration was refused. `Display` is for the operator: `file:line: what\n  hint: what would be right`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: {source}\n  hint: {hint}", path.display())]
    Read { path: PathBuf, source: std::io::Error, hint: &'static str },
    #[error("{}{}: {message}\n  hint: {hint}", path.display(), at(*line))]
    Invalid { path: PathBuf, line: Option<usize>, message: String, hint: String },
}

fn at(line: Option<usize>) -> String {
    line.map(|l| format!(":{l}")).unwrap_or_default()
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
            hint: "name the configuration with --config FILE, or write /etc/gateway/agent.yaml",
        })?;
        Self::parse(path, &text)
    }

    /// Checks text as if it were read from `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        check::check(path, text)
    }

    /// The public CA certificate that jobs trust.
    pub fn ca_file(&self) -> PathBuf {
        self.runtime_dir.join("ca.pem")
    }

    /// The host's roots and the gateway's CA in one file, for `SSL_CERT_FILE`.
    pub fn ca_bundle(&self) -> PathBuf {
        self.runtime_dir.join("ca-bundle.pem")
    }

    /// The same for Java.
    pub fn java_roots(&self) -> PathBuf {
        self.runtime_dir.join("ca-bundle.jks")
    }

    /// All three.
    pub fn trust_files(&self) -> TrustFiles {
        TrustFiles { ca: self.ca_file(), bundle: self.ca_bundle(), java: self.java_roots() }
    }

    /// By which Kubernetes clients of jobs know the clusters.
    pub fn kubeconfig(&self) -> PathBuf {
        self.runtime_dir.join("kubeconfig")
    }

    /// By which SSH clients of jobs know the gateway.
    pub fn known_hosts(&self) -> PathBuf {
        self.runtime_dir.join("ssh_known_hosts")
    }

    /// The same by its authority.
    pub fn known_authorities(&self) -> PathBuf {
        self.runtime_dir.join("ssh_known_authorities")
    }

    /// The state database.
    pub fn state_file(&self) -> PathBuf {
        self.state_dir.join("state.sqlite")
    }
}
