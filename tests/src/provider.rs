//! An HTTPS server that publishes an issuer's keys: discovery document and key set.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{https::Server, netns::Netns, pki::Authority};

/// A running provider.
#[derive(Debug)]
pub struct Provider {
    server: Server,
    published: Arc<Mutex<Published>>,
}

#[derive(Debug)]
struct Published {
    jwks: Value,
    requests: usize,
}

impl Provider {
    /// Serves inside a namespace.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(space: &Netns, address: SocketAddr, ca: &Authority, jwks: Value) -> Result<Self> {
        let url = format!("https://{address}");
        let published = Arc::new(Mutex::new(Published { jwks, requests: 0 }));
        let shared = Arc::clone(&published);
        let server = Server::start(space, address, ca, move |request| match request.path.as_str() {
            "/.well-known/openid-configuration" => ("200 OK", discovery(&url).to_string()),
            "/keys" => {
                let mut published = shared.lock().unwrap_or_else(PoisonError::into_inner);
                published.requests += 1;
                ("200 OK", published.jwks.to_string())
            }
            _ => ("404 Not Found", String::new()),
        })?;
        Ok(Self { server, published })
    }

    /// The issuer's name: where its discovery document is.
    #[must_use]
    pub fn url(&self) -> &str {
        self.server.url()
    }

    /// Publishes other keys from now on.
    pub fn publish(&self, jwks: Value) {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).jwks = jwks;
    }

    /// How often the key set was fetched.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).requests
    }
}

fn discovery(url: &str) -> Value {
    json!({
        "issuer": url,
        "jwks_uri": format!("{url}/keys"),
        "authorization_endpoint": format!("{url}/authorize"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
    })
}
