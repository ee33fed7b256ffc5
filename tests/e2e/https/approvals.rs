//! Requests that wait for a human, held open.

use tests::process::LIMIT;

use crate::support::{Ground, answered, wait_for, wait_for_audit};

/// The one request that waits.
#[track_caller]
fn asked(ground: &Ground) -> serde_json::Value {
    wait_for("a request", || {
        let waiting = ground.world.agent.json(&["approvals", "list"]).ok()?;
        waiting.as_array()?.first().cloned()
    })
}

#[test]
fn a_request_waits_and_people_see_what_it_is() {
    let ground = Ground::new();
    for flag in ["--http1.1", "--http2"] {
        let job = ground
            .curl(&[flag, "-X", "PUT", "-d", "version=7", "https://open.example/release/7"])
            .start()
            .expect("a job");
        let waiting = asked(&ground);
        let id = waiting["id"].as_str().expect("an id").to_owned();
        let text = waiting.to_string();
        assert!(text.contains("PUT https://open.example/release/7") && text.contains("version=7"), "{text}");
        assert!(ground.web.asked().is_empty());
        let _ = ground.world.agent.cli(&["approvals", "approve", &id]).expect("the command line").ok();
        let out = job.finish(LIMIT).expect("an end").ok();
        assert_eq!(answered(&out).1, 200, "{out}");
        assert_eq!(ground.web.asked().remove(0).body, 9);
        ground.web.forget();
        wait_for_audit(&ground.world, "decision", |line| line["approval"] == id.as_str());
    }
}

#[test]
fn a_denied_request_never_arrives() {
    let ground = Ground::new();
    let job =
        ground.curl(&["-X", "PUT", "-d", "x", "https://open.example/release/7"]).start().expect("a job");
    let id = asked(&ground)["id"].as_str().expect("an id").to_owned();
    let out = ground
        .world
        .agent
        .cli(&["approvals", "deny", &id, "--reason", "not today"])
        .expect("the command line");
    assert!(out.success(), "{out}");
    let out = job.finish(LIMIT).expect("an end").ok();
    let (body, status) = answered(&out);
    assert_eq!(status, 403, "{out}");
    assert!(body.contains("denied by policy rule ask") && body.contains("not today"), "{body}");
    assert!(ground.web.asked().is_empty());
}
