//! Records as bytes.

use std::borrow::Cow;

use crate::{
    event::{Event, List, Param, Params, Stream, Verdict},
    frame::Cursor,
    limits,
};

/// Encoded records on their way into a block. Filling one costs a copy of what is recorded and nothing else.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) records: u32,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// Why a record was not taken; the batch is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    #[error("a record of {0} bytes exceeds the cap")]
    TooLarge(usize),
    /// Write the batch first.
    #[error("the batch is full")]
    Full,
}

/// The length, which does not count itself.
const RECORD_HEADER: usize = 4;

impl Batch {
    /// Adds an event that happened `at_ns` after the session began. Time never runs backwards: an earlier time
    /// than the last one is taken for the last one.
    pub fn push(&mut self, at_ns: u64, event: &Event<'_>) -> Result<(), PushError> {
        let at_ns = at_ns.max(self.last);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; RECORD_HEADER]);
        self.bytes.extend_from_slice(&at_ns.to_le_bytes());
        encode(event, &mut Fields(&mut self.bytes));
        let len = self.bytes.len().saturating_sub(start);
        if len <= limits::RECORD && self.bytes.len() > limits::RAW {
            self.bytes.truncate(start);
            return Err(PushError::Full);
        }
        let body = u32::try_from(len.saturating_sub(RECORD_HEADER));
        match (body, self.bytes.get_mut(start..).and_then(|record| record.first_chunk_mut())) {
            (Ok(body), Some(prefix)) if len <= limits::RECORD => *prefix = body.to_le_bytes(),
            _ => {
                self.bytes.truncate(start);
                return Err(PushError::TooLarge(len));
            }
        }
        if self.records == 0 {
            self.first = at_ns;
        }
        self.last = at_ns;
        self.records = self.records.saturating_add(1);
        Ok(())
    }

    /// Encoded bytes held.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// It holds a block's worth and should be written. Below that, any record still fits.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= limits::BLOCK_TARGET
    }

    /// Time of the first record held.
    pub fn first_ns(&self) -> u64 {
        self.first
    }

    /// Takes the records out; time goes on from where it was.
    pub fn take(&mut self) -> Batch {
        // After a full one another is likely, which need not grow step by step.
        let bytes = Vec::with_capacity(if self.is_full() { self.bytes.len() } else { 0 });
        let next = Batch { bytes, last: self.last, first: self.last, records: 0 };
        std::mem::replace(self, next)
    }

    /// Forgets the records but keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.records = 0;
    }
}

/// Splits the next record off a block: its time and what follows it.
pub(crate) fn next_record(block: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let mut cursor = Cursor(block);
    let len = usize::try_from(cursor.u32()?).ok()?;
    if len > limits::RECORD {
        return None;
    }
    let mut record = Cursor(cursor.bytes(len)?);
    Some((record.u64()?, record.0, cursor.0))
}

// Record kinds and field numbers are part of the format: add, never change.
const STATEMENT: u8 = 1;
const FINISHED: u8 = 2;
const COLUMNS: u8 = 3;
const ROWS: u8 = 4;
const APPROVAL: u8 = 5;
const NOTICE: u8 = 6;
const CLOSED: u8 = 7;
const CHANNEL: u8 = 8;
const TERMINAL: u8 = 9;
const DATA: u8 = 10;
const FILE: u8 = 11;
const CHANNEL_CLOSED: u8 = 12;
const CONTENTS: u8 = 13;

/// Fields that mean the same in every record.
const N: u8 = 1;
const TEXT: u8 = 2;
const NAME: u8 = 3;

const PARAM: u8 = 4;
const PARAM_NULL: u8 = 5;
/// Total length of the parameter before it, when that was cut.
const PARAM_TOTAL: u8 = 6;
const PARAMS_HIDDEN: u8 = 7;
const VERDICT: u8 = 8;
const APPROVAL_ID: u8 = 9;

const TAG: u8 = 4;
const ROW_COUNT: u8 = 5;
const BYTES: u8 = 6;
const SQLSTATE: u8 = 7;
const MICROS: u8 = 8;
const MASKED: u8 = 9;

