//! Recordings: sessions encode events on their own thread and hand them over in batches; one thread
//! compresses, chains, signs and writes them for all.
//!
//! ```text
//! session worker: SessionRecorder::append -> Batch --(64 KiB, 100 ms or close)--> bounded queue --> recorder thread: block -> file
//! ```
//!
//! A recording that was handed over survives the death of the agent; only [`Durability::Each`] makes it survive the
//! death of the host.

use std::{
    io,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
        },
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use record::{Batch, Event, Header, KeyError, PushError, Scribe, SigningKey};
use tokio::sync::{Notify, oneshot};

use super::Audit;

mod writer;

/// How long a record may wait on the session's side.
const BATCH_NS: u64 = 100_000_000;
/// Batches and openings that may wait for the thread.
const QUEUE: usize = 8192;
/// Bytes of batches that may wait, over all sessions. Beyond, recordings are lost and say so.
const BACKLOG: usize = 32 * 1024 * 1024;
/// Bytes of one session that may wait before [`SessionRecorder::congested`].
const CONGESTED: usize = 1024 * 1024;
/// Result rows are cut into records of at most this.
const ROWS: usize = 32 * 1024;

/// When a record counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// At most 100 ms or 64 KiB later than it happened.
    Batched,
    /// On disk before the action runs.
    Each,
}

pub struct RecorderConfig {
    /// Holds `YYYY-MM-DD/<session>.gwr`.
    pub dir: PathBuf,
    pub key: SigningKey,
    pub durability: Durability,
    /// Is told of sessions that ended with the agent before this one.
    pub audit: Option<Audit>,
}

