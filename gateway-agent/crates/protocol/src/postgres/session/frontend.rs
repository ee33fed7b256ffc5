//! From the client to the server.

use std::sync::Arc;

use super::{
    AskKind, Cancel, CopyIn, Phase, Session, Waiting,
    forward::Blame,
    names::{Change, NAME_MAX, Portal, Statement, lock},
};
use crate::{
    postgres::{
        Refusal,
        message::{
            HEADER, Header, Malformed,
            bind::Bind,
            body, execute,
            function_call::{self, FunctionCall},
            parse::Parse,
            query,
            report::{Report, Severity},
            target::Target,
        },
        reply::Expect,
    },
    step::CloseReason,
};

/// What became of the bytes that were looked at.
enum Moved {
    /// As many were dealt with.
    Bytes(usize),
    /// More have to come.
    More,
    /// Something else has to happen first.
    Wait,
}

/// Describe, Execute, Close: a name and a few bytes.
const SHORT_MAX: usize = 16 * 1024;

/// Parameter types of a Parse: a count of 16 bits of 4 bytes each, and its name.
const PARSE_EXTRA: usize = 4 * 65_535 + 1024;

/// PostgreSQL's own limit of one message.
const STREAM_MAX: usize = 0x4000_0000;

impl Session {
    pub(super) fn pump_job(&mut self) {
        self.job_need = false;
        let mut input = std::mem::take(&mut self.job_in);
        while self.job_may_move() {
            match self.job_message(input.bytes()) {
                Moved::Bytes(count) => input.consume(count),
                Moved::More => {
                    self.job_need = true;
                    break;
                }
                Moved::Wait => break,
            }
        }
        self.job_in = input;
    }

    fn job_may_move(&self) -> bool {
        self.phase == Phase::Ready
            && self.ask.is_none()
            && self.cancel != Cancel::Running
            && (!self.mute || self.skip)
            && self.up_out.len() <= self.settings.high_water
            && self.job_out.len() <= self.settings.high_water
            && self.queue.len() < self.settings.pipeline_max
            && !self.log.full()
    }

    fn job_message(&mut self, bytes: &[u8]) -> Moved {
        if self.job_rest > 0 {
            let part = bytes.get(..self.job_rest).unwrap_or(bytes);
            if part.is_empty() {
                return Moved::More;
            }
            self.up_out.vec().extend_from_slice(part);
            self.job_rest -= part.len();
            return Moved::Bytes(part.len());
        }
        if self.job_drop > 0 {
            let count = bytes.len().min(self.job_drop);
            if count == 0 {
                return Moved::More;
            }
            self.job_drop -= count;
            return Moved::Bytes(count);
        }
        let header = match Header::read(bytes) {
            Ok(Some(header)) => header,
            Ok(None) => return Moved::More,
            Err(Malformed) => return self.broken("a message of impossible length"),
        };
        let most = match header.tag {
            // Too long ones of these get an error of their own.
            b'Q' | b'P' | b'B' | b'F' => self.settings.message_max,
            b'd' => STREAM_MAX,
            b'D' | b'E' | b'C' | b'f' => SHORT_MAX,
            b'H' | b'S' | b'X' | b'c' => 5,
            b'p' => return self.broken("a password where none was asked for"),
            _ => return self.broken("a message of unknown type"),
        };
        if header.total > most {
            return self.broken("a message longer than the gateway takes");
        }
        if self.skip && !matches!(header.tag, b'S' | b'X') {
            self.job_drop = header.total;
            return Moved::Bytes(0);
        }
        if self.copy_in == CopyIn::Active && !matches!(header.tag, b'd' | b'c' | b'f' | b'H' | b'S' | b'X') {
            return self.broken("another message in the middle of COPY data");
        }
        match header.tag {
            b'd' | b'c' | b'f' => self.copy_data(header, bytes),
            b'Q' if header.total > self.settings.sql_max + 6 => {
                if self.must_settle() {
                    return Moved::Wait;
                }
                let refusal = self.too_long();
                self.log.refused(refusal.sqlstate, &refusal.message);
                self.refuse_query(&refusal, Blame::Gateway);
                self.job_drop = header.total;
                Moved::Bytes(0)
            }
            b'P' if header.total > self.settings.sql_max + PARSE_EXTRA => {
                let refusal = self.too_long();
                self.log.refused(refusal.sqlstate, &refusal.message);
                // What the name is has perhaps not come yet.
                let unnamed = bytes.get(HEADER).is_none_or(|first| *first == 0);
                self.refuse_parse(if unnamed { b"" } else { b"?" }, &refusal, Blame::Gateway);
                self.job_drop = header.total;
                Moved::Bytes(0)
            }
            _ => match bytes.get(..header.total) {
                Some(message) => self.whole_message(header.tag, message),
                None => Moved::More,
            },
        }
    }

