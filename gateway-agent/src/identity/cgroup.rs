//! Places in the cgroup v2 tree.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Container, Peer, PlaceError};
use crate::sandbox::mounts::{self, Mount};

/// `CGROUP2_SUPER_MAGIC`, linux/magic.h.
const CGROUP2: u64 = 0x6367_7270;

/// The tree below the attach root.
#[derive(Debug, Clone)]
pub struct Cgroups {
    mount: PathBuf,
    root: PathBuf,
    /// The gateway's own cgroup.
    own: PathBuf,
}

/// A cgroup directory and its kernel id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Inode of the directory, which on 64-bit kernels is what BPF calls the cgroup id.
    pub id: u64,
    pub dir: PathBuf,
    /// Owner of the directory.
    pub uid: u32,
}

impl Cgroups {
    /// Finds the mount and checks the attach root; `None` = the mount itself.
    pub fn open(attach_root: Option<&Path>) -> io::Result<Self> {
        let mount = mount_point(&mounts::read()?)
            .ok_or_else(|| io::Error::other("no cgroup2 hierarchy is mounted (mount -t cgroup2)"))?;
        let root = match attach_root {
            Some(path) => std::fs::canonicalize(path)?,
            None => mount.clone(),
        };
        if !root.starts_with(&mount) || !is_cgroup2(&root)? {
            return Err(io::Error::other(format!(
                "{} is not a cgroup v2 directory below {}",
                root.display(),
                mount.display()
            )));
        }
        let own = path_of("self")?
            .map(|path| join(&mount, &path))
            .ok_or_else(|| io::Error::other("this process is in no v2 cgroup"))?;
        Ok(Self { mount, root, own })
    }

    /// A tree of plain directories.
    #[cfg(test)]
    pub(crate) fn plain(root: &Path) -> Self {
        Self { mount: root.to_owned(), root: root.to_owned(), own: "/elsewhere".into() }
    }

    /// The gateway's own cgroup.
    pub fn own(&self) -> &Path {
        &self.own
    }

    /// Where programs attach and below which jobs live.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The cgroup of a process, wherever it is.
    pub fn locate(&self, peer: &Peer) -> Result<Place, PlaceError> {
        let path = path_of(&peer.pid.to_string())
            .map_err(|_| PlaceError::Gone(peer.pid))?
            .ok_or(PlaceError::NoCgroup(peer.pid))?;
        let place = self.place(&join(&self.mount, &path))?;
        if peer.still_there() { Ok(place) } else { Err(PlaceError::Gone(peer.pid)) }
    }

    /// The cgroup of a container, by its id or the beginning of it.
    pub fn container(&self, id: &str) -> Result<Place, PlaceError> {
        self.place(&Container::find(&self.root, id)?)
    }

    /// Every process in a cgroup and below it, at most `limit`. One that comes or goes meanwhile may be missing.
    pub fn processes(&self, dir: &Path, limit: usize) -> Vec<i32> {
        let mut pids = Vec::new();
        let mut waiting = vec![dir.to_owned()];
        while let Some(dir) = waiting.pop() {
            // Gone, or threaded and then listed by its parent.
            let procs = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(procs.lines().filter_map(|pid| pid.parse::<i32>().ok()));
            if pids.len() >= limit {
                pids.truncate(limit);
                break;
            }
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    waiting.push(entry.path());
                }
            }
        }
        pids
    }

    /// A directory as a place, if it is a cgroup.
    pub fn place(&self, dir: &Path) -> Result<Place, PlaceError> {
        let unreadable = || PlaceError::Unreadable(dir.to_owned());
        let dir = std::fs::canonicalize(dir).map_err(|_| unreadable())?;
        let meta = std::fs::metadata(&dir).map_err(|_| unreadable())?;
        if !meta.is_dir() || !is_cgroup2(&dir).map_err(|_| unreadable())? {
            return Err(unreadable());
        }
        Ok(Place { id: meta.ino(), dir, uid: meta.uid() })
    }

    /// Whether a place can be a job: strictly below the attach root, and neither the gateway's own cgroup nor
    /// around it.
    pub fn check(&self, place: &Place) -> Result<(), PlaceError> {
        if place.dir == self.root || !place.dir.starts_with(&self.root) {
            return Err(PlaceError::Outside { cgroup: place.dir.clone(), root: self.root.clone() });
        }
        // Below its own cgroup the gateway's exemption applies. A gateway at the attach root has no own one to
        // speak of: everything is below it.
        let below_own =
            self.own != self.root && self.own.starts_with(&self.root) && place.dir.starts_with(&self.own);
        if self.own.starts_with(&place.dir) || below_own {
            return Err(PlaceError::Own(place.dir.clone()));
        }
        Ok(())
    }

    /// Whether the directory still is the cgroup with that id.
    pub fn exists(&self, id: u64, dir: &Path) -> bool {
        std::fs::metadata(dir).is_ok_and(|m| m.ino() == id)
    }

    /// Whether a process lives in it or below it. An unreadable answer is yes.
    pub fn populated(&self, dir: &Path) -> bool {
        match std::fs::read_to_string(dir.join("cgroup.events")) {
            Ok(events) => !events.lines().any(|l| l == "populated 0"),
            Err(e) => e.kind() != io::ErrorKind::NotFound,
        }
    }
}