/// In records about channels.
const CHANNEL_NUMBER: u8 = 4;
const COLUMNS_WIDE: u8 = 5;
const ROWS_HIGH: u8 = 6;
const STREAM: u8 = 5;
const OUTCOME: u8 = 5;
const FILE_BYTES: u8 = 6;
const DIGEST: u8 = 7;
/// One more than the status; absent = there is none.
const STATUS: u8 = 5;
const SIGNAL: u8 = 6;
const WRITTEN: u8 = 5;
const OFFSET: u8 = 6;

struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn number(&mut self, field: u8, value: u64) {
        self.0.push(field);
        self.varint(value);
    }

    /// Absent means zero.
    fn nonzero(&mut self, field: u8, value: u64) {
        if value != 0 {
            self.number(field, value);
        }
    }

    fn bytes(&mut self, field: u8, value: &[u8]) {
        self.0.push(field | 0x80);
        self.varint(u64::try_from(value.len()).unwrap_or(u64::MAX));
        self.0.extend_from_slice(value);
    }

    fn list(&mut self, list: &List<'_>) {
        for name in list.iter() {
            self.bytes(NAME, name.as_bytes());
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn params(&mut self, params: &Params<'_>) {
        match params {
            Params::None => {}
            Params::Hidden(count) => self.number(PARAMS_HIDDEN, *count),
            Params::Shared(values) => {
                let mut room = limits::PARAMS;
                for value in *values {
                    let whole = value.map(|value| u64::try_from(value.len()).unwrap_or(u64::MAX));
                    self.param(*value, whole.unwrap_or(0), &mut room);
                }
            }
            Params::Kept(values) => {
                let mut room = limits::PARAMS;
                for value in values {
                    match value {
                        Param::Null => self.param(None, 0, &mut room),
                        Param::Value { data, total } => self.param(Some(data), *total, &mut room),
                    }
                }
            }
        }
    }

    fn param(&mut self, value: Option<&[u8]>, total: u64, room: &mut usize) {
        let Some(value) = value else { return self.number(PARAM_NULL, 0) };
        let keep = value.len().min(limits::PARAM).min(*room);
        let kept = value.get(..keep).unwrap_or_default();
        *room = room.saturating_sub(keep);
        self.bytes(PARAM, kept);
        if u64::try_from(keep) != Ok(total) {
            self.number(PARAM_TOTAL, total);
        }
    }
}

fn encode(event: &Event<'_>, to: &mut Fields<'_>) {
    match event {
        Event::Statement { n, sql, params, verdict, rules, approval } => {
            to.0.push(STATEMENT);
            to.number(N, *n);
            to.bytes(TEXT, sql.as_bytes());
            to.list(rules);
            to.params(params);
            let verdict = match verdict {
                Verdict::Allow => 1,
                Verdict::Approved => 2,
                Verdict::Deny => 3,
            };
            to.number(VERDICT, verdict);
            if let Some(approval) = approval {
                to.bytes(APPROVAL_ID, approval.as_bytes());
            }
        }
        Event::Finished { n, tag, rows, bytes, sqlstate, micros, masked } => {
            to.0.push(FINISHED);
            to.number(N, *n);
            to.bytes(TAG, tag.as_bytes());
            to.nonzero(ROW_COUNT, *rows);
            to.nonzero(BYTES, *bytes);
            if let Some(sqlstate) = sqlstate {
                to.bytes(SQLSTATE, sqlstate.as_bytes());
            }
            to.nonzero(MICROS, *micros);
            to.nonzero(MASKED, *masked);
        }
        Event::Columns { n, names } => {
            to.0.push(COLUMNS);
            to.number(N, *n);
            to.list(names);
        }
        Event::Rows { n, data } => {
            to.0.push(ROWS);
            to.number(N, *n);
            to.bytes(TEXT, data);
        }
        Event::Approval { n, id, outcome, by } => {
            to.0.push(APPROVAL);
            to.number(N, *n);
            to.bytes(APPROVAL_ID, id.as_bytes());
            to.bytes(TEXT, outcome.as_bytes());
            to.list(by);
        }
        Event::Notice { text } => {
            to.0.push(NOTICE);
            to.bytes(TEXT, text.as_bytes());
        }
        Event::Closed { reason } => {
            to.0.push(CLOSED);
            to.bytes(TEXT, reason.as_bytes());
        }
        Event::Channel { n, channel, what } => {
            to.0.push(CHANNEL);
            to.number(N, *n);
            to.number(CHANNEL_NUMBER, *channel);
            to.bytes(TEXT, what.as_bytes());
        }
        Event::Terminal { channel, columns, rows, term } => {
            to.0.push(TERMINAL);
            to.number(CHANNEL_NUMBER, *channel);
            to.nonzero(COLUMNS_WIDE, *columns);
            to.nonzero(ROWS_HIGH, *rows);
            to.bytes(TEXT, term.as_bytes());
        }
        Event::Data { channel, stream, data } => {
            to.0.push(DATA);
            to.number(CHANNEL_NUMBER, *channel);
            let stream = match stream {
                Stream::Input => 1,
                Stream::Output => 2,
                Stream::Error => 3,
            };
            to.number(STREAM, stream);
            to.bytes(TEXT, data);
        }
        Event::File { channel, n, operation, paths, outcome, bytes, digest } => {
            to.0.push(FILE);
            to.number(N, *n);
            to.number(CHANNEL_NUMBER, *channel);
            to.bytes(TEXT, operation.as_bytes());
            to.list(paths);
            to.bytes(OUTCOME, outcome.as_bytes());
            to.nonzero(FILE_BYTES, *bytes);
            if let Some(digest) = digest {
                to.bytes(DIGEST, digest.as_bytes());
            }
        }
        Event::Contents { channel, n, write, offset, data } => {
            to.0.push(CONTENTS);
            to.number(N, *n);
            to.number(CHANNEL_NUMBER, *channel);
            to.nonzero(WRITTEN, u64::from(*write));
            to.nonzero(OFFSET, *offset);
            to.bytes(TEXT, data);
        }
        Event::ChannelClosed { channel, status, signal } => {
            to.0.push(CHANNEL_CLOSED);
            to.number(CHANNEL_NUMBER, *channel);
            if let Some(status) = status {
                to.number(STATUS, u64::from(*status).saturating_add(1));
            }
            if let Some(signal) = signal {
                to.bytes(SIGNAL, signal.as_bytes());
            }
        }
        Event::Other { kind } => to.0.push(*kind),
    }
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// What any record can hold, gathered before its kind gives it meaning.
#[derive(Default)]
struct Gathered<'a> {
    text: Option<&'a [u8]>,
    names: Vec<String>,
    numbers: [u64; 10],
    bytes: [Option<&'a [u8]>; 10],
    params: Vec<Param>,
    hidden: Option<u64>,
}

/// The event that follows a record's time. `None` = malformed.
pub(crate) fn decode(record: &[u8]) -> Option<Event<'_>> {
    let mut cursor = Cursor(record);
    let kind = cursor.u8()?;
    let mut held = Gathered::default();
    while let Some(key) = cursor.u8() {
        let field = key & 0x7f;
        let value = if key & 0x80 == 0 {
            Value::Number(cursor.varint()?)
        } else {
            let len = usize::try_from(cursor.varint()?).ok()?;
            Value::Bytes(cursor.bytes(len)?)
        };
        held.take(kind, field, value)?;
    }
    held.event(kind)
}

impl<'a> Gathered<'a> {
    fn take(&mut self, kind: u8, field: u8, value: Value<'a>) -> Option<()> {
        match (field, value) {
            (TEXT, Value::Bytes(text)) => self.text = Some(text),
            (NAME, Value::Bytes(name)) => self.names.push(std::str::from_utf8(name).ok()?.to_owned()),
            (PARAM, Value::Bytes(data)) if kind == STATEMENT => {
                let total = u64::try_from(data.len()).ok()?;
                self.params.push(Param::Value { data: data.to_vec(), total });
            }
            (PARAM_NULL, Value::Number(_)) if kind == STATEMENT => self.params.push(Param::Null),
            (PARAM_TOTAL, Value::Number(whole)) if kind == STATEMENT => match self.params.last_mut() {
                Some(Param::Value { total, .. }) => *total = whole,
                _ => return None,
            },
            (PARAMS_HIDDEN, Value::Number(count)) if kind == STATEMENT => self.hidden = Some(count),
            (_, Value::Number(number)) => {
                if let Some(slot) = self.numbers.get_mut(usize::from(field)) {
                    *slot = number;
                }
            }
            (_, Value::Bytes(bytes)) => {
                if let Some(slot) = self.bytes.get_mut(usize::from(field)) {
                    *slot = Some(bytes);
                }
            }
        }
        Some(())
    }

    fn number(&self, field: u8) -> u64 {
        self.numbers.get(usize::from(field)).copied().unwrap_or(0)
    }

    /// `Some(None)` = absent, `None` = not text.
    fn string(&self, field: u8) -> Option<Option<Cow<'a, str>>> {
        match self.bytes.get(usize::from(field)).copied().flatten() {
            None => Some(None),
            Some(bytes) => std::str::from_utf8(bytes).ok().map(|text| Some(Cow::Borrowed(text))),
        }
    }

    fn text(&self) -> Option<Cow<'a, str>> {
        std::str::from_utf8(self.text?).ok().map(Cow::Borrowed)
    }

    fn event(self, kind: u8) -> Option<Event<'a>> {
        let n = self.number(N);
        Some(match kind {
            STATEMENT => Event::Statement {
                n,
                sql: self.text()?,
                verdict: match self.number(VERDICT) {
                    1 => Verdict::Allow,
                    2 => Verdict::Approved,
                    3 => Verdict::Deny,
                    _ => return None,
                },
                approval: self.string(APPROVAL_ID)?,
                params: match (self.hidden, self.params.is_empty()) {
                    (Some(count), _) => Params::Hidden(count),
                    (None, true) => Params::None,
                    (None, false) => Params::Kept(self.params),
                },
                rules: List::Owned(self.names),
            },
            FINISHED => Event::Finished {
                n,
                tag: self.string(TAG)?.unwrap_or_default(),
                rows: self.number(ROW_COUNT),
                bytes: self.number(BYTES),
                sqlstate: self.string(SQLSTATE)?,
                micros: self.number(MICROS),
                masked: self.number(MASKED),
            },
            COLUMNS => Event::Columns { n, names: List::Owned(self.names) },
            ROWS => Event::Rows { n, data: Cow::Borrowed(self.text?) },
            APPROVAL => Event::Approval {
                n,
                id: self.string(APPROVAL_ID)?.unwrap_or_default(),
                outcome: self.text()?,
                by: List::Owned(self.names),
            },
            NOTICE => Event::Notice { text: self.text()? },
            CLOSED => Event::Closed { reason: self.text()? },
            CHANNEL => Event::Channel { n, channel: self.number(CHANNEL_NUMBER), what: self.text()? },
            TERMINAL => Event::Terminal {
                channel: self.number(CHANNEL_NUMBER),
                columns: self.number(COLUMNS_WIDE),
                rows: self.number(ROWS_HIGH),
                term: self.text()?,
            },
            DATA => Event::Data {
                channel: self.number(CHANNEL_NUMBER),
                stream: match self.number(STREAM) {
                    1 => Stream::Input,
                    2 => Stream::Output,
                    3 => Stream::Error,
                    _ => return None,
                },
                data: Cow::Borrowed(self.text?),
            },
            FILE => Event::File {
                channel: self.number(CHANNEL_NUMBER),
                n,
                operation: self.text()?,
                outcome: self.string(OUTCOME)?.unwrap_or_default(),
                bytes: self.number(FILE_BYTES),
                digest: self.string(DIGEST)?,
                paths: List::Owned(self.names),
            },
            CONTENTS => Event::Contents {
                channel: self.number(CHANNEL_NUMBER),
                n,
                write: self.number(WRITTEN) != 0,
                offset: self.number(OFFSET),
                data: Cow::Borrowed(self.text?),
            },
            CHANNEL_CLOSED => Event::ChannelClosed {
                channel: self.number(CHANNEL_NUMBER),
                status: self.number(STATUS).checked_sub(1).and_then(|status| u32::try_from(status).ok()),
                signal: self.string(SIGNAL)?,
            },
            kind => Event::Other { kind },
        })
    }
}
