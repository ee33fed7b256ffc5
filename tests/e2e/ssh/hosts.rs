//! Hosts that misbehave: what they do wrong stays with the one channel that went there.

use std::time::Duration;

use serde_json::json;

use crate::support::{Ground, RULES, SECOND};

/// What the agent may grow by, whatever a host does.
const GROWTH: u64 = 160 * 1024 * 1024;

#[test]
fn a_host_that_does_not_keep_to_the_protocol_harms_nobody_else() {
    let ground = Ground::new();
    let key = ground.sshd.key("host_ed25519").display().to_string();
    let _host = ground.there(include_str!("unruly.py"), &[SECOND, &key]);
    ground.moved(RULES);
    let before = ground.world.agent.memory().expect("memory");
    let ssh = |doing: &str| {
        let command = format!("echo {doing}");
        ground.ssh(&[SECOND, &command]).limit(Duration::from_secs(60)).run()
    };
    // The order in which output and status come is the host's own.
    for (doing, shown, status) in
        [("status_first", "late\n", 3), ("no_status", "nothing more\n", 255), ("wide", "wide\n", 0)]
    {
        let out = ssh(doing);
        assert_eq!(
            (out.stdout.as_str(), out.status.code()),
            (shown, Some(status)),
            "{doing}: {out}\n{}",
            ground.said_there()
        );
    }
    let out = ssh("status_twice");
    assert_eq!(out.stdout, "once\n", "{out}");
    assert!(matches!(out.status.code(), Some(4 | 5)), "{out}");
    let out = ssh("after_the_end");
    assert!(out.stdout.starts_with("before\n") && !out.stdout.contains("long after"), "{out}");
    let out = ssh("unknown");
    assert_eq!(out.stdout, "fine\n", "{out}");
    // What is said on channels that are not open is heard by nobody, or ends the connection.
    let out = ssh("nobody_s");
    assert!(matches!(out.stdout.as_str(), "fine\n" | ""), "{out}");
    assert_eq!(ssh("opens").stdout, "6 of 6 refused\n");
    // More than it may say: it is cut off, or its words pass as fast as they are read.
    for (doing, bytes) in [("beyond_the_window", 120_000_000), ("huge", 3_000_000)] {
        let out = ssh(doing);
        assert!(out.stdout.len() <= bytes && out.stdout.bytes().all(|c| c == b'x'), "{doing}");
        assert!(
            out.success() == (out.stdout.len() == bytes),
            "{doing}: {} bytes, {}",
            out.stdout.len(),
            out.status
        );
    }
    let peak = ground.world.agent.peak_memory().expect("memory");
    assert!(peak < before + GROWTH, "{before} to {peak}");
    let log = ground.world.agent.log();
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(ssh("wide").stdout, "wide\n");
}

#[test]
fn a_host_that_never_says_what_it_is_is_given_up() {
    let ground = Ground::with(RULES, &[], &[("/sessions/login_timeout", json!("3s"))]);
    let before = ground.world.agent.memory().expect("memory");
    let junk = "import socket, sys, threading, time\n\
                s = socket.create_server((sys.argv[1], 22)); print('listening', flush=True)\n\
                def talk(c):\n  try:\n    while True: c.sendall(eval(sys.argv[2])); time.sleep(0)\n  except OSError: pass\n\
                while True:\n  c, _ = s.accept(); threading.Thread(target=talk, args=(c,), daemon=True).start()";
    for says in [
        "b'junk' * 10000 + b'\\r\\n'",
        "b'x' * 65536",
        "b'SSH-1.5-old\\r\\n'",
        "b'SSH-2.0-x\\r\\n' + b'\\xff' * 65536",
    ] {
        let host = ground.there(junk, &[SECOND, says]);
        ground.moved(RULES);
        let out = ground.ssh(&[SECOND, "echo in"]).limit(Duration::from_secs(40)).run().failed();
        assert!(out.stderr.contains("cannot use resource web"), "{says}: {out}");
        assert!(out.took < Duration::from_secs(20), "{says}: {out}");
        drop(host);
    }
    let peak = ground.world.agent.peak_memory().expect("memory");
    assert!(peak < before + GROWTH, "{before} to {peak}");
    assert_eq!(ground.sshd.ran(), [""; 0]);
}
