//! Closing the recordings of an agent that died.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufReader, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use record::{RecoverError, Scribe, TAIL, is_ended, recover};

use super::unix_ns;

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
}

enum Found {
    Whole,
    Live,
    Empty,
    Recovered,
}

/// Closes every unsealed recording in `dir/*/` that nobody writes.
pub fn recover_dir(dir: &Path, scribe: &Scribe) -> Recovered {
    let mut found = Recovered::default();
    let days = entries(dir).into_iter().filter(|path| path.is_dir());
    for path in days.flat_map(|day| entries(&day)) {
        if path.extension().is_none_or(|extension| extension != "gwr") {
            continue;
        }
        match recover_file(&path, scribe) {
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

fn recover_file(path: &Path, scribe: &Scribe) -> Result<Found, FileError> {
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
    file.set_len(plan.keep)?;
    file.write_all_at(&plan.tail, plan.keep)?;
    file.sync_data()?;
    Ok(Found::Recovered)
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
