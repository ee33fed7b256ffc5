//! `cargo xtask test e2e pg-regress`: PostgreSQL's own tests, directly and through the gateway, compared.

mod known;

use std::{fs, path::Path, time::Instant};

use anyhow::{Result, ensure};
use tests::regress::{self, Comparison, Suite};

use crate::compared;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these tests, in this order, of the regression suite.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only this suite.
    #[arg(long, value_parser = ["regress", "isolation"])]
    suite: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let wanted = |suite: &Suite| arguments.suite.as_deref().is_none_or(|name| name == suite.name());
    let only: Vec<&str> = arguments.only.iter().map(String::as_str).collect();
    let reports = compared::reports("pg-regress")?;
    let mut unexplained = 0;
    let mut lines = Vec::new();
    for suite in [Suite::Regress, Suite::Isolation].into_iter().filter(wanted) {
        let began = Instant::now();
        eprintln!("-- {}: directly, then through the gateway", suite.name());
        let world = regress::world()?;
        let compared = regress::compare(&world, suite, &only)?;
        drop(world);
        unexplained += tell(suite, &compared, &reports, &mut lines)?;
        eprintln!("ok {} ({:.0} s)", suite.name(), began.elapsed().as_secs_f64());
    }
    println!("{}", lines.join("\n"));
    ensure!(unexplained == 0, "{unexplained} test(s) come out otherwise than direct, for no known reason");
    Ok(())
}

/// Says how a suite compares; returns how many differences have no reason.
fn tell(suite: Suite, compared: &Comparison, reports: &Path, lines: &mut Vec<String>) -> Result<usize> {
    let all = compared.direct.len();
    let different: Vec<&str> = compared.differences().collect();
    let failed: Vec<&str> =
        compared.direct.iter().filter(|(_, ending)| !ending.passed).map(|(name, _)| name.as_str()).collect();
    let passed = match failed.as_slice() {
        [] => "all pass directly".to_owned(),
        some => format!("directly these fail too: {}", some.join(", ")),
    };
    lines.push(format!("{}: {} of {all} as direct ({passed})", suite.name(), all - different.len()));
    let mut unexplained = 0;
    let folder = reports.join(suite.name());
    // What an earlier run left would look like a difference of this one.
    fs::remove_dir_all(&folder).ok();
    for test in different {
        let name = format!("{}/{test}", suite.name());
        let reason = known::reason(&name);
        unexplained += usize::from(reason.is_none());
        fs::create_dir_all(&folder)?;
        let diff = folder.join(format!("{test}.diff"));
        fs::write(&diff, difference(compared, test)?)?;
        let reason = reason.map_or_else(|| format!("no known reason: {}", diff.display()), str::to_owned);
        lines.push(format!("  {name}: {reason}"));
    }
    Ok(unexplained)
}

/// What the test printed here and there, as diff shows it.
fn difference(compared: &Comparison, test: &str) -> Result<String> {
    let printed = [&compared.direct, &compared.gateway]
        .map(|endings| endings.get(test).map_or("(did not run)\n", |ending| ending.printed.as_str()));
    let [direct, gateway] = printed;
    compared::difference(direct, gateway)
}
