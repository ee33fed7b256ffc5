//! HTTP hosts, checked.

use std::fmt;

use crate::model::{SecretRef, Tls};

/// What a resource of kind `https` has besides hosts and ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUpstream {
    /// Names by which jobs may call it: its hosts' names, and those that it says besides.
    pub names: Vec<ServerName>,
    /// Those of the resource's ports on which HTTP is spoken without TLS, on both legs.
    pub plain_ports: Vec<u16>,
    /// How the server is verified; never [`TlsMode::Disable`](crate::TlsMode::Disable).
    pub tls: Tls,
    /// Keys that the server may have; empty = any that its certificate proves.
    pub pins: Vec<Pin>,
    /// Header fields that the gateway sets; the job's own of that name are dropped.
    pub inject: Vec<Inject>,
    /// Header fields of the job that are dropped, lower case.
    pub strip: Vec<String>,
}

impl HttpUpstream {
    /// Whether jobs may call it by this name. Addresses are the caller's to compare.
    pub fn has_name(&self, name: &str) -> bool {
        self.names.iter().any(|known| known.matches(name))
    }
}

/// A name of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// Lower case.
    Exact(String),
    /// `*.…`: one label before this, which begins with its dot.
    Below(String),
}

impl ServerName {
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(suffix) => name
                .strip_suffix(suffix.as_str())
                .is_some_and(|label| !label.is_empty() && !label.contains('.')),
        }
    }

    /// Whether some name could be both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), other) => other.matches(a),
            (Self::Below(a), Self::Below(b)) => a == b,
            (one, Self::Exact(b)) => one.matches(b),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// SHA-256 of a server's public key, in the form SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

/// A header field that the gateway sets on every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inject {
    /// Lower case.
    pub header: String,
    /// Text in front of the secret: `Bearer `.
    pub prefix: String,
    pub value: SecretRef,
    /// Base64 of a user, a colon and the secret, behind `Basic `.
    pub basic_user: Option<String>,
}
