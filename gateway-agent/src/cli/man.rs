//! `man`: manual pages.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;

/// Write manual pages, one a command, into a folder
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Made when absent
    dir: PathBuf,
}

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        std::fs::create_dir_all(&self.dir).with_context(|| format!("{}", self.dir.display()))?;
        clap_mangen::generate_to(super::command(), &self.dir)
            .with_context(|| format!("{}", self.dir.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}
