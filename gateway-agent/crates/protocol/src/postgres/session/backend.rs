//! From the server to the client.

use std::collections::VecDeque;

use policy::Recording;

use super::{
    Cancel, CopyIn, Current, Mode, Phase, Session,
    events::{Counts, Ended},
    names::lock,
};
use crate::postgres::{
    mask::{Row, Veil},
    message::{HEADER, Header, Malformed, Reader, body, function_call, patch, ready::Status, report},
    reply::Expect,
};

/// Where the pump is in the server's bytes. From `run` to `at` all is to be relayed as it is.
#[derive(Debug, Default)]
struct Scan {
    run: usize,
    at: usize,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Relay,
    Drop,
    /// Something was found out; look at it again.
    Again,
}

/// Why the session cannot go on.
pub(super) type Broken = &'static str;

/// SQLSTATE query_canceled.
const CANCELED: &[u8] = b"57014";
const OUT_OF_STEP: Broken = "the server's reply does not fit what was sent";
const MALFORMED: Broken = "the server sent a malformed message";

impl Session {
    pub(super) fn pump_upstream(&mut self) {
        self.up_need = self.up_in.len() == 0;
        if self.up_need {
            return;
        }
        let mut input = std::mem::take(&mut self.up_in);
        let mut scan = Scan::default();
        let bytes = input.bytes();
        let mut broken = None;
        while self.phase == Phase::Ready && self.upstream_may_move(&scan) {
            match self.upstream_message(bytes, &mut scan) {
                Ok(true) => {}
                Ok(false) => {
                    self.up_need = true;
                    break;
                }
                Err(why) => {
                    broken = Some(why);
                    break;
                }
            }
        }
        self.flush_run(bytes, &mut scan);
        input.consume(scan.at);
        self.up_in = input;
        if let Some(why) = broken {
            self.fail_upstream(why);
        }
    }

    fn upstream_may_move(&self, scan: &Scan) -> bool {
        self.job_out.len() + (scan.at - scan.run) <= self.settings.high_water && !self.log.full()
    }

    fn flush_run(&mut self, bytes: &[u8], scan: &mut Scan) {
        if scan.at > scan.run {
            self.job_out.vec().extend_from_slice(bytes.get(scan.run..scan.at).unwrap_or_default());
        }
        scan.run = scan.at;
    }

    /// Deals with the next message or part of one. False when more bytes have to come.
    fn upstream_message(&mut self, bytes: &[u8], scan: &mut Scan) -> Result<bool, Broken> {
        let rest = bytes.get(scan.at..).unwrap_or_default();
        if self.up_rest > 0 {
            let count = rest.len().min(self.up_rest);
            self.up_rest -= count;
            scan.at += count;
            return Ok(count > 0);
        }
        if self.up_drop > 0 {
            let count = rest.len().min(self.up_drop);
            self.up_drop -= count;
            self.flush_run(bytes, scan);
            scan.at += count;
            scan.run = scan.at;
            return Ok(count > 0);
        }
        let header = match Header::read(rest) {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(false),
            Err(Malformed) => return Err("the server sent a message of impossible length"),
        };
        if matches!(header.tag, b'D' | b'd') {
            if self.mute {
                self.flush_run(bytes, scan);
                self.up_drop = header.total;
                return Ok(true);
            }
            if matches!(self.current.mode, Mode::Pass) {
                if self.counts(header.total) {
                    let count = rest.len().min(header.total);
                    self.up_rest = header.total - count;
                    scan.at += count;
                } else {
                    self.flush_run(bytes, scan);
                    self.limit();
                    self.spill();
                }
                return Ok(true);
            }
        }
        if header.total > self.settings.message_max {
            return Err("the server sent a message longer than the gateway can hold");
        }
        let Some(message) = rest.get(..header.total) else { return Ok(false) };
        if matches!(header.tag, b'D' | b'd') && !matches!(self.current.mode, Mode::Idle) {
            if !self.counts(header.total) {
                self.flush_run(bytes, scan);
                self.limit();
                self.spill();
                return Ok(true);
            }
            self.flush_run(bytes, scan);
            match self.rewrite(header.tag, message)? {
                Row::Same => scan.at += message.len(),
                Row::Changed(_) => {
                    scan.at += message.len();
                    scan.run = scan.at;
                }
            }
            return Ok(true);
        }
        let muted = self.mute;
        let mut fate = self.reply(header.tag, message)?;
        if fate == Fate::Again {
            return Ok(true);
        }
        if muted && !matches!(header.tag, b'Z' | b'A' | b'N' | b'S') {
            fate = Fate::Drop;
        }
        if fate == Fate::Relay {
            scan.at += message.len();
        }
        if fate == Fate::Drop || !self.side.is_empty() {
            self.flush_run(bytes, scan);
        }
        if fate == Fate::Drop {
            scan.at += message.len();
            scan.run = scan.at;
        }
        self.spill();
        Ok(true)
    }

