//! What can be wrong with a file.

use std::io;

use crate::key::PublicKey;

/// Why a file could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read; says nothing about its content.
    #[error("reading failed at byte {offset}: {source}")]
    Io { offset: u64, source: io::Error },
    /// The content is not what was written.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Evidence that a file is not what its agent wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}{}: {what}", frame.map(|n| format!(", frame {n}")).unwrap_or_default())]
pub struct Fault {
    /// Where the frame that fails begins.
    pub offset: u64,
    /// Which frame should be there.
    pub frame: Option<u64>,
    pub what: What,
}

/// Kinds of fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum What {
    #[error("not a recording")]
    NotARecording,
    #[error("format version {0} is not known here")]
    Version(u32),
    #[error("a frame header was changed, or bytes before it were dropped or inserted")]
    HeaderChanged,
    #[error("the content of the frame was changed")]
    ContentChanged,
    #[error("frame {found} stands where frame {expected} belongs: frames were dropped or reordered")]
    Sequence { expected: u64, found: u64 },
    #[error("the frame does not follow the one before it: frames were replaced")]
    Chain,
    #[error("a frame of this kind does not belong here")]
    Kind,
    #[error("{0} exceeds its cap")]
    TooLarge(&'static str),
    #[error("the block cannot be decompressed to the length it states")]
    Compression,
    #[error("record {0} of the block is malformed")]
    Record(u32),
    #[error("times run backwards or disagree with the block header")]
    Time,
    #[error("the number of records disagrees with the header or checkpoint")]
    Count,
    #[error("the checkpoint is malformed")]
    Checkpoint,
    #[error("the session header is malformed")]
    SessionHeader,
    #[error("signed by key {0}, which is not the expected one")]
    OtherKey(PublicKey),
    #[error("the signature does not match: rewritten by somebody without the key")]
    Signature,
    #[error("data follows the end")]
    AfterEnd,
}
