//! What is particular to each kind of resource that is called by HTTP.
//!
//! The one seam between the transport and what requests mean. A kind says which protocols it speaks, turns a request's head (and its
//! body, if it wants to see it first) into an [`Action`], rewrites the head for the server, and reads the response on its way to the
//! job. Everything else (deciding, asking people, recording, limits, policy changes) is the same for all.

use std::{sync::Arc, time::Duration};

use hyper::{HeaderMap, http::request, http::response};
use mask::Detectors;
use policy::{Action, Http, HttpObligations, Obligations, Resource, Upstream};
use protocol::{
    http::{
        body::{Body, Search, Withheld, content_type},
        fields,
        target::{self, Came},
    },
    kubernetes::{
        self,
        spdy::Tunnel,
        stream::{PodFrames, StreamKind},
    },
};
use record::Stream;

use super::{cluster, refusal::Refused};
use crate::tls::{HTTP, Protocols};

/// The kinds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Https,
    Kubernetes,
}

/// A request as it is decided.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) action: Action,
    /// On one line, for people, recordings and approvals.
    pub(super) line: String,
    /// The host that the request is for: a name of the resource, or its address.
    pub(super) host: String,
    /// What the connection is to become, lower case.
    pub(super) upgrade: Option<String>,
    /// Of an API server: what its body will be read with.
    pub(super) pending: Option<kubernetes::Request>,
}

impl Asked {
    /// It becomes a tunnel whose ports are decided one by one.
    fn tunnels(&self) -> bool {
        let Action::Kubernetes(action) = &self.action else { return false };
        action.stream.as_ref().is_some_and(|stream| stream.tunnel)
    }

    /// The same for one port of a tunnel.
    pub(super) fn to_port(&self, port: u16) -> Self {
        let mut asked = self.clone();
        if let Action::Kubernetes(action) = &mut asked.action
            && let Some(stream) = &mut action.stream
        {
            (stream.ports, stream.tunnel) = (vec![port], false);
            asked.line = format!("{} ({})", action.line(), self.line);
        }
        asked
    }
}

/// A body that is sent in place of the one that came.
pub(super) struct Rewritten {
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

/// A refusal in the words of the kind's own clients.
pub(super) struct Document {
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

impl Kind {
    /// # Panics
    /// Never: a resource of another kind is never served here, and would be refused everything by policy.
    pub(super) fn of(resource: &Resource) -> Self {
        match &resource.upstream {
            Upstream::Kubernetes(_) => Self::Kubernetes,
            Upstream::Https(_) | Upstream::Postgres(_) | Upstream::Ssh(_) => Self::Https,
        }
    }

    /// What is offered to clients behind TLS. HTTP/1.1 alone where clients upgrade connections.
    pub(super) fn protocols(self) -> Protocols {
        match self {
            Self::Https | Self::Kubernetes => HTTP,
        }
    }

    /// (a) What the request asks for.
    ///
    /// # Errors
    /// When it breaks HTTP, or could be read differently by the server.
    pub(super) fn interpret(self, came: Came<'_>, head: &request::Parts) -> Result<Asked, Refused> {
        let request = target::read(came, head.method.as_str(), &head.uri, head.version, &head.headers)
            .map_err(|bad| Refused::http(bad.status(), bad.to_string()))?;
        match self {
            Self::Https => Ok(Asked {
                line: request.line(),
                host: request.host.clone(),
                upgrade: request.upgrade.clone(),
                action: Action::Http(Http::Request(request)),
                pending: None,
            }),
            Self::Kubernetes => {
                let read = cluster::interpret(head, request.upgrade.as_deref())?;
                let action = read.action().clone();
                Ok(Asked {
                    line: format!("{} ({})", action.line(), request.line()),
                    host: request.host,
                    upgrade: request.upgrade,
                    action: Action::Kubernetes(Box::new(action)),
                    pending: Some(read),
                })
            }
        }
    }

    /// (b) How many bytes of the request's body have to be seen before it is decided; a longer one is refused. `None`: the body is
    /// passed on as it comes.
    pub(super) fn wants_body(self, asked: &Asked) -> Option<usize> {
        match self {
            Self::Https => None,
            Self::Kubernetes => cluster::wants_body(asked),
        }
    }

    /// (b) What goes on in place of the body: the same in the format that is decided. `None`: it goes on as it came.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn rewritten(self, asked: &Asked, body: &[u8]) -> Result<Option<Rewritten>, Refused> {
        let (Self::Kubernetes, Some(request)) = (self, &asked.pending) else { return Ok(None) };
        let json = request.as_json(body).map_err(|error| cluster::refused(&error))?;
        Ok(json.map(|body| Rewritten { content_type: "application/json", body }))
    }

