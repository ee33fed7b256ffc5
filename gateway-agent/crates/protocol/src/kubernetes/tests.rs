//! Requests, as they are decided.

use policy::{Kubernetes, PatchKind, Risk};
use serde_json::{Value, json};

use super::{BODY_MAX, Head, Request, Unreadable};

fn head(method: &str, target: &str) -> Result<Request, Unreadable> {
    Request::read(&Head { method, target, content_type: None })
}

fn ask(method: &str, target: &str, content_type: &str, body: &str) -> Result<Kubernetes, Unreadable> {
    let request = Request::read(&Head { method, target, content_type: Some(content_type) })?;
    let json = request.as_json(body.as_bytes())?;
    request.with_body(json.as_deref().unwrap_or(body.as_bytes()))
}

fn read(method: &str, target: &str) -> Kubernetes {
    head(method, target).unwrap_or_else(|error| panic!("{method} {target}: {error}")).action
}

/// verb, group, version, resource, subresource, namespace, name.
fn parts(of: &Kubernetes) -> [String; 7] {
    let resource = of.resource().cloned().unwrap_or_default();
    [
        of.verb.clone(),
        resource.group,
        resource.version,
        resource.resource,
        resource.subresource.unwrap_or_default(),
        resource.namespace.unwrap_or_default(),
        resource.name.unwrap_or_default(),
    ]
}

#[test]
fn requests_are_read_as_the_server_reads_them() {
    for (method, target, wanted) in [
        ("GET", "/api/v1/namespaces", ["list", "", "v1", "namespaces", "", "", ""]),
        ("GET", "/api/v1/namespaces/other", ["get", "", "v1", "namespaces", "", "other", "other"]),
        ("GET", "/api/v1/namespaces/other/pods", ["list", "", "v1", "pods", "", "other", ""]),
        ("GET", "/api/v1/namespaces/other/pods/foo", ["get", "", "v1", "pods", "", "other", "foo"]),
        ("HEAD", "/api/v1/namespaces/other/pods/foo", ["get", "", "v1", "pods", "", "other", "foo"]),
        ("GET", "/api/v1/pods", ["list", "", "v1", "pods", "", "", ""]),
        ("HEAD", "/api/v1/pods", ["list", "", "v1", "pods", "", "", ""]),
        ("GET", "/api/v1/pods?watch=true", ["watch", "", "v1", "pods", "", "", ""]),
        ("GET", "/api/v1/pods?watch=", ["watch", "", "v1", "pods", "", "", ""]),
        ("GET", "/api/v1/pods?watch=false", ["list", "", "v1", "pods", "", "", ""]),
        ("GET", "/api/v1/namespaces/a/pods/foo?watch=true", ["get", "", "v1", "pods", "", "a", "foo"]),
        ("GET", "/api/v1/watch/pods", ["watch", "", "v1", "pods", "", "", ""]),
        ("GET", "/api/v1/watch/namespaces/a/pods", ["watch", "", "v1", "pods", "", "a", ""]),
        ("GET", "/api/v1/watch/namespaces/a/secrets/b", ["watch", "", "v1", "secrets", "", "a", "b"]),
        (
            "GET",
            "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dfoo",
            ["list", "", "v1", "pods", "", "a", "foo"],
        ),
        (
            "GET",
            "/api/v1/secrets?watch=1&fieldSelector=type%3Dx,metadata.name==foo",
            ["watch", "", "v1", "secrets", "", "", "foo"],
        ),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name!%3Dfoo", ["list", "", "v1", "pods", "", "", ""]),
        (
            "DELETE",
            "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dx",
            ["deletecollection", "", "v1", "pods", "", "a", "x"],
        ),
        ("POST", "/api/v1/namespaces/a/pods", ["create", "", "v1", "pods", "", "a", ""]),
        ("PUT", "/api/v1/namespaces/a/pods/x/status", ["update", "", "v1", "pods", "status", "a", "x"]),
        ("DELETE", "/api/v1/namespaces/a/pods/x", ["delete", "", "v1", "pods", "", "a", "x"]),
        ("DELETE", "/api/v1/namespaces/a/pods", ["deletecollection", "", "v1", "pods", "", "a", ""]),
        ("DELETE", "/api/v1/namespaces/a", ["delete", "", "v1", "namespaces", "", "a", "a"]),
        ("PUT", "/api/v1/namespaces/a/finalize", ["update", "", "v1", "namespaces", "finalize", "a", "a"]),
        ("GET", "/api/v1/namespaces/a/pods/x/log?follow=true", ["get", "", "v1", "pods", "log", "a", "x"]),
        (
            "GET",
            "/api/v1/namespaces/a/pods/x/exec?command=id",
            ["create", "", "v1", "pods", "exec", "a", "x"],
        ),
        (
            "POST",
            "/api/v1/namespaces/a/pods/x/exec?command=id",
            ["create", "", "v1", "pods", "exec", "a", "x"],
        ),
        ("GET", "/api/v1/namespaces/a/pods/x/attach", ["create", "", "v1", "pods", "attach", "a", "x"]),
        (
            "GET",
            "/api/v1/namespaces/a/pods/x/portforward?ports=80",
            ["create", "", "v1", "pods", "portforward", "a", "x"],
        ),
        ("GET", "/api/v1/nodes/n/proxy/pods", ["get", "", "v1", "nodes", "proxy", "", "n"]),
        (
            "GET",
            "/api/v1/namespaces/a/services/https:web:443/proxy/",
            ["get", "", "v1", "services", "proxy", "a", "https:web:443"],
        ),
        ("GET", "/api/v1/proxy/nodes/n/pods", ["proxy", "", "v1", "nodes", "pods", "", "n"]),
        (
            "POST",
            "/api/v1/namespaces/a/serviceaccounts/x/token",
            ["create", "", "v1", "serviceaccounts", "token", "a", "x"],
        ),
        ("GET", "/apis/apps/v1/deployments", ["list", "apps", "v1", "deployments", "", "", ""]),
        (
            "GET",
            "/apis/apps/v1/namespaces/a/deployments/d/scale",
            ["get", "apps", "v1", "deployments", "scale", "a", "d"],
        ),
        (
            "GET",
            "/apis/metrics.k8s.io/v1beta1/nodes",
            ["list", "metrics.k8s.io", "v1beta1", "nodes", "", "", ""],
        ),
    ] {
        let asked = match method {
            "PUT" | "POST" | "DELETE" => ask(method, target, "application/json", "{}").map(|of| parts(&of)),
            _ => head(method, target).map(|of| parts(&of.action)),
        };
        let asked = asked.or_else(|_| head(method, target).map(|of| parts(&of.action)));
        assert_eq!(asked.unwrap(), wanted.map(str::to_owned), "{method} {target}");
    }
    for path in [
        "/",
        "/api",
        "/apis",
        "/api/",
        "/api/v1",
        "/apis/apps",
        "/apis/apps/v1",
        "/version",
        "/healthz/etcd",
        "/openapi/v3",
    ] {
        assert!(read("GET", path).resource().is_none(), "{path}");
    }
    assert_eq!(read("POST", "/healthz").verb, "post");
}

