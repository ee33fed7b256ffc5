//! What is wrong with a policy is said with its place and what would be right.

mod support;

use std::collections::BTreeSet;

use policy::*;
use serde_json::json;
use support::*;

/// The line (of what follows the head) and text of every complaint.
fn complaints(rest: &str) -> Vec<String> {
    let head = POLICY_HEAD.lines().count();
    match try_load(&format!("{POLICY_HEAD}{rest}")) {
        Ok(_) => vec![],
        Err(found) => found
            .iter()
            .map(|d| format!("{}:{} {} | {}", d.line as isize - head as isize, d.column, d.message, d.hint))
            .collect(),
    }
}

#[track_caller]
fn one(rest: &str) -> String {
    let found = complaints(rest);
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0].clone()
}

#[track_caller]
fn says(rest: &str, place: &str, words: &[&str]) {
    let found = one(rest);
    assert!(found.starts_with(&format!("{place} ")), "not at {place}: {found}");
    for word in words {
        assert!(found.contains(word), "no {word:?} in: {found}");
    }
}

const RULE: &str = "rules:\n  - id: r\n    effect: allow\n    subjects: [job]\n    resources: [orders]\n";

#[test]
fn shape() {
    says(&format!("{RULE}    efect: deny\n"), "6:5", &["unknown field `efect`", "did you mean `effect`?"]);
    says("rules:\n  - id: r\n    effect: alow\n", "3:13", &["unknown variant", "did you mean `allow`?"]);
    says("rules:\n  - effect: allow\n", "2:5", &["missing field `id`", "add `id:` here"]);
    says(&format!("{RULE}    connect: true\n    connect: false\n"), "7:5", &["duplicate", "connect"]);
    says(
        &format!("{RULE}    statements: {{clases: [read]}}\n"),
        "6:18",
        &["clases", "did you mean `classes`?"],
    );
    says(&format!("{RULE}    statements: {{classes: [reed]}}\n"), "6:28", &["reed", "did you mean `read`?"]);
    says(&format!("{RULE}    connect: maybe\n"), "6:14", &["invalid type"]);
    assert!(one("rules: [\n").contains(" | check indentation"), "{}", one("rules: [\n"));
    let twice = "rules: []\nrules: []\n";
    assert!(one(twice).contains("duplicate key `rules`"), "{}", one(twice));
}

#[test]
fn a_broken_file_is_reported_before_what_it_breaks_elsewhere() {
    let good = Source {
        name: "rules.yaml".into(),
        text: "version: 1\nrules:\n  - {id: r, effect: deny, subjects: [job], connect: true}\n".into(),
    };
    let bad = Source { name: "subjects.yaml".into(), text: "version: 1\nsubjects: {}\n".into() };
    let found = Policy::load(&[good, bad]).unwrap_err();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].file.as_str(), found[0].line), ("subjects.yaml", 2));
}

#[test]
fn names() {
    says(
        &format!("{}    connect: true\n", RULE.replace("[job]", "[jbo]")),
        "4:16",
        &["rule `r` names subject `jbo`", "`job`?"],
    );
    says(
        &format!("{}    connect: true\n", RULE.replace("[orders]", "[odrers]")),
        "5:17",
        &["resource `odrers`", "`orders`?"],
    );
    says(
        &format!("{RULE}    connect: true\n  - {{id: r, effect: deny, connect: true}}\n"),
        "7:10",
        &["duplicate rule id `r`"],
    );
    says(
        "masks:\n  - {id: m, subjects: [nobody], columns: [a.b.c], transform: redact}\n",
        "2:24",
        &["mask `m`", "nobody"],
    );
    says(
        "masks:\n  - {id: m, columns: [a.b.c], transform: redact}\n  - {id: m, columns: [a.b.c], transform: redact}\n",
        "3:10",
        &["duplicate mask id"],
    );
    says("rules:\n  - {id: \"builtin:x\", effect: deny, connect: true}\n", "2:10", &["cannot be the name"]);
}

