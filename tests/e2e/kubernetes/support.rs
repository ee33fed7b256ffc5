//! A world with a cluster in it.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use serde_json::Value;
use tests::{
    Builder, World,
    job::Job,
    kubernetes::{Cluster, Kubectl},
    process,
};

/// Where the API server and the node's stand-in are.
pub(crate) const SERVER: &str = "198.51.100.10";
const NODE: &str = "198.51.100.20";
/// What no job may ever see, as it is written and as it is stored.
pub(crate) const MARKER: &str = "marker-secret-value-7f3a91";

/// A world, and a cluster in it. Fields are dropped in order.
pub(crate) struct Ground {
    pub(crate) world: World,
    pub(crate) cluster: Cluster,
}

/// Everything in one namespace, but for what waits for a human.
pub(crate) const RULES: &str = r#"
  - id: everything
    effect: allow
    subjects: [payments-agent]
    resources: [cluster]
    kubernetes:
      requests:
        - verbs: ["*"]
          groups: ["", "*"]
          resources: ["*", "*/*"]
          namespaces: [shop]
        - { verbs: [get, list, watch], groups: ["", "*"], resources: ["*"], cluster: true }
        - { verbs: [create], resources: [pods/exec, pods/attach, pods/portforward], namespaces: [shop] }
      paths: [/healthz*, /livez*, /readyz*, /metrics]
      exec: { shell: true }
      risks: [secrets]
    record: results
  - id: no-hosts
    effect: deny
    kubernetes: { risks: [privileged, host_path, host_network, host_pid, host_ipc] }
    reason: jobs do not get hold of nodes
  - id: remove
    effect: approve
    subjects: [payments-agent]
    resources: [cluster]
    kubernetes: { requests: [{ verbs: [deletecollection], groups: ["", apps], resources: [configmaps], namespaces: [shop] }] }
    approval: { quorum: 1, approvers: [root], expires_after: 30s }
"#;

impl Ground {
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// With more rules.
    #[track_caller]
    pub(crate) fn with(more: &str) -> Self {
        Self::only(&format!("{RULES}{}", more.trim_start_matches('\n')))
    }

    /// With these rules.
    #[track_caller]
    pub(crate) fn only(rules: &str) -> Self {
        match Self::make(rules, World::builder()) {
            Ok(ground) => ground,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// With these rules, where jobs may connect to a port of their own loopback.
    #[track_caller]
    pub(crate) fn forwarding(rules: &str) -> Self {
        let allow = serde_json::json!([{ "net": "127.0.0.1/32", "port": 18080, "protocol": "tcp" }]);
        match Self::make(rules, World::builder().configure("/kernel/allow", allow)) {
            Ok(ground) => ground,
            Err(error) => panic!("{error:#}"),
        }
    }

    fn make(rules: &str, builder: Builder) -> anyhow::Result<Self> {
        let mut world = builder.without_agent().start()?;
        let folder = world.folder().join("cluster");
        let cluster = Cluster::start(&folder, &world.far, SERVER, NODE, &world.authority)?;
        let binding = r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"jobs"},
            "roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},
            "subjects":[{"kind":"Group","name":"gateway:jobs","apiGroup":"rbac.authorization.k8s.io"}]}"#;
        cluster.direct(Kubectl::New, &["create", "-f", "-"], binding)?;
        let secret = world.folder().join("secrets/cluster");
        fs::write(&secret, cluster.token())?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        world.write_policy(&policy(rules))?;
        world.agent.start()?;
        Ok(Self { world, cluster })
    }

    /// kubectl in a job.
    #[track_caller]
    pub(crate) fn kubectl(&self, which: Kubectl, words: &[&str]) -> Job {
        let program = match which.program() {
            Ok(program) => program.display().to_string(),
            Err(error) => panic!("{error:#}"),
        };
        let mut all = vec![program.as_str(), "--cache-dir=/tmp/kube-cache", "--namespace=shop"];
        all.extend_from_slice(words);
        self.world.job(&all).limit(Duration::from_secs(120))
    }

    /// A shell script in a job, with the cluster's address in `$S`.
    #[track_caller]
    pub(crate) fn script(&self, text: &str) -> Job {
        let url = self.cluster.url();
        self.world.job(&["sh", "-c", text]).env("S", url).limit(Duration::from_secs(300))
    }

