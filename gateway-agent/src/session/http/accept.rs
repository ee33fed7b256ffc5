//! From an accepted connection to what it is to: the name in the ClientHello, and TLS ended under it or let through.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use policy::{Action, Allow, Effect, Http, PassThrough, Question, Resource, builtin};
use protocol::{
    http::target,
    sniff::{Sniffed, sniff},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsAcceptor, rustls::server::Acceptor};

use super::kind::Kind;
use crate::{
    intercept::Flow,
    session::{stream::Stream, worker::Worker},
    telemetry::FlowResult,
    tls::TlsError,
};

/// Longest ClientHello that is looked at.
const HELLO: usize = 16 * 1024;
/// Fatal alert `unrecognized_name` (RFC 6066): the client says what is wrong instead of that the connection broke.
const UNRECOGNISED: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// A connection that is known.
pub(super) enum Accepted {
    Ended { stream: Stream, resource: Arc<Resource>, name: Option<String> },
    PassThrough(Passing),
}

/// TLS that policy lets through.
pub(super) struct Passing {
    pub(super) tcp: TcpStream,
    pub(super) resource: Arc<Resource>,
    pub(super) asked: PassThrough,
    pub(super) allow: Allow,
    pub(super) rules: Vec<Arc<str>>,
}

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAccepted {
    #[error("the client does not speak {0}, which this destination is for")]
    Protocol(&'static str),
    #[error("no resource at {to} goes by the name {name}")]
    Name { name: String, to: SocketAddr },
    #[error("the name in the ClientHello is no host name")]
    BadName,
    #[error("TLS with the client: {0}")]
    Handshake(io::Error),
    #[error("before the first message: {0}")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl NotAccepted {
    pub(super) fn result(&self) -> FlowResult {
        match self {
            Self::Name { .. } => FlowResult::NoResource,
            _ => FlowResult::Protocol,
        }
    }

    pub(super) fn rule(&self) -> Arc<str> {
        match self {
            Self::Name { .. } => builtin::DEFAULT_DENY.into(),
            _ => builtin::HTTP.into(),
        }
    }

    /// What was asked for.
    pub(super) fn about(&self) -> String {
        match self {
            Self::Name { name, .. } => format!("TLS to {name}"),
            _ => "connect".to_owned(),
        }
    }
}

/// Finds out what the connection is to, and ends TLS. `resource`: one of those at the destination.
pub(super) async fn accept(
    worker: &Worker,
    flow: &Flow,
    resource: &Arc<Resource>,
    subject: &str,
    mut tcp: TcpStream,
) -> Result<Accepted, NotAccepted> {
    let port = flow.original.port();
    if resource.http().is_some_and(|http| http.plain_ports.contains(&port)) {
        return match first(&tcp, &mut [0; 16]).await? {
            Sniffed::Http => {
                Ok(Accepted::Ended { stream: Stream::Plain(tcp), resource: Arc::clone(resource), name: None })
            }
            _ => Err(NotAccepted::Protocol("HTTP")),
        };
    }
    if first(&tcp, &mut [0; 16]).await? != Sniffed::Tls {
        return Err(NotAccepted::Protocol("TLS"));
    }
    let name = match server_name(&tcp).await? {
        Some(name) => target::name(&name).map_err(|_| NotAccepted::BadName)?,
        None => flow.original.ip().to_canonical().to_string(),
    };
    let found = worker.shared.policy.load().addresses.find_http(flow.original, &name).cloned();
    let Some(resource) = found else {
        // The client may be gone.
        let _ = tcp.write_all(&UNRECOGNISED).await;
        return Err(NotAccepted::Name { name, to: flow.original });
    };
    let asked = PassThrough { host: name, port };
    if let Some((allow, rules)) = lets_through(worker, subject, &resource, &asked) {
        return Ok(Accepted::PassThrough(Passing { tcp, resource, asked, allow, rules }));
    }
    let name = asked.host;
    let config = worker.shared.tls.http_config(&name, Kind::of(&resource).protocols())?;
    let stream =
        Stream::Plain(tcp).accept_tls(TlsAcceptor::from(config)).await.map_err(NotAccepted::Handshake)?;
    Ok(Accepted::Ended { stream, resource, name: Some(name) })
}

/// Whether a rule says that this is not to be looked into.
fn lets_through(
    worker: &Worker,
    subject: &str,
    resource: &Resource,
    asked: &PassThrough,
) -> Option<(Allow, Vec<Arc<str>>)> {
    let policy = worker.shared.policy.load();
    let subject = policy.policy.subject_named(subject)?;
    let action = Action::Http(Http::PassThrough(asked.clone()));
    let now = crate::clock::now();
    let question = Question { subject: &subject, resource, action: &action, now, grant: None };
    let verdict = policy.policy.decide(&question);
    match verdict.effect {
        Effect::Allow(allow) => Some((allow, verdict.rules)),
        Effect::Approve(_) | Effect::Deny(_) => None,
    }
}

/// Looks at the first bytes without taking them.
async fn first(tcp: &TcpStream, room: &mut [u8]) -> io::Result<Sniffed> {
    let mut seen = 0;
    loop {
        let n = peek(tcp, room, &mut seen).await?;
        match sniff(room.get(..n).unwrap_or_default()) {
            Sniffed::More => {}
            found => return Ok(found),
        }
    }
}

/// More bytes than `seen`, or the same for a little while: peeking cannot wait for more than there are.
async fn peek(tcp: &TcpStream, room: &mut [u8], seen: &mut usize) -> io::Result<usize> {
    tcp.readable().await?;
    let n = tcp.peek(room).await?;
    if n == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if n == *seen {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    *seen = n;
    Ok(n)
}

/// The name in the ClientHello, as rustls reads it.
async fn server_name(tcp: &TcpStream) -> Result<Option<String>, NotAccepted> {
    let mut room = vec![0; HELLO];
    let mut seen = 0;
    let broken =
        |what: &str| NotAccepted::Handshake(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
    loop {
        let n = peek(tcp, &mut room, &mut seen).await?;
        let mut acceptor = Acceptor::default();
        let mut bytes = room.get(..n).unwrap_or_default();
        while !bytes.is_empty() {
            acceptor.read_tls(&mut bytes)?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted.client_hello().server_name().map(str::to_owned)),
            Ok(None) if n >= HELLO => return Err(broken("the ClientHello is too long")),
            Ok(None) => {}
            Err((error, _)) => return Err(broken(&error.to_string())),
        }
    }
}
