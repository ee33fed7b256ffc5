//! TLS on both legs.
//!
//! Towards jobs the gateway is the server that the client dialled: leaf certificates come from a CA of this
//! host whose public part jobs are given. Towards upstreams it is a client that verifies fully unless the
//! policy file says otherwise in writing.
//!
//! The local CA is bounded to the DNS names of the policy's resources (name constraints), and gets another certificate with the same
//! key when those change. Addresses are not bounded: clients differ in how they read such constraints, and the addresses behind
//! names change by themselves. What bounds the CA besides: its key never leaves `state_dir` (0600), only jobs' environments
//! point to it, it is not installed in the host's trust store, and it signs end entities only (path length 0).

mod authority;
mod binding;
mod keystore;
mod upstream;

pub use authority::{Authority, HTTP, HTTP_1, Names, POSTGRES, Protocols, TrustFiles};
pub use binding::{public_key_sha256, server_end_point};
pub use keystore::PASSWORD as JAVA_PASSWORD;
pub use upstream::{ClientIdentity, Mode, UpstreamTls, roots_config, upstream};

use std::{path::PathBuf, sync::Arc};

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{}: {what}", path.display())]
    Content { path: PathBuf, what: String },
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("tls: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("this host has no CA certificates; install ca-certificates or name a CA file")]
    NoRoots,
    #[error("resource `{0}` is of a kind without TLS")]
    Kind(String),
    #[error("`{0}` is no server name")]
    Name(String),
}

/// Makes aws-lc-rs the provider of rustls and jsonwebtoken. Call it first; again is harmless.
pub fn install_providers() {
    // An error means that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<rustls::crypto::CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}
