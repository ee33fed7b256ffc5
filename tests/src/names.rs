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
/// The cgroup that says that a world stays.
const KEPT: &str = "kept";

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
        // What is bound below belongs to the workspace: never remove through a mount.
        if !mounts_below(&folder).is_empty() {
            eprintln!("cannot remove {}: something is still mounted there", folder.display());
            return;
        }
        if let Err(error) = fs::remove_dir_all(&folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("cannot remove {}: {error}", folder.display());
        }
    }

    /// Lets it outlive its maker: [`sweep`] leaves it alone, only [`clean`] removes it.
    ///
    /// The mark is a cgroup, because that is gone with the world and after a boot.
    ///
    /// # Errors
    /// When the kernel refuses the mark.
    pub fn mark_kept(&self) -> Result<()> {
        cgroup::make(&cgroup::mount()?.join(&self.0).join(KEPT))
    }

    fn is_kept(&self) -> bool {
        cgroup::mount().is_ok_and(|root| root.join(&self.0).join(KEPT).is_dir())
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
    ONCE.call_once(|| stale().iter().filter(|name| !name.is_kept()).for_each(Name::remove));
}

/// Removes what was kept, all of it or one, and what killed runs left behind. Returns the names of
/// the former.
pub fn clean(only: Option<&str>) -> Vec<Name> {
    sweep();
    let mut kept = stale();
    kept.retain(|name| name.is_kept() && only.is_none_or(|only| only == name.0));
    kept.iter().for_each(Name::remove);
    kept
}

fn stale() -> Vec<Name> {
    let mut stale: Vec<Name> =
        places().iter().flat_map(|folder| entries(folder)).filter_map(|entry| Name::stale(&entry)).collect();
    stale.sort_by(|a, b| a.0.cmp(&b.0));
    stale.dedup();
    stale
}

/// What is still there of the worlds that this process made: one line each.
#[must_use]
pub fn left_by(maker: u32) -> Vec<String> {
    let prefix = format!("{PREFIX}-{maker}-");
    let named = places().into_iter().flat_map(|folder| {
        let own = entries(&folder).into_iter().filter(|entry| entry.starts_with(&prefix));
        own.map(|entry| folder.join(entry).display().to_string()).collect::<Vec<_>>()
    });
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter(|line| line.contains(&prefix)).map(|line| format!("mount {line}"));
    let processes = entries(Path::new("/proc")).into_iter().filter_map(|pid| {
        let proc = Path::new("/proc").join(pid.parse::<u32>().ok()?.to_string());
        let text = |file: &str| fs::read(proc.join(file)).unwrap_or_default();
        let command = String::from_utf8_lossy(&text("cmdline")).replace('\0', " ");
        let cgroup = String::from_utf8_lossy(&text("cgroup")).into_owned();
        let cwd = fs::read_link(proc.join("cwd")).unwrap_or_default().display().to_string();
        let ours = [&command, &cgroup, &cwd].iter().any(|text| text.contains(&prefix));
        ours.then(|| format!("process {pid}: {}", command.trim_end()))
    });
    named.chain(mounts).chain(processes).collect()
}

/// Where names show.
fn places() -> Vec<PathBuf> {
    [Some(std::env::temp_dir()), Some("/run/netns".into()), cgroup::mount().ok()]
        .into_iter()
        .flatten()
        .collect()
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
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
    for point in mounts_below(folder).iter().rev() {
        if let Err(error) = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH) {
            eprintln!("cannot unmount {}: {error}", point.display());
        }
    }
}

/// Mount points below a folder, in the order in which they were mounted.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    points.filter(|point| point.starts_with(folder)).collect()
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
