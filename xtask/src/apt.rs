//! apt for another Debian release, beside the machine's own: its lists and packages stay in the target folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::host::{self, Host};

/// apt for one release.
pub(crate) struct Apt {
    folder: PathBuf,
}

impl Apt {
    pub(crate) fn new(host: &Host, suite: &str) -> Result<Self> {
        let folder = host.target.join("apt").join(suite);
        for below in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(below))?;
        }
        let mirror = mirror()?;
        let signed =
            if mirror.key.is_empty() { String::new() } else { format!("[signed-by={}] ", mirror.key) };
        fs::write(folder.join("sources.list"), format!("deb {signed}{} {suite} main\n", mirror.uri))?;
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
        // What is installed here has no part in it.
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

    /// A package, and what it needs to run, near and far.
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

    /// Fetches packages and unpacks them into a folder, without running anything of theirs.
    pub(crate) fn unpack(&self, packages: &[String], folder: &Path) -> Result<()> {
        let mut download = self.command("apt-get");
        download.current_dir(folder).arg("download").args(packages);
        let label = match packages {
            [one] => format!("apt-get download {one}"),
            several => format!("apt-get download of {} packages", several.len()),
        };
        host::quietly(&label, &mut download)?;
        unpack(folder, folder)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Unpacks every package in a folder, and deletes the packages.
pub(crate) fn unpack(packages: &Path, into: &Path) -> Result<()> {
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