    fn whole_message(&mut self, tag: u8, message: &[u8]) -> Moved {
        let done = Moved::Bytes(message.len());
        let handled = match tag {
            b'Q' => return self.query(message),
            b'P' => return self.parse(message),
            b'B' => return self.bind(message),
            b'E' => return self.execute(message),
            b'F' => return self.function_call(message),
            b'D' => return self.describe(message),
            b'C' => self.close(message),
            b'H' => {
                if self.copy_in != CopyIn::Active {
                    self.up_out.vec().extend_from_slice(message);
                }
                Ok(())
            }
            b'S' => {
                self.sync(message);
                Ok(())
            }
            _ => {
                self.up_out.vec().extend_from_slice(message);
                self.phase = Phase::Closed(CloseReason::Ended);
                Ok(())
            }
        };
        match handled {
            Ok(()) => done,
            Err(Malformed) => self.malformed(),
        }
    }

    fn query(&mut self, message: &[u8]) -> Moved {
        let Ok(sql) = query::read(body(message)) else { return self.malformed() };
        if str::from_utf8(sql).is_err() {
            if self.unsettled() {
                return Moved::Wait;
            }
            let refusal = own("22021", "the statement is not valid UTF-8".to_owned());
            self.refuse_query(&refusal, Blame::Client);
            return Moved::Bytes(message.len());
        }
        self.wait_for(AskKind::Query, message.len(), None, None)
    }

    fn parse(&mut self, message: &[u8]) -> Moved {
        let Ok(parse) = Parse::read(body(message)) else { return self.malformed() };
        let (refusal, blame) = if parse.sql.len() > self.settings.sql_max {
            (self.too_long(), Blame::Gateway)
        } else if str::from_utf8(parse.sql).is_err() {
            (own("22021", "the statement is not valid UTF-8".to_owned()), Blame::Client)
        } else if let Some(refusal) = self.bad_name(parse.name) {
            (refusal, Blame::Gateway)
        } else {
            return self.wait_for(AskKind::Parse, message.len(), None, None);
        };
        self.refuse_parse(parse.name, &refusal, blame);
        Moved::Bytes(message.len())
    }

    fn bind(&mut self, message: &[u8]) -> Moved {
        let Ok(bind) = Bind::read(body(message)) else { return self.malformed() };
        let statement = match (self.bad_name(bind.portal), self.names.statements.get(bind.statement)) {
            (Some(refusal), _) => Err((refusal, Blame::Gateway)),
            (None, None) => Err((unknown("26000", "prepared statement", bind.statement), Blame::Client)),
            (None, Some(statement)) => Ok(statement.clone()),
        };
        if self.uncertain(bind.statement) && self.unsettled() {
            return Moved::Wait;
        }
        match statement {
            Err((refusal, blame)) => {
                self.refuse_extended(&refusal, blame);
                Moved::Bytes(message.len())
            }
            Ok(statement) if statement.decision.as_ref().is_some_and(|(_, old)| old.epoch != self.epoch) => {
                self.wait_for(AskKind::Bind, message.len(), Some(statement), None)
            }
            Ok(statement) => {
                self.send_bind(message, bind, statement);
                Moved::Bytes(message.len())
            }
        }
    }