    /// Counts a row or piece of data. False when it is one too many.
    fn counts(&mut self, length: usize) -> bool {
        let Current { counts, limits, .. } = &mut self.current;
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let (rows, bytes) = (counts.rows + 1, counts.bytes.saturating_add(length));
        if limits.rows.is_some_and(|most| rows > most) || limits.bytes.is_some_and(|most| bytes > most) {
            return false;
        }
        counts.rows = rows;
        counts.bytes = bytes;
        true
    }

    /// Appends a row or piece of data as the job may see it.
    fn rewrite(&mut self, tag: u8, message: &[u8]) -> Result<Row, Broken> {
        let run = self.run_id();
        let Self { current, job_out, rewriter, mask_key, log, .. } = self;
        let Some(key) = mask_key else { return Err(OUT_OF_STEP) };
        let out = job_out.vec();
        let start = out.len();
        out.extend_from_slice(&[tag, 0, 0, 0, 0]);
        let (row, record) = match &mut current.mode {
            Mode::Rows(plan) if tag == b'D' => (rewriter.row(plan, key, body(message), out), plan.record),
            Mode::Copy(copy) if tag == b'd' => (copy.data(rewriter, key, body(message), out), copy.record),
            _ => (Err(Malformed), false),
        };
        let seen = match row {
            Ok(Row::Same) => {
                out.truncate(start);
                message
            }
            Ok(Row::Changed(cells)) => {
                current.counts.masked += cells;
                let length = u32::try_from(out.len() - start - 1).unwrap_or(u32::MAX);
                patch(out, start + 1, length);
                out.get(start..).unwrap_or_default()
            }
            Err(Malformed) => {
                out.truncate(start);
                return Err("the server sent a row that does not fit its description");
            }
        };
        if record {
            let seen = seen.get(HEADER..).unwrap_or_default();
            match tag {
                b'D' => log.row(run, current.index, seen),
                _ => log.copy(run, current.index, seen),
            }
        }
        row.map_err(|Malformed| MALFORMED)
    }

    /// Any message but rows that are under way.
    fn reply(&mut self, tag: u8, message: &[u8]) -> Result<Fate, Broken> {
        let body = body(message);
        match (tag, self.queue.front()) {
            (b'C' | b'I', Some(Expect::Query(_) | Expect::Execute { .. })) => {
                let text =
                    if tag == b'C' { Reader::new(body).cstr().map_err(|Malformed| MALFORMED)? } else { b"" };
                self.finish(Ended::Done, text)
            }
            (b's', Some(Expect::Execute { .. })) => self.finish(Ended::Suspended, b""),
            (b'V', Some(Expect::Call(_))) => self.called(body),
            (b'Z', Some(Expect::Query(_) | Expect::Call(_) | Expect::Sync)) => self.ready(body),
            (b'T', Some(_)) => self.row_description(body),
            (b'1' | b'2' | b'3', Some(Expect::Named(expected, change))) if *expected == tag => {
                self.names.confirm(change);
                self.advance();
                Ok(Fate::Relay)
            }
            (b't', Some(Expect::DescribeStatement(_))) => Ok(Fate::Relay),
            (b'n', Some(Expect::DescribeStatement(statement))) => {
                if let Some(statement) = statement {
                    statement.text.described.known();
                }
                self.advance();
                Ok(Fate::Relay)
            }
            (b'n', Some(Expect::DescribePortal { portal, hidden })) => {
                let fate = if *hidden { Fate::Drop } else { Fate::Relay };
                if let Some(portal) = portal.as_ref().filter(|portal| portal.looked_at()) {
                    lock(&portal.state).described.known();
                }
                self.advance();
                Ok(fate)
            }
            (b'D', Some(Expect::Execute { .. })) => self.first_row(),
            (b'G', Some(Expect::Query(_) | Expect::Execute { .. })) => self.copy_in(),
            (b'W', Some(Expect::Query(_))) if self.unread && self.startup.replication.is_some() => {
                self.copy_both()
            }
            (b'H', Some(Expect::Query(_) | Expect::Execute { .. })) => self.copy_out(body),
            (b'c', Some(Expect::Query(_) | Expect::Execute { .. })) => Ok(Fate::Relay),
            (b'E', _) => self.server_error(body),
            (b'N', _) => self.report(tag, body),
            (b'A', _) => {
                if self.veil.lifted() {
                    return Ok(Fate::Relay);
                }
                let Self { veil, rewriter, side, .. } = self;
                veil.notification(rewriter, body, side).map_err(|Malformed| MALFORMED)?;
                Ok(Fate::Drop)
            }
            (b'S', _) => self.parameter(message).map(|()| Fate::Relay),
            _ => Err(OUT_OF_STEP),
        }
    }

