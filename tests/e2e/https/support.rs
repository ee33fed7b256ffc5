//! A world with a web server in it.

use std::time::Duration;

use serde_json::Value;
use tests::{World, job::Job, nameserver::Nameserver, process, process::Output, web::Web};

/// Where the server is, and where the gateway asks for names.
pub(crate) const HOST: &str = "198.51.100.30";
const RESOLVER: &str = "198.51.100.20:53";
/// What the gateway adds to requests, and no job ever sees.
pub(crate) const SECRET: &str = "marker-secret-0a1b2c3d";

/// A world, and a server in it that goes by several names. Fields are dropped in order.
pub(crate) struct Ground {
    pub(crate) world: World,
    pub(crate) web: Web,
    _names: Nameserver,
}

/// `api` sets a header field and is masked; `open` is neither, also in clear text; `raw` keeps bytes; `pinned` is let through.
const RESOURCES: &str = r#"
  - name: api
    kind: https
    hosts: [api.example]
    tls: { mode: verify-full, ca: @DIR@/db-ca.pem, pins: ["@PIN@"] }
    inject: [{ header: Authorization, prefix: "Bearer ", value: { file: @DIR@/secrets/api } }]
    strip: [X-Job]
  - name: open
    kind: https
    hosts: [open.example]
    ports: [80, 443]
    http_ports: [80]
    tls: { mode: verify-full, ca: @DIR@/db-ca.pem }
  - { name: raw, kind: https, hosts: [raw.example], ports: [8080, 8443], http_ports: [8080], tls: { mode: verify-full, ca: @DIR@/db-ca.pem } }
  - { name: pinned, kind: https, hosts: [pinned.example], tls: { mode: verify-full, ca: @DIR@/db-ca.pem } }
  - { name: registry, kind: https, hosts: [registry.example], ports: [5000], tls: { mode: verify-full, ca: @DIR@/db-ca.pem } }
  - { name: chat, kind: https, hosts: [chat.example], ports: [9443], tls: { mode: verify-full, ca: @DIR@/db-ca.pem } }
  - { name: swapped, kind: https, hosts: [swapped.example], tls: { mode: verify-full, ca: @DIR@/db-ca.pem, pins: ["sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="] } }
  - { name: wrong, kind: https, hosts: [wrong.example], tls: { mode: verify-full, ca: @DIR@/db-ca.pem } }
"#;

pub(crate) const RULES: &str = r#"
  - id: read
    effect: allow
    subjects: [payments-agent]
    resources: [api, open, raw, wrong, swapped]
    http: { methods: [GET, HEAD, OPTIONS], paths: ["/**"], ambiguous: [encoded_slash] }
    record: statements
  - id: write
    effect: allow
    subjects: [payments-agent]
    resources: [open, raw]
    http: { methods: [POST, PUT], paths: ["/upload/**", /echo], limits: { request_bytes: 200000000 } }
  - { id: small, effect: allow, subjects: [payments-agent], resources: [open], http: { methods: [PATCH], paths: [/echo], limits: { request_bytes: 1000 } } }
  - { id: short, effect: allow, subjects: [payments-agent], resources: [open], http: { methods: [DELETE], paths: ["/**"], limits: { response_bytes: 1000, duration: 2s } } }
  - { id: ws, effect: allow, subjects: [payments-agent], resources: [open], http: { methods: [GET], paths: [/ws], upgrade: [websocket] }, record: results }
  - { id: ask, effect: approve, subjects: [payments-agent], resources: [open], http: { methods: [PUT], paths: ["/release/**"] }, approval: { approvers: [root], expires_after: 30s } }
  - { id: fetch, effect: allow, subjects: [payments-agent], resources: [open], http: { methods: [POST], paths: ["/git/**/git-upload-pack"] } }
  - { id: push, effect: approve, subjects: [payments-agent], resources: [open], http: { methods: [POST], paths: ["/git/**/git-receive-pack"] }, approval: { approvers: [root], expires_after: 30s } }
  - { id: secrets, effect: deny, resources: [open], http: { paths: ["/secret/**"] }, reason: secrets are not for jobs }
  - { id: through, effect: allow, subjects: [payments-agent], resources: [pinned], http: { pass_through: true, hosts: [pinned.example] } }
