//! OpenSSH's client, as people and scripts use it.

use tests::{process::LIMIT, sshd::Sshd};

use crate::support::{Ground, HOST, wait_for, wait_for_audit};

#[test]
fn a_command_runs_with_its_streams_and_its_status() {
    let ground = Ground::new();
    let out = ground.ssh(&[HOST, "echo out; echo err >&2; id -un; exit 7"]).run();
    assert_eq!(out.status.code(), Some(7), "{out}");
    assert_eq!(out.stdout, format!("out\n{}\n", Sshd::USER));
    assert_eq!(out.stderr, "err\n");
    assert_eq!(ground.sshd.ran(), ["echo out; echo err >&2; id -un; exit 7"]);
    // The host saw the gateway's key, and no other.
    assert!(ground.sshd.log().contains("Accepted publickey for deploy"), "{}", ground.sshd.log());
    let opened = wait_for_audit(&ground.world, "session_opened", |_| true);
    assert_eq!(opened["subject"], "payments-agent");
    assert_eq!(opened["resource"], "web");
    assert!(
        opened["client"].as_str().is_some_and(|client| client.starts_with("SSH-2.0-OpenSSH")),
        "{opened}"
    );
    let decision = wait_for_audit(&ground.world, "decision", |line| line["statement_kind"] == "ssh_exec");
    assert_eq!((&decision["verdict"], &decision["rules"][0]), (&"allow".into(), &"commands".into()));
    let completed = wait_for_audit(&ground.world, "completed", |_| true);
    assert_eq!((&completed["outcome"], &completed["bytes"]), (&"exit 7".into(), &15.into()), "{completed}");
}

#[test]
fn standard_input_reaches_the_command_and_its_end_is_told() {
    let ground = Ground::new();
    let text: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
    // Both directions at once, more than any window holds.
    let out = ground.ssh(&[HOST, "cat"]).stdin(&text).run().ok();
    assert!(out.stdout == text, "{} of {} bytes", out.stdout.len(), text.len());
    let out = ground.ssh(&[HOST, "wc -c"]).stdin(&text).run().ok();
    assert_eq!(out.text(), text.len().to_string());
}

#[test]
fn a_refused_command_names_its_rule_and_never_runs() {
    let ground = Ground::new();
    let out = ground.ssh(&[HOST, "touch forbidden"]).run();
    assert_eq!(out.status.code(), Some(126), "{out}");
    assert!(out.stderr.contains("gateway: denied by policy rule builtin:default-deny"), "{out}");
    assert!(out.stderr.contains("running `touch"), "{out}");
    assert_eq!(ground.sshd.ran(), [""; 0]);
    assert!(!ground.sshd.home().join("forbidden").exists());
    // The next one is none the worse.
    assert_eq!(ground.ssh(&[HOST, "echo fine"]).run().ok().text(), "fine");
}

#[test]
fn a_command_that_a_signal_ends_says_so() {
    let ground = Ground::new();
    let out = ground.ssh(&[HOST, "kill -TERM $$"]).run().failed();
    assert_eq!(out.status.code(), Some(255), "{out}");
    let completed = wait_for_audit(&ground.world, "completed", |_| true);
    assert_eq!(completed["outcome"], "signal TERM", "{completed}");
}

#[test]
fn commands_behind_each_other_share_one_login() {
    let ground = Ground::new();
    let script = format!(
        "set -e\nexport S=/tmp/mux\nssh -o BatchMode=yes -o ControlMaster=yes -o ControlPath=$S -o ControlPersist=30 -N -f {HOST}\n\
         for n in 1 2 3 4 5; do ssh -n -o ControlPath=$S {HOST} \"echo $n\"; done\n\
         ssh -o ControlPath=$S -O exit {HOST}"
    );
    let out = ground.job(&["bash", "-c", &script]).run().ok();
    assert_eq!(out.stdout, "1\n2\n3\n4\n5\n", "{out}");
    // One may be made ahead for a command that comes before the first is over.
    let logins = ground.sshd.log().matches("Accepted publickey").count();
    assert!((1..=2).contains(&logins), "{logins} logins");
}

