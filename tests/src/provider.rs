//! An HTTPS server that publishes an issuer's keys: discovery document and key set.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::oneshot,
};
use tokio_rustls::TlsAcceptor;

use crate::{netns::Netns, pki::Authority};

/// A running provider.
#[derive(Debug)]
pub struct Provider {
    url: String,
    published: Arc<Mutex<Published>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
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
        let identity = ca.server(&[&address.ip().to_string()])?;
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(chain, key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let url = format!("https://{address}");
        let published = Arc::new(Mutex::new(Published { jwks, requests: 0 }));
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        // A thread of its own, for good: entering a namespace is for a thread.
        let (space, shared, served) = (space.clone(), published.clone(), url.clone());
        let thread = std::thread::spawn(move || {
            let inside = space.enter(|| serve(address, &acceptor, &shared, &served, stopped, &ready));
            if let Ok(Err(error)) | Err(error) = inside {
                ready.send(Err(error)).ok();
            }
        });
        started.recv().context("the provider's thread ended")??;
        Ok(Self { url, published, stop: Some(stop), thread: Some(thread) })
    }

    /// The issuer's name: where its discovery document is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
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

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn serve(
    address: SocketAddr,
    acceptor: &TlsAcceptor,
    published: &Arc<Mutex<Published>>,
    url: &str,
    stopped: oneshot::Receiver<()>,
    ready: &mpsc::Sender<Result<()>>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        ready.send(Ok(())).ok();
        let accept = async {
            while let Ok((stream, _)) = listener.accept().await {
                // One at a time is enough for a test.
                if let Ok(stream) = acceptor.accept(stream).await {
                    answer(stream, published, url).await.ok();
                }
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
        Ok(())
    })
}

async fn answer(
    mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    published: &Arc<Mutex<Published>>,
    url: &str,
) -> Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < 16_384 {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            break;
        }
        request.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
    let request = String::from_utf8_lossy(&request);
    let body = match request.split(' ').nth(1) {
        Some("/.well-known/openid-configuration") => Some(json!({
            "issuer": url,
            "jwks_uri": format!("{url}/keys"),
            "authorization_endpoint": format!("{url}/authorize"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
        })),
        Some("/keys") => {
            let mut published = published.lock().unwrap_or_else(PoisonError::into_inner);
            published.requests += 1;
            Some(published.jwks.clone())
        }
        _ => None,
    };
    let (status, body) = body.map_or(("404 Not Found", String::new()), |body| ("200 OK", body.to_string()));
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}
