//! One request: read, decided, sent on, or answered by the gateway itself.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{
    HeaderMap, Request, Response,
    body::{Body as _, Incoming},
    header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName, HeaderValue},
    upgrade::OnUpgrade,
};
use policy::{Effect, Permit, Resource};
use protocol::http::target::Came;
use secrecy::ExposeSecret as _;
use tokio::{sync::oneshot, time::timeout};

use super::{
    Session,
    ask::Granted,
    body::{Moved, ToJob, Upload, count},
    exchange::{Exchange, Opened},
    kind::Asked,
    refusal::{Refused, wants_json},
};
use crate::{credential, session::log::Said, session::observer::Lost};

/// Most of a body that people are shown.
const SHOWN: u64 = 64 * 1024;
/// How long a body that has to be seen as a whole may take to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of a refused request's body is still read, and for how long.
const DRAINED: usize = 1024 * 1024;
const DRAINING: Duration = Duration::from_secs(5);
/// How long secrets from files are used before they are read again.
const FRESH: Duration = Duration::from_secs(10);

/// Header fields that the gateway sets, as they were read.
#[derive(Default)]
pub(super) struct Secrets(Option<Kept>);

struct Kept {
    read: Instant,
    of: Arc<Resource>,
    fields: Vec<(HeaderName, HeaderValue)>,
}

/// Why the gateway answers itself.
enum No {
    Refused(Refused),
    /// What happened cannot be written down.
    Lost(Lost),
}

