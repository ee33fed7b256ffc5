//! Following jobs into their network namespaces.
//!
//! A job in a container has a loopback of its own, where nobody listens. The gateway finds the namespaces of a
//! job's processes when it is enrolled and whenever the kernel refuses one of them for an unknown namespace, puts
//! its sockets in there, and takes them out again when nobody of the job lives there any more.
//!
//! Only namespaces of the host's own user namespace are followed: what a job made for itself stays unknown, and an
//! unknown namespace is a deny.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::{
    audit::{AuditEvent, Context, Kind, Scope, Value, unix_ns},
    identity::{Cgroups, Peer},
    intercept::Intercept,
    kernel::{Kernel, NotFollowed},
    session::Shared,
};

/// Namespaces that one job may have followed at once.
const PER_JOB: usize = 16;
/// Processes of one job that are looked at.
const PROCESSES: usize = 20_000;
/// Refused namespaces that are remembered, so that each is told once.
const REFUSED: usize = 4096;
/// A namespace is left when this many sweeps in a row found nobody in it.
const UNSEEN: u32 = 2;

/// Why a process could not be followed.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the process is gone, or not the job's any more")]
    Gone,
    #[error("reading the process: {0}")]
    Process(#[from] io::Error),
    #[error("the job has {PER_JOB} network namespaces; that is the limit")]
    Full,
    #[error(transparent)]
    Namespace(#[from] NotFollowed),
}

/// Sockets in a namespace that was just followed.
pub(super) struct Arrival {
    pub(super) intercept: Intercept,
    /// Resolves when the namespace is left: drop the sockets.
    pub(super) left: oneshot::Receiver<()>,
}

pub(super) struct Namespaces {
    kernel: Arc<Kernel>,
    shared: Arc<Shared>,
    cgroups: Cgroups,
    /// Inode of the agent's own.
    own: u64,
    runtime: Handle,
    arrivals: mpsc::UnboundedSender<Arrival>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    jobs: HashMap<u64, PathBuf>,
    /// By inode, which is the namespace's while the sockets hold it.
    followed: HashMap<u64, Followed>,
    /// Job and inode.
    refused: HashSet<(u64, u64)>,
}

struct Followed {
    cookie: u64,
    /// Whose process led there.
    job: u64,
    unseen: u32,
    _left: oneshot::Sender<()>,
}

impl Namespaces {
    /// Call it on the runtime that will serve the sockets, in the gateway's own network namespace.
    pub(super) fn new(
        kernel: Arc<Kernel>,
        shared: Arc<Shared>,
        cgroups: Cgroups,
    ) -> io::Result<(Self, mpsc::UnboundedReceiver<Arrival>)> {
        let (arrivals, arrive) = mpsc::unbounded_channel();
        let own = std::fs::metadata("/proc/thread-self/ns/net")?.ino();
        let runtime = Handle::current();
        let state = Mutex::default();
        Ok((Self { kernel, shared, cgroups, own, runtime, arrivals, state }, arrive))
    }

    /// A job is confined: wherever its processes are now, they are served. What cannot be followed stays refused.
    pub(super) fn enrolled(&self, job: u64, dir: &Path) {
        self.state().jobs.insert(job, dir.to_owned());
        for pid in self.cgroups.processes(dir, PROCESSES) {
            self.visit(job, dir, pid);
        }
    }

    /// The kernel refused a process of a job because of its network namespace. Its next attempt may work.
    pub(super) fn refused(&self, job: u64, pid: Option<i32>) {
        let Some(dir) = self.state().jobs.get(&job).cloned() else { return };
        match pid {
            Some(pid) => self.visit(job, &dir, pid),
            // A packet's hook knows no process.
            None => self.enrolled(job, &dir),
        }
    }

    /// The kernel no longer confines the job.
    pub(super) fn forget(&self, job: u64) {
        self.state().jobs.remove(&job);
    }

    /// How many namespaces besides its own the gateway serves.
    pub(super) fn len(&self) -> usize {
        self.state().followed.len()
    }

    /// Leaves namespaces where no process of a job lives. It reads /proc.
    pub(super) fn sweep(&self) {
        let mut state = self.state();
        if state.followed.is_empty() {
            return;
        }
        let mut inhabited = HashSet::new();
        for dir in state.jobs.values() {
            let pids = self.cgroups.processes(dir, PROCESSES);
            let inode = |pid| Some(std::fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino());
            inhabited.extend(pids.into_iter().filter_map(inode));
        }
        let mut over = Vec::new();
        for (inode, followed) in &mut state.followed {
            followed.unseen = if inhabited.contains(inode) { 0 } else { followed.unseen + 1 };
            if followed.unseen >= UNSEEN {
                over.push(*inode);
            }
        }
        for inode in over {
            let Some(followed) = state.followed.remove(&inode) else { continue };
            match self.kernel.leave(followed.cookie) {
                Ok(()) => self.log(Kind::NamespaceLeft, followed.job, inode, None),
                Err(error) => tracing::error!(%error, inode, "a network namespace could not be left"),
            }
        }
    }

    /// Follows one process, unless its namespace is known.
    fn visit(&self, job: u64, dir: &Path, pid: i32) {
        let mut seen = None;
        match self.follow(job, dir, pid, &mut seen) {
            Ok(()) | Err(Lost::Gone) => {}
            Err(why) => {
                let inode = seen.unwrap_or_default();
                let mut state = self.state();
                if state.refused.len() >= REFUSED {
                    state.refused.clear();
                }
                let first = state.refused.insert((job, inode));
                drop(state);
                if first {
                    tracing::warn!(job, pid, inode, %why, "the job stays refused in this network namespace");
                    self.log(Kind::NamespaceRefused, job, inode, Some(&why.to_string()));
                }
            }
        }
    }

    fn follow(&self, job: u64, dir: &Path, pid: i32, seen: &mut Option<u64>) -> Result<(), Lost> {
        let Ok(peer) = Peer::process(pid) else { return Err(Lost::Gone) };
        let (netns, inode) = match open(pid) {
            Ok(found) => found,
            Err(_) if !peer.still_there() => return Err(Lost::Gone),
            // It has ended and nobody has asked how: its namespace is not its own any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Lost::Gone),
            Err(error) => return Err(error.into()),
        };
        *seen = Some(inode);
        // Held while a namespace is entered: two processes of it may come at once.
        let mut state = self.state();
        if inode == self.own || state.followed.contains_key(&inode) {
            return Ok(());
        }
        // Where the process is now is asked after its namespace was opened, and whether it still is that process
        // after that: nobody else's namespace is followed for the job.
        let place = self.cgroups.locate(&peer).map_err(|_| Lost::Gone)?;
        if !place.dir.starts_with(dir) {
            return Err(Lost::Gone);
        }
        if state.followed.values().filter(|followed| followed.job == job).count() >= PER_JOB {
            return Err(Lost::Full);
        }
        let (cookie, intercept) = {
            let _here = self.runtime.enter();
            Intercept::follow(&self.kernel, &netns)?
        };
        let (here, left) = oneshot::channel();
        // Nobody serves any more: the agent ends, and its sockets with it.
        let _ = self.arrivals.send(Arrival { intercept, left });
        state.followed.insert(inode, Followed { cookie, job, unseen: 0, _left: here });
        state.refused.remove(&(job, inode));
        drop(state);
        tracing::info!(job, pid, inode, "the gateway listens in one more network namespace");
        self.log(Kind::NamespaceFollowed, job, inode, None);
        Ok(())
    }

    fn log(&self, kind: Kind, job: u64, inode: u64, reason: Option<&str>) {
        let context = Context::new(&Scope { job: Some(&job.to_string()), ..Scope::default() });
        let extra = [("netns", Value::Number(inode)), ("reason", Value::Text(reason.unwrap_or_default()))];
        let extra = if reason.is_some() { &extra[..] } else { &extra[..1] };
        let event = AuditEvent { context: Some(&context), extra, ..AuditEvent::new(unix_ns(), kind) };
        if let Err(error) = self.shared.audit.log(&event) {
            tracing::error!(%error, event = kind.as_str(), "audit event lost");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process's network namespace, and its inode.
fn open(pid: i32) -> io::Result<(File, u64)> {
    let file = File::open(format!("/proc/{pid}/ns/net"))?;
    let inode = file.metadata()?.ino();
    Ok((file, inode))
}
