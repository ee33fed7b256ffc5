//! One job for the whole demo: a shell that `gateway-agent exec` started, fed a command at a time.
//!
//! Its commands write what they say to files of the job's own, because a pipe tells only at the end.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tests::{
    World, agent,
    process::{LIMIT, Running},
};

use super::secrets::Secrets;

/// How long the job may live.
const TOKEN: u64 = 3600;

#[derive(Debug)]
pub(super) struct Job {
    shell: Running,
    folder: PathBuf,
    count: usize,
}

/// A command that was typed.
#[derive(Debug)]
pub(super) struct Command {
    files: PathBuf,
    typed: String,
    begun: Instant,
}

/// What it said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) status: i32,
    pub(super) out: String,
    pub(super) err: String,
    pub(super) took: Duration,
}

impl Job {
    /// Enrols it with a fresh token, which is among the secrets from then on.
    pub(super) fn enrol(world: &World, secrets: &mut Secrets) -> Result<Self> {
        let folder = world.folder().join("work");
        fs::create_dir_all(&folder)?;
        chown(&folder, Some(agent::JOB_UID), Some(agent::JOB_UID))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        let token = world.token().claim("exp", tests::issuer::now() + TOKEN).mint()?;
        secrets.token(&token);
        let shell = world.job_as(&token, &["bash", "--noprofile", "--norc"])?.open()?;
        let mut job = Self { shell, folder, count: 0 };
        let there = job.run("true", world, secrets).context("the job does not start")?;
        ensure!(there.status == 0, "the job's shell does not work: {}{}", there.out, there.err);
        Ok(job)
    }

    /// Types a command; it runs when the ones before it have ended.
    pub(super) fn start(&mut self, command: &str) -> Result<Command> {
        self.count += 1;
        let files = self.folder.join(self.count.to_string());
        let path = files.display();
        let line = format!(
            "( {command}\n) >{path}.out 2>{path}.err </dev/null; echo $? >{path}.new; mv {path}.new {path}.status\n"
        );
        self.shell.write(line.as_bytes())?;
        Ok(Command { files, typed: command.to_owned(), begun: Instant::now() })
    }

    /// Types a command and waits for its end, with an eye on the job's processes meanwhile.
    pub(super) fn run(&mut self, command: &str, world: &World, secrets: &mut Secrets) -> Result<Said> {
        self.start(command)?.finish(self, world, secrets)
    }

    /// The job's shell goes, and the job with it.
    pub(super) fn end(mut self) -> Result<()> {
        self.shell.write(b"exit 0\n")?;
        let out = self.shell.finish(LIMIT)?;
        ensure!(out.success(), "the job ended badly: {out}");
        Ok(())
    }
}

impl Command {
    /// What it has said on standard error so far.
    pub(super) fn complaints(&self) -> String {
        fs::read_to_string(self.files.with_extension("err")).unwrap_or_default()
    }

    /// What it has said on standard output so far.
    pub(super) fn output(&self) -> String {
        fs::read_to_string(self.files.with_extension("out")).unwrap_or_default()
    }

    pub(super) fn ended(&self) -> bool {
        self.files.with_extension("status").exists()
    }

    pub(super) fn finish(self, job: &mut Job, world: &World, secrets: &mut Secrets) -> Result<Said> {
        while !self.ended() {
            secrets.processes(world)?;
            if !job.shell.alive() {
                bail!("the job is gone; it ran: {}", self.typed);
            }
            if self.begun.elapsed() > LIMIT {
                bail!("`{}` in the job did not end within {LIMIT:?}\n{}", self.typed, self.complaints());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let read = |end: &str| {
            let path = self.files.with_extension(end);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        Ok(Said {
            status: read("status")?.trim().parse().context("an exit status")?,
            out: read("out")?,
            err: read("err")?,
            took: self.begun.elapsed(),
        })
    }
}
