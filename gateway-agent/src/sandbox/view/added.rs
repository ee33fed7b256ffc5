//! Files of the host with lines of the job's own: what is written lies in memory and is mounted over the host's file.

use std::{ffi::OsStr, fs, os::unix::fs::PermissionsExt, path::Path};

use rustix::{
    fs::{FileType, Mode, OFlags},
    mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount},
};

use super::{Added, Shown, ViewError, cover, failed, failed_io, freeze};

/// Where the files are written; it is as it was afterwards.
const DESK: &str = "/tmp";

/// Mounts each over the file it is made of, read-only.
pub(super) fn add(all: &[Added]) -> Result<(), ViewError> {
    let desk = Path::new(DESK);
    if all.is_empty() || !desk.is_dir() {
        return Ok(());
    }
    mount("tmpfs", desk, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0700,size=16m"))
        .map_err(failed("covering", desk))?;
    let done = all.iter().enumerate().try_for_each(|(n, one)| one.put(&desk.join(n.to_string())));
    // The files stay as long as they are mounted elsewhere.
    unmount(desk, UnmountFlags::DETACH).map_err(failed("uncovering", desk))?;
    done
}

impl Added {
    fn put(&self, written: &Path) -> Result<(), ViewError> {
        let Some((folder, name)) = self.path.parent().zip(self.path.file_name()) else { return Ok(()) };
        if !folder.is_dir() {
            return Ok(());
        }
        let there = self.path.exists();
        let mut text = match there {
            true => fs::read(&self.path).map_err(failed_io("reading", &self.path))?,
            false => Vec::new(),
        };
        if text.last().is_some_and(|last| *last != b'\n') {
            text.push(b'\n');
        }
        text.extend_from_slice(self.lines.as_bytes());
        fs::write(written, text).map_err(failed_io("writing", written))?;
        fs::set_permissions(written, fs::Permissions::from_mode(0o644))
            .map_err(failed_io("opening to all", written))?;
        if !there {
            beside(folder, name)?;
        }
        mount_bind(written, &self.path).map_err(failed("adding lines to", &self.path))?;
        freeze(&self.path)
    }
}

/// A folder as it is, with one more file.
fn beside(folder: &Path, name: &OsStr) -> Result<(), ViewError> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed_io("reading", folder))?.flatten() {
        let path = entry.path();
        // What cannot be opened leads nowhere.
        let Ok(file) = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else {
            continue;
        };
        let stat = rustix::fs::fstat(&file).map_err(failed("looking at", &path))?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        kept.push(Shown { path, file, is_dir });
    }
    cover(folder, "mode=0755,size=1m,nr_inodes=1k", &kept)?;
    let new = folder.join(name);
    fs::write(&new, "").map_err(failed_io("making", &new))
}
