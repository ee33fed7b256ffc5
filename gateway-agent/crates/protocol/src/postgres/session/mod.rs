//! One client's session with one server, as a state machine over bytes.
//!
//! # Driving it
//!
//! ```text
//! loop {
//!     match session.step() {
//!         Need            => {}
//!         StartTls(leg)   => flush that leg; handshake; session.tls_started(leg, end_point)
//!         Login           => decide Connect from session.startup(); connect; session.login(..) or refuse(..)
//!         Ask             => { look at session.pending(); allow(..) | deny(..) | defer() | settle(); continue }
//!         Cancel          => look session.cancel_key() up; forward it; close
//!         Close(reason)   => flush; close; break
//!     }
//!     handle session.events(); if session.take_cancel() { send upstream_key().request() on a new connection,
//!                                                         await its EOF, session.cancel_done() }
//!     write job_out() and up_out(); read into job_in() / up_in() where session.reads(leg)
//! }
//! ```
//!
//! * **Bytes in.** Append what was read to `job_in()` / `up_in()` (plain `Vec<u8>`s: reserve, read, nothing
//!   else). Read from a leg only while `reads(leg)`: it is false while the session cannot use more of it, which
//!   is the back pressure. End of file on the job's leg: drop the session and close upstream. End of file
//!   upstream: `upstream_gone()`, then `step` as usual, it closes.
//! * **Bytes out.** `job_out()` / `up_out()`: write `bytes()`, then `advance(n)`. `step` stops working for a leg
//!   whose output is above [`Settings::high_water`]; it carries on when called after the output shrank.
//! * **Ask** is said once per waiting statement. While it waits (an approval may take minutes) go on calling
//!   `step`, it answers `Need` and still relays replies; `notice` tells the client what it waits for. An `allow`
//!   whose decision is of another epoch than the session's does not count: `step` says `Ask` again.
//!   Answer a cached decision right away and call `step` again: nothing has to be written in between.
//! * **Events** ([`Session::events`]) must be drained after every `step`: when too many pile up, `step` does
//!   nothing more. Required recording that fails: `terminate`. What an event tells of has not reached the
//!   other side before the driver writes the outputs, so record first, then write.
//! * **TLS on the job's leg.** A client asks by SSLRequest (answered `S` when [`Settings::job_tls`]) and the
//!   session says `StartTls(Job)`. A PostgreSQL 17 client may start with the ClientHello itself: peek at the first bytes
//!   (`MSG_PEEK`) with [`sniff`](crate::sniff::sniff); on `Tls` do the handshake (ALPN `postgresql`) on the
//!   untouched socket and call `tls_started(Job, None)` before feeding anything. A driver that did not peek and fed the
//!   ClientHello gets `StartTls(Job)` and finds the bytes still in `job_in()`: take them, and
//!   hand them to the TLS library first.
//! * **TLS upstream.** `StartTls(Upstream)` comes after the server agreed. Give `tls_started` the hash of the
//!   server's certificate (RFC 5929 `tls-server-end-point`) and SCRAM-SHA-256-PLUS is used where offered.
//! * **Policy changed:** `set_epoch`. Statements already running finish; prepared ones are asked again at
//!   their next Bind or Execute. Kick the `step` loop afterwards.
//! * **Names that SQL gives** (PREPARE, DECLARE): a statement that `refers` to one (EXECUTE, FETCH) means what the
//!   name means when it runs. Answer its Ask with `settle`: it is asked again when everything sent before has
//!   been answered, and events have said which PREPARE and DECLARE succeeded. Then look the name up, first in
//!   [`Session::prepared`] / [`Session::portal`], then in what the driver learned from events. Give
//!   [`Allowed::refers`](super::Allowed::refers) in the decision: in the extended protocol each Execute then asks.
//! * **Approval with parameters:** answer the Parse of such a statement with `defer`: it is only parsed, and each
//!   Execute then asks ([`AskKind::Execute`]) with the parameters in [`Pending::params`].
//!
//! # What it promises
//!
//! * Nothing of a statement reaches the server before `allow`; what is not understood is refused, never relayed.
//! * Replies are matched to what was sent, one by one. A server message that does not fit what was sent ends
//!   the session, since masks could then be applied to the wrong rows.
//! * A refusal is an ErrorResponse at its place in the order of replies, with the transaction status that the
//!   server really has, and leaves the session usable. In a pipeline, everything up to the next Sync is
//!   discarded, as the server would; where earlier parts of the same pipeline already ran, the server is made to
//!   fail too, so that it rolls them back as the client expects. So it is where the server would have refused the
//!   message itself (a name that does not exist): a transaction then fails as it does without the gateway.
//! * Memory: inputs and outputs are bounded by [`Settings`], and grow only with bytes that arrived.

