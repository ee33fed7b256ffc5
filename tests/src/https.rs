//! A small HTTPS server in a namespace, for whom the agent itself asks: issuers, and what stands for Vault.

use std::{net::SocketAddr, sync::Arc, sync::mpsc, thread::JoinHandle};

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::oneshot,
};
use tokio_rustls::TlsAcceptor;

use crate::{netns::Netns, pki::Authority};

/// Largest request read.
const MOST: usize = 64 * 1024;

/// What was asked.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// The fields as they came, one a line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    /// A field of the head.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A status, its phrase included, and JSON.
pub type Answer = (&'static str, String);

/// A running server.
#[derive(Debug)]
pub struct Server {
    url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves inside a namespace, one request after the other.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(
        space: &Netns,
        address: SocketAddr,
        ca: &Authority,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        let identity = ca.server(&[&address.ip().to_string()])?;
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(chain, key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        // A thread of its own, for good: entering a namespace is for a thread.
        let space = space.clone();
        let thread = std::thread::spawn(move || {
            let inside = space.enter(|| serve(address, &acceptor, &answer, stopped, &ready));
            if let Ok(Err(error)) | Err(error) = inside {
                ready.send(Err(error)).ok();
            }
        });
        started.recv().context("the server's thread ended")??;
        Ok(Self { url: format!("https://{address}"), stop: Some(stop), thread: Some(thread) })
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Server {
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
    answer: &(impl Fn(&Request) -> Answer + Sync),
    stopped: oneshot::Receiver<()>,
    ready: &mpsc::Sender<Result<()>>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        ready.send(Ok(())).ok();
        let accept = async {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    converse(stream, answer).await.ok();
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

async fn converse(
    mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    answer: &(impl Fn(&Request) -> Answer + Sync),
) -> Result<()> {
    let mut read = Vec::new();
    let request = loop {
        if let Some(request) = whole(&read) {
            break request;
        }
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await?;
        anyhow::ensure!(count > 0 && read.len() < MOST, "no whole request");
        read.extend_from_slice(piece.get(..count).unwrap_or_default());
    };
    let (status, body) = answer(&request);
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

/// The request, once all of it is there.
fn whole(read: &[u8]) -> Option<Request> {
    let end = read.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(read.get(..end)?).into_owned();
    let mut words = head.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request = Request { method, path, head, body: Vec::new() };
    let length = request.field("content-length").and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    request.body = read.get(end + 4..)?.get(..length)?.to_owned();
    Some(request)
}
