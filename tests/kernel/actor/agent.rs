//! The smallest agent: attaches, beats, accepts. A test kills it and starts it again.

use std::{io::Write as _, path::PathBuf, sync::Arc, thread, time::Duration};

use anyhow::{Context as _, Result};
use gateway_agent::{
    intercept::Intercept,
    kernel::{Config, Kernel, Mode},
};

/// `agent CGROUP_ROOT PIN_DIR PORT [dns]`. Prints `ready`, then one line for each flow.
pub(crate) fn run(mut args: impl Iterator<Item = String>) -> Result<()> {
    let mut next = || args.next().context("usage: agent CGROUP_ROOT PIN_DIR PORT [dns]");
    let config = Config {
        cgroup_root: PathBuf::from(next()?),
        pin_dir: PathBuf::from(next()?),
        virtual_port: next()?.parse()?,
        flows_per_job: 1000,
        dns: next().is_ok_and(|word| word == "dns"),
        mode: Mode::Enforce,
    };
    let kernel = Arc::new(Kernel::attach(config)?);
    let beating = Arc::clone(&kernel);
    thread::spawn(move || {
        while beating.beat().is_ok() {
            thread::sleep(Duration::from_millis(200));
        }
    });
    kernel.beat()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let intercept = Intercept::bind(&kernel)?;
        say("ready");
        let mut streams = Vec::new();
        loop {
            let (stream, _) = intercept.accept().await?;
            match intercept.identify(&kernel, &stream) {
                Ok(flow) => say(&flow.original.to_string()),
                Err(error) => say(&error.to_string()),
            }
            // A while, so that a client that looks finds its peer.
            streams.insert(0, stream);
            streams.truncate(64);
        }
    })
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody listening is no reason to stop.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
