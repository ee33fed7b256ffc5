//! /metrics as Prometheus wants it, and the daemon's own account of itself.

use tests::{World, process, process::Running};

#[test]
fn promtool_has_nothing_to_say_about_the_metrics() {
    let world = World::new();
    let _out = world
        .job(&["psql", "-XAt"])
        .stdin("SELECT email FROM customers LIMIT 5;\nDROP TABLE orders;\n")
        .run();
    let text = world.agent.metrics().expect("metrics");
    let promtool = process::which("promtool").expect("promtool: `cargo xtask setup` installs it");
    let mut command = std::process::Command::new(promtool);
    let checked =
        Running::capturing(command.args(["check", "metrics"]), Some(text.as_bytes())).expect("promtool");
    let out = checked.finish(process::LIMIT).expect("an answer").ok();
    assert!(out.stdout.trim().is_empty() && out.stderr.trim().is_empty(), "{out}\n{text}");
    for name in [
        "gateway_flows_total",
        "gateway_decisions_total",
        "gateway_approvals_waiting",
        "gateway_phase_duration_seconds",
        "gateway_kernel_denials_total",
        "gateway_heartbeat_age_seconds",
        "gateway_kernel_events_dropped_total",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
    assert!(world.agent.metric("gateway_masked_cells_total", &[]).expect("metrics") >= 5.0);
    assert!(world.agent.metric("gateway_heartbeat_age_seconds", &[]).expect("metrics") < 2.0);
}

#[test]
fn status_says_what_is_on() {
    let world = World::new();
    let status = world.agent.json(&["status"]).expect("status");
    assert_eq!(status["ready"], true);
    let hooks = status["hooks"].as_array().expect("hooks");
    for name in [
        "connect4",
        "connect6",
        "sendmsg4",
        "recvmsg6",
        "getpeername4",
        "sock_create",
        "sk_lookup",
        "setsockopt",
    ] {
        let hook = hooks.iter().find(|hook| hook["name"].as_str().is_some_and(|found| found.contains(name)));
        assert!(hook.is_some_and(|hook| hook["on"] == true), "{name} in {status}");
    }
    let text = world.agent.cli(&["status"]).expect("status").ok();
    assert!(text.stdout.contains("connect4"), "{text}");
}