    fn execute(&mut self, message: &[u8]) -> Moved {
        let Ok(name) = execute::read(body(message)) else { return self.malformed() };
        let Some(portal) = self.names.portals.get(name).map(Arc::clone) else {
            if self.unsettled() {
                return Moved::Wait;
            }
            self.refuse_extended(&unknown("34000", "portal", name), Blame::Client);
            return Moved::Bytes(message.len());
        };
        let (granted, begun, certain) = {
            let state = lock(&portal.state);
            let granted = state.decision.clone().or_else(|| portal.statement.decision.clone());
            (granted, state.begun, state.confirmed || portal.part == self.part)
        };
        // As with statements: a savepoint can keep the older portal of this name alive.
        if !certain && self.unsettled() {
            return Moved::Wait;
        }
        match granted {
            Some((ask, decision))
                if decision.epoch == self.epoch
                    && (begun || decision.statements.iter().all(|allowed| allowed.refers.is_none())) =>
            {
                self.send_execute(message, name, portal, ask, decision);
                Moved::Bytes(message.len())
            }
            _ => self.wait_for(AskKind::Execute, message.len(), None, Some(portal)),
        }
    }

    fn function_call(&mut self, message: &[u8]) -> Moved {
        let Ok(call) = FunctionCall::read(body(message)) else { return self.malformed() };
        let text = match function_call::as_sql(call.function, call.count) {
            Some(text) => text,
            // Where everything is let through, a text that nobody can read is as good as any.
            None if self.unread => format!("FunctionCall {}", call.function),
            None => {
                if self.must_settle() {
                    return Moved::Wait;
                }
                let refusal = Refusal {
                    hint: Some("Call the function by SELECT.".to_owned()),
                    ..own(
                        "42501",
                        format!("the gateway does not know function {} of a function call", call.function),
                    )
                };
                self.log.refused(refusal.sqlstate, &refusal.message);
                self.refuse_query(&refusal, Blame::Gateway);
                return Moved::Bytes(message.len());
            }
        };
        let waiting = self.wait_for(AskKind::Function, message.len(), None, None);
        if let Some(ask) = &mut self.ask {
            ask.call = Some(text.into());
        }
        waiting
    }

    /// Nobody knows yet which statement the server has by this name, if any: a change of it may fail, and leave another.
    fn uncertain(&self, name: &[u8]) -> bool {
        self.names.statements.get(name).is_none_or(|statement| !statement.certain(self.part))
    }

    /// A name that SQL gave (PREPARE, DECLARE) may be described, too: that shows types, no values.
    fn describe(&mut self, message: &[u8]) -> Moved {
        let expect = match Target::read(body(message)) {
            Err(Malformed) => return self.malformed(),
            Ok(Target::Statement(name)) => {
                let statement = self.names.statements.get(name).cloned();
                // Of a name that is not known here, whatever the server says is right.
                if (statement.is_some() || name.is_empty()) && self.uncertain(name) && self.unsettled() {
                    return Moved::Wait;
                }
                match &statement {
                    Some(statement) => statement.text.described.asked(self.part),
                    // SQL gives no empty names. The server may still have one whose successor was refused here.
                    None if name.is_empty() => {
                        self.refuse_extended(&unknown("26000", "prepared statement", name), Blame::Client);
                        return Moved::Bytes(message.len());
                    }
                    None => {}
                }
                Expect::DescribeStatement(statement)
            }
            Ok(Target::Portal(name)) => {
                let portal = self.names.portals.get(name).map(Arc::clone);
                if let Some(portal) = &portal {
                    lock(&portal.state).described.asked(self.part);
                }
                Expect::DescribePortal { portal, hidden: false }
            }
        };
        self.send(message, expect);
        Moved::Bytes(message.len())
    }