/// The v2 entry of `/proc/PID/cgroup`. `None`: there is none, or it is outside of this cgroup namespace.
fn path_of(pid: &str) -> io::Result<Option<String>> {
    Ok(v2_entry(&std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?))
}

fn v2_entry(text: &str) -> Option<String> {
    let path = text.lines().find_map(|l| l.strip_prefix("0::"))?;
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    (path.starts_with('/') && !path.split('/').any(|part| part == "..")).then(|| path.to_owned())
}

fn join(mount: &Path, path: &str) -> PathBuf {
    match path.trim_start_matches('/') {
        "" => mount.to_owned(),
        below => mount.join(below),
    }
}

/// The mount of the whole hierarchy (its root is `/`), the shortest path first.
fn mount_point(mounts: &[Mount]) -> Option<PathBuf> {
    let whole = mounts.iter().filter(|m| m.kind == "cgroup2" && m.root == "/");
    whole.map(|m| m.point.clone()).min_by_key(|p| p.as_os_str().len())
}

fn is_cgroup2(dir: &Path) -> io::Result<bool> {
    #[cfg(test)]
    if dir.starts_with(std::env::temp_dir()) {
        return Ok(true);
    }
    let stat = rustix::fs::statfs(dir)?;
    Ok(u64::try_from(stat.f_type).is_ok_and(|t| t == CGROUP2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_entry_is_found_among_v1_ones() {
        assert_eq!(v2_entry("4:memory:/x\n0::/a/b\n").as_deref(), Some("/a/b"));
        assert_eq!(v2_entry("0::/\n").as_deref(), Some("/"));
        assert_eq!(v2_entry("4:memory:/x\n"), None);
        assert_eq!(v2_entry("0::/../../other\n"), None, "outside of the namespace");
        assert_eq!(v2_entry("0::/gone (deleted)\n").as_deref(), Some("/gone"));
    }

    #[test]
    fn the_whole_hierarchy_is_preferred() {
        let info = "\
30 20 0:26 /sub /mnt/part rw - cgroup2 cgroup2 rw
31 20 0:26 / /sys/fs/cgroup/uni\\040fied rw shared:4 - cgroup2 cgroup2 rw
32 20 0:27 / /proc rw - proc proc rw
";
        assert_eq!(mount_point(&mounts::parse(info)), Some("/sys/fs/cgroup/uni fied".into()));
        assert_eq!(mount_point(&mounts::parse("32 20 0:27 / /proc rw - proc proc rw\n")), None);
    }

    #[test]
    fn the_gateways_own_cgroup_and_places_outside_are_no_jobs() {
        let tree = Cgroups { mount: "/c".into(), root: "/c/root".into(), own: "/c/root/system/gw".into() };
        let place = |dir: &str| Place { id: 1, dir: dir.into(), uid: 0 };
        assert!(tree.check(&place("/c/root/jobs/1")).is_ok());
        assert!(tree.check(&place("/c/root/system/other")).is_ok());
        for outside in ["/c", "/c/root", "/c/rootless", "/c/elsewhere/x"] {
            assert!(matches!(tree.check(&place(outside)), Err(PlaceError::Outside { .. })), "{outside}");
        }
        for own in ["/c/root/system/gw", "/c/root/system"] {
            assert!(matches!(tree.check(&place(own)), Err(PlaceError::Own(_))), "{own}");
        }
        // What lives below the gateway's own cgroup is not the gateway, but would inherit its exemption.
        assert!(tree.check(&place("/c/root/system/gw/child")).is_err());
    }
}
