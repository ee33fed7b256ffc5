//! A web server for tests: HTTP/1.1 and HTTP/2 over TLS and in clear text, which keeps what it was asked, and one that keeps the
//! very bytes.

use std::{
    convert::Infallible,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    task::{Context as Task, Poll},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, UPGRADE},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
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

/// What only the server and the gateway's masks know.
pub const MAIL: &str = "marker.person@mail.example";
pub const TOKEN: &str = "marker-token-8f7e6d5c";

/// A running server.
#[derive(Debug)]
pub struct Web {
    asked: Arc<Mutex<Vec<Asked>>>,
    raw: Arc<Mutex<Vec<u8>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// SHA-256 of its public key, as policies pin it.
    pub pin: String,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Which connection it came by, of those that a server process has had.
    pub connection: u64,
    pub version: String,
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: u64,
}

impl Asked {
    /// The first value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Web {
    /// Port with TLS, port without, and port on which bytes are kept and answered without being understood.
    pub const TLS: u16 = 443;
    pub const PLAIN: u16 = 80;
    pub const RAW: u16 = 8080;
    /// The same with TLS, by HTTP/1.1 alone.
    pub const RAW_TLS: u16 = 8443;

    /// Serves inside a namespace, by a certificate for these names; `/www/` is `folder`, `/git/` the repositories in it.
    ///
    /// # Errors
    /// When an address is taken.
    pub fn start(
        space: &Netns,
        address: &str,
        ca: &Authority,
        names: &[&str],
        folder: &Path,
    ) -> Result<Self> {
        let identity = ca.server(names)?;
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?];
        let pin = pin(&chain)?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut old = config.clone();
        old.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptors = [config, old].map(|config| TlsAcceptor::from(Arc::new(config)));
        let (asked, raw) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<Mutex<Vec<u8>>>::default());
        let files: Arc<Path> = folder.into();
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let address: std::net::IpAddr = address.parse()?;
        // A thread of its own, for good: entering a namespace is for a thread.
        let (space, shared, bytes) = (space.clone(), asked.clone(), raw.clone());
        let thread = std::thread::spawn(move || {
            let inside =
                space.enter(|| serve(address, &acceptors, (&shared, &files), &bytes, stopped, &ready));
            if let Ok(Err(error)) | Err(error) = inside {
                ready.send(Err(error)).ok();
            }
        });
        started.recv().context("the server's thread ended")??;
        Ok(Self { asked, raw, stop: Some(stop), thread: Some(thread), pin })
    }

    /// Every request that arrived.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every byte that arrived at the port for that.
    #[must_use]
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.raw.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Forgets what arrived.
    pub fn forget(&self) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.raw.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn pin(chain: &[CertificateDer<'_>]) -> Result<String> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let first = chain.first().context("a certificate")?;
    let key = gateway_agent::tls::public_key_sha256(first).context("a public key")?;
    Ok(format!("sha256//{}", STANDARD.encode(key)))
}

type Shared = Arc<Mutex<Vec<Asked>>>;

fn serve(
    address: std::net::IpAddr,
    [acceptor, old]: &[TlsAcceptor; 2],
    (asked, files): (&Shared, &Arc<Path>),
    raw: &Arc<Mutex<Vec<u8>>>,
    stopped: oneshot::Receiver<()>,
    ready: &mpsc::Sender<Result<()>>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // Sockets are made on this thread, which is in the namespace.
    let listen = |port: u16| -> Result<std::net::TcpListener> {
        let at = SocketAddr::new(address, port);
        let listener = std::net::TcpListener::bind(at).with_context(|| format!("listening on {at}"))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let (tls, plain) = (listen(Web::TLS)?, listen(Web::PLAIN)?);
    let (bytes, sealed) = (listen(Web::RAW)?, listen(Web::RAW_TLS)?);
    runtime.block_on(async {
        let (tls, plain) = (TcpListener::from_std(tls)?, TcpListener::from_std(plain)?);
        let (bytes, sealed) = (TcpListener::from_std(bytes)?, TcpListener::from_std(sealed)?);
        ready.send(Ok(())).ok();
        let over_tls = async {
            while let Ok((stream, _)) = tls.accept().await {
                let (acceptor, asked, files) = (acceptor.clone(), asked.clone(), files.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        talk(TokioIo::new(stream), h2, asked, files).await;
                    }
                });
            }
        };
        let in_clear = async {
            while let Ok((stream, _)) = plain.accept().await {
                tokio::spawn(talk(TokioIo::new(stream), false, asked.clone(), files.clone()));
            }
        };
        let as_bytes = async {
            while let Ok((stream, _)) = bytes.accept().await {
                tokio::spawn(keep(stream, raw.clone()));
            }
        };
        let as_bytes_over_tls = async {
            while let Ok((stream, _)) = sealed.accept().await {
                let (acceptor, raw) = (old.clone(), raw.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        keep(stream, raw).await;
                    }
                });
            }
        };
        tokio::select! {
            () = as_bytes_over_tls => {}
            () = over_tls => {}
            () = in_clear => {}
            () = as_bytes => {}
            _ = stopped => {}
        }
        Ok(())
    })
}

