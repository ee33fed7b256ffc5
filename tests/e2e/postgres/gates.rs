//! Limits on what statements cost, how long they take and how many there are.

use std::time::Duration;

use serde_json::Value;
use tests::{World, process::LIMIT, sample};

use crate::support::{audited, ran, wait_for, wait_for_audit};

/// The usual policy, with limits on the rule that lets orders be read.
fn limited(limits: &str) -> World {
    let read = "  - id: read\n    effect: allow\n";
    World::builder().policy(&sample::POLICY.replace(read, &format!("{read}    limits: {limits}\n"))).up()
}

/// Every pair of orders: a million rows.
const DEAR: &str = "SELECT count(*) FROM orders a, orders b WHERE a.amount <> b.amount;";

#[test]
fn a_statement_that_will_cost_too_much_does_not_run() {
    let world = limited("{ max_cost: 500 }");
    let script = format!(
        "SELECT count(*) FROM orders;\n{DEAR}\nBEGIN;\n{DEAR}\nSELECT 'still';\nSELECT 1; {DEAR}\nCOMMIT;\nSET DateStyle TO iso;\n"
    );
    let out = world.job(&["psql", "-XAt", "-v", "VERBOSITY=verbose"]).stdin(script).run().ok();
    assert!(out.stdout.contains("1000") && out.stdout.contains("still"), "{out}");
    assert_eq!(
        out.stderr.matches("54000: denied by policy rule read: its estimated cost is").count(),
        3,
        "{out}"
    );
    assert!(out.stderr.contains("the limit 500") && out.stderr.contains("HINT:"), "{out}");
    // The server was asked for plans, and ran none of them.
    let explained = ran(&world, "EXPLAIN (FORMAT JSON)");
    assert!(explained >= 4, "{explained}");
    assert_eq!(
        ran(&world, "FROM orders a, orders b"),
        ran(&world, "EXPLAIN (FORMAT JSON) SELECT count(*) FROM orders a")
    );
    assert!(
        world
            .agent
            .metric("gateway_limits_exceeded_total", &["limit=\"max_cost\"", "action=\"deny\""])
            .expect("metrics")
            >= 3.0
    );
    let line = wait_for_audit(&world, "decision", |line| line["verdict"] == "deny");
    assert!(line["reason"].as_str().is_some_and(|why| why.contains("estimated cost")), "{line}");
    assert!(audited(&world, "estimated").iter().any(|line| line["cost"].as_str().is_some()));
}

#[test]
fn what_a_prepared_statement_costs_is_asked_with_its_parameters() {
    let world = limited("{ max_rows_estimated: 100 }");
    world.db.ask("ANALYZE public.orders");
    let script = r#"
import psycopg
with psycopg.connect(autocommit=True) as db:
    for below in (5, 900, 7):
        for binary in (False, True):
            try:
                rows = db.execute("SELECT id FROM orders WHERE id <= %s", (below,), prepare=True, binary=binary).fetchall()
                print(below, len(rows))
            except psycopg.Error as e:
                print(below, e.sqlstate, "rows are expected" in str(e))
"#;
    let out = world.job(&[&world.python(), "-c", script]).run().ok();
    assert_eq!(out.text(), "5 5\n5 5\n900 54000 True\n900 54000 True\n7 7\n7 7");
}

#[test]
fn beyond_a_limit_people_can_be_asked_who_see_the_estimate() {
    let world = limited("{ max_cost: { at_most: 500, on_exceed: ask } }");
    let job = world.psql(&format!("SELECT 'cheap';\n{DEAR}")).start().expect("a job");
    let approval = wait_for("an approval", || {
        let list = world.agent.json(&["approvals", "list"]).ok()?;
        list.as_array()?.first().cloned()
    });
    assert_eq!(approval["rules"][0], "read");
    assert!(approval["because"].as_str().is_some_and(|why| why.contains("estimated cost")), "{approval}");
    let id = approval["id"].as_str().expect("an id");
    let shown = world.agent.cli(&["approvals", "show", id]).expect("shown").ok();
    assert!(shown.stdout.contains("estimated cost"), "{shown}");
    let _said = world.agent.cli(&["approvals", "approve", id]).expect("approved").ok();
    let out = job.finish(LIMIT).expect("an end").ok();
    assert!(out.stdout.starts_with("cheap\n"), "{out}");
    let line = wait_for_audit(&world, "decision", |line| line["approval"] == id);
    assert_eq!(line["verdict"], "allow", "{line}");
}

