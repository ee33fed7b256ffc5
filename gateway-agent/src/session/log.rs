//! What a session leaves behind whose actions run side by side: its recording, audit lines, metrics.
//!
//! Channels of SSH and requests of HTTP share the one of their connection. Whatever cannot be written down ends the session: what it tells of
//! has then not reached the other side.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use policy::{Effect, Recording, ResourceKind, Verdict};
use record::{Event as Recorded, Header, List, Params};
use tokio::sync::Mutex;

use super::{
    Shared,
    observer::{Approval, Lost},
    registry::Live,
};
use crate::{
    audit::{
        AuditEvent, Context, Durability, Facts, Kind, RecordingLost, Scope, SessionRecorder, Value, unix_ns,
    },
    state::{SessionRow, Write},
    telemetry::{Direction, FlowResult, Phase, Verdict as VerdictLabel},
};

/// Records one session.
pub(super) struct Log {
    shared: Arc<Shared>,
    live: Arc<Live>,
    protocol: ResourceKind,
    context: RefCell<Context>,
    recorder: Mutex<Option<SessionRecorder>>,
    began: Instant,
    /// Something waits to be handed over.
    dirty: Cell<bool>,
    /// Actions that were allowed and have not ended.
    running: Cell<u64>,
    /// The session that this one is inside of.
    outer: Option<Arc<str>>,
}

/// An allowed action that has not ended.
pub(super) struct Running {
    log: Rc<Log>,
    pub(super) n: u64,
    facts: Facts,
    began: Instant,
    pub(super) level: Recording,
}

/// How an action ended.
pub(super) struct Ended<'a> {
    /// In a word or two: `exit 0`, `signal TERM`.
    pub(super) tag: &'a str,
    /// Bytes of data from and to the job.
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Findings that were hidden.
    pub(super) masked: u64,
}

/// An action in words, for people, recordings and audit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'a> {
    /// `exec`, `shell`, `request`, …
    pub(super) kind: &'a str,
    pub(super) text: &'a str,
}

impl Log {
    /// How long a batched record may wait.
    pub(super) const FLUSH_AFTER: Duration = Duration::from_millis(100);

    /// `outer`: the session that this one is inside of.
    pub(super) fn new(
        shared: &Arc<Shared>,
        live: Arc<Live>,
        protocol: ResourceKind,
        outer: Option<Arc<str>>,
    ) -> Self {
        shared.metrics.sessions.inc();
        Self {
            context: RefCell::new(context(&live, None)),
            shared: Arc::clone(shared),
            live,
            protocol,
            recorder: Mutex::new(None),
            began: Instant::now(),
            dirty: Cell::new(false),
            running: Cell::new(0),
            outer,
        }
    }

    /// What became of the flow.
    pub(super) fn flow(&self, result: FlowResult) {
        self.shared.metrics.flow(result).inc();
    }

    pub(super) fn took(&self, phase: Phase, took: Duration) {
        self.shared.metrics.observe(phase, took);
    }

    pub(super) fn since_began(&self) -> Duration {
        self.began.elapsed()
    }

    /// Data that moved.
    pub(super) fn moved(&self, from_job: u64, to_job: u64) {
        self.shared.metrics.transferred(Direction::FromJob).inc_by(from_job);
        self.shared.metrics.transferred(Direction::ToJob).inc_by(to_job);
        self.live.bytes_in.fetch_add(from_job, Ordering::Relaxed);
        self.live.bytes_out.fetch_add(to_job, Ordering::Relaxed);
    }

    /// The server side failed; the operator reads why.
    pub(super) fn upstream_failed(&self, why: &str) {
        tracing::warn!(session = %self.live.id, resource = %self.live.resource(), why, "upstream cannot be used");
    }

    /// The decision about the connection; on an allow the recording begins.
    pub(super) async fn connect(
        &self,
        user: &str,
        client: &str,
        verdict: &Verdict,
        approval: Option<&Approval>,
        took: Duration,
    ) -> Result<(), Lost> {
        *self.context.borrow_mut() = context(&self.live, Some(user));
        let (word, reason, level) = told(verdict);
        self.shared.metrics.decided(label(word), &verdict.rules);
        let facts = Facts::verdict(word, &verdict.rules, reason);
        let kind = if word == "allow" { Kind::SessionOpened } else { Kind::Decision };
        let mut extra = vec![("client", Value::Text(client))];
        extra.extend(approval.map(|approval| ("approval", Value::Text(&approval.id))));
        extra.extend(self.outer.as_ref().map(|outer| ("inside", Value::Text(outer))));
        self.line(AuditEvent { facts: Some(&facts), latency: Some(took), extra: &extra, ..blank(kind) })?;
        if word != "allow" {
            return Ok(());
        }
        self.store(Some(user), None);
        match level {
            Recording::None => Ok(()),
            _ => self.record(user, client).await,
        }
    }

