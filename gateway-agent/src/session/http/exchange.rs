//! An allowed request on its way to the host, and the response on its way back, until the last byte.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Incoming, SizeHint},
    header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, UPGRADE},
    http::{request, response},
    upgrade::OnUpgrade,
};
use policy::{Action, Allow, Bounded, Http, HttpLimits, builtin};
use protocol::http::fields;
use tokio::{sync::oneshot, time::sleep};

use super::{
    Busy, Session,
    body::{Moved, ToJob, Upload},
    kind::{Asked, hide_in_fields},
    pump::{Showing, beginning},
    refusal::Refused,
    upgrade::{self, Ends},
    upstream::{Carrier, HostError},
};
use crate::session::{
    log::{Ended, Running},
    observer::Lost,
};

/// One allowed request.
pub(super) struct Exchange {
    pub(super) session: Rc<Session>,
    pub(super) asked: Asked,
    pub(super) allow: Allow,
    pub(super) limits: HttpLimits,
    pub(super) running: Running,
    pub(super) moved: Rc<Moved>,
    pub(super) busy: Busy,
    pub(super) upgrade: OnUpgrade,
    /// What was allowed besides, within it: ports of a tunnel.
    pub(super) opened: Opened,
}

/// Actions that a change of policy decides again.
pub(super) type Opened = Rc<RefCell<Vec<Action>>>;

/// To whoever waits for the response's head; taken once.
type Head = Option<oneshot::Sender<Result<Response<ToJob>, Refused>>>;

/// Why an exchange ended before its end.
pub(super) enum Stopped {
    /// Answered by the gateway, if nothing of the response was sent yet.
    Refused(Refused),
    /// A limit was exceeded.
    Limit {
        name: &'static str,
        rule: Arc<str>,
        why: String,
    },
    /// The client is gone.
    Left,
    /// The host broke off.
    Host(String),
    Lost(Lost),
}

impl From<Lost> for Stopped {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl Exchange {
    /// Carries it to its end, and writes down how it ended.
    pub(super) async fn run(
        mut self,
        head: request::Parts,
        upload: Upload,
        fields: Vec<(HeaderName, HeaderValue)>,
        sender: oneshot::Sender<Result<Response<ToJob>, Refused>>,
    ) {
        let mut waiting: Head = Some(sender);
        let mut status = None;
        let mut masked = 0;
        let stopping = stopped(
            Rc::clone(&self.session),
            self.asked.action.clone(),
            Rc::clone(&self.opened),
            self.limits.duration.clone(),
        );
        let outcome = {
            let carrying = self.carry(head, upload, fields, &mut waiting, &mut status, &mut masked);
            tokio::select! {
                outcome = carrying => outcome,
                stopped = stopping => Err(stopped),
            }
        };
        let tag = match &outcome {
            Ok(()) => status
                .map_or_else(|| "no answer".to_owned(), |status: StatusCode| status.as_u16().to_string()),
            Err(stopped) => stopped.tag(status),
        };
        if let Err(lost) = self.conclude(outcome, waiting, &tag, masked).await {
            self.session.lost(&lost).await;
        }
        drop(self.busy);
    }

    async fn conclude(
        &self,
        outcome: Result<(), Stopped>,
        waiting: Head,
        tag: &str,
        masked: u64,
    ) -> Result<(), Lost> {
        let mut lost_now = None;
        let answer = match outcome {
            Ok(()) | Err(Stopped::Left) => None,
            Err(Stopped::Refused(refused)) => Some(refused),
            Err(Stopped::Limit { name, rule, why }) => {
                self.session.log.limit_exceeded(name, &rule, &why)?;
                let status = match name {
                    "request_bytes" => 413,
                    "duration" => 504,
                    _ => 502,
                };
                let rules = [rule];
                Some(Refused::new(&rules, why, "the limit is the policy's").with_status(status))
            }
            Err(Stopped::Host(why)) => {
                self.session.log.upstream_failed(&why);
                Some(Refused::gateway(502, format!("{} {why}", self.session.live.resource())))
            }
            Err(Stopped::Lost(lost)) => {
                let refused = Refused::gateway(503, lost.to_string());
                lost_now = Some(lost);
                Some(refused)
            }
        };
        let (from_job, to_job) = (self.moved.from_job.get(), self.moved.to_job.get());
        self.session.log.moved(from_job, to_job);
        let ended = Ended { tag, bytes_in: from_job, bytes_out: to_job, masked };
        self.running.ended(&ended).await?;
        if let (Some(refused), Some(waiting)) = (answer, waiting) {
            // The client may be gone.
            let _ = waiting.send(Err(refused));
        }
        match lost_now {
            Some(lost) => Err(lost),
            None => Ok(()),
        }
    }