    fn ready(&mut self, body: &[u8]) -> Result<Fate, Broken> {
        self.status = Status::read(body).map_err(|Malformed| MALFORMED)?;
        self.mute = false;
        self.copy_in = CopyIn::No;
        if self.cancel == Cancel::Wanted {
            self.cancel = Cancel::No;
        }
        self.overdue = None;
        self.advance();
        if self.status == Status::Idle && self.queue.is_empty() {
            // No portal of the protocol outlives its transaction.
            self.names.end_portals();
        }
        Ok(Fate::Relay)
    }

    /// The first of the expected replies is complete.
    pub(super) fn advance(&mut self) {
        self.queue.pop_front();
        self.current = Current::default();
        self.answer_refused();
    }

    /// Gives the gateway's own answers whose turn has come.
    pub(super) fn answer_refused(&mut self) {
        while let Some(Expect::Refused { provoked: false, .. }) = self.queue.front() {
            if let Some(Expect::Refused { error, ready, .. }) = self.queue.pop_front()
                && !self.mute
            {
                self.side.extend_from_slice(&error);
                if ready {
                    self.status.write(&mut self.side);
                }
            }
        }
    }

    /// The server reports an error.
    fn server_error(&mut self, body: &[u8]) -> Result<Fate, Broken> {
        let sqlstate = report::field(body, b'C').unwrap_or(b"XX000");
        let severity = report::field(body, b'V').unwrap_or(b"");
        if severity == b"FATAL" || severity == b"PANIC" {
            self.fatal = true;
        }
        let run = self.run_id();
        match self.queue.front() {
            // It is about the connection, or the end of the transaction.
            None | Some(Expect::Sync) => return self.report(b'E', body),
            Some(Expect::Query(_) | Expect::Call(_)) => {
                self.report_end(run, Ended::Failed, sqlstate);
                self.copy_in = CopyIn::No;
                return self.report(b'E', body);
            }
            Some(Expect::Execute { .. }) => self.report_end(run, Ended::Failed, sqlstate),
            Some(_) => {}
        }
        let fate = match self.queue.front_mut() {
            Some(Expect::Refused { error, provoked: true, .. }) => {
                let error = std::mem::take(error);
                if !self.mute {
                    self.side.extend_from_slice(&error);
                }
                Fate::Drop
            }
            _ => self.report(b'E', body)?,
        };
        self.skip_to_sync();
        Ok(fate)
    }

    /// The server drops what was sent up to the next Sync, and so none of it is answered.
    fn skip_to_sync(&mut self) {
        self.copy_in = CopyIn::No;
        let sync = self.queue.iter().position(|expect| matches!(expect, Expect::Sync));
        let later = match sync {
            Some(at) => self.queue.split_off(at),
            None => {
                self.skip_job();
                VecDeque::new()
            }
        };
        let dropped = std::mem::replace(&mut self.queue, later);
        let reported = std::mem::take(&mut self.current).reported;
        for (at, expect) in dropped.iter().enumerate() {
            if let Expect::Execute { run, .. } | Expect::Query(run) | Expect::Call(run) = expect
                && (at > 0 || !reported)
            {
                self.log.finished(run.id, 0, Ended::Skipped, b"", Counts::default());
            }
        }
        for (at, expect) in dropped.into_iter().enumerate().rev() {
            match expect {
                Expect::Named(_, mut change) => {
                    if at == 0 {
                        change.refused();
                    }
                    self.names.undo(change, &mut self.queue);
                }
                Expect::Refused { gone: Some(change), .. } if at > 0 => {
                    self.names.undo(change, &mut self.queue);
                }
                _ => {}
            }
        }
    }

    /// The job's messages up to its next Sync are dropped; it has not come yet.
    fn skip_job(&mut self) {
        self.skip = true;
        self.unsynced = false;
        if let Some(waiting) = &mut self.ask {
            waiting.void = true;
        }
    }