    /// A connection that is not decided itself begins, and so does its recording.
    pub(super) async fn opened(&self, user: &str, client: &str) -> Result<(), Lost> {
        *self.context.borrow_mut() = context(&self.live, Some(user));
        let extra = [("client", Value::Text(client))];
        self.line(AuditEvent { extra: &extra, ..blank(Kind::SessionOpened) })?;
        self.store(Some(user), None);
        self.record(user, client).await
    }

    async fn record(&self, user: &str, client: &str) -> Result<(), Lost> {
        match self.shared.recorder.open(self.header(user, client)).await {
            Ok(recorder) => *self.recorder.lock().await = Some(recorder),
            Err(error) if self.shared.config.recording.required => return Err(error.into()),
            Err(error) => tracing::error!(session = %self.live.id, %error, "session is not recorded"),
        }
        Ok(())
    }

    /// An action was refused.
    pub(super) async fn denied(
        &self,
        said: Said<'_>,
        rules: &[Arc<str>],
        reason: &str,
        took: Duration,
    ) -> Result<(), Lost> {
        self.shared.metrics.decided(VerdictLabel::Deny, rules);
        let n = self.next_number();
        self.append(&Recorded::Statement {
            n,
            sql: said.text.into(),
            params: Params::None,
            verdict: record::Verdict::Deny,
            rules: List::Shared(rules),
            approval: None,
        })
        .await?;
        let facts = self.facts(said, "deny", rules, &[], Some(reason));
        self.line(AuditEvent { facts: Some(&facts), latency: Some(took), ..blank(Kind::Decision) })
    }

    /// Something was allowed that has no end of its own: a terminal, a variable, a signal.
    pub(super) fn granted(&self, said: Said<'_>, rules: &[Arc<str>], took: Duration) -> Result<(), Lost> {
        self.shared.metrics.decided(VerdictLabel::Allow, rules);
        let facts = self.facts(said, "allow", rules, &[], None);
        self.line(AuditEvent { facts: Some(&facts), latency: Some(took), ..blank(Kind::Decision) })
    }

    /// An action was allowed and is about to begin: it is in the audit log and in its recording when this returns.
    pub(super) async fn allowed(
        self: &Rc<Self>,
        said: Said<'_>,
        rules: &[Arc<str>],
        masks: &[Arc<str>],
        approval: Option<&Approval>,
        level: Recording,
        took: Duration,
    ) -> Result<Running, Lost> {
        self.shared.metrics.decided(VerdictLabel::Allow, rules);
        let n = self.next_number();
        let facts = self.facts(said, "allow", rules, masks, None);
        let mut extra = vec![("n", Value::Number(n))];
        extra.extend(approval.map(|approval| ("approval", Value::Text(&approval.id))));
        self.line(AuditEvent {
            facts: Some(&facts),
            latency: Some(took),
            extra: &extra,
            ..blank(Kind::Decision)
        })?;
        if level != Recording::None {
            self.append(&Recorded::Statement {
                n,
                sql: said.text.into(),
                params: Params::None,
                verdict: if approval.is_some() { record::Verdict::Approved } else { record::Verdict::Allow },
                rules: List::Shared(rules),
                approval: approval.map(|approval| (&*approval.id).into()),
            })
            .await?;
            self.settle().await?;
        }
        self.running.set(self.running.get() + 1);
        Ok(Running { log: Rc::clone(self), n, facts, began: Instant::now(), level })
    }

