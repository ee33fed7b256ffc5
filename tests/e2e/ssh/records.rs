//! What is left behind: recordings, casts, masks.

use crate::support::{CARD, Ground, HOST, KEY, wait_for_audit};

/// What a channel showed, out of its cast.
fn cast(ground: &Ground, file: &str, channel: &str) -> (serde_json::Value, String) {
    let out =
        ground.world.agent.cli(&["replay", file, "--asciicast", channel]).expect("the command line").ok();
    let mut lines =
        out.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let header = lines.next().expect("a header");
    let shown: String =
        lines.filter(|e| e[1] == "o").map(|e| e[2].as_str().unwrap_or_default().to_owned()).collect();
    (header, shown)
}

#[test]
fn a_replayed_cast_is_what_the_client_saw() {
    let ground = Ground::new();
    let command = "printf 'bold \\033[1mé€\\033[0m\\n'; seq 1000; echo typed: $(cat)";
    let out = ground.ssh(&["-tt", HOST, command]).stdin("hello\n\u{4}").run().ok();
    assert!(out.stdout.contains("1000"), "{out}");
    let file = ground.recording();
    let (header, shown) = cast(&ground, &file, "1");
    assert_eq!(header["version"], 2);
    assert_eq!(shown, out.stdout);
    let text = ground.world.agent.cli(&["replay", &file]).expect("the command line").ok().stdout;
    assert!(text.contains("channel 1: exec printf"), "{text}");
    // The terminal and each variable that the client sent along are in the audit log.
    let allowed = |kind: &str| {
        wait_for_audit(&ground.world, "decision", |line| {
            line["statement_kind"] == kind && line["verdict"] == "allow"
        })
    };
    assert_eq!(allowed("ssh_pty")["rules"][0], "commands");
    assert!(text.contains("channel 1 closed, status 0"), "{text}");
    let out = ground
        .world
        .agent
        .cli(&["replay", &file, "--asciicast", "1", "--typed"])
        .expect("the command line")
        .ok();
    assert!(out.stdout.contains("\"i\", \"hello\\n"), "{}", out.stdout);
    let none =
        ground.world.agent.cli(&["replay", &file, "--asciicast", "7"]).expect("the command line").failed();
    assert!(none.stderr.contains("no channel 7"), "{none}");
}

#[test]
fn a_masked_secret_is_neither_shown_nor_stored() {
    let ground = Ground::new();
    // What the job itself sends is not hidden: only the host knows these.
    for (name, text) in
        [("card", format!("card {CARD} end\n")), ("key", format!("key {KEY}\n")), ("bare", KEY.to_owned())]
    {
        std::fs::write(ground.sshd.home().join(name), text).expect("a file");
    }
    // Wherever the pieces are cut, and on both streams.
    let command = "cat card; cat key >&2; for c in $(grep -o . bare); do printf %s $c; done; echo; \
                   printf 'split '; head -c 15 card | tail -c 10; sleep 0.3; tail -c +16 card";
    let out = ground.ssh(&[HOST, command]).run().ok();
    assert_eq!(
        out.stdout,
        "card [redacted:card] end\n[redacted:aws_access_key]\nsplit [redacted:card] end\n"
    );
    assert_eq!(out.stderr, "key [redacted:aws_access_key]\n");
    let file = ground.recording();
    let (_, shown) = cast(&ground, &file, "1");
    assert!(shown.contains("card [redacted:card] end"), "{shown}");
    for form in
        [vec!["replay", &file, "--asciicast", "1"], vec!["replay", &file, "--asciicast", "1", "--typed"]]
    {
        let text = ground.world.agent.cli(&form).expect("the command line").ok().stdout;
        assert!(!text.contains("1111 1111") && !text.contains("IOSFODNN7"), "{text}");
    }
    let completed = wait_for_audit(&ground.world, "completed", |_| true);
    assert_eq!(completed["masked"], 4, "{completed}");
}

#[test]
fn what_a_session_did_verifies_and_names_everything() {
    let ground = Ground::new();
    let _ = ground.ssh(&[HOST, "echo one"]).run().ok();
    let file = ground.recording();
    let json = ground.world.agent.cli(&["replay", &file, "--json"]).expect("the command line").ok().stdout;
    let events: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(events[0]["protocol"], "ssh");
    assert_eq!(events[0]["subject"], "payments-agent");
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap_or_default()).collect();
    assert_eq!(
        names,
        ["session", "statement", "channel", "data", "channel_closed", "finished", "closed", "end"],
        "{json}"
    );
    assert_eq!((&events[1]["sql"], &events[3]["data"]), (&"exec echo one".into(), &"one\n".into()));
}
