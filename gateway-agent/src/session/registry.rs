//! Every live session, so that policy changes, job ends and operators reach it.
//!
//! A session is registered before its first decision: a change that happens in between finds it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use policy::UnixTime;
use protocol::postgres::CancelKey;
use tokio::sync::mpsc;

use crate::audit::unix_ns;

/// Told to one session.
#[derive(Debug, Clone)]
pub enum Command {
    /// Policy changed: look again at everything that was decided.
    Redecide,
    /// End now; the text is shown to the client.
    End(Arc<str>),
    /// Cancel what runs upstream.
    Cancel,
}

/// A live session as operators see it.
#[derive(Debug)]
pub struct Live {
    pub id: Arc<str>,
    pub job: u64,
    pub cgroup: String,
    pub subject: Arc<str>,
    pub(crate) resource: RwLock<Arc<str>>,
    pub client: SocketAddr,
    /// Where the job meant to connect to, which is where the gateway connects to.
    pub upstream: SocketAddr,
    /// User that the job's identity is bound to.
    pub job_uid: u32,
    pub pid: u32,
    pub uid: u32,
    pub command: String,
    pub started: UnixTime,
    /// Database and user, as the client named them.
    pub login: OnceLock<(String, String)>,
    pub state: AtomicState,
    pub statements: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    /// Process id of the session's backend on the server; 0 before login.
    pub backend: AtomicU32,
    /// People who look on.
    pub watchers: Watchers,
}

/// What a job is shown, for whoever looks on.
#[derive(Debug, Clone)]
pub struct Shown {
    pub channel: u64,
    /// Standard error, rather than output or a terminal.
    pub error: bool,
    pub data: Bytes,
}

/// Pieces that wait for one who looks on; who is slower is left behind, never the session.
const PIECES: usize = 256;

/// People who look on while a session runs.
#[derive(Debug, Default)]
pub struct Watchers(Mutex<Vec<mpsc::Sender<Shown>>>);

impl Watchers {
    /// What is shown from now on; it ends with the session, or when it is not read fast enough.
    pub fn join(&self) -> mpsc::Receiver<Shown> {
        let (sender, receiver) = mpsc::channel(PIECES);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    pub(crate) fn tell(&self, shown: impl FnOnce() -> Shown) {
        let mut watching = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !watching.is_empty() {
            let shown = shown();
            watching.retain(|one| one.try_send(shown.clone()).is_ok());
        }
    }
}

impl Live {
    /// The resource at the destination; which of several is known once the client names its database.
    pub fn resource(&self) -> Arc<str> {
        Arc::clone(&self.resource.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A session inside of this one, to another resource.
    pub fn inside(&self, resource: &Arc<str>, upstream: SocketAddr) -> Self {
        Self {
            id: session_id(),
            job: self.job,
            cgroup: self.cgroup.clone(),
            subject: Arc::clone(&self.subject),
            resource: RwLock::new(Arc::clone(resource)),
            client: self.client,
            upstream,
            job_uid: self.job_uid,
            pid: self.pid,
            uid: self.uid,
            command: self.command.clone(),
            started: crate::clock::now(),
            login: OnceLock::new(),
            state: AtomicState::new(State::Login),
            statements: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            backend: AtomicU32::new(0),
            watchers: Watchers::default(),
        }
    }

    pub fn set_resource(&self, resource: &Arc<str>) {
        *self.resource.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(resource);
    }
}

/// Sorts by time, and nobody guesses it: 48 bits of milliseconds, 80 of randomness.
pub(crate) fn session_id() -> Arc<str> {
    let mut random = [0; 10];
    // Without randomness the id is merely guessable; it opens nothing.
    let _ = aws_lc_rs::rand::fill(&mut random);
    format!("{:012x}{}", unix_ns() / 1_000_000, hex::encode(random)).into()
}

/// What a session does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Login,
    Idle,
    Active,
    AwaitingApproval,
}

#[derive(Debug)]
pub struct AtomicState(AtomicU8);

impl AtomicState {
    pub const fn new(state: State) -> Self {
        Self(AtomicU8::new(state as u8))
    }

    pub fn set(&self, state: State) {
        self.0.store(state as u8, Ordering::Relaxed);
    }

