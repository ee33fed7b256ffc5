//! The recorder's thread.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed, Ordering::Release,
        },
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use record::{Batch, Event, Header, Scribe, SigningKey, WriteError, Writer};
use tokio::sync::Notify;

use super::{Job, RecordingLost, Session, Shared};
use crate::audit::unix_ns;

/// How often idle recordings are looked at for a due checkpoint.
const SWEEP: Duration = Duration::from_secs(1);
const SESSION_ID: usize = 64;
/// Bytes of one session that wait to be written, from which on the thread rather writes fast than small.
const HURRY: usize = 128 * 1024;

pub(super) struct Writers {
    dir: PathBuf,
    scribe: Scribe,
    shared: Arc<Shared>,
    open: HashMap<u64, Open>,
    days: HashSet<String>,
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("the session id {0:?} is no file name")]
    Name(String),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Write(#[from] WriteError),
}

struct Open {
    session: Arc<Session>,
    writer: Writer<File>,
    started_unix_ns: u64,
}

impl Writers {
    pub(super) fn new(dir: PathBuf, key: SigningKey, shared: Arc<Shared>) -> io::Result<Self> {
        Ok(Self { dir, scribe: Scribe::new(key)?, shared, open: HashMap::new(), days: HashSet::new() })
    }

    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        let mut swept = Instant::now();
        loop {
            match jobs.recv_timeout(SWEEP) {
                Ok(Job::Open { id, header, reply }) => {
                    let result =
                        self.start(id, &header).map_err(|error| RecordingLost::Open(error.to_string()));
                    if let Err(Ok(session)) = reply.send(result) {
                        // Nobody waits any more.
                        self.close(&session, None, false);
                    }
                }
                Ok(Job::Write { session, batch, sync }) => {
                    self.write(&session, &batch, sync);
                    self.done(&session, batch.len());
                }
                Ok(Job::Close { session, batch, now_ns, sync }) => {
                    self.write(&session, &batch, false);
                    self.close(&session, Some(now_ns), sync);
                    self.done(&session, batch.len());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            if swept.elapsed() >= SWEEP {
                self.sweep();
                swept = Instant::now();
            }
        }
        let open: Vec<_> = self.open.values().map(|open| open.session.clone()).collect();
        for session in open {
            self.close(&session, None, false);
        }
    }

    fn start(&mut self, id: u64, header: &Header) -> Result<Arc<Session>, OpenError> {
        let path = self.path(header)?;
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| OpenError::File { path: path.clone(), source })?;
        let opened = file.lock().map_err(WriteError::from).and_then(|()| {
            // The lock tells recovery, and `verify`, that somebody still writes.
            Writer::open(file, header, &mut self.scribe)
        });
        let writer = match opened {
            Ok(writer) => writer,
            Err(error) => {
                // Holds nothing yet.
                let _ = fs::remove_file(&path);
                return Err(error.into());
            }
        };
        let stats = &self.shared.stats;
        stats.open.fetch_add(1, Relaxed);
        stats.bytes.fetch_add(writer.written(), Relaxed);
        let session = Arc::new(Session {
            id,
            path,
            failed: AtomicBool::new(false),
            written: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
            progress: Notify::new(),
        });
        let started_unix_ns = header.started_unix_ns;
        self.open.insert(id, Open { session: session.clone(), writer, started_unix_ns });
        Ok(session)
    }

    fn path(&mut self, header: &Header) -> Result<PathBuf, OpenError> {
        let name = &header.session;
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        if name.is_empty() || name.len() > SESSION_ID || !name.bytes().all(plain) {
            return Err(OpenError::Name(name.clone()));
        }
        let started = std::time::UNIX_EPOCH + Duration::from_nanos(header.started_unix_ns);
        let mut day = humantime::format_rfc3339_seconds(started).to_string();
        day.truncate("YYYY-MM-DD".len());
        let dir = self.dir.join(&day);
        if !self.days.contains(&day) || !dir.exists() {
            make_dir(&dir).map_err(|source| OpenError::File { path: dir.clone(), source })?;
            self.days.clear();
            self.days.insert(day);
        }
        Ok(dir.join(format!("{name}.gwr")))
    }

    fn write(&mut self, session: &Session, batch: &Batch, sync: bool) {
        let Some(open) = self.open.get_mut(&session.id) else { return };
        // The session is ahead, and would soon have to wait.
        self.scribe.hurry(session.queued.load(Relaxed) > HURRY);
        let before = open.writer.written();
        let result = open.writer.write(batch, &mut self.scribe).and_then(|()| {
            if sync { open.writer.get_ref().sync_data().map_err(WriteError::from) } else { Ok(()) }
        });
        self.shared.stats.bytes.fetch_add(open.writer.written().saturating_sub(before), Relaxed);
        if let Err(error) = result {
            self.lose(session, &error);
        }
    }

    fn done(&self, session: &Session, bytes: usize) {
        session.written.fetch_add(1, Release);
        session.queued.fetch_sub(bytes, AcqRel);
        self.shared.backlog.fetch_sub(bytes, AcqRel);
        session.progress.notify_waiters();
    }

    /// Seals. Without a time, nobody said why the session ended.
    fn close(&mut self, session: &Session, now_ns: Option<u64>, sync: bool) {
        let Some(mut open) = self.open.remove(&session.id) else { return };
        self.shared.stats.open.fetch_sub(1, Relaxed);
        let before = open.writer.written();
        let now = now_ns.unwrap_or_else(|| unix_ns().saturating_sub(open.started_unix_ns));
        let said = match now_ns {
            Some(_) => Ok(()),
            None => open.writer.append(
                now,
                &Event::Closed { reason: "the agent stopped recording".into() },
                &mut self.scribe,
            ),
        };
        // The length tells what was written: sealing consumes the writer.
        let sealed = said.and_then(|()| open.writer.seal(now, &mut self.scribe)).and_then(|file| {
            if sync {
                file.sync_data()?
            }
            Ok(file)
        });
        match sealed {
            Ok(file) => {
                let len = file.metadata().map_or(before, |meta| meta.len());
                self.shared.stats.bytes.fetch_add(len.saturating_sub(before), Relaxed);
            }
            Err(error) => self.lost(session, &error),
        }
    }

    fn lose(&mut self, session: &Session, error: &WriteError) {
        if self.open.remove(&session.id).is_some() {
            self.shared.stats.open.fetch_sub(1, Relaxed);
        }
        self.lost(session, error);
    }

    fn lost(&self, session: &Session, error: &WriteError) {
        if session.fail() {
            self.shared.stats.lost.fetch_add(1, Relaxed);
            tracing::error!(path = %session.path.display(), %error, "recording lost");
        }
    }

    /// Signs what idles unsigned, and lets go of what failed on the session's side.
    fn sweep(&mut self) {
        let now = unix_ns();
        let mut failed = Vec::new();
        for open in self.open.values_mut() {
            let now_ns = now.saturating_sub(open.started_unix_ns);
            if open.session.failed.load(Relaxed) {
                failed.push((open.session.clone(), None));
            } else if open.writer.checkpoint_due(now_ns)
                && let Err(error) = open.writer.checkpoint(now_ns, &mut self.scribe)
            {
                failed.push((open.session.clone(), Some(error)));
            }
        }
        for (session, error) in failed {
            self.lose(&session, &error.unwrap_or(WriteError::Failed));
        }
    }
}

impl Drop for Writers {
    /// However the thread ends, nobody waits for it in vain.
    fn drop(&mut self) {
        for open in self.open.values() {
            open.session.fail();
        }
    }
}

/// 0700, with its parents.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
