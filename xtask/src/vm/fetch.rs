//! Kernels, and the machine to run them on, from Debian's archive, through apt with a state of our own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::host::{self, Host};

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
    let found = match apt.newest(version)? {
        Some(found) => found,
        None => {
            apt.update()?;
            apt.newest(version)?.with_context(|| {
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
            apt.depends(&found)?
                .into_iter()
                .filter(|name| name.starts_with("linux-binary-") || name.starts_with("linux-modules-")),
        );
        for package in &packages {
            let mut download = apt.command("apt-get");
            download.current_dir(&folder).args(["download", package]);
            host::quietly(&format!("apt-get download {package}"), &mut download)?;
        }
        unpack(&folder, &folder)?;
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
        let status = apt.folder.join("status");
        fs::write(&status, "")?;
        let archives = apt.folder.join("cache/archives");
        let mut download = apt.command("apt-get");
        download.args([
            "-o",
            &format!("Dir::State::status={}", status.display()),
            "-o",
            "Debug::NoLocking=1",
        ]);
        download.args(["--yes", "--download-only", "--no-install-recommends", "install", "qemu-system-x86"]);
        host::quietly("fetching QEMU", &mut download)?;
        unpack(&archives, &folder)?;
        fs::write(folder.join("complete"), "")?;
    }
    Ok(Emulator { folder })
}

/// Every package in a folder; the packages are deleted.
fn unpack(packages: &Path, into: &Path) -> Result<()> {
    for entry in fs::read_dir(packages)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            host::quietly(
                &format!("unpacking {}", path.display()),
                Command::new("dpkg-deb").arg("-x").arg(&path).arg(into),
            )?;
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// apt for one release, beside the machine's own.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new(host: &Host, suite: &str) -> Result<Self> {
        let folder = host.target.join("vm/apt").join(suite);
        for below in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(below))?;
        }
        let mirror = mirror()?;
        let signed =
            if mirror.key.is_empty() { String::new() } else { format!("[signed-by={}] ", mirror.key) };
        fs::write(folder.join("sources.list"), format!("deb {signed}{} {suite} main\n", mirror.uri))?;
        Ok(Self { folder })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        command.args(["-q", "-o", &option("Dir::Etc::sourcelist", &self.folder.join("sources.list"))]);
        command.args(["-o", "Dir::Etc::sourceparts=/dev/null", "-o", "Acquire::Languages=none"]);
        command.args(["-o", &option("Dir::State::lists", &self.folder.join("lists"))]);
        command.args(["-o", &option("Dir::Cache", &self.folder.join("cache"))]);
        command.args(["-o", "APT::Sandbox::User=root"]);
        command
    }

    fn update(&self) -> Result<()> {
        host::quietly(
            &format!("package lists of {}", self.folder.file_name().unwrap_or_default().to_string_lossy()),
            self.command("apt-get").arg("update"),
        )
        .map(drop)
    }

    fn newest(&self, version: &str) -> Result<Option<String>> {
        let mut search = self.command("apt-cache");
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

    fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = host::output(self.command("apt-cache").args(["depends", package]))?;
        Ok(text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned).collect())
    }
}

/// The numbers in a name, so that 6.1.0-50 is newer than 6.1.0-9.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

struct Mirror {
    uri: String,
    /// Path of the keyring; empty for apt's own.
    key: String,
}

/// Where the machine itself gets Debian from.
fn mirror() -> Result<Mirror> {
    let mut targets = Command::new("apt-get");
    targets.args([
        "indextargets",
        "--format",
        "$(CODENAME)|$(REPO_URI)|$(SIGNED_BY)",
        "Created-By: Packages",
        "Origin: Debian",
    ]);
    let text = host::output(&mut targets)?;
    let line = text.lines().find(|line| {
        // Not the archive of security updates, which has no other release beside it.
        line.split('|').next().is_some_and(|codename| !codename.is_empty() && !codename.contains('-'))
    });
    let line = line.context("apt knows no Debian archive here: `apt-get update`, on a Debian machine")?;
    let mut fields = line.split('|').skip(1);
    let uri = fields.next().unwrap_or_default().to_owned();
    ensure!(!uri.is_empty(), "apt names no address for {line}");
    let key = fields.next().unwrap_or_default().to_owned();
    // Some versions of apt do not tell; an inline key cannot be named on one line.
    const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let key = match key {
        key if key.starts_with('/') => key,
        _ if Path::new(KEYRING).exists() => KEYRING.to_owned(),
        _ => String::new(),
    };
    Ok(Mirror { uri, key })
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
