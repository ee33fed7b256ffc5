//! Requests by curl: what arrives, what comes back, what is refused.

use tests::process::LIMIT;

use crate::support::{Ground, RULES, SECRET, answered, json, policy, wait_for, wait_for_audit};

#[test]
fn both_versions_are_served_and_the_gateway_adds_its_secret() {
    let ground = Ground::new();
    for (flag, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        ground.web.forget();
        let out = ground
            .curl(&[
                flag,
                "-H",
                "Authorization: Bearer of-the-job",
                "-H",
                "X-Job: 1",
                "-H",
                "X-Kept: 2",
                "https://api.example/echo?a=b",
            ])
            .run()
            .ok();
        let (body, status) = answered(&out);
        assert_eq!(status, 200, "{out}");
        // What the server says it was sent is not masked here but by detector.
        assert_eq!(json(&body)["version"], version, "{out}");
        let asked = ground.web.asked().remove(0);
        assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", "/echo?a=b"));
        assert_eq!(asked.header("authorization"), Some(format!("Bearer {SECRET}").as_str()));
        assert_eq!((asked.header("x-job"), asked.header("x-kept")), (None, Some("2")));
    }
    let line = wait_for_audit(&ground.world, "decision", |line| line["statement_kind"] == "https_request");
    assert_eq!((&line["verdict"], &line["resource"]), (&"allow".into(), &"api".into()), "{line}");
    let done = wait_for_audit(&ground.world, "completed", |line| line["outcome"] == "200");
    assert_eq!(done["resource"], "api");
    let text = std::fs::read_to_string(ground.world.agent.audit_file()).expect("an audit log");
    assert!(!text.contains(SECRET) && !text.contains("of-the-job"));
    assert!(!ground.world.agent.log().contains(SECRET));
}

#[test]
fn a_connection_to_the_host_serves_one_request_after_the_other() {
    let ground = Ground::new();
    // Nothing is masked there, so that lengths stay as the host announced them.
    let url = "https://open.example/echo";
    for flag in ["--http1.1", "--http2"] {
        ground.web.forget();
        drop(ground.curl(&[flag, url, url, url, url]).run().ok());
        let asked = ground.web.asked();
        let first = asked.first().map(|asked| asked.connection);
        assert_eq!(asked.len(), 4);
        assert!(asked.iter().all(|asked| Some(asked.connection) == first), "{flag}: {asked:?}");
    }
    let all = wait_for("every end", || {
        let events = ground.world.agent.audit().expect("an audit log");
        let ended = events.into_iter().filter(|line| line["event"] == "completed");
        let outcomes: Vec<_> = ended.map(|line| line["outcome"].clone()).collect();
        (outcomes.len() == 8).then_some(outcomes)
    });
    assert_eq!(all, ["200"; 8], "none of them left early");
}

#[test]
fn a_refusal_says_which_rule_and_what_next() {
    let ground = Ground::new();
    for flag in ["--http1.1", "--http2"] {
        let out = ground.curl(&[flag, "-X", "DELETE", "https://api.example/echo"]).run().ok();
        let (body, status) = answered(&out);
        assert_eq!(status, 403, "{out}");
        assert!(body.contains("gateway: denied by policy rule builtin:default-deny: no rule allows payments-agent on api: DELETE https://api.example/echo"), "{body}");
        assert!(body.contains("gateway: hint: "), "{body}");
        let out = ground
            .curl(&[flag, "-H", "Accept: application/json", "https://open.example/secret/x"])
            .run()
            .ok();
        let (body, status) = answered(&out);
        let document = json(&body);
        assert_eq!(
            (status, &document["status"], &document["rule"]),
            (403, &403.into(), &"secrets".into()),
            "{out}"
        );
        assert_eq!(document["detail"], "secrets are not for jobs");
    }
    assert_eq!(ground.web.asked().len(), 0, "nothing of it arrived");
    let line = wait_for_audit(&ground.world, "decision", |line| line["verdict"] == "deny");
    assert_eq!(line["resource"], "api", "{line}");
}

