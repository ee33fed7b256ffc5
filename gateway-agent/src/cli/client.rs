//! A small client of the control API: HTTP/1.1 over the unix socket.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};

use crate::admin::api::Problem;

/// Largest answer read.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Longer than the longest long poll.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Calls the daemon.
pub(super) struct Client {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("the daemon does not answer on {}: {source}\n  hint: is `gateway-agent run` running? --socket and --config say where", socket.display())]
    Unreachable { socket: PathBuf, source: std::io::Error },
    #[error("the call to the daemon broke: {0}")]
    Broken(String),
    #[error("{}{}", problem.message, details(&problem.details))]
    Refused { status: u16, problem: Problem },
}

fn details(details: &[String]) -> String {
    details.iter().map(|d| format!("\n{d}")).collect()
}

impl ClientError {
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Unreachable { .. } => ExitCode::from(3),
            Self::Refused { status: 403, .. } => ExitCode::from(4),
            _ => ExitCode::FAILURE,
        }
    }
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { socket, runtime })
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.runtime.block_on(call(&self.socket, Method::GET, path, None::<&()>))
    }

    /// Reads an answer that has no end but the daemon's or the caller's, line by line.
    pub(super) fn lines(
        &self,
        path: &str,
        each: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), ClientError> {
        self.runtime.block_on(lines(&self.socket, path, each))
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.runtime.block_on(call(&self.socket, Method::POST, path, Some(body)))
    }

    pub(super) fn delete(&self, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        self.runtime.block_on(call(&self.socket, Method::DELETE, path, Some(body)))
    }
}

/// One call on one connection. An answer without a body reads as JSON `null`.
pub(super) async fn call<T: DeserializeOwned, B: Serialize>(
    socket: &std::path::Path,
    method: Method,
    path: &str,
    body: Option<&B>,
) -> Result<T, ClientError> {
    match tokio::time::timeout(TIMEOUT, exchange(socket, method, path, body)).await {
        Ok(result) => result,
        Err(_) => Err(ClientError::Broken("no answer in 90 s".into())),
    }
}

async fn exchange<T: DeserializeOwned, B: Serialize>(
    socket: &std::path::Path,
    method: Method,
    path: &str,
    body: Option<&B>,
) -> Result<T, ClientError> {
    let broken = |e: &dyn std::fmt::Display| ClientError::Broken(e.to_string());
    let body = match body {
        Some(body) => serde_json::to_vec(body).map_err(|e| broken(&e))?,
        None => Vec::new(),
    };
    let (answer, driver) = send(socket, method, path, body).await?;
    if !answer.status().is_success() {
        return Err(refused(answer).await);
    }
    let bytes =
        Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| broken(&e))?.to_bytes();
    driver.abort();
    let bytes = if bytes.is_empty() { Bytes::from_static(b"null") } else { bytes };
    serde_json::from_slice(&bytes).map_err(|e| broken(&e))
}

type Driver = tokio::task::JoinHandle<hyper::Result<()>>;

/// Sends a request on a connection of its own.
async fn send(
    socket: &std::path::Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(Response<Incoming>, Driver), ClientError> {
    let broken = |e: &dyn std::fmt::Display| ClientError::Broken(e.to_string());
    let stream = tokio::net::UnixStream::connect(socket)
        .await
        .map_err(|source| ClientError::Unreachable { socket: socket.to_owned(), source })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "gateway")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| broken(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| broken(&e))?;
    Ok((answer, driver))
}

/// What the daemon says of a refusal.
async fn refused(answer: Response<Incoming>) -> ClientError {
    let status = answer.status();
    let bytes = match Limited::new(answer.into_body(), MAX_ANSWER).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return ClientError::Broken(error.to_string()),
    };
    let problem = serde_json::from_slice(&bytes).unwrap_or_else(|_| Problem {
        code: "http".into(),
        message: format!("the daemon answers {status}: {}", String::from_utf8_lossy(&bytes)),
        details: Vec::new(),
    });
    ClientError::Refused { status: status.as_u16(), problem }
}

/// Longest line of an answer that is read line by line.
const MAX_LINE: usize = 1024 * 1024;

async fn lines(
    socket: &std::path::Path,
    path: &str,
    mut each: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), ClientError> {
    let (mut body, driver) = {
        let (answer, driver) = send(socket, Method::GET, path, Vec::new()).await?;
        if !answer.status().is_success() {
            return Err(refused(answer).await);
        }
        (answer.into_body(), driver)
    };
    let mut held = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ClientError::Broken(e.to_string()))?;
        held.extend_from_slice(frame.data_ref().map(|data| data.as_ref()).unwrap_or_default());
        while let Some(end) = held.iter().position(|c| *c == b'\n') {
            let line: Vec<u8> = held.drain(..=end).collect();
            each(&line).map_err(ClientError::Broken)?;
        }
        if held.len() > MAX_LINE {
            return Err(ClientError::Broken("a line without end".into()));
        }
    }
    driver.abort();
    Ok(())
}

/// A path segment or query value, percent-encoded.
pub(super) fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}