#[test]
fn several_commands_share_a_connection() {
    let ground = Ground::new();
    let script = format!(
        "set -e\nexport S=/tmp/mux\nssh -o BatchMode=yes -o ControlMaster=yes -o ControlPath=$S -o ControlPersist=30 -N -f {HOST}\n\
         for n in 1 2 3; do ssh -o ControlPath=$S {HOST} \"echo $n\" & done; wait\n\
         ssh -o ControlPath=$S -O exit {HOST}"
    );
    let out = ground.job(&["bash", "-c", &script]).run().ok();
    let mut lines: Vec<_> = out.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["1", "2", "3"], "{out}");
    assert_eq!(ground.sshd.ran().len(), 3);
}

#[test]
fn the_host_key_is_known_and_strangers_are_not_trusted() {
    let ground = Ground::new();
    let keys = ground.job(&["ssh-keyscan", "-t", "ed25519", HOST]).run().ok();
    assert!(keys.stdout.contains("ssh-ed25519"), "{keys}");
    let theirs = ground.sshd.public_key("host_ed25519");
    assert!(!keys.stdout.contains(theirs.split(' ').nth(1).expect("a key")), "{keys}");
    let out = ground.ssh(&["-o", "GlobalKnownHostsFile=/dev/null", HOST, "true"]).run().failed();
    assert!(out.stderr.contains("Host key verification failed"), "{out}");
    assert_eq!(ground.sshd.ran(), [""; 0]);
    // Without certificates, by the plain key.
    let out = ground.ssh(&["-o", "HostKeyAlgorithms=ssh-ed25519", HOST, "echo plain"]).run().ok();
    assert_eq!(out.text(), "plain");
}

#[test]
fn a_job_with_a_user_of_its_own_has_a_name() {
    let ground = Ground::with(crate::support::RULES, &[], &[("/jobs/uid", serde_json::Value::Null)]);
    let script = format!("id -un; echo $HOME; ssh -o BatchMode=yes {HOST} 'echo as job'");
    let out = ground.job(&["bash", "-c", &script]).run().ok();
    assert_eq!(out.stdout, "job\n/tmp/home\nas job\n", "{out}");
    // The host's own list is as it was.
    assert!(!std::fs::read_to_string("/etc/passwd").expect("accounts").contains("job:x:"));
}

#[test]
fn a_command_that_nobody_could_read_is_refused() {
    let ground = Ground::new();
    let long = format!("echo {}", "x".repeat(40_000));
    let out = ground.ssh(&[HOST, &long]).run();
    assert_eq!(out.status.code(), Some(126), "{out}");
    assert!(out.stderr.contains("a command of more than 32768 bytes"), "{out}");
    assert_eq!(ground.sshd.ran(), [""; 0]);
}

#[test]
fn a_job_that_ends_takes_its_commands_with_it() {
    let ground = Ground::new();
    let job = ground.ssh(&[HOST, "echo here; exec sleep 600"]).start().expect("a job");
    wait_for("the command to run", || {
        ground.sshd.processes().iter().any(|line| line.contains("sleep 600")).then_some(())
    });
    job.signal(rustix::process::Signal::TERM);
    let _ = job.finish(LIMIT);
    // Without a terminal the host tells the command by closing its streams; what it writes to is gone.
    wait_for("the session to end", || {
        let sessions = ground.world.agent.json(&["sessions"]).ok()?;
        sessions.as_array().is_some_and(Vec::is_empty).then_some(())
    });
}

#[test]
fn the_agent_s_death_ends_the_session() {
    let mut ground = Ground::new();
    let job = ground.ssh(&[HOST, "echo here; cat"]).open().expect("a job");
    wait_for("the command to run", || (!ground.sshd.ran().is_empty()).then_some(()));
    ground.world.agent.kill();
    let out = job.finish(LIMIT).expect("an end");
    assert!(!out.success(), "{out}");
    wait_for("the command to end", || {
        ground.sshd.processes().iter().all(|line| !line.starts_with("cat")).then_some(())
    });
}
