//! Looking after the kernel programs: the self-test at start, and the watchdog over every job.

use std::{
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::Agent;
use crate::{
    audit::{AuditEvent, Context, Kind, Scope, Value, unix_ns},
    config::Config,
    kernel::{self, Helper, Kernel, Mode, Probe, Verdict},
};

/// How often every job's cgroup is looked at.
const ROUND: Duration = Duration::from_secs(5);

/// What the guard knows.
#[derive(Debug, Default)]
pub struct Guard {
    self_test: Mutex<Vec<Probe>>,
    /// Seconds since 1970 of the last complete round; 0 before the first.
    last_round: AtomicU64,
    /// Cgroups in which drift was found, since the start.
    pub(super) drifted: Arc<AtomicU64>,
}

impl Guard {
    pub(super) fn self_test(&self) -> Vec<Probe> {
        self.self_test.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn last_round(&self) -> Option<u64> {
        Some(self.last_round.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }
}

/// Starts the job side of the self-test, which waits until it is needed.
pub(super) fn helper() -> Result<Helper> {
    Helper::start(Command::new("/proc/self/exe").arg("self-test-helper")).context("the self-test's helper")
}

impl Agent {
    /// Proves that refusals are refusals, before any job is served.
    pub(super) async fn prove(&self, helper: Helper) -> Result<()> {
        let kernel = Arc::clone(&self.kernel);
        let closed = loopback_is_closed(&self.shared.config);
        let tested = tokio::task::spawn_blocking(move || kernel.self_test(helper, closed)).await?;
        let observing = self.kernel.config().mode == Mode::Observe;
        let probes = match tested {
            Ok(probes) => probes,
            Err(error) if observing => {
                tracing::warn!(%error, "the self-test shows that jobs are not confined, as kernel.mode: observe has it");
                return Ok(());
            }
            Err(error) => return Err(error).context("the kernel programs do not refuse what they should"),
        };
        let of = |verdict| {
            let paths = probes.iter().filter(move |probe| probe.verdict() == verdict);
            paths.map(|probe| probe.path.as_str()).collect::<Vec<_>>()
        };
        let (refused, open) = (of(Verdict::Refused), of(Verdict::Open));
        if !observing && (!open.is_empty() || refused.is_empty()) {
            bail!(
                "the kernel programs do not refuse what they should: {} was let through; is the attach root {} where \
                 jobs live, and does another BPF program interfere? `gateway-agent status` names the hooks",
                if open.is_empty() { "everything".to_owned() } else { open.join(", ") },
                self.kernel.config().cgroup_root.display()
            );
        }
        tracing::info!(refused = refused.len(), absent = ?of(Verdict::Absent), "self-test passed");
        *self.guard.self_test.lock().unwrap_or_else(PoisonError::into_inner) = probes;
        Ok(())
    }

    /// Looks at every job now and then. A job on whose cgroup something is wrong is refused everything until it
    /// ends: what happened before it was seen cannot be told.
    pub(super) async fn watch_hooks(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(ROUND);
        loop {
            ticks.tick().await;
            let agent = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || agent.round()).await.is_err() {
                tracing::error!("watching the hooks failed");
            }
        }
    }

    fn round(&self) {
        let expected = match self.kernel.expected() {
            Ok(expected) => expected,
            Err(error) => return tracing::error!(%error, "the hooks of jobs cannot be looked at"),
        };
        for job in self.enrolments.all() {
            let drift = match expected.inspect(&job.cgroup) {
                Ok(drift) => drift,
                // It ends just now; the sweep sees to it.
                Err(_) if !self.enrolments.cgroups().exists(job.cgroup_id, &job.cgroup) => continue,
                Err(error) => {
                    tracing::error!(%error, job = job.cgroup_id, "the job's hooks cannot be looked at");
                    continue;
                }
            };
            if !drift.is_empty() {
                let why: Vec<String> = drift.iter().map(ToString::to_string).collect();
                self.alarm(job.cgroup_id, &why.join("; "));
            }
        }
        self.guard.last_round.store(crate::clock::now().0, Ordering::Relaxed);
    }

    fn alarm(&self, job: u64, why: &str) {
        let observing = self.kernel.config().mode == Mode::Observe;
        match self.kernel.quarantine(job, true) {
            // Said already.
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => tracing::error!(%error, job, "the job could not be put in quarantine"),
        }
        self.guard.drifted.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            job,
            why,
            observing,
            "hooks of a job are not what they should be: it is refused everything"
        );
        let context = Context::new(&Scope { job: Some(&job.to_string()), ..Scope::default() });
        let extra = [("reason", Value::Text(why))];
        self.log(&AuditEvent {
            context: Some(&context),
            extra: &extra,
            ..AuditEvent::new(unix_ns(), Kind::HookDrift)
        });
    }
}

/// Whether a new cgroup may become a job.
pub(super) fn sound(kernel: &Kernel, cgroup: &std::path::Path) -> Result<(), String> {
    let drift = kernel.inspect(cgroup).map_err(|error| error.to_string())?;
    match drift.first() {
        Some(drift) if kernel.config().mode == Mode::Enforce => Err(drift.to_string()),
        _ => Ok(()),
    }
}

/// Ends what a new job opened before it was one. Its packets are judged in any case, so nothing hangs on it.
pub(super) fn end_old_sockets(job: u64, cgroup: &std::path::Path) {
    match kernel::destroy_sockets(cgroup) {
        Ok(ended) if ended.unsupported.is_empty() => {
            tracing::info!(job, sockets = ended.sockets, "sockets from before enrolment ended");
        }
        Ok(ended) => tracing::warn!(
            job,
            sockets = ended.sockets,
            unsupported = ?ended.unsupported,
            "not every socket from before enrolment could be ended; they carry no packets"
        ),
        Err(error) => {
            tracing::warn!(%error, job, "sockets from before enrolment were not ended; they carry no packets");
        }
    }
}

/// Unless an exception opens loopback to any port: then the self-test's own listener would be reachable.
fn loopback_is_closed(config: &Config) -> bool {
    !config.kernel.allow.iter().any(|open| open.port == 0 && open.net.addr().is_loopback())
}
