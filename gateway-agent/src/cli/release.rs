//! `release`: ends a job's identity.

use std::{path::PathBuf, process::ExitCode};

use super::{Global, print};
use crate::admin::api::Release;

/// End a job's identity and its sessions
///
/// What still runs in the cgroup stays confined and reaches nothing; the kernel forgets the cgroup when it is
/// empty.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Args {
    /// The job's cgroup id, as `jobs` prints it
    #[arg(value_name = "JOB")]
    job: Option<u64>,
    /// A directory at or below the job's cgroup
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let which = Release { job: self.job, cgroup: self.cgroup.clone() };
        let () = global.client()?.post("/v1/release", &which)?;
        match global.json {
            true => print::json(&serde_json::json!({ "released": which }))?,
            false => print::line("released")?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
