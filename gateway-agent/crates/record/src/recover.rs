//! Closing what a dead agent left open.

use std::io::Read;

use crate::{
    checkpoint::{self, Body, Purpose},
    fault::ReadError,
    frame::{self, FrameHeader, Kind},
    reader::{Ending, Reader},
    verify::{Report, report},
    writer::{Scribe, WriteError, checkpoint_fields},
};

/// The last bytes of a file that [`is_ended`] wants to see.
pub const TAIL: usize = frame::HEADER + checkpoint::LEN;

/// Whether the last [`TAIL`] bytes of a file look like a seal or a recovery. Says nothing about the file being
/// genuine; saves reading every finished file to find the unfinished ones.
pub fn is_ended(tail: &[u8]) -> bool {
    let Some((header, body)) = tail.split_first_chunk() else { return false };
    let Ok(header) = FrameHeader::decode(header) else { return false };
    header.fields.kind == Kind::Sign
        && frame::hash(body) == header.content
        && Body::open(body, &header.fields.encode(), None).is_ok_and(|body| body.purpose.ends())
}

/// What to do to close a file: cut it to `keep` bytes, then append `tail`.
#[derive(Debug)]
pub struct Recovery {
    pub keep: u64,
    pub tail: Vec<u8>,
    pub report: Report,
}

/// Why a file cannot be recovered. It is left as it is, for somebody to look at.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Plans the recovery of a file that nobody writes any more. `None` when it needs none, or ends before its first
/// checkpoint and so holds nothing that could be vouched for.
pub fn recover(
    input: impl Read,
    scribe: &Scribe,
    now_unix_ns: u64,
) -> Result<Option<Recovery>, RecoverError> {
    let mut reader = Reader::new(input, Some(scribe.key().public()))?;
    let report = report(&mut reader)?;
    let (Ending::Unsealed { partial, .. }, Some(last)) = (report.ending, report.last_checkpoint) else {
        return Ok(None);
    };
    let at_ns = report.duration_ns.max(last.at_ns);
    let fields = checkpoint_fields(report.frames, at_ns, reader.previous());
    let body = Body {
        purpose: Purpose::Recovered,
        records: report.records,
        signed: last.sequence,
        at_unix_ns: now_unix_ns,
        dropped: partial,
    };
    let body = body.sign(&fields.encode(), scribe.key()).ok_or(WriteError::Sign)?;
    let mut tail = Vec::with_capacity(TAIL);
    fields.push_frame(&body, &mut tail);
    Ok(Some(Recovery { keep: report.bytes, tail, report }))
}
