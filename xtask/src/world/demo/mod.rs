//! `cargo xtask demo`: the gateway at work, every step real and checked.
//!
//! Two processes. The *stage* makes the world and plays the steps. The *supervisor* starts it in a
//! process group of its own, so that Ctrl-C reaches only the supervisor, and removes whatever the
//! stage leaves: when it fails, is interrupted, or is killed half-way through making something.

mod job;
mod kept;
mod secrets;
mod show;
mod stage;
mod steps;

use std::{
    env,
    io::Write,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use tests::names;
use tokio::signal::unix::{SignalKind, signal};

/// How long the dead may take to disappear.
const GONE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave everything running, and print what to try.
    #[arg(long)]
    keep: bool,
    /// Remove what --keep left running: all of it, or the world of this name.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    clean: Option<String>,
    /// Be the stage: the supervisor starts it so.
    #[arg(long, hide = true)]
    stage: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.stage {
        return stage::run(arguments.keep);
    }
    if let Some(only) = &arguments.clean {
        let kept = names::clean(Some(only.as_str()).filter(|only| !only.is_empty()));
        for name in &kept {
            println!("removed {}", name.as_str());
        }
        if kept.is_empty() {
            println!("nothing was kept");
        }
        return Ok(());
    }
    supervise(arguments.keep)
}

/// How the stage ended.
enum End {
    Itself(ExitStatus),
    Interrupted,
}

fn supervise(keep: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (pid, end) = runtime.block_on(play(keep))?;
    if let End::Itself(status) = &end
        && status.success()
        && keep
    {
        return Ok(());
    }
    names::sweep();
    let left = gone(pid);
    // A stage that ended by itself has said why.
    if let End::Itself(status) = &end
        && let Some(signal) = status.signal()
    {
        eprintln!("the demo was ended by signal {signal}");
    }
    ensure!(left.is_empty(), "the demo left something behind:\n  {}", left.join("\n  "));
    // A reader that had enough (`| head`) is no failure of the cleaning.
    writeln!(
        std::io::stdout(),
        "Nothing is left behind: no process, network namespace, cgroup, mount or file of it."
    )
    .ok();
    match end {
        End::Itself(status) if status.success() => Ok(()),
        End::Itself(_) => bail!("the demo failed"),
        End::Interrupted => bail!("the demo did not come to its end"),
    }
}

/// Runs the stage until it ends, or until someone wants it to.
async fn play(keep: bool) -> Result<(u32, End)> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    // setpriv becomes the stage; when we are killed, so is it.
    let mut command = tokio::process::Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .arg(env::current_exe().context("where is this program?")?)
        .args(["demo", "--stage"])
        .args(keep.then_some("--keep"))
        .stdin(Stdio::null())
        .process_group(0);
    let mut stage = command.spawn().context("cannot start `setpriv` (package util-linux)")?;
    let pid = stage.id().context("the stage has no process id")?;
    let interrupted = tokio::select! {
        status = stage.wait() => return Ok((pid, End::Itself(status?))),
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "asked to end",
        _ = hang_up.recv() => "the terminal is gone",
    };
    eprintln!("\n{interrupted}: removing everything");
    if let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        kill_process_group(group, Signal::KILL).ok();
    }
    stage.wait().await?;
    Ok((pid, End::Interrupted))
}

/// What is still there when the dead had their time to go.
fn gone(stage: u32) -> Vec<String> {
    let deadline = Instant::now() + GONE;
    loop {
        let left = names::left_by(stage);
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
