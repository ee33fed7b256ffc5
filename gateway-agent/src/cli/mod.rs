//! The command line. One file a subcommand; here what they share.

mod approvals;
mod client;
mod completions;
mod enroll;
mod exec;
mod jobs;
mod man;
mod policy;
mod print;
mod release;
mod replay;
mod run;
mod self_test;
mod sessions;
mod status;
mod token;
mod uninstall;
mod verify;

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Config, DEFAULT_PATH, DEFAULT_SOCKET};

const LONG_ABOUT: &str = "\
Runs jobs behind a gateway that they cannot go around.

Every connection of an enrolled job to a declared resource is redirected by the kernel into this agent, decided \
by policy under the job's verified identity, logged in with a credential the job never sees, masked and \
recorded. Everything else that a job dials is refused.

`run` is the daemon. `exec` starts a job. The other commands talk to the daemon over its control socket, which \
answers root and the members of the configured group, or work on files.";

const EXAMPLES: &str = "\
Examples:
  gateway-agent run --config /etc/gateway/agent.yaml
  gateway-agent exec --token-command 'fetch-token \"$GATEWAY_AUDIENCE\"' -- ./agent.sh
  gateway-agent approvals watch
  gateway-agent policy explain --subject payments-agent --resource orders 'DELETE FROM orders'

Exit status:
  0   done
  1   refused or failed; the reason is on standard error
  2   the command line is wrong
  3   the daemon does not answer on its control socket
  4   the caller may not do this
  exec ends with the status of its command, 125 when the job could not be made, 126 when the
  command cannot be run, 127 when it is not found, 128+N when signal N ended it.";

/// The arguments of `gateway-agent`.
#[derive(Debug, Parser)]
#[command(name = "gateway-agent", version, about = "Runs jobs behind a gateway that they cannot go around", long_about = LONG_ABOUT, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// The agent's configuration [default: /etc/gateway/agent.yaml]
    #[arg(long, short, global = true, value_name = "FILE", env = "GATEWAY_CONFIG")]
    config: Option<PathBuf>,
    /// The daemon's control socket [default: from the configuration, or /run/gateway/control.sock]
    #[arg(long, global = true, value_name = "PATH", env = "GATEWAY_SOCKET")]
    socket: Option<PathBuf>,
    /// Print JSON instead of tables and sentences
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Exec(exec::Args),
    /// Second half of `exec`, inside the job's cgroup.
    #[command(hide = true)]
    ExecChild(exec::child::Args),
    /// The job side of the agent's self-test.
    #[command(hide = true)]
    SelfTestHelper(self_test::Args),
    Enroll(enroll::Args),
    Release(release::Args),
    Jobs(jobs::Args),
    Sessions(sessions::Args),
    Approvals(approvals::Args),
    Policy(policy::Args),
    Replay(replay::ReplayArgs),
    Verify(verify::VerifyArgs),
    Status(status::Args),
    Uninstall(uninstall::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Parses the command line, does what it says, and prints what went wrong.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(code) => code,
        // A reader that had enough (`| head`) is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere left to complain when this fails.
            let _ = writeln!(std::io::stderr(), "gateway-agent: {}", told(&error));
            error
                .downcast_ref::<client::ClientError>()
                .map_or(ExitCode::FAILURE, client::ClientError::exit_code)
        }
    }
}

/// The whole command tree, for completions and man pages.
pub fn command() -> clap::Command {
    Cli::command()
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let global = &cli.global;
    match cli.command {
        Command::Run(args) => args.run(global),
        Command::Exec(args) => args.run(global),
        Command::ExecChild(args) => args.run(),
        Command::SelfTestHelper(args) => args.run(),
        Command::Enroll(args) => args.run(global),
        Command::Release(args) => args.run(global),
        Command::Jobs(args) => args.run(global),
        Command::Sessions(args) => args.run(global),
        Command::Approvals(args) => args.run(global),
        Command::Policy(args) => args.run(global),
        Command::Replay(args) => replay::run(args, global.json),
        Command::Verify(args) => verify::run(args, global.json),
        Command::Status(args) => args.run(global),
        Command::Uninstall(args) => args.run(global),
        Command::Completions(args) => args.run(),
        Command::Man(args) => args.run(),
    }
}

/// An error and its causes, without saying again what an outer one has said.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |mut text, cause| {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        text
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

impl Global {
    /// The configuration file, named or at its usual place.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let path = self.config.clone().unwrap_or_else(|| DEFAULT_PATH.into());
        Ok(Config::load(&path)?)
    }

    /// Where the daemon listens. A configuration that was named must be good; the usual one may be absent.
    fn socket(&self) -> anyhow::Result<PathBuf> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        match (&self.config, self.config()) {
            (_, Ok(config)) => Ok(config.control.socket),
            (Some(_), Err(error)) => Err(error),
            (None, Err(_)) => Ok(DEFAULT_SOCKET.into()),
        }
    }

    /// A client of the daemon.
    fn client(&self) -> anyhow::Result<client::Client> {
        Ok(client::Client::new(self.socket()?)?)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
