//! The shipped policies load, their schema is current, and their expected decisions hold as far as they need
//! no SQL parser; with one they are checked where there is one.

mod support;

use std::{fs, path::PathBuf};

use policy::{testing::Expected, *};
use support::*;

fn policies() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../policies")
}

fn source(name: &str) -> Source {
    let text = fs::read_to_string(policies().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    Source { name: name.into(), text }
}

#[test]
fn shipped_policies_load() {
    for name in [
        "default.yaml",
        "examples/postgres.yaml",
        "examples/ssh.yaml",
        "examples/https.yaml",
        "examples/kubernetes.yaml",
        "presets/packages.yaml",
        "presets/git-forge.yaml",
        "presets/containers.yaml",
    ] {
        if let Err(found) = Policy::load(&[source(name)]) {
            panic!("{}", show(&found));
        }
    }
}

#[test]
fn the_default_policy_allows_nothing() {
    let policy = Policy::load(&[source("default.yaml")]).unwrap();
    assert!(policy.resources().is_empty());
    policy.subject("https://token.example", &serde_json::json!({"sub": "x"})).unwrap_err();
}

/// `UPDATE_SCHEMA=1 cargo test -p policy --test shipped` writes it anew.
#[test]
fn the_schema_is_current() {
    let path = policies().join("schema.json");
    let current = json_schema();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&current).unwrap())).unwrap();
    }
    let shipped: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap_or_default()).unwrap_or_default();
    assert!(
        shipped == current,
        "policies/schema.json is stale: UPDATE_SCHEMA=1 cargo test -p policy --test shipped"
    );
}

#[test]
fn the_cases_of_the_example_name_what_exists() {
    let policy = Policy::load(&[source("examples/postgres.yaml")]).unwrap();
    let cases = testing::cases(&source("examples/postgres.tests.yaml"))
        .unwrap_or_else(|found| panic!("{}", show(&found)));
    // Without a parser every statement is refused: what is left are connections, and cases that name nothing.
    let outcomes = testing::run(
        &policy,
        &cases,
        UnixTime(1_800_000_000),
        |_| Err::<Vec<_>, _>("no parser here"),
        |_| Exec::default(),
        |_| Err("no reader here".to_owned()),
        |_| Err("no reader here".to_owned()),
    );
    assert!(outcomes.len() >= 30);
    for outcome in &outcomes {
        let excused = outcome
            .failures
            .iter()
            .all(|failure| failure.contains("no parser") || failure.contains("unparsable"));
        let only_rules = outcome.failures.iter().all(|failure| failure.contains("expected"));
        assert!(
            excused || only_rules,
            "{}:{} {}: {:?}",
            outcome.file,
            outcome.line,
            outcome.name,
            outcome.failures
        );
        assert!(
            !outcome.failures.iter().any(|failure| failure.contains("the policy has no")),
            "{:?}",
            outcome.failures
        );
    }
    for name in ["connect", "another database"] {
        assert!(outcomes.iter().find(|outcome| outcome.name == name).unwrap().passed(), "{name}");
    }
}

const RULES: &str = r#"
rules:
  - { id: c, effect: allow, subjects: [job], resources: [orders], connect: true }
  - { id: read, effect: allow, subjects: [job], resources: [orders], statements: {classes: [read], relations: [public.*]} }
  - { id: ask, effect: approve, subjects: [job], resources: [orders], statements: {kinds: [delete], relations: [public.*]} }
masks:
  - { id: m, columns: [public.a.secret], transform: redact }
"#;

/// `;`-separated: `read COLUMN…` or `delete RELATION`.
fn toy(sql: &str) -> Result<Vec<Statement>, String> {
    let one = |text: &str| match text.trim().split(' ').collect::<Vec<_>>().as_slice() {
        ["read", columns @ ..] => Ok(select(columns)),
        ["delete", relation] => Ok(statement("delete", Class::Write).on(Access::Write, relation)),
        _ => Err(format!("cannot read {text}")),
    };
    sql.split(';').map(one).collect()
}

