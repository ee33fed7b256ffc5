//! Rules for HTTP hosts: how they load, and what an allow is conditional on. How they decide is in policies/.

mod support;

use std::time::Duration;

use policy::*;
use support::{show, try_load};

const HEAD: &str = r#"
version: 1
subjects:
  - { name: job, issuer: https://token.example, claims: { sub: a } }
resources:
  - name: api
    kind: https
    hosts: [api.example]
    strip: [X-Api-Key]
  - name: web
    kind: ssh
    hosts: [198.51.100.20]
    host_keys: ["SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
    users: ["*"]
    login: { user: app, key: { file: /k } }
"#;

fn complaints(text: &str) -> Vec<String> {
    match try_load(text) {
        Ok(_) => Vec::new(),
        Err(found) => found.iter().map(ToString::to_string).collect(),
    }
}

/// Exactly one complaint, with these words.
#[track_caller]
fn says(rest: &str, words: &[&str]) {
    let found = complaints(&format!("{HEAD}{rest}"));
    assert_eq!(found.len(), 1, "{found:#?}");
    for word in words {
        assert!(found[0].contains(word), "no {word:?} in: {}", found[0]);
    }
}

fn rule(effect: &str, http: &str) -> String {
    format!("rules:\n  - {{ id: r, effect: {effect}, subjects: [job], resources: [api], http: {http} }}\n")
}

fn load(rest: &str) -> Policy {
    try_load(&format!("{HEAD}{rest}")).unwrap_or_else(|found| panic!("{}", show(&found)))
}

fn request(method: &str, segments: &[&str]) -> HttpRequest {
    HttpRequest {
        method: method.into(),
        scheme: Scheme::Https,
        host: "api.example".into(),
        port: 443,
        path: HttpPath {
            raw: format!("/{}", segments.join("/")),
            segments: segments.iter().map(|&s| s.into()).collect(),
            ..HttpPath::default()
        },
        query: Vec::new(),
        raw_query: None,
        headers: Vec::new(),
        upgrade: None,
    }
}

fn ask(policy: &Policy, request: HttpRequest) -> Verdict {
    support::decide(policy, "job", "api", &Action::Http(Http::Request(request)), None, UnixTime(1_000))
}

#[test]
fn wrong_rules_say_what_would_be_right() {
    says(&rule("allow", "{ methods: [GET] }"), &["names no paths", "paths: ["]);
    says(&rule("allow", "{ paths: [/a] }"), &["names no methods", "GET"]);
    says(&rule("allow", "{ methods: [get], paths: [/a] }"), &["\"get\" is no method", "upper case"]);
    says(&rule("allow", "{ methods: [CONNECT], paths: [/a] }"), &["never relayed"]);
    says(&rule("allow", "{ methods: [GET], paths: [a] }"), &["does not begin with a slash"]);
    says(&rule("allow", "{ methods: [GET], paths: [/a/../b] }"), &["not normalised"]);
    says(&rule("allow", "{ methods: [GET], paths: [\"/a%2Fb\"] }"), &["written encoded"]);
    says(&rule("allow", "{ methods: [GET], paths: [\"/{a}b\"] }"), &["placeholder"]);
    says(&rule("allow", "{ methods: [GET], paths: [/a], upgrade: [h2c] }"), &["h2c"]);
    says(&rule("allow", "{ methods: [GET], paths: [/a], hosts: [\"*.example\"] }"), &["reaches too far"]);
    says(
        &rule("allow", "{ methods: [GET], paths: [/a], limits: { duration: soon } }"),
        &["not a length of time"],
    );
    says(&rule("allow", "{ methods: [GET], paths: [/a], limits: { per_minute: 0 } }"), &["a limit of 0"]);
    says(&rule("allow", "{ methods: [GET], paths: [/a], query: { service: [] } }"), &["has no values"]);
    says(&rule("deny", "{ limits: { request_bytes: 5 } }"), &["nothing to limit"]);
    says(&rule("allow", "{ pass_through: true }"), &["to which hosts"]);
    says(
        &rule("allow", "{ pass_through: true, hosts: [a.example], methods: [GET] }"),
        &["lets TLS through unseen"],
    );
    says(
        &rule("approve", "{ pass_through: true, hosts: [a.example] }"),
        &["asks people about what nobody sees"],
    );
    says(
        "rules:\n  - { id: r, effect: allow, subjects: [job], resources: [web], http: { methods: [GET], paths: [/a] } }\n",
        &["none of its resources is of kind https"],
    );
    says(
        "masks:\n  - { id: m, resources: [api], json: [token], transform: redact }\n",
        &["no path into JSON", "$.items"],
    );
    says("masks:\n  - { id: m, resources: [api], json: [$.a], transform: hash }\n", &["redacted or null"]);
    says("masks:\n  - { id: m, resources: [web], json: [$.a], transform: redact }\n", &["kind https"]);
    says(
        "masks:\n  - { id: m, json: [$.a], columns: [a.b.c], transform: redact }\n",
        &["about responses of HTTP and about something else"],
    );
}

#[test]
fn wrong_resources_say_what_would_be_right() {
    let resource = |rest: &str| format!("  - {{ name: x, kind: https, {rest} }}\n");
    let of = |rest: &str, words: &[&str]| says(&resource(rest), words);
    of("hosts: [x.example], names: [y.example]", &["does not say at which addresses", "hosts"]);
    of("hosts: [198.51.100.1], names: [\"*.example\"]", &["reaches too far"]);
    of("hosts: [x.example], http_ports: [80]", &["port 80 is not one of the resource's ports"]);
    of("hosts: [x.example], tls: { mode: disable }", &["TLS cannot be disabled"]);
    of("hosts: [x.example], tls: { mode: verify-full, pins: [abc] }", &["is no pin", "sha256//"]);
    of("hosts: [x.example], inject: [{ header: Host, value: { file: /s } }]", &["frames messages"]);
    of("hosts: [x.example], inject: [{ header: \"a b\", value: { file: /s } }]", &["no header field"]);
    of("hosts: [x.example], inject: [{ header: A, value: { file: s } }]", &["absolute path"]);
    of(
        "hosts: [x.example], ports: [80], http_ports: [80], inject: [{ header: A, value: { file: /s } }]",
        &["secrets in clear text"],
    );
    of("hosts: [x.example], strip: [Content-Length]", &["frames messages"]);
    of("hosts: [x.example], databases: [a]", &["of kind https has no `databases`"]);
    of("hosts: [api.example]", &["share a host and a port and a name"]);
    of("hosts: [198.51.100.20], ports: [22]", &["share a host and a port"]);
    // The same addresses with other names are another resource.
    load(
        "  - { name: a, kind: https, hosts: [198.51.100.0/24], names: [\"*.a.example\"] }\n  - { name: b, kind: https, hosts: [198.51.100.0/24], names: [b.example] }\n",
    );
    says(
        "  - { name: a, kind: https, hosts: [198.51.100.0/24], names: [\"*.a.example\"] }\n  - { name: b, kind: https, hosts: [198.51.100.7], names: [b.a.example] }\n",
        &["and a name"],
    );
}

#[test]
fn an_allow_carries_the_strictest_limits_and_the_masks_of_its_path() {
    let policy = load(
        r#"
rules:
  - { id: a, effect: allow, subjects: [job], resources: [api], http: { methods: [GET], paths: ["/**"], limits: { response_bytes: 10, duration: 5m, per_minute: 7 } } }
  - { id: b, effect: allow, subjects: [job], resources: [api], http: { methods: ["*"], paths: ["/x/**"], limits: { response_bytes: 5, request_bytes: 3 } } }
masks:
  - { id: j, resources: [api], json: ["$..token"], paths: ["/x/secret"], transform: "null" }
  - { id: d, resources: [api], detectors: [email], transform: redact }
  - { id: p, resources: [api], detectors: [card], paths: [/y], transform: redact }
"#,
    );
    let obligations = |verdict: Verdict| match verdict.effect {
        Effect::Allow(allow) => allow.obligations,
        other => panic!("{other:?}"),
    };
    let both = obligations(ask(&policy, request("GET", &["x", "secret"])));
    let http = both.http.unwrap();
    let bound = |most: u64, rule: &str| Some(Bounded { most, rule: rule.into() });
    assert_eq!(http.limits.response_bytes, bound(5, "b"));
    assert_eq!(http.limits.request_bytes, bound(3, "b"));
    assert_eq!(http.limits.duration.as_ref().map(|of| of.most), Some(Duration::from_secs(300)));
    assert_eq!(http.limits.per_minute.len(), 1);
    assert_eq!(http.json.len(), 1);
    assert_eq!(both.detectors.unwrap().names().collect::<Vec<_>>(), ["email"]);
    let one = obligations(ask(&policy, request("GET", &["y"])));
    assert!(one.http.unwrap().json.is_empty());
    assert_eq!(one.detectors.unwrap().names().collect::<Vec<_>>(), ["email", "card"]);
    assert!(matches!(ask(&policy, request("POST", &["y"])).effect, Effect::Deny(_)));
}

#[test]
fn connecting_needs_no_rule_of_its_own() {
    let policy = load(&rule("allow", "{ methods: [GET], paths: [/a] }"));
    let resolve = |name: &str| {
        policy
            .resolve(&NameQuestion { subject: "job", name, kind: Some(RecordKind::A), now: UnixTime(0) })
            .effect
    };
    assert_eq!(resolve("api.example"), NameEffect::Resource);
    assert!(matches!(resolve("other.example"), NameEffect::Deny(_)));
    let none = load("");
    let question =
        NameQuestion { subject: "job", name: "api.example", kind: Some(RecordKind::A), now: UnixTime(0) };
    assert!(matches!(none.resolve(&question).effect, NameEffect::Deny(_)));
}
