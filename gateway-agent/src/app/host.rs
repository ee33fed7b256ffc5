//! What enrolment and the control API need of the running agent.

use std::{
    path::Path,
    sync::{Arc, OnceLock, Weak, atomic::Ordering},
};

use policy::Denial;

use super::{Agent, guard, namespaces::Namespaces};
use crate::{
    admin::{Backend, MetricsSource, Observation, api},
    audit::{AuditEvent, Context, Kind, Scope, Value, unix_ns},
    identity::{Host, Job, JobEnd},
    kernel::{self, HookStatus, Kernel, Mode, Reason},
    session::Shared,
};

/// Enrolment's view of the agent. It exists before the agent is whole.
pub struct EnrolmentHost {
    pub shared: Arc<Shared>,
    pub kernel: Arc<Kernel>,
    /// `None`: jobs in other network namespaces stay refused.
    pub(super) namespaces: Option<Arc<Namespaces>>,
}

impl Host for EnrolmentHost {
    fn subject(&self, issuer: &str, claims: &serde_json::Value) -> Result<Arc<str>, Denial> {
        Ok(Arc::clone(&self.shared.policy.load().policy.subject(issuer, claims)?.name))
    }

    fn confine(&self, cgroup_id: u64, dir: &Path) -> Result<(), String> {
        // Deeper than the programs look, it would be confined in name only.
        let text = |error: kernel::Error| error.to_string();
        self.kernel.job_cgroup(dir).map_err(text)?;
        let new = self.kernel.add_job(cgroup_id).map_err(text)?;
        if new && let Err(why) = guard::sound(&self.kernel, dir) {
            self.kernel.remove_job(cgroup_id).map_err(text)?;
            return Err(why);
        }
        if let Some(namespaces) = &self.namespaces {
            namespaces.enrolled(cgroup_id, dir);
        }
        if new {
            guard::end_old_sockets(cgroup_id, dir);
        }
        Ok(())
    }

    fn forget(&self, cgroup_id: u64) {
        if let Some(namespaces) = &self.namespaces {
            namespaces.forget(cgroup_id);
        }
        if let Err(error) = self.kernel.remove_job(cgroup_id) {
            tracing::error!(%error, job = cgroup_id, "the kernel keeps confining a cgroup that is gone");
        }
    }

    fn ended(&self, job: &Job, why: JobEnd) {
        let word = match why {
            JobEnd::CgroupGone => "the job has ended",
            JobEnd::TokenExpired => "the job's token has expired",
            JobEnd::Released => "the job was released",
            JobEnd::NoSubject => "policy no longer names this job",
        };
        let sessions = self.shared.registry.end_job(job.cgroup_id, word);
        self.shared.approvals.job_ended(job.cgroup_id);
        self.shared.budgets.forget(job.cgroup_id);
        self.shared.roles.ended(job.cgroup_id);
        tracing::info!(job = job.cgroup_id, subject = %job.subject, why = word, sessions, "job ended");
        log_job(&self.shared, Kind::JobReleased, job, &[("reason", Value::Text(word))]);
    }
}