fn run(case: &str) -> Vec<String> {
    let policy = load(RULES);
    let source =
        Source { name: "t.yaml".into(), text: format!("- {{name: case, resource: orders, {case}}}\n") };
    let cases = testing::cases(&source).unwrap_or_else(|found| panic!("{}", show(&found)));
    let mut outcomes = testing::run(
        &policy,
        &cases,
        UnixTime(0),
        toy,
        |_| Exec::default(),
        |_| Err(String::new()),
        |_| Err(String::new()),
    );
    assert_eq!((outcomes.len(), outcomes[0].line), (1, 1));
    outcomes.remove(0).failures
}

#[test]
fn cases_hold_or_say_what_does_not() {
    let ok: [&str; 0] = [];
    assert_eq!(run("subject: job, sql: read public.a.x, expect: allow, rule: read, masked: []"), ok);
    assert_eq!(run("subject: job, sql: read public.a.x public.a.secret, expect: allow, masked: [2]"), ok);
    assert_eq!(
        run("subject: job, sql: read public.a.x public.a.secret, expect: allow, masked: [secret]"),
        ok
    );
    assert_eq!(run("subject: job, sql: read public.a.secret, expect: allow, masked: [a.secret]"), ok);
    assert_eq!(run("subject: job, sql: read public.a.x; delete public.a, expect: approve, rule: ask"), ok);
    assert_eq!(run("subject: job, sql: read public.a.x; delete s.a; delete public.a, expect: deny"), ok);
    assert_eq!(run("subject: job, sql: gibberish, expect: deny, rule: \"builtin:unparsable\""), ok);
    assert_eq!(run("subject: job, connect: {database: orders}, expect: allow, rule: c"), ok);
    assert_eq!(
        run(
            "claims: {iss: https://token.example, repository: acme/payments}, connect: {database: orders}, expect: allow"
        ),
        ok
    );

    assert!(
        run("subject: job, sql: delete public.a, expect: allow")[0]
            .contains("expected allow, got approve by ask")
    );
    assert!(run("subject: job, sql: delete s.a, expect: allow")[0].contains("delete on s.a"));
    assert!(run("subject: job, sql: read public.a.x, expect: allow, rule: other")[0].contains("it was read"));
    assert!(
        run("subject: job, sql: read public.a.secret, expect: allow, masked: []")[0]
            .contains("got 1 (public.a.secret)")
    );
    assert!(run("subject: job, sql: read public.a.x, expect: allow, masked: [x]")[0].contains("got none"));
    assert!(run("subject: nobody, sql: read public.a.x, expect: allow")[0].contains("no subject `nobody`"));
    assert!(run("claims: {iss: elsewhere}, sql: read public.a.x, expect: allow")[0].contains("no subject"));
}

#[test]
fn cases_are_checked_as_they_are_read() {
    let read =
        |text: &str| show(&testing::cases(&Source { name: "t.yaml".into(), text: text.into() }).unwrap_err());
    let head = "- name: n\n  resource: r\n  expect: deny\n";
    assert!(read(&format!("{head}  subject: s\n  sql: x\n  expct: deny\n")).contains("t.yaml:6:3"));
    assert!(
        read(&format!("{head}  sql: x\n"))
            .starts_with("t.yaml:1:3: case \"n\": a case has either `subject` or `claims`")
    );
    assert!(
        read(&format!("{head}  subject: s\n  sql: x\n  connect: {{database: d}}\n"))
            .contains("either `sql` or `connect` or `dns` or `ssh` or `http` or `kubernetes`")
    );
    assert!(read(&format!("{head}  subject: s\n  sql: x\n  at: noon\n")).contains("not a time"));
    assert!(read(&format!("{head}  subject: s\n  subject: t\n")).contains("duplicate key `subject`"));
    assert_eq!(Expected::Approve.to_string(), "approve");
}
