//! Drivers and tools, unchanged: each runs the same program directly and in a job through the gateway, under an
//! ordinary policy without masks, and both runs have to say the same.
//!
//! By `cargo xtask test e2e drivers`, which installs what it needs.

mod tools;

use std::{path::Path, process::Command};

use tests::{
    World,
    postgres::Postgres,
    process::{Output, run},
    world::DATABASE,
};

/// Everything an application and its migrations do, said in the ordinary words of the language.
pub(crate) const POLICY: &str = r#"version: 1
subjects:
  - { name: application, issuer: https://token.example, claims: { repository: acme/payments } }
resources:
  - name: orders
    kind: postgres
    hosts: [198.51.100.10]
    databases: ["*"]
    login: { user: gateway, password: { file: @DIR@/secrets/orders } }
    tls: { mode: verify-full, server_name: db.internal, ca: @DIR@/db-ca.pem }
rules:
  - id: application
    effect: allow
    subjects: [application]
    resources: [orders]
    connect: true
    statements:
      classes: [transaction, session, read, write, utility, ddl]
      relations: ["public.*", "pg_temp.*", pg_catalog.pg_stat_activity]
      functions:
        - "pg_catalog.*"
        # Calls without a schema are granted by name.
        - pg_catalog.pg_sleep
        - pg_catalog.pg_notify
        - pg_catalog.pg_cancel_backend
        - pg_catalog.set_config
        - pg_catalog.pg_advisory_lock
        - pg_catalog.pg_advisory_unlock
        - pg_catalog.pg_advisory_unlock_all
      opaque: true
    record: statements
"#;

pub(crate) fn world() -> World {
    World::builder().policy(POLICY).up()
}

/// The same words directly: as who the gateway logs in as.
pub(crate) fn direct(world: &World, words: &[&str]) -> Command {
    let (program, rest) = words.split_first().expect("a program");
    let mut command = world.host.command(program);
    command
        .args(rest)
        .current_dir("/")
        .env("HOME", "/nonexistent")
        .env("PGHOST", DATABASE)
        .env("PGPORT", "5432")
        .env("PGDATABASE", Postgres::DATABASE)
        .env("PGUSER", Postgres::ROLE)
        .env("PGPASSWORD", world.password())
        .env("PGSSLMODE", "require")
        .env("PGAPPNAME", "job");
    command
}

/// What both say, which is the same.
#[track_caller]
fn same(world: &World, words: &[&str]) -> String {
    let direct = run(&mut direct(world, words)).expect("a direct run").ok();
    let job = world.job(words).env("HOME", "/nonexistent").run().ok();
    assert!(!direct.text().is_empty(), "it says nothing: {direct}");
    let (here, there) = (lines(&direct), lines(&job));
    let different: Vec<_> = here.iter().zip(&there).filter(|(here, there)| here != there).collect();
    assert!(here == there, "directly and through the gateway: {different:#?}");
    job.stdout
}

/// Piece by piece, so that a difference is easy to see.
fn lines(out: &Output) -> Vec<String> {
    out.stdout.replace(", \"", ",\n\"").lines().map(str::to_owned).collect()
}

fn script(world: &World, name: &str) -> String {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/drivers").join(name);
    // Jobs are nobody, who may not get at the sources.
    let to = world.folder().join(name);
    std::fs::copy(&from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    to.display().to_string()
}

fn python(name: &str) {
    let world = world();
    let said = same(&world, &[&world.python(), &script(&world, name)]);
    assert!(said.starts_with('{'), "{said}");
}

#[test]
fn psycopg_3() {
    python("psycopg3.py");
}

#[test]
fn asyncpg() {
    python("asyncpg_.py");
}

#[test]
fn pg8000() {
    python("pg8000_.py");
}

#[test]
fn alembic_migrates() {
    python("migrate.py");
}

#[test]
fn node_postgres() {
    let world = world();
    let modules = world.tool("node").expect("`cargo xtask test e2e drivers` installs node-postgres");
    let script = script(&world, "node-postgres.js");
    let modules = format!("NODE_PATH={modules}/node_modules");
    same(&world, &["env", &modules, "node", &script]);
}

#[test]
fn sqlx_and_its_migrations() {
    let world = world();
    let built = world.tool("sqlx/debug/sqlx-client").expect("`cargo xtask test e2e drivers` builds it");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/drivers/sqlx/migrations");
    let migrations = world.folder().join("migrations");
    tests::process::must(Command::new("cp").arg("-r").args([&from, &migrations])).expect("migrations");
    let said = same(&world, &[&built, &migrations.display().to_string()]);
    assert!(said.contains("migrated"), "{said}");
}

#[test]
fn pgjdbc() {
    let world = world();
    let script = script(&world, "Jdbc.java");
    same(&world, &["java", "-cp", "/usr/share/java/postgresql.jar", &script]);
}
