//! The policy in force: read, put in force, followed.

use std::{
    collections::HashSet,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use policy::{Policy, Source};

use super::{Agent, kernel_destinations};
use crate::{
    audit::{AuditEvent, Kind, Value, unix_ns},
    files,
    kernel::Kernel,
    kubeconfig::kubeconfig,
    session::{InForce, Shared},
    ssh::known_hosts,
    upstream::Addresses,
};

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(1);
/// How often it is looked whether a resource's name is due, when none is.
const IDLE: Duration = Duration::from_secs(5);
/// Names that are due at about the same time are resolved together.
const TOGETHER: Duration = Duration::from_millis(200);

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
            let in_use = self.in_use();
            let resolving = Addresses::resolve(&policy, &previous.addresses, &self.names, &in_use);
            tokio::runtime::Handle::current().block_on(resolving)
        });
        let refused = |error| vec![format!("the kernel does not take the new destinations: {error}")];
        let prepared =
            Kernel::prepare(&kernel_destinations(&self.shared.config, &addresses)).map_err(refused)?;
        let speak_for = |policy: &Policy| {
            let config = &self.shared.config;
            let spoken = self.shared.tls.speak_for(policy, &config.trust_files());
            spoken
                .map_err(|error| vec![format!("the local authority cannot be bounded to its names: {error}")])
        };
        speak_for(&policy)?;
        // The gateway first: whatever the kernel sends, by the old set or the new one, finds the resource that
        // the new policy has for it, or none because that policy has none.
        self.shared.policy.store(Arc::new(InForce { policy, addresses }));
        if let Err(error) = self.kernel.commit(&prepared) {
            speak_for(&previous.policy)?;
            self.shared.policy.store(previous);
            return Err(refused(error));
        }
        self.shared.tls.forget();
        publish_known_hosts(&self.shared);
        publish_kubeconfig(&self.shared);
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

    /// Follows the addresses behind names, as long as their records say.
    pub(super) async fn watch_names(self: Arc<Self>) {
        loop {
            let current = self.shared.policy.load_full();
            let Some(due) = current.addresses.refresh_at() else {
                tokio::time::sleep(IDLE).await;
                continue;
            };
            let wait = due.saturating_duration_since(Instant::now()).min(IDLE);
            tokio::time::sleep(wait + TOGETHER).await;
            let current = self.shared.policy.load_full();
            if current.addresses.refresh_at().is_none_or(|due| due > Instant::now()) {
                continue;
            }
            let addresses =
                Addresses::resolve(&current.policy, &current.addresses, &self.names, &self.in_use()).await;
            self.follow_names(&current, addresses);
        }
    }

    fn follow_names(&self, current: &Arc<InForce>, addresses: Addresses) {
        let _reloading = self.reloading.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A reload that came in between wins: what it put in force is not to be replaced by the policy before it.
        if !Arc::ptr_eq(current, &self.shared.policy.load_full()) {
            return;
        }
        let changed = addresses.differ(&current.addresses);
        let prepared =
            changed.then(|| Kernel::prepare(&kernel_destinations(&self.shared.config, &addresses)));
        let followed = prepared.transpose().and_then(|prepared| {
            // The gateway first, as at a reload.
            self.shared.policy.store(Arc::new(InForce { policy: Arc::clone(&current.policy), addresses }));
            prepared.map_or(Ok(()), |prepared| self.kernel.commit(&prepared))
        });
        match followed {
            Ok(()) if changed => tracing::info!("the addresses behind resource names changed"),
            Ok(()) => {}
            Err(error) => {
                self.shared.policy.store(Arc::clone(current));
                tracing::error!(%error, "the kernel does not take the resolved addresses");
            }
        }
    }

    /// Addresses that sessions are open to.
    fn in_use(&self) -> HashSet<IpAddr> {
        self.shared.registry.list().iter().map(|live| live.upstream.ip()).collect()
    }
}

/// Writes the files by which SSH clients of jobs know the gateway. Jobs that `exec` makes from now on have them.
pub(super) fn publish_known_hosts(shared: &Shared) {
    let (hosts, authorities) = (shared.config.known_hosts(), shared.config.known_authorities());
    let written = known_hosts(&shared.ssh, &shared.policy.load().policy)
        .map_err(|error| error.to_string())
        .and_then(|known| {
            let put = |path, text: &str| {
                files::put(path, text.as_bytes(), 0o644).map_err(|error| error.to_string())
            };
            put(&hosts, &known.hosts)?;
            put(&authorities, &known.authority)
        });
    if let Err(error) = written {
        tracing::error!(error, path = %hosts.display(), "SSH clients of new jobs will not know the gateway");
    }
}

/// Writes the file by which Kubernetes clients of jobs know the clusters, or removes it when there are none.
pub(super) fn publish_kubeconfig(shared: &Shared) {
    let path = shared.config.kubeconfig();
    let written = match kubeconfig(&shared.policy.load().policy, &shared.config.ca_file()) {
        Some(text) => files::put(&path, text.as_bytes(), 0o644).map_err(|error| error.to_string()),
        None => match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        },
    };
    if let Err(error) = written {
        tracing::error!(error, path = %path.display(), "Kubernetes clients of new jobs will not know the clusters");
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
