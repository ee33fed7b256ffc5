//! `xtask test`: one build, then the suites in order, each with its time, and one line of totals.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    build::{self, Profile, TestProgram},
    fuzz,
    host::{self, Host},
    servers, setup, vm, world_runner,
};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// One suite; all of them in order by default.
    #[arg(value_enum)]
    suite: Option<Suite>,
    /// Only tests whose name contains this. Run by these names alone: `e2e pg-regress`, PostgreSQL's own suites
    /// (minutes), `e2e ssh-regress`, OpenSSH's, `e2e drivers`, drivers and tools that setup would not install otherwise, `e2e pg-versions`, servers of
    /// other versions, and `e2e kubernetes`, which builds an API server once (20 minutes).
    filter: Option<String>,
    /// Tests at once within a suite.
    #[arg(long)]
    threads: Option<usize>,
    /// Also each fuzz target, for this many seconds.
    #[arg(long, value_name = "SECONDS")]
    fuzz: Option<u32>,
    #[command(flatten)]
    kernel: Kernel,
}

/// What only `xtask test kernel` understands.
#[derive(Debug, Default, clap::Args)]
struct Kernel {
    /// kernel: print every known way around with its state and its tests, and run nothing.
    #[arg(long)]
    list: bool,
    /// kernel: take this mandatory hook off and see which vectors notice; `all` for each in turn.
    #[arg(long = "break", value_name = "HOOK")]
    broken: Option<String>,
    /// kernel: a thousand swaps under load and a minute of random calls.
    #[arg(long)]
    full: bool,
    /// kernel: only while the gateway is up, resolving, killed, stopped or upgrading; several with commas.
    #[arg(long, value_name = "STATES")]
    states: Option<String>,
    /// kernel: where random calls begin.
    #[arg(long)]
    seed: Option<u64>,
    /// kernel: the same on another kernel, emulated: 5.10, 6.1, 6.12, 6.12-lsm, newest, or all.
    #[arg(long, value_name = "VERSION", conflicts_with = "list")]
    vm: Option<String>,
    /// kernel: print every attempt.
    #[arg(long)]
    verbose: bool,
}

/// The runner of vectors, which alone knows the options below.
fn is_runner(program: &TestProgram) -> bool {
    program.package == "tests" && program.name == "kernel"
}

impl Kernel {
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for (name, set) in [("--list", self.list), ("--full", self.full), ("--verbose", self.verbose)] {
            if set {
                words.push(name.to_owned());
            }
        }
        let seed = self.seed.map(|seed| seed.to_string());
        for (name, value) in [("--break", &self.broken), ("--states", &self.states), ("--seed", &seed)] {
            if let Some(value) = value {
                words.extend([name.to_owned(), value.clone()]);
            }
        }
        words
    }

    /// These print something of their own, and no summary of tests.
    fn is_report(&self) -> bool {
        self.list || self.broken.is_some()
    }
}

const DRIVERS: &str = "drivers";
const KUBERNETES: &str = "kubernetes";

type Provide = fn(&Host) -> Result<()>;

/// Suites of servers, which `xtask-world` runs directly and through the gateway, and what provides for them.
const COMPARED: &[(&str, Provide)] =
    &[("pg-regress", setup::postgresql_tests), ("ssh-regress", setup::for_openssh_tests)];

/// Test programs that run by name alone: what `xtask test e2e NAME` says, and what provides for them.
const BY_NAME: &[(&str, &str, Provide)] =
    &[(DRIVERS, "e2e_drivers", setup::for_drivers), (KUBERNETES, "e2e_kubernetes", setup::for_kubernetes)];

const PG_VERSIONS: &str = "pg-versions";
const VERSIONS_PROGRAM: &str = "e2e_versions";

/// Of the tests with the installed server, those that other versions may come out of otherwise: logging in, the protocol,
/// settings, types, COPY, cancelling, roles, estimates, names.
const BY_VERSION: &[&str] = &[
    "psql::",
    "wire::",
    "drivers::",
    "roles::",
    "settings::",
    "transforms::",
    "reload::",
    "gates::what",
    "gates::who",
    "gates::names",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    /// What needs nothing but the code.
    Unit,
    /// Real servers, real clients, through the real kernel.
    E2e,
    /// Ways around the kernel programs.
    Kernel,
}

