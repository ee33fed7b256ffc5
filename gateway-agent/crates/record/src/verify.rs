//! Is a recording what its agent wrote?

use std::io::Read;

use serde::Serialize;

use crate::{
    checkpoint::Checkpoint,
    event::Header,
    fault::ReadError,
    key::PublicKey,
    reader::{Ending, Reader},
};

/// What an unaltered file holds. A file that is not sealed gives a report too: see [`Ending`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `None` when the file ends before its header does.
    pub header: Option<Header>,
    pub frames: u64,
    pub blocks: u64,
    pub records: u64,
    /// Bytes of whole frames.
    pub bytes: u64,
    /// Time of the last record, nanoseconds since the session began.
    pub duration_ns: u64,
    /// Everything before its end is vouched for.
    pub last_checkpoint: Option<Checkpoint>,
    pub ending: Ending,
}

/// Reads everything and checks everything. `Err` with a [`crate::Fault`] is evidence of tampering, of a damaged
/// disk, or of the wrong key; a file that only ends too early is a report without a seal.
pub fn verify(input: impl Read, key: &PublicKey) -> Result<Report, ReadError> {
    let mut reader = Reader::new(input, Some(*key))?;
    report(&mut reader)
}

pub(crate) fn report<R: Read>(reader: &mut Reader<R>) -> Result<Report, ReadError> {
    while reader.next_item()?.is_some() {}
    Ok(Report {
        header: reader.header().cloned(),
        frames: reader.frames(),
        blocks: reader.blocks(),
        records: reader.records(),
        bytes: reader.offset(),
        duration_ns: reader.last_ns(),
        last_checkpoint: reader.last_checkpoint(),
        ending: reader.ending().unwrap_or(Ending::Unsealed { offset: reader.offset(), partial: 0 }),
    })
}
