//! Connections to the host. Each belongs to one connection of a job: nothing that a host keeps by connection is shared by jobs.

use std::{cell::RefCell, time::Duration};

use hyper::{Request, Response, body::Incoming, client::conn};
use hyper_util::rt::{TokioIo, TokioTimer};
use policy::{ClientCertificate, KubernetesMethod, Permit, Scheme};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{FIELDS, HEAD, Here, Session, WAITING, body::Upload};
use crate::{
    session::stream::Stream,
    tls::{HTTP, HTTP_1, Protocols, TlsError, public_key_sha256},
    upstream::{self, UpstreamError},
};

/// How long a host may take to begin its answer, once nothing more of the request comes.
const ANSWER: Duration = Duration::from_secs(300);
/// Connections of HTTP/1.1 that are kept for the next request.
const KEPT: usize = 16;
const STREAM_WINDOW: u32 = 1024 * 1024;
const WINDOW: u32 = 4 * 1024 * 1024;

/// Why the host did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostError {
    #[error(transparent)]
    Connect(#[from] UpstreamError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("its public key is not one that policy names")]
    Pin,
    #[error("TLS: {0}")]
    Handshake(std::io::Error),
    #[error("it does not answer in time")]
    Timeout,
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("policy no longer says that it is called by HTTP")]
    Kind,
}

impl HostError {
    /// 504 for who is too slow, 502 for all else.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Timeout | Self::Connect(UpstreamError::Timeout(_)) => 504,
            _ => 502,
        }
    }
}

/// Connections to the host that wait for a request.
#[derive(Default)]
pub(super) struct Pool {
    one: RefCell<Vec<conn::http1::SendRequest<Upload>>>,
    two: RefCell<Option<conn::http2::SendRequest<Upload>>>,
}

/// A connection that carries one request.
pub(super) enum Carrier {
    One(conn::http1::SendRequest<Upload>),
    Two(conn::http2::SendRequest<Upload>),
}

impl Session {
    /// A connection to the host for one request. `upgrade`: one that can become something else.
    pub(super) async fn carrier(
        &self,
        permit: &Permit,
        host: &str,
        upgrade: bool,
        h2: bool,
    ) -> Result<Carrier, HostError> {
        if let Some(kept) = self.kept(upgrade) {
            return Ok(kept);
        }
        let patience = self.shared().config.sessions.login_timeout;
        let protocols: Protocols = if h2 && !upgrade { HTTP } else { HTTP_1 };
        let certificate = self.certificate();
        let stream = match timeout(patience, self.dial(permit, host, protocols, certificate)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(HostError::Timeout),
        };
        if stream.host_protocol() == Some(b"h2") {
            let mut builder = conn::http2::Builder::new(Here);
            builder
                .timer(TokioTimer::new())
                .max_send_buf_size(WAITING)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(WINDOW)
                .max_header_list_size(u32::try_from(HEAD).unwrap_or(u32::MAX));
            let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
            tokio::task::spawn_local(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection to a host");
                }
            });
            *self.pool.two.borrow_mut() = Some(sender.clone());
            return Ok(Carrier::Two(sender));
        }
        let mut builder = conn::http1::Builder::new();
        builder.max_headers(FIELDS).max_buf_size(HEAD.saturating_mul(4));
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a host");
            }
        });
        Ok(Carrier::One(sender))
    }

    fn kept(&self, upgrade: bool) -> Option<Carrier> {
        if !upgrade
            && let Some(sender) = &*self.pool.two.borrow()
            && !sender.is_closed()
        {
            return Some(Carrier::Two(sender.clone()));
        }
        let mut one = self.pool.one.borrow_mut();
        while let Some(sender) = one.pop() {
            if sender.is_ready() {
                return Some(Carrier::One(sender));
            }
        }
        None
    }

    /// The response was read to its end: the connection can carry another request.
    pub(super) fn keep(&self, carrier: Carrier) {
        if let Carrier::One(sender) = carrier {
            let mut one = self.pool.one.borrow_mut();
            if !sender.is_closed() && one.len() < KEPT {
                one.push(sender);
            }
        }
    }

    /// The certificate that requests are made under.
    fn certificate(&self) -> Option<ClientCertificate> {
        let resource = self.resource();
        let login = &resource.kubernetes()?.login;
        match (&login.method, &login.service_account) {
            (KubernetesMethod::Certificate(certificate), None) => Some(certificate.clone()),
            _ => None,
        }
    }

    pub(super) async fn dial(
        &self,
        permit: &Permit,
        host: &str,
        protocols: Protocols,
        certificate: Option<ClientCertificate>,
    ) -> Result<Stream, HostError> {
        let resource = self.resource();
        let address = self.flow.original;
        let patience = self.shared().config.sessions.login_timeout;
        let stream = upstream::connect(permit, &resource, address, patience).await?;
        if self.scheme == Scheme::Http {
            return Ok(stream);
        }
        let of = resource.http().ok_or(HostError::Kind)?;
        let client = self.shared().tls.http_upstream(&of.tls, host, certificate, protocols)?;
        let stream = stream
            .connect_tls(TlsConnector::from(client.config), client.server_name)
            .await
            .map_err(HostError::Handshake)?;
        if !of.pins.is_empty() {
            let key = stream.peer_certificate().and_then(public_key_sha256).ok_or(HostError::Pin)?;
            if !of.pins.iter().any(|pin| pin.0 == key) {
                return Err(HostError::Pin);
            }
        }
        Ok(stream)
    }
}

impl Carrier {
    pub(super) fn is_h2(&self) -> bool {
        matches!(self, Self::Two(_))
    }

    /// Sends a request; the answer's head is awaited. `sent`: how much of the body has gone.
    ///
    /// # Errors
    /// With the request, when it was not sent because the connection had been closed meanwhile.
    pub(super) async fn send(
        &mut self,
        request: Request<Upload>,
        sent: impl Fn() -> u64,
    ) -> Result<Response<Incoming>, (HostError, Option<Request<Upload>>)> {
        let sending = async {
            match self {
                Self::One(sender) => sender.try_send_request(request).await,
                Self::Two(sender) => sender.try_send_request(request).await,
            }
        };
        tokio::pin!(sending);
        loop {
            let before = sent();
            match timeout(ANSWER, &mut sending).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(mut failed)) => {
                    let request = failed.take_message();
                    return Err((HostError::Http(failed.into_error()), request));
                }
                Err(_) if sent() > before => {}
                Err(_) => return Err((HostError::Timeout, None)),
            }
        }
    }
}
