//! What a session leaves behind: its recording, audit lines, metrics.

mod statements;
mod told;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use policy::{Effect, Named, Recording, Resource, ResourceKind, Verdict};
use protocol::postgres::Startup;
use record::{Event as Recorded, Header};

use super::{Shared, registry::Live, scope::About};
use crate::{
    audit::{
        AuditEvent, AuditLost, Context, Facts, Kind, RecordingLost, Scope, SessionRecorder, Value, unix_ns,
    },
    state::{SessionRow, Write},
    telemetry::Verdict as VerdictLabel,
};

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
