//! What several files need.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{World, process};

/// What a masked value looks like.
pub(crate) const REDACTED: &str = "[redacted]";
/// What a detected card number and a detected mail address look like.
pub(crate) const CARD: &str = "[redacted:card]";
pub(crate) const EMAIL: &str = "[redacted:email]";

/// Waits for a condition, for as long as anything may take.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    match process::wait_for(what, Duration::from_secs(30), ask) {
        Ok(answer) => answer,
        Err(error) => panic!("{error:#}"),
    }
}

/// The last line of a program's output, as JSON.
#[track_caller]
pub(crate) fn json(text: &str) -> Value {
    let line = text.lines().next_back().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// The version of the policy in force.
pub(crate) fn version(world: &World) -> String {
    world.agent.json(&["status"]).expect("status")["policy_version"].as_str().expect("a version").to_owned()
}

/// Puts another policy in place, and waits until it is in force.
#[track_caller]
pub(crate) fn put_in_force(world: &World, policy: &str) {
    let before = version(world);
    world.write_policy(policy).expect("written");
    wait_for("the new policy", || (version(world) != before).then_some(()));
}

/// The statements of this shape that the server ran, out of its log.
pub(crate) fn ran(world: &World, what: &str) -> usize {
    world.db.log().lines().filter(|line| line.contains(what) && !line.contains("postgres@")).count()
}

/// With the last session on a database the gateway's own connections there end, too: at once, not some time later.
#[track_caller]
pub(crate) fn assert_nothing_left(world: &World) {
    let since = Instant::now();
    wait_for("no connection of the gateway", || {
        (world.db.ask("SELECT count(*) FROM pg_stat_activity WHERE usename = 'gateway'") == "0").then_some(())
    });
    assert!(since.elapsed() < Duration::from_secs(5), "after {:?}", since.elapsed());
}

/// Audit lines of one kind.
#[track_caller]
pub(crate) fn audited(world: &World, event: &str) -> Vec<Value> {
    let events = world.agent.audit().expect("an audit log");
    events.into_iter().filter(|line| line["event"] == event).collect()
}

/// Polls the audit log for a line of one kind that satisfies a condition.
#[track_caller]
pub(crate) fn wait_for_audit(world: &World, event: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait_for(event, || audited(world, event).into_iter().find(|line| is(line)))
}