    async fn carry(
        &mut self,
        head: request::Parts,
        upload: Upload,
        fields: Vec<(HeaderName, HeaderValue)>,
        waiting: &mut Head,
        status: &mut Option<StatusCode>,
        masked: &mut u64,
    ) -> Result<(), Stopped> {
        let is_head = head.method == Method::HEAD;
        let (response, carrier) = self.send(head, upload, fields).await?;
        let (mut head, mut body) = response.into_parts();
        *status = Some(head.status);
        if head.status == StatusCode::UNAUTHORIZED {
            self.session.refused_login();
        }
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(head, body, waiting).await;
        }
        let bodiless = is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if let Some(limit) = &self.limits.response_bytes
            && !bodiless
            && length(&head.headers).is_some_and(|length| length > limit.most)
        {
            return Err(too_long(limit));
        }
        let kind = self.session.kind();
        let empty = bodiless || body.is_end_stream();
        let filter = match empty {
            true => None,
            false => kind.filter(&self.asked, &self.allow.obligations, &head).map_err(|why| {
                let refused = Refused::new(
                    &[builtin::LAUNDERING.into()],
                    why.to_string(),
                    "ask for JSON, or for another path",
                );
                Stopped::Refused(refused.with_status(502))
            })?,
        };
        let hides = self.allow.obligations.detectors.is_some() || filter.is_some();
        fields::response(&mut head.headers, hides);
        if let Some(detectors) = &self.allow.obligations.detectors {
            *masked = hide_in_fields(&mut head.headers, detectors);
        }
        let (showing, to_job) = if empty {
            (None, ToJob::empty())
        } else {
            // What is masked may become longer or shorter.
            let hint = if filter.is_some() { SizeHint::default() } else { body.size_hint() };
            let (sender, to_job) = ToJob::pumped(hint);
            (Some(Showing::new(sender, hint.exact())), to_job)
        };
        let first = if empty { None } else { beginning(&mut body).await };
        let mut answer = Response::new(to_job);
        *answer.status_mut() = head.status;
        *answer.headers_mut() = head.headers;
        let waiting = waiting.take().ok_or(Stopped::Left)?;
        waiting.send(Ok(answer)).map_err(|_| Stopped::Left)?;
        if let Some(showing) = showing {
            let pumped = self.pump((first, body), filter, showing, head.status).await?;
            *masked = masked.saturating_add(pumped);
        }
        self.session.keep(carrier);
        Ok(())
    }

    /// Sends the request; once more if the connection had been closed before the request was on it.
    async fn send(
        &self,
        mut head: request::Parts,
        upload: Upload,
        fields: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<(Response<Incoming>, Carrier), Stopped> {
        let session = &self.session;
        let h2 = head.version == Version::HTTP_2;
        let upgrade = self.asked.upgrade.is_some();
        self.rewrite(&mut head.headers, fields);
        let mut request = Some((head, upload));
        let failed = |error: HostError| {
            session.log.upstream_failed(&error.to_string());
            let reason = format!("{} cannot be reached: {error}", session.live.resource());
            Stopped::Refused(Refused::gateway(error.status(), reason))
        };
        for _ in 0..3 {
            let Some((head, upload)) = request.take() else { break };
            let permit = &self.allow.permit;
            let mut carrier =
                session.carrier(permit, &self.asked.host, upgrade, h2).await.map_err(&failed)?;
            let prepared = self.prepare(&head, upload, carrier.is_h2()).map_err(Stopped::Host)?;
            match carrier.send(prepared, || self.moved.from_job.get()).await {
                Ok(response) => return Ok((response, carrier)),
                Err((_, Some(unsent))) => request = Some((head, unsent.into_body())),
                Err(_) if self.moved.too_long.get() => {
                    let rule = self.limits.request_bytes.as_ref().map(|limit| Arc::clone(&limit.rule));
                    let why = "the request's body is longer than it may be".to_owned();
                    return Err(Stopped::Limit {
                        name: "request_bytes",
                        rule: rule.unwrap_or_default(),
                        why,
                    });
                }
                Err((error, None)) => return Err(failed(error)),
            }
        }
        Err(Stopped::Host("closes every connection".to_owned()))
    }

    /// The head for the host, but for what depends on the connection.
    fn rewrite(&self, headers: &mut HeaderMap, fields: Vec<(HeaderName, HeaderValue)>) {
        let resource = self.session.resource();
        let none = Vec::new();
        fields::request(headers, resource.http().map_or(&none, |http| &http.strip));
        self.session.kind().rewrite(headers, &self.asked, &self.allow.obligations);
        for (name, value) in fields {
            headers.insert(name, value);
        }
    }

    fn prepare(&self, head: &request::Parts, upload: Upload, h2: bool) -> Result<Request<Upload>, String> {
        let host = self.authority();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let uri = if h2 { format!("https://{host}{target}") } else { target.to_owned() };
        let uri: Uri = uri.parse().map_err(|_| "has no such target".to_owned())?;
        let mut request = Request::new(upload);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = if h2 { Version::HTTP_2 } else { Version::HTTP_11 };
        let headers = request.headers_mut();
        if !h2 {
            let host = HeaderValue::from_str(&host).map_err(|_| "has no such name".to_owned())?;
            headers.insert(HOST, host);
        }
        headers.extend(head.headers.clone());
        if let Some(upgrade) = &self.asked.upgrade {
            let value = HeaderValue::from_str(upgrade).map_err(|_| "has no such protocol".to_owned())?;
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, value);
        }
        Ok(request)
    }

