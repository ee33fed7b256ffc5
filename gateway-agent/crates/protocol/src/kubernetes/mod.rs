//! Kubernetes: requests as the API server reads them, and answers without their secrets. HTTP itself is spoken elsewhere.
//!
//! [`Request::read`] takes a request's head; [`Request::with_body`] what its body adds; the result is what policy decides. What could
//! be read in two ways is refused. [`mask::Filter`] passes the answer on.

pub mod accept;
mod body;
pub mod change;
mod json;
mod marker;
pub mod mask;
mod patch;
mod path;
mod protobuf;
mod request;
mod risk;
pub mod spdy;
mod status;
pub mod stream;

#[cfg(test)]
mod tests;

pub use request::{BODY_MAX, Head, Request, case};
pub use status::{Refusal, status};

/// A request that cannot be read, or could be read in two ways.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Unreadable {
    /// HTTP status of the answer.
    pub code: u16,
    pub what: String,
    /// What to do instead.
    pub hint: &'static str,
}

impl Unreadable {
    pub(crate) fn bad(what: &str) -> Self {
        Self { code: 400, what: what.to_owned(), hint: "send it as the Kubernetes clients do" }
    }

    pub(crate) fn ambiguous(what: &str) -> Self {
        let what = format!("the request has {what}, which servers read in different ways");
        Self { code: 400, what, hint: "write the path and the query plainly, each parameter once" }
    }

    /// A body in a format that is not read here.
    pub(crate) fn format(what: &str) -> Self {
        let what = format!("bodies in {what} are not read by the gateway, so they are not let through");
        Self { code: 415, what, hint: "send JSON (Content-Type: application/json)" }
    }
}
