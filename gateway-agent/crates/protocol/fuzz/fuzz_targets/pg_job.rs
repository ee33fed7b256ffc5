//! What a client may send, from its first byte on, and to a session that is logged in.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol_fuzz::{drive, ready, session};

fuzz_target!(|bytes: &[u8]| {
    let Some((how, bytes)) = bytes.split_first() else { return };
    let mut session = if how & 1 == 0 { session() } else { ready() };
    // In pieces: what is cut must read as what is whole.
    for piece in bytes.chunks(usize::from(*how >> 1) + 1) {
        session.job_in().extend_from_slice(piece);
        drive(&mut session);
    }
});
