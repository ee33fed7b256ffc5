//! API servers, checked.

use std::{path::PathBuf, time::Duration};

use crate::{
    http::HttpUpstream,
    model::{ClientCertificate, SecretRef},
};

/// What a resource of kind `kubernetes` has besides hosts and ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesUpstream {
    /// How it is called and verified.
    pub http: HttpUpstream,
    pub login: KubernetesLogin,
    /// Whom the gateway acts as; `None` = as itself.
    pub impersonate: Option<Impersonate>,
}

/// How the gateway logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesLogin {
    pub method: KubernetesMethod,
    /// Ask for a token of this account, with `method`, and use that for everything else.
    pub service_account: Option<ServiceAccount>,
}

/// What the gateway logs in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubernetesMethod {
    /// A bearer token; the secret is read anew when it is older than a minute, as mounted tokens are replaced.
    Token(SecretRef),
    Certificate(ClientCertificate),
    Plugin(ExecPlugin),
}

/// An account and the tokens of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    pub namespace: String,
    pub name: String,
    pub valid_for: Duration,
    pub audiences: Vec<String>,
}

/// A program that prints a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecPlugin {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub env: Vec<(String, SecretRef)>,
}

/// Whom the gateway acts as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impersonate {
    user: String,
    pub groups: Vec<String>,
}

impl Impersonate {
    pub(crate) fn new(user: String, groups: Vec<String>) -> Self {
        Self { user, groups }
    }

    /// The user's name for a subject.
    pub fn user(&self, subject: &str) -> String {
        self.user.replace("{subject}", subject)
    }
}
