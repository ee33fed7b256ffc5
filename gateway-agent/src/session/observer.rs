//! What a session leaves behind: its recording, audit lines, metrics.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use policy::{Effect, Named, Planned, Recording, Resource, ResourceKind, Verdict};
use protocol::postgres::{Event, Outcome, Refusal, Startup};
use record::{Event as Recorded, Header, List, Params as RecordedParams};

use super::{
    Shared,
    registry::Live,
    scope::About,
    side::{Blocked, Blocker},
};
use crate::audit::{
    AuditEvent, AuditLost, Context, Durability, Facts, Kind, RecordingLost, Scope, SessionRecorder, Value,
    statement_hash, unix_ns,
};
use crate::state::{SessionRow, Write};
use crate::telemetry::{Direction, FlowResult, Phase, Verdict as VerdictLabel};

/// Rows are handed to the recording in runs of about this many bytes.
const ROWS: usize = 16 * 1024;

/// A human's agreement.
#[derive(Debug, Clone)]
pub struct Approval {
    pub id: Arc<str>,
    pub by: Vec<String>,
}

/// What had to be written down could not be.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error(transparent)]
    Recording(#[from] RecordingLost),
    #[error(transparent)]
    Audit(#[from] AuditLost),
}

/// Records one session.
pub struct Observer {
    shared: Arc<Shared>,
    live: Arc<Live>,
    context: Context,
    protocol: ResourceKind,
    recorder: Option<SessionRecorder>,
    began: Instant,
    /// Statements between their start and their end, oldest first.
    running: VecDeque<Running>,
    rows: Vec<u8>,
    /// Texts behind names that SQL gave.
    defined: HashMap<Named, String>,
    /// Changes of the catalogue that a transaction may still hold back.
    uncommitted_ddl: bool,
    /// Records that are not on disk and have to be before anything is sent.
    unsettled: bool,
    given_up: bool,
}

/// The statement that the server is at.
#[derive(Clone, Copy)]
pub struct Front<'a> {
    pub run: u64,
    pub n: u64,
    /// When it was sent.
    pub began: Instant,
    /// Nothing was sent behind it.
    pub alone: bool,
    pub decision: &'a Arc<protocol::postgres::Decision>,
}

struct Running {
    run: u64,
    /// Number of the statement in the recording.
    n: u64,
    about: Arc<About>,
    began: Instant,
    /// Text, where the statement gives it a name.
    defines: Option<String>,
    decision: Arc<protocol::postgres::Decision>,
    /// Where the decision does not know it.
    hash: Option<blake3::Hash>,
}

impl Observer {
    /// How long a batched record may wait.
    pub const FLUSH_AFTER: Duration = Duration::from_millis(100);

    pub fn new(shared: &Arc<Shared>, live: Arc<Live>, resource: &Resource) -> Self {
        let protocol = resource.kind();
        shared.metrics.sessions.inc();
        Self {
            context: context(&live, None),
            shared: Arc::clone(shared),
            live,
            protocol,
            recorder: None,
            began: Instant::now(),
            running: VecDeque::new(),
            rows: Vec::new(),
            defined: HashMap::new(),
            uncommitted_ddl: false,
            unsettled: false,
            given_up: false,
        }
    }

    /// The decision about the connection; on an allow the recording begins.
    pub async fn connect(
        &mut self,
        startup: &Startup,
        verdict: &Verdict,
        approval: Option<&Approval>,
        took: Duration,
    ) -> Result<(), Lost> {
        self.context = context(&self.live, Some(startup));
        let (word, reason, record) = match &verdict.effect {
            Effect::Allow(allow) => ("allow", None, allow.obligations.record),
            Effect::Approve(_) => ("approve", None, Recording::None),
            Effect::Deny(denial) => ("deny", Some(denial.reason.as_str()), Recording::None),
        };
        self.shared.metrics.decided(verdict_label(word), &verdict.rules);
        let facts = Facts::verdict(word, &verdict.rules, reason);
        let kind = if word == "allow" { Kind::SessionOpened } else { Kind::Decision };
        let approved = approval.map(|a| ("approval", Value::Text(&a.id)));
        self.shared.audit.log(&AuditEvent {
            facts: Some(&facts),
            latency: Some(took),
            extra: approved.as_slice(),
            ..self.line(kind)
        })?;
        if word != "allow" {
            return Ok(());
        }
        self.store(Some(startup), None);
        if record == Recording::None {
            return Ok(());
        }
        match self.shared.recorder.open(self.header(startup)).await {
            Ok(recorder) => self.recorder = Some(recorder),
            Err(error) if self.shared.config.recording.required => return Err(error.into()),
            Err(error) => {
                tracing::error!(session = %self.live.id, %error, "session is not recorded");
            }
        }
        Ok(())
    }

