//! Recordings: an append-only file per session that shows afterwards exactly what the session did, and
//! shows when somebody changed it.
//!
//! # What it promises
//!
//! With the public key of the agent, [`verify`] finds every changed, dropped, inserted or reordered byte,
//! record and block of a file, tells a file that merely ends too early from one that was altered, and says at which
//! offset. It cannot tell that a whole file was deleted, and what was written after the last signed checkpoint
//! of a file without a seal is chained but not signed: whoever could write the file then could have written
//! that part.
//!
//! Nothing here opens files, reads clocks or starts threads: the writer writes to [`std::io::Write`], the reader
//! reads [`std::io::Read`], time is an argument. Whatever a file claims, no buffer grows beyond the caps in
//! [`limits`].
//!
//! # Layout
//!
//! All integers are little-endian.
//!
//! ```text
//! file    := prefix frame*
//! prefix  := 89 'G' 'W' 'R' 'E' 'C' 0d 0a, version u32 = 1, zero u32
//! frame   := header body
//! header  :=   0  kind      4 bytes   "HEAD" "DATA" "SIGN"
//!              4  records   u32       records in a DATA body, else 0
//!              8  sequence  u64       0, 1, 2, …
//!             16  first     u64       time of the first record, nanoseconds since the session began
//!             24  last      u64       time of the last record, or of the checkpoint
//!             32  stored    u32       bytes of the body
//!             36  raw       u32       bytes of the body once decompressed
//!             40  previous  32 bytes  `own` of the frame before; of the first frame: BLAKE3 of the prefix
//!             72  content   32 bytes  BLAKE3 of the body as stored
//!            104  own       32 bytes  BLAKE3 of bytes 0..104
//! ```
//!
//! The first frame is HEAD, once; its body is the session's [`Header`] as JSON, not compressed. A SIGN frame
//! follows it at once. A DATA body is one zstd frame of records; a SIGN body is a checkpoint:
//!
//! ```text
//! record     := length u32 of what follows, time u64, kind u8, field*
//! field      := number u8 with the top bit clear, LEB128 value
//!             | number u8 with the top bit set, LEB128 length, bytes
//! checkpoint :=   0  purpose   u8        1 open, 2 interval, 3 seal, 4 recovered
//!                 1  records   u64       records in all frames before
//!                 9  signed    u64       sequence of the checkpoint before, 0 when this is the first
//!                17  at        u64       nanoseconds since 1970
//!                25  dropped   u64       bytes of an incomplete frame that recovery cut off, else 0
//!                33  key       32 bytes  Ed25519 public key
//!                65  signature 64 bytes  over "gateway recording checkpoint 1\0", header bytes 0..72, body bytes 0..65
//! ```
//!
//! The last frame of a whole file is a SIGN with purpose seal or recovered, and nothing follows it. Readers skip record
//! kinds and fields they do not know.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::as_conversions
    )
)]

mod asciicast;
mod checkpoint;
mod codec;
mod event;
mod export;
mod fault;
mod frame;
mod key;
pub mod limits;
mod reader;
mod recover;
pub mod text;
mod verify;
mod writer;

pub use asciicast::{CastError, channels, to_asciicast};
pub use checkpoint::{Checkpoint, Purpose};
pub use codec::{Batch, PushError};
pub use event::{Event, Header, List, Param, Params, Process, Stream, Verdict};
pub use export::{ExportError, to_json_lines};
pub use fault::{Fault, ReadError, What};
pub use key::{KeyError, PublicKey, SigningKey};
pub use reader::{Ending, Item, Reader, read};
pub use recover::{RecoverError, Recovery, TAIL, is_ended, recover};
pub use verify::{Report, verify};
pub use writer::{Scribe, WriteError, Writer};
