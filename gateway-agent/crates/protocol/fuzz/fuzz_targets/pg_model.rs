//! Client and server against a model of both: see the model.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol_fuzz::{model, ready, statements};

fuzz_target!(|bytes: &[u8]| model::play(bytes, ready(), 0, &statements));
