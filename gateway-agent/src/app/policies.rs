//! The policy in force: read, put in force, followed.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use policy::{Policy, Source};

use super::{Agent, kernel_destinations};
use crate::{
    audit::{AuditEvent, Kind, Value, unix_ns},
    session::InForce,
    upstream::Addresses,
};

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(1);
/// How often names of resources are resolved again.
const RESOLVE: Duration = Duration::from_secs(30);

/// Reads the policy files.
///
/// # Errors
/// Returns what is wrong, as text for the operator: `file:line: …` and a hint each.
pub fn load(files: &[PathBuf]) -> Result<Policy, Vec<String>> {
    let mut sources = Vec::with_capacity(files.len());
    let mut problems = Vec::new();
    for file in files {
        match std::fs::read_to_string(file) {
            Ok(text) => sources.push(Source { name: file.display().to_string(), text }),
            Err(error) => problems.push(format!(
                "{}: {error}\n  hint: policy.files in the agent's configuration names this file",
                file.display()
            )),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Policy::load(&sources).map_err(|diagnostics| diagnostics.iter().map(ToString::to_string).collect())
}

/// Reloads are one at a time.
#[derive(Default)]
pub struct Reloading(Mutex<Vec<Stamp>>);

/// What tells that a file changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    inode: u64,
    size: u64,
}

impl Agent {
    /// Reads the policy again and puts it in force for new and live sessions. A bad policy changes nothing.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn reload(self: &Arc<Self>) -> Result<String, Vec<String>> {
        let mut seen = self.reloading.0.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = stamps(&self.shared.config.policy.files);
        let loaded = load(&self.shared.config.policy.files).and_then(|policy| self.put_in_force(policy));
        drop(seen);
        match &loaded {
            Ok(version) => {
                tracing::info!(version, "policy in force");
                self.shared.metrics.policy_loaded(version, SystemTime::now());
                let extra = [("version", Value::Text(version))];
                self.log(&AuditEvent { extra: &extra, ..AuditEvent::new(unix_ns(), Kind::PolicyLoaded) });
            }
            Err(problems) => {
                let text = problems.join("\n");
                tracing::error!("policy refused, the old one stays in force:\n{text}");
                self.shared.metrics.policy_refused();
                let extra = [("problems", Value::Text(&text))];
                self.log(&AuditEvent { extra: &extra, ..AuditEvent::new(unix_ns(), Kind::PolicyRefused) });
            }
        }
        loaded
    }

    fn put_in_force(self: &Arc<Self>, policy: Policy) -> Result<String, Vec<String>> {
        let policy = Arc::new(policy);
        let version = policy.version().to_string();
        let previous = self.shared.policy.load_full();
        let addresses = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(Addresses::resolve(&policy, &previous.addresses))
        });
        // The kernel first: a destination that is new to the kernel is refused until then, one that is old is
        // refused by the sessions below.
        self.kernel
            .replace_destinations(&kernel_destinations(&self.shared.config, &addresses))
            .map_err(|error| vec![format!("the kernel does not take the new destinations: {error}")])?;
        self.shared.policy.store(Arc::new(InForce { policy, addresses }));
        self.shared.tls.forget();
        self.shared.approvals.policy_changed(&version);
        self.enrolments.policy_changed();
        self.shared.registry.redecide();
        Ok(version)
    }

    /// Follows the policy files.
    pub(super) async fn watch_policy(self: Arc<Self>) {
        let files = self.shared.config.policy.files.clone();
        *self.reloading.0.lock().unwrap_or_else(PoisonError::into_inner) = stamps(&files);
        let mut ticks = tokio::time::interval(POLL);
        loop {
            ticks.tick().await;
            let changed = {
                let seen = self.reloading.0.lock().unwrap_or_else(PoisonError::into_inner);
                *seen != stamps(&files)
            };
            if changed {
                // Reported where it happens.
                let _ = self.reload();
            }
        }
    }

    /// Follows the addresses behind names.
    pub(super) async fn watch_names(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(RESOLVE);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let current = self.shared.policy.load_full();
            if !current.addresses.has_names() {
                continue;
            }
            let addresses = Addresses::resolve(&current.policy, &current.addresses).await;
            match self.kernel.replace_destinations(&kernel_destinations(&self.shared.config, &addresses)) {
                Ok(()) => {
                    let next = Arc::new(InForce { policy: Arc::clone(&current.policy), addresses });
                    // A reload that came in between wins.
                    self.shared.policy.compare_and_swap(&current, next);
                }
                Err(error) => tracing::error!(%error, "the kernel does not take the resolved addresses"),
            }
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    use std::os::unix::fs::MetadataExt;
    files
        .iter()
        .map(|file| match std::fs::metadata(file) {
            Ok(meta) => Stamp { modified: meta.modified().ok(), inode: meta.ino(), size: meta.len() },
            Err(_) => Stamp { modified: None, inode: 0, size: 0 },
        })
        .collect()
}
