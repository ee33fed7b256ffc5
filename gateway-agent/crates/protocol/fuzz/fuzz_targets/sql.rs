//! What a client may write as SQL.

#![no_main]

use std::thread;

use libfuzzer_sys::fuzz_target;
use protocol::postgres::sql::{Catalogue, analyse};

/// As much as the agent gives its analysis thread.
const STACK: usize = 128 << 20;

fuzz_target!(|sql: &str| {
    thread::scope(|scope| {
        let analysis = thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, || drop(analyse(sql, &Catalogue::empty(), 64 * 1024)))
            .expect("a thread");
        analysis.join().expect("analysis panicked");
    });
});