    /// What became of the flow.
    pub fn flow(&self, result: FlowResult) {
        self.shared.metrics.flow(result).inc();
    }

    /// Bytes that moved since the last call.
    pub fn transferred(&self, from_job: u64, to_job: u64) {
        self.shared.metrics.transferred(Direction::FromJob).inc_by(from_job);
        self.shared.metrics.transferred(Direction::ToJob).inc_by(to_job);
    }

    pub fn logged_in(&self) {
        self.flow(FlowResult::Opened);
        self.shared.metrics.observe(Phase::Login, self.began.elapsed());
    }

    pub fn connected(&self, took: Duration) {
        self.shared.metrics.observe(Phase::Connect, took);
    }

    pub fn analysed(&self, took: Duration) {
        self.shared.metrics.observe(Phase::Analyse, took);
    }

    pub fn approval_took(&self, took: Duration) {
        self.shared.metrics.observe(Phase::Approval, took);
    }

    /// The server side failed; the operator reads why.
    pub fn upstream_failed(&self, why: &str) {
        tracing::warn!(session = %self.live.id, resource = %self.live.resource(), why, "upstream cannot be used");
    }

    /// A statement was refused.
    ///
    /// # Errors
    /// Fails when the refusal cannot be written down.
    pub fn denied(
        &mut self,
        sql: &str,
        about: &About,
        refusal: &Refusal,
        took: Duration,
    ) -> Result<(), Lost> {
        about.decided.iter().for_each(|counter| counter.inc());
        let n = self.next_number();
        let now = self.now();
        if let Some(recorder) = &mut self.recorder {
            let statement = Recorded::Statement {
                n,
                sql: sql.into(),
                params: RecordedParams::None,
                verdict: record::Verdict::Deny,
                rules: List::Shared(&about.rules),
                approval: None,
            };
            let kept = recorder.append(now, &statement);
            self.kept(kept)?;
        }
        let facts = Facts::statement(
            "deny",
            &about.rules,
            &about.kinds.join(","),
            Some(sql),
            false,
            &[],
            Some(&refusal.message),
        );
        self.shared.audit.log(&AuditEvent {
            facts: Some(&facts),
            latency: Some(took),
            sqlstate: Some(refusal.sqlstate),
            ..self.line(Kind::Decision)
        })?;
        Ok(())
    }

    /// What the server expects the statements of a text to cost.
    pub fn estimated(&self, planned: &[Planned], took: Duration) {
        self.shared.metrics.observe(Phase::Estimate, took);
        let (mut cost, mut rows, mut unknown) = (0.0, 0, "");
        for planned in planned {
            match planned {
                Planned::Nothing => {}
                Planned::Estimate(of) => {
                    cost += of.cost;
                    rows = of.rows.max(rows);
                }
                Planned::Unknown(why) => unknown = why,
            }
        }
        let cost = format!("{cost:.2}");
        let n = self.live.statements.load(Ordering::Relaxed) + 1;
        let extra = [
            ("n", Value::Number(n)),
            ("cost", Value::Text(&cost)),
            ("rows", Value::Number(rows)),
            ("unknown", Value::Text(unknown)),
        ];
        let extra = extra.get(..if unknown.is_empty() { 3 } else { 4 }).unwrap_or_default();
        let line = AuditEvent { extra, latency: Some(took), ..self.line(Kind::Estimated) };
        self.note(&line);
    }

    /// A statement waits for a lock. `session`: of the blocker, where it is one of this gateway's.
    pub fn lock_wait(&self, n: u64, waited: Duration, blocked: &Blocked, session: Option<&str>) {
        self.shared.metrics.lock_wait(session.is_some());
        let by: Vec<Arc<str>> = blocked
            .by
            .iter()
            .map(|by| {
                let Blocker { pid, user, application, state } = by;
                format!("pid {pid}, user {user}, application {application}, {state}").into()
            })
            .collect();
        let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        let extra = [
            ("n", Value::Number(n)),
            ("waited_ms", Value::Number(waited)),
            ("lock", Value::Text(&blocked.lock)),
            ("blocked_by", Value::List(&by)),
            ("blocked_by_session", Value::Text(session.unwrap_or_default())),
        ];
        let extra = extra.get(..if session.is_some() { 5 } else { 4 }).unwrap_or_default();
        self.note(&AuditEvent { extra, ..self.line(Kind::LockWait) });
    }

