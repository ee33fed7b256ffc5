//! `run`: the daemon.

use std::process::ExitCode;

use super::Global;
use crate::telemetry::{self, LogFormat};

/// Run the daemon
///
/// Loads the kernel programs, serves redirected connections and the control socket until SIGTERM or SIGINT, and
/// tells systemd when it is ready. Enforcement stays in the kernel when the daemon ends: jobs then reach
/// nothing until it is back. SIGHUP reads the policy files again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Check configuration and policy, then end without touching the kernel
    #[arg(long)]
    check: bool,
    /// What to log, as in `info` or `warn,gateway_agent=debug`
    #[arg(long, value_name = "FILTER", env = "GATEWAY_LOG", default_value = "info")]
    log: String,
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

impl Args {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let config = global.config()?;
        if self.check {
            super::policy::load(&config.policy.files)?;
            super::print::line(&format!("{}: good", config.source.display()))?;
            return Ok(ExitCode::SUCCESS);
        }
        telemetry::init(self.log_format, &self.log)?;
        // Before the first secret is read.
        crate::credential::harden_process()?;
        crate::app::run(config)?;
        Ok(ExitCode::SUCCESS)
    }
}