    fn authority(&self) -> String {
        match &self.asked.action {
            Action::Http(Http::Request(request)) => request.authority(),
            _ => self.asked.host.clone(),
        }
    }

    /// The connection becomes something else.
    async fn switch(
        &mut self,
        mut head: response::Parts,
        body: Incoming,
        waiting: &mut Head,
    ) -> Result<(), Stopped> {
        let chosen =
            head.headers.get(UPGRADE).and_then(|value| value.to_str().ok()).map(str::to_ascii_lowercase);
        let wanted = self.asked.upgrade.clone();
        if wanted.is_none() || chosen != wanted {
            return Err(Stopped::Host("switches to a protocol that nobody asked for".to_owned()));
        }
        if !self.session.kind().agrees(&self.asked, &head.headers) {
            return Err(Stopped::Host("agrees on channels that nobody asked for".to_owned()));
        }
        let protocol = chosen.unwrap_or_default();
        let mut response = Response::from_parts(head.clone(), body);
        let there = hyper::upgrade::on(&mut response);
        fields::response(&mut head.headers, false);
        let value =
            HeaderValue::from_str(&protocol).map_err(|_| Stopped::Host("names no protocol".to_owned()))?;
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, value);
        let mut answer = Response::new(ToJob::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = head.headers;
        let waiting = waiting.take().ok_or(Stopped::Left)?;
        waiting.send(Ok(answer)).map_err(|_| Stopped::Left)?;
        let here = std::mem::replace(&mut self.upgrade, hyper::upgrade::on(Response::new(())));
        let broken = |error: hyper::Error| Stopped::Host(format!("upgrade: {error}"));
        let ends = Ends { here: here.await.map_err(broken)?, there: there.await.map_err(broken)? };
        upgrade::relay(self, ends).await
    }
}

impl Stopped {
    /// In a word or two, for recordings and audit.
    fn tag(&self, status: Option<StatusCode>) -> String {
        let status = status.map(|status| format!("{} ", status.as_u16())).unwrap_or_default();
        match self {
            Self::Refused(refused) => format!("{status}refused: {}", refused.reason),
            Self::Limit { name, .. } => format!("{status}limit {name}"),
            Self::Left => format!("{status}client left"),
            Self::Host(why) => format!("{status}host {why}"),
            Self::Lost(_) => format!("{status}not recorded"),
        }
    }
}

/// Returns when the exchange may not go on: the session is over, policy changed, its time is up.
async fn stopped(
    session: Rc<Session>,
    action: Action,
    opened: Opened,
    duration: Option<Bounded<Duration>>,
) -> Stopped {
    let mut epoch = session.epoch.subscribe();
    let late = async {
        match &duration {
            Some(limit) => sleep(limit.most).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(late);
    loop {
        tokio::select! {
            why = session.ended() => return Stopped::Refused(Refused::gateway(503, why.to_string())),
            Ok(()) = epoch.changed() => {
                let opened = opened.borrow();
                for action in [&action].into_iter().chain(&*opened) {
                    if let Err(refused) = session.still(action) {
                        return Stopped::Refused(refused);
                    }
                }
            },
            () = &mut late => if let Some(limit) = &duration {
                let why = format!("it may take {:?}", limit.most);
                return Stopped::Limit { name: "duration", rule: Arc::clone(&limit.rule), why };
            },
        }
    }
}

pub(super) fn too_long(limit: &Bounded<u64>) -> Stopped {
    let why = format!("the response may have {} bytes", limit.most);
    Stopped::Limit { name: "response_bytes", rule: Arc::clone(&limit.rule), why }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