impl Suite {
    const ALL: [Self; 3] = [Self::Unit, Self::E2e, Self::Kernel];

    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::E2e => "e2e",
            Self::Kernel => "kernel",
        }
    }

    fn has(self, program: &TestProgram) -> bool {
        let world = program.package == "tests" && program.integration;
        match self {
            Self::Unit => !world,
            Self::E2e => {
                let by_name =
                    program.name == VERSIONS_PROGRAM || BY_NAME.iter().any(|(_, of, _)| *of == program.name);
                world && program.name.starts_with("e2e") && !by_name
            }
            Self::Kernel => world && program.name.starts_with("kernel"),
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
}

pub(crate) fn run(host: &Host, arguments: &Arguments) -> Result<()> {
    let suites = arguments.suite.map_or_else(|| Suite::ALL.to_vec(), |suite| vec![suite]);
    ensure!(
        arguments.suite == Some(Suite::Kernel)
            || (arguments.kernel.words().is_empty() && arguments.kernel.vm.is_none()),
        "--list, --break, --full, --states, --seed, --vm and --verbose belong to `cargo xtask test kernel`"
    );
    if suites.iter().any(|suite| *suite != Suite::Unit) {
        ensure!(
            host::is_root(),
            "the e2e and kernel tests need root: they make network namespaces and cgroups, and load kernel \
             programs. `cargo xtask test unit` runs without"
        );
        setup::for_worlds(host)?;
    } else {
        setup::for_building(host)?;
    }
    let compared = COMPARED
        .iter()
        .find(|(name, _)| arguments.suite == Some(Suite::E2e) && arguments.filter.as_deref() == Some(name));
    if let Some((name, provide)) = compared {
        provide(host)?;
        return world_runner::run(host, name, &[], Profile::Dev);
    }
    let named = BY_NAME
        .iter()
        .find(|(name, ..)| arguments.suite == Some(Suite::E2e) && arguments.filter.as_deref() == Some(name));
    if let Some((_, _, provide)) = named {
        provide(host)?;
    }
    eprintln!("-- building the tests");
    let started = Instant::now();
    let programs = build::tests(host)?;
    eprintln!("ok building the tests ({:.0} s)", started.elapsed().as_secs_f64());

    if let Some((_, wanted, _)) = named {
        let program = programs.iter().find(|program| program.name == *wanted);
        let program = program.with_context(|| format!("{wanted} was not built"))?;
        let tally =
            run_program(host, program, &Arguments { threads: arguments.threads, ..Arguments::default() })?;
        ensure!(tally.failed == 0 && tally.passed > 0, "{} test(s) failed", tally.failed);
        return Ok(());
    }
    if arguments.suite == Some(Suite::E2e) && arguments.filter.as_deref() == Some(PG_VERSIONS) {
        return against_versions(host, &programs, arguments);
    }
    if let Some(which) = &arguments.kernel.vm {
        return guests(host, which, &programs, arguments);
    }
    if arguments.kernel.is_report() {
        let program = programs.iter().find(|program| is_runner(program)).context("no kernel tests")?;
        return host::run(command(host, program, arguments).stdout(Stdio::inherit()));
    }

    let mut total = Tally::default();
    let mut lines = Vec::new();
    for suite in suites {
        let started = Instant::now();
        eprintln!("-- {} tests", suite.name());
        let tally = run_suite(host, suite, &programs, arguments)?;
        lines.push(line(suite.name(), tally, started.elapsed()));
        eprintln!("{}", lines[lines.len() - 1]);
        total.passed += tally.passed;
        total.failed += tally.failed;
        total.ignored += tally.ignored;
    }
    if let Some(seconds) = arguments.fuzz {
        fuzz::run(host, &fuzz::Arguments::all(seconds))?;
    }
    println!("\n{}", lines.join("\n"));
    println!("{} passed, {} failed", total.passed, total.failed);
    ensure!(total.failed == 0, "{} test(s) failed", total.failed);
    if total.passed == 0 {
        bail!("no test ran: does any name contain {:?}?", arguments.filter.as_deref().unwrap_or_default());
    }
    Ok(())
}

/// A choice of the tests against servers of other versions.
fn against_versions(host: &Host, programs: &[TestProgram], arguments: &Arguments) -> Result<()> {
    let servers = servers::servers(host)?;
    let newest = servers.last().context("no servers")?;
    let mut lines = Vec::new();
    let mut failed = 0;
    for server in &servers {
        for (name, chosen) in [(VERSIONS_PROGRAM, &[][..]), ("e2e_postgres", BY_VERSION)] {
            let program = programs.iter().find(|program| program.name == name).context("not built")?;
            eprintln!("-- {name} with PostgreSQL {}", server.version);
            let started = Instant::now();
            let of_program = Arguments { threads: arguments.threads, ..Arguments::default() };
            let mut command = command(host, program, &of_program);
            command.env("GATEWAY_POSTGRES", &server.root).env("GATEWAY_LIBPQ", &newest.root).args(chosen);
            // An older psql asks a newer server for columns that it no longer has; the newest asks in its stead.
            command.args(["--skip", "what_psql_itself_asks"]);
            let tally = counted(command, program)?;
            ensure!(tally.passed + tally.failed > 0, "{name} ran nothing");
            failed += tally.failed;
            lines.push(line(&format!("PostgreSQL {}, {name}", server.version), tally, started.elapsed()));
        }
    }
    println!("\n{}", lines.join("\n"));
    ensure!(failed == 0, "{failed} test(s) failed");
    Ok(())
}

/// Measures the kernel programs, with the runner of the kernel tests: only system calls are timed, so an optimised
/// build would change nothing.
pub(crate) fn bench_kernel(host: &Host, rounds: usize) -> Result<()> {
    ensure!(host::is_root(), "`cargo xtask bench kernel` needs root: it loads kernel programs");
    setup::for_worlds(host)?;
    let programs = build::tests(host)?;
    let program = programs.iter().find(|program| is_runner(program)).context("no kernel tests")?;
    let folder = host.target.join("bench");
    std::fs::create_dir_all(&folder)?;
    let mut command = command(host, program, &Arguments::default());
    command.arg("--bench").arg(rounds.to_string()).arg("--json").arg(folder.join("kernel.json"));
    host::run(command.stdout(Stdio::inherit()))
}

/// The kernel tests on other kernels.
fn guests(host: &Host, which: &str, programs: &[TestProgram], arguments: &Arguments) -> Result<()> {
    let runner = programs.iter().find(|program| is_runner(program)).context("no kernel tests")?;
    let programs = vm::Programs {
        runner: runner.executable.clone(),
        actor: host.target.join(Profile::Dev.folder()).join("kernel-actor"),
    };
    let mut words = arguments.kernel.words();
    words.extend(arguments.filter.clone());
    vm::run(host, which, &programs, &words)
}

fn line(name: &str, tally: Tally, took: Duration) -> String {
    let ignored = if tally.ignored > 0 { format!(", {} ignored", tally.ignored) } else { String::new() };
    format!("{name}: {} passed, {} failed{ignored} ({:.0} s)", tally.passed, tally.failed, took.as_secs_f64())
}

fn run_suite(host: &Host, suite: Suite, programs: &[TestProgram], arguments: &Arguments) -> Result<Tally> {
    let mut total = Tally::default();
    for program in programs.iter().filter(|program| suite.has(program)) {
        eprintln!("   {} {}", program.package, program.name);
        let tally = run_program(host, program, arguments)?;
        total.passed += tally.passed;
        total.failed += tally.failed;
        total.ignored += tally.ignored;
    }
    Ok(total)
}

/// Runs one test program as cargo would, passing its output on and reading its summary.
fn run_program(host: &Host, program: &TestProgram, arguments: &Arguments) -> Result<Tally> {
    counted(command(host, program, arguments), program)
}

fn counted(mut command: Command, program: &TestProgram) -> Result<Tally> {
    let mut child = command.spawn().with_context(|| format!("starting {}", program.executable.display()))?;
    let mut tally = None;
    // The library's own test programs are quiet about nothing: forward every line as it comes.
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let line = line?;
        tally = summary(&line).or(tally);
        writeln!(std::io::stdout(), "{line}").ok();
    }
    let status = child.wait()?;
    let mut tally = tally.unwrap_or_default();
    // It may have died before its summary.
    if !status.success() && tally.failed == 0 {
        eprintln!("   {} {} ended with {status} and no failed test", program.package, program.name);
        tally.failed = 1;
    }
    Ok(tally)
}

fn command(host: &Host, program: &TestProgram, arguments: &Arguments) -> Command {
    let mut command = host.command(&program.executable);
    command
        .current_dir(&program.folder)
        .env("CARGO_MANIFEST_DIR", &program.folder)
        .env("GATEWAY_BIN_DIR", host.target.join(Profile::Dev.folder()))
        .env("GATEWAY_TARGET_DIR", &host.target)
        .stdout(Stdio::piped())
        .args(&arguments.filter);
    if let Some(threads) = arguments.threads {
        command.arg(format!("--test-threads={threads}"));
    }
    if is_runner(program) {
        command.args(arguments.kernel.words());
    }
    command
}

/// Reads `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
fn summary(line: &str) -> Option<Tally> {
    let rest = line.strip_prefix("test result: ")?;
    let count = |what: &str| {
        rest.split(['.', ';']).find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<usize>().ok())
    };
    Some(Tally { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored").unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_s_summary_is_read() {
        let tally =
            summary("test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out")
                .unwrap();
        assert_eq!((tally.passed, tally.failed, tally.ignored), (12, 3, 1));
        assert!(summary("running 3 tests").is_none());
    }
}