impl From<Refused> for No {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Lost> for No {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

/// Answers one request.
pub(super) async fn answer(session: Rc<Session>, mut request: Request<Incoming>) -> Response<ToJob> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let json = wants_json(&head.headers);
    let waits = head.headers.contains_key(EXPECT);
    let busy = session.busy();
    let mut body = Some(Arriving::Streaming(body));
    let answered = match serve(&session, head, &mut body, upgrade).await {
        Ok(response) => return response,
        Err(No::Refused(refused)) => refused,
        Err(No::Lost(lost)) => {
            let why = session.lost(&lost).await;
            Refused::gateway(503, why)
        }
    };
    // A client that is still sending would take the end of it for the end of the connection.
    if let Some(Arriving::Streaming(body)) = body
        && !waits
    {
        tokio::task::spawn_local(drain(body));
    }
    drop(busy);
    answered.response(session.kind(), json)
}

async fn serve(
    session: &Rc<Session>,
    mut head: hyper::http::request::Parts,
    arriving: &mut Option<Arriving>,
    upgrade: OnUpgrade,
) -> Result<Response<ToJob>, No> {
    let since = Instant::now();
    let kind = session.kind();
    let came =
        Came { scheme: session.scheme, name: session.name.as_deref(), port: session.flow.original.port() };
    let asked = match kind.interpret(came, &head) {
        Ok(asked) => asked,
        Err(bad) => {
            let text = format!("{} {}", head.method, head.uri.path());
            let said = Said { kind: "request", text: text.get(..1024).unwrap_or(&text) };
            let rules = std::slice::from_ref(&bad.rule);
            session.log.denied(said, rules, &bad.reason, since.elapsed()).await?;
            return Err(bad.into());
        }
    };
    if let Err(refused) = session.belongs(&asked) {
        let rules = std::slice::from_ref(&refused.rule);
        session.log.denied(asked.said(), rules, &refused.reason, since.elapsed()).await?;
        return Err(refused.into());
    }
    let moved = Rc::new(Moved::default());
    let mut asked = asked;
    if let (Some(most), Some(body)) = (kind.wants_body(&asked), arriving.as_mut()) {
        let held = body.hold(u64::try_from(most).unwrap_or(u64::MAX)).await?;
        let line = asked.line.clone();
        let read = kind.rewritten(&asked, &held).and_then(|other| {
            let held = other.as_ref().map_or(&*held, |other| &other.body);
            Ok((kind.with_body(asked, held)?, other))
        });
        asked = match read {
            Ok((asked, None)) => asked,
            // What was decided is what is sent.
            Ok((asked, Some(other))) => {
                head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(other.content_type));
                *body = Arriving::Held(other.body.into());
                asked
            }
            Err(bad) => {
                let said = Said { kind: "request", text: line.get(..1024).unwrap_or(&line) };
                session
                    .log
                    .denied(said, std::slice::from_ref(&bad.rule), &bad.reason, since.elapsed())
                    .await?;
                return Err(bad.into());
            }
        };
    }
    let policy = session.shared().policy.load_full();
    let verdict = session.decide(&policy.policy, &asked.action, None);
    if matches!(verdict.effect, Effect::Approve(_))
        && declared(arriving, &head.headers).is_some_and(|length| length <= SHOWN)
        && let Some(body) = arriving.as_mut()
    {
        body.hold(SHOWN).await?;
    }
    let held = arriving.as_ref().and_then(Arriving::held);
    let because = match &verdict.ahead {
        Some(ahead) => session.preview(ahead.permit.opens(), &asked.action, held.unwrap_or_default()).await,
        None => None,
    };
    let granted = session.ask(&asked, verdict, &policy.policy, (held, because), since).await??;
    let Granted { rules, allow, approval } = granted;
    let limits = allow.obligations.http.as_ref().map(|of| of.limits.clone()).unwrap_or_default();
    if let Err(limit) = session.shared().budgets.request(session.live.job, &limits.per_minute) {
        let why = format!("the job's limit of {} requests a minute is used up", limit.most);
        return Err(exceeded(session, &asked, &limit.rule, &why, 429).await?.into());
    }
    if let Some(limit) = &limits.request_bytes
        && declared(arriving, &head.headers).is_some_and(|length| length > limit.most)
    {
        let why = format!("the request's body may have {} bytes", limit.most);
        return Err(exceeded(session, &asked, &limit.rule, &why, 413).await?.into());
    }
    let own = session.identity(&allow.permit).await;
    let own = own.map_err(|error| error.to_string());
    let fields = own.and_then(|own| {
        let mut fields = session.secrets(&allow.permit).map_err(|error| error.to_string())?;
        fields.extend(own);
        Ok(fields)
    });
    let fields = match fields {
        Ok(fields) => fields,
        Err(error) => {
            session.log.upstream_failed(&error);
            return Err(Refused::gateway(502, "the gateway's own credential cannot be used").into());
        }
    };
    let masks = &allow.obligations.masks;
    let level = allow.obligations.record;
    let running =
        session.log.allowed(asked.said(), &rules, masks, approval.as_ref(), level, since.elapsed()).await?;
    let upload = match arriving.take() {
        Some(Arriving::Streaming(body)) => {
            Upload::Streaming { body, moved: Rc::clone(&moved), limit: limits.request_bytes.clone() }
        }
        Some(Arriving::Held(body)) => Upload::Held { body: Some(body), moved: Rc::clone(&moved) },
        None => Upload::Held { body: None, moved: Rc::clone(&moved) },
    };
    let (sender, receiver) = oneshot::channel();
    let exchange = Exchange {
        session: Rc::clone(session),
        asked,
        allow,
        limits,
        running,
        moved,
        busy: session.busy(),
        upgrade,
        opened: Opened::default(),
    };
    // Goes on by itself: whatever becomes of the client, how the request ended is written down.
    tokio::task::spawn_local(exchange.run(head, upload, fields, sender));
    match receiver.await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(refused)) => Err(refused.into()),
        Err(_) => Err(Refused::gateway(502, "the request ended before it was answered").into()),
    }
}

/// Takes a little of what nobody reads, for a little while.
async fn drain(mut body: Incoming) {
    let mut left = DRAINED;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    let _ = timeout(DRAINING, reading).await;
}

/// A limit that is not to be gone beyond.
async fn exceeded(
    session: &Session,
    asked: &Asked,
    rule: &Arc<str>,
    why: &str,
    status: u16,
) -> Result<Refused, Lost> {
    session.log.denied(asked.said(), std::slice::from_ref(rule), why, Duration::ZERO).await?;
    let hint = "the limit is the policy's; ask for less, or later";
    Ok(Refused::new(std::slice::from_ref(rule), why, hint).with_status(status))
}

