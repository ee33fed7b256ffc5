//! What happened, for recording and audit.

use std::{ops::Range, sync::Arc};

use super::Params;
use crate::postgres::Decision;

/// One thing that happened. Text and rows are as the job saw them, masks applied.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A simple query was sent to the server, or a portal is executed there. `run` counts up from 1; one run of
    /// a simple query may hold several statements. Going on with a suspended portal is a run of its own.
    Started {
        run: u64,
        /// The Ask that allowed it.
        ask: u64,
        decision: &'a Arc<Decision>,
        sql: &'a str,
        params: Params<'a>,
    },
    /// Statement `index` of the run ended. Every started run has at least one of these, if the session lives.
    Finished {
        run: u64,
        index: usize,
        outcome: Outcome<'a>,
        /// Rows that the job got. (Rows that it sent or changed are in the tag.)
        rows: u64,
        /// Size of the row messages that the job got.
        bytes: u64,
        /// Cells that were masked or in which a detector found something.
        masked: u64,
    },
    /// The names of the columns, before the first row. Only with `Recording::Results`.
    Columns { run: u64, index: usize, columns: Columns<'a> },
    /// One row. Only with `Recording::Results`.
    Row { run: u64, index: usize, row: Row<'a> },
    /// The payload of one CopyData message to the job. Only with `Recording::Results`.
    Copy { run: u64, index: usize, data: &'a [u8] },
    /// The client was refused something without an Ask, by the session itself.
    Refused { sqlstate: &'a str, message: &'a str },
}

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// Done, with the server's command tag; empty for an empty query.
    Done { tag: &'a str },
    /// The portal stopped at the row count that Execute asked for, and may go on.
    Suspended,
    /// The server reported an error.
    Failed { sqlstate: &'a str },
    /// Never ran: something before it in the pipeline failed.
    Skipped,
    /// A limit was reached; the job got an error in place of the rest.
    Limited,
}

/// Names of result columns.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a>(&'a [u8]);

impl<'a> Columns<'a> {
    /// The names, as far as they are UTF-8.
    pub fn names(self) -> impl Iterator<Item = &'a str> {
        self.0.split(|byte| *byte == 0).map(|name| str::from_utf8(name).unwrap_or("?"))
    }
}

/// One DataRow.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a>(&'a [u8]);

impl<'a> Row<'a> {
    /// The body of the DataRow message.
    pub fn body(self) -> &'a [u8] {
        self.0
    }

    /// The cells; `None` is NULL.
    pub fn cells(self) -> impl Iterator<Item = Option<&'a [u8]>> {
        crate::postgres::message::data_row::cells(self.0)
    }
}

/// Events that are not yet drained.
#[derive(Debug, Default)]
pub(crate) struct Log {
    items: Vec<Item>,
    arena: Vec<u8>,
}

#[derive(Debug)]
enum Item {
    Started {
        run: u64,
        ask: u64,
        decision: Arc<Decision>,
        sql: Range<usize>,
        params: Range<usize>,
        complete: bool,
    },
    Finished {
        run: u64,
        index: usize,
        ended: Ended,
        text: Range<usize>,
        rows: u64,
        bytes: u64,
        masked: u64,
    },
    Columns {
        run: u64,
        index: usize,
        names: Range<usize>,
    },
    Row {
        run: u64,
        index: usize,
        body: Range<usize>,
    },
    Copy {
        run: u64,
        index: usize,
        data: Range<usize>,
    },
    Refused {
        sqlstate: &'static str,
        message: Range<usize>,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Ended {
    Done,
    Suspended,
    Failed,
    Skipped,
    Limited,
}

/// Counts of one statement's result.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) masked: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.masked = self.masked.saturating_add(other.masked);
    }
}

/// `step` does nothing more while this many bytes or items wait to be drained.
const FULL_BYTES: usize = 1024 * 1024;
const FULL_ITEMS: usize = 16 * 1024;

impl Log {
    pub(crate) fn full(&self) -> bool {
        self.arena.len() >= FULL_BYTES || self.items.len() >= FULL_ITEMS
    }

