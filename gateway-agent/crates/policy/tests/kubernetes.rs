//! Rules about API servers: how they load. How they decide is in policies/ and in the tests of the protocol crate.

mod support;

use policy::{
    Action, ApiResource, Effect, Grant, Kubernetes, KubernetesTarget, PodStream, Policy, Question, Risk,
    Source, UnixTime,
};

const HEAD: &str = r#"
version: 1
subjects: [{ name: job, issuer: https://token.example, claims: { sub: x } }]
resources:
  - { name: cluster, kind: kubernetes, hosts: [192.0.2.1], login: { token: { env: X } } }
"#;

fn load(text: &str) -> Result<Policy, String> {
    let source = Source { name: "p.yaml".into(), text: text.into() };
    Policy::load(&[source]).map_err(|found| found.iter().map(|one| format!("{one}\n")).collect())
}

fn rules(rules: &str) -> Policy {
    load(&format!("{HEAD}rules:\n{rules}")).unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn action(verb: &str, resource: &str, namespace: Option<&str>, name: Option<&str>) -> Kubernetes {
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (resource, None),
    };
    Kubernetes {
        verb: verb.into(),
        target: KubernetesTarget::Resource(ApiResource {
            version: "v1".into(),
            resource: resource.into(),
            subresource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            ..ApiResource::default()
        }),
        dry_run: false,
        field_manager: None,
        force: false,
        propagation: None,
        risks: Vec::new(),
        patch: None,
        reads_stored: false,
        stream: None,
    }
}

/// The answer in a word, and the rule that gave it.
fn decide(policy: &Policy, action: &Kubernetes, grant: Option<&Grant>) -> String {
    let subject = policy.subject_named("job").unwrap();
    let resource = policy.resource_named("cluster").unwrap();
    let action = Action::Kubernetes(Box::new(action.clone()));
    let question = Question { subject: &subject, resource, action: &action, now: UnixTime(0), grant };
    let verdict = policy.decide(&question);
    let word = match verdict.effect {
        Effect::Allow(_) => "allow",
        Effect::Approve(_) => "approve",
        Effect::Deny(_) => "deny",
    };
    format!("{word} {}", verdict.rules.first().map(|rule| &**rule).unwrap_or_default())
}

const ANYTHING: &str = r#"
  - id: all
    effect: allow
    subjects: [job]
    resources: [cluster]
    kubernetes:
      requests: [{ verbs: ["*"], groups: ["", "*"], resources: ["*", "*/*"], namespaces: ["*"], cluster: true }]
"#;

#[test]
fn wildcards_do_not_reach_what_hands_out_more() {
    let policy = rules(ANYTHING);
    let ask =
        |verb: &str, resource: &str| decide(&policy, &action(verb, resource, Some("a"), Some("x")), None);
    for (verb, resource) in
        [("get", "pods"), ("create", "configmaps"), ("get", "pods/log"), ("update", "deployments/scale")]
    {
        assert_eq!(ask(verb, resource), "allow all", "{verb} {resource}");
    }
    for (verb, resource) in [
        ("get", "pods/proxy"),
        ("get", "services/proxy"),
        ("get", "nodes/proxy"),
        ("create", "pods/exec"),
        ("create", "pods/attach"),
        ("create", "pods/portforward"),
        ("create", "pods/binding"),
        ("patch", "pods/ephemeralcontainers"),
        ("create", "serviceaccounts/token"),
        ("update", "namespaces/finalize"),
        ("patch", "nodes"),
        ("proxy", "pods"),
        ("impersonate", "users"),
    ] {
        assert_eq!(ask(verb, resource), "deny builtin:default-deny", "{verb} {resource}");
    }
    let grouped = |group: &str, verb: &str, resource: &str| {
        let mut of = action(verb, resource, None, Some("x"));
        if let KubernetesTarget::Resource(resource) = &mut of.target {
            resource.group = group.into();
        }
        decide(&policy, &of, None)
    };
    for (group, resource) in [
        ("rbac.authorization.k8s.io", "clusterroles"),
        ("rbac.authorization.k8s.io", "rolebindings"),
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
        ("apiregistration.k8s.io", "apiservices"),
        ("certificates.k8s.io", "certificatesigningrequests/approval"),
    ] {
        assert_eq!(grouped(group, "update", resource), "deny builtin:default-deny", "{resource}");
    }
    assert_eq!(grouped("rbac.authorization.k8s.io", "get", "clusterroles"), "allow all");
}

#[test]
fn system_namespaces_are_entered_by_name_alone() {
    let rule = |namespaces: &str| {
        rules(&format!(
            "  - {{ id: r, effect: allow, subjects: [job], resources: [cluster], kubernetes: {{ requests: \
             [{{ verbs: [create], resources: [pods/exec], namespaces: [{namespaces}] }}], exec: {{ shell: true }} }} }}\n"
        ))
    };
    let exec = |namespace: &str| {
        let mut of = action("create", "pods/exec", Some(namespace), Some("x"));
        of.stream = Some(PodStream::default());
        of
    };
    assert_eq!(decide(&rule("\"*\""), &exec("a"), None), "allow r");
    assert_eq!(decide(&rule("\"*\""), &exec("kube-system"), None), "deny builtin:default-deny");
    assert_eq!(decide(&rule("\"kube-*\""), &exec("kube-system"), None), "deny builtin:default-deny");
    assert_eq!(decide(&rule("kube-system"), &exec("kube-system"), None), "allow r");
}

#[test]
fn what_an_object_asks_for_waits_unless_a_rule_says_otherwise() {
    let with = |risks: &str| {
        rules(&format!(
            "  - {{ id: r, effect: allow, subjects: [job], resources: [cluster], kubernetes: {{ requests: \
             [{{ verbs: [create], resources: [pods], namespaces: [a] }}], risks: [{risks}] }} }}\n"
        ))
    };
    let mut pod = action("create", "pods", Some("a"), None);
    assert_eq!(decide(&with(""), &pod, None), "allow r");
    pod.risks = vec![Risk::Privileged, Risk::HostPath];
    assert_eq!(decide(&with(""), &pod, None), "approve builtin:risk");
    assert_eq!(decide(&with("privileged"), &pod, None), "approve builtin:risk");
    assert_eq!(decide(&with("privileged, host_path"), &pod, None), "allow r");
    let policy = with("");
    let grant = Grant::approved(vec!["builtin:risk".into(), "r".into()], policy.version().clone());
    assert_eq!(decide(&policy, &pod, Some(&grant)), "allow r");
    let dry = Kubernetes { dry_run: true, ..pod.clone() };
    assert_eq!(decide(&with(""), &dry, None), "allow r");
    // Not where nothing grants the request itself, and not past a deny rule.
    let elsewhere = Kubernetes { risks: pod.risks.clone(), ..action("create", "pods", Some("b"), None) };
    assert_eq!(decide(&with(""), &elsewhere, None), "deny builtin:default-deny");
    let denied =
        rules(&format!("{ANYTHING}  - {{ id: no, effect: deny, kubernetes: {{ risks: [host_path] }} }}\n"));
    assert_eq!(decide(&denied, &pod, None), "deny no");
    pod.risks = vec![Risk::Privileged];
    assert_eq!(decide(&denied, &pod, None), "approve builtin:risk");
}

#[test]
fn a_deny_rule_is_met_by_whatever_could_reach_it() {
    let policy = rules(&format!(
        "{ANYTHING}  - {{ id: no, effect: deny, kubernetes: {{ requests: [{{ resources: [secrets], namespaces: [bank], names: [\"prod-*\"] }}] }} }}\n"
    ));
    let ask = |verb: &str, namespace: Option<&str>, name: Option<&str>| {
        decide(&policy, &action(verb, "secrets", namespace, name), None)
    };
    assert_eq!(ask("get", Some("bank"), Some("prod-db")), "deny no");
    assert_eq!(ask("list", Some("bank"), None), "deny no");
    assert_eq!(ask("watch", None, None), "deny no");
    assert_eq!(ask("deletecollection", Some("bank"), None), "deny no");
    assert_eq!(ask("get", Some("bank"), Some("test")), "allow all");
    assert_eq!(ask("list", Some("shop"), None), "allow all");
}

#[test]
fn ports_of_a_tunnel_are_decided_one_by_one() {
    let policy = rules(
        r#"
  - id: web
    effect: allow
    subjects: [job]
    resources: [cluster]
    kubernetes: { requests: [{ verbs: [create], resources: [pods/portforward], namespaces: [a], ports: [80, 443] }] }
  - { id: no-tls, effect: deny, kubernetes: { requests: [{ resources: [pods/portforward], ports: [443] }] } }
"#,
    );
    let forward = |ports: &[u16], tunnel: bool| {
        let stream = PodStream { ports: ports.to_vec(), tunnel, ..PodStream::default() };
        let action = action("create", "pods/portforward", Some("a"), Some("x"));
        decide(&policy, &Kubernetes { stream: Some(stream), ..action }, None)
    };
    assert_eq!(forward(&[80], false), "allow web");
    assert_eq!(forward(&[443], false), "deny no-tls");
    assert_eq!(forward(&[22], false), "deny builtin:default-deny");
    // Without ports nobody knows which, but in a tunnel, where each is asked about before it is opened.
    assert_eq!(forward(&[], false), "deny no-tls");
    assert_eq!(forward(&[], true), "allow web");
    let elsewhere = Kubernetes {
        stream: Some(PodStream { tunnel: true, ..PodStream::default() }),
        ..action("create", "pods/portforward", Some("b"), Some("x"))
    };
    assert_eq!(decide(&policy, &elsewhere, None), "deny builtin:default-deny");
}

#[test]
fn secrets_are_shown_by_name() {
    let policy = rules(
        r#"
  - id: look
    effect: allow
    subjects: [job]
    resources: [cluster]
    kubernetes: { requests: [{ verbs: [get, list, patch], resources: [secrets], namespaces: [a] }] }
  - id: helm
    effect: allow
    subjects: [job]
    resources: [cluster]
    kubernetes: { requests: [{ verbs: [get, list, patch], resources: [secrets], namespaces: [a] }], show_secrets: ["sh.helm.release.*"] }
"#,
    );
    let subject = policy.subject_named("job").unwrap();
    let resource = policy.resource_named("cluster").unwrap();
    let asked = Action::Kubernetes(Box::new(action("list", "secrets", Some("a"), None)));
    let question = Question { subject: &subject, resource, action: &asked, now: UnixTime(0), grant: None };
    let Effect::Allow(allow) = policy.decide(&question).effect else { panic!("no allow") };
    let shown = &allow.obligations.kubernetes.as_ref().unwrap().shown;
    assert!(shown.has("sh.helm.release.v1.web.v1") && !shown.has("db") && !shown.all());
    // What is compared or copied by a patch is seen as well.
    let patch = |name| Kubernetes { reads_stored: true, ..action("patch", "secrets", Some("a"), Some(name)) };
    assert_eq!(decide(&policy, &patch("sh.helm.release.v1.web.v1"), None), "allow look");
    assert_eq!(decide(&policy, &patch("db"), None), "deny builtin:laundering");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let wrong = |rule: &str| {
        let text = format!(
            "{HEAD}rules:\n  - {{ id: r, effect: allow, subjects: [job], resources: [cluster], kubernetes: {rule} }}\n"
        );
        load(&text).expect_err(rule)
    };
    for (rule, says) in [
        ("{}", "names nothing of Kubernetes"),
        ("{ requests: [{ resources: [pods], namespaces: [a] }] }", "names no verbs"),
        ("{ requests: [{ verbs: [get], namespaces: [a] }] }", "names no resources"),
        ("{ requests: [{ verbs: [get], resources: [pods] }] }", "neither in which namespaces"),
        ("{ requests: [{ verbs: [read], resources: [pods], namespaces: [a] }] }", "unknown verb `read`"),
        (
            "{ requests: [{ verbs: [escalate], resources: [roles], namespaces: [a] }] }",
            "the gateway's own rights",
        ),
        ("{ requests: [{ verbs: [get], resources: [Pods], namespaces: [a] }] }", "is no resource"),
        ("{ requests: [{ verbs: [get], resources: [a/b/c], namespaces: [a] }] }", "is no resource"),
        ("{ requests: [{ verbs: [get], resources: [pods], namespaces: [] }] }", "is for no namespaces"),
        (
            "{ requests: [{ verbs: [create], resources: [pods/exec], namespaces: [a] }] }",
            "what may be run there",
        ),
        (
            "{ requests: [{ verbs: [get], resources: [pods], namespaces: [a] }], exec: { shell: true } }",
            "does not open them",
        ),
        ("{ paths: [version] }", "is no path"),
        ("{ paths: [\"/*\"] }", "own logs and profiles"),
        ("{ paths: [/metrics], limits: { duration: soon } }", "not a length of time"),
        ("{ paths: [/metrics], show_secrets: [\"\"] }", "an empty pattern"),
        ("{ paths: [/metrics], show_secrets: release }", "names of Secrets, or `true`"),
    ] {
        let said = wrong(rule);
        assert!(said.contains(says) && said.contains("p.yaml:"), "{rule}: {said}");
    }
    let deny = load(&format!(
        "{HEAD}rules:\n  - {{ id: r, effect: deny, kubernetes: {{ requests: [{{ resources: [pods], dry_run: true }}], show_secrets: true }} }}\n"
    ));
    let said = deny.unwrap_err();
    assert!(said.contains("nothing to show") && said.contains("cannot tell by `dry_run`"), "{said}");
    let resource = |more: &str| {
        let text = format!(
            "version: 1\nresources:\n  - {{ name: c, kind: kubernetes, hosts: [192.0.2.1], {more} }}\n"
        );
        load(&text).expect_err(more)
    };
    for (more, says) in [
        ("ports: [6443]", "missing field `login`"),
        ("login: {}", "exactly one of `token`, `certificate` and `exec`"),
        ("login: { token: { env: X }, exec: { command: [/x] } }", "exactly one of"),
        ("login: { exec: { command: [kubectl] } }", "absolute path"),
        ("login: { token: { env: X } }, databases: [x]", "has no `databases`"),
        (
            "login: { token: { env: X }, service_account: { namespace: a, name: b, valid_for: 5m } }",
            "from 10 minutes to an hour",
        ),
        ("login: { token: { env: X } }, impersonate: { user: \"{who}\" }", "no name of a user"),
        (
            "login: { token: { env: X } }, impersonate: { user: u, groups: [\"system:masters\"] }",
            "may do everything",
        ),
        ("login: { token: { env: X } }, tls: { mode: disable }", "TLS"),
    ] {
        let said = resource(more);
        assert!(said.contains(says), "{more}: {said}");
    }
}
