//! The files that a job sees: the host's, without its doors.
//!
//! In a mount namespace of its own, folders of sockets are covered by empty ones, scratch folders by private ones,
//! and the kernel's own trees are read-only or gone. Whole folders are covered, not single sockets: a daemon that
//! restarts makes its socket anew, and a mount on the old one goes away with it.

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Gid, Mode, OFlags, Uid},
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind,
        mount_bind_recursive, mount_change, move_mount, open_tree,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    mounts::{self, Mount},
    sys,
};

mod added;

/// Home of a job whose user has none, in the private /tmp.
pub const HOME: &str = "/tmp/home";

/// Covered by empty folders, or if they are files by /dev/null, when they exist: sockets of container engines,
/// D-Bus, systemd, agents, databases and machine managers, and devices that carry traffic past the hooks.
pub const HIDDEN: &[&str] = &[
    "/run",
    "/var/run",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/incus",
    "/var/lib/lxd",
    "/var/lib/libvirt",
    "/var/lib/kubelet",
    "/var/snap/lxd",
    "/var/spool/postfix",
    "/dev/net",
    "/dev/vhost-net",
    "/dev/vhost-vsock",
    "/dev/vsock",
];

/// Shown although below something covered: which resolver the host uses. Not the folders around: systemd-resolved
/// answers queries on a socket beside its file.
pub const SHOWN: &[&str] = &[
    "/run/systemd/resolve/stub-resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/run/resolvconf/resolv.conf",
    "/run/NetworkManager/resolv.conf",
];

/// Covered by private, writable folders.
const SCRATCH: &[&str] = &["/tmp", "/var/tmp", "/dev/shm"];

/// Of /proc: what reaches the whole host. Root's job has no capabilities, but root's file modes still open these.
const PROC_READ_ONLY: &[&str] =
    &["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi"];
const PROC_HIDDEN: &[&str] = &["/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"];

/// What to make.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct View {
    /// Size of each scratch folder in MiB; `None`: the host's own are used.
    pub scratch_mib: Option<u32>,
    /// A /proc of the job's own pid namespace.
    pub own_proc: bool,
    pub hide: Vec<PathBuf>,
    pub show: Vec<PathBuf>,
    /// Whose the home in the scratch folder is, and the workspace.
    pub user: (u32, u32),
    /// The working directory, where the job is to own what its owner owns.
    pub workspace: Option<Workspace>,
    /// Files of the host that the job sees with lines of its own.
    pub added: Vec<Added>,
}

/// Lines at the end of a file of the host, for the job alone. Without that file, the job has one of these lines, if the folder
/// is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    pub path: PathBuf,
    pub lines: String,
}

/// A folder that is the job's as long as it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    pub path: PathBuf,
    /// User and group on the host.
    pub owner: (u32, u32),
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("the job's view of the files: {what} {}: {source}", path.display())]
pub struct ViewError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Something to bring back on top of what covers it.
struct Shown {
    path: PathBuf,
    file: OwnedFd,
    is_dir: bool,
}

impl View {
    /// Turns the calling process's mount namespace, which nobody else may be in, into this view. The working
    /// directory must be entered again by its path: the old one may be covered.
    ///
    /// # Errors
    /// With the step that failed; the namespace is then half made, and nothing may run in it.
    pub fn make(&self) -> Result<(), ViewError> {
        let root = Path::new("/");
        let apart = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change(root, apart).map_err(failed("parting from the host's mounts at", root))?;
        if self.own_proc {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            let path = Path::new("/proc");
            mount("proc", path, "proc", flags, None).map_err(failed("mounting", path))?;
        }
        let shown = self.shown()?;
        self.kernel_trees()?;
        added::add(&self.added)?;
        // Inner ones first: what is shown of an outer one then has them covered.
        for path in existing(&self.hide).iter().rev() {
            match path.is_dir() {
                true => {
                    cover(path, "mode=0755,size=64k,nr_inodes=1k", &shown)?;
                    freeze(path)?;
                }
                false => blind(path)?,
            }
        }
        if let Some(mib) = self.scratch_mib {
            for path in existing(SCRATCH) {
                cover(&path, &format!("mode=1777,size={mib}m"), &shown)?;
            }
            self.home()?;
        }
        self.workspace.as_ref().map_or(Ok(()), |workspace| workspace.give_to(self.user))
    }

