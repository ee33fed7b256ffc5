//! QEMU from Debian's archive, with the C library and the libraries that it was built for.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Result;

use crate::{archive::Archive, host::Host};

/// Release whose QEMU is used. Bookworm's 7.2 emulates the 16-byte compare-and-exchange wrongly, which kernels since 6.18
/// rely on: a CPU without it gets no memory for a socket's BPF storage.
const SUITE: &str = "trixie";

/// An unpacked QEMU.
pub(super) struct Emulator {
    folder: PathBuf,
}

/// Fetched once.
pub(super) fn fetch(host: &Host) -> Result<Emulator> {
    let folder = host.target.join("vm/qemu");
    if !folder.join("complete").exists() {
        fs::remove_dir_all(&folder).ok();
        let archive = Archive::new(host.target.join("vm/apt").join(SUITE), SUITE)?;
        archive.update()?;
        archive.unpack_whole("qemu-system-x86", &folder)?;
        fs::write(folder.join("complete"), "")?;
    }
    Ok(Emulator { folder })
}

impl Emulator {
    pub(super) fn command(&self) -> Command {
        let usr = self.folder.join("usr");
        let mut command = Command::new(usr.join("lib64/ld-linux-x86-64.so.2"));
        command.env("QEMU_MODULE_DIR", usr.join("lib/x86_64-linux-gnu/qemu"));
        command.arg("--library-path").arg(usr.join("lib/x86_64-linux-gnu"));
        command.arg(usr.join("bin/qemu-system-x86_64"));
        command.arg("-L").arg(usr.join("share/qemu")).arg("-L").arg(usr.join("share/seabios"));
        command
    }
}
