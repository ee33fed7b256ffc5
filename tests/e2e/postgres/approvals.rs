//! Statements that wait for a human.

use std::time::Duration;

use serde_json::Value;
use tests::{World, agent::JOB_UID, process, process::LIMIT};

use crate::support::{ran, wait_for, wait_for_audit};

/// The one approval that waits.
#[track_caller]
fn waiting(world: &World) -> Value {
    wait_for("an approval", || {
        let list = world.agent.json(&["approvals", "list"]).ok()?;
        list.as_array()?.first().cloned()
    })
}

fn id(approval: &Value) -> &str {
    approval["id"].as_str().expect("an id")
}

const DELETE: &str = "DELETE FROM orders WHERE id = 3 RETURNING id;";

#[test]
fn an_approved_delete_runs_once_and_the_client_knew_that_it_waited() {
    let world = World::new();
    let job = world.psql(DELETE).start().expect("a job");
    let approval = waiting(&world);
    assert_eq!(approval["subject"], "payments-agent");
    assert_eq!(approval["rules"][0], "delete-order");
    assert!(
        approval["statement"].as_str().is_some_and(|sql| sql.contains("DELETE FROM orders WHERE id = 3")),
        "{approval}"
    );
    assert_eq!(ran(&world, "DELETE FROM"), 0, "nothing runs before the answer");
    assert_eq!(world.agent.metric("gateway_approvals_waiting", &[]).expect("metrics"), 1.0);
    let shown = world.agent.cli(&["approvals", "show", id(&approval)]).expect("shown").ok();
    assert!(shown.stdout.contains("psql") && shown.stdout.contains("DELETE FROM orders"), "{shown}");

    let _said = world
        .agent
        .cli(&["approvals", "approve", id(&approval), "--reason", "ticket 7"])
        .expect("approved")
        .ok();
    let out = job.finish(LIMIT).expect("an end").ok();
    assert_eq!(out.text(), "3");
    assert!(out.stderr.contains("NOTICE:") && out.stderr.contains("root"), "who is waited for: {out}");
    assert_eq!(world.db.ask("SELECT count(*) FROM orders"), "999");
    assert_eq!(world.agent.metric("gateway_approvals_waiting", &[]).expect("metrics"), 0.0);
    let answered = wait_for_audit(&world, "approval_voted", |_| true);
    assert_eq!((&answered["approve"], &answered["uid"]), (&Value::from(true), &Value::from(0)), "{answered}");

    // Good once: the same statement waits again.
    let again = world.psql(DELETE).start().expect("a job");
    let other = waiting(&world);
    assert_ne!(id(&approval), id(&other));
    let _said = world.agent.cli(&["approvals", "approve", id(&approval)]).expect("an answer").failed();
    let _said = world
        .agent
        .cli(&["approvals", "deny", id(&other), "--reason", "once is enough"])
        .expect("denied")
        .ok();
    let out = again.finish(LIMIT).expect("an end").failed();
    assert!(out.stderr.contains("once is enough"), "{out}");
    assert_eq!(ran(&world, "DELETE FROM orders WHERE id = 3"), 1);
}

#[test]
fn a_denied_delete_does_not_run_and_the_session_goes_on() {
    let world = World::new();
    let job = world
        .job(&["psql", "-XAt", "-v", "VERBOSITY=verbose"])
        .stdin(format!("{DELETE}\nSELECT 'usable';\n"));
    let job = job.start().expect("a job");
    let approval = waiting(&world);
    let _said = world
        .agent
        .cli(&["approvals", "deny", id(&approval), "--reason", "not on Fridays"])
        .expect("denied")
        .ok();
    let out = job.finish(LIMIT).expect("an end").ok();
    assert!(out.stderr.contains("not on Fridays") && out.stderr.contains("42501"), "{out}");
    assert!(out.stdout.contains("usable"), "{out}");
    assert_eq!(world.db.ask("SELECT count(*) FROM orders"), "1000");
}

#[test]
fn nobody_answering_is_a_no() {
    let world = World::builder().approval_expires("2s").up();
    let out = world.job(&["psql", "-XAt"]).stdin(format!("{DELETE}\nSELECT 'usable';\n")).run().ok();
    assert!(out.stderr.contains("expired") || out.stderr.contains("nobody"), "{out}");
    assert!(out.stdout.contains("usable"), "{out}");
    assert_eq!(ran(&world, "DELETE FROM"), 0);
    assert!(world.agent.metric("gateway_approvals_total", &["outcome=\"expired\""]).expect("metrics") >= 1.0);
}

#[test]
fn parameters_are_shown_and_bound() {
    let world = World::new();
    let script = r#"
import psycopg
with psycopg.connect() as db:
    print(db.execute("DELETE FROM orders WHERE id = %t AND customer_id > %t", (4, -1)).rowcount)
"#;
    let job = world.job(&[&world.python(), "-c", script]).start().expect("a job");
    let approval = waiting(&world);
    assert_eq!(approval["params"], serde_json::json!(["4", "-1"]), "{approval}");
    let _said = world.agent.cli(&["approvals", "approve", id(&approval)]).expect("approved").ok();
    assert_eq!(job.finish(LIMIT).expect("an end").ok().text(), "1");
}

#[test]
fn nobody_approves_their_own() {
    // Whoever is listed: a process of a job may not answer, nor may the user that jobs run as.
    let world =
        World::builder().configure("/approvals/approvers", serde_json::json!(["root", "nobody"])).up();
    let job = world.psql(DELETE).start().expect("a job");
    let approval = waiting(&world);
    let agent = world.program("gateway-agent");
    let socket = world.folder().join("run/control.sock").display().to_string();
    let inside = world.job(&[&agent, "--socket", &socket, "approvals", "approve", id(&approval)]).run();
    let _said = inside.failed();
    let mut outside = std::process::Command::new("setpriv");
    outside.args([format!("--reuid={JOB_UID}"), format!("--regid={JOB_UID}")]).arg("--clear-groups");
    outside.args([&agent, "--socket", &socket, "approvals", "approve", id(&approval)]);
    let _said = process::run(&mut outside).expect("an answer").failed();
    assert_eq!(waiting(&world)["state"], "waiting");
    assert_eq!(ran(&world, "DELETE FROM"), 0);
    drop(job);
    // The client went away: nothing waits for its sake.
    wait_for("the request to be withdrawn", || {
        let list = world.agent.json(&["approvals", "list"]).ok()?;
        list.as_array()?.is_empty().then_some(())
    });
}

#[test]
fn a_job_can_give_up_waiting() {
    let world = World::new();
    let job = world.psql(DELETE).start().expect("a job");
    let approval = waiting(&world);
    job.signal(rustix::process::Signal::INT);
    let out = job.finish(Duration::from_secs(20)).expect("Ctrl-C ends the wait").failed();
    assert!(out.stderr.contains("cancel"), "{out}");
    let _said = world.agent.cli(&["approvals", "approve", id(&approval)]).expect("an answer").failed();
    assert_eq!(ran(&world, "DELETE FROM"), 0);
}
