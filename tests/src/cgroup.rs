//! A subtree of cgroup v2 of our own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// Where cgroup v2 is mounted: `/sys/fs/cgroup`, or below it on hybrid machines.
///
/// # Errors
/// When it is not mounted.
pub fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .and_then(|fields| fields.get(1).map(PathBuf::from))
        .context("cgroup v2 is not mounted")
}

/// Makes a cgroup, parents included.
///
/// # Errors
/// When the kernel refuses.
pub fn make(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("making cgroup {}", path.display()))
}

/// Kills everything in a subtree and removes it.
pub(crate) fn remove(path: &Path, deadline: Instant) {
    if !path.is_dir() {
        return;
    }
    fs::write(path.join("cgroup.kill"), "1").ok();
    while let Err(error) = remove_tree(path) {
        if Instant::now() > deadline {
            eprintln!("cannot remove cgroup {}: {error}", path.display());
            return;
        }
        // The dead leave their cgroup when they are reaped.
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
