//! psql, as people and scripts use it.

use rustix::process::Signal;
use tests::{World, process::LIMIT, world};

use crate::support::{CARD, EMAIL, REDACTED, ran, wait_for, wait_for_audit};

#[test]
fn a_select_comes_back_masked_whatever_its_columns_are_called() {
    let world = World::new();
    let out = world
        .psql(
            "SELECT id, name, email FROM customers WHERE id = 1;
             SELECT email AS contact FROM customers AS c WHERE c.id = 2;
             SELECT 'mail: ' || upper(email) FROM customers WHERE id = 3;
             WITH c AS (SELECT id, ssn AS s FROM customers) SELECT s FROM c WHERE id = 4;
             SELECT card FROM customers WHERE id = 6;
             SELECT note FROM orders WHERE id = 10;
             SELECT contact FROM contacts;",
        )
        .run()
        .ok();
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(lines[0], format!("1|Customer 1|{REDACTED}"));
    assert_eq!(lines[1..5], [REDACTED, REDACTED, REDACTED, CARD], "{out}");
    assert_eq!(lines[5], format!("reach me at {EMAIL}"));
    assert_eq!(lines[6..], [REDACTED; 200], "{out}");
    // The job said whatever user; the server saw the gateway's own.
    assert!(world.db.log().contains("gateway@orders"), "{}", world.db.log());
    assert!(!world.db.log().contains("job@"), "{}", world.db.log());
    let decision =
        wait_for_audit(&world, "decision", |line| line["verdict"] == "allow" && line["rules"][0] == "read");
    assert_eq!(decision["subject"], "payments-agent");
    assert_eq!(decision["resource"], "orders");
    assert_eq!(decision["masks"], serde_json::json!(["pii", "found"]), "{decision}");
    assert!(
        decision["process"]["command"].as_str().is_some_and(|command| command.contains("psql")),
        "{decision}"
    );
}

#[test]
fn tls_verifies_fully_and_by_either_family() {
    let world = World::new();
    for host in [world::DATABASE, world::DATABASE_V6] {
        // \conninfo tells what the client itself believes.
        let out = world.psql("\\conninfo\nSELECT 1;").env("PGHOST", host).run().ok();
        assert!(out.stdout.contains("SSL connection (protocol: TLSv1.3"), "{out}");
        assert!(out.stdout.contains(host), "{out}");
    }
    // The gateway's certificate, not the server's: the server's own authority does not vouch for it.
    let theirs = world.folder().join("db-ca.pem");
    let out =
        world.job(&["env", &format!("PGSSLROOTCERT={}", theirs.display()), "psql", "-Xc", "SELECT 1"]).run();
    assert!(out.failed().stderr.contains("certificate verify failed"));
    // Without TLS the job's own leg is still the job's own.
    let plain = world.psql("SELECT 1;").env("PGSSLMODE", "disable").run().ok();
    assert_eq!(plain.text(), "1");
    // Upstream is encrypted and verified whatever the job did.
    assert!(!world.db.log().contains("SSL off"));
}

#[test]
fn a_denied_statement_names_its_rule_and_the_session_goes_on() {
    let world = World::new();
    let out = world
        .job(&["psql", "-XAt", "-v", "VERBOSITY=verbose"])
        .stdin(
            "DROP TABLE customers;\nSELECT 'still here';\nSELECT value FROM secrets;\nSELECT 'and here';\n",
        )
        .run()
        .ok();
    assert!(out.stdout.contains("still here") && out.stdout.contains("and here"), "{out}");
    assert!(out.stderr.contains("42501") && out.stderr.contains("no-ddl"), "{out}");
    assert!(out.stderr.contains("the schema is changed by migrations"), "{out}");
    assert!(out.stderr.contains("HINT:"), "{out}");
    assert!(out.stderr.contains("no-secrets"), "{out}");
    assert_eq!(ran(&world, "DROP TABLE"), 0);
    assert_eq!(ran(&world, "FROM secrets"), 0);
    assert_eq!(world.db.ask("SELECT count(*) FROM customers"), "200");
    let denied =
        wait_for_audit(&world, "decision", |line| line["verdict"] == "deny" && line["rules"][0] == "no-ddl");
    assert_eq!(denied["subject"], "payments-agent");
    assert!(
        world
            .agent
            .metric("gateway_decisions_total", &["verdict=\"deny\"", "rule=\"no-ddl\""])
            .expect("metrics")
            >= 1.0
    );
}

#[test]
fn no_statement_hides_in_another() {
    let world = World::new();
    for sql in [
        "SELECT 1; DROP TABLE orders; SELECT 2",
        "/**/DROP/**/TABLE orders",
        "WITH gone AS (DELETE FROM customers RETURNING *) SELECT count(*) FROM gone",
        "DO $$ BEGIN EXECUTE 'DROP TABLE ' || 'orders'; END $$",
        "COPY (SELECT 1) TO PROGRAM 'touch /tmp/pwned'",
        "COPY secrets TO STDOUT",
        "TABLE secrets",
        "SELECT 1 UNION ALL (TABLE secrets) LIMIT 0",
        "SELECT U&\"\\0076alue\" FROM secrets",
        "EXPLAIN ANALYZE DELETE FROM customers",
        "PREPARE p AS SELECT value FROM secrets",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT query_to_xml('SELECT * FROM secrets', true, false, '')",
        "SET ROLE postgres",
        "SET search_path = pg_temp",
        "SELECT lo_import('/etc/passwd')",
        "TRUNCATE customers",
    ] {
        let out = world.job(&["psql", "-XAt", "-c", sql]).run();
        assert!(!out.success() && out.stderr.contains("denied by policy rule"), "{sql}: {out}");
    }
    assert_eq!(world.db.ask("SELECT count(*) FROM customers"), "200");
    assert_eq!(world.db.ask("SELECT count(*) FROM orders"), "1000");
    assert!(!std::path::Path::new("/tmp/pwned").exists());
}

