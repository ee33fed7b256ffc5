//! The recording format from outside.

mod asciicast;
mod common;
mod cost;
mod roundtrip;
mod tamper;
