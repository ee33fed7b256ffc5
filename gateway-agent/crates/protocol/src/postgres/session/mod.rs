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
//!         Ask             => { let pending = session.pending(); allow(ask, ..) | deny(ask, ..) | defer(ask) | settle(ask); continue }
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
//!   fail too, so that it rolls them back as the client expects.
//! * Memory: inputs and outputs are bounded by [`Settings`], and grow only with bytes that arrived.

mod buffer;
mod events;
mod params;

use std::sync::Arc;

pub use buffer::Output;
pub use events::{Columns, Event, Events, Outcome, Row};
pub use params::{Param, Params};

use self::{buffer::Input, events::Log};
use super::{CancelKey, Decision, Origins, Refusal, cancel::BackendKey};
use crate::step::{CloseReason, Leg, Step};

/// Fixed for the session's life.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the job may cancel by. Not the server's own key.
    pub key: BackendKey,
    /// Answer SSLRequest with `S`. Otherwise `N`.
    pub job_tls: bool,
    /// Longest query text, in bytes. Longer ones get an error. 64 KiB by default.
    pub sql_max: usize,
    /// Longest message that has to be held as a whole: Bind, a row that is masked. 64 MiB by default.
    pub message_max: usize,
    /// Outputs above this many bytes stop the work that fills them. 256 KiB by default.
    pub high_water: usize,
    /// Messages sent upstream whose replies are outstanding. 4096 by default.
    pub pipeline_max: usize,
    /// Prepared statements plus portals that a client may hold. 8192 by default.
    pub names_max: usize,
    /// Bind parameters longer than this in sum are cut in events. 64 KiB by default.
    pub params_max: usize,
}

impl Settings {
    /// The defaults.
    pub fn new(key: BackendKey) -> Self {
        Self {
            key,
            job_tls: true,
            sql_max: 64 * 1024,
            message_max: 64 * 1024 * 1024,
            high_water: 256 * 1024,
            pipeline_max: 4096,
            names_max: 8192,
            params_max: 64 * 1024,
        }
    }
}

/// Who the client said it wants to be. Nothing in it is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Startup {
    pub user: String,
    /// The user's name where the client gave none.
    pub database: String,
    /// Empty where the client gave none.
    pub application: String,
    /// Harmless settings from the startup packet, `options` included, that `login` passes on: `TimeZone`, ….
    pub settings: Vec<(String, String)>,
    /// Minor protocol version: 0 or 2.
    pub minor: u16,
    /// The leg is under TLS.
    pub tls: bool,
}

/// How to log in upstream.
pub struct Login {
    pub user: String,
    /// Wiped when no longer needed.
    pub password: Option<zeroize::Zeroizing<Vec<u8>>>,
    pub database: String,
    /// Ask the server for TLS, and refuse one that says no.
    pub tls: bool,
    /// More settings for the startup packet, e.g. `search_path`. They win over the client's.
    pub settings: Vec<(String, String)>,
    /// The policy epoch to begin with.
    pub epoch: u64,
    /// Names of columns, for masks by origin.
    pub origins: Arc<dyn Origins + Send + Sync>,
    /// For masks that hash.
    pub mask_key: Arc<mask::Key>,
}

/// The statement that waits.
#[derive(Debug, Clone, Copy)]
pub struct Pending<'a> {
    /// Counts up from 1 in the session; runs carry it in [`Event::Started`].
    pub ask: u64,
    pub kind: AskKind,
    pub sql: &'a str,
    /// Of `Bind` and `Execute`; empty otherwise.
    pub params: Params<'a>,
    /// Of `Bind` and `Execute`: what was decided before, under another epoch or deferred.
    pub previous: Option<&'a Arc<Decision>>,
}

/// When a statement is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AskKind {
    /// A simple query; it runs when allowed.
    Query,
    /// A statement is prepared. It may be deferred.
    Parse,
    /// A prepared statement, decided under an older epoch, is bound. It may be deferred.
    Bind,
    /// A portal whose statement was deferred, or decided under an older epoch, is about to run. The answer holds for this portal.
    Execute,
}

/// See the module's description.
pub struct Session {
    settings: Settings,
    job_in: Input,
    job_out: Output,
    up_in: Input,
    up_out: Output,
    log: Log,
    epoch: u64,
    startup: Startup,
}