    /// Opened before anything is covered.
    fn shown(&self) -> Result<Vec<Shown>, ViewError> {
        let mut shown = Vec::new();
        for path in existing(&self.show) {
            let file = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .map_err(failed("opening", &path))?;
            let stat = rustix::fs::fstat(&file).map_err(failed("looking at", &path))?;
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            shown.push(Shown { path, file, is_dir });
        }
        Ok(shown)
    }

    /// /sys, the cgroup trees wherever they are, and the kernel's doors in /proc.
    fn kernel_trees(&self) -> Result<(), ViewError> {
        let all = mounts::read().map_err(failed_io("reading", Path::new("/proc/self/mountinfo")))?;
        let of = |is: fn(&Mount) -> bool| {
            existing(&all.iter().filter(|m| is(m)).map(|m| m.point.clone()).collect::<Vec<_>>())
        };
        of(Mount::is_sysfs_or_cgroup).iter().try_for_each(|path| freeze(path))?;
        for path in of(Mount::is_debugging) {
            cover(&path, "mode=0555,size=4k,nr_inodes=2", &[])?;
        }
        existing(PROC_READ_ONLY).iter().try_for_each(|path| freeze(path))?;
        existing(PROC_HIDDEN).iter().try_for_each(|path| blind(path))
    }

    fn home(&self) -> Result<(), ViewError> {
        let path = Path::new(HOME);
        if !path.parent().is_some_and(Path::is_dir) {
            return Ok(());
        }
        fs::create_dir(path).map_err(failed_io("making", path))?;
        let (user, group) = (Uid::from_raw(self.user.0), Gid::from_raw(self.user.1));
        rustix::fs::chown(path, Some(user), Some(group)).map_err(failed("giving away", path))?;
        rustix::fs::chmod(path, Mode::RWXU).map_err(failed("closing", path))
    }
}

impl Workspace {
    /// Mounts the folder on itself with its owner's ids as the job's.
    fn give_to(&self, user: (u32, u32)) -> Result<(), ViewError> {
        let path = &self.path;
        let namespace =
            sys::owner_namespace(self.owner, user).map_err(failed_io("mapping the owner of", path))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(CWD, path, flags).map_err(failed("opening", path))?;
        sys::map_owner(tree.as_fd(), namespace.as_fd()).map_err(failed_io(
            "giving the job (its file system may not be able to; see jobs.workspaces)",
            path,
        ))?;
        move_mount(&tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(failed("mounting", path))
    }
}

/// Those that are there, by their real paths, outer before inner, each once.
fn existing<P: AsRef<Path>>(paths: &[P]) -> Vec<PathBuf> {
    let mut real: Vec<PathBuf> = paths.iter().filter_map(|p| fs::canonicalize(p).ok()).collect();
    real.sort();
    real.dedup();
    real
}

/// An empty folder on top of another, with what is shown in its old place.
fn cover(path: &Path, options: &str, shown: &[Shown]) -> Result<(), ViewError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let data = CString::new(options).map_err(|e| failed_io("covering", path)(e.into()))?;
    mount("tmpfs", path, "tmpfs", flags, data.as_c_str()).map_err(failed("covering", path))?;
    for one in shown.iter().filter(|one| one.path.starts_with(path) && one.path != path) {
        // Below something that is back already.
        if one.path.exists() {
            continue;
        }
        let parent = one.path.parent().unwrap_or(path);
        fs::create_dir_all(parent).map_err(failed_io("making", parent))?;
        match one.is_dir {
            true => fs::create_dir(&one.path),
            false => fs::write(&one.path, ""),
        }
        .map_err(failed_io("making", &one.path))?;
        let source = format!("/proc/self/fd/{}", one.file.as_raw_fd());
        mount_bind_recursive(source, &one.path).map_err(failed("showing", &one.path))?;
    }
    Ok(())
}

/// Makes a folder or file read-only, with all that is mounted below.
fn freeze(path: &Path) -> Result<(), ViewError> {
    match sys::read_only_below(path) {
        // Nothing is mounted right there.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            mount_bind_recursive(path, path).map_err(failed("binding", path))?;
            sys::read_only_below(path)
        }
        done => done,
    }
    .map_err(failed_io("making read-only", path))
}

fn blind(path: &Path) -> Result<(), ViewError> {
    mount_bind("/dev/null", path).map_err(failed("hiding", path))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> ViewError {
    move |errno| failed_io(what, path)(errno.into())
}

fn failed_io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ViewError {
    let path = path.to_owned();
    move |source| ViewError { what, path, source }
}
