//! A shell that runs one command after the other, inside a job or beside it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// Longer than any batch; the command itself is ended by `timeout` before.
const LIMIT: Duration = Duration::from_secs(150);

/// Ends what a command printed; its exit code follows.
const MARK: &str = "--- end of command ";

/// Starting a client costs the same everywhere: no fork of anything but the client.
#[derive(Debug)]
pub(super) struct Lane {
    shell: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Lane {
    /// `command` runs `sh -s`.
    pub(super) fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut shell = command.spawn().context("cannot start a shell")?;
        let stdin = shell.stdin.take().context("a shell without standard input")?;
        let stdout = shell.stdout.take().context("a shell without standard output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { shell, stdin, lines })
    }

    /// Runs a command and returns what it printed.
    pub(super) fn run(&mut self, command: &str) -> Result<String> {
        self.watch(command, |_| Ok(()))
    }

    /// Runs a command, shows every line as it comes, and returns them all.
    pub(super) fn watch(&mut self, command: &str, mut see: impl FnMut(&str) -> Result<()>) -> Result<String> {
        writeln!(self.stdin, "timeout 120 {command} 2>&1; echo \"{MARK}$?\"")?;
        let mut said = String::new();
        loop {
            let line = match self.lines.recv_timeout(LIMIT) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => bail!("`{command}` hangs:\n{said}"),
                Err(RecvTimeoutError::Disconnected) => bail!("the shell of `{command}` ended:\n{said}"),
            };
            match line.split_once(MARK) {
                Some((rest, "0")) => return Ok(said + rest),
                Some((rest, code)) => bail!("`{command}` ended with {code}:\n{said}{rest}"),
                None => {
                    see(&line)?;
                    said = said + &line + "\n";
                }
            }
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shell.kill().ok();
        self.shell.wait().ok();
    }
}