mod backend;
mod buffer;
mod ending;
mod events;
mod forward;
mod frontend;
mod login;
pub(crate) mod names;
mod params;
mod results;
mod start;
mod types;

use std::{collections::VecDeque, sync::Arc};

pub use buffer::Output;
pub use events::{Columns, Event, Events, Outcome, Row};
pub use params::{Param, Params};
use policy::Limits;
pub use types::{AskKind, Login, Pending, Settings, Startup};

use self::{
    buffer::Input,
    events::{Counts, Log},
    forward::Answer,
    frontend::error,
    names::{Names, Portal, Statement},
};
use super::{
    CancelKey, Decision, NoOrigins, Origins, Refusal,
    mask::{CopyOut, Formats, Plan, Rewriter, Veil},
    message::{
        bind::Bind,
        body,
        function_call::FunctionCall,
        parse::Parse,
        query,
        ready::Status,
        report::{Report, Severity},
        startup::ssl_request,
    },
    reply::Expect,
    scram::Authenticator,
};
use crate::step::{CloseReason, Leg, Step};

/// See the module's description.
pub struct Session {
    settings: Settings,
    phase: Phase,
    job_in: Input,
    job_out: Output,
    up_in: Input,
    up_out: Output,
    log: Log,

    // Startup and login.
    startup: Startup,
    /// Told to the client where it asked for what is not spoken here.
    negotiate: Vec<u8>,
    encryption_asked: bool,
    login: Option<Box<Upstream>>,
    cancel_key: Option<CancelKey>,
    job_key: Option<CancelKey>,
    upstream_key: Option<CancelKey>,
    origins: Arc<dyn Origins + Send + Sync>,
    mask_key: Option<Arc<mask::Key>>,

    // What goes upstream.
    epoch: u64,
    ask: Option<Waiting>,
    asks: u64,
    runs: u64,
    names: Names,
    /// Of a message from the job that is relayed or dropped piece by piece: what is still to come.
    job_rest: usize,
    job_drop: usize,
    /// More bytes from the job would help.
    job_need: bool,
    /// Something failed: the job's messages are dropped up to its next Sync.
    skip: bool,
    /// An Execute was sent since the last Sync.
    unsynced: bool,
    /// Counts what is between two Syncs, from 1.
    part: u64,
    /// The server was asked to send what it has.
    flushed: bool,
    copy_in: CopyIn,

    // What comes back.
    queue: VecDeque<Expect>,
    status: Status,
    /// As the server told it at login.
    search_path: Option<Box<[u8]>>,
    /// The server may no longer read statements as the gateway does: an open decision let it.
    unread: bool,
    /// The gateway's own statements run here.
    own: bool,
    current: Current,
    up_rest: usize,
    up_drop: usize,
    up_need: bool,
    /// The rest of what is being answered is not shown.
    mute: bool,
    cancel: Cancel,
    /// What the client reads when the cancel that is under way works.
    overdue: Option<Box<[u8]>>,
    veil: Veil,
    rewriter: Rewriter,
    plans: Vec<Planned>,
    /// Messages of the gateway's own that wait for a boundary.
    side: Vec<u8>,
    gone: bool,
    fatal: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Before the client's StartupMessage.
    Start,
    /// The job's TLS handshake.
    JobTls,
    /// Login was said.
    Deciding,
    /// SSLRequest was sent upstream.
    UpstreamSsl,
    /// The handshake upstream.
    UpstreamTls,
    /// The server wants to know who we are.
    Authenticating,
    /// The server tells its parameters.
    Preparing,
    Ready,
    Cancelling,
    Closed(CloseReason),
}

