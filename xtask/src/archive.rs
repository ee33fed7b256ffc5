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

    /// Fetches a binary package and unpacks it into `folder`.
    pub(crate) fn unpack(&self, package: &str, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let mut download = self.command("apt-get");
        download.current_dir(folder).args(["download", package]);
        host::quietly(&format!("apt-get download {package}"), &mut download)?;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                host::quietly(
                    &format!("unpacking {}", path.display()),
                    Command::new("dpkg-deb").arg("-x").arg(&path).arg(folder),
                )?;
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
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
