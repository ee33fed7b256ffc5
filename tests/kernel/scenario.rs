//! Tests that are more than one attempt: each makes its own ground.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) rows: &'static [u8],
    pub(crate) name: &'static str,
    pub(crate) run: fn(),
}

/// `scenarios![[rows] function, …]`
macro_rules! scenarios {
    ($([$($row:literal),+] $name:ident),+ $(,)?) => {
        &[$(Scenario { rows: &[$($row),+], name: stringify!($name), run: $name }),+]
    };
}
pub(crate) use scenarios;

pub(crate) struct Report {
    pub(crate) scenario: Scenario,
    /// Why it failed.
    pub(crate) failure: Option<String>,
    pub(crate) took: Duration,
}

/// Runs them on so many threads, each scenario on a thread of its own: it moves into namespaces.
pub(crate) fn run(scenarios: &[Scenario], threads: usize, quiet: bool) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = one(*scenario);
                    if !quiet {
                        tell(&report);
                    }
                    reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(report);
                }
            });
        }
    });
    reports.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn one(scenario: Scenario) -> Report {
    let started = Instant::now();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| panic::catch_unwind(AssertUnwindSafe(scenario.run))).join().unwrap_or_else(Err)
    });
    let failure = result.err().map(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
    });
    Report { scenario, failure, took: started.elapsed() }
}

fn tell(report: &Report) {
    let verdict = if report.failure.is_some() { "FAILED" } else { "ok" };
    println!("test {} ... {verdict} ({:.1} s)", report.scenario.name, report.took.as_secs_f64());
    if let Some(why) = &report.failure {
        println!("   {}", why.replace('\n', "\n   "));
    }
}
