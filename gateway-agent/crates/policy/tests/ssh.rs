//! Rules for SSH hosts: how they load, and how they decide.

mod support;

use std::time::Duration;

use policy::*;
use support::{allowed, denied, show, try_load, waits};

const HEAD: &str = r#"
version: 1
subjects:
  - { name: job, issuer: https://token.example, claims: { sub: a } }
  - { name: other, issuer: https://token.example, claims: { sub: b } }
resources:
  - name: web
    kind: ssh
    hosts: [198.51.100.20]
    host_keys: ["SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
    users: [deploy, "ci-*"]
    login: { user: app, users: { ci-admin: admin }, key: { file: /k } }
  - name: orders
    kind: postgres
    hosts: [198.51.100.10]
    databases: [orders]
    login: { user: gateway, password: { file: /p } }
    tls: { mode: verify-full }
"#;

fn complaints(text: &str) -> Vec<String> {
    match try_load(text) {
        Ok(_) => Vec::new(),
        Err(found) => found.iter().map(ToString::to_string).collect(),
    }
}

#[track_caller]
fn says(rest: &str, words: &[&str]) {
    let found = complaints(&format!("{HEAD}{rest}"));
    assert_eq!(found.len(), 1, "{found:#?}");
    for word in words {
        assert!(found[0].contains(word), "no {word:?} in: {}", found[0]);
    }
}

fn rule(ssh: &str) -> String {
    format!(
        "rules:\n  - id: r\n    effect: allow\n    subjects: [job]\n    resources: [web]\n    ssh: {ssh}\n"
    )
}

fn load(rules: &str) -> Policy {
    try_load(&format!("{HEAD}{rules}")).unwrap_or_else(|found| panic!("{}", show(&found)))
}

fn ask_as(policy: &Policy, user: &str, request: SshRequest, grant: Option<&Grant>) -> Verdict {
    let action = Action::Ssh(Ssh { user: user.into(), request });
    support::decide(policy, "job", "web", &action, grant, UnixTime(1_000))
}

fn ask(policy: &Policy, request: SshRequest) -> Verdict {
    ask_as(policy, "deploy", request, None)
}

fn run(words: &[&str]) -> SshRequest {
    let mut words = words.iter().map(|word| Word::literal(*word));
    let invocation = Invocation {
        program: words.next().unwrap(),
        arguments: words.collect(),
        folder: Some("~".into()),
        via: Vec::new(),
        transfer: false,
    };
    SshRequest::Exec(Exec { text: "x".into(), invocations: vec![invocation], ..Exec::default() })
}

fn file(operation: FileOperation, path: &str) -> SshRequest {
    SshRequest::File(FileRequest { operation, path: path.into(), target: None, home: None, by: Route::Sftp })
}

#[test]
fn fields_belong_to_their_kind() {
    let with = |resource: &str| {
        format!("{}\n", HEAD.replace("    users: [deploy", &format!("    {resource}\n    users: [deploy")))
    };
    let one = |text: &str, words: &[&str]| {
        let found = complaints(text);
        assert_eq!(found.len(), 1, "{found:#?}");
        words.iter().for_each(|word| assert!(found[0].contains(word), "no {word:?} in {}", found[0]));
    };
    one(&with("databases: [x]"), &["p.yaml:11:", "of kind ssh has no `databases`", "`host_keys`"]);
    one(&with("tls: { mode: disable }"), &["of kind ssh has no `tls`"]);
    one(&with("host_kyes: [x]"), &["unknown field `host_kyes`", "did you mean `host_keys`?"]);
    one(
        &HEAD.replace("    users: [deploy, \"ci-*\"]\n", ""),
        &["p.yaml:7:", "missing field `users`", "kind ssh"],
    );
    one(&HEAD.replace("    tls: { mode: verify-full }\n", ""), &["missing field `tls`", "kind postgres"]);
    one(&HEAD.replace("user: gateway, ", ""), &["missing field `user`", "kind postgres"]);
    one(
        &HEAD.replace("key: { file: /k }", "roles: [x], key: { file: /k }"),
        &["the login of a resource of kind ssh has no `roles`"],
    );
    one(
        &HEAD.replace("password: { file: /p }", "key: { file: /p }, password: { file: /p }"),
        &["kind postgres has no `key`"],
    );
    one(
        &HEAD.replace("    host_keys: [\"SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"]\n", ""),
        &["which host key", "at first sight"],
    );
    one(
        &HEAD.replace(", key: { file: /k }", ""),
        &["exactly one of `key`, `password` and `user_certificate`"],
    );
    one(&HEAD.replace("key: { file: /k }", "key: { file: /k }, password: { env: X }"), &["exactly one of"]);
    one(&HEAD.replace("SHA256:AAAA", "MD5:AAAA"), &["is not a public key", "ssh-ed25519 AAAA"]);
    one(&HEAD.replace("AAAA\"]", "A\"]"), &["is not a fingerprint"]);
    one(
        &HEAD.replace("key: { file: /k }", "user_certificate: { authority: { file: /k }, valid_for: 2d }"),
        &["from a minute to a day"],
    );
    let signed = |how: &str| HEAD.replace("key: { file: /k }", &format!("user_certificate: {{ {how} }}"));
    one(&signed("principals: [app]"), &["exactly one of `authority` and `vault`"]);
    let vault = |what: &str| signed(&format!("vault: {{ role: ci, {what} }}"));
    let none: [&str; 0] = [];
    assert_eq!(complaints(&vault("address: \"https://vault.internal:8200\", token: { file: /t }")), none);
    let by_jwt = "address: \"https://[2001:db8::1]/\", jwt: { role: gateway, token: { file: /t } }";
    assert_eq!(complaints(&vault(by_jwt)), none);
    for (what, why) in [
        (
            "address: \"http://vault.internal:8200\", token: { file: /t }",
            "not the address of a server that speaks TLS",
        ),
        ("address: \"https://vault.internal/v1\", token: { file: /t }", "without a path"),
        ("address: \"https://a@vault.internal\", token: { file: /t }", "not the address"),
        ("address: \"https://v\", mount: ../sys, token: { file: /t }", "not a name that Vault has"),
        ("address: \"https://v\", mount: \"a?b\", token: { file: /t }", "not a name that Vault has"),
        ("address: \"https://v\"", "exactly one of `token` and `jwt`"),
        ("address: \"https://v\", ca: roots.pem, token: { file: /t }", "not an absolute path"),
    ] {
        one(&vault(what), &[why]);
    }
    one(&HEAD.replace("198.51.100.10]", "198.51.100.20]\n    ports: [22]"), &["share a host and a port"]);
}

#[test]
fn rules_are_checked() {
    says(&rule("{}"), &["names nothing of SSH"]);
    says(&rule("{ commands: [{ program: git }] }"), &["does not say what `git` may be given", "[\"**\"]"]);
    says(&rule("{ commands: [{ program: git fetch, arguments: [] }] }"), &["more than a program"]);
    says(&rule("{ commands: [{ program: ./x, arguments: [] }] }"), &["relative to a folder"]);
    says(&rule("{ commands: [{ program: x, arguments: [\"a**\"] }] }"), &["`**` is any words"]);
    says(&rule("{ commands: [{ program: x, arguments: [], via: [sduo] }] }"), &["did you mean `sudo`?"]);
    says(
        &rule("{ files: [{ operations: [reed], paths: [/x] }] }"),
        &["unknown variant `reed`", "did you mean `read`?"],
    );
    says(&rule("{ files: [{ operations: [read], paths: [x] }] }"), &["no absolute path"]);
    says(&rule("{ files: [{ operations: [read], paths: [/x/../y] }] }"), &["not normalised"]);
    says(&rule("{ files: [{ operations: [], paths: [/x] }] }"), &["without operations", "setstat"]);
    says(
        &rule("{ files: [{ operations: [read], paths: [/x], by: [rsync] }] }"),
        &["whole folders", "`/x/**`"],
    );
    says(&rule("{ env: [PATH] }"), &["`PATH` changes what command lines mean"]);
    says(&rule("{ subsystems: [sftp] }"), &["under `files`"]);
    says(&rule("{ shell: true, signals: [KILL] }"), &["may send it signals"]);
    says(
        &rule("{ shell: true, forward: { agent: true } }"),
        &["never lends a job's agent to a host", "sign with every key"],
    );
    says(&rule("{ shell: true, forward: { x11: true } }"), &["never lends a job's x11"]);
    says(&rule("{ forward: { to: [db] } }"), &["`db` is not `host:port`"]);
    says(&rule("{ shell: true, limits: { idle: soon } }"), &["not a length of time"]);
    says(&rule("{ shell: true, limits: { bytes: 0 } }"), &["a limit of 0"]);
    says(&rule("{ shell: true, limits: { channels: 1 } }"), &["`connect: true`"]);
    says(&rule("{ shel: true }"), &["unknown field `shel`", "did you mean `shell`?"]);
    let orders = |part: &str| rule(part).replace("[web]", "[orders]");
    says(&orders("{ shell: true }"), &["has `ssh`, and none of its resources is of kind ssh"]);
    says(&rule("{ shell: true }\n    statements: { classes: [read] }"), &["has `statements`"]);
    says(&rule("{ shell: true }\n    limits: { rows: 1 }"), &["has `limits`", "ssh: {limits"]);
    says(
        "masks:\n  - { id: m, files: [/x], columns: [a.b.c], detectors: [email], transform: redact }\n",
        &["have no columns"],
    );
    says(
        "masks:\n  - { id: m, resources: [orders], files: [/x], detectors: [email], transform: redact }\n",
        &["has `files`"],
    );
    says("rules:\n  - { id: d, effect: deny, ssh: { signals: [KIL] } }\n", &["no signal", "`KILL`"]);
}

#[test]
fn resources_say_whom_to_log_in_as() {
    let policy = load("");
    let web = policy.resource_named("web").unwrap();
    assert_eq!((web.kind(), web.ports.as_slice()), (ResourceKind::Ssh, &[22][..]));
    let ssh = web.ssh().unwrap();
    assert!(ssh.has_user("ci-1") && !ssh.has_user("root"));
    assert_eq!(ssh.login.upstream_user("deploy"), "app");
    assert_eq!(ssh.login.upstream_user("ci-admin"), "admin");
    assert!(ssh.trusts_key(b"x", &[0; 32]) && !ssh.trusts_key(b"x", &[1; 32]));
}

#[test]
fn connecting_and_kinds() {
    let policy = load(
        "rules:\n  - { id: c, effect: allow, subjects: [job], resources: [web, orders], connect: true, ssh: { users: [deploy], shell: true } }\n",
    );
    allowed(ask(&policy, SshRequest::Connect));
    assert!(denied(ask_as(&policy, "ci-1", SshRequest::Connect, None)).1.contains("no rule allows job"));
    assert!(denied(ask_as(&policy, "root", SshRequest::Connect, None)).1.contains("no login name \"root\""));
    let connect =
        Action::Connect(Connect { database: "orders".into(), user: "x".into(), application: String::new() });
    denied(support::decide(&policy, "job", "web", &connect, None, UnixTime(0)));
    let ssh = Action::Ssh(Ssh { user: "deploy".into(), request: SshRequest::Connect });
    assert!(
        denied(support::decide(&policy, "job", "orders", &ssh, None, UnixTime(0)))
            .1
            .contains("of kind postgres")
    );
    let statement = Action::Statement(support::statement("select", Class::Read));
    denied(support::decide(&policy, "job", "web", &statement, None, UnixTime(0)));
}

#[test]
fn approvals_are_asked_for_what_runs() {
    let policy = load(
        "rules:\n  - { id: shell, effect: approve, subjects: [job], resources: [web], ssh: { shell: true, pty: true, env: [LANG] }, approval: { quorum: 2 } }\n",
    );
    let (rules, terms) = waits(ask(&policy, SshRequest::Shell));
    assert_eq!((rules, terms.quorum), (vec!["shell".to_owned()], 2));
    allowed(ask(&policy, SshRequest::Pty { term: "xterm".into() }));
    allowed(ask(&policy, SshRequest::Env { name: "LANG".into(), value: "C".into() }));
    allowed(ask(&policy, SshRequest::Signal { name: "INT".into() }));
    let grant = Grant::approved(vec!["shell".into()], policy.version().clone());
    allowed(ask_as(&policy, "deploy", SshRequest::Shell, Some(&grant)));
    let other = Grant::approved(vec!["x".into()], policy.version().clone());
    waits(ask_as(&policy, "deploy", SshRequest::Shell, Some(&other)));
    denied(ask(&policy, run(&["ls"])));
    let policy = load(
        "rules:\n  - { id: f, effect: approve, subjects: [job], resources: [web], ssh: { files: [{ operations: [read], paths: [/x] }] } }\n",
    );
    allowed(ask(&policy, SshRequest::Subsystem { name: "sftp".into() }));
    waits(ask(&policy, file(FileOperation::Read, "/x")));
}

#[test]
fn a_deny_beats_an_approval_beats_an_allow() {
    let policy = load(
        r#"
rules:
  - { id: all, effect: allow, subjects: [job], resources: [web], ssh: { commands: [{ program: "*", arguments: ["**"] }], files: [{ operations: [read, rename], paths: ["/**"] }] } }
  - { id: ask, effect: approve, subjects: [job], resources: [web], ssh: { commands: [{ program: reboot, arguments: ["**"] }] } }
  - { id: no, effect: deny, ssh: { commands: [{ program: rm }], files: [{ operations: [read], paths: [/etc/shadow] }] }, reason: not here }
"#,
    );
    allowed(ask(&policy, run(&["ls"])));
    assert_eq!(waits(ask(&policy, run(&["reboot"]))).0[0], "ask");
    assert_eq!(denied(ask(&policy, run(&["rm", "x"]))), ("no".into(), "not here".into()));
    assert_eq!(denied(ask(&policy, file(FileOperation::Read, "/etc/shadow"))).0, "no");
    assert_eq!(denied(ask(&policy, run(&["cat", "/etc/shadow"]))).0, "no");
    assert_eq!(denied(ask(&policy, run(&["cat", "/etc/../etc/shadow"]))).0, "no");
    let rename = SshRequest::File(FileRequest {
        operation: FileOperation::Rename,
        path: "/etc".into(),
        target: Some("/tmp/x".into()),
        home: None,
        by: Route::Sftp,
    });
    assert_eq!(denied(ask(&policy, rename)).0, "no", "it would take the file out of the rule");
}

#[test]
fn obligations() {
    let policy = load(
        r#"
rules:
  - { id: c, effect: allow, subjects: [job], resources: [web], connect: true, ssh: { limits: { channels: 3, idle: 5m } } }
  - { id: a, effect: allow, subjects: [job], resources: [web], ssh: { commands: [{ program: cat, arguments: ["**"] }], files: [{ operations: [read, write, rename], paths: ["/srv/**"] }], quarantine: true, limits: { duration: 1h, bytes: 10, per_minute: 5 } } }
  - { id: b, effect: allow, subjects: [job], resources: [web], ssh: { files: [{ operations: [read], paths: ["/srv/**"], by: [sftp, rsync] }], limits: { duration: 1m } }, record: results }
masks:
  - { id: out, resources: [web], detectors: [email], transform: redact }
  - { id: in, resources: [web], files: ["/srv/m/**"], detectors: [card], transform: redact }
"#,
    );
    let of = |request| allowed(ask(&policy, request));
    let connect = of(SshRequest::Connect).ssh.unwrap();
    assert_eq!(connect.limits.channels.as_ref().unwrap().most, 3);
    assert_eq!(connect.limits.idle.as_ref().unwrap().most, Duration::from_secs(300));
    let names = |of: &Obligations| of.detectors.as_ref().unwrap().names().collect::<Vec<_>>();
    assert_eq!(names(&of(run(&["cat", "/srv/a"]))), ["email"]);
    assert_eq!(names(&of(run(&["cat", "/srv/m/a"]))), ["email", "card"], "its output may be the contents");
    assert_eq!(names(&of(run(&["cat", "/srv/m/../m/a"]))), ["email", "card"]);
    let read = of(file(FileOperation::Read, "/srv/m/a"));
    assert!(read.detectors.is_none() && read.record == Recording::Results);
    let ssh = read.ssh.unwrap();
    assert_eq!(ssh.contents.as_ref().unwrap().names().collect::<Vec<_>>(), ["card"]);
    assert!(!ssh.quarantine);
    let duration = ssh.limits.duration.as_ref().unwrap();
    assert_eq!((duration.most, &*duration.rule), (Duration::from_secs(60), "b"));
    assert_eq!(ssh.limits.per_minute.len(), 1);
    assert!(of(file(FileOperation::Read, "/srv/a")).ssh.unwrap().contents.is_none());
    assert!(of(file(FileOperation::Write, "/srv/a")).ssh.unwrap().quarantine);
    let rename = |from: &str, to: &str| {
        let (path, target) = (from.into(), Some(to.into()));
        SshRequest::File(FileRequest {
            operation: FileOperation::Rename,
            path,
            target,
            home: None,
            by: Route::Sftp,
        })
    };
    assert_eq!(denied(ask(&policy, rename("/srv/m/a", "/srv/a"))).0, "builtin:laundering");
    assert_eq!(
        denied(ask(&policy, rename("/srv", "/srv"))).0,
        "builtin:laundering",
        "what is in it goes along"
    );
    allowed(ask(&policy, rename("/srv/a", "/srv/b")));
    let rsync = |path: &str| {
        let files = vec![PathUse {
            operation: FileOperation::Read,
            path: Word::literal(path),
            folder: None,
            recursive: true,
            by: Route::Rsync,
        }];
        SshRequest::Exec(Exec { files, ..Exec::default() })
    };
    assert_eq!(denied(ask(&policy, rsync("/srv"))).0, "builtin:laundering");
    allowed(ask(&policy, rsync("/srv/other")));
}

#[test]
fn an_explanation_says_what_is_missing() {
    let policy = load(&rule("{ commands: [{ program: git, arguments: [\"**\"] }] }"));
    let subject = policy.subject_named("job").unwrap();
    let resource = policy.resource_named("web").unwrap();
    let action = Action::Ssh(Ssh { user: "deploy".into(), request: run(&["rm", "-rf", "/"]) });
    let question = Question { subject: &subject, resource, action: &action, now: UnixTime(0), grant: None };
    let said = policy.explain(&question).to_string();
    assert!(
        said.contains("running `rm -rf /`") && said.contains("- r (allow): grants nothing that it needs"),
        "{said}"
    );
    let text = serde_json::to_value(&action).unwrap();
    assert_eq!(
        (text["action"].as_str(), text["request"].as_str(), text["user"].as_str()),
        (Some("ssh"), Some("exec"), Some("deploy"))
    );
    assert_eq!(text["invocations"][0]["program"]["text"], "rm");
}
