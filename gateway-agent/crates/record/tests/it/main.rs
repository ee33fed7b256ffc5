//! The recording format from outside.

mod common;
mod cost;
mod roundtrip;
mod tamper;