#[test]
fn what_could_be_something_else_is_refused() {
    for (method, target) in [
        ("GET", "/API/v1/secrets"),
        ("GET", "/Apis/apps/v1/deployments"),
        ("GET", "/api/v1/Secrets"),
        ("GET", "/api/v1/namespaces/a/Secrets/x"),
        ("GET", "/api/v1/namespaces/A/secrets/x"),
        ("GET", "/api/V1/secrets"),
        ("GET", "/api/v1/namespaces/a/pods/x/Exec?command=id"),
        ("GET", "/api/v1/namespaces/a/pods/x/exec/y?command=id"),
        ("GET", "/api/v1/namespaces/a/pods/x/log/y"),
        ("GET", "/api/v1/namespaces/a/secrets/"),
        ("GET", "/api/v1/namespaces//secrets"),
        ("GET", "/api/v1/watch"),
        ("GET", "/api/v1/proxy"),
        ("POST", "/api/v1/watch/namespaces/a/pods"),
        ("DELETE", "/api/v1/namespaces/a/pods/x/exec?command=id"),
        ("GET", "/api/v1/namespaces/a/pods/x/exec"),
        ("GET", "/api/v1/namespaces/a/pods/x/exec?command="),
        ("GET", "/api/v1/namespaces/a/pods/x/exec?command=id&tty=perhaps"),
        ("GET", "/api/v1/namespaces/a/pods/x/exec?command=id&container=a&container=b"),
        ("GET", "/api/v1/namespaces/a/pods/x/portforward?ports=all"),
        ("GET", "/api/v1/secrets?watch=1&watch=0"),
        ("DELETE", "/api/v1/namespaces/a/pods?dryRun=All&dryRun="),
        ("CONNECT", "/api/v1/pods"),
        ("TRACE", "/api/v1/pods"),
        ("get", "/api/v1/pods"),
        ("GET", "/api/v1/namespaces/a/pods/x%20y"),
        ("GET", "/api/v1/namespaces/*/secrets"),
    ] {
        assert!(head(method, target).is_err(), "{method} {target}");
    }
}