/// The length of the body, where it is known or the client says so.
fn declared(arriving: &Option<Arriving>, headers: &HeaderMap) -> Option<u64> {
    if let Some(Arriving::Held(body)) = arriving {
        return Some(count(body));
    }
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A request's body, before it is known whether it is passed on as it comes.
enum Arriving {
    Streaming(Incoming),
    Held(Bytes),
}

impl Arriving {
    /// Takes all of it.
    async fn hold(&mut self, most: u64) -> Result<Bytes, Refused> {
        let body = match self {
            Self::Held(body) => return Ok(body.clone()),
            Self::Streaming(body) => body,
        };
        let long = || {
            let why = format!(
                "the request's body has to be seen before it is decided, and is longer than {most} bytes"
            );
            Refused::http(413, why)
        };
        if body.size_hint().lower() > most {
            return Err(long());
        }
        let mut held = BytesMut::new();
        let reading = async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| Refused::http(400, format!("its body: {error}")))?;
                let Ok(data) = frame.into_data() else { continue };
                if u64::try_from(held.len().saturating_add(data.len())).unwrap_or(u64::MAX) > most {
                    return Err(long());
                }
                held.extend_from_slice(&data);
            }
            Ok(())
        };
        match timeout(PATIENCE, reading).await {
            Ok(read) => read?,
            Err(_) => return Err(Refused::http(408, "the request's body did not come in time")),
        }
        let held = held.freeze();
        *self = Self::Held(held.clone());
        Ok(held)
    }

    fn held(&self) -> Option<&[u8]> {
        match self {
            Self::Held(body) if !body.is_empty() => Some(body),
            _ => None,
        }
    }
}

impl Session {
    /// Without TLS the request says what the connection is to: the first one for all.
    fn belongs(&self, asked: &Asked) -> Result<(), Refused> {
        if self.name.is_some() {
            return Ok(());
        }
        let policy = self.shared().policy.load();
        let found = policy.addresses.find_http(self.flow.original, &asked.host);
        let misdirected = |what: String| Refused::http(421, what);
        let port = self.flow.original.port();
        let resource = found
            .filter(|resource| resource.http().is_some_and(|http| http.plain_ports.contains(&port)))
            .ok_or_else(|| {
                misdirected(format!("no resource at {} goes by the name {}", self.flow.original, asked.host))
            })?;
        let mut bound = self.resource.borrow_mut();
        if !self.bound.replace(true) {
            self.live.set_resource(&resource.name);
            *bound = Arc::clone(resource);
        }
        match bound.name == resource.name {
            true => Ok(()),
            false => Err(misdirected(format!("this connection is to {}", bound.name))),
        }
    }

    /// The header fields that the gateway sets there.
    fn secrets(
        &self,
        permit: &Permit,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, credential::CredentialError> {
        let resource = self.resource();
        if resource.http().is_none_or(|http| http.inject.is_empty()) {
            return Ok(Vec::new());
        }
        let mut kept = self.secrets.borrow_mut();
        if let Some(kept) = &kept.0
            && kept.read.elapsed() < FRESH
            && *kept.of == *resource
        {
            return Ok(kept.fields.clone());
        }
        let mut fields = Vec::new();
        for (name, secret) in credential::injected(permit, &resource)? {
            let unusable = |_| {
                credential::CredentialError::Unusable(format!(
                    "the secret for {name} cannot be in a header field"
                ))
            };
            let mut value = HeaderValue::from_str(secret.expose_secret()).map_err(unusable)?;
            // Never indexed by HTTP/2, nor printed.
            value.set_sensitive(true);
            let header = HeaderName::try_from(name.as_str())
                .map_err(|_| credential::CredentialError::Unusable(format!("{name} is no header field")))?;
            fields.push((header, value));
        }
        kept.0 = Some(Kept { read: Instant::now(), of: resource, fields: fields.clone() });
        Ok(fields)
    }
}