    /// The server has nothing against closing what does not exist.
    fn close(&mut self, message: &[u8]) -> Result<(), Malformed> {
        let change = match Target::read(body(message))? {
            Target::Statement(name) | Target::Portal(name) if name.len() > NAME_MAX => {
                let refusal = own("42622", "the name is longer than 63 bytes".to_owned());
                self.refuse_extended(&refusal, Blame::Gateway);
                return Ok(());
            }
            Target::Statement(name) => Change::Statement(self.names.statements.remove(name)),
            Target::Portal(name) => Change::Portal(self.names.portals.remove(name)),
        };
        self.send(message, Expect::Named(b'3', change));
        Ok(())
    }

    fn sync(&mut self, message: &[u8]) {
        // The server does not look at these before the copy is over.
        if self.copy_in == CopyIn::Active {
            return;
        }
        self.skip = false;
        self.send_sync(message);
    }

    fn copy_data(&mut self, header: Header, bytes: &[u8]) -> Moved {
        if self.copy_in == CopyIn::Active {
            if header.tag != b'd' {
                let Some(message) = bytes.get(..header.total) else { return Moved::More };
                self.up_out.vec().extend_from_slice(message);
                self.copy_in = CopyIn::Ended;
                return Moved::Bytes(message.len());
            }
            let part = bytes.get(..header.total).unwrap_or(bytes);
            self.up_out.vec().extend_from_slice(part);
            self.job_rest = header.total - part.len();
            return Moved::Bytes(part.len());
        }
        // Clients may send data before they know that the server takes it.
        let undecided = |expect: &Expect| matches!(expect, Expect::Query(_) | Expect::Execute { .. });
        if self.queue.iter().any(undecided) {
            self.flush_upstream();
            return Moved::Wait;
        }
        // The copy failed, or there was none: the server drops such data, too.
        self.job_drop = header.total;
        Moved::Bytes(0)
    }

    fn wait_for(
        &mut self,
        kind: AskKind,
        length: usize,
        statement: Option<Statement>,
        portal: Option<Arc<Portal>>,
    ) -> Moved {
        self.asks += 1;
        self.ask = Some(Waiting {
            id: self.asks,
            kind,
            length,
            told: false,
            settle: false,
            void: false,
            refused: None,
            statement,
            portal,
            call: None,
        });
        Moved::Wait
    }

    fn too_long(&self) -> Refusal {
        let most = self.settings.sql_max;
        own("54000", format!("the statement is longer than {most} bytes, the most that the gateway takes"))
    }

    fn bad_name(&self, name: &[u8]) -> Option<Refusal> {
        if name.len() > NAME_MAX {
            return Some(own("42622", "the name is longer than 63 bytes".to_owned()));
        }
        let most = self.settings.names_max;
        (!name.is_empty() && self.names.len() >= most)
            .then(|| own("53400", format!("more than {most} prepared statements and portals")))
    }

    fn malformed(&mut self) -> Moved {
        self.broken("a malformed message")
    }

    fn broken(&mut self, why: &'static str) -> Moved {
        self.fail_job(why);
        Moved::Wait
    }
}

pub(super) fn own(sqlstate: &'static str, message: String) -> Refusal {
    Refusal { sqlstate, message, detail: None, hint: None }
}

fn unknown(sqlstate: &'static str, what: &str, name: &[u8]) -> Refusal {
    let hint = "What SQL made (PREPARE, DECLARE) runs by SQL only (EXECUTE, FETCH).";
    Refusal {
        hint: Some(hint.to_owned()),
        ..own(sqlstate, format!("{what} \"{}\" does not exist", String::from_utf8_lossy(name)))
    }
}

pub(super) fn error(refusal: &Refusal) -> Box<[u8]> {
    let mut bytes = Vec::new();
    let report = Report {
        severity: Severity::Error,
        sqlstate: refusal.sqlstate,
        message: &refusal.message,
        detail: refusal.detail.as_deref(),
        hint: refusal.hint.as_deref(),
    };
    report.write(&mut bytes);
    bytes.into()
}
