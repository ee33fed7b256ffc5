//! PostgreSQL's own regression and isolation tests, run by PostgreSQL's own runners: past the gateway, and in a job
//! through it. What counts is that both runs come out alike, test by test.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{World, agent::JOB_UID, postgres, process, process::Output, world::DATABASE};

/// The whole regression suite takes minutes.
const LIMIT: Duration = Duration::from_secs(1800);

/// Everything is let through, recorded, and logged in as whom the client names: the tests make roles and come back as
/// them.
const POLICY: &str = r#"version: 1
subjects:
  - { name: regression, issuer: https://token.example, claims: { repository: acme/payments } }
resources:
  - name: server
    kind: postgres
    hosts: [198.51.100.10]
    databases: ["*"]
    login: { user: postgres, roles: ["*"], password: { file: @DIR@/secrets/orders } }
    tls: { mode: verify-full, server_name: db.internal, ca: @DIR@/db-ca.pem }
rules:
  - id: everything
    effect: allow
    subjects: [regression]
    resources: [server]
    connect: true
    statements: { everything: true }
    record: statements
"#;

/// One of PostgreSQL's suites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    Regress,
    Isolation,
}

/// How one test ended, and what it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub passed: bool,
    pub printed: String,
}

/// Both runs of a suite.
#[derive(Debug)]
pub struct Comparison {
    pub direct: BTreeMap<String, Ending>,
    pub gateway: BTreeMap<String, Ending>,
}

impl Suite {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Regress => "regress",
            Self::Isolation => "isolation",
        }
    }

    const fn runner(self) -> &'static str {
        match self {
            Self::Regress => "pg_regress",
            Self::Isolation => "pg_isolation_regress",
        }
    }

    const fn schedule(self) -> &'static str {
        match self {
            Self::Regress => "parallel_schedule",
            Self::Isolation => "isolation_schedule",
        }
    }

    const fn database(self) -> &'static str {
        match self {
            Self::Regress => "regression",
            Self::Isolation => "isolation_regression",
        }
    }
}

impl Comparison {
    /// Tests that did not come out alike.
    pub fn differences(&self) -> impl Iterator<Item = &str> {
        let other = |(name, ending): &(&String, &Ending)| self.gateway.get(*name) != Some(*ending);
        self.direct.iter().filter(other).map(|(name, _)| name.as_str())
    }
}

/// What `cargo xtask setup` keeps of this server's sources.
///
/// # Errors
/// When it is not there.
pub fn sources() -> Result<PathBuf> {
    let folder = crate::target()?.join("tools/postgresql-tests");
    ensure!(
        folder.join("regress").is_dir(),
        "{} has no tests: `cargo xtask test e2e pg-regress` fetches them",
        folder.display()
    );
    Ok(folder)
}

/// A world whose server trusts and whose policy lets everything through.
///
/// # Errors
/// When it cannot be made.
pub fn world() -> Result<World> {
    World::builder()
        .policy(POLICY)
        .postgres(postgres::Options {
            quiet: true,
            method: "trust",
            settings: vec!["max_prepared_transactions = 10".to_owned(), "timezone = 'PST8PDT'".to_owned()],
            ..postgres::Options::default()
        })
        .start()
}

/// Runs a suite (or, with `tests`, these tests of it in this order) directly and through the gateway.
///
/// # Errors
/// When a run does not come to its end.
pub fn compare(world: &World, suite: Suite, tests: &[&str]) -> Result<Comparison> {
    let input = world.folder().join("suite");
    if !input.exists() {
        process::must(Command::new("cp").args(["-r", "--reflink=auto"]).arg(sources()?).arg(&input))?;
        process::must(Command::new("chmod").args(["-R", "a+rX"]).arg(&input))?;
    }
    let schedule = schedule(&input, suite, tests)?;
    let direct = run(world, suite, &input, &schedule, "direct")?;
    let gateway = run(world, suite, &input, &schedule, "gateway")?;
    Ok(Comparison { direct, gateway })
}

