//! Everything a person runs: `cargo xtask <command>`.

mod archive;
mod build;
mod deny;
mod fuzz;
mod host;
mod kubernetes_types;
mod layers;
mod lint;
mod servers;
mod setup;
mod test;
mod vm;
mod world_runner;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::host::Host;

/// Sets up, builds, shows, tests and measures the gateway.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Finds or installs what building, demo and tests need; says what it cannot. Safe to repeat.
    Setup(setup::Arguments),
    /// Builds the agent with its kernel programs.
    Build(build::Arguments),
    /// Shows the gateway at work on a real PostgreSQL, and leaves nothing behind. Needs root.
    Demo {
        /// Leave everything running, and print what to try.
        #[arg(long)]
        keep: bool,
        /// Remove what --keep left running: all of it, or the world of this name.
        #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", conflicts_with = "keep")]
        clean: Option<String>,
    },
    /// Runs the tests: all of them, or one suite. End-to-end and kernel tests need root.
    Test(test::Arguments),
    /// Measures the gateway beside a direct connection and other proxies, or what the kernel programs cost.
    /// Needs root.
    Bench {
        /// What to measure.
        #[arg(default_value = "postgres", value_parser = ["postgres", "https", "kubernetes", "ssh", "kernel"])]
        name: String,
        /// Interleaved rounds: more of them narrow the spread.
        #[arg(long, default_value_t = 8)]
        rounds: usize,
        /// A few short rounds, to see that it works.
        #[arg(long)]
        quick: bool,
        /// Only measurements whose name contains this.
        #[arg(long)]
        only: Option<String>,
        /// Another build of the agent, measured beside this one against a server of its own.
        #[arg(long, value_name = "PATH")]
        agent: Option<std::path::PathBuf>,
        /// Of ssh: the size of the large file.
        #[arg(long, default_value_t = 1024)]
        megabytes: u32,
        /// Of ssh: how many small ones.
        #[arg(long, default_value_t = 10_000)]
        files: u32,
    },
    /// Proves that the pure crates reach no I/O and depend on each other in one direction.
    Layers,
    /// Clippy with warnings denied.
    Lint,
    /// Checks licences, sources and bans of every dependency.
    Deny,
    /// Runs the fuzz targets.
    Fuzz(fuzz::Arguments),
    /// Writes anew the table of Kubernetes' own types, from Debian's packages of their sources.
    KubernetesTypes,
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = Host::find().and_then(|host| match command {
        Command::Setup(arguments) => setup::run(&host, &arguments),
        Command::Build(arguments) => build::run(&host, &arguments),
        Command::Demo { keep, clean } => {
            let words: &[&str] = match &clean {
                Some(name) if name.is_empty() => &["--clean"],
                Some(name) => &["--clean", name],
                None if keep => &["--keep"],
                None => &[],
            };
            world_runner::run(&host, "demo", words, build::Profile::Dev)
        }
        Command::Test(arguments) => test::run(&host, &arguments),
        Command::Bench { name, rounds, quick, .. } if name == "kernel" => {
            test::bench_kernel(&host, if quick { 3 } else { rounds })
        }
        Command::Bench { name, rounds, quick, only, agent, megabytes, files } => {
            let [rounds, megabytes, files] = [rounds.to_string(), megabytes.to_string(), files.to_string()];
            let mut words =
                vec![name.as_str(), "--rounds", &rounds, "--megabytes", &megabytes, "--files", &files];
            if quick {
                words.push("--quick");
            }
            if let Some(only) = &only {
                words.extend(["--only", only]);
            }
            let agent = agent.map(|path| path.display().to_string());
            if let Some(agent) = &agent {
                words.extend(["--agent", agent]);
            }
            world_runner::run(&host, "bench", &words, build::Profile::Release)
        }
        Command::Layers => layers::run(&host),
        Command::Lint => lint::run(&host),
        Command::Deny => deny::run(&host),
        Command::Fuzz(arguments) => fuzz::run(&host, &arguments),
        Command::KubernetesTypes => kubernetes_types::run(&host),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
