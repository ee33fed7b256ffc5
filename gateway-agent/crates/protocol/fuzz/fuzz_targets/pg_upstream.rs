//! What a server may send: at login, and in answer to some of everything.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol_fuzz::{drive, ready, session};

/// Questions, by the first byte.
const QUESTIONS: [&[u8]; 6] = [
    b"Q\0\0\0\x0dSELECT 1\0",
    b"Q\0\0\0\x0cSEECT 1\0",
    b"Q\0\0\0\x0eSELECT 10\0",
    b"P\0\0\0\x0e\0SEECT\0\0\0B\0\0\0\x0c\0\0\0\0\0\0\0\0D\0\0\0\x06P\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04",
    b"P\0\0\0\x0ds\0SEEC\0\0\0D\0\0\0\x07Ss\0H\0\0\0\x04",
    b"Q\0\0\0\x0bSEE 12\0",
];

fuzz_target!(|bytes: &[u8]| {
    let Some((how, bytes)) = bytes.split_first() else { return };
    let mut session = match QUESTIONS.get(usize::from(how & 7)) {
        Some(question) => {
            let mut session = ready();
            session.job_in().extend_from_slice(question);
            session
        }
        None => {
            let mut session = session();
            session.job_in().extend_from_slice(b"\0\0\0\x10\0\x03\0\0user\0u\0\0");
            session
        }
    };
    drive(&mut session);
    for piece in bytes.chunks(usize::from(*how >> 3) + 1) {
        session.up_in().extend_from_slice(piece);
        drive(&mut session);
    }
});