    pub(crate) fn started(
        &mut self,
        run: u64,
        ask: u64,
        decision: &Arc<Decision>,
        sql: &str,
        params: Params<'_>,
    ) {
        let sql = self.keep(sql.as_bytes());
        let (body, complete) = params.raw();
        let params = self.keep(body);
        self.items.push(Item::Started { run, ask, decision: Arc::clone(decision), sql, params, complete });
    }

    pub(crate) fn finished(&mut self, run: u64, index: usize, ended: Ended, text: &[u8], counts: Counts) {
        let text = self.keep(text);
        let Counts { rows, bytes, masked } = counts;
        self.items.push(Item::Finished { run, index, ended, text, rows, bytes, masked });
    }

    /// `names` is separated by NUL bytes.
    pub(crate) fn columns<'n>(&mut self, run: u64, index: usize, names: impl Iterator<Item = &'n [u8]>) {
        let start = self.arena.len();
        for name in names {
            if self.arena.len() > start {
                self.arena.push(0);
            }
            self.arena.extend_from_slice(name);
        }
        let names = start..self.arena.len();
        self.items.push(Item::Columns { run, index, names });
    }

    pub(crate) fn row(&mut self, run: u64, index: usize, body: &[u8]) {
        let body = self.keep(body);
        self.items.push(Item::Row { run, index, body });
    }

    pub(crate) fn copy(&mut self, run: u64, index: usize, data: &[u8]) {
        let data = self.keep(data);
        self.items.push(Item::Copy { run, index, data });
    }

    pub(crate) fn refused(&mut self, sqlstate: &'static str, message: &str) {
        let message = self.keep(message.as_bytes());
        self.items.push(Item::Refused { sqlstate, message });
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        start..self.arena.len()
    }

    pub(crate) fn drain(&mut self) -> Events<'_> {
        Events { log: self, next: 0 }
    }

    fn bytes(&self, range: &Range<usize>) -> &[u8] {
        self.arena.get(range.clone()).unwrap_or_default()
    }

    fn text(&self, range: &Range<usize>) -> &str {
        str::from_utf8(self.bytes(range)).unwrap_or("?")
    }

    fn event(&self, at: usize) -> Option<Event<'_>> {
        Some(match self.items.get(at)? {
            Item::Started { run, ask, decision, sql, params, complete } => Event::Started {
                run: *run,
                ask: *ask,
                decision,
                sql: self.text(sql),
                params: Params::from_raw(self.bytes(params), *complete),
            },
            Item::Finished { run, index, ended, text, rows, bytes, masked } => Event::Finished {
                run: *run,
                index: *index,
                outcome: match ended {
                    Ended::Done => Outcome::Done { tag: self.text(text) },
                    Ended::Suspended => Outcome::Suspended,
                    Ended::Failed => Outcome::Failed { sqlstate: self.text(text) },
                    Ended::Skipped => Outcome::Skipped,
                    Ended::Limited => Outcome::Limited,
                },
                rows: *rows,
                bytes: *bytes,
                masked: *masked,
            },
            Item::Columns { run, index, names } => {
                Event::Columns { run: *run, index: *index, columns: Columns(self.bytes(names)) }
            }
            Item::Row { run, index, body } => {
                Event::Row { run: *run, index: *index, row: Row(self.bytes(body)) }
            }
            Item::Copy { run, index, data } => {
                Event::Copy { run: *run, index: *index, data: self.bytes(data) }
            }
            Item::Refused { sqlstate, message } => Event::Refused { sqlstate, message: self.text(message) },
        })
    }
}

/// Lends one event after the other; dropping it forgets them all.
#[derive(Debug)]
pub struct Events<'a> {
    log: &'a mut Log,
    next: usize,
}

impl Events<'_> {
    /// The next event. (Not an `Iterator`: an event borrows from the session's buffer.)
    #[expect(clippy::should_implement_trait, reason = "a lending iterator cannot implement Iterator")]
    pub fn next(&mut self) -> Option<Event<'_>> {
        let at = self.next;
        self.next += 1;
        self.log.event(at)
    }

    pub fn is_empty(&self) -> bool {
        self.next >= self.log.items.len()
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        self.log.items.clear();
        self.log.arena.clear();
        if self.log.arena.capacity() > FULL_BYTES {
            self.log.arena = Vec::new();
        }
    }
}