    pub fn as_str(&self) -> &'static str {
        match self.0.load(Ordering::Relaxed) {
            0 => "login",
            1 => "idle",
            2 => "active",
            _ => "waiting for approval",
        }
    }
}

struct Entry {
    live: Arc<Live>,
    commands: mpsc::UnboundedSender<Command>,
    cancel_key: Option<CancelKey>,
}

#[derive(Default)]
struct Book {
    sessions: HashMap<u64, Entry>,
    per_job: HashMap<u64, usize>,
    next: u64,
}

/// All live sessions.
#[derive(Default)]
pub struct Registry {
    book: Mutex<Book>,
}

/// A place in the registry; given up when dropped.
pub struct Registration {
    registry: Arc<Registry>,
    key: u64,
    pub live: Arc<Live>,
    pub commands: mpsc::UnboundedReceiver<Command>,
}

/// Why a session may not start.
#[derive(Debug, thiserror::Error)]
pub enum Full {
    #[error("the gateway already serves its limit of {0} sessions")]
    Total(u32),
    #[error("this job already has its limit of {0} sessions")]
    Job(u32),
}

impl Registry {
    /// Registers a session, within the limits.
    ///
    /// # Errors
    /// Fails when the total or the job's share is used up.
    pub fn register(
        self: &Arc<Self>,
        live: Live,
        max_total: u32,
        max_per_job: u32,
    ) -> Result<Registration, Full> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let live = Arc::new(live);
        let mut book = self.lock();
        if book.sessions.len() >= max_total as usize {
            return Err(Full::Total(max_total));
        }
        let in_job = book.per_job.entry(live.job).or_default();
        if *in_job >= max_per_job as usize {
            return Err(Full::Job(max_per_job));
        }
        *in_job += 1;
        let key = book.next;
        book.next += 1;
        book.sessions.insert(key, Entry { live: Arc::clone(&live), commands, cancel_key: None });
        drop(book);
        Ok(Registration { registry: Arc::clone(self), key, live, commands: receiver })
    }

    pub fn list(&self) -> Vec<Arc<Live>> {
        let mut list: Vec<_> = self.lock().sessions.values().map(|e| Arc::clone(&e.live)).collect();
        list.sort_by(|a, b| (a.started, &a.id).cmp(&(b.started, &b.id)));
        list
    }

    pub fn len(&self) -> usize {
        self.lock().sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The session whose backend on that server has this process id.
    pub fn of_backend(&self, server: SocketAddr, pid: u32) -> Option<Arc<Live>> {
        let is = |live: &Live| live.upstream == server && live.backend.load(Ordering::Relaxed) == pid;
        self.lock().sessions.values().find(|e| is(&e.live)).map(|e| Arc::clone(&e.live))
    }

    /// How many sessions a job has.
    pub fn of_job(&self, job: u64) -> usize {
        self.lock().per_job.get(&job).copied().unwrap_or_default()
    }

    /// Tells every session that policy changed.
    pub fn redecide(&self) {
        self.tell(|_| true, &Command::Redecide);
    }

    /// Ends every session of a job; returns how many.
    pub fn end_job(&self, job: u64, why: &str) -> usize {
        self.tell(|e| e.live.job == job, &Command::End(why.into()))
    }

    /// Ends one session; false when there is none of that id.
    pub fn end(&self, id: &str, why: &str) -> bool {
        self.tell(|e| &*e.live.id == id, &Command::End(why.into())) > 0
    }

    /// A live session.
    pub fn find(&self, id: &str) -> Option<Arc<Live>> {
        self.lock().sessions.values().find(|e| &*e.live.id == id).map(|e| Arc::clone(&e.live))
    }

    /// Ends all sessions.
    pub fn end_all(&self, why: &str) -> usize {
        self.tell(|_| true, &Command::End(why.into()))
    }

    /// Cancels the session that was given this key, when it belongs to the same job.
    pub fn cancel(&self, job: u64, key: &CancelKey) -> bool {
        let matches = |e: &Entry| e.live.job == job && e.cancel_key.as_ref().is_some_and(|k| k.matches(key));
        self.tell(matches, &Command::Cancel) > 0
    }

    fn tell(&self, which: impl Fn(&Entry) -> bool, command: &Command) -> usize {
        self.lock()
            .sessions
            .values()
            .filter(|e| which(e))
            // A session whose receiver is gone is ending by itself.
            .filter(|e| e.commands.send(command.clone()).is_ok())
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// Makes the session known under a cancel key.
    pub fn set_cancel_key(&self, key: CancelKey) {
        if let Some(entry) = self.registry.lock().sessions.get_mut(&self.key) {
            entry.cancel_key = Some(key);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut book = self.registry.lock();
        book.sessions.remove(&self.key);
        if let Some(count) = book.per_job.get_mut(&self.live.job) {
            *count -= 1;
            if *count == 0 {
                book.per_job.remove(&self.live.job);
            }
        }
    }
}
