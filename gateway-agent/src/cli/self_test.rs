//! `self-test-helper`: the job side of the agent's self-test.

use std::process::ExitCode;

/// Second half of the self-test, inside its cgroup
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        crate::kernel::help()?;
        Ok(ExitCode::SUCCESS)
    }
}
