//! Reading a recording: every hash, number and time is checked on the way.

use std::io::{self, Read};

use serde::Serialize;
use zstd::bulk::Decompressor;

use crate::{
    checkpoint::{Body, Checkpoint, Purpose},
    codec,
    event::{Event, Header},
    fault::{Fault, ReadError, What},
    frame::{self, Cursor, FrameHeader, Hash, HeaderError, Kind},
    key::PublicKey,
};

/// Reads a recording from front to back.
///
/// Without a key, signatures are not looked at: the file is then known to be consistent, but not by whom it
/// was written.
pub struct Reader<R> {
    input: R,
    key: Option<PublicKey>,
    zstd: Decompressor<'static>,
    header: Option<Header>,
    /// The body of the current frame, and what it decompresses to.
    body: Vec<u8>,
    block: Vec<u8>,
    /// Records not yet handed out begin here.
    position: usize,
    block_records: u32,
    block_frame: FrameAt,
    now_ns: u64,
    last_ns: u64,

    offset: u64,
    next: u64,
    previous: Hash,
    records: u64,
    blocks: u64,
    signed: u64,
    last_checkpoint: Option<Checkpoint>,
    ending: Option<Ending>,
    failed: Option<Fault>,
}

#[derive(Clone, Copy)]
struct FrameAt {
    offset: u64,
    sequence: u64,
    records: u32,
    first: u64,
    last: u64,
}

/// What a reader hands out, in file order.
#[derive(Debug, Clone, PartialEq)]
pub enum Item<'a> {
    Event { at_ns: u64, event: Event<'a> },
    Checkpoint(Checkpoint),
}

/// How a file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Ending {
    /// With the seal: it is complete.
    Sealed,
    /// The agent died; what was whole by then is there, closed by a later agent. Of `unsigned` frames only the
    /// chain says that they are what was written.
    Recovered { unsigned: u64 },
    /// Without a seal, after `offset`, where `partial` more bytes are no whole frame: the session still runs, the
    /// agent died, or the end was cut off.
    Unsealed { offset: u64, partial: u64 },
}

impl<R: Read> Reader<R> {
    /// Reads up to the session header.
    pub fn new(input: R, key: Option<PublicKey>) -> Result<Self, ReadError> {
        let zstd = Decompressor::new().map_err(|source| ReadError::Io { offset: 0, source })?;
        let prefix = frame::prefix();
        let mut reader = Self {
            input,
            key,
            zstd,
            header: None,
            body: Vec::new(),
            block: Vec::new(),
            position: 0,
            block_records: 0,
            block_frame: FrameAt { offset: 0, sequence: 0, records: 0, first: 0, last: 0 },
            now_ns: 0,
            last_ns: 0,
            offset: 0,
            next: 0,
            previous: frame::hash(&prefix),
            records: 0,
            blocks: 0,
            signed: 0,
            last_checkpoint: None,
            ending: None,
            failed: None,
        };
        reader.start()?;
        Ok(reader)
    }

