//! A job: a command that `gateway-agent exec` runs in a cgroup of its own.

use std::{ffi::OsStr, path::PathBuf, process::Command, time::Duration};

use anyhow::Result;

use crate::process::{LIMIT, Output, Running};

/// A job in the making. See [`crate::World::job`].
#[derive(Debug)]
#[must_use]
pub struct Job {
    command: Command,
    stdin: Vec<u8>,
    limit: Duration,
    token: PathBuf,
}

impl Job {
    pub(crate) fn new(command: Command, token: PathBuf) -> Self {
        Self { command, stdin: Vec::new(), limit: LIMIT, token }
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn stdin(mut self, text: impl AsRef<[u8]>) -> Self {
        self.stdin = text.as_ref().to_owned();
        self
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The file with its token.
    #[must_use]
    pub fn token(&self) -> &PathBuf {
        &self.token
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started or hangs. For tests.
    #[must_use]
    #[track_caller]
    pub fn run(self) -> Output {
        let limit = self.limit;
        match self.start().and_then(|job| job.finish(limit)) {
            Ok(out) => out,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// Starts it, with its standard input fed and closed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut self) -> Result<Running> {
        Running::capturing(&mut self.command, Some(&self.stdin))
    }

    /// What it would run, for whoever talks to it while it runs.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Starts it with its standard input left open to write to.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn open(mut self) -> Result<Running> {
        Running::capturing(&mut self.command, None)
    }
}