    /// An ErrorResponse or NoticeResponse, without what it must not carry.
    fn report(&mut self, tag: u8, body: &[u8]) -> Result<Fate, Broken> {
        if self.mute && tag == b'E' {
            return Ok(Fate::Drop);
        }
        if tag == b'E'
            && self.overdue.is_some()
            && report::field(body, b'C') == Some(CANCELED)
            && let Some(error) = self.overdue.take()
        {
            self.side.extend_from_slice(&error);
            return Ok(Fate::Drop);
        }
        if self.veil.lifted() {
            return Ok(Fate::Relay);
        }
        let inert = match self.queue.front() {
            Some(Expect::Query(run) | Expect::Execute { run, .. }) => {
                run.decision.statement(self.current.index).is_some_and(|allowed| allowed.inert)
            }
            _ => false,
        };
        let Self { veil, rewriter, side, .. } = self;
        let veil: &Veil = veil;
        veil.report(rewriter, tag, body, inert, side).map_err(|Malformed| MALFORMED)?;
        Ok(Fate::Drop)
    }

    /// A statement of the first expected reply ended.
    fn finish(&mut self, ended: Ended, text: &[u8]) -> Result<Fate, Broken> {
        let run = self.run_id();
        self.report_end(run, ended, text);
        self.copy_in = CopyIn::No;
        match self.queue.front() {
            Some(Expect::Execute { portal, .. }) => {
                lock(&portal.state).used.add(self.current.counts);
                self.advance();
            }
            Some(Expect::Query(run)) => {
                let index = self.current.index;
                let empty = run.decision.statements.is_empty() && index == 0 && text.is_empty();
                if run.decision.statement(index).is_none() && !empty {
                    return Err("the server ran more statements than were allowed");
                }
                self.current = Current { index: index + 1, ..Current::default() };
            }
            _ => return Err(OUT_OF_STEP),
        }
        Ok(Fate::Relay)
    }

    /// What a function call gave.
    fn called(&mut self, body: &[u8]) -> Result<Fate, Broken> {
        let value = function_call::response(body).map_err(|Malformed| MALFORMED)?;
        let Some(Expect::Call(run)) = self.queue.front() else { return Err(OUT_OF_STEP) };
        let run = run.clone();
        let Some(allowed) = run.decision.statement(0) else { return Err(OUT_OF_STEP) };
        let obligations = &allowed.allow.obligations;
        self.current = Current { limits: obligations.limits, ..Current::default() };
        if !self.counts(body.len() + HEADER) {
            self.limit();
            return Ok(Fate::Drop);
        }
        if obligations.record == Recording::Results {
            self.log.copy(run.id, 0, value.unwrap_or_default());
        }
        self.report_end(run.id, Ended::Done, b"FUNCTION");
        Ok(Fate::Relay)
    }

    /// Tells the end of the current statement, once.
    pub(super) fn report_end(&mut self, run: u64, ended: Ended, text: &[u8]) {
        if !std::mem::replace(&mut self.current.reported, true) {
            self.log.finished(run, self.current.index, ended, text, self.current.counts);
        }
    }

    pub(super) fn run_id(&self) -> u64 {
        match self.queue.front() {
            Some(Expect::Query(run) | Expect::Call(run) | Expect::Execute { run, .. }) => run.id,
            _ => 0,
        }
    }

    /// The server wants COPY data. It does not look at a Sync before it has it all.
    fn copy_in(&mut self) -> Result<Fate, Broken> {
        let mut later = self.queue.split_off(1);
        later.retain(|expect| !matches!(expect, Expect::Sync));
        if !later.is_empty() {
            return Err("other messages were sent where the server expects COPY data");
        }
        self.copy_in = CopyIn::Active;
        // A Sync that the server drops ended nothing.
        self.unsynced = matches!(self.queue.front(), Some(Expect::Execute { .. }));
        Ok(Fate::Relay)
    }

    /// A replication stream: data both ways, as it is.
    fn copy_both(&mut self) -> Result<Fate, Broken> {
        let Some(Expect::Query(run)) = self.queue.front() else { return Err(OUT_OF_STEP) };
        let index = self.current.index;
        let Some(allowed) = run.decision.statement(index) else { return Err(OUT_OF_STEP) };
        let limits = allowed.allow.obligations.limits;
        self.current = Current { index, mode: Mode::Pass, limits, ..Current::default() };
        self.copy_in()
    }

    /// The job gets an error in place of what is left of the current result.
    pub(super) fn cut(&mut self, error: &[u8], ended: Ended, text: &[u8]) {
        let run = self.run_id();
        self.side.extend_from_slice(error);
        self.report_end(run, ended, text);
        self.mute = true;
        self.cancel = Cancel::Wanted;
        let extended = matches!(self.queue.front(), Some(Expect::Execute { .. }));
        if extended && !self.queue.iter().any(|expect| matches!(expect, Expect::Sync)) {
            self.skip_job();
        }
    }
}