    /// An action waits for a human, or was answered.
    pub(super) async fn approval(&self, id: &Arc<str>, outcome: &str, by: &[String]) -> Result<(), Lost> {
        // The action that waits comes next, unless another channel's does.
        let n = self.live.statements.load(Ordering::Relaxed) + 1;
        self.append(&Recorded::Approval {
            n,
            id: (&**id).into(),
            outcome: outcome.into(),
            by: List::Owned(by.to_vec()),
        })
        .await?;
        let kind = if outcome == "asked" { Kind::ApprovalAsked } else { Kind::ApprovalAnswered };
        let by = by.join(", ");
        let extra =
            [("approval", Value::Text(id)), ("outcome", Value::Text(outcome)), ("by", Value::Text(&by))];
        self.line(AuditEvent { extra: &extra, ..blank(kind) })
    }

    /// Something was ended because of a limit.
    pub(super) fn limit_exceeded(&self, limit: &'static str, rule: &str, why: &str) -> Result<(), Lost> {
        self.shared.metrics.limit_exceeded(limit, "end");
        let extra =
            [("limit", Value::Text(limit)), ("rule", Value::Text(rule)), ("reason", Value::Text(why))];
        self.line(AuditEvent { extra: &extra, ..blank(Kind::LimitExceeded) })
    }

    /// Records an event, and waits while the disk cannot keep up.
    pub(super) async fn append(&self, event: &Recorded<'_>) -> Result<(), Lost> {
        let mut held = self.recorder.lock().await;
        let Some(recorder) = held.as_mut() else { return Ok(()) };
        let mut kept = recorder.append(self.now(), event);
        if kept.is_ok() && recorder.congested() {
            kept = recorder.relieved().await;
        }
        self.dirty.set(recorder.pending());
        self.kept(&mut held, kept)
    }

    /// There is a recording.
    pub(super) async fn records(&self) -> bool {
        self.recorder.lock().await.is_some()
    }

    /// With `durability: each`: waits until it is on disk.
    async fn settle(&self) -> Result<(), Lost> {
        if self.shared.recorder.durability() != Durability::Each {
            return Ok(());
        }
        let mut held = self.recorder.lock().await;
        let Some(recorder) = held.as_mut() else { return Ok(()) };
        let kept = recorder.sync().await;
        self.kept(&mut held, kept)
    }

    /// Hands batched records over; call it every [`FLUSH_AFTER`](Self::FLUSH_AFTER).
    pub(super) async fn flush(&self) -> Result<(), Lost> {
        if !self.dirty.get() {
            return Ok(());
        }
        let mut held = self.recorder.lock().await;
        let Some(recorder) = held.as_mut() else { return Ok(()) };
        let kept = recorder.tick(self.now());
        self.dirty.set(recorder.pending());
        self.kept(&mut held, kept)
    }

    /// Recording is lost: nothing more is expected of it.
    pub(super) async fn give_up(&self) {
        *self.recorder.lock().await = None;
        self.told_that_it_is_lost();
    }

    /// The session is over.
    pub(super) async fn closed(&self, reason: &str) {
        if let Some(recorder) = self.recorder.lock().await.take() {
            recorder.close(self.now(), reason);
        }
        if self.live.login.get().is_some() {
            self.store(None, Some(reason));
        }
        let extra = [
            ("reason", Value::Text(reason)),
            ("statements", Value::Number(self.live.statements.load(Ordering::Relaxed))),
            ("unfinished", Value::Number(self.running.get())),
        ];
        // The session is over, whether this can be written or not; the writer's own log says so.
        let _ = self.line(AuditEvent { extra: &extra, ..blank(Kind::SessionClosed) });
        tracing::debug!(session = %self.live.id, reason, "session closed");
    }

    fn told_that_it_is_lost(&self) {
        // As above: what follows is the session's end.
        let _ = self.line(blank(Kind::RecordingLost));
    }

    /// Where recording is not required, its loss ends the recording and nothing else.
    fn kept(&self, held: &mut Option<SessionRecorder>, kept: Result<(), RecordingLost>) -> Result<(), Lost> {
        match kept {
            Ok(()) => Ok(()),
            Err(error) if self.shared.config.recording.required => Err(error.into()),
            Err(error) => {
                tracing::error!(session = %self.live.id, %error, "the rest of the session is not recorded");
                *held = None;
                self.told_that_it_is_lost();
                Ok(())
            }
        }
    }

    fn line(&self, event: AuditEvent<'_>) -> Result<(), Lost> {
        let context = self.context.borrow();
        Ok(self.shared.audit.log(&AuditEvent { context: Some(&context), ..event })?)
    }

