//! demo, bench, and the own tests of PostgreSQL and OpenSSH.

mod bench;
mod compared;
mod demo;
mod regress;
mod ssh_regress;

use std::process::ExitCode;

use clap::Parser;

/// Programs that need the test fixtures. `cargo xtask` runs them.
#[derive(Debug, Parser)]
#[command(disable_help_subcommand = true)]
enum Arguments {
    /// Shows the gateway at work.
    Demo(demo::Arguments),
    /// Measures.
    Bench(bench::Arguments),
    /// Runs PostgreSQL's own tests directly and through the gateway.
    PgRegress(regress::Arguments),
    /// Runs OpenSSH's own tests directly and through the gateway.
    SshRegress(ssh_regress::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse() {
        Arguments::Demo(arguments) => demo::run(&arguments),
        Arguments::Bench(arguments) => bench::run(&arguments),
        Arguments::PgRegress(arguments) => regress::run(&arguments),
        Arguments::SshRegress(arguments) => ssh_regress::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
