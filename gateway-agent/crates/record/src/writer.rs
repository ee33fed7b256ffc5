//! Writing a recording.

use std::io::{self, Write};

use zstd::{bulk::Compressor, zstd_safe};

use crate::{
    checkpoint::{Body, Purpose},
    codec::{Batch, PushError},
    event::{Event, Header},
    frame::{self, Fields, Hash, Kind},
    key::SigningKey,
    limits,
};

/// Blocks between signatures: 4 MiB of records at most.
const SIGN_BLOCKS: u64 = 64;
/// Time between signatures while something is written.
const SIGN_NS: u64 = 10_000_000_000;
/// Recordings are many and short; the fastest of zstd's usual levels already takes out what repeats.
const LEVEL: i32 = 1;
/// Takes two thirds of the time, and leaves up to twice the size.
const HURRIED: i32 = -3;

/// What writers share: the key, the compressors and their buffers. One per thread that writes.
pub struct Scribe {
    key: SigningKey,
    zstd: Compressor<'static>,
    hurried: Compressor<'static>,
    hurry: bool,
    packed: Vec<u8>,
    out: Vec<u8>,
}

impl Scribe {
    pub fn new(key: SigningKey) -> io::Result<Self> {
        let (zstd, hurried) = (Compressor::new(LEVEL)?, Compressor::new(HURRIED)?);
        Ok(Self { key, zstd, hurried, hurry: false, packed: Vec::new(), out: Vec::new() })
    }

    /// Whether the next blocks are rather written fast than small.
    pub fn hurry(&mut self, hurry: bool) {
        self.hurry = hurry;
    }

    pub fn key(&self) -> &SigningKey {
        &self.key
    }
}

/// Why a recording stopped.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("the recording cannot be written: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Push(#[from] PushError),
    #[error("the session header exceeds {} bytes", limits::HEADER)]
    Header,
    #[error("the cryptographic library could not sign")]
    Sign,
    /// An earlier write failed; the file may end in an incomplete frame.
    #[error("the recording failed before")]
    Failed,
    #[error("records are older than those already written")]
    Order,
}

/// One recording being written.
///
/// Records gather in memory until [`flush`](Self::flush), or until a block is full. A failed write is final: what
/// follows it could not be told from tampering.
pub struct Writer<W> {
    out: W,
    batch: Batch,
    started_unix_ns: u64,
    next: u64,
    previous: Hash,
    records: u64,
    last_ns: u64,
    written: u64,
    /// Sequence and time of the last checkpoint.
    signed: u64,
    signed_ns: u64,
    failed: bool,
}

impl<W: Write> Writer<W> {
    /// Writes the header and the first checkpoint.
    pub fn open(out: W, header: &Header, scribe: &mut Scribe) -> Result<Self, WriteError> {
        let body = serde_json::to_vec(header).map_err(|_| WriteError::Header)?;
        if body.len() > limits::HEADER {
            return Err(WriteError::Header);
        }
        let prefix = frame::prefix();
        let mut writer = Self {
            out,
            batch: Batch::default(),
            started_unix_ns: header.started_unix_ns,
            next: 0,
            previous: frame::hash(&prefix),
            records: 0,
            last_ns: 0,
            written: 0,
            signed: 0,
            signed_ns: 0,
            failed: false,
        };
        writer.begin(scribe)?;
        scribe.out.extend_from_slice(&prefix);
        let len = u32::try_from(body.len()).map_err(|_| WriteError::Header)?;
        let fields = writer.fields(Kind::Head, 0, (0, 0), len, len);
        writer.push(&fields, &body, &mut scribe.out);
        writer.sign(Purpose::Open, 0, scribe)?;
        writer.write_out(scribe)?;
        Ok(writer)
    }

    /// Adds an event; writes when that fills a block.
    pub fn append(&mut self, at_ns: u64, event: &Event<'_>, scribe: &mut Scribe) -> Result<(), WriteError> {
        self.usable()?;
        self.batch.push(at_ns.max(self.last_ns), event)?;
        if self.batch.is_full() { self.flush(scribe) } else { Ok(()) }
    }

    /// Writes what was added as a block, and a checkpoint when one is due.
    pub fn flush(&mut self, scribe: &mut Scribe) -> Result<(), WriteError> {
        let mut batch = std::mem::take(&mut self.batch);
        let result = self.write(&batch, scribe);
        batch.clear();
        self.batch = batch;
        result
    }

    /// Writes records that were gathered elsewhere as a block, and a checkpoint when one is due. Times in it must
    /// not lie before those already written.
    pub fn write(&mut self, batch: &Batch, scribe: &mut Scribe) -> Result<(), WriteError> {
        self.begin(scribe)?;
        self.block(batch, scribe)?;
        if self.checkpoint_due(self.last_ns) {
            self.sign(Purpose::Interval, self.last_ns, scribe)?;
        }
        self.write_out(scribe)
    }