/// Why something was not recorded. The recording ends here; what was required to be recorded must not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordingLost {
    #[error("the recording cannot be started: {0}")]
    Open(String),
    #[error("the recording failed; the agent's log says why")]
    Failed,
    #[error("the disk is too slow: {} MiB wait to be written", BACKLOG >> 20)]
    Backlog,
    /// Only this event is lost; the recording goes on.
    #[error("one event of {0} bytes exceeds what a recording can hold")]
    TooLarge(usize),
}

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("recordings in {}: {source}", dir.display())]
    Dir { dir: PathBuf, source: io::Error },
    #[error("the recorder cannot start: {0}")]
    Thread(#[from] io::Error),
    #[error("the key of the recordings: {0}")]
    Key(#[from] KeyError),
}

/// Numbers for metrics.
#[derive(Debug, Default)]
pub struct RecorderStats {
    /// Bytes written to recordings.
    pub bytes: AtomicU64,
    /// Recordings that ended early because they could not be written.
    pub lost: AtomicU64,
    /// Recordings open now.
    pub open: AtomicU64,
    /// Recordings of a dead agent that were closed.
    pub recovered: AtomicU64,
}

/// Makes recordings. Clones share one thread.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

struct Inner {
    queue: SyncSender<Job>,
    shared: Arc<Shared>,
    durability: Durability,
    next: AtomicU64,
    thread: Thread,
    recovery: Thread,
}

type Thread = Mutex<Option<JoinHandle<()>>>;

#[derive(Default)]
struct Shared {
    backlog: AtomicUsize,
    stats: Arc<RecorderStats>,
}

/// What the thread is asked to do.
enum Job {
    Open { id: u64, header: Box<Header>, reply: oneshot::Sender<Result<Arc<Session>, RecordingLost>> },
    Write { session: Arc<Session>, batch: Batch, sync: bool },
    Close { session: Arc<Session>, batch: Batch, now_ns: u64, sync: bool },
    Stop,
}

/// What a session and the thread know of each other.
struct Session {
    id: u64,
    path: PathBuf,
    failed: AtomicBool,
    /// Batches written, and bytes handed over but not written.
    written: AtomicU64,
    queued: AtomicUsize,
    progress: Notify,
}

impl Recorder {
    /// Starts the thread, and another that closes what a dead agent left open.
    pub fn start(config: RecorderConfig) -> Result<Self, StartError> {
        writer::make_dir(&config.dir)
            .map_err(|source| StartError::Dir { dir: config.dir.clone(), source })?;
        let shared = Arc::new(Shared::default());
        // A second scribe, so that recovering much does not hold up new sessions.
        let seed = zeroize::Zeroizing::new(config.key.seed()?);
        let recovery = Scribe::new(SigningKey::from_seed(&seed)?)?;
        let (dir, stats, audit) = (config.dir.clone(), shared.stats.clone(), config.audit);
        let recovery = std::thread::Builder::new().name("recovery".into()).spawn(move || {
            let found = super::recover_dir(&dir, &recovery, audit.as_ref());
            stats.recovered.fetch_add(found.recovered.len() as u64, Relaxed);
            found.log();
        })?;

        let (queue, jobs) = sync_channel(QUEUE);
        let writer = writer::Writers::new(config.dir, config.key, shared.clone())?;
        let thread = std::thread::Builder::new().name("recorder".into()).spawn(move || writer.run(&jobs))?;
        let inner = Inner {
            queue,
            shared,
            durability: config.durability,
            next: AtomicU64::new(0),
            thread: Mutex::new(Some(thread)),
            recovery: Mutex::new(Some(recovery)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts a recording; returns when its header is written. The session id becomes the file name: letters,
    /// digits, `-` and `_`, at most 64.
    pub async fn open(&self, header: Header) -> Result<SessionRecorder, RecordingLost> {
        let id = self.inner.next.fetch_add(1, Relaxed);
        let (reply, answer) = oneshot::channel();
        let job = Job::Open { id, header: Box::new(header), reply };
        self.inner.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => RecordingLost::Backlog,
            TrySendError::Disconnected(_) => RecordingLost::Failed,
        })?;
        let session = answer.await.map_err(|_| RecordingLost::Failed)??;
        Ok(SessionRecorder {
            recorder: self.inner.clone(),
            session,
            batch: Batch::default(),
            sent: 0,
            synced: 0,
            now_ns: 0,
            closed: false,
        })
    }

    pub fn durability(&self) -> Durability {
        self.inner.durability
    }

    pub fn stats(&self) -> Arc<RecorderStats> {
        self.inner.shared.stats.clone()
    }

    /// Writes what was handed over, closes every recording and ends the thread. Blocks.
    pub fn shutdown(&self) {
        // An error means that the thread is gone already.
        let _ = self.inner.queue.send(Job::Stop);
        join(&self.inner.thread);
    }

    /// Returns once what a dead agent left open is closed. Blocks.
    pub fn wait_for_recovery(&self) {
        join(&self.inner.recovery);
    }
}

fn join(thread: &Thread) {
    let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(thread) = thread {
        let name = thread.thread().name().unwrap_or_default().to_owned();
        if thread.join().is_err() {
            tracing::error!(name, "a thread panicked");
        }
    }
}

/// The recording of one session. Dropping it closes the file; [`close`](Self::close) also says why.
pub struct SessionRecorder {
    recorder: Arc<Inner>,
    session: Arc<Session>,
    batch: Batch,
    /// Batches handed over, and up to which one they are synced to disk.
    sent: u64,
    synced: u64,
    now_ns: u64,
    closed: bool,
}

impl SessionRecorder {
    /// Records what happened `now_ns` after the session began, soon: see [`Durability::Batched`].
    pub fn append(&mut self, now_ns: u64, event: &Event<'_>) -> Result<(), RecordingLost> {
        if let Event::Rows { n, data } = event
            && data.len() > ROWS
        {
            return rows(data)
                .try_for_each(|data| self.append(now_ns, &Event::Rows { n: *n, data: data.into() }));
        }
        if self.session.failed.load(Acquire) {
            return Err(RecordingLost::Failed);
        }
        self.now_ns = now_ns;
        match self.batch.push(now_ns, event) {
            Ok(()) => {}
            Err(PushError::TooLarge(len)) => return Err(RecordingLost::TooLarge(len)),
            Err(PushError::Full) => {
                self.hand_over(false)?;
                self.batch.push(now_ns, event).map_err(|_| RecordingLost::Failed)?;
            }
        }
        if self.batch.is_full() { self.hand_over(false) } else { self.tick(now_ns) }
    }

    /// Records, and returns once it is on disk.
    pub async fn append_durable(&mut self, now_ns: u64, event: &Event<'_>) -> Result<(), RecordingLost> {
        self.append(now_ns, event)?;
        self.sync().await
    }

    /// Returns once everything recorded so far is on disk.
    pub async fn sync(&mut self) -> Result<(), RecordingLost> {
        self.hand_over(true)?;
        let target = self.sent;
        self.until(|session| session.written.load(Acquire) >= target).await
    }

    /// Hands over what has waited long enough. Call it every 100 ms or so while the session is idle.
    pub fn tick(&mut self, now_ns: u64) -> Result<(), RecordingLost> {
        let due = !self.batch.is_empty() && now_ns.saturating_sub(self.batch.first_ns()) >= BATCH_NS;
        if due { self.hand_over(false) } else { Ok(()) }
    }

    /// Something waits for [`tick`](Self::tick).
    pub fn pending(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Much of this session waits to be written. A session that produces a lot waits for
    /// [`relieved`](Self::relieved) then, instead of losing its recording.
    pub fn congested(&self) -> bool {
        self.session.queued.load(Relaxed) > CONGESTED
    }

    /// Returns when no longer [`congested`](Self::congested).
    pub async fn relieved(&self) -> Result<(), RecordingLost> {
        self.until(|session| session.queued.load(Relaxed) <= CONGESTED).await
    }

    /// Ends the recording: it is sealed soon.
    pub fn close(mut self, now_ns: u64, reason: &str) {
        self.finish(now_ns, reason);
    }

    pub fn path(&self) -> &Path {
        &self.session.path
    }

    fn finish(&mut self, now_ns: u64, reason: &str) {
        if std::mem::replace(&mut self.closed, true) || self.session.failed.load(Acquire) {
            return;
        }
        // Does not fail: a reason is short, and what fills a batch is handed over before.
        let pushed = self.append(now_ns, &Event::Closed { reason: reason.into() });
        let batch = self.batch.take();
        let session = self.session.clone();
        let now_ns = now_ns.max(self.now_ns);
        let sync = self.recorder.durability == Durability::Each;
        if pushed.is_err() || self.send(batch.len(), Job::Close { session, batch, now_ns, sync }).is_err() {
            // Not sealed: a seal would say that nothing is missing. Closed by recovery instead.
            self.session.fail();
        }
    }

    fn hand_over(&mut self, sync: bool) -> Result<(), RecordingLost> {
        let sync = sync || self.recorder.durability == Durability::Each;
        // What was handed over before may have been written without reaching the disk.
        if self.batch.is_empty() && (!sync || self.synced == self.sent) {
            return Ok(());
        }
        let batch = self.batch.take();
        self.sent += 1;
        if sync {
            self.synced = self.sent;
        }
        let session = self.session.clone();
        self.send(batch.len(), Job::Write { session, batch, sync })
    }

    fn send(&self, bytes: usize, job: Job) -> Result<(), RecordingLost> {
        let waiting = self.recorder.shared.backlog.fetch_add(bytes, AcqRel);
        self.session.queued.fetch_add(bytes, AcqRel);
        let error = if waiting > BACKLOG {
            RecordingLost::Backlog
        } else {
            match self.recorder.queue.try_send(job) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => RecordingLost::Backlog,
                Err(TrySendError::Disconnected(_)) => RecordingLost::Failed,
            }
        };
        self.recorder.shared.backlog.fetch_sub(bytes, AcqRel);
        self.session.queued.fetch_sub(bytes, AcqRel);
        if self.session.fail() {
            self.recorder.shared.stats.lost.fetch_add(1, Relaxed);
            tracing::error!(path = %self.session.path.display(), %error, "recording lost");
        }
        Err(error)
    }

    async fn until(&self, done: impl Fn(&Session) -> bool) -> Result<(), RecordingLost> {
        let mut progress = pin!(self.session.progress.notified());
        loop {
            // Before looking, so that what happens in between is not missed.
            progress.as_mut().enable();
            if self.session.failed.load(Acquire) {
                return Err(RecordingLost::Failed);
            }
            if done(&self.session) {
                return Ok(());
            }
            progress.as_mut().await;
            progress.set(self.session.progress.notified());
        }
    }
}

impl Drop for SessionRecorder {
    fn drop(&mut self) {
        self.finish(self.now_ns, "the session ended without saying why");
    }
}

impl Session {
    /// `true` the first time.
    fn fail(&self) -> bool {
        let first = !self.failed.swap(true, AcqRel);
        self.progress.notify_waiters();
        first
    }
}

/// Cuts a run of rows, at the end of a row where there is one.
fn rows(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let most = &data[..data.len().min(ROWS)];
        let whole = most.len() == data.len();
        let cut = if whole { None } else { most.iter().rposition(|byte| *byte == b'\n') };
        let (now, later) = data.split_at(cut.map_or(most.len(), |at| at + 1));
        data = later;
        Some(now)
    })
}
