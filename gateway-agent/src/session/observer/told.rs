//! What is only told besides: metrics, and audit lines that nothing hangs on.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use policy::Planned;

use super::Observer;
use crate::{
    audit::{AuditEvent, Kind, Value},
    session::side::{Blocked, Blocker},
    telemetry::{Direction, FlowResult, Phase},
};

impl Observer {
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
}
