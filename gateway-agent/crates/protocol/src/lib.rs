//! Wire protocols as state machines over bytes.
//!
//! Nothing here opens a socket, reads a clock or spawns a task: a session is fed bytes and answers with a
//! [`Step`], and whoever drives it moves the bytes and takes the decisions. What cannot be parsed is refused,
//! never relayed, and no length that a peer sends reserves memory.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::as_conversions
    )
)]

pub mod http;
pub mod kubernetes;
pub mod postgres;
pub mod sniff;
pub mod ssh;
mod step;

pub use step::{CloseReason, Leg, Step};