    /// The wait is over, one way or another.
    pub fn lock_waited(&self, waited: Duration) {
        self.shared.metrics.observe(Phase::LockWait, waited);
    }

    /// A running statement is cancelled because of a limit.
    pub fn limit_exceeded(&self, n: u64, limit: &'static str, rule: &str, why: &str) {
        self.shared.metrics.limit_exceeded(limit, "cancel");
        let extra = [
            ("n", Value::Number(n)),
            ("limit", Value::Text(limit)),
            ("rule", Value::Text(rule)),
            ("reason", Value::Text(why)),
        ];
        self.note(&AuditEvent { extra: &extra, ..self.line(Kind::LimitExceeded) });
    }

    /// What is only told besides: the statement's own line fails where this does, and ends the session.
    fn note(&self, line: &AuditEvent<'_>) {
        if let Err(error) = self.shared.audit.log(line) {
            tracing::error!(%error, event = line.kind.as_str(), "audit event lost");
        }
    }

    /// What the server is at: run, number of the statement, its decision, whether anything is queued behind it.
    pub fn front(&self) -> Option<Front<'_>> {
        let of = self.running.front()?;
        Some(Front {
            run: of.run,
            n: of.n,
            began: of.began,
            alone: self.running.len() == 1,
            decision: &of.decision,
        })
    }

    /// A statement asked a human, or was answered.
    ///
    /// # Errors
    /// Fails when it cannot be written down; then nobody is asked, and no answer counts.
    pub fn approval(&mut self, id: &Arc<str>, outcome: &str, by: &[String]) -> Result<(), Lost> {
        // The statement that waits comes next.
        let n = self.live.statements.load(Ordering::Relaxed) + 1;
        let now = self.now();
        if let Some(recorder) = &mut self.recorder {
            let event = Recorded::Approval {
                n,
                id: (&**id).into(),
                outcome: outcome.into(),
                by: List::Owned(by.to_vec()),
            };
            let kept = recorder.append(now, &event);
            self.kept(kept)?;
        }
        let kind = if outcome == "asked" { Kind::ApprovalAsked } else { Kind::ApprovalAnswered };
        let by = by.join(", ");
        let extra =
            [("approval", Value::Text(id)), ("outcome", Value::Text(outcome)), ("by", Value::Text(&by))];
        self.shared.audit.log(&AuditEvent { extra: &extra, ..self.line(kind) })?;
        Ok(())
    }

    /// Something happened. True: what names mean has changed.
    ///
    /// # Errors
    /// Fails when it cannot be written down; then it must not reach the other side.
    pub fn event(&mut self, event: &Event<'_>) -> Result<bool, Lost> {
        match *event {
            Event::Started { run, decision, sql, params, .. } => {
                // Its audit line is written when it ends.
                self.shared.audit.ready()?;
                let at = Instant::now();
                let Some(about) = decision.context.clone().downcast::<About>().ok() else {
                    return Err(RecordingLost::Failed.into());
                };
                let n = self.next_number();
                let now = self.since_began(at);
                if let Some(recorder) = &mut self.recorder {
                    let values: Vec<_>;
                    let statement = Recorded::Statement {
                        n,
                        sql: sql.into(),
                        params: if params.is_empty() {
                            RecordedParams::None
                        } else {
                            values = params.iter().map(|p| p.value).collect();
                            RecordedParams::Shared(&values)
                        },
                        verdict: match about.approval {
                            Some(_) => record::Verdict::Approved,
                            None => record::Verdict::Allow,
                        },
                        rules: List::Shared(&about.rules),
                        approval: about.approval.as_ref().map(|a| (&*a.id).into()),
                    };
                    let kept = recorder.append(now, &statement);
                    self.kept(kept)?;
                    self.unsettled = self.shared.recorder.durability() == Durability::Each;
                }
                let defines = decision.statements.iter().any(|s| s.defines.is_some()).then(|| sql.to_owned());
                let hash = about.many_texts.then(|| statement_hash(sql));
                self.running.push_back(Running {
                    run,
                    n,
                    hash,
                    about,
                    began: at,
                    defines,
                    decision: Arc::clone(decision),
                });
                Ok(false)
            }
            Event::Finished { run, index, outcome, rows, bytes, masked } => {
                self.finished(run, index, outcome, rows, bytes, masked)
            }
            Event::Columns { run, columns, .. } => {
                let n = self.number(run);
                let names = columns.names().map(str::to_owned).collect();
                self.append(&Recorded::Columns { n, names: List::Owned(names) })?;
                Ok(false)
            }
            Event::Row { run, row, .. } => {
                record::text::push_row(&mut self.rows, row.cells());
                self.flush_rows(run, ROWS)?;
                Ok(false)
            }
            Event::Copy { run, data, .. } => {
                self.rows.extend_from_slice(data);
                self.flush_rows(run, ROWS)?;
                Ok(false)
            }
            Event::Refused { sqlstate, message } => {
                let facts = Facts::verdict("deny", &["builtin:protocol".into()], Some(message));
                self.shared.metrics.decided(VerdictLabel::Deny, &["builtin:protocol".into()]);
                self.shared.audit.log(&AuditEvent {
                    facts: Some(&facts),
                    sqlstate: Some(sqlstate),
                    ..self.line(Kind::Decision)
                })?;
                Ok(false)
            }
        }
    }

    fn finished(
        &mut self,
        run: u64,
        index: usize,
        outcome: Outcome<'_>,
        rows: u64,
        bytes: u64,
        masked: u64,
    ) -> Result<bool, Lost> {
        self.flush_rows(run, 0)?;
        while self.running.front().is_some_and(|r| r.run < run) {
            self.running.pop_front();
        }
        let Some(running) = self.running.front().filter(|r| r.run == run) else { return Ok(false) };
        let n = running.n;
        let about = Arc::clone(&running.about);
        let hash = running.hash;
        let at = Instant::now();
        let took = at.saturating_duration_since(running.began);
        let (tag, sqlstate) = match outcome {
            Outcome::Done { tag } => (tag, None),
            Outcome::Suspended => ("SUSPENDED", None),
            Outcome::Failed { sqlstate } => ("", Some(sqlstate)),
            Outcome::Skipped => ("SKIPPED", None),
            Outcome::Limited => ("LIMITED", None),
        };
        let done = matches!(outcome, Outcome::Done { .. });
        if done
            && let Some(sql) = &running.defines
            && let Some(name) = running.decision.statements.get(index).and_then(|s| s.defines.clone())
        {
            self.defined.insert(name, sql.clone());
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // A run is over with its last statement, or with the first that did not end well.
        let last = index + 1 >= running.decision.statements.len() && !running.decision.open;
        if !matches!(outcome, Outcome::Done { .. }) || last {
            self.running.pop_front();
        }
        let finished = Recorded::Finished {
            n,
            tag: tag.into(),
            rows,
            bytes,
            sqlstate: sqlstate.map(Into::into),
            micros,
            masked,
        };
        self.append_at(at, &finished)?;
        let metrics = &self.shared.metrics;
        about.decided.iter().for_each(|counter| counter.inc());
        metrics.masked_cells.inc_by(masked);
        metrics.observe(Phase::Statement, took);
        // At most one of them: who agreed, agreed to one text.
        let last = match (&about.approval, &hash) {
            (Some(approval), _) => Some(("approval", Value::Text(&approval.id))),
            (None, Some(hash)) => Some(("statement_hash", Value::Hash(hash))),
            (None, None) => None,
        };
        let extra = [
            ("rows", Value::Number(rows)),
            ("bytes", Value::Number(bytes)),
            ("masked", Value::Number(masked)),
            ("outcome", Value::Text(tag)),
            last.unwrap_or(("", Value::Bool(false))),
        ];
        let extra = extra.get(..if last.is_some() { 5 } else { 4 }).unwrap_or_default();
        self.shared.audit.log_ended(&AuditEvent {
            facts: Some(&about.facts),
            latency: Some(took),
            sqlstate,
            extra,
            ..self.line(Kind::Decision)
        })?;
        if !done {
            return Ok(false);
        }
        let changed = about.changes_catalogue || (self.uncommitted_ddl && tag == "COMMIT");
        self.uncommitted_ddl = about.changes_catalogue;
        Ok(changed)
    }

    /// The text that SQL gave this name to.
    pub fn defined(&self, name: &Named) -> Option<String> {
        self.defined.get(name).cloned()
    }

    /// Something waits for [`flush`](Self::flush).
    pub fn dirty(&self) -> bool {
        self.recorder.as_ref().is_some_and(SessionRecorder::pending)
    }

    /// Hands batched records over.
    ///
    /// # Errors
    /// Fails when recording has failed.
    pub fn flush(&mut self) -> Result<(), Lost> {
        let now = self.now();
        if let Some(recorder) = &mut self.recorder {
            let kept = recorder.tick(now);
            self.kept(kept)?;
        }
        Ok(())
    }

    /// Waits until what has to be on disk is, and until the disk has caught up with a large result.
    ///
    /// # Errors
    /// Fails when it cannot be.
    pub async fn settle(&mut self) -> Result<(), Lost> {
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        let kept = if std::mem::take(&mut self.unsettled) {
            recorder.sync().await
        } else if recorder.congested() {
            recorder.relieved().await
        } else {
            return Ok(());
        };
        self.kept(kept)
    }

    /// Recording is lost: nothing more is expected of it.
    pub fn give_up(&mut self) {
        self.given_up = true;
        self.recorder = None;
        let _ = self.shared.audit.log(&self.line(Kind::RecordingLost));
    }

    /// The session is over.
    pub async fn closed(&mut self, reason: &str) {
        let now = self.now();
        if let Some(recorder) = self.recorder.take() {
            recorder.close(now, reason);
        }
        if self.live.login.get().is_some() {
            self.store(None, Some(reason));
        }
        let extra = [
            ("reason", Value::Text(reason)),
            ("statements", Value::Number(self.live.statements.load(Ordering::Relaxed))),
            ("unfinished", Value::Number(self.running.len() as u64)),
        ];
        let _ = self.shared.audit.log(&AuditEvent { extra: &extra, ..self.line(Kind::SessionClosed) });
        tracing::debug!(session = %self.live.id, reason, "session closed");
    }

    fn next_number(&self) -> u64 {
        self.live.statements.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn number(&self, run: u64) -> u64 {
        self.running.iter().find(|r| r.run == run).map_or(0, |r| r.n)
    }

    fn append(&mut self, event: &Recorded<'_>) -> Result<(), Lost> {
        self.append_at(Instant::now(), event)
    }

    fn append_at(&mut self, at: Instant, event: &Recorded<'_>) -> Result<(), Lost> {
        let now = self.since_began(at);
        match &mut self.recorder {
            Some(recorder) => {
                let kept = recorder.append(now, event);
                self.kept(kept)
            }
            None => Ok(()),
        }
    }

    fn flush_rows(&mut self, run: u64, above: usize) -> Result<(), Lost> {
        if self.rows.len() <= above {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        let kept = self.append(&Recorded::Rows { n: self.number(run), data: rows.as_slice().into() });
        self.rows = rows;
        self.rows.clear();
        kept
    }

    /// Where recording is not required, its loss ends the recording and nothing else.
    fn kept(&mut self, kept: Result<(), RecordingLost>) -> Result<(), Lost> {
        match kept {
            Ok(()) => Ok(()),
            Err(error) if self.shared.config.recording.required => Err(error.into()),
            Err(error) => {
                tracing::error!(session = %self.live.id, %error, "the rest of the session is not recorded");
                self.give_up();
                Ok(())
            }
        }
    }

    /// Keeps the session in the state for `sessions` after a restart.
    fn store(&self, startup: Option<&Startup>, end: Option<&str>) {
        let live = &self.live;
        let database = startup.map(|s| s.database.clone()).or_else(|| live.login.get().map(|l| l.0.clone()));
        let row = SessionRow {
            id: Arc::clone(&live.id),
            job: live.job,
            subject: Arc::clone(&live.subject),
            resource: live.resource(),
            database: database.unwrap_or_default(),
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

    fn line(&self, kind: Kind) -> AuditEvent<'_> {
        AuditEvent { context: Some(&self.context), ..AuditEvent::new(unix_ns(), kind) }
    }

    fn now(&self) -> u64 {
        self.since_began(Instant::now())
    }

    fn since_began(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }

    fn header(&self, startup: &Startup) -> Header {
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
            database: Some(startup.database.clone()),
            user: Some(startup.user.clone()),
            policy: self.shared.policy.load().policy.version().to_string(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            ..Header::default()
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.shared.metrics.sessions.dec();
    }
}

fn verdict_label(word: &str) -> VerdictLabel {
    match word {
        "allow" => VerdictLabel::Allow,
        "approve" => VerdictLabel::Approve,
        _ => VerdictLabel::Deny,
    }
}

fn context(live: &Live, startup: Option<&Startup>) -> Context {
    Context::new(&Scope {
        session: Some(&live.id),
        subject: Some(&live.subject),
        job: Some(&live.job.to_string()),
        process: Some(&process(live)),
        resource: Some(&live.resource()),
        destination: Some(&live.upstream.to_string()),
        database: startup.map(|s| s.database.as_str()),
        user: startup.map(|s| s.user.as_str()),
    })
}

fn process(live: &Live) -> record::Process {
    record::Process { pid: live.pid, uid: live.uid, command: live.command.clone() }
}