    /// (b) What the request asks for, now that its body is known.
    ///
    /// # Errors
    /// When the body cannot be read.
    pub(super) fn with_body(self, mut asked: Asked, body: &[u8]) -> Result<Asked, Refused> {
        if let (Self::Kubernetes, Some(request)) = (self, asked.pending.take()) {
            let action = request.with_body(body).map_err(|error| cluster::refused(&error))?;
            asked.action = Action::Kubernetes(Box::new(action));
        }
        Ok(asked)
    }

    /// (d) The head for the server, once the request is allowed: hop-by-hop fields are gone already, what the gateway injects comes
    /// after.
    pub(super) fn rewrite(self, headers: &mut HeaderMap, asked: &Asked, allowed: &Obligations) {
        match self {
            Self::Kubernetes => {
                if let Action::Kubernetes(action) = &asked.action {
                    cluster::rewrite(headers, action);
                }
            }
            Self::Https if hides(allowed) => fields::readable(headers),
            Self::Https => {}
        }
    }

    /// (c) What reads the response's body on its way to the job; `None`: it passes as it is. Not asked for responses without a
    /// body.
    ///
    /// # Errors
    /// When nothing of it may be shown.
    pub(super) fn filter(
        self,
        asked: &Asked,
        allowed: &Obligations,
        head: &response::Parts,
    ) -> Result<Option<Filter>, Kept> {
        match self {
            Self::Kubernetes => {
                let of = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
                let (Action::Kubernetes(action), Some(terms)) = (&asked.action, &allowed.kubernetes) else {
                    return Err(kubernetes::mask::Withheld::Format.into());
                };
                if of("content-encoding").is_some_and(|coding| coding != "identity") {
                    return Err(kubernetes::mask::Withheld::Format.into());
                }
                let masks = kubernetes::mask::Masks {
                    shown: terms.shown.clone(),
                    detectors: Arc::clone(&terms.detectors),
                };
                let filter = kubernetes::mask::Filter::new(action, of("content-type"), &masks)?;
                Ok(Some(Filter::Kubernetes(Box::new(filter))))
            }
            Self::Https => {
                if !hides(allowed) {
                    return Ok(None);
                }
                let of = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
                let none = Arc::new(HttpObligations::default());
                let http = allowed.http.as_ref().unwrap_or(&none);
                let kind = content_type(of("content-type"));
                let search = Search::of(&kind, &http.json, allowed.detectors.as_ref())?;
                Ok(Some(Filter::Body(Box::new(Body::new(of("content-encoding"), search)?))))
            }
        }
    }

    /// A refusal as this kind's own clients expect it; `None`: as everybody does.
    pub(super) fn refusal(self, refused: &Refused) -> Option<Document> {
        match self {
            Self::Https => None,
            Self::Kubernetes => {
                Some(Document { content_type: "application/json", body: cluster::document(refused) })
            }
        }
    }

    /// (e) Whether the server's answer to an upgrade is one that can be followed.
    pub(super) fn agrees(self, asked: &Asked, headers: &HeaderMap) -> bool {
        match self {
            Self::Https => true,
            Self::Kubernetes => cluster::agreed(headers, asked.tunnels()),
        }
    }