#[test]
fn rules() {
    says(RULE, "2:5", &["rule `r` is empty"]);
    says(&format!("{RULE}    statements: {{}}\n"), "6:17", &["is empty"]);
    says(&format!("{RULE}    statements: {{relations: [public.x]}}\n"), "6:17", &["no commands", "classes"]);
    says(
        "rules:\n  - {id: r, effect: allow, resources: [orders], connect: true}\n",
        "2:5",
        &["names no subjects"],
    );
    says(
        "rules:\n  - {id: r, effect: approve, subjects: [job], connect: true}\n",
        "2:5",
        &["names no resources"],
    );
    says(&format!("{RULE}    connect: true\n    expires: tomorrow\n"), "7:14", &["not a time", "2027"]);
    says(&format!("{RULE}    connect: true\n    limits: {{rows: 0}}\n"), "7:20", &["limit of 0"]);
    says(&format!("{RULE}    connect: true\n    approval: {{quorum: 1}}\n"), "7:15", &["no approve rule"]);
    let approve = RULE.replace("allow", "approve");
    says(&format!("{approve}    connect: true\n    approval: {{quorum: 0}}\n"), "7:24", &["asks nobody"]);
    says(
        &format!("{approve}    connect: true\n    approval: {{quorum: 2, approvers: [anna]}}\n"),
        "7:24",
        &["cannot be reached"],
    );
    says(&format!("{approve}    connect: true\n    approval: {{expires_after: soon}}\n"), "7:31", &["10m"]);
    says(&format!("{RULE}    connect: true\n    reason: because\n"), "7:13", &["nobody would see"]);
}

#[test]
fn statements() {
    let with = |statements: &str| format!("{RULE}    statements: {{classes: [read], {statements}}}\n");
    says(&with("relations: [public.a, orders]"), "6:57", &["`orders` is not `schema.name`"]);
    says(&with("relations: [\"public.[ab]\"]"), "6:47", &["`[` means nothing"]);
    says(&with("relations: [\"public.**\"]"), "6:47", &["`**` means nothing"]);
    says(&with("relations: [public.Orders]"), "6:47", &["would never match", "`public.orders`"]);
    says(&with("columns: [public.ssn]"), "6:45", &["schema.relation.column"]);
    says(&with("functions: [total]"), "6:47", &["`total` is not `schema.name`"]);
    says(&with("kinds: [delte]"), "6:43", &["unknown statement kind", "`delete`?"]);
    says(&with("settings: [\"*\"]"), "6:46", &["let go of"]);
    says(&with("settings: [search_path]"), "6:46", &["let go of"]);
    says(
        "rules:\n  - {id: r, effect: deny, statements: {classes: [read], catalog: true}}\n",
        "2:39",
        &["denies"],
    );
}

#[test]
fn masks() {
    let with = |rest: &str| format!("masks:\n  - {{id: m, {rest}}}\n");
    says(&with("transform: redact"), "2:5", &["hides nothing"]);
    says(&with("detectors: [emial], transform: redact"), "2:25", &["unknown detector", "`email`?"]);
    says(&with("detectors: [email], transform: hash"), "2:44", &["redacted or shown in part"]);
    says(&with("columns: [a.b.c], transform: redcat"), "2:42", &["redcat", "`redact`?"]);
    says(&with("columns: [a.b.c], transform: {partial: {}}"), "2:42", &["keeps nothing"]);
    says(&with("columns: [a.b.c], transform: {partial: {keep_lst: 4}}"), "2:53", &["`keep_last`?"]);
    assert!(complaints(&with("columns: [a.b.c], transform: null")).is_empty());
}

#[test]
fn groups() {
    let with = |groups: &str| {
        format!("{}{}", POLICY_HEAD.replace("  - { name: agents, members: [job, other] }\n", ""), "")
            .replace("groups:\n", groups)
    };
    let found = |groups: &str| show(&try_load(&with(groups)).unwrap_err());
    let cycle = found(
        "groups:\n  - { name: a, members: [job, b] }\n  - { name: b, members: [c] }\n  - { name: c, members: [a] }\n",
    );
    assert!(cycle.contains("groups form a cycle: a -> b -> c -> a"), "{cycle}");
    assert_eq!(cycle.matches("cycle").count(), 1, "once, not once a group");
    assert!(found("groups:\n  - { name: a, members: [a] }\n").contains("cycle: a -> a"));
    assert!(found("groups:\n  - { name: a, members: [] }\n").contains("is empty"));
    assert!(found("groups:\n  - { name: a, members: [jop] }\n").contains("did you mean `job`?"));
    assert!(found("groups:\n  - { name: job, members: [other] }\n").contains("duplicate"));
    let nested = with("groups:\n  - { name: a, members: [b] }\n  - { name: b, members: [job] }\n");
    let policy = try_load(&format!("{nested}rules:\n  - {{ id: r, effect: allow, subjects: [a], resources: [orders], statements: {{classes: [transaction]}} }}\n")).unwrap();
    allowed(ask(&policy, &statement("begin", Class::Transaction)));
}