#[test]
fn selectors_are_told_apart() {
    let of = read(
        "GET",
        "/api/v1/namespaces/a/pods?labelSelector=app%3D%3Dweb,tier%20in%20(a,b),!x&fieldSelector=status.phase%3DRunning",
    );
    let resource = of.resource().unwrap();
    assert_eq!(resource.labels, ["app=web", "tier in (a,b)", "!x"]);
    assert_eq!(resource.fields.as_deref(), Some("status.phase=Running"));
    assert_eq!(resource.name, None);
}

#[test]
fn what_runs_in_a_pod_is_read() {
    let exec = |query: &str| {
        let target = format!("/api/v1/namespaces/a/pods/x/exec?{query}");
        read("GET", &target).stream.unwrap()
    };
    let plain = exec("command=cat&command=%2Fetc%2Fhosts&container=web&stdin=true&tty=true");
    assert_eq!((plain.container.as_deref(), plain.stdin, plain.tty), (Some("web"), true, true));
    let run = plain.exec.unwrap();
    assert_eq!(run.text, "cat /etc/hosts");
    assert_eq!(run.invocations[0].arguments[0].value(), Some("/etc/hosts"));
    // A word is a word, whatever it holds; `sh -c` is seen through.
    let words = exec("command=echo&command=%24%28id%29%3B+rm+-rf+%2F").exec.unwrap();
    assert_eq!(words.invocations.len(), 1);
    assert_eq!(words.opaque, [""; 0]);
    let shell = exec("command=sh&command=-c&command=id%3B+rm+-rf+%2Fsrv").exec.unwrap();
    let programs: Vec<_> = shell.invocations.iter().map(|run| run.program.text.as_str()).collect();
    assert!(programs.contains(&"id") && programs.contains(&"rm"), "{programs:?}");
    assert!(!exec("command=sh").exec.unwrap().opaque.is_empty());
    let forward = read("GET", "/api/v1/namespaces/a/pods/x/portforward?ports=80,443&ports=22");
    assert_eq!(forward.stream.unwrap().ports, [80, 443, 22]);
}

fn risks(target: &str, body: &Value) -> Vec<Risk> {
    ask("POST", target, "application/json", &body.to_string()).unwrap().risks
}

const PODS: &str = "/api/v1/namespaces/a/pods";