/// The usual policy, with limits on the rule that asks people about deletions.
fn asked(limits: &str) -> World {
    let asks = "  - id: delete-order\n    effect: approve\n";
    World::builder().policy(&sample::POLICY.replace(asks, &format!("{asks}    limits: {limits}\n"))).up()
}

#[test]
fn a_rule_that_asks_and_a_limit_that_asks_ask_once() {
    let world = asked("{ max_cost: { at_most: 1, on_exceed: ask } }");
    let delete = "DELETE FROM orders WHERE id < 4 RETURNING id;";
    let job = world.psql(&format!("{delete}\nSELECT 'usable';")).start().expect("a job");
    let approval = wait_for("an approval", || {
        let list = world.agent.json(&["approvals", "list"]).ok()?;
        list.as_array()?.first().cloned()
    });
    let because = approval["because"].as_str().unwrap_or_default();
    assert!(because.starts_with("rule delete-order asks; its estimated cost is"), "{approval}");
    assert_eq!(approval["rules"], serde_json::json!(["delete-order", "read"]), "{approval}");
    assert_eq!(ran(&world, "DELETE FROM"), ran(&world, "EXPLAIN (FORMAT JSON) DELETE FROM"), "only planned");
    let id = approval["id"].as_str().expect("an id");
    let _said = world.agent.cli(&["approvals", "approve", id]).expect("approved").ok();
    let out = job.finish(LIMIT).expect("an end").ok();
    assert_eq!(out.text(), "1\n2\n3\nusable", "{out}");
    assert_eq!(audited(&world, "approval_asked").len(), 1);
}

#[test]
fn people_are_not_asked_about_what_a_limit_denies() {
    let world = asked("{ max_cost: 1 }");
    let out = world.job(&["psql", "-XAt", "-v", "VERBOSITY=verbose"]).stdin("DELETE FROM orders;\n").run();
    let out = out.ok();
    assert!(out.stderr.contains("54000: denied by policy rule delete-order: its estimated cost is"), "{out}");
    assert_eq!(audited(&world, "approval_asked").len(), 0);
    assert_eq!(world.db.ask("SELECT count(*) FROM orders"), "1000");
}

#[test]
fn a_job_has_so_many_statements() {
    let world = limited("{ statements_per_job: 3 }");
    let sql = "SELECT 1 FROM orders LIMIT 1;\n".repeat(5);
    let out = world.job(&["psql", "-XAt"]).stdin(sql).run().ok();
    assert_eq!(out.stdout.matches('1').count(), 3, "{out}");
    assert_eq!(out.stderr.matches("limit of 3 statements is used up").count(), 2, "{out}");
    // Another job has its own.
    assert_eq!(world.psql("SELECT count(*) FROM orders;").run().ok().text(), "1000");
}

#[test]
fn what_runs_too_long_is_cancelled_and_the_session_goes_on() {
    let world = limited("{ time: 700ms }");
    let script = "SELECT pg_catalog.pg_sleep(30);\nSELECT 'usable';\nBEGIN;\nSELECT pg_catalog.pg_sleep(30);\nSELECT 1;\nROLLBACK;\nSELECT count(*) FROM orders;\n";
    let out = world.job(&["psql", "-XAt", "-v", "VERBOSITY=verbose"]).stdin(script).run().ok();
    assert_eq!(
        out.stderr.matches("57014: cancelled by policy rule read: it ran longer than 700ms").count(),
        2,
        "{out}"
    );
    assert!(out.stderr.contains("25P02"), "the transaction failed: {out}");
    assert!(out.stdout.contains("usable") && out.stdout.contains("1000"), "{out}");
    let line = wait_for_audit(&world, "limit_exceeded", |_| true);
    assert_eq!((&line["limit"], &line["rule"]), (&Value::from("time"), &Value::from("read")), "{line}");
}

