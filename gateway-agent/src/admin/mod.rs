//! The agent's own doors: the control API on a unix socket, and metrics and health over TCP.
//!
//! The control API knows its callers by what the kernel says of them. A process inside a job may enrol and
//! nothing else; everything else needs root or a member of the configured group.

pub mod api;
mod control;
mod handlers;
mod metrics;
mod serve;

pub use control::{Backend, Control, Observation};
pub use metrics::{MetricsSource, serve_metrics};
pub use serve::{bind_control, serve_control};