#[test]
fn bodies_tell_what_they_ask_for() {
    let quiet = json!({ "metadata": { "name": "web" }, "spec": {
        "hostNetwork": false, "serviceAccountName": "default",
        "containers": [{ "name": "c", "image": "i", "ports": [{ "containerPort": 80 }],
            "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
                "seccompProfile": { "type": "RuntimeDefault" } } }],
        "volumes": [{ "name": "v", "emptyDir": {} }] } });
    assert_eq!(risks(PODS, &quiet), []);
    let named = ask("POST", PODS, "application/json", &quiet.to_string()).unwrap();
    assert_eq!(named.resource().unwrap().name.as_deref(), Some("web"));
    let container = |context: Value| json!({ "spec": { "containers": [{ "securityContext": context }] } });
    for (body, risk) in [
        (container(json!({ "privileged": true })), Risk::Privileged),
        (container(json!({ "Privileged": true })), Risk::Privileged),
        (container(json!({ "allowPrivilegeEscalation": true })), Risk::Privileged),
        (container(json!({ "procMount": "Unmasked" })), Risk::Privileged),
        (container(json!({ "capabilities": { "add": ["SYS_ADMIN"] } })), Risk::Capabilities),
        (container(json!({ "seccompProfile": { "type": "Unconfined" } })), Risk::Unconfined),
        (json!({ "spec": { "hostNetwork": true } }), Risk::HostNetwork),
        (json!({ "spec": { "containers": [{ "ports": [{ "hostPort": 80 }] }] } }), Risk::HostNetwork),
        (json!({ "spec": { "hostPID": true } }), Risk::HostPid),
        (json!({ "spec": { "hostIPC": true } }), Risk::HostIpc),
        (json!({ "spec": { "volumes": [{ "hostPath": { "path": "/" } }] } }), Risk::HostPath),
        (json!({ "spec": { "serviceAccountName": "admin" } }), Risk::ServiceAccount),
        (json!({ "spec": { "serviceAccount": "admin" } }), Risk::ServiceAccount),
        (json!({ "spec": { "nodeName": "n" } }), Risk::NodeName),
        (json!({ "spec": { "ephemeralContainers": [{}] } }), Risk::EphemeralContainer),
        (json!({ "spec": { "volumes": [{ "secret": { "secretName": "s" } }] } }), Risk::Secrets),
        (
            json!({ "spec": { "volumes": [{ "projected": { "sources": [{ "secret": { "name": "s" } }] } }] } }),
            Risk::Secrets,
        ),
        (
            json!({ "spec": { "containers": [{ "envFrom": [{ "secretRef": { "name": "s" } }] }] } }),
            Risk::Secrets,
        ),
        (json!({ "metadata": { "ownerReferences": [{ "uid": "u" }] } }), Risk::OwnerReferences),
        (
            json!({ "metadata": { "annotations": { "container.apparmor.security.beta.kubernetes.io/c": "unconfined" } } }),
            Risk::Unconfined,
        ),
    ] {
        assert_eq!(risks(PODS, &body), [risk], "{body}");
        // The same inside of templates, and of kinds that nobody knows.
        let template = json!({ "spec": { "template": body } });
        assert_eq!(risks("/apis/apps/v1/namespaces/a/deployments", &template), [risk], "{template}");
        let cron = json!({ "spec": { "jobTemplate": template } });
        assert_eq!(risks("/apis/batch/v1beta1/namespaces/a/cronjobs", &cron), [risk], "{cron}");
        assert_eq!(risks("/apis/example.org/v1/namespaces/a/things", &json!({ "x": [cron] })), [risk]);
    }
    let rbac = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let rule = |verb: &str| json!({ "rules": [{ "verbs": ["get", verb], "resources": ["pods"] }] });
    assert_eq!(risks(rbac, &rule("list")), []);
    for verb in ["bind", "escalate", "impersonate", "*"] {
        assert_eq!(risks(rbac, &rule(verb)), [Risk::Escalation], "{verb}");
    }
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/a/rolebindings";
    assert_eq!(risks(bindings, &json!({})), [Risk::Escalation]);
    let hooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    assert_eq!(risks(hooks, &json!({})), [Risk::ApiExtension]);
    let schema = json!({ "spec": { "versions": [{ "schema": { "properties": { "hostPath": { "type": "object" } } } }] } });
    assert_eq!(risks("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &schema), []);
    assert_eq!(risks("/api/v1/namespaces/a/configmaps", &json!({ "data": { "hostNetwork": "true" } })), []);
    let token = json!({ "type": "kubernetes.io/service-account-token" });
    assert_eq!(risks("/api/v1/namespaces/a/secrets", &token), [Risk::ServiceAccount]);
}

#[test]
fn patches_of_every_kind_are_read() {
    let pod = "/api/v1/namespaces/a/pods/x";
    let patch = |kind: &str, body: &str| ask("PATCH", pod, kind, body);
    let host = r#"{"spec":{"hostNetwork":true}}"#;
    for (kind, wanted) in [
        ("application/merge-patch+json", PatchKind::Merge),
        ("application/strategic-merge-patch+json; charset=utf-8", PatchKind::Strategic),
        ("application/apply-patch+yaml", PatchKind::Apply),
    ] {
        let of = patch(kind, host).unwrap();
        assert_eq!((of.patch, of.risks), (Some(wanted), vec![Risk::HostNetwork]), "{kind}");
    }
    let json = "application/json-patch+json";
    for body in [
        r#"[{"op":"add","path":"/spec/hostNetwork","value":true}]"#,
        r#"[{"op":"replace","path":"/spec","value":{"hostNetwork":true}}]"#,
        r#"[{"op":"add","path":"","value":{"spec":{"hostNetwork":true}}}]"#,
        r#"[{"op":"add","path":"/spec/containers/-","value":{"ports":[{"hostPort":1}]}}]"#,
        r#"[{"op":"add","path":"/spec/containers/0/ports/0/hostPort","value":1}]"#,
    ] {
        let of = patch(json, body).unwrap();
        assert_eq!((of.patch, of.reads_stored), (Some(PatchKind::Json), false), "{body}");
        assert_eq!(of.risks, [Risk::HostNetwork], "{body}");
    }
    let copy = patch(json, r#"[{"op":"copy","from":"/data/a","path":"/metadata/annotations/a"}]"#).unwrap();
    assert!(copy.reads_stored && copy.risks == [Risk::Unseen]);
    let test = patch(json, r#"[{"op":"test","path":"/data/a","value":"x"}]"#).unwrap();
    assert!(test.reads_stored && test.risks.is_empty());
    for (kind, body) in [
        (json, r#"{"op":"add"}"#),
        (json, r#"[{"op":"Add","path":"/a","value":1}]"#),
        (json, r#"[{"op":"add","path":"a","value":1}]"#),
        (json, r#"[{"op":"add","value":1}]"#),
        ("application/merge-patch+json", "[]"),
        ("application/apply-patch+yaml", "spec:\n  hostNetwork: true\n"),
        ("application/apply-patch+yaml", r#"{"spec":{"hostNetwork":true},"spec":{}}"#),
        ("application/apply-patch+cbor", "{}"),
        ("application/json", "{}"),
        ("", "{}"),
    ] {
        assert!(patch(kind, body).is_err(), "{kind} {body}");
    }
}

#[test]
fn a_dry_run_is_one_where_the_server_looks() {
    let pod = "/api/v1/namespaces/a/pods/x?dryRun=All";
    let delete = |target: &str, body: &str| ask("DELETE", target, "application/json", body);
    assert!(delete(pod, "").unwrap().dry_run);
    // With a body the server ignores the query.
    assert!(delete(pod, "{}").is_err());
    assert!(delete(pod, r#"{"dryRun":["All"]}"#).unwrap().dry_run);
    let plain = "/api/v1/namespaces/a/pods/x";
    assert!(delete(plain, r#"{"dryRun":["All"]}"#).unwrap().dry_run);
    assert!(!delete(plain, r#"{"dryRun":["all"]}"#).unwrap().dry_run);
    assert!(!delete(plain, r#"{"dryRun":[]}"#).unwrap().dry_run);
    assert!(!read("DELETE", "/api/v1/namespaces/a/pods/x?dryRun=all").dry_run);
    let orphan = delete(plain, r#"{"propagationPolicy":"Orphan"}"#).unwrap();
    assert_eq!(orphan.propagation.as_deref(), Some("Orphan"));
    assert!(ask("DELETE", plain, "application/vnd.kubernetes.protobuf", "k8s\0x").is_err());
    assert!(ask("PATCH", &format!("{plain}?force=true"), "application/merge-patch+json", "{}").is_err());
}

#[test]
fn bodies_that_are_not_read_are_refused() {
    for (content_type, body) in [
        ("application/vnd.kubernetes.protobuf", "k8s\0\n\x08"),
        ("application/yaml", "kind: Pod"),
        ("application/cbor", "\u{1}"),
        ("text/plain", "{}"),
        ("application/json", "kind: Pod"),
        ("application/json", "[]"),
        ("application/json", ""),
        ("application/json", r#"{"spec":{"hostNetwork":false,"hostNetwork":true}}"#),
        ("application/json", r#"{"spec":{}}{"spec":{}}"#),
    ] {
        assert!(ask("POST", PODS, content_type, body).is_err(), "{content_type} {body:?}");
    }
    assert!(ask("GET", PODS, "application/json", "{}").is_err(), "a body of a GET");
    const { assert!(BODY_MAX >= 3 << 20) };
}

#[test]
fn masks_are_not_written_back() {
    let secret = "/api/v1/namespaces/a/secrets";
    let body = json!({ "metadata": { "name": "s" }, "data": { "password": super::marker::SECRET_BASE64 } })
        .to_string();
    assert!(ask("POST", secret, "application/json", &body).unwrap_err().what.contains("masked"));
    assert!(ask("PUT", &format!("{secret}/s"), "application/json", &body).is_err());
    for kind in [
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ] {
        assert!(ask("PATCH", &format!("{secret}/s"), kind, &body).is_err(), "{kind}");
    }
    let patch = json!([{ "op": "replace", "path": "/data/password", "value": super::marker::SECRET_BASE64 }]);
    assert!(ask("PATCH", &format!("{secret}/s"), "application/json-patch+json", &patch.to_string()).is_err());
}