#[test]
fn who_blocks_is_told_and_waiting_has_an_end() {
    let world = limited("{ lock_wait: 1s }");
    let mut holder = world.db.client("psql", tests::postgres::Postgres::DATABASE);
    holder.env("PGAPPNAME", "migration");
    let sql = "BEGIN; LOCK TABLE orders; SELECT 'locked'; SELECT pg_sleep(60);";
    let holder = tests::process::Running::capturing(holder.args(["-XAtc", sql]), None).expect("a holder");
    wait_for("the lock", || {
        (world.db.ask("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'orders'::regclass") == "1").then_some(())
    });
    let out = world
        .job(&["psql", "-XAt", "-v", "VERBOSITY=verbose"])
        .stdin("SELECT count(*) FROM orders;\nSELECT 'usable';\n")
        .run()
        .ok();
    assert!(out.stderr.contains("57014: cancelled by policy rule read: it waited longer than 1s for AccessShareLock on relation orders"), "{out}");
    assert!(out.stdout.contains("usable"), "{out}");
    let line = wait_for_audit(&world, "lock_wait", |_| true);
    let by = line["blocked_by"][0].as_str().unwrap_or_default();
    assert!(
        by.contains("application migration")
            && line["lock"].as_str().is_some_and(|lock| lock.contains("orders")),
        "{line}"
    );
    assert!(world.agent.metric("gateway_lock_waits_total", &["blocker=\"other\""]).expect("metrics") >= 1.0);
    drop(holder);
}

#[test]
fn what_runs_for_a_job_that_is_released_ends_on_the_server() {
    let world = World::new();
    let job = world.psql("SELECT pg_catalog.pg_sleep(300);").start().expect("a job");
    let running = || {
        world.db.ask("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_catalog.pg_sleep(300)%' AND state = 'active'")
    };
    wait_for("the statement", || (running() == "1").then_some(()));
    let sessions = world.agent.json(&["sessions"]).expect("sessions");
    let id = sessions[0]["id"].as_str().expect("an id").to_owned();
    let _said = world.agent.cli(&["sessions", "kill", &id]).expect("killed").ok();
    let out = job.finish(Duration::from_secs(20)).expect("an end").failed();
    assert!(out.stderr.contains("terminating connection"), "{out}");
    wait_for("the backend to go", || {
        (world.db.ask("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(300)%' AND pid <> pg_backend_pid()") == "0").then_some(())
    });
}

#[test]
fn names_that_others_change_are_known_within_seconds() {
    let world = World::new();
    let shows = |column: &str| {
        let view = "CREATE OR REPLACE VIEW public.contacts AS SELECT id";
        world.db.ask(&format!("{view}, {column} AS contact FROM public.customers"));
    };
    world.db.ask("DROP VIEW public.contacts");
    shows("name");
    world.db.ask("ALTER VIEW public.contacts OWNER TO gateway");
    let mut job = world.job(&["psql", "-XAt"]).open().expect("a job");
    job.write(b"SELECT 'open', contact FROM contacts WHERE id = 1;\n").expect("written");
    wait_for("the session", || (ran(&world, "SELECT 'open'") == 1).then_some(()));
    // By somebody else: the view now shows what it did not.
    shows("ssn");
    let reads = || ran(&world, "FROM pg_catalog.pg_inherits i");
    let marks = || ran(&world, "pg_current_snapshot");
    wait_for("the names to be read again", || (reads() == 2).then_some(()));
    let compared = marks();
    wait_for("the names to be in force", || (marks() > compared).then_some(()));
    // Names without a schema still mean what they meant.
    job.write(b"SELECT 'after', contact, upper(contact) FROM contacts WHERE id = 1;\n").expect("written");
    job.close_stdin();
    let out = job.finish(LIMIT).expect("an end").ok();
    assert_eq!(out.text(), "open|Customer 1\nafter|[redacted]|[redacted]");
    assert_eq!(reads(), 2, "at login and because they changed, and not otherwise");
}
