//! The directory on the BPF file system that keeps programs attached while no agent runs.

use std::{
    fs, io,
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, mount};

use super::{Error, sys};

const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

/// Makes the pin directory, mounting the BPF file system at its parent when that is none yet. The mount must
/// outlive the agent: a service must not have a mount namespace of its own in which only it sees the mount.
pub fn prepare(pin_dir: &Path) -> Result<(), Error> {
    let failed = |step| move |source| Error::PinDir { path: pin_dir.to_owned(), step, source };
    let parent = pin_dir.parent().filter(|parent| parent.is_absolute()).ok_or_else(|| {
        failed("parsing the path")(io::Error::other("an absolute path with a parent is needed"))
    })?;
    fs::create_dir_all(parent).map_err(failed("creating its parent"))?;
    if !is_bpffs(parent).map_err(failed("looking at its parent"))? {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("bpf", parent, "bpf", flags, c"mode=0700")
            .map_err(|errno| failed("mounting a BPF file system at its parent")(errno.into()))?;
        tracing::info!(path = %parent.display(), "mounted a BPF file system");
    }
    match fs::DirBuilder::new().mode(0o700).create(pin_dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("creating it")(error));
        }
        _ => {}
    }
    let meta = fs::symlink_metadata(pin_dir).map_err(failed("looking at it"))?;
    let mode = meta.permissions().mode() & 0o7777;
    if !meta.is_dir() || mode & 0o077 != 0 || meta.uid() != 0 {
        return Err(Error::PinDirOpen { path: pin_dir.to_owned(), mode, owner: meta.uid() });
    }
    Ok(())
}

/// What `uninstall` took away.
#[derive(Debug, Default, serde::Serialize)]
pub struct Removed {
    /// Names of the links, each a hook that is now detached.
    pub links: Vec<String>,
    pub maps: Vec<String>,
}

/// Detaches everything that is pinned in the directory, and removes the directory. Jobs are free of the
/// gateway afterwards, so end them first. A directory that does not exist removes nothing.
pub fn uninstall(pin_dir: &Path) -> Result<Removed, Error> {
    let failed = |step| move |source| Error::PinDir { path: pin_dir.to_owned(), step, source };
    let entries = match fs::read_dir(pin_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Removed::default()),
        entries => entries.map_err(failed("reading it"))?,
    };
    if !is_bpffs(pin_dir).map_err(failed("looking at it"))? {
        return Err(failed("looking at it")(io::Error::other("it does not lie on a BPF file system")));
    }
    let mut names: Vec<String> = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()
        .map_err(failed("reading it"))?;
    names.sort();
    let mut removed = Removed::default();
    // Links first: whatever fails in between, no program is left that nobody can reach.
    for (links, list) in [(true, &mut removed.links), (false, &mut removed.maps)] {
        for name in names.iter().filter(|name| name.starts_with(LINK) == links) {
            let path = pin_dir.join(name);
            if links {
                // Taking the pin away would leave it to whoever else holds the link, and to a later moment.
                let link = sys::object_get(&path).map_err(failed("opening a link"))?;
                sys::link_detach(link.as_fd()).map_err(failed("detaching a link"))?;
            }
            fs::remove_file(path).map_err(failed("removing a pin"))?;
            list.push(name.trim_start_matches(LINK).to_owned());
        }
    }
    fs::remove_dir(pin_dir).map_err(failed("removing it"))?;
    Ok(removed)
}

const LINK: &str = "link_";

pub(super) fn link_path(pin_dir: &Path, hook: &str) -> PathBuf {
    pin_dir.join(format!("{LINK}{hook}"))
}

/// Links that begin with this belong to followed network namespaces.
const NAMESPACE: &str = "link_netns_";

/// The name of the link that holds sk_lookup of a namespace.
pub(super) fn namespace_link(cookie: u64) -> String {
    format!("netns_{cookie:x}")
}

/// Cookies of the namespaces whose links are pinned.
pub(super) fn namespaces(pin_dir: &Path) -> io::Result<Vec<u64>> {
    let mut cookies = Vec::new();
    for entry in fs::read_dir(pin_dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let cookie = name.strip_prefix(NAMESPACE).map(|hex| hex.trim_end_matches("_new"));
        cookies.extend(cookie.and_then(|hex| u64::from_str_radix(hex, 16).ok()));
    }
    Ok(cookies)
}

/// Takes the pin of a namespace's link away; with its last descriptor the link goes.
pub(super) fn remove_namespace(pin_dir: &Path, cookie: u64) -> io::Result<()> {
    let name = namespace_link(cookie);
    for path in [link_path(pin_dir, &name), link_path(pin_dir, &format!("{name}_new"))] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    // The field's type differs by architecture, and so does its sign.
    Ok(rustix::fs::statfs(path)?.f_type as u32 == BPF_FS_MAGIC)
}
