//! `uninstall`: takes enforcement out of the kernel.

use std::process::ExitCode;

use anyhow::bail;

use super::{Global, print};

/// Detach every kernel program and remove the pinned maps
///
/// Stopping the daemon leaves enforcement on; this ends it. Jobs that still run are confined no longer. State,
/// recordings and keys stay.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Do it without being asked
    #[arg(long)]
    yes: bool,
}

impl Args {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let config = global.config()?;
        if !self.yes {
            bail!(
                "this ends enforcement below {}; say --yes to do it",
                config.kernel.cgroup_root.as_deref().unwrap_or("the cgroup2 mount".as_ref()).display()
            );
        }
        if std::os::unix::net::UnixStream::connect(&config.control.socket).is_ok() {
            bail!("the daemon is running; stop it first");
        }
        let found = crate::kernel::uninstall(&config.kernel.pin_dir)?;
        let links = found.links.iter().map(|name| format!("link {name}"));
        let maps = found.maps.iter().map(|name| format!("map {name}"));
        let mut removed: Vec<String> = links.chain(maps).collect();
        if !removed.is_empty() {
            removed.push(format!("directory {}", config.kernel.pin_dir.display()));
        }
        match global.json {
            true => print::json(&serde_json::json!({ "removed": removed }))?,
            false if removed.is_empty() => print::line("nothing was installed")?,
            false => {
                for what in &removed {
                    print::line(&format!("removed {what}"))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
