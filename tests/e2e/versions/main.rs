//! Against a server of another version, and with a client of another: `cargo xtask test e2e pg-versions` says which.

use std::time::Duration;

use tests::{World, process::wait_for};

/// The newest libpq's psql, where a job can run it.
fn newest_psql(world: &World) -> String {
    let programs = tests::postgres::newest(&world.folder().join("libpq/usr/lib/postgresql"));
    programs.expect("`cargo xtask test e2e pg-versions` brings it").join("psql").display().to_string()
}

/// By the newest protocol or not at all, encrypted from the first byte.
const NEWEST: &str = "min_protocol_version=3.2 max_protocol_version=3.2 sslnegotiation=direct sslmode=verify-full dbname=orders";

#[test]
fn the_server_is_the_one_that_was_asked_for() {
    let world = World::new();
    let root = std::env::var("GATEWAY_POSTGRES").expect("`cargo xtask test e2e pg-versions` names a server");
    let version = world.db.ask("SHOW server_version_num");
    assert!(root.ends_with(&format!("-{}", &version[..2])), "{root} is {version}");
    // The job is told the server's own.
    assert_eq!(world.psql("SHOW server_version;").run().ok().text(), world.db.ask("SHOW server_version"));
}

#[test]
fn the_newest_libpq_speaks_3_2_and_sees_masks() {
    let world = World::new();
    let sql = "SELECT id, name, ssn FROM customers WHERE id = 2";
    let copy = "COPY (SELECT name, ssn FROM customers WHERE id = 3) TO STDOUT (FORMAT csv)";
    let out = world
        .job(&[&newest_psql(&world), "-XAt", NEWEST, "-c", "\\conninfo", "-c", sql, "-c", copy])
        .run()
        .ok();
    assert!(out.stdout.contains("3.2"), "{out}");
    assert!(
        out.stdout.contains("2|Customer 2|[redacted]") && out.stdout.contains("Customer 3,[redacted]"),
        "{out}"
    );
}

#[test]
fn the_newest_libpq_cancels_with_the_key_that_it_was_given() {
    let world = World::new();
    let job = world
        .job(&[
            &newest_psql(&world),
            "-XAt",
            NEWEST,
            "-c",
            "SELECT pg_catalog.pg_sleep(60)",
            "-c",
            "SELECT 'usable'",
        ])
        .start()
        .expect("a job");
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_catalog.pg_sleep(60)%' AND state = 'active'";
    wait_for("the statement", Duration::from_secs(30), || (world.db.ask(running) == "1").then_some(()))
        .expect("it runs");
    job.signal(rustix::process::Signal::INT);
    let out = job.finish(Duration::from_secs(20)).expect("an end");
    assert!(out.stderr.contains("canceling statement due to user request"), "{out}");
    assert_eq!(world.db.ask(running), "0");
}

#[test]
fn what_the_newest_psql_itself_asks_is_allowed() {
    let world = World::new();
    let asked = "\\d orders\n\\dt\n\\l\n\\df public.*\n\\dv\n\\dn\n";
    let out = world.job(&[&newest_psql(&world), "-X"]).stdin(asked).run().ok();
    assert!(out.stdout.contains("customer_id"), "{out}");
    assert!(!out.stderr.contains("ERROR"), "{out}");
}
