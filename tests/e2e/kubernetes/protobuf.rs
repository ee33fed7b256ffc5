//! Objects in protobuf: read as their equals in JSON, decided as they are, and stored as they are directly.

use std::{fs, path::PathBuf};

use protocol::kubernetes::{Head, Request};
use serde_json::Value;
use tests::kubernetes::{Kubectl, types};

use crate::support::{Ground, shows_nothing, stored};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What is asked by API servers and not of them; answers, and what stands in queries.
const NO_BODIES: &[&str] = &[
    "admission.k8s.io",
    "imagepolicy.k8s.io",
    "core.v1.APIGroup.",
    "core.v1.APIVersions.",
    "core.v1.CreateOptions.",
    "core.v1.GetOptions.",
    "core.v1.ListOptions.",
    "core.v1.PatchOptions.",
    "core.v1.Status.",
    "core.v1.UpdateOptions.",
    "core.v1.WatchEvent.",
];

/// The examples that come with Kubernetes' types: the same object as JSON and as protobuf.
fn examples() -> Vec<(PathBuf, PathBuf)> {
    let folders = types().expect("Kubernetes' types").into_iter();
    let files = folders.flat_map(|folder| fs::read_dir(folder.join("api/testdata/HEAD")).expect("examples"));
    let of = |path: PathBuf| (path.extension()? == "pb").then(|| (path.with_extension("json"), path));
    files.filter_map(|file| of(file.expect("an example").path())).collect()
}

fn read(content_type: &str, body: &[u8]) -> Result<(Value, policy::Kubernetes), String> {
    let target = "/apis/apps/v1/namespaces/shop/deployments";
    let head = Head { method: "POST", target, content_type: Some(content_type) };
    let request = Request::read(&head).map_err(|error| error.to_string())?;
    let json = request.as_json(body).map_err(|error| error.to_string())?;
    let body = json.as_deref().unwrap_or(body);
    let value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok((value, request.with_body(body).map_err(|error| error.to_string())?))
}

