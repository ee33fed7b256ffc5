//! What several files need.

use std::time::Duration;

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

/// The statements of this shape that the server ran, out of its log.
pub(crate) fn ran(world: &World, what: &str) -> usize {
    world.db.log().lines().filter(|line| line.contains(what) && !line.contains("postgres@")).count()
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