#[test]
fn a_masked_column_is_no_oracle() {
    let world = World::new();
    for sql in [
        "SELECT id FROM customers WHERE email LIKE 'customer1@%'",
        "SELECT id FROM customers ORDER BY ssn",
        "SELECT ssn, count(*) FROM customers GROUP BY ssn",
        "SELECT a.id FROM customers a JOIN customers b ON a.email = b.email",
        "INSERT INTO imports SELECT id, email FROM customers",
    ] {
        let out = world.job(&["psql", "-XAt", "-c", sql]).run();
        assert!(
            !out.success() && out.stderr.contains("42501") || out.stderr.contains("builtin:"),
            "{sql}: {out}"
        );
    }
    // An error of the server would have quoted the value.
    let out =
        world.job(&["psql", "-XAt", "-c", "SELECT email::int FROM customers WHERE id = 1"]).run().failed();
    assert!(!out.stderr.contains("mail.example"), "{out}");
    assert_eq!(world.db.ask("SELECT count(*) FROM imports"), "0");
}

#[test]
fn copy_out_is_masked_and_copy_in_arrives() {
    let world = World::new();
    let out = world
        .psql(
            "\\copy (SELECT id, email, card FROM customers ORDER BY id LIMIT 3) TO STDOUT WITH (FORMAT csv)",
        )
        .run()
        .ok();
    assert_eq!(out.stdout, format!("1,{REDACTED},{CARD}\n2,{REDACTED},{CARD}\n3,{REDACTED},{CARD}\n"));
    let out = world.psql("\\copy customers TO STDOUT").run().ok();
    assert_eq!(out.stdout.lines().count(), 200);
    assert!(!out.stdout.contains("mail.example") && !out.stdout.contains("4111"), "{out}");

    let rows: String = (0..5000).map(|n| format!("{n}\trow {n}\n")).collect();
    let out =
        world.psql(&format!("COPY imports FROM STDIN;\n{rows}\\.\nSELECT count(*) FROM imports;")).run().ok();
    assert_eq!(out.text(), "5000");
    assert_eq!(world.db.ask("SELECT payload FROM imports WHERE id = 4711"), "row 4711");
    // Not into tables that the rule does not name.
    let out = world.psql("COPY orders FROM STDIN;\n1\t1\t1\tx\n\\.\n").run().failed();
    assert!(out.stderr.contains("denied by policy"), "{out}");
}

#[test]
fn control_c_cancels_the_statement_and_only_that() {
    let world = World::new();
    let bystander = world.psql("SELECT pg_sleep(2); SELECT 'undisturbed';").start().expect("a job");
    let running = |sql: &str| {
        let active = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'gateway' AND state = 'active' AND query LIKE";
        world.db.ask(&format!("{active} '%{sql}%'")) != "0"
    };
    let job = world.psql("SELECT pg_sleep(600);").start().expect("a job");
    wait_for("the statement to run", || running("pg_sleep(600)").then_some(()));
    job.signal(Signal::INT);
    let out = job.finish(LIMIT).expect("an end").failed();
    assert!(out.stderr.contains("canceling statement due to user request"), "{out}");
    wait_for("the statement to end upstream", || (!running("pg_sleep(600)")).then_some(()));
    let out = bystander.finish(LIMIT).expect("an end").ok();
    assert!(out.stdout.contains("undisturbed"), "{out}");
}

#[test]
fn notifications_arrive() {
    let world = World::new();
    let out = world.psql("LISTEN news;\nNOTIFY news, 'hello';\nSELECT 1;").run().ok();
    assert!(out.stdout.contains("Asynchronous notification \"news\" with payload \"hello\""), "{out}");
}

#[test]
fn prepared_statements_cursors_and_errors_are_the_server_s_own() {
    let world = World::new();
    let out = world
        .job(&["psql", "-XAt"])
        .stdin(
            "PREPARE by_id(int) AS SELECT email FROM customers WHERE id = $1;
             EXECUTE by_id(7);
             BEGIN; DECLARE c CURSOR FOR SELECT ssn FROM customers; FETCH 2 FROM c; COMMIT;
             SELECT 1/0;
             SELECT nonsense FROM orders;
             SELECT 'end';",
        )
        .run()
        .ok();
    let redacted = out.stdout.lines().filter(|line| *line == REDACTED).count();
    assert_eq!(redacted, 3, "{out}");
    assert!(out.stderr.contains("division by zero"), "{out}");
    assert!(out.stdout.ends_with("end\n"), "{out}");
}

#[test]
fn what_psql_itself_asks_is_allowed() {
    let world = World::new();
    let out = world.job(&["psql", "-X"]).stdin("\\d orders\n\\dt\n\\l\n\\df public.*\n").run().ok();
    assert!(out.stdout.contains("customer_id"), "{out}");
    assert!(!out.stderr.contains("ERROR"), "{out}");
}
