//! helm, with a chart of our own: what it does through the gateway is what it does directly.

use std::{fs, path::PathBuf};

use serde_json::Value;
use tests::{kubernetes::Kubectl, process::Output};

use crate::support::{Ground, MARKER, shows_nothing, stored};

/// helm may read the Secrets that it keeps its own state in, and no others.
const RULE: &str = r#"
  - id: helm
    effect: allow
    subjects: [payments-agent]
    resources: [cluster]
    kubernetes:
      requests:
        - { verbs: [get, list, create, update, delete], resources: [secrets], namespaces: [shop] }
      show_secrets: ["sh.helm.release.v1.*"]
"#;

const TEMPLATES: &[(&str, &str)] = &[
    (
        "config.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: '{{ .Release.Name }}' }\ndata: { colour: '{{ .Values.colour }}' }\n",
    ),
    (
        "secret.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: { name: '{{ .Release.Name }}' }\nstringData: { password: '{{ .Values.password }}' }\n",
    ),
    ("account.yaml", "apiVersion: v1\nkind: ServiceAccount\nmetadata: { name: '{{ .Release.Name }}' }\n"),
    (
        "service.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: { name: '{{ .Release.Name }}' }\nspec:\n  clusterIP: None\n  selector: { app: web }\n  ports: [{ port: 80, targetPort: http }]\n",
    ),
    (
        "deployment.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: '{{ .Release.Name }}' }\nspec:\n  replicas: {{ .Values.replicas }}\n  \
         selector: { matchLabels: { app: web } }\n  template:\n    metadata: { labels: { app: web } }\n    spec:\n      containers:\n        - name: web\n          \
         image: 'web:{{ .Chart.AppVersion }}'\n          ports: [{ name: http, containerPort: 8080 }]\n          \
         env: [{ name: PASSWORD, valueFrom: { secretKeyRef: { name: '{{ .Release.Name }}', key: password } } }]\n",
    ),
    (
        "hook.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: '{{ .Release.Name }}-hook'\n  annotations:\n    helm.sh/hook: pre-install,pre-upgrade\n    \
         helm.sh/hook-delete-policy: before-hook-creation\ndata: { revision: '{{ .Release.Revision }}' }\n",
    ),
];
/// Kinds of the chart, as they are in paths and in etcd.
const OBJECTS: &[(&str, &str)] = &[
    ("/api/v1/namespaces/shop/configmaps/web", "/registry/configmaps/shop/web"),
    ("/api/v1/namespaces/shop/configmaps/web-hook", "/registry/configmaps/shop/web-hook"),
    ("/api/v1/namespaces/shop/secrets/web", "/registry/secrets/shop/web"),
    ("/api/v1/namespaces/shop/serviceaccounts/web", "/registry/serviceaccounts/shop/web"),
    ("/api/v1/namespaces/shop/services/web", "/registry/services/specs/shop/web"),
    ("/apis/apps/v1/namespaces/shop/deployments/web", "/registry/deployments/shop/web"),
];

fn chart(ground: &Ground) -> PathBuf {
    let folder = ground.world.folder().join("chart");
    fs::create_dir_all(folder.join("templates")).expect("a folder");
    fs::write(
        folder.join("Chart.yaml"),
        "apiVersion: v2\nname: shop\nversion: 1.0.0\nappVersion: '7'\ndescription: A shop\n",
    )
    .expect("a chart");
    fs::write(folder.join("values.yaml"), format!("colour: red\nreplicas: 1\npassword: {MARKER}\n"))
        .expect("values");
    for (name, text) in TEMPLATES {
        fs::write(folder.join("templates").join(name), text).expect("a template");
    }
    folder
}

/// helm in a job.
#[track_caller]
fn helm(ground: &Ground, words: &[&str]) -> Output {
    let program = ground.world.folder().join("venv/bin/helm").display().to_string();
    let all: Vec<&str> =
        [program.as_str(), "--namespace=shop"].into_iter().chain(words.iter().copied()).collect();
    let job = ground.world.job(&all).limit(std::time::Duration::from_secs(120));
    ["CACHE", "CONFIG", "DATA"]
        .iter()
        .fold(job, |job, part| job.env(&format!("HELM_{part}_HOME"), "/tmp/helm"))
        .run()
}

/// helm past the gateway.
#[track_caller]
fn directly(ground: &Ground, words: &[&str]) -> Output {
    let program = ground.world.folder().join("venv/bin/helm");
    match ground.cluster.helm(&program, words) {
        Ok(out) => out,
        Err(error) => panic!("{error:#}"),
    }
}

