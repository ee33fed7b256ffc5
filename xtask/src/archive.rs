//! Debian's archive, through apt with a state of our own: other releases than the machine's, and sources.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::host;

/// apt for one release, beside the machine's own.
pub(crate) struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// Keeps its lists in `folder`.
    pub(crate) fn new(folder: PathBuf, suite: &str) -> Result<Self> {
        for below in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(below))?;
        }
        let mirror = mirror()?;
        let signed =
            if mirror.key.is_empty() { String::new() } else { format!("[signed-by={}] ", mirror.key) };
        let line = |kind: &str| format!("{kind} {signed}{} {suite} main\n", mirror.uri);
        fs::write(folder.join("sources.list"), line("deb") + &line("deb-src"))?;
        Ok(Self { folder })
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        command.args(["-q", "-o", &option("Dir::Etc::sourcelist", &self.folder.join("sources.list"))]);
        command.args(["-o", "Dir::Etc::sourceparts=/dev/null", "-o", "Acquire::Languages=none"]);
        command.args(["-o", &option("Dir::State::lists", &self.folder.join("lists"))]);
        command.args(["-o", &option("Dir::Cache", &self.folder.join("cache"))]);
        command.args(["-o", "APT::Sandbox::User=root"]);
        // What the machine has installed is no candidate here.
        command.args(["-o", "Dir::State::status=/dev/null"]);
        command
    }

    pub(crate) fn update(&self) -> Result<()> {
        host::quietly(
            &format!("package lists of {}", self.folder.file_name().unwrap_or_default().to_string_lossy()),
            self.command("apt-get").arg("update"),
        )
        .map(drop)
    }

    /// Packages, and what they need to run, near and far.
    pub(crate) fn needed(&self, packages: &[String]) -> Result<Vec<String>> {
        let mut depends = self.command("apt-cache");
        depends.args(["depends", "--recurse"]);
        for other in ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"] {
            depends.arg(format!("--no-{other}"));
        }
        let text = host::output(depends.args(packages))?;
        // Relations are indented; a name in angles is one that others provide.
        let names =
            text.lines().filter(|line| line.starts_with(|letter: char| letter.is_ascii_alphanumeric()));
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Fetches binary packages and unpacks them into `folder`, without running anything of theirs.
    pub(crate) fn unpack(&self, packages: &[impl AsRef<str>], folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let mut download = self.command("apt-get");
        download.current_dir(folder).arg("download").args(packages.iter().map(AsRef::as_ref));
        let label = match packages {
            [one] => format!("apt-get download {}", one.as_ref()),
            several => format!("apt-get download of {} packages", several.len()),
        };
        host::quietly(&label, &mut download)?;
        unpack_all(folder, folder)
    }

    /// Fetches a package with everything that it depends on, the C library included, and unpacks it into `folder`.
    pub(crate) fn unpack_whole(&self, package: &str, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let mut download = self.command("apt-get");
        // The machine's own apt may be at work.
        download.args(["-o", "Debug::NoLocking=1"]);
        download.args(["--yes", "--download-only", "--no-install-recommends", "install", package]);
        host::quietly(&format!("fetching {package} and what it needs"), &mut download)?;
        unpack_all(&self.folder.join("cache/archives"), folder)
    }
}

/// The packages in a folder, which are deleted.
fn unpack_all(packages: &Path, into: &Path) -> Result<()> {
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