#[test]
fn every_kind_reads_as_its_equal_in_json() {
    let mut alike = 0;
    let mut wrong = Vec::new();
    for (json, protobuf) in examples() {
        let name = protobuf.file_name().expect("a name").to_string_lossy().into_owned();
        if NO_BODIES.iter().any(|other| name.starts_with(other)) {
            continue;
        }
        let json = fs::read(json).expect("an example in JSON");
        let body = fs::read(&protobuf).expect("an example in protobuf");
        match (read("application/json", &json), read(PROTOBUF, &body)) {
            (Ok(wanted), Ok(found)) if wanted == found => alike += 1,
            (wanted, found) => wrong.push(format!("{name}: {wanted:?}\n    {found:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Both releases have more than a hundred and fifty kinds.
    assert!(alike > 300, "{alike}");
}

#[test]
fn what_kubectl_makes_is_stored_as_it_is_directly() {
    let ground = Ground::with(
        r#"
  - id: spaces
    effect: allow
    subjects: [payments-agent]
    resources: [cluster]
    kubernetes:
      requests:
        - { verbs: [create, delete], groups: ["", scheduling.k8s.io], resources: [namespaces, priorityclasses], cluster: true }
        - { verbs: [create], groups: [rbac.authorization.k8s.io], resources: [roles], namespaces: [shop] }
"#,
    );
    let namespaced = |group: &str, resource: &str| {
        let registry = resource.rsplit('/').next().unwrap_or(resource);
        (format!("/registry/{registry}/shop/x"), format!("{group}/namespaces/shop/{resource}/x"))
    };
    let (core, apps, batch) = ("/api/v1", "/apis/apps/v1", "/apis/batch/v1");
    for (words, (key, path)) in [
        (
            &["configmap", "x", "--from-literal=a=b", "--from-file=hosts=/etc/hostname"][..],
            namespaced(core, "configmaps"),
        ),
        (&["secret", "generic", "x", "--from-literal=password=p"], namespaced(core, "secrets")),
        (&["namespace", "x"], ("/registry/namespaces/x".to_owned(), "/api/v1/namespaces/x".to_owned())),
        (
            &["deployment", "x", "--image=i:1", "--replicas=3", "--port=80", "--", "sleep", "1"],
            namespaced(apps, "deployments"),
        ),
        (&["job", "x", "--image=i", "--", "true"], namespaced(batch, "jobs")),
        (&["serviceaccount", "x"], namespaced(core, "serviceaccounts")),
        (&["quota", "x", "--hard=cpu=1,memory=2Gi,pods=2"], namespaced(core, "resourcequotas")),
        (
            &["role", "x", "--verb=get", "--resource=pods"],
            namespaced("/apis/rbac.authorization.k8s.io/v1", "roles"),
        ),
        (
            &["ingress", "x", "--rule=web.example/path*=web:http"],
            (
                "/registry/ingress/shop/x".to_owned(),
                "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/x".to_owned(),
            ),
        ),
        (
            &["service", "clusterip", "x", "--clusterip=None", "--tcp=80:8080"],
            ("/registry/services/specs/shop/x".to_owned(), "/api/v1/namespaces/shop/services/x".to_owned()),
        ),
        (
            &["priorityclass", "x", "--value=5"],
            (
                "/registry/priorityclasses/x".to_owned(),
                "/apis/scheduling.k8s.io/v1/priorityclasses/x".to_owned(),
            ),
        ),
    ] {
        let words: Vec<&str> = ["create"].into_iter().chain(words.iter().copied()).collect();
        let made = ground.kubectl(Kubectl::New, &words).run().ok();
        assert!(made.stdout.contains("created"), "{words:?}: {made}");
        let through = stored(&ground, &key, &path);
        ground
            .cluster
            .raw("DELETE", &format!("{path}?propagationPolicy=Background"), None)
            .expect("a deletion");
        if words[1] == "namespace" {
            // Nobody else finishes what its deletion begins here.
            let body =
                r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"x"},"spec":{"finalizers":[]}}"#;
            let end = format!("{path}/finalize");
            ground.cluster.raw("PUT", &end, Some(("application/json", body))).expect("its end");
        }
        ground.direct(&words, "");
        let directly = stored(&ground, &key, &path);
        assert!(
            through == directly,
            "{words:?}:\n{}\n{}",
            String::from_utf8_lossy(&through),
            String::from_utf8_lossy(&directly)
        );
    }
}

#[test]
fn what_is_forbidden_in_json_is_forbidden_in_protobuf() {
    let ground = Ground::new();
    let of = |name: &str| examples().into_iter().map(|(_, path)| path).find(|path| path.ends_with(name));
    // Examples have every member set: these ask for the node's network, its files and its processes.
    for (name, path) in [
        ("core.v1.Pod.pb", "/api/v1/namespaces/shop/pods"),
        ("core.v1.PodTemplate.pb", "/api/v1/namespaces/shop/podtemplates"),
        ("apps.v1.Deployment.pb", "/apis/apps/v1/namespaces/shop/deployments"),
        ("batch.v1beta1.CronJob.pb", "/apis/batch/v1beta1/namespaces/shop/cronjobs"),
    ] {
        let body = fs::read(of(name).expect(name)).expect("an example");
        let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, body);
        let post = format!("curl --silent --header 'Content-Type: {PROTOBUF}' --data-binary @- \"$S{path}\"");
        let refused = ground.script(&format!("base64 -d | {post}")).stdin(text).run().ok();
        assert!(refused.stdout.contains("no-hosts"), "{name}: {refused}");
    }
    // A mask that comes back, and a Secret that is answered with one.
    let create = |name: &str, value: &str| {
        let value = format!("--from-literal=password={value}");
        ground.kubectl(Kubectl::New, &["create", "secret", "generic", name, &value, "-o", "json"]).run()
    };
    let masked = create("one", "[redacted:secret]").failed();
    assert!(masked.stderr.contains("masked"), "{masked}");
    let made = create("two", crate::support::MARKER).ok();
    assert!(made.stdout.contains("W3JlZGFjdGVkOnNlY3JldF0="), "{made}");
    shows_nothing("the answer to a Secret in protobuf", &made.stdout);
    // The rights of an account are not asked for by wildcard, in whatever format.
    let token = ground.kubectl(Kubectl::New, &["create", "token", "default"]).run().failed();
    assert!(token.stderr.contains("builtin:default-deny"), "{token}");
    // What is not understood says so, and what to do.
    let strange = ground
        .script(&format!(
            "printf 'k8s\\000\\012\\011\\012\\002v1\\022\\003Pod\\022\\002\\170\\001' | curl --silent --header 'Content-Type: {PROTOBUF}' \
             --data-binary @- \"$S/api/v1/namespaces/shop/pods\""
        ))
        .run()
        .ok();
    assert!(
        strange.stdout.contains("core.v1.Pod has field 15") && strange.stdout.contains("as JSON"),
        "{strange}"
    );
}
