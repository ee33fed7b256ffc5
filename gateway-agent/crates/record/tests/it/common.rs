//! A recording to take apart.

use std::sync::Arc;

use record::{Event, Header, List, Params, Process, Scribe, SigningKey, Verdict, Writer};

pub(crate) const SEED: [u8; 32] = [7; 32];

pub(crate) fn key() -> SigningKey {
    SigningKey::from_seed(&SEED).unwrap()
}

pub(crate) fn scribe() -> Scribe {
    Scribe::new(key()).unwrap()
}

pub(crate) fn header() -> Header {
    Header {
        session: "s1".into(),
        started_unix_ns: 1_800_000_000_000_000_000,
        subject: "payments-agent".into(),
        job: "j1".into(),
        resource: "orders".into(),
        process: Process { pid: 42, uid: 1000, command: "psql".into() },
        ..Header::default()
    }
}

pub(crate) fn statement(n: u64, sql: &str) -> Event<'_> {
    Event::Statement {
        n,
        sql: sql.into(),
        params: Params::None,
        verdict: Verdict::Allow,
        rules: List::Owned(vec!["read".into()]),
        approval: None,
    }
}

/// Blocks of two statements each, sealed when `seal`; a checkpoint after the second block.
pub(crate) fn recording(sqls: &[&str], seal: bool) -> Vec<u8> {
    let mut scribe = scribe();
    let mut writer = Writer::open(Vec::new(), &header(), &mut scribe).unwrap();
    for (i, pair) in sqls.chunks(2).enumerate() {
        for (j, sql) in pair.iter().enumerate() {
            let n = (i * 2 + j) as u64;
            writer.append(n * 1000, &statement(n, sql), &mut scribe).unwrap();
        }
        writer.flush(&mut scribe).unwrap();
        if i == 1 {
            writer.checkpoint(n_ns(i), &mut scribe).unwrap();
        }
    }
    if seal { writer.seal(1_000_000, &mut scribe).unwrap() } else { writer.get_ref().clone() }
}

fn n_ns(block: usize) -> u64 {
    block as u64 * 10_000
}

/// Frames of a file: (kind, start, end).
pub(crate) fn frames(file: &[u8]) -> Vec<([u8; 4], usize, usize)> {
    let mut frames = Vec::new();
    let mut at = 16;
    while at < file.len() {
        let stored = u32::from_le_bytes(file[at + 32..at + 36].try_into().unwrap()) as usize;
        frames.push((file[at..at + 4].try_into().unwrap(), at, at + 136 + stored));
        at += 136 + stored;
    }
    frames
}

pub(crate) fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}
