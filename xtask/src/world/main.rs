//! demo, bench and PostgreSQL's own tests.

mod bench;
mod demo;
mod regress;

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
}

fn main() -> ExitCode {
    let done = match Arguments::parse() {
        Arguments::Demo(arguments) => demo::run(&arguments),
        Arguments::Bench(arguments) => bench::run(&arguments),
        Arguments::PgRegress(arguments) => regress::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
