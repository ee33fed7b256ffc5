//! PostgreSQL, protocol 3.0 and 3.2.
//!
//! [`session::Session`] is the state machine; its module says how to drive it. [`message`] knows the bytes of
//! single messages, [`mask`] rewrites rows, COPY data and error texts.

pub mod gate;
pub mod message;
pub mod sql;

mod cancel;
mod decision;

mod mask;
mod reply;
mod scram;
mod session;

pub use cancel::{BackendKey, CancelKey};
pub use decision::{
    Allowed, Beforehand, CopyData, CopyOptions, CopyText, Decision, NoOrigins, Origin, Origins, Plannable,
    Refusal,
};
pub use session::{
    AskKind, Columns, Event, Events, Login, Outcome, Output, Param, Params, Pending, Row, Session, Settings,
    Startup,
};
