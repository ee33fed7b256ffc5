//! HTTP: what jobs ask for, which hosts there are, and how both are decided.
//!
//! A request arrives here with its path read (the protocol crate does), in every way that a server may read it. An allow rule
//! grants it as it is written; a deny rule is touched by any reading.

mod action;
pub(crate) mod check;
pub(crate) mod evaluate;
pub(crate) mod explain;
pub(crate) mod matcher;
mod model;
mod obligations;
mod pattern;
pub(crate) mod raw;
mod testing;

pub use action::{Ambiguity, Http, HttpPath, HttpRequest, PassThrough, Scheme};
pub use model::{HttpUpstream, Inject, Pin, ServerName};
pub use obligations::{HttpLimits, HttpObligations};
pub use testing::HttpCase;
