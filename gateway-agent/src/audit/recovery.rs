//! Closing the recordings of an agent that died, and telling the audit log what it was busy with.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufReader, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use record::{Event, Item, ReadError, Reader, RecoverError, Scribe, TAIL, Verdict, is_ended, recover};

use super::{Audit, AuditEvent, AuditLost, Context, Kind, Scope, Value, statement_hash, unix_ns};

/// So many unfinished statements of a session are named.
const NAMED: usize = 100;

/// What was found below the recordings' folder.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Closed with a signed checkpoint that says so.
    pub recovered: Vec<PathBuf>,
    /// Ended before their first checkpoint; left alone.
    pub empty: Vec<PathBuf>,
    /// Altered or unreadable; left alone for somebody to look at.
    pub damaged: Vec<(PathBuf, String)>,
    /// Being written by a running agent.
    pub live: usize,
}

#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Recover(#[from] RecoverError),
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The next start tries again.
    #[error(transparent)]
    Audit(#[from] AuditLost),
}

enum Found {
    Whole,
    Live,
    Empty,
    Recovered,
}

/// Closes every unsealed recording in `dir/*/` that nobody writes. The audit log is told before: which session was cut
/// off, and which of its statements have no end in the recording.
pub fn recover_dir(dir: &Path, scribe: &Scribe, audit: Option<&Audit>) -> Recovered {
    let mut found = Recovered::default();
    let days = entries(dir).into_iter().filter(|path| path.is_dir());
    for path in days.flat_map(|day| entries(&day)) {
        if path.extension().is_none_or(|extension| extension != "gwr") {
            continue;
        }
        match recover_file(&path, scribe, audit) {
            Ok(Found::Whole) => {}
            Ok(Found::Live) => found.live += 1,
            Ok(Found::Empty) => found.empty.push(path),
            Ok(Found::Recovered) => found.recovered.push(path),
            Err(error) => found.damaged.push((path, error.to_string())),
        }
    }
    found
}

impl Recovered {
    pub(super) fn log(&self) {
        for path in &self.recovered {
            tracing::warn!(path = %path.display(), "closed a recording that an earlier agent left open");
        }
        for path in &self.empty {
            tracing::warn!(path = %path.display(), "a recording that ends before it begins");
        }
        for (path, error) in &self.damaged {
            tracing::error!(path = %path.display(), error, "a recording that cannot be closed");
        }
    }
}

fn recover_file(path: &Path, scribe: &Scribe, audit: Option<&Audit>) -> Result<Found, FileError> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok(Found::Whole);
    }
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Found::Live),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    if ended(&file)? {
        return Ok(Found::Whole);
    }
    file.seek(SeekFrom::Start(0))?;
    let plan = recover(BufReader::new(&file), scribe, unix_ns())?;
    let Some(plan) = plan else { return Ok(Found::Empty) };
    if let Some(audit) = audit {
        file.seek(SeekFrom::Start(0))?;
        cut_off(BufReader::new(&file), audit)?;
    }
    file.set_len(plan.keep)?;
    file.write_all_at(&plan.tail, plan.keep)?;
    file.sync_data()?;
    Ok(Found::Recovered)
}

/// Writes the audit line of a session that ended with its agent.
fn cut_off(recording: impl io::Read, audit: &Audit) -> Result<(), FileError> {
    let mut reader = Reader::new(recording, None)?;
    let mut unfinished = BTreeMap::new();
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Event { event: Event::Statement { n, sql, verdict, .. }, .. }
                if verdict != Verdict::Deny =>
            {
                unfinished.insert(n, statement_hash(&sql));
            }
            Item::Event { event: Event::Finished { n, .. }, .. } => {
                unfinished.remove(&n);
            }
            _ => {}
        }
    }
    let header = reader.header().cloned().unwrap_or_default();
    let context = Context::new(&Scope {
        session: Some(&header.session),
        subject: Some(&header.subject),
        job: Some(&header.job),
        process: Some(&header.process),
        resource: Some(&header.resource),
        destination: Some(&header.destination),
        database: header.database.as_deref(),
        user: header.user.as_deref(),
    });
    let hashes: Vec<Arc<str>> =
        unfinished.values().take(NAMED).map(|hash| Arc::from(hash.to_hex().as_str())).collect();
    let extra =
        [("unfinished", Value::Number(unfinished.len() as u64)), ("statement_hashes", Value::List(&hashes))];
    let event = AuditEvent {
        context: Some(&context),
        extra: &extra,
        ..AuditEvent::new(unix_ns(), Kind::SessionCutOff)
    };
    Ok(audit.log(&event)?)
}

fn ended(file: &File) -> io::Result<bool> {
    let Some(at) = file.metadata()?.len().checked_sub(TAIL as u64) else { return Ok(false) };
    let mut tail = [0; TAIL];
    file.read_exact_at(&mut tail, at)?;
    Ok(is_ended(&tail))
}

/// Empty when the folder cannot be read: there is nothing to recover then.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