    /// The next event or checkpoint; `None` at the end, of which [`ending`](Self::ending) tells more. An error is
    /// final: asking again gives the same fault.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, ReadError> {
        if let Some(fault) = &self.failed {
            return Err(fault.clone().into());
        }
        loop {
            if self.position < self.block.len() {
                return self.record().map(Some);
            }
            if self.block_records != self.block_frame.records {
                return Err(self.fail_at(self.block_frame, What::Count));
            }
            if self.ending.is_some() {
                return Ok(None);
            }
            if let Some(checkpoint) = self.frame()? {
                return Ok(Some(Item::Checkpoint(checkpoint)));
            }
        }
    }

    /// `None` when the file ends before its header does.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Known once [`next_item`](Self::next_item) returned `None`.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// The last checkpoint passed.
    pub fn last_checkpoint(&self) -> Option<Checkpoint> {
        self.last_checkpoint
    }

    /// Bytes, frames, blocks and records passed so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn frames(&self) -> u64 {
        self.next
    }

    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    pub fn records(&self) -> u64 {
        self.records
    }

    /// Time of the last record passed.
    pub fn last_ns(&self) -> u64 {
        self.last_ns
    }

    pub(crate) fn previous(&self) -> Hash {
        self.previous
    }

    fn start(&mut self) -> Result<(), ReadError> {
        let expected = frame::prefix();
        let mut found = [0; frame::PREFIX];
        let len = self.fill(&mut found)?;
        let same = found.iter().zip(&expected).take(len).all(|(a, b)| a == b);
        if !same {
            let mut cursor = Cursor(&found);
            let magic: Option<[u8; 8]> = cursor.array();
            return Err(match (magic, cursor.u32()) {
                (Some(frame::MAGIC), Some(version)) if len >= 12 && version != frame::VERSION => {
                    self.fail(What::Version(version))
                }
                _ => self.fail(What::NotARecording),
            });
        }
        if len < expected.len() {
            self.cut(len);
            return Ok(());
        }
        self.offset = count(len);
        self.frame().map(|_| ())
    }

    /// Reads one frame, checks it, and makes it current.
    fn frame(&mut self) -> Result<Option<Checkpoint>, ReadError> {
        let mut bytes = [0; frame::HEADER];
        let len = self.fill(&mut bytes)?;
        if self.last_checkpoint.is_some_and(|checkpoint| checkpoint.purpose.ends()) {
            return match len {
                0 => {
                    self.end();
                    Ok(None)
                }
                _ => Err(self.fail(What::AfterEnd)),
            };
        }
        if len < bytes.len() {
            self.cut(len);
            return Ok(None);
        }
        let header = FrameHeader::decode(&bytes).map_err(|error| match error {
            HeaderError::Changed => self.fail(What::HeaderChanged),
            HeaderError::Kind => self.fail(What::Kind),
        })?;
        self.check(&header).map_err(|what| self.fail(what))?;

        let stored = u64::from(header.fields.stored);
        self.body.clear();
        let source = (&mut self.input).take(stored).read_to_end(&mut self.body);
        if let Err(source) = source {
            return Err(ReadError::Io { offset: self.offset, source });
        }
        if count(self.body.len()) < stored {
            self.cut(len.saturating_add(self.body.len()));
            return Ok(None);
        }
        if frame::hash(&self.body) != header.content {
            return Err(self.fail(What::ContentChanged));
        }
        let passed = self.content(&header).map_err(|what| self.fail(what))?;
        self.previous = header.own;
        self.next = self.next.saturating_add(1);
        self.offset = self.offset.saturating_add(count(frame::HEADER)).saturating_add(stored);
        Ok(passed)
    }

    /// The frame belongs here and keeps its caps.
    fn check(&self, header: &FrameHeader) -> Result<(), What> {
        let fields = &header.fields;
        if fields.sequence != self.next {
            return Err(What::Sequence { expected: self.next, found: fields.sequence });
        }
        if fields.previous != self.previous {
            return Err(What::Chain);
        }
        let expected = match self.next {
            0 => fields.kind == Kind::Head,
            1 => fields.kind == Kind::Sign,
            _ => fields.kind != Kind::Head,
        };
        if !expected {
            return Err(What::Kind);
        }
        let (stored, raw) = fields.kind.caps();
        if usize::try_from(fields.stored).map_or(true, |len| len > stored) {
            return Err(What::TooLarge("the length of the body"));
        }
        if usize::try_from(fields.raw).map_or(true, |len| len > raw) {
            return Err(What::TooLarge("the decompressed length"));
        }
        Ok(())
    }

    fn content(&mut self, header: &FrameHeader) -> Result<Option<Checkpoint>, What> {
        let fields = &header.fields;
        match fields.kind {
            Kind::Head => {
                let parsed = serde_json::from_slice(&self.body).map_err(|_| What::SessionHeader)?;
                self.header = Some(parsed);
                Ok(None)
            }
            Kind::Data => {
                if fields.first < self.last_ns || fields.first > fields.last {
                    return Err(What::Time);
                }
                let raw = usize::try_from(fields.raw).map_err(|_| What::Compression)?;
                self.block.clear();
                self.block.reserve(raw);
                self.zstd.decompress_to_buffer(&self.body, &mut self.block).map_err(|_| What::Compression)?;
                if self.block.len() != raw {
                    return Err(What::Compression);
                }
                self.position = 0;
                self.block_records = 0;
                self.block_frame = FrameAt {
                    offset: self.offset,
                    sequence: fields.sequence,
                    records: fields.records,
                    first: fields.first,
                    last: fields.last,
                };
                self.now_ns = fields.first;
                self.last_ns = fields.last;
                self.records = self.records.saturating_add(u64::from(fields.records));
                self.blocks = self.blocks.saturating_add(1);
                Ok(None)
            }
            Kind::Sign => {
                let body = Body::open(&self.body, &fields.encode(), self.key.as_ref())?;
                if body.records != self.records {
                    return Err(What::Count);
                }
                let first = fields.sequence == 1;
                if body.signed != self.signed || first != (body.purpose == Purpose::Open) {
                    return Err(What::Checkpoint);
                }
                let checkpoint = Checkpoint {
                    purpose: body.purpose,
                    sequence: fields.sequence,
                    offset: self.offset,
                    end: self
                        .offset
                        .saturating_add(count(frame::HEADER))
                        .saturating_add(count(self.body.len())),
                    records: body.records,
                    signed: body.signed,
                    at_unix_ns: body.at_unix_ns,
                    at_ns: fields.last,
                    dropped: body.dropped,
                };
                self.signed = fields.sequence;
                self.last_checkpoint = Some(checkpoint);
                Ok(Some(checkpoint))
            }
        }
    }

    /// The next record of the current block.
    fn record(&mut self) -> Result<Item<'_>, ReadError> {
        let at = self.block_frame;
        let index = self.block_records;
        let malformed = What::Record(index);
        let rest = self.block.get(self.position..).unwrap_or_default();
        let Some((at_ns, record, after)) = codec::next_record(rest) else {
            return Err(self.fail_at(at, malformed));
        };
        let start = self.block.len().saturating_sub(after.len()).saturating_sub(record.len());
        let end = self.block.len().saturating_sub(after.len());
        let last = after.is_empty();
        if at_ns < self.now_ns
            || at_ns > at.last
            || (index == 0 && at_ns != at.first)
            || (last && at_ns != at.last)
        {
            return Err(self.fail_at(at, What::Time));
        }
        self.position = end;
        self.now_ns = at_ns;
        self.block_records = index.saturating_add(1);
        match self.block.get(start..end).and_then(codec::decode) {
            Some(event) => Ok(Item::Event { at_ns, event }),
            None => {
                let fault = Fault { offset: at.offset, frame: Some(at.sequence), what: malformed };
                self.failed = Some(fault.clone());
                Err(fault.into())
            }
        }
    }

    fn end(&mut self) {
        let Some(checkpoint) = self.last_checkpoint else { return };
        self.ending = Some(match checkpoint.purpose {
            Purpose::Recovered => Ending::Recovered {
                unsigned: checkpoint.sequence.saturating_sub(checkpoint.signed).saturating_sub(1),
            },
            _ => Ending::Sealed,
        });
    }

    fn cut(&mut self, partial: usize) {
        self.ending = Some(Ending::Unsealed { offset: self.offset, partial: count(partial) });
    }

    fn fail(&mut self, what: What) -> ReadError {
        let frame = (self.offset > 0).then_some(self.next);
        self.note(Fault { offset: self.offset, frame, what })
    }

    fn fail_at(&mut self, at: FrameAt, what: What) -> ReadError {
        self.note(Fault { offset: at.offset, frame: Some(at.sequence), what })
    }

    fn note(&mut self, fault: Fault) -> ReadError {
        self.failed = Some(fault.clone());
        fault.into()
    }

    /// Reads until `to` is full or the input ends.
    fn fill(&mut self, to: &mut [u8]) -> Result<usize, ReadError> {
        let mut len = 0;
        while let Some(rest) = to.get_mut(len..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(n) => len = len.saturating_add(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ReadError::Io { offset: self.offset, source }),
            }
        }
        Ok(len)
    }
}

/// Reads a whole recording in memory, for fuzzing: how many events it holds and how it ends.
pub fn read(bytes: &[u8]) -> Result<(u64, Ending), ReadError> {
    let mut reader = Reader::new(bytes, None)?;
    let mut events = 0_u64;
    while let Some(item) = reader.next_item()? {
        if matches!(item, Item::Event { .. }) {
            events = events.saturating_add(1);
        }
    }
    Ok((events, reader.ending().unwrap_or(Ending::Unsealed { offset: reader.offset(), partial: 0 })))
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