/// What is needed until the session is logged in.
struct Upstream {
    authenticator: Authenticator,
    database: String,
    user: String,
    settings: Vec<(String, String)>,
}

/// A statement that waits for its decision. Its message is the first in `job_in`.
#[derive(Debug)]
struct Waiting {
    id: u64,
    kind: AskKind,
    length: usize,
    told: bool,
    /// Not to be told before everything sent is answered.
    settle: bool,
    /// It was overtaken by an error; whatever the answer is, it is dropped.
    void: bool,
    /// The answer, which waits until everything sent before has been answered.
    refused: Option<Box<Refusal>>,
    statement: Option<Statement>,
    portal: Option<Arc<Portal>>,
    /// What a function call is in SQL.
    call: Option<Box<str>>,
}

/// COPY … FROM STDIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CopyIn {
    No,
    /// The server waits for data.
    Active,
    /// The job said that it was all.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancel {
    No,
    Wanted,
    Running,
}

/// The result that the server is sending.
#[derive(Debug, Default)]
struct Current {
    index: usize,
    mode: Mode,
    counts: Counts,
    limits: Limits,
    /// Its end was told already.
    reported: bool,
}

#[derive(Debug, Default)]
enum Mode {
    /// Rows have to be decided about.
    #[default]
    Idle,
    Pass,
    Rows(Arc<Plan>),
    Copy(Box<CopyOut>),
}

/// A plan and what it was made from.
struct Planned {
    decision: Arc<Decision>,
    index: usize,
    columns: Box<[u8]>,
    formats: Option<Formats>,
    plan: Arc<Plan>,
}

/// A leg's input is read ahead up to this much.
const READ_AHEAD: usize = 64 * 1024;

