//! What is sent upstream, and what is refused in its place.

use std::sync::{Arc, Mutex, PoisonError};

use policy::{Obligations, Recording};

use super::{
    AskKind, Params, Phase, Session, Waiting,
    frontend::{error, own},
    names::{Change, Described, Portal, PortalState, Statement, Text, lock},
};
use crate::postgres::{
    Allowed, Decision, Refusal,
    mask::{Formats, untouched},
    message::{
        bind::Bind,
        body, execute, frame,
        function_call::{self, FunctionCall},
        parse::Parse,
        query,
        target::Target,
    },
    reply::{Expect, Run},
};

/// How a waiting statement was decided.
pub(super) enum Answer<'a> {
    Allow(Arc<Decision>),
    Deny(&'a Refusal),
    Defer,
}

/// Whose fault a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The server would have taken it: policy, or a bound of the gateway's own.
    Gateway,
    /// The server would have refused it, too, and so a transaction fails.
    Client,
}

fn blame(refusal: &Refusal) -> Blame {
    match refusal.sqlstate {
        Refusal::SYNTAX => Blame::Client,
        _ => Blame::Gateway,
    }
}

impl Session {
    /// The driver decided about the statement whose message is the first in `job_in`.
    pub(super) fn answer(&mut self, answer: Answer<'_>) {
        let Some(mut waiting) = self.ask.take() else { return };
        if self.phase != Phase::Ready {
            return;
        }
        if let Answer::Deny(refusal) = &answer
            && matches!(waiting.kind, AskKind::Query | AskKind::Function)
            && !waiting.void
            && (if blame(refusal) == Blame::Client { self.unsettled() } else { self.must_settle() })
        {
            waiting.refused = Some(Box::new((*refusal).clone()));
            self.ask = Some(waiting);
            return;
        }
        let mut input = std::mem::take(&mut self.job_in);
        if !waiting.void
            && let Some(message) = input.bytes().get(..waiting.length)
        {
            self.answered(&waiting, answer, message);
        }
        input.consume(waiting.length);
        self.job_in = input;
    }

    fn answered(&mut self, waiting: &Waiting, answer: Answer<'_>, message: &[u8]) {
        let granted = match answer {
            Answer::Deny(refusal) => return self.refuse_asked(waiting.kind, refusal, message),
            Answer::Allow(decision) => Some((waiting.id, decision)),
            Answer::Defer if matches!(waiting.kind, AskKind::Parse | AskKind::Bind) => None,
            Answer::Defer => {
                let refusal = own(Refusal::DENIED, "the statement needs an approval".to_owned());
                return self.refuse_asked(waiting.kind, &refusal, message);
            }
        };
        if let Some((_, decision)) = &granted
            && !covers(decision, waiting, message)
        {
            let refusal = own(Refusal::DENIED, "the gateway's answer was for another statement".to_owned());
            return self.refuse_asked(waiting.kind, &refusal, message);
        }
        match (waiting.kind, granted) {
            (AskKind::Query, Some((_, decision))) => {
                let sql = query::read(body(message)).unwrap_or_default();
                self.send_query(message, str::from_utf8(sql).unwrap_or_default(), waiting.id, decision);
            }
            (AskKind::Parse, granted) => {
                let Ok(parse) = Parse::read(body(message)) else { return };
                self.send_parse(message, parse, granted);
            }
            (AskKind::Bind, granted) => {
                let (Ok(bind), Some(old)) = (Bind::read(body(message)), &waiting.statement) else { return };
                let statement = Statement { decision: granted, ..old.clone() };
                let current = self.names.statements.get(bind.statement);
                if current.is_some_and(|current| current.id == old.id) {
                    self.names.statements.replace(bind.statement, statement.clone());
                }
                self.send_bind(message, bind, statement);
            }
            (AskKind::Execute, Some((ask, decision))) => {
                let (Ok(name), Some(portal)) = (execute::read(body(message)), &waiting.portal) else {
                    return;
                };
                lock(&portal.state).decision = Some((ask, Arc::clone(&decision)));
                self.send_execute(message, name, Arc::clone(portal), ask, decision);
            }
            (AskKind::Function, Some((_, decision))) => {
                let Ok(call) = FunctionCall::read(body(message)) else { return };
                let text = waiting.call.as_deref().unwrap_or_default();
                self.send_call(message, call, text, waiting.id, decision);
            }
            (AskKind::Query | AskKind::Execute | AskKind::Function, None) => {}
        }
    }

    fn send_query(&mut self, message: &[u8], sql: &str, ask: u64, decision: Arc<Decision>) {
        self.note(&decision);
        self.runs += 1;
        self.log.started(self.runs, ask, &decision, sql, Params::NONE);
        self.next_part();
        self.send(message, Expect::Query(Run { id: self.runs, decision }));
    }

