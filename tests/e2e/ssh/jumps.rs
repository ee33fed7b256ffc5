//! SSH inside of SSH: ProxyJump to a host that policy declares.

use tests::sshd::Sshd;

use crate::support::{Ground, HOST, SECOND, audited, recordings, wait_for, wait_for_audit};

const RULES: &str = r#"
  - { id: connect, effect: allow, subjects: [payments-agent], resources: [web, db], connect: true, record: results }
  - id: inner
    effect: allow
    subjects: [payments-agent]
    resources: [db]
    ssh:
      commands: [{ program: id, arguments: ["**"] }, { program: sleep, arguments: ["**"] }]
      files: [{ operations: [read, list, write], paths: ["~/**"] }]
    record: results
"#;

fn jump() -> Vec<&'static str> {
    vec!["-J", HOST, SECOND]
}

#[track_caller]
fn second(ground: &Ground) -> &Sshd {
    ground.second.as_ref().expect("a second host")
}

/// Nothing went through the first host by a tunnel.
#[track_caller]
fn no_tunnel(ground: &Ground) {
    assert!(!ground.sshd.log().contains("direct-tcpip"), "{}", ground.sshd.log());
    assert_eq!(ground.sshd.ran(), [""; 0]);
}

#[test]
fn a_declared_host_behind_a_host_is_a_session_of_its_own() {
    let ground = Ground::two(RULES);
    let out = ground.ssh(&[jump(), vec!["echo in; id -un"]].concat()).run().ok();
    assert_eq!(out.stdout, format!("in\n{}\n", Sshd::USER));
    assert_eq!(second(&ground).ran(), ["echo in; id -un"]);
    no_tunnel(&ground);
    // Under the inner host's policy.
    let out = ground.ssh(&[jump(), vec!["touch forbidden"]].concat()).run();
    assert_eq!(out.status.code(), Some(126), "{out}");
    assert!(out.stderr.contains("on db as"), "{out}");
    let out = ground.ssh(&[HOST, "id"]).run();
    assert!(out.stderr.contains("on web as"), "{out}");
    assert_eq!(second(&ground).ran().len(), 1);
    // Both sessions are known, and the inner one names the outer.
    let outer = wait_for_audit(&ground.world, "session_opened", |line| line["resource"] == "web");
    let inner = wait_for_audit(&ground.world, "session_opened", |line| line["resource"] == "db");
    assert_eq!(inner["inside"], outer["session"], "{inner}");
    assert_eq!(inner["job"], outer["job"], "{inner}");
    wait_for("the sessions to end", || (audited(&ground.world, "session_closed").len() == 5).then_some(()));
    assert_eq!(recordings(&ground.world).len(), 5);
    // Files go the same way, and the host's certificate is checked.
    let script = format!(
        "cd /tmp; echo text > in; scp -q -o BatchMode=yes -o StrictHostKeyChecking=yes -J {HOST} in {SECOND}:there; \
         ssh -o BatchMode=yes -o GlobalKnownHostsFile=/dev/null -o ProxyCommand='ssh -o GlobalKnownHostsFile=/etc/ssh/ssh_known_hosts -W %h:%p {HOST}' {SECOND} id"
    );
    let out = ground.job(&["bash", "-c", &script]).run().failed();
    assert!(out.stderr.contains("Host key verification failed"), "{out}");
    let there = second(&ground).home().join("there");
    assert_eq!(std::fs::read_to_string(there).expect("a file"), "text\n");
    no_tunnel(&ground);
}

#[test]
fn a_rule_for_the_tunnel_makes_it_the_way() {
    let rules = format!(
        "{RULES}  - {{ id: way, effect: allow, subjects: [payments-agent], resources: [web], ssh: {{ forward: {{ to: [\"{SECOND}:22\"] }} }} }}\n"
    );
    let ground = Ground::two(&rules);
    let out = ground.ssh(&[jump(), vec!["echo in; id -un"]].concat()).run().ok();
    assert_eq!(out.stdout, format!("in\n{}\n", Sshd::USER));
    assert!(ground.sshd.log().contains("direct-tcpip"), "{}", ground.sshd.log());
    // It is decided all the same.
    let out = ground.ssh(&[jump(), vec!["touch forbidden"]].concat()).run();
    assert_eq!(out.status.code(), Some(126), "{out}");
    assert_eq!(second(&ground).ran(), ["echo in; id -un"]);
}

#[test]
fn an_inner_session_ends_with_the_outer_and_by_itself() {
    let ground = Ground::two(RULES);
    for resource in ["db", "web"] {
        let job = ground.ssh(&[jump(), vec!["sleep 600"]].concat()).open().expect("a job");
        wait_for("the command", || {
            second(&ground).processes().iter().any(|line| line.contains("sleep 600")).then_some(())
        });
        let sessions = ground.world.agent.json(&["sessions"]).expect("sessions");
        let of = sessions.as_array().expect("a list").iter().find(|of| of["resource"] == resource);
        let id = of.expect("a session")["id"].as_str().expect("an id").to_owned();
        let out = ground
            .world
            .agent
            .cli(&["sessions", "kill", &id, "--reason", "enough"])
            .expect("the command line");
        assert!(out.success(), "{out}");
        let _ = job.finish(tests::process::LIMIT).expect("an end").failed();
        wait_for("the command to end", || {
            (!second(&ground).processes().iter().any(|line| line.contains("sleep 600"))).then_some(())
        });
        wait_for("the sessions to end", || {
            ground.world.agent.json(&["sessions"]).ok()?.as_array()?.is_empty().then_some(())
        });
    }
}
