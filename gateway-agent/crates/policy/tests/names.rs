//! Which names may be resolved.

mod support;

use policy::*;
use support::*;

const DNS: &str = r#"
rules:
  - { id: c, effect: allow, subjects: [job], resources: [orders], connect: true }
dns:
  limits: { name_bytes: 60, labels: 5 }
  rules:
    - { id: packages, effect: allow, subjects: [job], names: ["*.packages.example", Mirror.Example] }
    - { id: texts, effect: allow, subjects: [job], names: [text.example], types: [TXT, SRV] }
    - { id: old, effect: allow, subjects: [job], names: [old.example], expires: 2001-01-01T00:00:00Z }
    - { id: never, effect: deny, names: ["*.evil.packages.example"], reason: not this one }
"#;

fn ask(policy: &Policy, subject: &str, name: &str, kind: &str) -> NameVerdict {
    let kind = RecordKind::from_name(kind);
    policy.resolve(&NameQuestion { subject, name, kind, now: UnixTime(1_800_000_000) })
}

fn told(verdict: &NameVerdict) -> String {
    format!("{} {}", verdict.effect, verdict.rules.join(","))
}

#[test]
fn names_are_granted_by_rule_and_type() {
    let policy = load(DNS);
    for (name, kind, expected) in [
        ("a.packages.example", "A", "allow packages"),
        ("a.b.packages.example", "AAAA", "allow packages"),
        ("mirror.example", "A", "allow packages"),
        ("packages.example", "A", "deny builtin:default-deny"),
        ("xpackages.example", "A", "deny builtin:default-deny"),
        (".packages.example", "A", "deny builtin:default-deny"),
        ("a.packages.example.net", "A", "deny builtin:default-deny"),
        ("a.packages.example", "TXT", "deny builtin:dns-type"),
        ("a.packages.example", "ANY", "deny builtin:dns-type"),
        ("a.packages.example", "AXFR", "deny builtin:dns-type"),
        ("text.example", "TXT", "allow texts"),
        ("text.example", "A", "deny builtin:dns-type"),
        ("old.example", "A", "deny builtin:default-deny"),
        ("x.evil.packages.example", "A", "deny never"),
        ("x.evil.packages.example", "ANY", "deny never"),
        ("", "A", "deny builtin:default-deny"),
    ] {
        assert_eq!(told(&ask(&policy, "job", name, kind)), expected, "{name} {kind}");
    }
    assert_eq!(told(&ask(&policy, "nobody", "mirror.example", "A")), "deny builtin:default-deny");
}

#[test]
fn a_resources_name_comes_with_the_right_to_connect() {
    let named = RESOURCE_NAMED.to_owned()
        + "rules:\n  - { id: c, effect: allow, subjects: [job], resources: [named], connect: true }\n";
    let policy = load_whole(&named);
    let verdict = ask(&policy, "job", "db.internal", "A");
    assert_eq!((verdict.effect, &*verdict.rules[0]), (NameEffect::Resource, "c"));
    assert_eq!(told(&ask(&policy, "job", "db.internal", "TXT")), "deny builtin:dns-type");
    assert_eq!(told(&ask(&policy, "job", "other.internal", "A")), "deny builtin:default-deny");
    assert_eq!(told(&ask(&policy, "other", "db.internal", "A")), "deny builtin:default-deny");
    // Who may not connect may not ask either, and a rule about the name itself comes first.
    let closed = named.clone() + "  - { id: no, effect: deny, subjects: [job], connect: true }\n";
    assert_eq!(told(&ask(&load_whole(&closed), "job", "db.internal", "A")), "deny builtin:default-deny");
    let denied = named + "dns: { rules: [{ id: no, effect: deny, names: [db.internal] }] }\n";
    assert_eq!(told(&ask(&load_whole(&denied), "job", "db.internal", "A")), "deny no");
}

