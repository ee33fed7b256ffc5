//! The gateway's password upstream, and the job's token, must be nowhere but where they belong.
//!
//! Looks at the environment and arguments of the job's processes while they run, at everything the
//! demo showed, and at every file below the world's folder: logs, recordings (raw and decoded),
//! audit, state, what the job wrote, and the database's own log.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use ::tests::{World, process::LIMIT, process::Running};
use anyhow::{Context, Result, bail, ensure};

#[derive(Debug)]
pub(super) struct Secrets {
    password: Vec<String>,
    tokens: Vec<String>,
    /// Processes of the job that were looked at: id and what they ran.
    looked_at: BTreeSet<(u32, String)>,
}

impl Secrets {
    pub(super) fn new(password: &str) -> Self {
        Self { password: forms(password), tokens: Vec::new(), looked_at: BTreeSet::new() }
    }

    /// A token nobody but its reader may see: its signature, without which it is worth nothing.
    pub(super) fn token(&mut self, token: &str) {
        self.tokens.extend(token.rsplit('.').next().map(str::to_owned));
    }

    /// How many processes of jobs were looked at, and whether psql was among them.
    pub(super) fn looked_at(&self) -> (usize, bool) {
        (self.looked_at.len(), self.looked_at.iter().any(|(_, program)| program.ends_with("psql")))
    }

    /// Fails when a text holds a secret. The error does not.
    pub(super) fn absent(&self, place: &str, bytes: &[u8]) -> Result<()> {
        let held = |needle: &String| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        ensure!(!self.password.iter().any(held), "the gateway's password upstream is in {place}");
        ensure!(!self.tokens.iter().any(held), "the job's token is in {place}");
        Ok(())
    }

    /// Looks at every process that is in a job now, and at the gateway's own.
    pub(super) fn processes(&mut self, world: &World) -> Result<()> {
        let mut pids = Vec::new();
        members(&world.cgroup().join("gateway-jobs"), &mut pids);
        let jobs = pids.len();
        pids.extend(world.agent.pid());
        for (index, pid) in pids.into_iter().enumerate() {
            for file in ["environ", "cmdline"] {
                let path = format!("/proc/{pid}/{file}");
                // It may have ended meanwhile.
                let Ok(bytes) = fs::read(&path) else { continue };
                self.absent(&path, &bytes)?;
                if file == "cmdline" && index < jobs && !bytes.is_empty() {
                    let program = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
                    self.looked_at.insert((pid, String::from_utf8_lossy(program).into_owned()));
                }
            }
        }
        Ok(())
    }

    /// Looks at every file of the world. What belongs there has to be found: a search that finds
    /// nothing at all proves nothing.
    pub(super) fn files(&self, world: &World) -> Result<usize> {
        let folder = world.folder();
        let found = grep(folder, &self.password)?;
        let allowed = folder.join("secrets/orders");
        ensure!(found.contains(&allowed), "the search does not find the password in its own file");
        if let Some(path) = found.iter().find(|path| **path != allowed) {
            bail!("the gateway's password upstream is in {}", path.display());
        }
        let found = grep(folder, &self.tokens)?;
        let tokens = folder.join("tokens");
        ensure!(found.iter().any(|path| path.starts_with(&tokens)), "the search does not find the token");
        if let Some(path) = found.iter().find(|path| !path.starts_with(&tokens)) {
            bail!("the job's token is in {}", path.display());
        }
        Ok(count(folder))
    }
}

/// Ways in which a password could be written down.
fn forms(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![secret.to_owned(), hex.to_uppercase(), hex];
    // Base64 of it at each of the three positions it can have in a longer text, whole groups only.
    for skip in 0..3 {
        let bytes = secret.as_bytes().get(skip..).unwrap_or_default();
        let whole = bytes.len() / 3 * 3;
        forms.push(base64(bytes.get(..whole).unwrap_or_default()));
    }
    forms
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |group: u32, shift: u32| char::from(ALPHABET[(group >> shift & 63) as usize]);
    bytes
        .chunks_exact(3)
        .map(|three| three.iter().fold(0, |group, byte| group << 8 | u32::from(*byte)))
        .flat_map(|group| [18, 12, 6, 0].map(|shift| digit(group, shift)))
        .collect()
}

/// Process ids in a cgroup and below.
fn members(cgroup: &Path, pids: &mut Vec<u32>) {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            members(&entry.path(), pids);
        }
    }
}

/// What is bound into the folder: not of this world.
const BOUND: [&str; 3] = ["programs", "venv", "bpf"];

/// Files below a folder that hold one of these.
fn grep(folder: &Path, needles: &[String]) -> Result<Vec<PathBuf>> {
    let mut grep = Command::new("grep");
    grep.args(["--recursive", "--text", "--fixed-strings", "--files-with-matches", "--null", "--file=-"])
        .args(BOUND.map(|name| format!("--exclude-dir={name}")))
        .arg(folder)
        .env("LC_ALL", "C");
    // On standard input: arguments are for everyone to see.
    let mut running = Running::capturing(&mut grep, None)?;
    running.write(format!("{}\n", needles.join("\n")).as_bytes())?;
    let out = running.finish(LIMIT)?;
    // Sockets and files that the database removes meanwhile are complained about; 1 is "nothing found".
    ensure!(!out.stdout.is_empty() || out.status.code() == Some(1), "searching for secrets failed: {out}");
    Ok(out.stdout.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).collect())
}

fn count(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() && BOUND.iter().any(|name| entry.file_name() == *name) => 0,
            Ok(kind) if kind.is_dir() => count(&entry.path()),
            Ok(kind) => usize::from(kind.is_file()),
            Err(_) => 0,
        })
        .sum()
}

/// The text of every recording, as `replay --json` decodes it.
pub(super) fn decoded(world: &World) -> Result<Vec<(PathBuf, String)>> {
    let mut all = Vec::new();
    for path in recordings(world)? {
        let name = path.to_str().context("a path that is not UTF-8")?;
        let out = world.agent.cli(&["replay", "--json", name])?;
        ensure!(out.success(), "{out}");
        all.push((path, out.stdout));
    }
    Ok(all)
}

/// Recordings, oldest day first.
pub(super) fn recordings(world: &World) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for day in fs::read_dir(world.agent.recordings())? {
        let day = day?.path();
        if day.is_dir() {
            for file in fs::read_dir(day)? {
                found.push(file?.path());
            }
        }
    }
    found.retain(|path| path.extension().is_some_and(|end| end == "gwr"));
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_recognised_in_base64_wherever_it_begins() {
        assert_eq!(base64(b"Many hands"), "TWFueSBoYW5k");
        // base64("x:marker-password-1234") and base64("marker-password-1234")
        let secrets = Secrets::new("marker-password-1234");
        for text in ["eDptYXJrZXItcGFzc3dvcmQtMTIzNA==", "bWFya2VyLXBhc3N3b3JkLTEyMzQ="] {
            assert!(secrets.absent("a text", text.as_bytes()).is_err(), "{text}");
        }
        assert!(secrets.absent("a text", b"marker-passwort-1234").is_ok());
    }
}