async fn talk<I>(io: TokioIo<I>, h2: bool, asked: Shared, files: Arc<Path>)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let service = service_fn(move |request| answer(request, connection, asked.clone(), files.clone()));
    if h2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await
            .ok();
    } else {
        let builder = hyper::server::conn::http1::Builder::new();
        builder.serve_connection(io, service).with_upgrades().await.ok();
    }
}

/// Keeps what arrives, and answers each head that it sees, whatever it is.
async fn keep<S>(mut stream: S, raw: Arc<Mutex<Vec<u8>>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut room, mut seen) = (vec![0; 16 * 1024], Vec::new());
    while let Ok(n @ 1..) = stream.read(&mut room).await {
        let piece = room.get(..n).unwrap_or_default();
        raw.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(piece);
        seen.extend_from_slice(piece);
        while let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            seen.drain(..end + 4);
            let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            if stream.write_all(response).await.is_err() {
                return;
            }
        }
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

async fn answer(
    mut request: Request<Incoming>,
    connection: u64,
    asked: Shared,
    files: Arc<Path>,
) -> Result<Response<Body>, Infallible> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, mut body) = request.into_parts();
    let git = head.uri.path().starts_with("/git/");
    let mut sent = Vec::new();
    let mut length = 0;
    let mut trailers = Value::Null;
    while let Some(Ok(frame)) = body.frame().await {
        match frame.into_data() {
            Ok(data) => {
                length += data.len() as u64;
                if git {
                    sent.extend_from_slice(&data);
                }
            }
            Err(other) => {
                if let Ok(fields) = other.into_trailers() {
                    trailers = json!(pairs(&fields));
                }
            }
        }
    }
    let kept = Asked {
        connection,
        version: format!("{:?}", head.version),
        method: head.method.to_string(),
        target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: pairs(&head.headers),
        body: length,
    };
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(kept.clone());
    let path = head.uri.path().to_owned();
    if git {
        return Ok(backend(&head, sent, &files).await.unwrap_or_else(|error| failed(&format!("{error:#}"))));
    }
    if let Some(file) = path.strip_prefix("/www/") {
        return Ok(read(&files, file));
    }
    let mut parts = path.split('/').skip(1);
    let (what, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut response = Response::new(full(""));
    let headers = response.headers_mut();
    let mut is = |kind: &'static str| {
        headers.insert(CONTENT_TYPE, kind.parse().expect("a type"));
    };
    let body = match what {
        "big" => {
            is("application/octet-stream");
            big(rest.parse().unwrap_or_default())
        }
        "json" => {
            is("application/json");
            full(secrets().to_string())
        }
        "text" => {
            is("text/plain");
            full(format!("write to {MAIL} about it\n"))
        }
        "encoded" => {
            is("application/json");
            headers.insert(CONTENT_ENCODING, rest.parse().expect("a coding"));
            full(encoded(rest, secrets().to_string().as_bytes()))
        }
        "trailers" => {
            is("text/plain");
            with_trailers()
        }
        "events" => {
            is("text/event-stream");
            events()
        }
        "header" => {
            headers.insert("x-contact", MAIL.parse().expect("a value"));
            headers.insert("alt-svc", "h3=\":443\"".parse().expect("a value"));
            full("ok")
        }
        "status" => {
            *response.status_mut() = rest.parse().unwrap_or(StatusCode::BAD_REQUEST);
            full("")
        }
        "never" => {
            std::future::pending::<()>().await;
            full("")
        }
        "ws" => {
            let protocol = head.headers.get(UPGRADE).cloned();
            if let Some(protocol) = protocol {
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                response.headers_mut().insert(CONNECTION, "upgrade".parse().expect("a value"));
                response.headers_mut().insert(UPGRADE, protocol);
                tokio::spawn(async move {
                    if let Ok(upgraded) = upgrade.await {
                        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
                        tokio::io::copy(&mut from, &mut to).await.ok();
                        to.shutdown().await.ok();
                    }
                });
            }
            full("")
        }
        _ => {
            is("application/json");
            let said = json!({
                "version": kept.version, "method": kept.method, "target": kept.target,
                "headers": kept.headers, "body": length, "trailers": trailers,
            });
            full(said.to_string())
        }
    };
    *response.body_mut() = body;
    Ok(response)
}