    fn send_call(
        &mut self,
        message: &[u8],
        call: FunctionCall<'_>,
        sql: &str,
        ask: u64,
        decision: Arc<Decision>,
    ) {
        let untouched = |allowed: &Allowed| {
            let obligations = &allowed.allow.obligations;
            let masks = Obligations { record: Recording::None, ..obligations.clone() };
            untouched(&masks)
        };
        if function_call::gives_data(call.function) && !decision.statements.iter().all(untouched) {
            let refusal = Refusal {
                hint: Some("Call the function by SELECT.".to_owned()),
                ..own(Refusal::DENIED, "the result of a function call cannot be masked".to_owned())
            };
            self.log.refused(refusal.sqlstate, &refusal.message);
            return self.refuse_query(&refusal, Blame::Gateway);
        }
        self.note(&decision);
        self.runs += 1;
        let complete = call.arguments.len() <= self.settings.params_max;
        let kept = if complete { call.arguments } else { &[] };
        self.log.started(self.runs, ask, &decision, sql, Params::from_raw(kept, complete));
        self.next_part();
        self.send(message, Expect::Call(Run { id: self.runs, decision }));
    }

    fn send_parse(&mut self, message: &[u8], parse: Parse<'_>, decision: Option<(u64, Arc<Decision>)>) {
        if decision.as_ref().is_some_and(|(_, decision)| decision.statements.len() > 1 && !decision.open) {
            let refusal =
                own("42601", "cannot insert multiple commands into a prepared statement".to_owned());
            return self.refuse_parse(parse.name, &refusal, Blame::Client);
        }
        if let Some((_, decision)) = &decision {
            decision.statements.iter().for_each(|allowed| self.veil.draw(&allowed.allow.obligations));
        }
        let text = Text {
            sql: str::from_utf8(parse.sql).unwrap_or_default().into(),
            types: parse.types.into(),
            columns: Mutex::default(),
            described: Described::default(),
            confirmed: false.into(),
        };
        let statement = Statement { id: self.names.id(), text: Arc::new(text), decision, part: self.part };
        let change = Change::Statement(self.names.statements.set(parse.name, statement));
        self.send(message, Expect::Named(b'1', change));
    }

    pub(super) fn send_bind(&mut self, message: &[u8], bind: Bind<'_>, statement: Statement) {
        // A deferred statement shows its parameters to whoever approves it, however long they are.
        let complete = statement.decision.is_none() || bind.params.len() <= self.settings.params_max;
        let kept = if complete { bind.params } else { &[] };
        let formats = Formats::new(bind.result_formats);
        let id = self.names.id();
        let recycled = if bind.portal.is_empty() { self.names.portals.take_unnamed() } else { None };
        let mut portal = recycled.unwrap_or_else(|| Arc::new(Portal::empty(statement.clone())));
        if Arc::get_mut(&mut portal).is_none() {
            portal = Arc::new(Portal::empty(statement.clone()));
        }
        if let Some(portal) = Arc::get_mut(&mut portal) {
            portal.id = id;
            portal.statement = statement;
            portal.formats = formats;
            portal.params.clear();
            portal.params.extend_from_slice(kept);
            portal.complete = complete;
            portal.part = self.part;
            *portal.state.get_mut().unwrap_or_else(PoisonError::into_inner) = PortalState::default();
        }
        let change = Change::Portal(self.names.portals.set(bind.portal, portal));
        self.send(message, Expect::Named(b'2', change));
    }

    pub(super) fn send_execute(
        &mut self,
        message: &[u8],
        name: &[u8],
        portal: Arc<Portal>,
        ask: u64,
        decision: Arc<Decision>,
    ) {
        self.note(&decision);
        let looked_at = decision.statements.iter().any(|allowed| !untouched(&allowed.allow.obligations));
        let blind = {
            let mut state = lock(&portal.state);
            state.begun = true;
            let of_statement = &portal.statement.text.described;
            let blind = looked_at && !state.described.holds(self.part) && !of_statement.holds(self.part);
            if blind {
                state.described.asked(self.part);
            }
            blind
        };
        if blind {
            // The job does not want to know its columns, but masks have to.
            Target::Portal(name).describe(self.up_out.vec());
            let portal = Some(Arc::clone(&portal));
            self.queue.push_back(Expect::DescribePortal { portal, hidden: true });
        }
        self.runs += 1;
        let params = Params::from_raw(&portal.params, portal.complete);
        self.log.started(self.runs, ask, &decision, &portal.statement.text.sql, params);
        self.unsynced = true;
        self.send(message, Expect::Execute { portal, run: Run { id: self.runs, decision } });
    }

    pub(super) fn send(&mut self, message: &[u8], expect: Expect) {
        self.up_out.vec().extend_from_slice(message);
        self.queue.push_back(expect);
        self.flushed = false;
    }

    /// What running this changes for the rest of the session.
    fn note(&mut self, decision: &Decision) {
        self.unread |= decision.open;
        for allowed in &decision.statements {
            self.veil.draw(&allowed.allow.obligations);
            match &allowed.defines {
                None => {}
                // SQL may give the name to something else now: the protocol's meaning of it ends.
                Some(policy::Named::Prepared(name)) => drop(self.names.statements.remove(name.as_bytes())),
                Some(policy::Named::Cursor(name)) => drop(self.names.portals.remove(name.as_bytes())),
            }
        }
    }

