//! Shells and commands that wait for a human.

use tests::process::{LIMIT, Running};

use crate::support::{Ground, HOST, KEY, wait_for, wait_for_audit};

/// The id of the one request that waits.
#[track_caller]
fn asked(ground: &Ground) -> String {
    wait_for("a request", || {
        let waiting = ground.world.agent.json(&["approvals", "list"]).ok()?;
        Some(waiting.as_array()?.first()?["id"].as_str()?.to_owned())
    })
}

#[test]
fn a_shell_waits_for_a_human_and_says_so() {
    let ground = Ground::new();
    let mut job = ground.ssh(&["-tt", HOST]).open().expect("a job");
    let id = asked(&ground);
    assert_eq!(ground.sshd.ran(), [""; 0]);
    let out =
        ground.world.agent.cli(&["approvals", "approve", &id, "--reason", "seen"]).expect("the command line");
    assert!(out.success(), "{out}");
    job.write(b"echo it is $((40 + 2))\nexit 3\n").expect("standard input");
    let out = job.finish(LIMIT).expect("an end");
    assert_eq!(out.status.code(), Some(3), "{out}");
    assert!(out.stdout.contains("it is 42"), "{out}");
    let said = format!("{}{}", out.stdout, out.stderr);
    assert!(said.contains(&format!("gateway: waiting for approval {id}")), "{out}");
    assert!(said.contains("gateway: approved by root"), "{out}");
    let answered = wait_for_audit(&ground.world, "approval_answered", |line| line["approval"] == id.as_str());
    assert_eq!(answered["outcome"], "approved");
    let decision = wait_for_audit(&ground.world, "decision", |line| line["statement_kind"] == "ssh_shell");
    assert_eq!((&decision["verdict"], &decision["approval"]), (&"allow".into(), &id.as_str().into()));
}

#[test]
fn a_shell_that_is_denied_never_starts() {
    let ground = Ground::new();
    let job = ground.ssh(&["-tt", HOST]).open().expect("a job");
    let id = asked(&ground);
    let out = ground
        .world
        .agent
        .cli(&["approvals", "deny", &id, "--reason", "not today"])
        .expect("the command line");
    assert!(out.success(), "{out}");
    let out = job.finish(LIMIT).expect("an end");
    assert_eq!(out.status.code(), Some(126), "{out}");
    assert!(format!("{}{}", out.stdout, out.stderr).contains("not today"), "{out}");
    assert_eq!(ground.sshd.ran(), [""; 0]);
}

#[test]
fn a_job_that_leaves_takes_its_request_back() {
    let ground = Ground::new();
    let job = ground.ssh(&["-tt", HOST]).open().expect("a job");
    asked(&ground);
    drop(job);
    wait_for("the request to be withdrawn", || {
        let waiting = ground.world.agent.json(&["approvals", "list"]).ok()?;
        waiting.as_array().is_some_and(Vec::is_empty).then_some(())
    });
    assert_eq!(ground.sshd.ran(), [""; 0]);
}

#[test]
fn an_operator_ends_a_shell() {
    let ground = Ground::new();
    let mut job = ground.ssh(&["-tt", HOST]).open().expect("a job");
    let id = asked(&ground);
    ground.world.agent.cli(&["approvals", "approve", &id, "--reason", "seen"]).expect("the command line");
    job.write(b"sleep 600\n").expect("standard input");
    wait_for("the shell", || {
        ground.sshd.processes().iter().any(|line| line.contains("sleep 600")).then_some(())
    });
    let sessions = ground.world.agent.json(&["sessions"]).expect("sessions");
    let session = sessions[0]["id"].as_str().expect("an id").to_owned();
    let out = ground
        .world
        .agent
        .cli(&["sessions", "kill", &session, "--reason", "enough"])
        .expect("the command line");
    assert!(out.success(), "{out}");
    let out = job.finish(LIMIT).expect("an end").failed();
    assert!(format!("{}{}", out.stdout, out.stderr).contains("enough"), "{out}");
    wait_for("the shell to end", || {
        (!ground.sshd.processes().iter().any(|line| line.contains("sleep 600"))).then_some(())
    });
}

#[test]
fn an_operator_looks_on() {
    let ground = Ground::new();
    std::fs::write(ground.sshd.home().join("key"), format!("key {KEY}\n")).expect("a file");
    let mut job = ground.ssh(&["-tt", HOST]).open().expect("a job");
    let id = asked(&ground);
    ground.world.agent.cli(&["approvals", "approve", &id, "--reason", "seen"]).expect("the command line");
    let sessions = ground.world.agent.json(&["sessions"]).expect("sessions");
    let session = sessions[0]["id"].as_str().expect("an id").to_owned();
    let seen = ground.world.folder().join("seen");
    let mut watch = ground.world.agent.command(&["sessions", "watch", &session]);
    let mut watching = Running::logging(&mut watch, &seen).expect("the command line");
    let watched = wait_for_audit(&ground.world, "session_watched", |_| true);
    assert_eq!((&watched["session"], &watched["uid"]), (&session.as_str().into(), &0.into()), "{watched}");
    job.write(b"cat key; printf '\\033[1m'; echo it is $((40 + 2))\n").expect("standard input");
    let text = wait_for("what the job is shown", || {
        std::fs::read_to_string(&seen).ok().filter(|text| text.contains("it is 42"))
    });
    // As the job is shown it: masked; and nothing in it drives the terminal of whoever looks on.
    assert!(text.contains("[redacted:aws_access_key]") && !text.contains(KEY), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    job.write(b"exit\n").expect("standard input");
    let _ = job.finish(LIMIT).expect("an end");
    assert!(watching.wait(LIMIT).expect("an end").success());
    let none = ground.world.agent.cli(&["sessions", "watch", &session]).expect("the command line").failed();
    assert!(none.stderr.contains("there is no session"), "{none}");
}

#[test]
fn a_connection_that_waits_says_so() {
    let rules = crate::support::RULES.replace(
        "  - { id: connect, effect: allow, subjects: [payments-agent], resources: [web], connect: true }",
        "  - { id: connect, effect: approve, subjects: [payments-agent], resources: [web], connect: true, record: results, \
         approval: { approvers: [root], expires_after: 30s } }",
    );
    let ground = Ground::with(&rules, &[], &[]);
    let job = ground.ssh(&[HOST, "echo in"]).start().expect("a job");
    let id = asked(&ground);
    assert!(!ground.sshd.log().contains("Connection from"), "{}", ground.sshd.log());
    ground.world.agent.cli(&["approvals", "approve", &id, "--reason", "seen"]).expect("the command line");
    let out = job.finish(LIMIT).expect("an end").ok();
    assert_eq!(out.stdout, "in\n");
    assert!(out.stderr.contains(&format!("gateway: waiting for approval {id}")), "{out}");
}