/// A file, or the index of a folder.
fn read(folder: &Path, file: &str) -> Response<Body> {
    let mut path: PathBuf = folder.join(file.replace("%2f", "/").replace("%40", "@"));
    if path.is_dir() {
        path = path.join("index.html");
    }
    match std::fs::read(&path) {
        Ok(bytes) => {
            let mut response = Response::new(full(bytes));
            let kind = match path.extension().and_then(|end| end.to_str()) {
                Some("html") => "text/html",
                Some("json") | None => "application/json",
                Some(_) => "application/octet-stream",
            };
            response.headers_mut().insert(CONTENT_TYPE, kind.parse().expect("a type"));
            response
        }
        Err(error) => {
            let mut response = failed(&format!("{}: {error}", path.display()));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

fn failed(why: &str) -> Response<Body> {
    let mut response = Response::new(full(why.to_owned()));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// `git http-backend`, as a web server runs it.
async fn backend(head: &hyper::http::request::Parts, body: Vec<u8>, folder: &Path) -> Result<Response<Body>> {
    let of = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", head.uri.path().strip_prefix("/git").unwrap_or_default())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", head.method.as_str())
        .env("CONTENT_TYPE", of("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", of("content-encoding"))
        .env("HTTP_GIT_PROTOCOL", of("git-protocol"))
        .env("REMOTE_USER", "job")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("standard input")?;
    let feeding = tokio::spawn(async move { stdin.write_all(&body).await });
    let out = child.wait_with_output().await?;
    // It may answer without reading everything.
    feeding.await?.ok();
    let end = out.stdout.windows(4).position(|four| four == b"\r\n\r\n").context("a head")?;
    let (said, content) = out.stdout.split_at(end + 4);
    let mut response = Response::new(full(content.to_vec()));
    for line in String::from_utf8_lossy(said).lines() {
        match line.split_once(": ") {
            Some(("Status", status)) => {
                *response.status_mut() = status.split(' ').next().unwrap_or_default().parse()?
            }
            Some((name, value)) => {
                let name = hyper::header::HeaderName::from_bytes(name.as_bytes())?;
                response.headers_mut().insert(name, value.parse()?);
            }
            None => {}
        }
    }
    Ok(response)
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect()
}

/// Values that are masked in the usual policy of these tests.
fn secrets() -> Value {
    json!({
        "items": [{ "name": "a", "token": TOKEN }, { "name": "b", "token": { "inner": TOKEN } }],
        "contact": MAIL,
        "open": "everybody may read this",
    })
}

/// A body in a coding; `br` as a stored block.
fn encoded(coding: &str, text: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(text).expect("memory");
            encoder.finish().expect("memory")
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(text).expect("memory");
            encoder.finish().expect("memory")
        }
        "zstd" => zstd::encode_all(text, 3).expect("memory"),
        "br" => {
            // RFC 7932 9: window of 16 bits; not last, four nibbles of length, uncompressed; then an empty last block.
            let length = u32::try_from(text.len() - 1).expect("a short text");
            let bits = (length << 4) | (1 << 20);
            let mut body = bits.to_le_bytes()[..3].to_vec();
            body.extend_from_slice(text);
            body.push(3);
            body
        }
        _ => text.to_vec(),
    }
}

/// `length` bytes, made as they are taken.
fn big(length: u64) -> Body {
    const PIECE: u64 = 64 * 1024;
    let pieces = (0..length.div_ceil(PIECE)).map(move |at| {
        let size = PIECE.min(length - at * PIECE);
        Ok(Frame::data(Bytes::from(vec![b'x'; usize::try_from(size).expect("a piece")])))
    });
    StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync()
}

fn with_trailers() -> Body {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "abc".parse().expect("a value"));
    trailers.insert("set-cookie", "no=1".parse().expect("a value"));
    let frames = [Ok(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))];
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

/// An event now, and one for each later turn of a timer, for ever.
fn events() -> Body {
    StreamBody::new(Events { timer: tokio::time::interval(Duration::from_millis(200)), n: 0 }).boxed_unsync()
}

struct Events {
    timer: tokio::time::Interval,
    n: u64,
}

impl futures_util::Stream for Events {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Self::Item>> {
        if self.timer.poll_tick(cx).is_pending() {
            return Poll::Pending;
        }
        self.n += 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(format!("data: event {}\n\n", self.n))))))
    }
}