/// The objects of the release, as the server tells them and byte by byte as etcd has them, but for uids, versions and times.
#[track_caller]
fn objects(ground: &Ground) -> Vec<(Value, Vec<u8>)> {
    OBJECTS.iter().map(|(path, key)| (ground.object(path), stored(ground, key, path))).collect()
}

#[test]
fn a_release_lives_as_it_does_directly() {
    let ground = Ground::with(RULE);
    let chart = chart(&ground).display().to_string();
    let steps: &[&[&str]] = &[
        &["install", "web", &chart],
        &["upgrade", "web", &chart, "--set", "colour=blue,replicas=3"],
        &["upgrade", "--install", "web", &chart, "--set", "password=another", "--reuse-values"],
        &["rollback", "web", "1"],
    ];
    let mut through = Vec::new();
    for step in steps {
        let out = helm(&ground, step).ok();
        assert!(!out.stderr.contains("gateway"), "{step:?}: {out}");
        through.push(objects(&ground));
    }
    let listed = helm(&ground, &["list", "-o", "json"]).ok();
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!((&listed[0]["name"], &listed[0]["revision"]), (&"web".into(), &"4".into()), "{listed}");
    assert_eq!(listed[0]["status"], "deployed", "{listed}");
    assert!(helm(&ground, &["status", "web"]).ok().stdout.contains("REVISION: 4"));
    assert!(helm(&ground, &["history", "web"]).ok().stdout.contains("Rollback to 1"));
    assert!(helm(&ground, &["get", "values", "web", "--revision=2"]).ok().stdout.contains("colour: blue"));
    assert!(helm(&ground, &["get", "manifest", "web"]).ok().stdout.contains("kind: Deployment"));
    let tried = helm(&ground, &["upgrade", "web", &chart, "--dry-run=server", "--set", "colour=green"]).ok();
    assert!(tried.stdout.contains("colour: 'green'") || tried.stdout.contains("colour: green"), "{tried}");
    let validated = helm(&ground, &["template", "other", &chart, "--validate"]).ok();
    assert!(validated.stdout.contains("kind: Service"), "{validated}");
    // What it reads of the release is its own; the Secret that the chart made stays hidden.
    let secret = ground.kubectl(Kubectl::New, &["get", "secrets", "-o", "json"]).run().ok();
    let seen: Value = serde_json::from_str(&secret.stdout).expect("JSON");
    let of =
        |name: &str| seen["items"].as_array().into_iter().flatten().find(|of| of["metadata"]["name"] == name);
    assert_eq!(of("web").expect("the chart's")["data"]["password"], "W3JlZGFjdGVkOnNlY3JldF0=");
    assert_ne!(
        of("sh.helm.release.v1.web.v1").expect("helm's")["data"]["release"],
        "W3JlZGFjdGVkOnNlY3JldF0="
    );
    // Nor does a label make it helm's.
    let _ = ground.kubectl(Kubectl::New, &["label", "secret", "web", "owner=helm"]).run().ok();
    let found = ground
        .kubectl(
            Kubectl::New,
            &["get", "secrets", "-l", "owner=helm", "-o", "yaml", "--field-selector=metadata.name=web"],
        )
        .run();
    shows_nothing("a Secret with helm's label", &found.stdout);
    let _ = helm(&ground, &["uninstall", "web"]).ok();
    let left = ground.direct(&["get", "configmap,secret,deployment,service", "-o", "name"], "").stdout;
    assert!(!left.contains("/web\n") && !left.contains("helm"), "{left}");
    let _ = ground.direct(&["delete", "configmap", "web-hook"], "");

    for (step, through) in steps.iter().zip(through) {
        directly(&ground, step);
        for ((told, bytes), (told_directly, directly)) in through.into_iter().zip(objects(&ground)) {
            assert_eq!(told, told_directly, "{step:?}");
            assert!(bytes == directly, "{step:?}: {told}: {}", String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn without_a_rule_helm_does_not_see_its_state() {
    let ground = Ground::new();
    let chart = chart(&ground).display().to_string();
    let _ = helm(&ground, &["install", "web", &chart]).ok();
    let listed = helm(&ground, &["list", "-o", "json"]).ok();
    assert_eq!(listed.stdout.trim(), "[]", "{listed}");
    let upgraded = helm(&ground, &["upgrade", "web", &chart]).failed();
    assert!(upgraded.stderr.contains("no revision for release"), "{upgraded}");
    shows_nothing("helm", &format!("{listed}{upgraded}"));
    // And what is there stays.
    assert_eq!(ground.object("/apis/apps/v1/namespaces/shop/deployments/web")["spec"]["replicas"], 1);
}