fn resource(change: (&str, &str)) -> String {
    let text = "version: 1\nresources:\n  - name: db\n    kind: postgres\n    hosts: [10.0.0.1]\n    ports: [5432]\n    databases: [app]\n    login: { user: gw, password: { file: /x } }\n    tls: { mode: verify-full }\n    search_path: [public]\n";
    assert!(text.contains(change.0), "{}", change.0);
    match try_load(&text.replace(change.0, change.1)) {
        Ok(_) => String::new(),
        Err(found) => show(&found),
    }
}

#[test]
fn resources() {
    assert_eq!(resource(("10.0.0.1", "10.0.0.2")), "");
    for (old, new, words) in [
        (
            "10.0.0.1",
            "10.0.0.1/8",
            "p.yaml:5:13: `10.0.0.1/8` has bits set beyond its prefix\n  hint: write `10.0.0.0/8`",
        ),
        ("10.0.0.1", "10.0.0.999", "is not an address"),
        ("10.0.0.1", "\"db:5432\"", "is not an address"),
        ("[10.0.0.1]", "[]", "has no hosts"),
        ("[5432]", "[0]", "port 0"),
        ("[5432]", "[99999]", "p.yaml:6:13"),
        ("[app]", "[]", "has no databases"),
        ("file: /x", "file: x", "not an absolute path"),
        ("file: /x", "file: /x, env: Y", "exactly one place"),
        ("{ file: /x }", "hunter2", "invalid type"),
        (
            "tls: { mode: verify-full }",
            "tls: { mode: disable, server_name: db }",
            "yet it says what to verify",
        ),
        ("    tls: { mode: verify-full }\n", "", "missing field `tls`"),
        ("verify-full", "verify_full", "did you mean `verify-full`?"),
        ("[public]", "[pg_catalog]", "searched first anyway"),
        ("[public]", "[\"a,b\"]", "not the name of a schema"),
        ("kind: postgres", "kind: postgresql", "did you mean `postgres`?"),
    ] {
        let found = resource((old, new));
        assert!(found.contains(words), "{new}: {found}");
        assert!(!found.contains("hunter2\n"), "{found}");
    }
}