impl Session {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            phase: Phase::Start,
            job_in: Input::default(),
            job_out: Output::default(),
            up_in: Input::default(),
            up_out: Output::default(),
            log: Log::default(),
            startup: Startup::default(),
            negotiate: Vec::new(),
            encryption_asked: false,
            login: None,
            cancel_key: None,
            job_key: None,
            upstream_key: None,
            origins: Arc::new(NoOrigins),
            mask_key: None,
            epoch: 0,
            ask: None,
            asks: 0,
            runs: 0,
            names: Names::default(),
            job_rest: 0,
            job_drop: 0,
            job_need: true,
            skip: false,
            unsynced: false,
            part: 1,
            flushed: false,
            copy_in: CopyIn::No,
            queue: VecDeque::new(),
            status: Status::Idle,
            search_path: None,
            unread: false,
            own: false,
            current: Current::default(),
            up_rest: 0,
            up_drop: 0,
            up_need: true,
            mute: false,
            cancel: Cancel::No,
            overdue: None,
            veil: Veil::default(),
            rewriter: Rewriter::default(),
            plans: Vec::new(),
            side: Vec::new(),
            gone: false,
            fatal: false,
        }
    }

    /// Does all that can be done with what is there.
    pub fn step(&mut self) -> Step {
        loop {
            let step = match &self.phase {
                Phase::Start => self.read_startup(),
                Phase::JobTls | Phase::Deciding => Some(Step::Need),
                Phase::UpstreamSsl | Phase::UpstreamTls | Phase::Authenticating | Phase::Preparing => {
                    self.log_in()
                }
                Phase::Ready => self.relay(),
                Phase::Cancelling => Some(Step::Cancel),
                Phase::Closed(reason) => return Step::Close(reason.clone()),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn relay(&mut self) -> Option<Step> {
        self.pump_upstream();
        if self.gone && self.up_need && self.phase == Phase::Ready {
            self.lose_upstream();
        }
        self.pump_job();
        if self.phase != Phase::Ready {
            return None;
        }
        let settled = self.queue.is_empty();
        match &mut self.ask {
            Some(Waiting { refused, .. }) if settled && refused.is_some() => {
                let refusal = refused.take()?;
                self.answer(Answer::Deny(&refusal));
                None
            }
            Some(ask) if !ask.told && (!ask.settle || settled) => {
                ask.told = true;
                ask.settle = false;
                Some(Step::Ask)
            }
            _ => Some(Step::Need),
        }
    }

    /// To append bytes read from the client to.
    pub fn job_in(&mut self) -> &mut Vec<u8> {
        self.job_in.vec()
    }

    /// To append bytes read from the server to.
    pub fn up_in(&mut self) -> &mut Vec<u8> {
        self.up_in.vec()
    }

    /// To be written to the client.
    pub fn job_out(&mut self) -> &mut Output {
        &mut self.job_out
    }

    /// To be written to the server.
    pub fn up_out(&mut self) -> &mut Output {
        &mut self.up_out
    }

    /// Whether the session can use more bytes of that leg.
    pub fn reads(&self, leg: Leg) -> bool {
        match leg {
            Leg::Job => self.job_need || self.job_in.len() < READ_AHEAD,
            Leg::Upstream => self.up_need || self.up_in.len() < READ_AHEAD,
        }
    }

    /// Nothing but more input, from either leg, gives `step` anything to do.
    pub fn wants_input(&self) -> bool {
        self.phase == Phase::Ready && self.up_need && self.job_need && !self.gone
    }

    /// The handshake that `StartTls` asked for is done; from now on the buffers hold plain text.
    /// `server_end_point` is for SCRAM channel binding (upstream only): the certificate's hash by RFC 5929.
    pub fn tls_started(&mut self, leg: Leg, server_end_point: Option<Vec<u8>>) {
        match (leg, &self.phase) {
            (Leg::Job, Phase::Start | Phase::JobTls) => {
                self.startup.tls = true;
                self.encryption_asked = true;
                self.phase = Phase::Start;
            }
            (Leg::Upstream, Phase::UpstreamTls) => {
                if let Some(login) = &mut self.login {
                    login.authenticator.secured(server_end_point);
                }
                self.introduce();
            }
            _ => {}
        }
    }

    /// What the client said at its start. Complete from `Step::Login` on.
    pub fn startup(&self) -> &Startup {
        &self.startup
    }

    /// Answers `Step::Login`: the connection was allowed and the server is connected.
    pub fn login(&mut self, login: Login) {
        if self.phase != Phase::Deciding {
            return;
        }
        if self.startup.replication.is_some() && !login.open {
            // What a replication stream carries is not read here.
            let refusal = Refusal::policy("builtin:replication", "replication is not allowed", None);
            return self.refuse(&refusal);
        }
        self.epoch = login.epoch;
        self.unread = login.open;
        self.own = login.own;
        if login.open {
            // Longer ones are not read, but let through.
            self.settings.sql_max = self.settings.message_max;
        }
        self.origins = login.origins;
        self.mask_key = Some(login.mask_key);
        self.login = Some(Box::new(Upstream {
            authenticator: Authenticator::new(login.user.clone(), login.password),
            database: login.database,
            user: login.user,
            settings: login.settings,
        }));
        if login.tls {
            ssl_request(self.up_out.vec());
            self.phase = Phase::UpstreamSsl;
        } else {
            self.introduce();
        }
    }

    /// Answers `Step::Login`, or ends the session at any later time: the client gets a FATAL error (unless it
    /// is in the middle of a message), the server a Terminate; then `step` says `Close(Refused)`.
    pub fn refuse(&mut self, refusal: &Refusal) {
        if !matches!(self.phase, Phase::Closed(_)) {
            self.fail(refusal, CloseReason::Refused);
        }
    }

    /// The same as `refuse`, by the name that fits a session that already runs: revoked, shut down, recording
    /// lost.
    pub fn terminate(&mut self, refusal: &Refusal) {
        self.refuse(refusal);
    }

    /// The server's connection reached its end or broke. What arrived before may still be in `up_in`; it is
    /// relayed.
    pub fn upstream_gone(&mut self) {
        self.gone = true;
    }

    /// The waiting statement, from `Step::Ask` until it is answered.
    pub fn pending(&self) -> Option<Pending<'_>> {
        let waiting = self.ask.as_ref()?;
        let body = body(self.job_in.bytes().get(..waiting.length)?);
        let (mut params, mut previous, mut types): (_, _, &[u8]) = (Params::NONE, None, &[]);
        let sql = match waiting.kind {
            AskKind::Query => str::from_utf8(query::read(body).ok()?).ok()?,
            AskKind::Parse => str::from_utf8(Parse::read(body).ok()?.sql).ok()?,
            AskKind::Bind => {
                params = Params::from_raw(Bind::read(body).ok()?.params, true);
                let statement = waiting.statement.as_ref()?;
                previous = statement.decision.as_ref();
                &statement.text.sql
            }
            AskKind::Execute => {
                let portal = waiting.portal.as_ref()?;
                params = Params::from_raw(&portal.params, portal.complete);
                previous = portal.statement.decision.as_ref();
                types = &portal.statement.text.types;
                &portal.statement.text.sql
            }
            AskKind::Function => {
                params = Params::from_raw(FunctionCall::read(body).ok()?.arguments, true);
                waiting.call.as_deref()?
            }
        };
        let previous = previous.map(|(_, decision)| decision);
        Some(Pending { ask: waiting.id, kind: waiting.kind, sql, params, types, previous })
    }

    /// The waiting statement may run, under these obligations.
    pub fn allow(&mut self, decision: Arc<Decision>) {
        if decision.epoch != self.epoch {
            if let Some(waiting) = &mut self.ask {
                waiting.told = false;
            }
            return;
        }
        if self.unread && !decision.open {
            let refusal = Refusal {
                sqlstate: "57P01",
                message: "terminating connection: policy no longer lets everything through".to_owned(),
                detail: Some("This session may have changed how the server reads statements.".to_owned()),
                hint: Some("Connect again.".to_owned()),
            };
            return self.refuse(&refusal);
        }
        self.answer(Answer::Allow(decision));
    }

    /// The waiting statement is refused.
    pub fn deny(&mut self, refusal: &Refusal) {
        self.answer(Answer::Deny(refusal));
    }

    /// The waiting Parse or Bind goes on without a decision; every Execute of it asks. For other kinds this is a
    /// deny.
    pub fn defer(&mut self) {
        self.answer(Answer::Defer);
    }

    /// Ask again once everything sent before has been answered. False, and no effect, when that is so already.
    pub fn settle(&mut self) -> bool {
        let settled = self.queue.is_empty();
        match &mut self.ask {
            Some(waiting) if !settled => {
                waiting.told = false;
                waiting.settle = true;
                self.flush_upstream();
                true
            }
            _ => false,
        }
    }

    /// A NOTICE to the client, at the next boundary between messages.
    pub fn notice(&mut self, message: &str, hint: Option<&str>) {
        if matches!(self.phase, Phase::Closed(_)) {
            return;
        }
        let report = Report { severity: Severity::Notice, sqlstate: "00000", message, detail: None, hint };
        report.write(&mut self.side);
        self.spill();
    }

    /// The policy changed.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// What happened since the last call. Dropping the answer forgets it.
    pub fn events(&mut self) -> Events<'_> {
        self.log.drain()
    }

    /// True, once, when what the server runs should be cancelled: a limit was hit and the rest of the result
    /// would only be thrown away. Nothing new is sent upstream before `cancel_done`, so that the cancel cannot
    /// hit another statement.
    pub fn take_cancel(&mut self) -> bool {
        let wanted = self.cancel == Cancel::Wanted;
        if wanted {
            self.cancel = Cancel::Running;
        }
        wanted
    }

    /// The cancel connection was closed by the server, or failed.
    pub fn cancel_done(&mut self) {
        self.cancel = Cancel::No;
    }

    /// Has what the server runs cancelled (see [`take_cancel`](Self::take_cancel)); where that works, the client reads
    /// `refusal` for the server's own error. Where the run ends before, its end is what the client sees. False, and no
    /// effect, when the server is at something else.
    pub fn cancel_run(&mut self, run: u64, refusal: &Refusal) -> bool {
        if self.phase != Phase::Ready || self.mute || self.cancel != Cancel::No {
            return false;
        }
        let at = self.queue.iter().position(
            |expect| matches!(expect, Expect::Query(of) | Expect::Call(of) | Expect::Execute { run: of, .. } if of.id == run),
        );
        let begun = match (at, self.queue.front()) {
            (Some(0), _) => true,
            // It is being parsed or bound, which may wait for a lock, too.
            (Some(_), Some(front)) => !matches!(
                front,
                Expect::Query(_)
                    | Expect::Call(_)
                    | Expect::Execute { .. }
                    | Expect::Sync
                    | Expect::Refused { .. }
            ),
            _ => false,
        };
        if begun {
            self.overdue = Some(error(refusal));
            self.cancel = Cancel::Wanted;
        }
        begun
    }

    /// Something that ran may not be committed yet.
    pub fn in_transaction(&self) -> bool {
        self.status != Status::Idle || self.unsynced || !self.queue.is_empty()
    }

    /// The key of the CancelRequest that this connection turned out to be (`Step::Cancel`).
    pub fn cancel_key(&self) -> Option<&CancelKey> {
        self.cancel_key.as_ref()
    }

    /// What the client was told to cancel by. Known once the client is logged in.
    pub fn job_key(&self) -> Option<&CancelKey> {
        self.job_key.as_ref()
    }

    /// The server's own key for this session.
    pub fn upstream_key(&self) -> Option<&CancelKey> {
        self.upstream_key.as_ref()
    }

    /// What the protocol's prepared statement of that name runs, for SQL `EXECUTE name`.
    pub fn prepared(&self, name: &str) -> Option<(&str, Option<&Arc<Decision>>)> {
        let statement = self.names.statements.get(name.as_bytes()).filter(|_| !name.is_empty())?;
        Some((&statement.text.sql, statement.decision.as_ref().map(|(_, decision)| decision)))
    }

    /// What the protocol's portal of that name runs, for SQL `FETCH … FROM name`.
    pub fn portal(&self, name: &str) -> Option<(&str, Option<&Arc<Decision>>)> {
        let portal = self.names.portals.get(name.as_bytes())?;
        let statement = &portal.statement;
        Some((&statement.text.sql, statement.decision.as_ref().map(|(_, decision)| decision)))
    }

    /// Nothing is being asked, sent, answered or half received: a good moment to end or to give memory back.
    pub fn idle(&self) -> bool {
        self.phase == Phase::Ready
            && self.ask.is_none()
            && self.queue.is_empty()
            && self.job_in.len() == 0
            && self.up_in.len() == 0
            && self.job_rest == 0
            && self.job_drop == 0
            && self.up_out.is_empty()
            && self.job_out.is_empty()
    }

    /// Gives the memory of empty buffers back, for sessions that idle.
    pub fn relax(&mut self) {
        self.job_in.relax();
        self.up_in.relax();
        self.job_out.relax();
        self.up_out.relax();
    }
}
