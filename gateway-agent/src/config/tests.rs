use super::*;

const GOOD: &str = "\
state_dir: state
identity:
  issuers:
    - issuer: https://token.example
      audience: gateway-agent
      jwks_file: jwks.json
policy: { files: [policy.yaml] }
";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/gateway/agent.yaml"), text)
}

fn refused(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn defaults_are_filled_and_paths_are_absolute() {
    let c = parse(GOOD).unwrap();
    assert_eq!(c.state_dir, Path::new("/etc/gateway/state"));
    assert_eq!(c.control.socket, Path::new("/run/gateway/control.sock"));
    assert_eq!(c.recording.dir, Path::new("/etc/gateway/state/recordings"));
    assert_eq!(c.policy.files, [PathBuf::from("/etc/gateway/policy.yaml")]);
    assert_eq!(c.identity.skew, Duration::from_secs(30));
    assert!(c.identity.issuers[0].nonce, "a nonce is asked for unless switched off");
    assert!(c.recording.required);
    assert!(c.metrics.is_none());
    assert_eq!(c.kernel.mode, crate::kernel::Mode::Enforce, "observing is asked for by name");
    assert_eq!(c.approvals.approvers, ["root"]);
    assert!(c.sandbox && !parse(&format!("{GOOD}sandbox: off\n")).unwrap().sandbox);
    assert!(refused(&format!("{GOOD}sandbox: perhaps\n")).contains("agent.yaml:8"));
}

#[test]
fn the_full_example_is_accepted() {
    let c = parse(
        "\
state_dir: /var/lib/gateway
runtime_dir: /run/gateway
kernel:
  cgroup_root: /sys/fs/cgroup
  pin_dir: /sys/fs/bpf/gateway
  virtual_port: 15001
  mode: observe
  allow:
    - { net: 192.0.2.123/32, port: 123, protocol: udp }
jobs: { parent: gateway-jobs, uid: own, uids: 1900000000-1900009999 }
identity:
  skew: 30s
  issuers:
    - issuer: https://token.example
      audience: gateway-agent
      nonce: true
      discovery: true
      ca: /path.pem
      algorithms: [RS256, ES256, EdDSA]
policy: { files: [/etc/gateway/policy.yaml] }
control: { socket: /run/gateway/control.sock, group: gateway }
approvals: { approvers: [\"root\", \"@gateway\"] }
recording: { dir: /r, signing_key: /k, required: true, durability: each }
audit: { file: /a }
metrics: { listen: 127.0.0.1:9464 }
sessions: { workers: 2, max_per_job: 200, max_total: 4000, login_timeout: 10s, idle_timeout: null, sql_max_bytes: 65536 }
",
    )
    .unwrap();
    assert_eq!(c.kernel.allow[0].port, 123);
    assert_eq!(c.kernel.mode, crate::kernel::Mode::Observe);
    assert_eq!(c.recording.durability, Durability::Each);
    assert_eq!(c.sessions.idle_timeout, None);
}

#[test]
fn an_unknown_field_is_refused_with_its_line() {
    let e = refused(&GOOD.replace("state_dir: state", "state_dir: state\nkernal: {}"));
    assert!(e.starts_with("/etc/gateway/agent.yaml:2"), "{e}");
    assert!(e.contains("kernal") && e.contains("hint:"), "{e}");
}

#[test]
fn bad_values_are_refused_with_line_and_hint() {
    for (from, to, line, says) in [
        ("state_dir: state", "sessions: { login_timeout: 10 parsecs }", 1, "not a duration"),
        ("state_dir: state", "sessions: { ssh_rekey_bytes: 2000000000 }", 1, "ssh_rekey_bytes is 2000000000"),
        ("state_dir: state", "metrics: { listen: localhost }", 1, "127.0.0.1:9464"),
        ("state_dir: state", "sessions: { sql_max_bytes: 100000 }", 1, "65536"),
        ("state_dir: state", "jobs: { parent: ../elsewhere }", 1, "below the cgroup root"),
        (
            "state_dir: state",
            "kernel: { allow: [ { net: nowhere, port: 1, protocol: tcp } ] }",
            1,
            "not a network",
        ),
        ("state_dir: state", "kernel: { mode: off }", 1, "observe"),
        (
            "state_dir: state",
            "kernel: { allow: [ { net: \"2002::/16\", port: 1, protocol: tcp } ] }",
            1,
            "tunnel",
        ),
        ("      jwks_file: jwks.json\n", "", 4, "no keys"),
        ("jwks_file: jwks.json", "jwks_file: jwks.json\n      discovery: true", 4, "keep one"),
        ("audience: gateway-agent", "audience: ''", 4, "audience is empty"),
        ("[policy.yaml]", "[]", 7, "at least one"),
    ] {
        let e = refused(&GOOD.replace(from, to));
        assert!(e.starts_with(&format!("/etc/gateway/agent.yaml:{line}: ")), "{to}: {e}");
        assert!(e.contains(says) && e.contains("hint:"), "{to}: {e}");
    }
}

#[test]
fn discovery_is_https_only_and_weak_algorithms_do_not_exist() {
    let e = refused(
        &GOOD
            .replace("https://token.example", "http://token.example")
            .replace("jwks_file: jwks.json", "discovery: true"),
    );
    assert!(e.contains("https"), "{e}");
    let e = refused(&GOOD.replace("jwks_file: jwks.json", "jwks_file: jwks.json\n      algorithms: [HS256]"));
    assert!(e.contains("HS256"), "{e}");
}

#[test]
fn an_issuer_listed_twice_is_refused() {
    let twice = GOOD
        .replace("policy:", "    - { issuer: https://token.example, audience: b, jwks_file: k }\npolicy:");
    assert!(refused(&twice).contains("twice"));
}

#[test]
fn resolvers_are_addresses_and_port_53_is_the_gateways() {
    let c = parse(GOOD).unwrap();
    assert!(c.dns.answer && c.dns.upstreams.is_empty());
    assert_eq!(c.dns.timeout, Duration::from_secs(2));
    let c =
        parse(&format!("{GOOD}dns: {{ upstreams: [10.0.0.2, \"[2001:db8::53]:5353\"], timeout: 500ms }}\n"))
            .unwrap();
    assert_eq!(c.dns.upstreams, ["10.0.0.2:53".parse().unwrap(), "[2001:db8::53]:5353".parse().unwrap()]);
    assert!(
        refused(&format!("{GOOD}dns: {{ upstreams: [resolver.example] }}\n")).contains("not the address")
    );
    let direct = format!("{GOOD}kernel: {{ allow: [{{ net: 127.0.0.53/32, port: 53, protocol: udp }}] }}\n");
    assert!(refused(&direct).contains("kernel.allow names port 53"));
    parse(&format!("{direct}dns: {{ answer: false }}\n")).unwrap();
}
