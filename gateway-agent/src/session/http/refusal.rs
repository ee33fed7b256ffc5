//! What a client is told when the gateway answers itself.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    ext::ReasonPhrase,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use policy::builtin;
use serde_json::json;

use super::{body::ToJob, kind::Kind};

/// A no, in words for the person at the client.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) rule: Arc<str>,
    pub(super) reason: String,
    pub(super) hint: String,
}

impl Refused {
    /// By policy.
    pub(super) fn new(rules: &[Arc<str>], reason: impl Into<String>, hint: impl Into<String>) -> Self {
        let rule = rules.first().cloned().unwrap_or_else(|| builtin::DEFAULT_DENY.into());
        Self { status: 403, rule, reason: reason.into(), hint: hint.into() }
    }

    /// By a rule of HTTP.
    pub(super) fn http(status: u16, reason: impl Into<String>) -> Self {
        let hint = "this is how the gateway reads HTTP; write the request plainly".to_owned();
        Self { status, rule: builtin::HTTP.into(), reason: reason.into(), hint }
    }

    pub(super) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// The host, or the way to it, failed: nothing was refused.
    pub(super) fn gateway(status: u16, reason: impl Into<String>) -> Self {
        Self { status, rule: Arc::default(), reason: reason.into(), hint: String::new() }
    }

    /// On one line.
    pub(super) fn line(&self) -> String {
        match &*self.rule {
            "" => format!("gateway: {}", self.reason),
            rule => format!("gateway: denied by policy rule {rule}: {}", self.reason),
        }
    }

    /// For clients that ask for JSON a problem document (RFC 9457), for all others lines of text.
    pub(super) fn response(&self, kind: Kind, json: bool) -> Response<ToJob> {
        let (content_type, body) = match kind.refusal(self) {
            Some(document) => (document.content_type, document.body),
            None if json => ("application/problem+json", self.document()),
            None => ("text/plain; charset=utf-8", self.text()),
        };
        let mut response = Response::new(ToJob::full(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::FORBIDDEN);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Clients that show nothing else show this one.
        if let Ok(phrase) = ReasonPhrase::try_from(printable(&self.line()).into_bytes()) {
            response.extensions_mut().insert(phrase);
        }
        response
    }

    fn document(&self) -> Vec<u8> {
        let title = match &*self.rule {
            "" => "The host cannot be reached through the gateway",
            _ => "Denied by the gateway's policy",
        };
        // `message` and `error` are what package managers show.
        let document = json!({
            "type": "about:blank",
            "title": title,
            "status": self.status,
            "detail": self.reason,
            "rule": &*self.rule,
            "hint": self.hint,
            "message": self.line(),
            "error": self.line(),
        });
        let mut text = document.to_string().into_bytes();
        text.push(b'\n');
        text
    }

    fn text(&self) -> Vec<u8> {
        let mut text = self.line();
        text.push('\n');
        if !self.hint.is_empty() {
            text.push_str("gateway: hint: ");
            text.push_str(&self.hint);
            text.push('\n');
        }
        text.into_bytes()
    }
}

/// Whether the client asks for JSON.
pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.contains("json"))
}

fn printable(text: &str) -> String {
    text.chars().take(300).map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}
