//! `cargo xtask bench kubernetes`: a real API server with many pods, listed through the gateway, which masks the answer, and directly.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    World,
    kubernetes::{Cluster, Kubectl},
};

use super::{
    Arguments,
    contender::{beside, inside},
    lane::Lane,
    report::{self, Measured, Series},
    usage,
};

const SERVER: &str = "198.51.100.10";
const NODE: &str = "198.51.100.20";
const PODS: usize = 5_000;
/// Where no pod should have one: a key of AWS in the environment of one of ten.
const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

const POLICY: &str = r#"version: 1
subjects:
  - { name: payments-agent, issuer: https://token.example, claims: { repository: acme/payments } }
resources:
  - { name: cluster, kind: kubernetes, hosts: [198.51.100.10], ports: [6443], tls: { mode: verify-full, ca: @DIR@/cluster/ca.pem }, login: { token: { file: @DIR@/secrets/cluster } } }
rules:
  - id: look
    effect: allow
    subjects: [payments-agent]
    resources: [cluster]
    kubernetes: { requests: [{ verbs: [get, list], resources: [pods], namespaces: ["*"], cluster: true }] }
    record: statements
"#;

/// What is asked for, and in what form.
const CASES: &[(&str, &str, &str)] = &[
    ("list of 5,000 pods, JSON", "application/json", "/api/v1/pods"),
    (
        "list of 5,000 pods, table",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        "/api/v1/pods",
    ),
    ("one pod", "application/json", "/api/v1/namespaces/shop/pods/web-00000"),
];

struct Way {
    name: &'static str,
    /// Words of curl that log in.
    login: String,
    pid: Option<u32>,
    lane: Lane,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    eprintln!("starting etcd, the API server and the gateway");
    let mut builder = World::builder();
    if let Some(agent) = &arguments.agent {
        builder = builder.program(agent);
    }
    let mut world = builder.without_agent().configure("/sessions/workers", 1).start()?;
    let cluster =
        Cluster::start(&world.folder().join("cluster"), &world.far, SERVER, NODE, &world.authority)?;
    eprintln!("making {PODS} pods");
    plant(&world, &cluster)?;
    let secret = world.folder().join("secrets/cluster");
    fs::write(&secret, cluster.token())?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    world.write_policy(POLICY)?;
    world.agent.start()?;
    let mut ways = [
        Way {
            name: "direct",
            login: format!("-H 'Authorization: Bearer {}'", cluster.token()),
            pid: None,
            lane: beside(&world)?,
        },
        Way { name: "gateway", login: String::new(), pid: world.agent.pid(), lane: inside(&world)? },
    ];
    let rounds = if arguments.quick { 1 } else { arguments.rounds };
    let mut all = Vec::new();
    report::heading("kube-apiserver");
    for (name, accept, path) in CASES {
        if !super::wants(arguments.only.as_deref(), "kube-apiserver", name) {
            continue;
        }
        let mut series: Vec<(String, Series)> =
            ways.iter().map(|way| (way.name.to_owned(), Series::default())).collect();
        // The first round makes connections and fills caches.
        for round in 0..=rounds {
            for (way, (_, series)) in ways.iter_mut().zip(&mut series) {
                let before = way.pid.map_or(Ok(0.0), usage::cpu)?;
                let said = way.lane.run(&format!(
                    "curl -sSk --fail -o /dev/null -w %{{time_total}} -H 'Accept: {accept}' {} {}{path}",
                    way.login,
                    cluster.url()
                ))?;
                let took: f64 = said.trim().parse().with_context(|| format!("reading {said:?}"))?;
                if round > 0 {
                    series.values.push(1.0 / took);
                    series.cpu += way.pid.map_or(Ok(0.0), usage::cpu)? - before;
                    series.operations += 1.0;
                }
            }
        }
        let measured =
            Measured { section: "kube-apiserver".to_owned(), case: (*name).to_owned(), contenders: series };
        measured.print();
        all.push(measured);
    }
    hidden(&mut ways, &cluster)?;
    let target =
        std::env::var_os("GATEWAY_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    report::write(&target.join("bench/kubernetes.json"), &all, &[])
}

/// What was measured was masked.
fn hidden(ways: &mut [Way; 2], cluster: &Cluster) -> Result<()> {
    for way in ways {
        let words = format!("curl -sSk --fail {} {}/api/v1/pods", way.login, cluster.url());
        let count = way.lane.run(&format!("{words} | grep -c AKIA || true"))?;
        let (found, direct) = (count.trim() != "0", way.name == "direct");
        ensure!(found == direct, "{}: {count} lines with a key", way.name);
    }
    Ok(())
}

/// Makes the pods, several at once.
fn plant(world: &World, cluster: &Cluster) -> Result<()> {
    let folder = world.folder().join("bench");
    fs::create_dir_all(&folder)?;
    // As many as one curl has room for.
    for (chunk, numbers) in (0..PODS).collect::<Vec<_>>().chunks(200).enumerate() {
        let mut transfers = Vec::new();
        for number in numbers {
            let file = folder.join(format!("{number}.json"));
            fs::write(&file, pod(*number).to_string())?;
            transfers.push(format!(
                "url = \"{}/api/v1/namespaces/shop/pods\"\ndata-binary = \"@{}\"\nheader = \"Content-Type: application/json\"\n\
                 header = \"Authorization: Bearer {}\"\noutput = /dev/null\nfail\ninsecure\n",
                cluster.url(),
                file.display(),
                cluster.token()
            ));
        }
        let path = folder.join(format!("curl-{chunk}"));
        fs::write(&path, transfers.join("next\n"))?;
        let mut curl = world.far.command("curl");
        tests::process::must(curl.args(["-sS", "--parallel", "--parallel-max", "16", "--config"]).arg(path))?;
    }
    let count =
        cluster.direct(Kubectl::New, &["get", "--raw", "/api/v1/namespaces/shop/pods?limit=1"], "")?;
    let list: Value = serde_json::from_str(&count.stdout).context("a list")?;
    let rest = list.pointer("/metadata/remainingItemCount").and_then(Value::as_u64);
    ensure!(rest == Some(PODS as u64 - 1), "not every pod was made: {rest:?} beside the first");
    Ok(())
}

fn pod(number: usize) -> Value {
    let value = if number.is_multiple_of(10) { KEY } else { "info" };
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("web-{number:05}"), "generateName": "web-",
            "labels": { "app": "web", "pod-template-hash": format!("{:04}", number / 10) },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "1", "controller": true }],
        },
        "spec": {
            "containers": [{
                "name": "web", "image": "registry.example/shop/web:1.2.3",
                "env": [{ "name": "DB", "value": value }, { "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "db", "key": "password" } } }],
                "resources": { "limits": { "cpu": "1", "memory": "512Mi" }, "requests": { "cpu": "100m", "memory": "128Mi" } },
                "volumeMounts": [{ "name": "token", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }],
            }],
            "volumes": [{ "name": "token", "secret": { "secretName": "web-token" } }],
            "nodeName": "node", "serviceAccountName": "default", "automountServiceAccountToken": false,
        },
    })
}