impl Backend for Agent {
    fn status(&self) -> api::Status {
        let shared = &self.shared;
        let kernel = self.kernel.status();
        let ready = self.ready();
        api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started.0,
            ready: ready.is_ok(),
            sandbox: if shared.config.sandbox { "on" } else { "off by configuration" }.to_owned(),
            not_ready: ready.err(),
            policy_version: shared.policy.load().policy.version().to_string(),
            policy_files: shared.config.policy.files.iter().map(|f| f.display().to_string()).collect(),
            cgroup_root: self.enrolments.cgroups().root().display().to_string(),
            virtual_port: shared.config.kernel.virtual_port,
            mode: shared.config.kernel.mode,
            hooks: kernel.iter().flat_map(|k| &k.hooks).map(hook).collect(),
            self_test: self.guard.self_test(),
            hooks_checked: self.guard.last_round(),
            quarantined: self.kernel.quarantined().unwrap_or_default(),
            heartbeat_ms: kernel
                .as_ref()
                .ok()
                .and_then(|k| k.heartbeat_age)
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            namespaces: self.namespaces.as_ref().map(|namespaces| namespaces.len()),
            jobs: self.enrolments.all().len(),
            sessions: shared.registry.len(),
            approvals_waiting: shared.approvals.waiting(),
            events_dropped: self.counter(Reason::EventLost),
        }
    }

    fn sessions(&self) -> Vec<api::Session> {
        self.shared
            .registry
            .list()
            .into_iter()
            .map(|live| {
                let (database, user) = live.login.get().cloned().unwrap_or_default();
                api::Session {
                    id: Arc::clone(&live.id),
                    subject: Arc::clone(&live.subject),
                    job: live.job,
                    cgroup: live.cgroup.clone(),
                    resource: live.resource(),
                    database,
                    user,
                    client: live.client.to_string(),
                    upstream: live.upstream.to_string(),
                    pid: live.pid,
                    command: live.command.clone(),
                    started: live.started,
                    state: live.state.as_str().to_owned(),
                    statements: live.statements.load(Ordering::Relaxed),
                    bytes_in: live.bytes_in.load(Ordering::Relaxed),
                    bytes_out: live.bytes_out.load(Ordering::Relaxed),
                }
            })
            .collect()
    }

    fn watch_session(
        &self,
        id: &str,
    ) -> Option<tokio::sync::mpsc::Receiver<crate::session::registry::Shown>> {
        self.shared.registry.find(id).map(|live| live.watchers.join())
    }

    fn kill_session(&self, id: &str, reason: &str) -> bool {
        let why = match reason {
            "" => "ended by an operator".to_owned(),
            reason => format!("ended by an operator: {reason}"),
        };
        self.shared.registry.end(id, &why)
    }

    fn reload_policy(&self) -> Result<String, Vec<String>> {
        match self.myself.get().and_then(Weak::upgrade) {
            Some(agent) => agent.reload(),
            None => Err(vec!["the agent is starting".to_owned()]),
        }
    }

    fn observe(&self, what: &Observation<'_>) {
        let metrics = &self.shared.metrics;
        match what {
            Observation::Enrolled(job) => {
                metrics.enrolment("enrolled");
                tracing::info!(job = job.cgroup_id, subject = %job.subject, "job enrolled");
                let sub = [("issuer", Value::Text(&job.issuer)), ("sub", Value::Text(&job.sub))];
                log_job(&self.shared, Kind::JobEnrolled, job, &sub);
            }
            Observation::EnrolRefused { pid, uid, cgroup, code, message } => {
                metrics.enrolment(code);
                tracing::warn!(pid, uid, code, message, "enrolment refused");
                let extra = [
                    ("pid", Value::Number(u64::try_from(*pid).unwrap_or_default())),
                    ("uid", Value::Number(u64::from(*uid))),
                    ("cgroup", Value::Text(cgroup.as_deref().unwrap_or_default())),
                    ("code", Value::Text(code)),
                    ("reason", Value::Text(message)),
                ];
                self.log(&AuditEvent { extra: &extra, ..AuditEvent::new(unix_ns(), Kind::EnrolmentRefused) });
            }
            Observation::ControlRefused { pid, uid, path, inside_job } => {
                tracing::warn!(pid, uid, path, inside_job, "control call refused");
                let extra = [
                    ("pid", Value::Number(u64::try_from(*pid).unwrap_or_default())),
                    ("uid", Value::Number(u64::from(*uid))),
                    ("path", Value::Text(path)),
                ];
                self.log(&AuditEvent { extra: &extra, ..AuditEvent::new(unix_ns(), Kind::ControlRefused) });
                metrics.control_refused.inc();
            }
            Observation::Answered { approval, uid, approve, reason, error } => {
                tracing::info!(approval, uid, approve, error, "approval answered");
                let extra = [
                    ("approval", Value::Text(approval)),
                    ("uid", Value::Number(u64::from(*uid))),
                    ("approve", Value::Bool(*approve)),
                    ("reason", Value::Text(reason)),
                    ("error", Value::Text(error.as_deref().unwrap_or_default())),
                ];
                self.log(&AuditEvent { extra: &extra, ..AuditEvent::new(unix_ns(), Kind::ApprovalVoted) });
            }
            Observation::SessionKilled { id, uid, reason } => {
                tracing::info!(id, uid, reason, "session ended by an operator");
                let extra = [
                    ("session", Value::Text(id)),
                    ("uid", Value::Number(u64::from(*uid))),
                    ("reason", Value::Text(reason)),
                ];
                self.log(&AuditEvent { extra: &extra, ..AuditEvent::new(unix_ns(), Kind::SessionKilled) });
            }
            Observation::SessionWatched { id, uid } => {
                let extra = [("session", Value::Text(id)), ("uid", Value::Number(u64::from(*uid)))];
                self.log(&AuditEvent { extra: &extra, ..AuditEvent::new(unix_ns(), Kind::SessionWatched) });
            }
            Observation::JobReleased { cgroup_id, uid } => tracing::info!(cgroup_id, uid, "job released"),
            // Logged where it happens.
            Observation::PolicyReload { .. } => {}
        }
    }
}

