//! demo and bench.

mod bench;
mod demo;

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
}

fn main() -> ExitCode {
    let done = match Arguments::parse() {
        Arguments::Demo(arguments) => demo::run(&arguments),
        Arguments::Bench(arguments) => bench::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
