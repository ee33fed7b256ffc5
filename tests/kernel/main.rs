//! Ways around the gateway, each tried by a real process in namespaces and a cgroup of the test's own.
//!
//! The oracle is the wire: nothing may reach the far end. Beyond that, a refusal is immediate, carries EPERM,
//! and leaves an event with its reason.
//!
//! `registry` has every row of the threat table. An *attempt* is data: it runs as both users of a job in every
//! state of the gateway (`matrix`). A *scenario* is a function with a ground of its own.

mod ask;
mod attempt;
mod bench;
mod bpf;
mod breaking;
mod ground;
mod matrix;
mod pinned;
mod property;
mod refusal;
mod registry;
mod scenario;
mod vectors;

use std::{
    collections::BTreeMap,
    process::{Command, ExitCode},
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use attempt::{Attempt, Verdict};
use clap::Parser;
use gateway_agent::kernel::Hook;
use matrix::State;

/// Tries every known way around the kernel programs.
#[derive(Debug, Parser)]
#[command(disable_help_subcommand = true)]
struct Arguments {
    /// Only what belongs to this row (number or id), or whose name contains this.
    filter: Option<String>,
    /// Prints every row with its state and tests, and runs nothing.
    #[arg(long)]
    list: bool,
    /// Takes this hook off, and says which vectors notice; at least one must. `all` does so for each.
    #[arg(long = "break", value_name = "HOOK")]
    broken: Option<String>,
    /// A thousand swaps instead of a few, a minute of random calls instead of seconds.
    #[arg(long)]
    full: bool,
    /// Only these states of the gateway.
    #[arg(long, value_delimiter = ',', value_parser = state)]
    states: Vec<State>,
    /// Where random calls begin.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints every attempt, not only the failed ones.
    #[arg(long)]
    verbose: bool,
    /// Scenarios at once.
    #[arg(long)]
    test_threads: Option<usize>,
    /// Measures instead: with this many rounds.
    #[arg(long, value_name = "ROUNDS", hide = true)]
    bench: Option<usize>,
    /// Where the measurements go.
    #[arg(long, hide = true)]
    json: Option<std::path::PathBuf>,
    /// For kernels below the floor: starting must be refused.
    #[arg(long, hide = true)]
    expect_refusal: bool,
    /// As the built-in harness has it; changes nothing.
    #[arg(long, hide = true)]
    nocapture: bool,
}

fn state(name: &str) -> Result<State, String> {
    State::ALL
        .into_iter()
        .find(|state| state.name() == name)
        .ok_or_else(|| format!("up, resolving, killed, stopped or upgrading, not {name}"))
}

/// What the whole run has to know.
pub(crate) struct Options {
    pub(crate) broken: Option<Hook>,
    pub(crate) swaps: u32,
    pub(crate) threads: usize,
}

static OPTIONS: OnceLock<Options> = OnceLock::new();

pub(crate) fn options() -> &'static Options {
    OPTIONS.get().expect("set by main")
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        registry::list();
        return ExitCode::SUCCESS;
    }
    if arguments.broken.as_deref() == Some("all") {
        return break_all();
    }
    let broken = match arguments.broken.as_deref().map(hook).transpose() {
        Ok(broken) => broken,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Floods hold thousands of connections.
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: Some(65_536), maximum: Some(65_536) },
    );
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let swaps = match (arguments.full, ground::emulated()) {
        (true, false) => 1000,
        (true, true) => 20,
        (false, false) => 40,
        (false, true) => 5,
    };
    let threads = arguments.test_threads.unwrap_or(cores);
    if OPTIONS.set(Options { broken, swaps, threads }).is_err() {
        return ExitCode::FAILURE;
    }
    let ok = match broken {
        Some(hook) => break_one(hook),
        None if arguments.bench.is_some() => {
            bench::run(arguments.bench.unwrap_or_default(), arguments.json.as_deref())
        }
        None if arguments.expect_refusal => refusal::an_old_kernel_is_refused_by_name(),
        None => run(&arguments),
    };
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn hook(name: &str) -> Result<Hook, String> {
    breaking::mandatory().into_iter().find(|hook| hook.name() == name).ok_or_else(|| {
        let names: Vec<_> = breaking::mandatory().into_iter().map(Hook::name).collect();
        format!("{name} is no mandatory hook: all, {}", names.join(", "))
    })
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    not_here: usize,
}