    fn facts(
        &self,
        said: Said<'_>,
        verdict: &str,
        rules: &[Arc<str>],
        masks: &[Arc<str>],
        reason: Option<&str>,
    ) -> Facts {
        let kind = format!("{}_{}", self.protocol, said.kind);
        Facts::statement(verdict, rules, &kind, Some(said.text), false, masks, reason)
    }

    fn next_number(&self) -> u64 {
        self.live.statements.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Keeps the session in the state for `sessions` after a restart.
    fn store(&self, user: Option<&str>, end: Option<&str>) {
        let live = &self.live;
        let user = user.map(str::to_owned).or_else(|| live.login.get().map(|login| login.1.clone()));
        let row = SessionRow {
            id: Arc::clone(&live.id),
            job: live.job,
            subject: Arc::clone(&live.subject),
            resource: live.resource(),
            database: user.unwrap_or_default(),
            pid: live.pid,
            uid: live.uid,
            started: live.started,
            ended: end.map(|_| crate::clock::now()),
            end_reason: end.map(str::to_owned),
        };
        if let Err(error) = self.shared.state.write(Write::Session(row)) {
            tracing::warn!(%error, session = %live.id, "session not kept in the state");
        }
    }

    fn header(&self, user: &str, client: &str) -> Header {
        let live = &self.live;
        Header {
            session: live.id.to_string(),
            started_unix_ns: unix_ns(),
            subject: live.subject.to_string(),
            job: live.job.to_string(),
            resource: live.resource().to_string(),
            protocol: self.protocol.to_string(),
            process: process(live),
            destination: live.upstream.to_string(),
            user: Some(user.to_owned()),
            policy: self.shared.policy.load().policy.version().to_string(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            extra: std::iter::once(("client".to_owned(), client.to_owned()))
                .chain(self.outer.as_ref().map(|outer| ("inside".to_owned(), outer.to_string())))
                .collect(),
            ..Header::default()
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.metrics.sessions.dec();
    }
}

impl Running {
    /// The action is over.
    pub(super) async fn ended(&self, ended: &Ended<'_>) -> Result<(), Lost> {
        let took = self.began.elapsed();
        let log = &self.log;
        log.took(Phase::Statement, took);
        log.shared.metrics.masked_cells.inc_by(ended.masked);
        if self.level != Recording::None {
            log.append(&Recorded::Finished {
                n: self.n,
                tag: ended.tag.into(),
                rows: 0,
                bytes: ended.bytes_out,
                sqlstate: None,
                micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                masked: ended.masked,
            })
            .await?;
        }
        let extra = [
            ("n", Value::Number(self.n)),
            ("bytes_in", Value::Number(ended.bytes_in)),
            ("bytes", Value::Number(ended.bytes_out)),
            ("masked", Value::Number(ended.masked)),
            ("outcome", Value::Text(ended.tag)),
        ];
        let context = log.context.borrow();
        log.shared.audit.log_ended(&AuditEvent {
            context: Some(&context),
            facts: Some(&self.facts),
            latency: Some(took),
            extra: &extra,
            ..AuditEvent::new(unix_ns(), Kind::Completed)
        })?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.log.running.set(self.log.running.get().saturating_sub(1));
    }
}

fn blank(kind: Kind) -> AuditEvent<'static> {
    AuditEvent::new(unix_ns(), kind)
}

/// The word for a verdict, why, and what of it is recorded.
fn told(verdict: &Verdict) -> (&'static str, Option<&str>, Recording) {
    match &verdict.effect {
        Effect::Allow(allow) => ("allow", None, allow.obligations.record),
        Effect::Approve(_) => ("approve", None, Recording::None),
        Effect::Deny(denial) => ("deny", Some(denial.reason.as_str()), Recording::None),
    }
}

fn label(word: &str) -> VerdictLabel {
    match word {
        "allow" => VerdictLabel::Allow,
        "approve" => VerdictLabel::Approve,
        _ => VerdictLabel::Deny,
    }
}

fn context(live: &Live, user: Option<&str>) -> Context {
    Context::new(&Scope {
        session: Some(&live.id),
        subject: Some(&live.subject),
        job: Some(&live.job.to_string()),
        process: Some(&process(live)),
        resource: Some(&live.resource()),
        destination: Some(&live.upstream.to_string()),
        database: None,
        user,
    })
}

fn process(live: &Live) -> record::Process {
    record::Process { pid: live.pid, uid: live.uid, command: live.command.clone() }
}