    /// Makes the server send the replies it holds back.
    pub(super) fn flush_upstream(&mut self) {
        if !self.flushed && self.queue.back().is_some_and(|last| !last.ends()) {
            frame(self.up_out.vec(), b'H', |_| {});
            self.flushed = true;
        }
    }

    /// Something sent is not answered yet. It will be.
    pub(super) fn unsettled(&mut self) -> bool {
        let unsettled = !self.queue.is_empty();
        if unsettled {
            self.flush_upstream();
        }
        unsettled
    }

    /// A query that comes between Execute and Sync cannot be refused before it is known that the server gets there.
    pub(super) fn must_settle(&mut self) -> bool {
        self.unsynced && self.unsettled()
    }

    fn next_part(&mut self) {
        self.unsynced = false;
        self.part += 1;
    }

    pub(super) fn send_sync(&mut self, message: &[u8]) {
        self.next_part();
        self.send(message, Expect::Sync);
    }

    fn refuse_asked(&mut self, kind: AskKind, refusal: &Refusal, message: &[u8]) {
        let blame = blame(refusal);
        match kind {
            AskKind::Query | AskKind::Function => self.refuse_query(refusal, blame),
            AskKind::Parse => {
                let name = Parse::read(body(message)).map(|parse| parse.name).unwrap_or_default();
                self.refuse_parse(name, refusal, blame);
            }
            AskKind::Bind | AskKind::Execute => self.refuse_extended(refusal, blame),
        }
    }

    /// An error and ReadyForQuery in the place of a simple query's replies. Where the server has to fail, everything
    /// sent has been answered.
    pub(super) fn refuse_query(&mut self, refusal: &Refusal, blame: Blame) {
        let provoked = self.unsynced || blame == Blame::Client;
        if provoked {
            self.provoke();
        } else {
            self.flush_upstream();
        }
        let error = error(refusal);
        self.queue.push_back(Expect::Refused { error, ready: !provoked, provoked, gone: None });
        if provoked {
            let mut sync = Vec::new();
            frame(&mut sync, b'S', |_| {});
            self.send_sync(&sync);
        }
        self.answer_refused();
        self.spill();
    }

    /// As `refuse_extended`. The unnamed statement is gone where another was to take its place.
    pub(super) fn refuse_parse(&mut self, name: &[u8], refusal: &Refusal, blame: Blame) {
        let gone = name.is_empty().then(|| Change::Statement(self.names.statements.remove(name)));
        self.refuse_message(refusal, blame, gone);
    }

    /// An error in the place of a reply; whatever else comes before the next Sync is dropped.
    pub(super) fn refuse_extended(&mut self, refusal: &Refusal, blame: Blame) {
        self.refuse_message(refusal, blame, None);
    }

    fn refuse_message(&mut self, refusal: &Refusal, blame: Blame, gone: Option<Change>) {
        let provoked = self.unsynced || blame == Blame::Client;
        if provoked {
            self.provoke();
        } else {
            self.flush_upstream();
        }
        self.queue.push_back(Expect::Refused { error: error(refusal), ready: false, provoked, gone });
        self.skip = true;
        self.answer_refused();
        self.spill();
    }

    /// Makes the server fail. What ran since the last Sync would be committed by it, while the client reads from the error
    /// that it was rolled back. The name keeps the unnamed statement as it is: the text is read first, and cannot be.
    fn provoke(&mut self) {
        Parse { name: b"refused", sql: b"refused by the gateway", types: &[] }.write(self.up_out.vec());
    }
}

/// Whether every permit of the decision is good for the text it was given for.
fn covers(decision: &Decision, waiting: &Waiting, message: &[u8]) -> bool {
    if !decision.statements.iter().any(|allowed| allowed.allow.permit.is_own()) {
        return true;
    }
    let sql = match waiting.kind {
        AskKind::Query => query::read(body(message)).unwrap_or_default(),
        AskKind::Parse => Parse::read(body(message)).map(|parse| parse.sql).unwrap_or_default(),
        AskKind::Function => waiting.call.as_deref().unwrap_or_default().as_bytes(),
        AskKind::Bind => waiting.statement.as_ref().map(|of| of.text.sql.as_bytes()).unwrap_or_default(),
        AskKind::Execute => {
            waiting.portal.as_ref().map(|of| of.statement.text.sql.as_bytes()).unwrap_or_default()
        }
    };
    let sql = str::from_utf8(sql).unwrap_or_default();
    decision.statements.iter().all(|allowed| allowed.allow.permit.covers(sql))
}

impl Portal {
    fn empty(statement: Statement) -> Self {
        Self {
            id: 0,
            statement,
            formats: Formats::All(0),
            params: Vec::new(),
            complete: true,
            part: 0,
            state: Mutex::default(),
        }
    }
}
