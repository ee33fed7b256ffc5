//! Clients that misbehave, and clients that are slow: nothing panics, stalls or grows.

use std::time::Duration;

use serde_json::json;
use tests::process::LIMIT;

use crate::support::{Ground, HOST, wait_for};

/// What the agent may grow by, whatever a job does.
const GROWTH: u64 = 160 * 1024 * 1024;

#[track_caller]
fn no_panic(ground: &Ground) {
    let log = ground.world.agent.log();
    assert!(!log.contains("panicked"), "{log}");
    // And it goes on serving.
    assert_eq!(ground.ssh(&[HOST, "echo alive"]).run().ok().text(), "alive");
}

#[test]
fn versions_with_junk_are_closed() {
    let ground = Ground::new();
    for junk in [
        "$(head -c 100000 /dev/zero | tr '\\\\0' A)",
        "$(printf 'SSH-2.0-'; head -c 5000 /dev/zero | tr '\\\\0' A)",
        "SSH-2.0-x",
    ] {
        let script = format!(
            "exec 3<>/dev/tcp/{HOST}/22; printf '%s\\r\\n' \"{junk}\" >&3; head -c 300 /dev/urandom >&3; timeout 20 cat <&3 | wc -c"
        );
        let out = ground.job(&["bash", "-c", &script]).limit(Duration::from_secs(40)).run();
        assert!(!out.stdout.trim().is_empty(), "{junk}: {out}");
    }
    assert!(!ground.sshd.log().contains("Connection from"));
    no_panic(&ground);
}

#[test]
fn a_client_that_says_nothing_is_let_go() {
    let ground = Ground::with(crate::support::RULES, &[], &[("/sessions/login_timeout", json!("2s"))]);
    let script = format!("exec 3<>/dev/tcp/{HOST}/22; time -p timeout 30 cat <&3 > /dev/null");
    let out = ground.job(&["bash", "-c", &script]).run().ok();
    assert!(out.took < Duration::from_secs(20), "{out}");
    let timeouts =
        ground.world.agent.metric("gateway_flows_total", &["result=\"timeout\""]).expect("metrics");
    assert!(timeouts >= 1.0);
}

#[test]
fn keys_are_changed_under_way() {
    let ground = Ground::new();
    let text: String = (0..400_000).map(|n| format!("{n}\n")).collect();
    let out = ground.ssh(&["-o", "RekeyLimit=64K", HOST, "cat"]).stdin(&text).run().ok();
    assert!(out.stdout == text, "{} of {}", out.stdout.len(), text.len());
}

#[test]
fn compression_is_not_offered() {
    let ground = Ground::new();
    let out = ground.ssh(&["-v", "-C", HOST, "echo plain"]).run().ok();
    assert!(out.stderr.contains("compression: none"), "{out}");
    let out = ground.ssh(&["-v", HOST, "true"]).run().ok();
    // What strict key exchange does, and no other.
    assert!(out.stderr.contains("resetting read seqnr"), "{out}");
    assert!(!out.stderr.contains("chacha20"), "{out}");
    for weak in [
        "KexAlgorithms=diffie-hellman-group14-sha1",
        "Ciphers=aes128-cbc",
        "MACs=hmac-sha1,umac-64@openssh.com -o Ciphers=aes128-ctr",
    ] {
        let words: Vec<_> = std::iter::once("-o").chain(weak.split(' ')).chain([HOST, "true"]).collect();
        let out = ground.ssh(&words).run().failed();
        assert!(out.stderr.contains("no matching"), "{weak}: {out}");
    }
}

#[test]
fn a_command_that_reads_nothing_stalls_nobody() {
    let ground = Ground::new();
    let before = ground.world.agent.memory().expect("memory");
    // Its input has nowhere to go, while its output goes on: for ever, as far as the client is concerned.
    let script = format!("yes | ssh -o BatchMode=yes {HOST} 'yes | head -c 60000000' | wc -c");
    let out = ground.job(&["bash", "-c", &script]).limit(LIMIT).run();
    assert_eq!(out.text(), "60000000", "{out}");
    let peak = ground.world.agent.peak_memory().expect("memory");
    assert!(peak < before + GROWTH, "{before} to {peak}");
    no_panic(&ground);
}