masks:
  - { id: tokens, resources: [api], json: ["$.items[*].token"], paths: [/json, "/encoded/**"], transform: redact }
  - { id: mails, resources: [api], detectors: [email], transform: redact }
"#;

impl Ground {
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self::with(RULES)
    }

    /// With other rules.
    #[track_caller]
    pub(crate) fn with(rules: &str) -> Self {
        match Self::make(rules) {
            Ok(ground) => ground,
            Err(error) => panic!("{error:#}"),
        }
    }

    fn make(rules: &str) -> anyhow::Result<Self> {
        let mut world =
            World::builder().without_agent().configure("/dns/upstreams", vec![RESOLVER]).start()?;
        let names = Nameserver::start(&world.far, RESOLVER.parse()?)?;
        let all = ["api.example", "open.example", "raw.example", "pinned.example", "swapped.example"];
        for name in all.iter().chain(&["wrong.example", "registry.example", "chat.example"]) {
            names.set(name, 60, &[HOST]);
        }
        let www = world.folder().join("www");
        std::fs::create_dir_all(&www)?;
        let web = Web::start(&world.far, HOST, &world.authority, &all, &www)?;
        let secret = world.folder().join("secrets/api");
        std::fs::write(&secret, SECRET)?;
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        world.write_policy(&policy(rules).replace("@PIN@", &web.pin))?;
        world.agent.start()?;
        Ok(Self { world, web, _names: names })
    }

    /// `curl` in a job, quiet, with its status on the last line.
    #[track_caller]
    pub(crate) fn curl(&self, words: &[&str]) -> Job {
        // Resolves by the gateway, whatever resolver the machine has.
        let mut all =
            vec!["curl", "--silent", "--show-error", "--write-out", "\n%{http_code}", "--max-time", "60"];
        let resolve: Vec<String> = ["api", "open", "raw", "pinned", "wrong", "swapped", "other"]
            .iter()
            .flat_map(|name| [80, 443, 8080, 8443].map(|port| format!("{name}.example:{port}:{HOST}")))
            .collect();
        for entry in &resolve {
            all.extend(["--resolve", entry]);
        }
        all.extend_from_slice(words);
        self.world.job(&all)
    }

    /// A script of the standard library in a job.
    #[track_caller]
    pub(crate) fn python(&self, script: &str, words: &[&str]) -> Job {
        let python = self.world.python();
        let all = [&[python.as_str(), "-c", script][..], words].concat();
        self.world.job(&all)
    }
}

/// The policy of a ground.
pub(crate) fn policy(rules: &str) -> String {
    format!(
        "version: 1\nsubjects:\n  - name: payments-agent\n    issuer: https://token.example\n    \
         claims: {{ repository: acme/payments }}\nresources:{RESOURCES}\nrules:{rules}"
    )
}

/// What curl was sent, and the status.
#[track_caller]
pub(crate) fn answered(out: &Output) -> (String, u16) {
    let (body, status) = out.stdout.rsplit_once('\n').unwrap_or_else(|| panic!("no status: {out}"));
    (body.to_owned(), status.parse().unwrap_or_else(|_| panic!("no status: {out}")))
}

#[track_caller]
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Waits for a condition, for as long as anything may take.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    match process::wait_for(what, Duration::from_secs(30), ask) {
        Ok(answer) => answer,
        Err(error) => panic!("{error:#}"),
    }
}

/// Polls the audit log for a line of one kind that satisfies a condition.
#[track_caller]
pub(crate) fn wait_for_audit(world: &World, event: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait_for(event, || {
        let events = world.agent.audit().expect("an audit log");
        events.into_iter().find(|line| line["event"] == event && is(line))
    })
}
