//! SSH hosts, checked.

use std::{fmt, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{model::SecretRef, pattern::Glob};

/// What a resource of kind `ssh` has besides hosts and ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshUpstream {
    /// Keys that the host may show. Never empty together with `host_authorities`.
    pub host_keys: Vec<HostKey>,
    /// Keys of authorities whose host certificates are accepted, if they name the host that the job dialled.
    pub host_authorities: Vec<PublicKey>,
    /// Login names that jobs may ask for.
    pub users: Vec<Glob>,
    pub login: SshLogin,
}

impl SshUpstream {
    /// Whether jobs may ask for this login name.
    pub fn has_user(&self, user: &str) -> bool {
        self.users.iter().any(|glob| glob.matches(user))
    }

    /// Whether the host may show this key, in the wire form of RFC 4253 6.6. `sha256` is the digest of `blob`.
    pub fn trusts_key(&self, blob: &[u8], sha256: &[u8; 32]) -> bool {
        self.host_keys.iter().any(|key| match key {
            HostKey::Key(known) => known.blob == blob,
            HostKey::Sha256(known) => known == sha256,
        })
    }
}

/// A pinned host key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostKey {
    Key(PublicKey),
    /// Its SHA-256, as `ssh-keygen -l` prints it.
    Sha256([u8; 32]),
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// `ssh-ed25519`, `ecdsa-sha2-nistp256` …
    pub algorithm: String,
    /// In the wire form of RFC 4253 6.6, algorithm included.
    pub blob: Vec<u8>,
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use base64::Engine as _;
        write!(f, "{} {}", self.algorithm, base64::engine::general_purpose::STANDARD.encode(&self.blob))
    }
}

/// How the gateway logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshLogin {
    /// For every login name that is not in `users`; `None` = the name that the job asked for.
    pub user: Option<String>,
    /// Names that jobs ask for and whom the gateway logs in as then.
    pub users: Vec<(String, String)>,
    pub method: LoginMethod,
}

impl SshLogin {
    /// Whom to log in as for a job that asks for `asked`.
    pub fn upstream_user<'a>(&'a self, asked: &'a str) -> &'a str {
        let mapped = self.users.iter().find(|(from, _)| from == asked).map(|(_, to)| to.as_str());
        mapped.or(self.user.as_deref()).unwrap_or(asked)
    }
}

/// What the gateway logs in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginMethod {
    /// An OpenSSH private key without a passphrase.
    Key(SecretRef),
    Password(SecretRef),
    /// A certificate that is signed for each session, for a key that the gateway makes for it.
    Certificate(UserCertificate),
}

/// A short-lived user certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserCertificate {
    pub signer: Signer,
    /// Empty = the name that is logged in as.
    pub principals: Vec<String>,
    /// From being signed.
    pub valid_for: Duration,
    /// The critical option `source-address`; empty = none.
    pub source_address: Vec<IpNet>,
    /// The critical option `force-command`.
    pub force_command: Option<String>,
}

/// Who signs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// The gateway, with this private key.
    Own(SecretRef),
    /// Vault's SSH secrets engine.
    Vault(Box<Vault>),
}

/// Vault's SSH secrets engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vault {
    /// `https://host:port`, without a slash at its end.
    pub address: String,
    /// PEM certificates to trust instead of the host's own.
    pub ca: Option<PathBuf>,
    pub namespace: Option<String>,
    pub mount: String,
    pub role: String,
    pub login: VaultLogin,
    /// The certificate's key id names job, subject and session.
    pub key_id: bool,
}

/// How the gateway logs in to Vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultLogin {
    Token(SecretRef),
    /// `auth/MOUNT/login` with a JWT of the gateway's own.
    Jwt {
        mount: String,
        role: String,
        token: SecretRef,
    },
}
