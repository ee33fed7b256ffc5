//! The init of a job's pid namespace: starts the command, passes signals on, reaps what loses its parent, ends with
//! the command. Its end is that of everything else in the namespace.

use std::{
    io::IsTerminal,
    process::{Command, ExitCode},
};

use anyhow::Context;
use rustix::{
    io::Errno,
    process::{Pid, WaitOptions, WaitStatus, kill_process, wait},
};
use tokio::signal::unix::{SignalKind, signal};

use super::{FAILED, child::could_not_run, signals::Signals};

/// `started`: called when signals are passed on from there.
pub(super) fn run(
    mut command: Command,
    started: impl FnOnce() -> std::io::Result<()>,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // A pid namespace's init gets no signal that it has no handler for; so handlers first.
        let mut signals = Signals::new(std::io::stdin().is_terminal()).context("signals")?;
        let mut ended = signal(SignalKind::child()).context("signals")?;
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Ok(could_not_run(command.get_program(), &error)),
        };
        let pid = Pid::from_child(&child);
        started().context("the launcher")?;
        loop {
            tokio::select! {
                // The command may have ended just now; its status says so.
                number = signals.next() => { let _ = kill_process(pid, number); }
                _ = ended.recv() => {
                    if let Some(status) = reap(pid)? {
                        return Ok(ExitCode::from(code(status)));
                    }
                }
            }
        }
    })
}

/// Everything that has ended; the status of `wanted` when it is among them.
fn reap(wanted: Pid) -> anyhow::Result<Option<WaitStatus>> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == wanted => return Ok(Some(status)),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for the command"),
        }
    }
}

fn code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}