/// The file that says which tests run, and in which order.
fn schedule(input: &Path, suite: Suite, tests: &[&str]) -> Result<PathBuf> {
    if tests.is_empty() {
        return Ok(input.join(suite.name()).join(suite.schedule()));
    }
    let path = input.join(format!("{}.some", suite.name()));
    let lines: String = tests.iter().map(|test| format!("test: {test}\n")).collect();
    fs::write(&path, lines)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    Ok(path)
}

fn run(
    world: &World,
    suite: Suite,
    input: &Path,
    schedule: &Path,
    way: &str,
) -> Result<BTreeMap<String, Ending>> {
    let out = world.folder().join(format!("{}-{way}", suite.name()));
    // The server writes files here, and so do the clients: two users.
    for folder in [out.clone(), out.join("results"), out.join("testtablespace")] {
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
    }
    let words: Vec<String> = vec![
        input.join("bin").join(suite.runner()).display().to_string(),
        format!("--inputdir={}", input.join(suite.name()).display()),
        format!("--outputdir={}", out.display()),
        format!("--schedule={}", schedule.display()),
        format!("--dlpath={}", input.join("lib").display()),
        format!("--bindir={}", postgres::programs()?.display()),
        format!("--dbname={}", suite.database()),
        format!("--host={DATABASE}"),
        "--port=5432".to_owned(),
        "--user=postgres".to_owned(),
        "--max-connections=20".to_owned(),
    ];
    let ended = match way {
        "direct" => {
            let mut command = world.host.command("setpriv");
            let id = JOB_UID.to_string();
            command
                .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
                .args(&words)
                .current_dir(&out)
                .env("HOME", "/nonexistent")
                .env("PGSSLMODE", "require");
            process::Running::capturing(&mut command, Some(b""))?.finish(LIMIT)?
        }
        _ => {
            let token = world.token().mint()?;
            let mut command = world.job_as(&token, &words)?.into_command();
            command.current_dir(&out).env("HOME", "/nonexistent");
            process::Running::capturing(&mut command, Some(b""))?.finish(LIMIT)?
        }
    };
    // Which tests failed is in what it printed; a run that broke off has no summary.
    let endings = endings(&ended, &out.join("results"))?;
    ensure!(!endings.is_empty(), "no test ran: {ended}");
    Ok(endings)
}

/// Reads the runner's report: the lines of version 15 and before, or TAP.
fn endings(report: &Output, results: &Path) -> Result<BTreeMap<String, Ending>> {
    let mut endings = BTreeMap::new();
    for line in report.stdout.lines() {
        let Some((name, passed)) = verdict(line) else { continue };
        let path = results.join(format!("{name}.out"));
        let printed = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        endings.insert(
            name.to_owned(),
            Ending { passed, printed: String::from_utf8_lossy(&printed).into_owned() },
        );
    }
    if endings.is_empty() {
        bail!("the runner reports no test: {report}");
    }
    Ok(endings)
}

fn verdict(line: &str) -> Option<(&str, bool)> {
    if let Some((name, rest)) = line.split_once(" ... ") {
        let name = name.trim().trim_start_matches("test ").trim();
        let passed = match rest.split_whitespace().next()? {
            "ok" => true,
            "FAILED" | "failed" => false,
            _ => return None,
        };
        return Some((name, passed));
    }
    let (passed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let rest = rest.trim_start_matches(|letter: char| letter.is_ascii_digit()).trim_start();
    let name = rest.trim_start_matches(['-', '+']).split_whitespace().next()?;
    Some((name, passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_report_are_read() {
        assert_eq!(
            verdict("test tablespace                   ... ok         2032 ms"),
            Some(("tablespace", true))
        );
        assert_eq!(
            verdict("     boolean                      ... FAILED      213 ms"),
            Some(("boolean", false))
        );
        assert_eq!(
            verdict("ok 2         - tablespace                      300 ms"),
            Some(("tablespace", true))
        );
        assert_eq!(
            verdict("not ok 3     + boolean                         213 ms"),
            Some(("boolean", false))
        );
        assert_eq!(verdict("parallel group (20 tests):  boolean char"), None);
        assert_eq!(verdict("============== creating database ==="), None);
    }
}
