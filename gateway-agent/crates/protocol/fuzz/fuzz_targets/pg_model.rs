//! Client and server against a model of both: see the model.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol_fuzz::{model, ready, statements};

fuzz_target!(|bytes: &[u8]| {
    model::play(bytes, ready(), 0, &|sql, may_wait| match sql {
        _ if sql.contains(model::DENIED) => model::Answer::Deny,
        _ if may_wait && sql.ends_with('7') => model::Answer::Defer,
        _ => model::Answer::Allow(statements(sql)),
    });
});