#[test]
fn names_of_connection_request_and_certificate_agree() {
    let ground = Ground::new();
    // Another Host than the name in the handshake.
    let out = ground.curl(&["--http1.1", "-H", "Host: open.example", "https://api.example/echo"]).run().ok();
    assert_eq!(answered(&out).1, 421, "{out}");
    // A name that no resource there goes by.
    let out = ground.curl(&["https://other.example/echo"]).run();
    assert!(!out.success() && out.stderr.contains("unrecognized"), "{out}");
    // A certificate of the host for other names.
    let out = ground.curl(&["https://wrong.example/echo"]).run().ok();
    let (body, status) = answered(&out);
    assert_eq!(status, 502, "{out}");
    assert!(body.contains("gateway: wrong cannot be reached: TLS"), "{body}");
    // The right name with another key than the one that is pinned.
    let out = ground.curl(&["https://swapped.example/echo"]).run().ok();
    let (body, status) = answered(&out);
    assert!(status == 502 && body.contains("public key is not one that policy names"), "{out}");
    // Clear text where TLS is spoken, and the other way round.
    let out = ground.curl(&["http://api.example:443/echo"]).run();
    assert!(!out.success(), "{out}");
    let out = ground.curl(&["https://open.example:80/echo"]).run();
    assert!(!out.success(), "{out}");
    assert_eq!(ground.web.asked().len(), 0, "nothing of it arrived");
    // In clear text where policy says so.
    let out = ground.curl(&["http://open.example/echo"]).run().ok();
    assert_eq!(answered(&out).1, 200, "{out}");
}

#[test]
fn large_bodies_pass_both_ways_in_bounded_memory() {
    let ground = Ground::new();
    let size = 100_000_000_u64;
    for flag in ["--http1.1", "--http2"] {
        let out = ground
            .curl(&[
                flag,
                "--output",
                "/dev/null",
                "--write-out",
                "%{size_download}\n%{http_code}",
                &format!("https://open.example/big/{size}"),
            ])
            .run()
            .ok();
        assert_eq!(answered(&out), (size.to_string(), 200), "{out}");
        let script = format!(
            "head -c {size} /dev/zero | exec curl {flag} -sS -T - --resolve open.example:443:{} https://open.example/upload/x",
            crate::support::HOST
        );
        let out = ground.world.job(&["sh", "-c", &script]).limit(LIMIT * 2).run().ok();
        assert_eq!(json(&out.stdout)["body"], size, "{out}");
    }
    let peak = ground.world.agent.peak_memory().expect("memory");
    assert!(peak < 150 << 20, "{} MiB", peak >> 20);
}

#[test]
fn limits_hold() {
    let ground = Ground::new();
    let long = "x".repeat(5000);
    for flag in ["--http1.1", "--http2"] {
        let out = ground.curl(&[flag, "-X", "PATCH", "-d", &long, "https://open.example/echo"]).run().ok();
        let (body, status) = answered(&out);
        assert_eq!(status, 413, "{out}");
        assert!(body.contains("small"), "{body}");
        // Without a length that it could be told by.
        let out = ground
            .curl(&[
                flag,
                "-X",
                "PATCH",
                "-H",
                "Transfer-Encoding: chunked",
                "--data-binary",
                "@-",
                "https://open.example/echo",
            ])
            .stdin(&long)
            .run();
        assert!(out.stdout.ends_with("413") || !out.success(), "{out}");
        let out = ground.curl(&[flag, "-X", "DELETE", "https://open.example/big/5000"]).run();
        assert!(!out.stdout.contains("xxxxxxxxxx") || !out.success(), "{out}");
        let out = ground.curl(&[flag, "-X", "DELETE", "https://open.example/never"]).run().ok();
        assert_eq!(answered(&out).1, 504, "{out}");
    }
    assert!(
        ground.web.asked().iter().all(|asked| asked.body <= 1000),
        "no body that is too long arrived whole"
    );
}