    /// kubectl past the gateway.
    #[track_caller]
    pub(crate) fn direct(&self, words: &[&str], stdin: &str) -> process::Output {
        let words: Vec<&str> = ["--namespace=shop"].into_iter().chain(words.iter().copied()).collect();
        match self.cluster.direct(Kubectl::New, &words, stdin) {
            Ok(out) => out,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// An object as it is stored, without what is another each time.
    #[track_caller]
    pub(crate) fn object(&self, path: &str) -> Value {
        let text = self.cluster.raw("GET", path, None).expect("an object");
        let mut value: Value = serde_json::from_str(&text).expect("JSON");
        if let Some(metadata) = value["metadata"].as_object_mut() {
            for name in ["uid", "resourceVersion", "creationTimestamp", "name"] {
                metadata.remove(name);
            }
            for of in metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
                of.as_object_mut().map(|of| of.remove("time"));
            }
        }
        value
    }
}

/// An object as etcd has it, byte by byte, but for its `uid` and the times in it: each is written over with what is as long.
#[track_caller]
pub(crate) fn stored(ground: &Ground, key: &str, path: &str) -> Vec<u8> {
    let text = ground.cluster.raw("GET", path, None).expect("an object");
    let object: Value = serde_json::from_str(&text).expect("JSON");
    let mut bytes = ground.cluster.stored(key).expect("what etcd holds");
    let mut cover = |needle: &[u8]| {
        let mut from = 0;
        while let Some(at) = bytes[from..].windows(needle.len()).position(|part| part == needle) {
            bytes[from + at..from + at + needle.len()].fill(b'_');
            from += at + needle.len();
        }
    };
    let metadata = &object["metadata"];
    cover(metadata["uid"].as_str().expect("a uid").as_bytes());
    let managed = metadata["managedFields"].as_array().into_iter().flatten().map(|of| &of["time"]);
    for time in managed.chain([&metadata["creationTimestamp"]]).filter_map(Value::as_str) {
        let seconds = process::output(std::process::Command::new("date").args(["+%s", "--date", time]));
        let mut seconds: u64 = seconds.expect("a time").trim().parse().expect("seconds");
        let mut varint = vec![0x08];
        while seconds >= 0x80 {
            varint.push(u8::try_from(seconds & 0x7f).expect("seven bits") | 0x80);
            seconds >>= 7;
        }
        varint.push(u8::try_from(seconds).expect("seven bits"));
        cover(&varint);
    }
    bytes
}

/// The policy of a ground.
fn policy(rules: &str) -> String {
    format!(
        "version: 1\nsubjects:\n  - name: payments-agent\n    issuer: https://token.example\n    \
         claims: {{ repository: acme/payments }}\nresources:\n  - name: cluster\n    kind: kubernetes\n    hosts: [{SERVER}]\n    \
         ports: [6443]\n    tls: {{ mode: verify-full, ca: @DIR@/cluster/ca.pem }}\n    \
         login: {{ token: {{ file: @DIR@/secrets/cluster }} }}\n    \
         impersonate: {{ user: \"gateway:{{subject}}\", groups: [\"gateway:jobs\"] }}\nrules:{rules}"
    )
}

/// A Secret with the marker in it, and its copies.
#[track_caller]
pub(crate) fn plant(ground: &Ground) {
    let secret = format!(
        r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"db","labels":{{"app":"web"}}}},"stringData":{{"password":"{MARKER}"}}}}"#
    );
    // With the annotation that holds a copy.
    ground.direct(&["apply", "-f", "-"], &secret);
    let copy = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "copy" },
        "data": { "secret.json": secret, "secret.yaml": format!("apiVersion: v1\nkind: Secret\nstringData:\n  password: {MARKER}\n") },
    });
    ground.direct(&["apply", "-f", "-"], &copy.to_string());
}

/// Nothing of the marker, in clear text or in Base64.
#[track_caller]
pub(crate) fn shows_nothing(what: &str, text: &str) {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    // From three starts: whatever stands before it shifts its letters.
    let inner = |shift: usize| {
        let padded = format!("{}{MARKER}", "x".repeat(shift));
        encode(&padded).chars().skip(4).take(24).collect::<String>()
    };
    for needle in [MARKER.to_owned(), inner(0), inner(1), inner(2)] {
        assert!(!text.contains(&needle), "{what} shows the marker as {needle}:\n{text}");
    }
}

/// What all recordings hold, as JSON.
#[track_caller]
pub(crate) fn recorded(ground: &Ground) -> String {
    let days = fs::read_dir(ground.world.agent.recordings()).into_iter().flatten().flatten();
    let files = days.flat_map(|day| fs::read_dir(day.path()).into_iter().flatten().flatten());
    let files =
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|name| name == "gwr"));
    let texts = files.map(|file| {
        let out = ground.world.agent.cli(&["replay", "--json", &file.display().to_string()]);
        out.map(|out| out.stdout).unwrap_or_default()
    });
    let all: String = texts.collect();
    assert!(!all.is_empty(), "there are no recordings");
    all
}
