//! The job's first process: waits until it is enrolled, puts the sandbox on, becomes the command, or stays beside
//! it as the init of the job's pid namespace.

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader, Read, Write},
    os::{
        fd::RawFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
    process::{Signal, set_parent_process_death_signal, setsid},
};

use super::{FAILED, MAX_SPEC, init};
use crate::sandbox::{Spec, sys};

/// Not for people; `exec` calls it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Descriptor of the socket to the launcher
    #[arg(long)]
    channel: RawFd,
    /// Leave the launcher's session and terminal
    #[arg(long)]
    new_session: bool,
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        match self.become_command() {
            Ok(code) => Ok(code),
            Err(error) => {
                complain(&format!("{error:#}"));
                Ok(ExitCode::from(FAILED))
            }
        }
    }

    /// Returns when the command cannot be run, or has ended beside this process.
    fn become_command(&self) -> anyhow::Result<ExitCode> {
        let Some((program, arguments)) = self.command.split_first() else { bail!("no command") };
        let mut launcher = Launcher::new(self.channel)?;
        // From now on its end is this process's, too.
        set_parent_process_death_signal(Some(Signal::KILL)).context("parent death signal")?;
        let spec = launcher.spec()?;
        if self.new_session {
            setsid().context("setsid")?;
        }
        spec.enter()?;
        // The signal was off for a moment while the user changed; the other end of the socket tells.
        launcher.is_there()?;
        let mut command = Command::new(program);
        command.args(arguments);
        if spec.init {
            return init::run(command, || launcher.started());
        }
        // Closed by becoming the command, which tells the launcher that it runs.
        Ok(could_not_run(program, &command.exec()))
    }
}

/// The other end of this process's socket.
struct Launcher {
    stream: BufReader<UnixStream>,
}

impl Launcher {
    fn new(number: RawFd) -> anyhow::Result<Self> {
        let fd = sys::take_inherited_socket(number).context("the socket to the launcher")?;
        Ok(Self { stream: BufReader::new(UnixStream::from(fd)) })
    }

    /// Waits for the sandbox, which comes when the job is enrolled.
    fn spec(&mut self) -> anyhow::Result<Spec> {
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(MAX_SPEC);
        limited.read_until(b'\n', &mut line).context("waiting for the launcher")?;
        if line.is_empty() {
            // The launcher has said why.
            std::process::exit(i32::from(FAILED));
        }
        serde_json::from_slice(&line).context("what the launcher said")
    }

    fn is_there(&self) -> anyhow::Result<()> {
        // It says nothing more, so there is either nothing yet or the end.
        match recv(self.stream.get_ref(), &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Ok(()),
            _ => bail!("the launcher is gone"),
        }
    }

    /// Tells it that signals can be passed on.
    fn started(&mut self) -> std::io::Result<()> {
        self.stream.get_mut().write_all(b"s")
    }
}

pub(super) fn complain(text: &str) {
    // Nowhere left to complain when this fails.
    let _ = writeln!(std::io::stderr(), "gateway-agent exec: {text}");
}

/// The status that shells use for it.
pub(super) fn could_not_run(program: &OsStr, error: &std::io::Error) -> ExitCode {
    complain(&format!("{}: {error}", program.to_string_lossy()));
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}
