//! `jobs`: who is enrolled.

use std::process::ExitCode;

use super::{Global, print};
use crate::admin::api::JobInfo;

/// List enrolled jobs
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let jobs: Vec<JobInfo> = global.client()?.get("/v1/jobs")?;
        if global.json {
            print::json(&jobs)?;
            return Ok(ExitCode::SUCCESS);
        }
        let rows = jobs
            .iter()
            .map(|j| {
                vec![
                    j.job.cgroup_id.to_string(),
                    j.job.subject.to_string(),
                    j.job.sub.clone(),
                    j.job.uid.to_string(),
                    j.sessions.to_string(),
                    print::ago(j.job.enrolled),
                    match j.job.ended {
                        Some(why) => format!("ended: {}", why.words()),
                        None => print::left(j.job.expires),
                    },
                    j.container.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
                    j.job.cgroup.display().to_string(),
                ]
            })
            .collect();
        let header =
            ["JOB", "SUBJECT", "SUB", "UID", "SESSIONS", "ENROLLED", "EXPIRES", "CONTAINER", "CGROUP"];
        print::table(&header, rows, "no jobs")?;
        Ok(ExitCode::SUCCESS)
    }
}