#[test]
fn resources_at_one_place_differ_in_their_databases() {
    let second = |hosts: &str, databases: &str| {
        let more = format!(
            "  - name: second\n    kind: postgres\n    hosts: [{hosts}]\n    databases: [{databases}]\n    login: {{ user: gw, password: {{ credential: c }} }}\n    tls: {{ mode: disable }}\n"
        );
        try_load(&format!("{POLICY_HEAD}{more}"))
    };
    assert!(show(&second("198.51.100.0/24", "orders").unwrap_err()).contains("share a host"));
    assert!(show(&second("198.51.100.10", "\"o*\"").unwrap_err()).contains("share a host"));
    let policy = second("198.51.100.10", "billing").unwrap();
    let at = |address: &str, port| {
        policy.resources_at(address.parse().unwrap(), port).map(|r| r.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(at("198.51.100.10", 5432), ["orders", "second"]);
    assert_eq!(at("::ffff:198.51.100.11", 5432), ["reports"]);
    assert!(at("198.51.100.10", 5433).is_empty());
}

#[test]
fn resources_are_as_written() {
    let policy = load("");
    let reports = policy.resource_named("reports").unwrap();
    assert_eq!(reports.ports, [5432]);
    assert_eq!(reports.postgres().unwrap().login.password, Some(SecretRef::Env("REPORTS".into())));
    let tls = Tls { mode: TlsMode::Disable, server_name: None, ca: None };
    assert_eq!(reports.postgres().unwrap().tls, tls);
    assert_eq!(reports.hosts[0].to_string(), "198.51.100.11");
    assert!(reports.has_database("anything") && !policy.resources()[0].has_database("anything"));
}

#[test]
fn claims_make_subjects() {
    let text = r#"
version: 1
subjects:
  - name: main
    issuer: https://token.example
    claims: { repository: acme/payments, ref: "refs/heads/main", project_id: 42, protected: true }
  - name: bot
    issuer: https://token.example
    claims: { actor: ["dependabot[bot]", "renovate*"] }
  - name: branch
    issuer: https://token.example
    claims: { repository: acme/*, ref: "refs/heads/*" }
  - name: pod
    issuer: https://k8s.example
    claims: { /kubernetes.io/namespace: ci, groups: ops }
"#;
    let policy = try_load(text).unwrap();
    let who = |issuer: &str, claims| policy.subject(issuer, &claims).map(|s| s.name.to_string()).ok();
    let token = "https://token.example";
    let main =
        json!({"repository": "acme/payments", "ref": "refs/heads/main", "project_id": 42, "protected": true});
    assert_eq!(who(token, main.clone()).as_deref(), Some("main"), "the first of those that match");
    assert_eq!(who("https://token.example/", main.clone()), None, "an issuer is exact");
    assert_eq!(who(token, json!({"repository": "acme/payments", "ref": "refs/heads/main", "project_id": 43, "protected": true})).as_deref(), Some("branch"));
    assert_eq!(who(token, json!({"repository": "acme/x", "ref": "refs/tags/x"})), None);
    assert_eq!(who(token, json!({"repository": "evilacme/x", "ref": "refs/heads/x"})), None);
    assert_eq!(who(token, json!({"actor": "dependabot[bot]"})).as_deref(), Some("bot"));
    assert_eq!(who(token, json!({"actor": null})), None);
    let pod = json!({"kubernetes.io": {"namespace": "ci"}, "groups": ["dev", "ops"]});
    assert_eq!(who("https://k8s.example", pod).as_deref(), Some("pod"));
    assert_eq!(
        who("https://k8s.example", json!({"kubernetes.io": {"namespace": "ci"}, "groups": [["ops"]]})),
        None
    );
    assert!(policy.subject_named("pod").is_some() && policy.subject_named("nobody").is_none());
    for (claims, words) in [
        ("{}", "names no claims"),
        ("{ a: [] }", "has no values"),
        ("{ a: x**y }", "`**` means nothing"),
        ("{ a: x, a: y }", "duplicate key `a`"),
        ("{ a: 1.5 }", "invalid type"),
        ("{ a: \"\" }", "an empty pattern"),
    ] {
        let found = show(
            &try_load(&format!("version: 1\nsubjects:\n  - {{name: s, issuer: i, claims: {claims}}}\n"))
                .unwrap_err(),
        );
        assert!(found.contains(words) && found.starts_with("p.yaml:3:"), "{found}");
    }
}

#[test]
fn versions() {
    let found = show(&try_load("version: 2\n").unwrap_err());
    assert_eq!(
        found,
        "p.yaml:1:10: version 2 of the policy language is not known\n  hint: write `version: 1`"
    );
    let source = |text: &str| Source { name: "n".into(), text: text.into() };
    let version = |texts: &[&str]| {
        let sources: Vec<_> = texts.iter().map(|text| source(text)).collect();
        Policy::load(&sources).unwrap().version().to_string()
    };
    let all: BTreeSet<_> =
        [version(&["version: 1\n"]), version(&["version: 1 \n"]), version(&["version: 1\n", "version: 1\n"])]
            .into();
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|version| version.len() == 16));
}

#[test]
fn yaml_bombs_are_refused() {
    let mut text = String::from("version: 1\na0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let line = format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(", "));
        text.push_str(&line);
    }
    assert!(try_load(&text).is_err());
    assert!(try_load(&"[".repeat(100_000)).is_err());
}

#[test]
fn everything_stands_alone() {
    assert!(
        complaints(&format!("{RULE}    connect: true\n    statements: {{everything: true}}\n")).is_empty()
    );
    says(
        &format!("{RULE}    statements: {{everything: true, classes: [read]}}\n"),
        "6:17",
        &["yet names statements", "alone"],
    );
    says(
        &format!("{RULE}    statements: {{everything: true}}\n    expires: 2030-01-01T00:00:00Z\n"),
        "7:14",
        &["ends by itself", "changing the policy"],
    );
    says(
        &format!("{RULE}    connect: true\n    replication: true\n    statements: {{classes: [read]}}\n"),
        "7:18",
        &["by replication", "everything: true"],
    );
    let deny = "rules:\n  - {id: r, effect: deny, statements: {everything: true}}\n";
    says(deny, "2:52", &["does not allow"]);
}

#[test]
fn everything_stands_where_nothing_restricts() {
    let open = format!("{RULE}    statements: {{everything: true}}\n");
    let denied = format!("{open}  - {{id: d, effect: deny, statements: {{kinds: [drop_table]}}}}\n");
    says(&denied, "6:30", &["where rule `d` restricts", "subject `job` on resource `orders`"]);
    let masked = format!("{open}masks:\n  - {{id: m, detectors: [email], transform: redact}}\n");
    says(&masked, "6:30", &["where mask `m` restricts"]);
    // Elsewhere, or for others, they may.
    let apart = format!(
        "{open}  - {{id: d, effect: deny, resources: [reports], statements: {{kinds: [drop_table]}}}}\n  - {{id: e, effect: deny, subjects: [other], statements: {{kinds: [drop_table]}}}}\n"
    );
    assert_eq!(complaints(&apart), Vec::<String>::new());
}

#[test]
fn a_login_has_a_password_or_a_certificate() {
    let with = |login: &str, tls: &str| {
        let text = POLICY_HEAD
            .replacen("login: { user: gateway, password: { file: /etc/gateway/orders } }", login, 1)
            .replacen("tls: { mode: verify-full }", tls, 1);
        try_load(&text).map(|_| ()).map_err(|found| show(&found))
    };
    let certificate = "login: { user: gateway, certificate: { chain: /c.pem, key: /k.pem } }";
    let full = "tls: { mode: verify-full }";
    with(certificate, full).unwrap();
    assert!(with("login: { user: gateway }", full).unwrap_err().contains("nothing to log in with"));
    assert!(with(certificate, "tls: { mode: disable }").unwrap_err().contains("TLS is disabled"));
    let relative = "login: { user: gateway, certificate: { chain: c.pem, key: /k.pem } }";
    assert!(with(relative, full).unwrap_err().contains("not an absolute path"));
}

#[test]
fn roles_for_jobs() {
    let resource = |rest: &str| {
        format!(
            "resources:\n  - {{ name: x, kind: postgres, hosts: [192.0.2.1], databases: [x], login: {{ user: u, password: {{ env: X }} }}, tls: {{ mode: disable }}, {rest} }}\n"
        )
    };
    let found = |rest: &str| match try_load(&format!("version: 1\n{}", resource(rest))) {
        Ok(_) => String::new(),
        Err(found) => show(&found),
    };
    let grants = "role: { member_of: [app], grants: [{ privileges: [select, insert], tables: [a.b], all_tables_in: [c] }, { privileges: [usage], schemas: [c] }] }";
    assert_eq!(found(&format!("credential: ephemeral, {grants}")), "");
    for (rest, words) in [
        (grants, "credential is static"),
        ("credential: ephemeral", "does not say what they may do"),
        ("credential: ephemeral, role: {}", "may do nothing"),
        ("credential: ephemeral, role: { member_of: [pg_read_all_data] }", "role of the server itself"),
        ("credential: ephemeral, role: { member_of: [a], valid_for: 5s }", "at least a minute"),
        ("credential: ephemeral, role: { member_of: [a], connections: 0 }", "no use"),
        (
            "credential: ephemeral, role: { grants: [{ privileges: [usage], tables: [a.b] }] }",
            "usage is no privilege on tables",
        ),
        (
            "credential: ephemeral, role: { grants: [{ privileges: [select], tables: [b] }] }",
            "in which schema",
        ),
        (
            "credential: ephemeral, role: { member_of: [a] }, search_path: [$user]",
            "another schema for every role",
        ),
        ("credential: ephemeral, role: { membr_of: [a] }", "did you mean `member_of`?"),
    ] {
        let found = found(rest);
        assert!(found.contains(words), "{rest}: {found}");
    }
}

#[test]
fn limits() {
    let rule = |limits: &str| format!("{RULE}    statements: {{classes: [read]}}\n    limits: {limits}\n");
    assert_eq!(
        complaints(&rule("{ rows: 5, max_cost: 1.5, time: 30s, statements_per_job: { at_most: 3 } }")),
        [""; 0]
    );
    for (limits, words) in [
        ("{ max_cost: 0 }", ["a limit of 0", "leave the limit out"]),
        ("{ statements_per_minute: 0 }", ["a limit of 0", "deny rule"]),
        ("{ time: soon }", ["not a length of time", "30s"]),
        ("{ rows: { at_most: 5, on_exceed: ask } }", ["only while the statement runs", "on_exceed: cancel"]),
        ("{ max_cost: { at_most: 5, on_exceed: cancel } }", ["nothing to cancel", "on_exceed: ask"]),
        (
            "{ max_cost: { at_most: 5, on_exced: ask } }",
            ["unknown field `on_exced`", "did you mean `on_exceed`?"],
        ),
        ("{ max_cots: 5 }", ["unknown field `max_cots`", "did you mean `max_cost`?"]),
        ("{ max_cost: many }", ["invalid type", ""]),
    ] {
        let found = one(&rule(limits));
        assert!(found.starts_with("7:"), "{found}");
        for word in words {
            assert!(found.contains(word), "no {word:?} in: {found}");
        }
    }
    let asking =
        rule("{ max_cost: { at_most: 5, on_exceed: ask } }\n    approval: { approvers: [\"@dba\"] }");
    assert_eq!(complaints(&asking), [""; 0], "an allow rule whose limit asks may name approvers");
    assert!(one(&rule("{ max_cost: 5 }\n    approval: { quorum: 2 }")).contains("no limit of it asks"));
}
