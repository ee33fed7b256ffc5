//! What is particular to each kind of resource that is called by HTTP.
//!
//! The one seam between the transport and what requests mean. A kind says which protocols it speaks, turns a request's head (and its
//! body, if it wants to see it first) into an [`Action`], rewrites the head for the server, and reads the response on its way to the
//! job. Everything else (deciding, asking people, recording, limits, policy changes) is the same for all.

use std::sync::Arc;

use hyper::{HeaderMap, http::request, http::response};
use mask::Detectors;
use policy::{Action, Http, HttpObligations, Obligations, Resource, Upstream};
use protocol::http::{
    BadRequest,
    body::{Body, Search, Withheld, content_type},
    fields,
    target::{self, Came},
};

use crate::tls::{HTTP, Protocols};

/// The kinds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Https,
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
            Upstream::Https(_) | Upstream::Postgres(_) | Upstream::Ssh(_) => Self::Https,
        }
    }

    /// What is offered to clients behind TLS. HTTP/1.1 alone where clients upgrade connections.
    pub(super) fn protocols(self) -> Protocols {
        match self {
            Self::Https => HTTP,
        }
    }

    /// (a) What the request asks for.
    ///
    /// # Errors
    /// When it breaks HTTP, or could be read differently by the server.
    pub(super) fn interpret(self, came: Came<'_>, head: &request::Parts) -> Result<Asked, BadRequest> {
        let request = target::read(came, head.method.as_str(), &head.uri, head.version, &head.headers)?;
        match self {
            Self::Https => Ok(Asked {
                line: request.line(),
                host: request.host.clone(),
                upgrade: request.upgrade.clone(),
                action: Action::Http(Http::Request(request)),
            }),
        }
    }

    /// (b) How many bytes of the request's body have to be seen before it is decided; a longer one is refused. `None`: the body is
    /// passed on as it comes.
    pub(super) fn wants_body(self, _asked: &Asked) -> Option<usize> {
        match self {
            Self::Https => None,
        }
    }

    /// (b) What the request asks for, now that its body is known.
    ///
    /// # Errors
    /// When the body cannot be read.
    pub(super) fn with_body(self, asked: Asked, _body: &[u8]) -> Result<Asked, BadRequest> {
        match self {
            Self::Https => Ok(asked),
        }
    }

    /// (d) The head for the server, once the request is allowed: hop-by-hop fields are gone already, what the gateway injects comes
    /// after.
    pub(super) fn rewrite(self, headers: &mut HeaderMap, allowed: &Obligations) {
        match self {
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
        allowed: &Obligations,
        head: &response::Parts,
    ) -> Result<Option<Filter>, Withheld> {
        match self {
            Self::Https => {
                if !hides(allowed) {
                    return Ok(None);
                }
                let of = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
                let none = Arc::new(HttpObligations::default());
                let http = allowed.http.as_ref().unwrap_or(&none);
                let kind = content_type(of("content-type"));
                let search = Search::of(&kind, &http.json, allowed.detectors.as_ref())?;
                Ok(Some(Filter::Body(Body::new(of("content-encoding"), search)?)))
            }
        }
    }

    /// A refusal as this kind's own clients expect it; `None`: as everybody does.
    pub(super) fn refusal(self, _status: u16, _reason: &str) -> Option<Document> {
        match self {
            Self::Https => None,
        }
    }

    /// (e) What looks at an upgraded connection.
    pub(super) fn upgraded(self, _asked: &Asked, _protocol: &str) -> Upgraded {
        match self {
            Self::Https => Upgraded::Unseen,
        }
    }
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
    Body(Body),
}

impl Filter {
    /// Takes from the front of `input` and appends what can be shown to `out`, a bounded piece. False: the input is used up.
    ///
    /// # Errors
    /// When nothing more may be shown.
    pub(super) fn step(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, Withheld> {
        match self {
            Self::Body(body) => body.step(input, out),
        }
    }

    /// The body is over.
    ///
    /// # Errors
    /// When it ended in the middle.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Withheld> {
        match self {
            Self::Body(body) => body.finish(out),
        }
    }

    /// Shows what is held back although more may come: nothing has come for a while.
    pub(super) fn pause(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Body(body) => body.pause(out),
        }
    }

    /// How much was hidden.
    pub(super) fn hidden(&self) -> u64 {
        match self {
            Self::Body(body) => body.hidden(),
        }
    }
}

/// Looks at the bytes of an upgraded connection.
#[derive(Debug)]
pub(super) enum Upgraded {
    /// They are recorded as they are.
    Unseen,
}

impl Upgraded {
    /// Bytes that are about to be passed on. False: they are not, and the connection ends.
    pub(super) fn passes(&mut self, _from_job: bool, _bytes: &[u8]) -> bool {
        match self {
            Self::Unseen => true,
        }
    }
}
