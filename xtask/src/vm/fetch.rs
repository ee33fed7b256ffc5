//! Kernels, and the machine to run them on, from Debian's archive.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    apt::{self, Apt},
    host::{self, Host},
};

/// An unpacked kernel.
pub(super) struct Kernel {
    /// As `uname -r` says it.
    pub(super) release: String,
    pub(super) vmlinuz: PathBuf,
    /// The folder of its modules.
    pub(super) modules: PathBuf,
}

/// The newest kernel of this release whose version begins like that; fetched once.
pub(super) fn kernel(host: &Host, suite: &str, version: &str) -> Result<Kernel> {
    let apt = Apt::new(host, suite)?;
    let found = match newest(&apt, version)? {
        Some(found) => found,
        None => {
            apt.update()?;
            newest(&apt, version)?.with_context(|| {
                format!(
                    "{suite} has no linux-image-{version}*-cloud-amd64; `apt-get update` said nothing wrong"
                )
            })?
        }
    };
    let release = found.strip_prefix("linux-image-").unwrap_or(&found).to_owned();
    let folder = host.target.join("vm/kernels").join(&release);
    if !folder.join("complete").exists() {
        fs::remove_dir_all(&folder).ok();
        fs::create_dir_all(&folder)?;
        // Newer packages keep image and modules apart.
        let mut packages = vec![found.clone()];
        packages.extend(
            depends(&apt, &found)?
                .into_iter()
                .filter(|name| name.starts_with("linux-binary-") || name.starts_with("linux-modules-")),
        );
        apt.unpack(&packages, &folder)?;
        fs::write(folder.join("complete"), "")?;
    }
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|below| folder.join(below).join(&release))
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("{} has no modules", folder.display()))?;
    let vmlinuz = [folder.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")]
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("{} has no kernel", folder.display()))?;
    Ok(Kernel { release, vmlinuz, modules })
}

/// An unpacked QEMU.
pub(super) struct Emulator {
    folder: PathBuf,
}

impl Emulator {
    /// It runs with the C library and the libraries that it was built for, not with the machine's.
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

/// Release with the QEMU that is used. Bookworm's 7.2 emulates the 16-byte compare-and-exchange wrongly, which kernels
/// since 6.18 rely on where a CPU has it: without it they refuse BPF programs the memory for a socket's storage.
const EMULATOR_SUITE: &str = "trixie";

/// Fetched once.
pub(super) fn emulator(host: &Host) -> Result<Emulator> {
    let folder = host.target.join("vm/qemu");
    if !folder.join("complete").exists() {
        let apt = Apt::new(host, EMULATOR_SUITE)?;
        apt.update()?;
        fs::remove_dir_all(&folder).ok();
        fs::create_dir_all(&folder)?;
        // With an empty list of what is installed, so that every library comes along.
        let status = apt.folder().join("status");
        fs::write(&status, "")?;
        let archives = apt.folder().join("cache/archives");
        let mut download = apt.command("apt-get");
        download.args([
            "-o",
            &format!("Dir::State::status={}", status.display()),
            "-o",
            "Debug::NoLocking=1",
        ]);
        download.args(["--yes", "--download-only", "--no-install-recommends", "install", "qemu-system-x86"]);
        host::quietly("fetching QEMU", &mut download)?;
        apt::unpack(&archives, &folder)?;
        fs::write(folder.join("complete"), "")?;
    }
    Ok(Emulator { folder })
}

/// The newest such package of a release.
fn newest(apt: &Apt, version: &str) -> Result<Option<String>> {
    let mut search = apt.command("apt-cache");
    search.args(["search", "--names-only", "^linux-image-[0-9].*-cloud-amd64$"]);
    let text = host::output(&mut search)?;
    let wanted = format!("linux-image-{version}");
    Ok(text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| name.starts_with(&wanted))
        .max_by_key(|name| numbers(name))
        .map(str::to_owned))
}

fn depends(apt: &Apt, package: &str) -> Result<Vec<String>> {
    let text = host::output(apt.command("apt-cache").args(["depends", package]))?;
    Ok(text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned).collect())
}

/// The numbers in a name, so that 6.1.0-50 is newer than 6.1.0-9.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let newer = numbers("linux-image-6.1.0-50-cloud-amd64");
        assert!(newer > numbers("linux-image-6.1.0-9-cloud-amd64"));
        assert!(
            numbers("linux-image-6.12.107+deb13-cloud-amd64")
                > numbers("linux-image-6.12.94+deb13-cloud-amd64")
        );
    }
}