impl MetricsSource for Agent {
    fn metrics(&self) -> String {
        let shared = &self.shared;
        let metrics = &shared.metrics;
        metrics.approvals_waiting.set(i64::try_from(shared.approvals.waiting()).unwrap_or(i64::MAX));
        metrics.jobs.set(i64::try_from(self.enrolments.all().len()).unwrap_or(i64::MAX));
        metrics.render()
    }

    fn ready(&self) -> Result<(), String> {
        Agent::ready(self)
    }
}

impl Agent {
    pub(super) fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("shutting down".to_owned());
        }
        let status = self.kernel.status().map_err(|error| error.to_string())?;
        let off: Vec<_> = status.hooks.iter().filter(|h| h.is_missing()).map(|h| h.hook.name()).collect();
        if !off.is_empty() && status.mode == Mode::Enforce {
            return Err(format!("kernel hooks are off: {}", off.join(", ")));
        }
        Ok(())
    }

    fn counter(&self, reason: Reason) -> u64 {
        let counters = self.kernel.counters().unwrap_or_default();
        counters.into_iter().find(|(r, _)| *r == reason).map_or(0, |(_, count)| count)
    }

    /// Writes an audit line about no session. Losing it stops nothing by itself: every session's own lines fail
    /// then too, and they refuse.
    pub(super) fn log(&self, event: &AuditEvent<'_>) {
        if let Err(error) = self.shared.audit.log(event) {
            tracing::error!(%error, event = event.kind.as_str(), "audit event lost");
        }
    }
}

fn hook(hook: &HookStatus) -> api::Hook {
    api::Hook {
        name: hook.hook.name().to_owned(),
        on: hook.program.is_ok(),
        mandatory: !hook.about.optional,
        since: hook.about.since.to_owned(),
        without: hook.about.without.to_owned(),
        detail: match &hook.program {
            Ok(id) => format!("program {id}"),
            Err(why) => why.clone(),
        },
    }
}

fn log_job(shared: &Shared, kind: Kind, job: &Job, extra: &[(&'static str, Value<'_>)]) {
    let context = Context::new(&Scope {
        subject: Some(&job.subject),
        job: Some(&job.cgroup_id.to_string()),
        ..Scope::default()
    });
    let container = job.container();
    let mut extra = extra.to_vec();
    if let Some(container) = &container {
        extra.push(("engine", Value::Text(container.engine.as_str())));
        extra.push(("container", Value::Text(&container.id)));
    }
    let extra = extra.as_slice();
    let event = AuditEvent { context: Some(&context), extra, ..AuditEvent::new(unix_ns(), kind) };
    if let Err(error) = shared.audit.log(&event) {
        tracing::error!(%error, event = kind.as_str(), "audit event lost");
    }
}

/// Set once the agent is whole.
pub(super) type Myself = OnceLock<Weak<Agent>>;