#[test]
fn a_slow_reader_waits_alone() {
    let ground = Ground::new();
    let before = ground.world.agent.memory().expect("memory");
    let script = format!(
        "export S=/tmp/mux; ssh -o BatchMode=yes -o ControlMaster=yes -o ControlPath=$S -N -f {HOST}\n\
         mkfifo /tmp/slow; (ssh -o ControlPath=$S {HOST} 'head -c 400000000 /dev/zero' > /tmp/slow) & \n\
         exec 4</tmp/slow; head -c 1 <&4 > /dev/null\n\
         for n in $(seq 20); do ssh -o ControlPath=$S {HOST} \"echo $n\"; done\n\
         ssh -o ControlPath=$S {HOST} 'head -c 5000000 /dev/zero' | wc -c\n\
         head -c 5000000 /dev/zero | ssh -o ControlPath=$S {HOST} 'wc -c'\n\
         cat <&4 | wc -c; ssh -o ControlPath=$S -O exit {HOST}"
    );
    let out = ground.job(&["bash", "-c", &script]).limit(Duration::from_secs(120)).run();
    let lines: Vec<_> = out.stdout.lines().collect();
    assert_eq!(lines.len(), 23, "{out}");
    assert_eq!(lines[20..], ["5000000", "5000000", "399999999"], "{out}");
    let peak = ground.world.agent.peak_memory().expect("memory");
    assert!(peak < before + GROWTH, "{before} to {peak}");
}

#[test]
fn a_thousand_channels_are_bounded() {
    let ground = Ground::new();
    let python = ground.world.python();
    let script = include_str!("flood.py");
    let before = ground.world.agent.memory().expect("memory");
    let out = ground.job(&[&python, "-c", script, HOST]).limit(Duration::from_secs(120)).run().ok();
    let said: serde_json::Value = serde_json::from_str(out.text()).expect("JSON");
    assert!(said["opened"].as_u64().is_some_and(|n| (1..=128).contains(&n)), "{out}");
    assert!(said["refused"].as_u64().is_some_and(|n| n >= 872), "{out}");
    assert_eq!(said["unknown"], "refused", "{out}");
    let peak = ground.world.agent.peak_memory().expect("memory");
    assert!(peak < before + GROWTH, "{before} to {peak}");
    no_panic(&ground);
}

#[test]
fn packets_that_are_too_large_or_broken_end_the_connection() {
    let ground = Ground::new();
    let script = format!(
        "exec 3<>/dev/tcp/{HOST}/22; printf 'SSH-2.0-x\\r\\n' >&3; printf '\\xff\\xff\\xff\\xff\\x00' >&3; \
         head -c 3000000 /dev/zero >&3 2>/dev/null; timeout 20 cat <&3 | wc -c"
    );
    let before = ground.world.agent.memory().expect("memory");
    for _ in 0..5 {
        let _ = ground.job(&["bash", "-c", &script]).limit(Duration::from_secs(40)).run();
    }
    wait_for("the sessions to end", || {
        let sessions = ground.world.agent.json(&["sessions"]).ok()?;
        sessions.as_array().is_some_and(Vec::is_empty).then_some(())
    });
    let peak = ground.world.agent.peak_memory().expect("memory");
    assert!(peak < before + GROWTH, "{before} to {peak}");
    no_panic(&ground);
}

#[test]
fn messages_out_of_place_do_nothing() {
    let ground = Ground::new();
    let before = ground.world.agent.memory().expect("memory");
    let script = include_str!("hostile.py");
    let out =
        ground.job(&[&ground.world.python(), "-c", script, HOST]).limit(Duration::from_secs(180)).run().ok();
    let said: serde_json::Value = serde_json::from_str(out.text()).expect("JSON");
    // The connection is closed, or goes on as if nothing had been.
    for case in [
        "data before confirmation",
        "beyond the window",
        "after unknown requests",
        "unknown extensions",
        "extensions cut off",
    ] {
        assert!(matches!(said[case].as_str(), Some("alive" | "closed")), "{case}: {out}");
    }
    assert!(matches!(said["a window too wide"].as_str(), Some("wide" | "closed")), "{out}");
    assert!(said["login attempts"].as_u64().is_some_and(|count| count < 100), "{out}");
    assert_eq!((&said["one program"], &said["status"]), (&"first".into(), &3.into()), "{out}");
    assert_eq!(said["closed after"], true, "{out}");
    let ran = ground.sshd.ran();
    assert!(!ran.iter().any(|line| line.contains("second") || line.contains("too early")), "{ran:?}");
    let peak = ground.world.agent.peak_memory().expect("memory");
    assert!(peak < before + GROWTH, "{before} to {peak}");
    no_panic(&ground);
}
