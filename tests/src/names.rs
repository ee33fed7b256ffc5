//! Names that tell whose something is, and the removal of everything under one name.
//!
//! A name is `gwt-PID-START-N`: the process that made it, when that process started (process ids
//! come back), and a counter. Whatever carries the name of a process that is gone is litter.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{cgroup, netns};

const PREFIX: &str = "gwt";

/// The name of one world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(String);

impl Name {
    /// A name nobody else has.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        let start = started(pid).context("reading our own start time")?;
        Ok(Self(format!("{PREFIX}-{pid}-{start}-{}", NEXT.fetch_add(1, Ordering::Relaxed))))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The world's own folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        std::env::temp_dir().join(&self.0)
    }

    /// Removes everything that carries this name: processes, namespaces, cgroups, mounts, files.
    /// Does as much as it can, and tells about the rest.
    pub fn remove(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        for space in netns::named(&self.0) {
            netns::kill_all(&space);
        }
        if let Ok(root) = cgroup::mount() {
            cgroup::remove(&root.join(&self.0), deadline);
        }
        for space in netns::named(&self.0) {
            netns::kill_all(&space);
            netns::delete(&space);
        }
        let folder = self.folder();
        unmount_below(&folder);
        if let Err(error) = fs::remove_dir_all(&folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("cannot remove {}: {error}", folder.display());
        }
    }

    /// The name in `gwt-PID-START-N` or `gwt-PID-START-N-something`, when its maker is gone.
    fn stale(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (prefix, pid, start, counter) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if prefix != PREFIX {
            return None;
        }
        let pid: u32 = pid.parse().ok()?;
        let start: u64 = start.parse().ok()?;
        (started(pid) != Some(start)).then(|| Self(format!("{PREFIX}-{pid}-{start}-{counter}")))
    }
}

/// Sweeps what killed runs left behind; once a process is enough.
pub fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let folders = [Some(std::env::temp_dir()), Some("/run/netns".into()), cgroup::mount().ok()];
        let mut stale: Vec<Name> = folders
            .into_iter()
            .flatten()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flat_map(|entries| entries.flatten())
            .filter_map(|entry| Name::stale(&entry.file_name().to_string_lossy()))
            .collect();
        stale.sort_by(|a, b| a.0.cmp(&b.0));
        stale.dedup();
        for name in stale {
            name.remove();
        }
    });
}

/// When a process started, in clock ticks since boot. None when there is no such process any more;
/// one that nobody has waited for yet counts as gone.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command may hold anything, spaces and parentheses too; field 3 follows the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut below: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|point| Path::new(point).starts_with(folder))
        .collect();
    below.reverse();
    for point in below {
        if let Err(error) = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH) {
            eprintln!("cannot unmount {point}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_dead_are_stale() {
        let own = Name::new().expect("a name");
        assert_eq!(Name::stale(own.as_str()), None);
        assert_eq!(Name::stale(&format!("{}-far", own.as_str())), None);
        let pid = std::process::id();
        assert_eq!(Name::stale(&format!("gwt-{pid}-1-0-far")), Some(Name(format!("gwt-{pid}-1-0"))));
        assert_eq!(Name::stale("gwt-mine"), None);
        assert_eq!(Name::stale("other-1-2-3"), None);
    }
}