impl Session {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            job_in: Input::default(),
            job_out: Output::default(),
            up_in: Input::default(),
            up_out: Output::default(),
            log: Log::default(),
            epoch: 0,
            startup: Startup::default(),
        }
    }

    /// Does all that can be done with what is there.
    pub fn step(&mut self) -> Step {
        let _ = (&self.settings, self.epoch, CloseReason::Ended);
        Step::Need
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
    pub fn reads(&self, _leg: Leg) -> bool {
        true
    }

    /// The handshake that `StartTls` asked for is done; from now on the buffers hold plain text.
    /// `server_end_point` is for SCRAM channel binding (upstream only): the certificate's hash by RFC 5929.
    pub fn tls_started(&mut self, _leg: Leg, _server_end_point: Option<Vec<u8>>) {}

    /// What the client said at its start. Complete from `Step::Login` on.
    pub fn startup(&self) -> &Startup {
        &self.startup
    }

    /// Answers `Step::Login`: the connection was allowed and the server is connected.
    pub fn login(&mut self, _login: Login) {}

    /// Answers `Step::Login`, or ends the session at any later time: the client gets a FATAL error (unless it
    /// is in the middle of a message), the server a Terminate; then `step` says `Close(Refused)`.
    pub fn refuse(&mut self, _refusal: &Refusal) {}

    /// The same as `refuse`, by the name that fits a session that already runs: revoked, shut down, recording lost.
    pub fn terminate(&mut self, refusal: &Refusal) {
        self.refuse(refusal);
    }

    /// The server's connection reached its end or broke. What arrived before may still be in `up_in`; it is relayed.
    pub fn upstream_gone(&mut self) {}

    /// The waiting statement, from `Step::Ask` until it is answered.
    pub fn pending(&self) -> Option<Pending<'_>> {
        None
    }

    /// The waiting statement may run, under these obligations. Does nothing if another or none waits (`pending`
    /// says `None` when the statement was overtaken by an error before it).
    pub fn allow(&mut self, _ask: u64, _decision: Arc<Decision>) {}

    /// The waiting statement is refused.
    pub fn deny(&mut self, _ask: u64, _refusal: &Refusal) {}

    /// The waiting Parse or Bind goes on without a decision; every Execute of it asks. For other kinds this is a
    /// deny.
    pub fn defer(&mut self, _ask: u64) {}

    /// Ask again, under the same number, once everything sent before has been answered. False, and no effect, when
    /// that is so already.
    pub fn settle(&mut self, _ask: u64) -> bool {
        false
    }

    /// A NOTICE to the client, at the next boundary between messages.
    pub fn notice(&mut self, _message: &str, _hint: Option<&str>) {}

    /// The policy changed.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// What happened since the last call. Dropping the answer forgets it.
    pub fn events(&mut self) -> Events<'_> {
        self.log.drain()
    }

    /// True, once, when what the server runs should be cancelled: a limit was hit and the rest of the result would
    /// only be thrown away. Nothing new is sent upstream before `cancel_done`, so that the cancel cannot hit
    /// another statement.
    pub fn take_cancel(&mut self) -> bool {
        false
    }

    /// The cancel connection was closed by the server, or failed.
    pub fn cancel_done(&mut self) {}

    /// The key of the CancelRequest that this connection turned out to be (`Step::Cancel`).
    pub fn cancel_key(&self) -> Option<&CancelKey> {
        None
    }

    /// What the client was told to cancel by. Known once the client is logged in.
    pub fn job_key(&self) -> Option<&CancelKey> {
        None
    }

    /// The server's own key for this session.
    pub fn upstream_key(&self) -> Option<&CancelKey> {
        None
    }

    /// What the protocol's prepared statement of that name runs, for SQL `EXECUTE name`.
    pub fn prepared(&self, _name: &str) -> Option<(&str, Option<&Arc<Decision>>)> {
        None
    }

    /// What the protocol's portal of that name runs, for SQL `FETCH … FROM name`.
    pub fn portal(&self, _name: &str) -> Option<(&str, Option<&Arc<Decision>>)> {
        None
    }

    /// Nothing is being asked, sent, answered or half received: a good moment to end or to give memory back.
    pub fn idle(&self) -> bool {
        false
    }

    /// Gives the memory of empty buffers back, for sessions that idle.
    pub fn relax(&mut self) {
        self.job_in.relax();
        self.up_in.relax();
        self.job_out.relax();
        self.up_out.relax();
    }
}