    /// (e) What looks at an upgraded connection.
    pub(super) fn upgraded(self, asked: &Asked, allowed: &Obligations, from_job: bool) -> Upgraded {
        match self {
            Self::Https => Upgraded::Unseen,
            Self::Kubernetes if asked.tunnels() => {
                Upgraded::Ports(Box::new(if from_job { Tunnel::from_job() } else { Tunnel::from_pod() }))
            }
            Self::Kubernetes => {
                let forwards = matches!(&asked.action, Action::Kubernetes(action)
                    if action.resource().is_some_and(|of| of.subresource.as_deref() == Some("portforward")));
                let kind = if forwards { StreamKind::Ports } else { StreamKind::Process };
                let none = Arc::new(Detectors::new(&[]));
                let detectors = allowed.kubernetes.as_ref().map_or(&none, |of| &of.detectors);
                Upgraded::Pod(Box::new(PodFrames::new(kind, detectors)))
            }
        }
    }
}

/// Why a response is not shown, or no further.
#[derive(Debug, thiserror::Error)]
pub(super) enum Kept {
    #[error(transparent)]
    Http(#[from] Withheld),
    #[error(transparent)]
    Kubernetes(#[from] kubernetes::mask::Withheld),
}

/// Something is hidden in the response.
fn hides(allowed: &Obligations) -> bool {
    allowed.detectors.is_some() || allowed.http.as_ref().is_some_and(|http| !http.json.is_empty())
}

/// Detectors over the values of a response's header fields.
pub(super) fn hide_in_fields(headers: &mut HeaderMap, detectors: &Detectors) -> u64 {
    let mut hidden = 0;
    for (_, value) in headers.iter_mut() {
        let mut shown = Vec::new();
        if detectors.rewrite(value.as_bytes(), &mut shown) {
            hidden += 1;
            // What a finding becomes is printable.
            if let Ok(new) = hyper::header::HeaderValue::from_bytes(&shown) {
                *value = new;
            } else {
                *value = hyper::header::HeaderValue::from_static("[redacted]");
            }
        }
    }
    hidden
}

/// Reads a response's body, a bounded piece at a time.
#[derive(Debug)]
pub(super) enum Filter {
    Body(Box<Body>),
    Kubernetes(Box<kubernetes::mask::Filter>),
}

impl Filter {
    /// Takes from the front of `input` and appends what can be shown to `out`, a bounded piece. False: the input is used up.
    ///
    /// # Errors
    /// When nothing more may be shown.
    pub(super) fn step(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, Kept> {
        match self {
            Self::Body(body) => Ok(body.step(input, out)?),
            Self::Kubernetes(filter) => {
                filter.push(std::mem::take(input), out)?;
                Ok(false)
            }
        }
    }

    /// The body is over.
    ///
    /// # Errors
    /// When it ended in the middle.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Kept> {
        match self {
            Self::Body(body) => Ok(body.finish(out)?),
            Self::Kubernetes(filter) => Ok(filter.finish(out)?),
        }
    }

    /// Shows what is held back although more may come: nothing has come for a while.
    pub(super) fn pause(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Body(body) => body.pause(out),
            Self::Kubernetes(filter) => filter.release(out),
        }
    }

    /// How much was hidden.
    pub(super) fn hidden(&self) -> u64 {
        match self {
            Self::Body(body) => body.hidden(),
            Self::Kubernetes(filter) => filter.hidden(),
        }
    }
}

/// Looks at the bytes of an upgraded connection, in one direction.
#[derive(Debug)]
pub(super) enum Upgraded {
    /// They are recorded as they are.
    Unseen,
    Pod(Box<PodFrames>),
    Ports(Box<Tunnel>),
}

/// What is passed on, and what of it is recorded: the bytes, and whose they are.
#[derive(Default)]
pub(super) struct Passed {
    pub(super) bytes: Vec<u8>,
    pub(super) recorded: Vec<(Stream, Vec<u8>)>,
    /// Ports to which the bytes open connections: each has to be decided before they pass.
    pub(super) opened: Vec<u16>,
}

impl Upgraded {
    /// Bytes that are about to be passed on.
    ///
    /// # Errors
    /// When they may not be, and the connection ends.
    pub(super) fn pass(&mut self, from_job: bool, bytes: &[u8]) -> Result<Passed, String> {
        match self {
            Self::Unseen => {
                let stream = if from_job { Stream::Input } else { Stream::Output };
                Ok(Passed {
                    bytes: bytes.to_vec(),
                    recorded: vec![(stream, bytes.to_vec())],
                    ..Passed::default()
                })
            }
            Self::Ports(tunnel) => {
                let mut passed = Passed::default();
                let recorded = &mut passed.recorded;
                let seen = |data: &[u8]| recorded.push((stream_of(from_job, 0), data.to_vec()));
                passed.opened = tunnel.push(bytes, &mut passed.bytes, seen).map_err(|bad| bad.to_string())?;
                Ok(passed)
            }
            Self::Pod(frames) => {
                let mut passed = Passed::default();
                let mut seen = |of: kubernetes::stream::Seen<'_>| {
                    passed.recorded.push((stream_of(from_job, of.channel), of.data.to_vec()));
                };
                match from_job {
                    true => frames.from_job(bytes, &mut passed.bytes, &mut seen),
                    false => frames.from_pod(bytes, &mut passed.bytes, &mut seen),
                }
                .map_err(|bad| bad.to_string())?;
                Ok(passed)
            }
        }
    }

    /// How long to wait for more before what is held back is shown; `None`: nothing is.
    pub(super) fn patience(&self) -> Option<Duration> {
        match self {
            Self::Pod(frames) if frames.holds() => Some(Duration::from_millis(100)),
            Self::Pod(_) | Self::Ports(_) | Self::Unseen => None,
        }
    }

    /// Shows what is held back.
    pub(super) fn pause(&mut self) -> Passed {
        let mut passed = Passed::default();
        if let Self::Pod(frames) = self {
            let recorded = &mut passed.recorded;
            frames.pause(&mut passed.bytes, |of| {
                recorded.push((stream_of(false, of.channel), of.data.to_vec()));
            });
        }
        passed
    }
}

fn stream_of(from_job: bool, channel: u8) -> Stream {
    match (from_job, channel) {
        (true, _) => Stream::Input,
        (false, 2) => Stream::Error,
        (false, _) => Stream::Output,
    }
}