fn run(arguments: &Arguments) -> bool {
    let mut tally = Tally::default();
    if arguments.filter.is_none() {
        let faults = registry::faults();
        for fault in &faults {
            println!("   {fault}");
        }
        verdict(&mut tally, "the_registry_is_true", faults.is_empty(), Duration::ZERO);
    }
    let row = arguments.filter.as_deref().and_then(|filter| {
        registry::ROWS.iter().find(|row| row.id == filter || row.number.to_string() == filter)
    });
    let wanted = |rows: &[u8], name: &str| match (&arguments.filter, row) {
        (None, _) => true,
        (Some(_), Some(row)) => rows.contains(&row.number),
        (Some(filter), None) => name.contains(filter.as_str()),
    };
    let states = if arguments.states.is_empty() { State::ALL.to_vec() } else { arguments.states.clone() };
    let wanted_attempt = |attempt: &Attempt| wanted(attempt.rows, &attempt.name);
    std::thread::scope(|scope| {
        // A thread each: they move into namespaces.
        for state in states {
            let wanted = &wanted_attempt;
            let run = scope.spawn(move || matrix::run(state, wanted)).join();
            match run {
                Ok(run) => tell(&mut tally, state, &run, arguments.verbose),
                Err(_) => {
                    verdict(&mut tally, &format!("attempts_while_{}", state.name()), false, Duration::ZERO)
                }
            }
        }
    });
    let scenarios: Vec<_> =
        vectors::scenarios().into_iter().filter(|scenario| wanted(scenario.rows, scenario.name)).collect();
    for report in scenario::run(&scenarios, options().threads, false) {
        if report.failure.is_some() { tally.failed += 1 } else { tally.passed += 1 }
    }
    if wanted(&[], "random_calls_reach_nobody") {
        random(&mut tally, arguments);
    }
    println!(
        "test result: {}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out ({} not on this kernel)",
        if tally.failed == 0 { "ok" } else { "FAILED" },
        tally.passed,
        tally.failed,
        tally.not_here,
    );
    tally.failed == 0
}

fn tell(tally: &mut Tally, state: State, run: &matrix::Run, verbose: bool) {
    let mut failed = 0;
    let mut absent: BTreeMap<&str, &str> = BTreeMap::new();
    for outcome in &run.outcomes {
        let said = format!("{:02} {} [{}]", outcome.rows[0], outcome.name, outcome.user.name());
        match &outcome.verdict {
            Verdict::Pass => tally.passed += 1,
            Verdict::NotHere(why) => {
                tally.not_here += 1;
                absent.insert(&outcome.name, why);
            }
            Verdict::Fail(_) => {
                tally.failed += 1;
                failed += 1;
            }
        }
        if verbose || matches!(outcome.verdict, Verdict::Fail(_)) {
            println!("   {} {said}: {}", outcome.state.name(), outcome.verdict);
        }
    }
    if state == State::Up {
        for (name, why) in &absent {
            println!("   not here: {name}: {why}");
        }
    }
    let swaps = if state == State::Upgrading { format!(", {} swaps", run.swaps) } else { String::new() };
    println!(
        "test attempts_while_{} ... {} ({} attempts{swaps}, {:.1} s)",
        state.name(),
        if failed == 0 { "ok" } else { "FAILED" },
        run.outcomes.len(),
        run.took.as_secs_f64()
    );
}

fn random(tally: &mut Tally, arguments: &Arguments) {
    let time = Duration::from_secs(if arguments.full { 60 } else { 5 });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = arguments.seed.unwrap_or_else(|| u64::from(now.subsec_nanos()) | (now.as_secs() << 32));
    let result = std::thread::scope(|scope| scope.spawn(|| property::run(time, seed)).join());
    let ok = match result {
        Ok(Ok(seen)) => {
            println!("   {seen}");
            true
        }
        Ok(Err(why)) => {
            println!("   {why}");
            false
        }
        Err(_) => false,
    };
    verdict(tally, "random_calls_reach_nobody", ok, time);
}

fn verdict(tally: &mut Tally, name: &str, ok: bool, took: Duration) {
    if ok {
        tally.passed += 1
    } else {
        tally.failed += 1
    }
    println!("test {name} ... {} ({:.1} s)", if ok { "ok" } else { "FAILED" }, took.as_secs_f64());
}

fn break_one(hook: Hook) -> bool {
    // What notices panics; its message is not the point.
    std::panic::set_hook(Box::new(|_| {}));
    let noticed = std::thread::spawn(breaking::noticed).join();
    let Ok(noticed) = noticed else {
        println!("{}: the world itself failed without it", hook.name());
        return false;
    };
    println!("{}: {} vectors notice", hook.name(), noticed.len());
    for name in noticed.iter().take(8) {
        println!("   {name}");
    }
    if noticed.len() > 8 {
        println!("   and {} more", noticed.len() - 8);
    }
    !noticed.is_empty()
}

/// A process for each hook: what is broken stays so for the whole run.
fn break_all() -> ExitCode {
    let Ok(program) = std::env::current_exe() else { return ExitCode::FAILURE };
    let mut unnoticed = Vec::new();
    for hook in breaking::mandatory() {
        match Command::new(&program).args(["--break", hook.name()]).status() {
            Ok(status) if status.success() => {}
            _ => unnoticed.push(hook.name()),
        }
    }
    if unnoticed.is_empty() {
        println!("every mandatory hook is noticed when it is off");
        return ExitCode::SUCCESS;
    }
    println!("nothing noticed: {}", unnoticed.join(", "));
    ExitCode::FAILURE
}