    /// Something is written that no checkpoint covers, and has been for long enough.
    pub fn checkpoint_due(&self, now_ns: u64) -> bool {
        let unsigned = self.next.saturating_sub(self.signed).saturating_sub(1);
        unsigned >= SIGN_BLOCKS || (unsigned > 0 && now_ns.saturating_sub(self.signed_ns) >= SIGN_NS)
    }

    /// Signs everything written so far.
    pub fn checkpoint(&mut self, now_ns: u64, scribe: &mut Scribe) -> Result<(), WriteError> {
        self.begin(scribe)?;
        self.sign(Purpose::Interval, now_ns, scribe)?;
        self.write_out(scribe)
    }

    /// Writes what is left, signs the whole and marks the end.
    pub fn seal(mut self, now_ns: u64, scribe: &mut Scribe) -> Result<W, WriteError> {
        self.begin(scribe)?;
        let batch = std::mem::take(&mut self.batch);
        self.block(&batch, scribe)?;
        self.sign(Purpose::Seal, now_ns, scribe)?;
        self.write_out(scribe)?;
        Ok(self.out)
    }

    /// Bytes written.
    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn get_ref(&self) -> &W {
        &self.out
    }

    fn usable(&self) -> Result<(), WriteError> {
        if self.failed { Err(WriteError::Failed) } else { Ok(()) }
    }

    /// From here until everything is written, any way out leaves the writer unusable.
    fn begin(&mut self, scribe: &mut Scribe) -> Result<(), WriteError> {
        self.usable()?;
        self.failed = true;
        scribe.out.clear();
        Ok(())
    }

    fn block(&mut self, batch: &Batch, scribe: &mut Scribe) -> Result<(), WriteError> {
        if batch.is_empty() {
            return Ok(());
        }
        if batch.first < self.last_ns {
            return Err(WriteError::Order);
        }
        let raw = u32::try_from(batch.bytes.len()).map_err(|_| PushError::Full)?;
        let bound = zstd_safe::compress_bound(batch.bytes.len());
        scribe.packed.clear();
        scribe.packed.reserve(bound);
        let zstd = if scribe.hurry { &mut scribe.hurried } else { &mut scribe.zstd };
        zstd.compress_to_buffer(&batch.bytes, &mut scribe.packed)?;
        let stored = u32::try_from(scribe.packed.len()).map_err(|_| PushError::Full)?;
        let times = (batch.first, batch.last);
        let fields = self.fields(Kind::Data, batch.records, times, stored, raw);
        let packed = std::mem::take(&mut scribe.packed);
        self.push(&fields, &packed, &mut scribe.out);
        scribe.packed = packed;
        self.records = self.records.saturating_add(u64::from(batch.records));
        self.last_ns = batch.last;
        Ok(())
    }

    fn sign(&mut self, purpose: Purpose, now_ns: u64, scribe: &mut Scribe) -> Result<(), WriteError> {
        let now_ns = now_ns.max(self.last_ns);
        let body = Body {
            purpose,
            records: self.records,
            signed: self.signed,
            at_unix_ns: self.started_unix_ns.saturating_add(now_ns),
            dropped: 0,
        };
        let sequence = self.next;
        let fields = checkpoint_fields(sequence, now_ns, self.previous);
        let body = body.sign(&fields.encode(), &scribe.key).ok_or(WriteError::Sign)?;
        self.push(&fields, &body, &mut scribe.out);
        (self.signed, self.signed_ns) = (sequence, now_ns);
        Ok(())
    }

    fn fields(&self, kind: Kind, records: u32, times: (u64, u64), stored: u32, raw: u32) -> Fields {
        let (first, last) = times;
        Fields { kind, records, sequence: self.next, first, last, stored, raw, previous: self.previous }
    }

    fn push(&mut self, fields: &Fields, body: &[u8], to: &mut Vec<u8>) {
        self.previous = fields.push_frame(body, to);
        self.next = self.next.saturating_add(1);
    }

    fn write_out(&mut self, scribe: &mut Scribe) -> Result<(), WriteError> {
        if !scribe.out.is_empty() {
            self.out.write_all(&scribe.out)?;
            self.out.flush()?;
        }
        self.failed = false;
        self.written = self.written.saturating_add(u64::try_from(scribe.out.len()).unwrap_or(u64::MAX));
        Ok(())
    }
}

pub(crate) fn checkpoint_fields(sequence: u64, at_ns: u64, previous: Hash) -> Fields {
    let len = u32::try_from(crate::checkpoint::LEN).unwrap_or(u32::MAX);
    Fields {
        kind: Kind::Sign,
        records: 0,
        sequence,
        first: at_ns,
        last: at_ns,
        stored: len,
        raw: len,
        previous,
    }
}
