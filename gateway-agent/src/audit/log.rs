//! The audit log: one JSON object a line, for all sessions.
//!
//! Sessions append lines to one buffer; a thread writes it at most 50 ms later. While writing fails, every
//! [`Audit::log`] is refused and the thread keeps trying; once it succeeds again, so does logging. What has run by then
//! still gets its line ([`Audit::log_ended`]). Lines that were accepted are never dropped while the agent lives, and never
//! torn.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::event::{AuditEvent, Encoder};

/// Lines gather this long before they are written …
const GATHER: Duration = Duration::from_millis(50);
/// … or until there are as many bytes: a busy agent's threads are not woken for less.
const ENOUGH: usize = 512 * 1024;
/// Beyond this, events are refused …
const FULL: usize = 8 * 1024 * 1024;
/// … but for those that tell how something ended, which have as much room again.
const FULL_FOR_ENDS: usize = 2 * FULL;
/// Between attempts while writing fails.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct AuditConfig {
    pub file: PathBuf,
}

/// The event was not logged; what it tells of must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written; the agent's log says why")]
pub struct AuditLost;

/// Writes the audit log. Clones share one file.
#[derive(Clone)]
pub struct Audit {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    failed: AtomicBool,
    lost: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    encoder: Encoder,
    stop: bool,
    reopen: bool,
}

impl Audit {
    /// Opens the file for appending, 0640, and starts the thread.
    pub fn start(config: AuditConfig) -> io::Result<Self> {
        let file = open(&config.file)?;
        let shared = Arc::new(Shared::default());
        let writer = Writer { shared: shared.clone(), path: config.file, file };
        let thread = std::thread::Builder::new().name("audit".into()).spawn(move || writer.run())?;
        Ok(Self { shared, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Takes an event; it is in the file at most 50 ms later.
    ///
    /// # Errors
    /// While the file cannot be written, or takes lines slower than they come.
    pub fn log(&self, event: &AuditEvent<'_>) -> Result<(), AuditLost> {
        self.ready()?;
        self.append(event, FULL)
    }

    /// Takes the event of how something ended that began while events were taken, also while the file cannot be
    /// written: nothing begins then, so that few of these wait.
    ///
    /// # Errors
    /// When too many wait all the same, or nobody would write them any more.
    pub fn log_ended(&self, event: &AuditEvent<'_>) -> Result<(), AuditLost> {
        self.append(event, FULL_FOR_ENDS)
    }

    /// What may only run when its event can be taken asks before it does. Costs one load.
    ///
    /// # Errors
    /// While the file cannot be written.
    pub fn ready(&self) -> Result<(), AuditLost> {
        if self.shared.failed.load(Acquire) { self.refuse() } else { Ok(()) }
    }

    fn append(&self, event: &AuditEvent<'_>, full: usize) -> Result<(), AuditLost> {
        let mut state = self.shared.lock();
        let before = state.lines.len();
        if state.stop || before > full {
            return self.refuse();
        }
        let State { lines, encoder, .. } = &mut *state;
        encoder.line(event, lines);
        let after = lines.len();
        // Until the next write succeeds; nothing else may begin.
        if after > FULL && !self.shared.failed.swap(true, Release) {
            tracing::error!(waiting = after, "the audit log takes lines too slowly: actions are refused");
        }
        drop(state);
        if before == 0 || (before < ENOUGH && after >= ENOUGH) {
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// Opens the file anew, for whoever rotates logs. Renaming it is noticed without this.
    pub fn reopen(&self) {
        self.shared.lock().reopen = true;
        self.shared.wake.notify_one();
    }

    /// Events refused so far.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Relaxed)
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Relaxed)
    }

    /// Writes what is left and ends the thread. Blocks, but not on a file that cannot be written.
    pub fn shutdown(&self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the audit thread panicked");
        }
    }

    fn refuse(&self) -> Result<(), AuditLost> {
        self.shared.lost.fetch_add(1, Relaxed);
        Err(AuditLost)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    shared: Arc<Shared>,
    path: PathBuf,
    file: File,
}

impl Drop for Writer {
    /// Should the thread panic, nothing is accepted that nobody would write.
    fn drop(&mut self) {
        self.shared.failed.store(true, Release);
        self.shared.lock().stop = true;
    }
}

impl Writer {
    fn run(mut self) {
        let mut lines = Vec::new();
        loop {
            let stop = self.gather(&mut lines);
            let written = self.write(&lines);
            if stop {
                if let Err(error) = written {
                    self.give_up(&lines, &error);
                }
                return;
            }
            lines.clear();
            // A burst does not hold its memory for ever.
            lines.shrink_to(1024 * 1024);
        }
    }

    /// Waits for lines and takes them. `true` when these are the last.
    fn gather(&mut self, lines: &mut Vec<u8>) -> bool {
        let wake = &self.shared.wake;
        let state = self.shared.lock();
        let state = wake
            .wait_while(state, |state| state.lines.is_empty() && !state.stop && !state.reopen)
            .unwrap_or_else(PoisonError::into_inner);
        let (mut state, _) = wake
            .wait_timeout_while(state, GATHER, |state| {
                state.lines.len() < ENOUGH && !state.stop && !state.reopen
            })
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.lines, lines);
        let (stop, reopen) = (state.stop, std::mem::take(&mut state.reopen));
        drop(state);
        if reopen {
            self.renew();
        }
        stop
    }

    /// Writes all of it, however long that takes; gives up only when the agent stops.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if !lines.is_empty() && self.moved() {
            self.renew();
        }
        let mut at = 0;
        while at < lines.len() {
            match self.file.write(&lines[at..]) {
                Ok(0) => at = self.retry(lines, at, io::ErrorKind::WriteZero.into())?,
                Ok(n) => at += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => at = self.retry(lines, at, error)?,
            }
        }
        self.shared.bytes.fetch_add(lines.len() as u64, Relaxed);
        if self.shared.failed.swap(false, Release) {
            tracing::info!(path = %self.path.display(), "the audit log is written again");
        }
        Ok(())
    }

    /// Waits a little and says where to go on.
    fn retry(&mut self, lines: &[u8], at: usize, error: io::Error) -> io::Result<usize> {
        if !self.shared.failed.swap(true, Release) {
            tracing::error!(path = %self.path.display(), %error, "the audit log cannot be written: actions are refused");
        }
        let state = self.shared.lock();
        if state.stop {
            return Err(error);
        }
        let wait = self.shared.wake.wait_timeout_while(state, RETRY, |state| !state.stop);
        drop(wait.unwrap_or_else(PoisonError::into_inner));
        // In a new file, a line begins at its beginning.
        let start = lines[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        Ok(if self.moved() && self.renew() { start } else { at })
    }

    /// The path no longer leads to the file being written.
    fn moved(&self) -> bool {
        let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        self.file.metadata().map(id).ok() != std::fs::metadata(&self.path).map(id).ok()
    }

    fn renew(&mut self) -> bool {
        match open(&self.path) {
            Ok(file) => {
                self.file = file;
                true
            }
            Err(error) => {
                // Keeps writing to the old one: rather there than nowhere.
                tracing::warn!(path = %self.path.display(), %error, "the audit log cannot be opened anew");
                false
            }
        }
    }

    fn give_up(&self, lines: &[u8], error: &io::Error) {
        let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.shared.lost.fetch_add(count, Relaxed);
        tracing::error!(path = %self.path.display(), %error, lost = count, "audit events lost");
    }
}

/// Opens for appending and ends a line that a dead agent left torn.
fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() && meta.len() > 0 {
        let mut last = [0];
        file.read_exact_at(&mut last, meta.len() - 1)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}