#[test]
fn responses_without_a_body_and_trailers_are_right() {
    let ground = Ground::new();
    for flag in ["--http1.1", "--http2"] {
        for status in [204_u16, 304, 404, 500] {
            let out = ground.curl(&[flag, &format!("https://open.example/status/{status}")]).run().ok();
            assert_eq!(answered(&out).1, status, "{out}");
        }
        let out = ground.curl(&[flag, "--head", "https://open.example/text"]).run().ok();
        assert!(out.stdout.contains("content-length: "), "{out}");
        let out =
            ground.curl(&[flag, "-i", "-H", "TE: trailers", "https://open.example/trailers"]).run().ok();
        assert!(out.stdout.contains("body"), "{out}");
        assert!(!out.stdout.contains("no=1"), "{out}");
        let out = ground.curl(&[flag, "-i", "https://open.example/header"]).run().ok();
        assert!(!out.stdout.contains("alt-svc"), "{out}");
    }
    // A body of a length that the client names first, and waits with.
    let out = ground
        .curl(&[
            "--http1.1",
            "-v",
            "-H",
            "Expect: 100-continue",
            "--data-binary",
            "@-",
            "https://open.example/echo",
        ])
        .stdin("x".repeat(2_000_000))
        .run()
        .ok();
    assert!(out.stderr.contains("HTTP/1.1 100 Continue"), "{out}");
    assert_eq!(json(&answered(&out).0)["body"], 2_000_000);
    // A refusal comes before the body is sent.
    let out = ground
        .curl(&[
            "--http1.1",
            "-v",
            "-H",
            "Expect: 100-continue",
            "--data-binary",
            "@-",
            "https://api.example/echo",
        ])
        .stdin("x".repeat(2_000_000))
        .run();
    assert!(out.stderr.contains("403") && !out.stderr.contains("100 Continue"), "{out}");
}

#[test]
fn streams_are_shown_as_they_come_and_end_with_their_allow() {
    let ground = Ground::new();
    let job = ground.curl(&["--no-buffer", "https://open.example/events"]).start().expect("a job");
    wait_for_audit(&ground.world, "decision", |line| line["verdict"] == "allow");
    wait_for("a request", || (!ground.web.asked().is_empty()).then_some(()));
    // The rule goes, and so does the stream.
    let without =
        RULES.replace("resources: [api, open, raw, wrong, swapped]", "resources: [api, raw, wrong, swapped]");
    assert_ne!(without, RULES);
    ground.world.write_policy(&policy(&without).replace("@PIN@", &ground.web.pin)).expect("a policy");
    let since = std::time::Instant::now();
    let out = job.finish(LIMIT).expect("an end");
    assert!(!out.success() && out.stdout.contains("data: event 1"), "{out}");
    assert!(since.elapsed() < std::time::Duration::from_secs(20), "{:?}: {out}", since.elapsed());
    let done = wait_for_audit(&ground.world, "completed", |line| line["resource"] == "open");
    assert!(done["outcome"].as_str().is_some_and(|tag| tag.contains("refused")), "{done}");
}

#[test]
fn a_killed_gateway_leaves_no_way() {
    let mut ground = Ground::new();
    let job = ground.curl(&["--no-buffer", "https://open.example/events"]).start().expect("a job");
    wait_for("a request", || (!ground.web.asked().is_empty()).then_some(()));
    ground.world.agent.kill();
    let out = job.finish(LIMIT).expect("an end");
    assert!(!out.success(), "{out}");
    ground.web.forget();
    ground.world.agent.start().expect("the agent");
    let out = ground.curl(&["https://open.example/echo"]).run().ok();
    assert_eq!(answered(&out).1, 200, "{out}");
}

#[test]
fn tls_is_let_through_only_where_a_rule_says_so() {
    let ground = Ground::new();
    let ca = ground.world.folder().join("db-ca.pem").display().to_string();
    let pin = ground.web.pin.clone();
    let out =
        ground.curl(&["--cacert", &ca, "--pinnedpubkey", &pin, "https://pinned.example/echo"]).run().ok();
    assert_eq!(answered(&out).1, 200, "{out}");
    let line =
        wait_for_audit(&ground.world, "decision", |line| line["statement_kind"] == "https_pass_through");
    assert_eq!((&line["verdict"], &line["resource"]), (&"allow".into(), &"pinned".into()), "{line}");
    // Everywhere else the client meets the gateway's certificate.
    let out = ground.curl(&["--cacert", &ca, "https://open.example/echo"]).run();
    assert!(!out.success() && out.stderr.contains("certificate"), "{out}");
}
