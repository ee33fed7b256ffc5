//! The stage: makes the world, plays the steps, takes the world down or leaves it.

use std::time::Instant;

use anyhow::Result;
use tests::{World, world};

use super::{
    job::{Job, Said},
    kept,
    secrets::Secrets,
    show::{Show, Who},
};

/// What the steps work with. Dropped in this order.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) job: Job,
    pub(super) world: World,
    pub(super) show: Show,
    pub(super) secrets: Secrets,
}

pub(super) fn run(keep: bool) -> Result<()> {
    let begun = Instant::now();
    let mut show = Show::new();
    show.chapter(
        "The gateway agent, at work",
        "A real PostgreSQL, a token issuer, the agent and a job, in network namespaces and a cgroup of their own.",
    )?;
    let world = World::builder().approval_expires("5m").start()?;
    let mut secrets = Secrets::new(world.password());
    let mut stage = match Job::enrol(&world, &mut secrets) {
        Ok(job) => Stage { job, world, show, secrets },
        Err(error) => return Err(error.context(format!("the agent's log:\n{}", world.agent.log()))),
    };
    if let Err(error) = stage.play() {
        return Err(stage.explain(error));
    }
    let Stage { job, world, mut show, .. } = stage;
    job.end()?;
    show.line("")?;
    show.line(&format!("Everything held ({:.0} s).", begun.elapsed().as_secs_f64()))?;
    if keep {
        return kept::leave(world, &mut show);
    }
    Ok(())
}

impl Stage {
    fn play(&mut self) -> Result<()> {
        self.show.line("")?;
        self.show.line(&format!("  database   {}, far away behind a wire", world::DATABASE))?;
        self.show.line(&format!("  folder     {}", self.world.folder().display()))?;
        self.show.line(&format!("  cgroup     {}", self.world.cgroup().display()))?;
        self.masked_select()?;
        self.over_tls()?;
        self.denied_drop()?;
        self.approved_delete()?;
        self.masked_copy()?;
        self.straight_to_the_database()?;
        self.undeclared_destination()?;
        self.killed()?;
        self.back()?;
        self.replay()?;
        self.verify()?;
        self.metrics()?;
        self.no_secret()
    }

    /// Runs a command in the job and shows both.
    pub(super) fn in_job(&mut self, command: &str) -> Result<Said> {
        self.show.command(Who::Job, command)?;
        let said = self.job.run(command, &self.world, &mut self.secrets)?;
        self.said(&said)?;
        Ok(said)
    }

    /// Shows what a command in the job said.
    pub(super) fn said(&mut self, said: &Said) -> Result<()> {
        self.show.output(&said.out)?;
        self.show.output(&said.err)
    }

    /// Runs `gateway-agent WORDS` as the operator and shows both. Standard output, when it went well.
    pub(super) fn operate(&mut self, words: &[&str]) -> Result<String> {
        let out = self.try_operate(words)?;
        anyhow::ensure!(out.success(), "{out}");
        Ok(out.stdout)
    }

    /// The same, whatever comes of it.
    pub(super) fn try_operate(&mut self, words: &[&str]) -> Result<tests::process::Output> {
        let typed: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        self.show.command(Who::Operator, &format!("gateway-agent {}", typed.join(" ")))?;
        let out = self.world.agent.cli(words)?;
        self.show.output(&out.stdout)?;
        self.show.output(&out.stderr)?;
        Ok(out)
    }

    /// Asks the database itself, past the gateway, and shows both.
    pub(super) fn ask_database(&mut self, sql: &str) -> Result<String> {
        self.show
            .command(Who::Operator, &format!("psql -Atc {} # on the database's own host", quoted(sql)))?;
        let rows = self.world.db.admin(tests::postgres::Postgres::DATABASE, sql)?;
        self.show.output(&rows)?;
        Ok(rows)
    }

    /// An error with the end of the agent's log.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        const LINES: usize = 30;
        let log = self.world.agent.log();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n");
        if self.secrets.absent("the agent's log", end.as_bytes()).is_err() {
            return error.context("the agent's log holds a secret and is not shown");
        }
        error.context(format!("the end of the agent's log:\n{end}\n\nthe demo stopped"))
    }
}

/// A word as one would type it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}
