//! Subjects and resources, checked.

use std::{fmt, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use serde_json::Value;

use crate::{
    http::HttpUpstream, kubernetes::KubernetesUpstream, pattern::Glob, raw::OutsideJobs, ssh::SshUpstream,
};

/// Who: the name policy gives to a set of verified claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub name: Arc<str>,
}

/// Which tokens are a subject.
#[derive(Debug)]
pub(crate) struct SubjectMatch {
    pub(crate) subject: Arc<Subject>,
    pub(crate) issuer: String,
    pub(crate) claims: Vec<(String, Vec<Glob>)>,
}

impl SubjectMatch {
    pub(crate) fn matches(&self, issuer: &str, claims: &Value) -> bool {
        self.issuer == issuer
            && self.claims.iter().all(|(name, wanted)| {
                let found = match name.starts_with('/') {
                    true => claims.pointer(name),
                    false => claims.get(name),
                };
                found.is_some_and(|found| claim_matches(wanted, found))
            })
    }
}

fn claim_matches(wanted: &[Glob], found: &Value) -> bool {
    let one = |text: &str| wanted.iter().any(|glob| glob.matches(text));
    match found {
        Value::String(text) => one(text),
        Value::Bool(value) => one(&value.to_string()),
        Value::Number(number) => one(&number.to_string()),
        Value::Array(list) => list.iter().any(|item| !item.is_array() && claim_matches(wanted, item)),
        Value::Null | Value::Object(_) => false,
    }
}

/// What: a named upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    pub name: Arc<str>,
    /// Addresses, networks and names by which jobs reach it.
    pub hosts: Vec<Host>,
    pub ports: Vec<u16>,
    /// What processes of the host that are in no job may do with it.
    pub outside_jobs: OutsideJobs,
    /// What it speaks, and how to log in.
    pub upstream: Upstream,
}

/// What is particular to each kind of resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    Postgres(PostgresUpstream),
    Ssh(SshUpstream),
    Https(HttpUpstream),
    Kubernetes(KubernetesUpstream),
}

/// What a resource of kind `postgres` has besides hosts and ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresUpstream {
    pub databases: Vec<Glob>,
    pub login: Login,
    pub credential: Credential,
    pub tls: Tls,
    /// Schemas in which unqualified names are looked up after pg_catalog, in order.
    pub search_path: Vec<String>,
}

impl Resource {
    /// Whether an address and port belong to it. Hosts given by name are the caller's to resolve.
    pub fn is_at(&self, address: IpAddr, port: u16) -> bool {
        let here = |host: &Host| matches!(host, Host::Net(net) if net.contains(&address.to_canonical()));
        self.ports.contains(&port) && self.hosts.iter().any(here)
    }

    pub fn kind(&self) -> ResourceKind {
        match self.upstream {
            Upstream::Postgres(_) => ResourceKind::Postgres,
            Upstream::Ssh(_) => ResourceKind::Ssh,
            Upstream::Https(_) => ResourceKind::Https,
            Upstream::Kubernetes(_) => ResourceKind::Kubernetes,
        }
    }

    pub fn postgres(&self) -> Option<&PostgresUpstream> {
        match &self.upstream {
            Upstream::Postgres(postgres) => Some(postgres),
            Upstream::Ssh(_) | Upstream::Https(_) | Upstream::Kubernetes(_) => None,
        }
    }

    pub fn ssh(&self) -> Option<&SshUpstream> {
        match &self.upstream {
            Upstream::Ssh(ssh) => Some(ssh),
            Upstream::Postgres(_) | Upstream::Https(_) | Upstream::Kubernetes(_) => None,
        }
    }

    /// What it has as a host that is called by HTTP.
    pub fn http(&self) -> Option<&HttpUpstream> {
        match &self.upstream {
            Upstream::Https(http) => Some(http),
            Upstream::Kubernetes(of) => Some(&of.http),
            Upstream::Postgres(_) | Upstream::Ssh(_) => None,
        }
    }

    pub fn kubernetes(&self) -> Option<&KubernetesUpstream> {
        match &self.upstream {
            Upstream::Kubernetes(kubernetes) => Some(kubernetes),
            Upstream::Postgres(_) | Upstream::Ssh(_) | Upstream::Https(_) => None,
        }
    }

    /// Whether jobs may name this database.
    pub fn has_database(&self, database: &str) -> bool {
        self.postgres().is_some_and(|of| of.databases.iter().any(|glob| glob.matches(database)))
    }

    /// The schemas that names are looked up in; none where there are no schemas.
    pub fn search_path(&self) -> &[String] {
        self.postgres().map(|of| of.search_path.as_slice()).unwrap_or_default()
    }
}

/// The protocol an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceKind {
    Postgres,
    Ssh,
    Https,
    Kubernetes,
}

impl ResourceKind {
    /// Its name in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Ssh => "ssh",
            Self::Https => "https",
            Self::Kubernetes => "kubernetes",
        }
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where an upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address (a network of one) or a network.
    Net(IpNet),
    /// A DNS name, lower case.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => write!(f, "{}", net.addr()),
            Self::Net(net) => write!(f, "{net}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The gateway's own account upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: Option<SecretRef>,
    pub certificate: Option<ClientCertificate>,
    /// Roles that a job may ask for by its own user name.
    pub roles: Vec<Glob>,
}

impl Login {
    /// The role to log in as for a client that calls itself `asked`.
    pub fn role<'a>(&'a self, asked: &'a str) -> &'a str {
        if self.roles.iter().any(|glob| glob.matches(asked)) { asked } else { &self.user }
    }
}

/// Files of a client certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// What sessions of jobs log in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// The resource's own login.
    Static,
    /// A role made for each job by the resource's own login.
    Ephemeral(RoleTemplate),
}

/// What a role that is made for a job may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleTemplate {
    /// How long it can log in.
    pub valid_for: Duration,
    /// Connections at once, the gateway's own for estimates included.
    pub connections: u32,
    pub member_of: Vec<String>,
    pub grants: Vec<RoleGrant>,
}

/// One privilege on one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleGrant {
    pub privilege: Privilege,
    pub on: GrantOn,
}

/// What a grant is on. Names are exact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantOn {
    Schema(String),
    /// Schema and table.
    Table(String, String),
    /// The tables that the schema has when the role is made.
    AllTablesIn(String),
}

impl GrantOn {
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Schema(_) => "schemas",
            Self::Table(..) | Self::AllTablesIn(_) => "tables",
        }
    }
}

/// The privileges that a template can grant, in this order in what the agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Privilege {
    Usage,
    Create,
    Select,
    Insert,
    Update,
    Delete,
    Truncate,
}

/// Where a secret is kept; never the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    File(PathBuf),
    /// Environment variable of the agent.
    Env(String),
    /// systemd credential of the agent's unit.
    Credential(String),
}

/// TLS towards the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub mode: TlsMode,
    /// Name the certificate must carry; `None` = the host that the job named.
    pub server_name: Option<String>,
    /// PEM certificates to trust instead of the host's own.
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Certificate chain and name.
    VerifyFull,
    /// Certificate chain only.
    VerifyCa,
    /// Clear text.
    Disable,
}