const RESOURCE_NAMED: &str = "version: 1
subjects:
  - { name: job, issuer: https://token.example, claims: { sub: job } }
  - { name: other, issuer: https://token.example, claims: { sub: other } }
resources:
  - name: named
    kind: postgres
    hosts: [DB.internal]
    databases: [orders]
    login: { user: gateway, password: { env: X } }
    tls: { mode: verify-full }
";

fn load_whole(text: &str) -> Policy {
    let source = Source { name: "p.yaml".into(), text: text.into() };
    Policy::load(&[source]).unwrap_or_else(|found| panic!("{}", show(&found)))
}

#[test]
fn limits_are_the_strictest_of_all_files() {
    assert_eq!(*load("rules: []\n").name_limits(), NameLimits::default());
    let limits = *load(DNS).name_limits();
    assert_eq!((limits.name_bytes, limits.labels, limits.per_second), (60, 5, 50));
    let file = |name: &str, text: &str| Source { name: name.into(), text: format!("version: 1\n{text}") };
    let two = [
        file("a", "dns: { limits: { name_bytes: 100, labels: 4 } }\n"),
        file("b", "dns: { limits: { name_bytes: 50 } }\n"),
    ];
    let limits = *Policy::load(&two).unwrap().name_limits();
    assert_eq!((limits.name_bytes, limits.labels), (50, 4));
}

#[test]
fn mistakes_are_told_with_their_place() {
    let found = |dns: &str| {
        let source = Source { name: "p.yaml".into(), text: format!("version: 1\ndns:\n{dns}") };
        show(&Policy::load(&[source]).unwrap_err())
    };
    for (dns, says) in [
        ("  limits: { labels: 0 }\n", "labels: 0 is not in 1..=127"),
        ("  limits: { name_bytes: 254 }\n", "is not in 1..=253"),
        ("  limits: { name_byte: 4 }\n", "unknown field"),
        ("  rules: [{ id: a, effect: allow, names: [x.example] }]\n", "names no subjects"),
        ("  rules: [{ id: a, effect: deny, names: [] }]\n", "names no names"),
        ("  rules: [{ id: a, effect: deny, names: [\"a*.example\"] }]\n", "is not a name"),
        ("  rules: [{ id: a, effect: deny, names: [10.0.0.1] }]\n", "is not a name"),
        ("  rules: [{ id: a, effect: deny, names: [\"*.*.example\"] }]\n", "is not a name"),
        ("  rules: [{ id: a, effect: approve, names: [x.example], subjects: [] }]\n", "nobody is asked"),
        ("  rules: [{ id: a, effect: deny, names: [x.example], types: [ANY] }]\n", "ANY"),
        (
            "  rules: [{ id: a, effect: deny, names: [x.example] }, { id: a, effect: deny, names: [y.example] }]\n",
            "duplicate rule id",
        ),
    ] {
        assert!(found(dns).contains(says), "{dns}: {}", found(dns));
    }
}

#[test]
fn cases_about_names() {
    let policy = load(DNS);
    let run = |case: &str| {
        let text = format!("- {{name: case, subject: job, {case}}}\n");
        let cases = testing::cases(&Source { name: "t.yaml".into(), text })?;
        Ok::<_, Vec<Diagnostic>>(
            testing::run(
                &policy,
                &cases,
                UnixTime(0),
                |_| Err::<Vec<_>, _>("none"),
                |_| Exec::default(),
                |_| Err(String::new()),
                |_| Err(String::new()),
            )
            .remove(0),
        )
    };
    assert!(run("dns: {name: A.Packages.example.}, expect: allow, rule: packages").unwrap().passed());
    assert!(run("dns: {name: text.example, type: TXT}, expect: allow, rule: texts").unwrap().passed());
    assert!(!run("dns: {name: text.example}, expect: allow").unwrap().passed());
    assert!(
        show(&run("resource: orders, dns: {name: x.example}, expect: deny").unwrap_err())
            .contains("names have none")
    );
    assert!(
        show(&run("connect: {database: orders}, expect: deny").unwrap_err()).contains("need a `resource`")
    );
}
