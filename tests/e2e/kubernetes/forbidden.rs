//! Ways to do what is forbidden. The API server hears of none of them.

use std::fmt::Write as _;

use crate::support::{Ground, plant};

/// Method, path, more words for curl.
fn attempts() -> Vec<(&'static str, String, String)> {
    let mut all = Vec::new();
    let mut add =
        |method: &'static str, path: &str, more: &str| all.push((method, path.to_owned(), more.to_owned()));
    let json = |kind: &str, body: &str| format!("--header 'Content-Type: {kind}' --data-binary '{body}'");
    // Subresources and proxies that wildcards do not reach, by every method.
    for path in [
        "/api/v1/namespaces/shop/serviceaccounts/default/token",
        "/api/v1/namespaces/shop/pods/web/ephemeralcontainers",
        "/api/v1/namespaces/shop/pods/web/binding",
        "/api/v1/namespaces/shop/bindings",
        "/api/v1/namespaces/shop/finalize",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "/apis/certificates.k8s.io/v1/certificatesigningrequests/x/approval",
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        "/apis/apiregistration.k8s.io/v1/apiservices",
    ] {
        add("POST", path, &json("application/json", "{}"));
        add("PUT", path, &json("application/json", "{}"));
    }
    for path in [
        "/api/v1/nodes/node/proxy/pods",
        "/api/v1/nodes/node/proxy/",
        "/api/v1/namespaces/shop/pods/web/proxy/",
        "/api/v1/namespaces/shop/services/https:web:443/proxy/x",
        "/api/v1/proxy/nodes/node/pods",
        "/api/v1/proxy/namespaces/shop/pods/web",
    ] {
        add("GET", path, "");
        add("POST", path, "");
    }
    // Other namespaces, and paths that two readers read differently.
    for path in [
        "/api/v1/namespaces/bank/secrets/db",
        "/api/v1/namespaces/shop%2F..%2Fbank/secrets/db",
        "/api/v1/namespaces/shop/../bank/secrets/db",
        "/api/v1/namespaces/shop/%2e%2e/bank/secrets/db",
        "/api/v1/namespaces/shop/./secrets/db",
        "/api/v1//namespaces/bank/secrets",
        "//api/v1/namespaces/bank/secrets",
        "/api/v1/namespaces/shop/secrets%2Fdb",
        "/api/v1/namespaces/shop/secrets/db%00",
        "/api/v1/namespaces/shop/secrets;x/db",
        "/api/v1/namespaces/shop/secrets/db%3bx",
        "/api/v1/namespaces/shop/secrets/db%5c",
        "/api/v1/namespaces/shop/secrets/db%252e",
        "/API/v1/namespaces/bank/secrets",
        "/api/v1/namespaces/shop/Secrets/db",
        "/api/v1/namespaces/shop/secrets/",
        "/api/v1/namespaces/shop/secrets?watch=0&watch=1",
        "/api/v1/namespaces/shop/secrets?watch=perhaps",
        "/logs/",
        "/logs/kube-apiserver.log",
        "/debug/pprof/heap",
        "/metrics/cadvisor",
    ] {
        add("GET", path, "");
    }
    // Whom to act as.
    for field in [
        "Impersonate-User: admin",
        "Impersonate-Group: system:masters",
        "Impersonate-Uid: 1",
        "Impersonate-Extra-x: y",
    ] {
        add("GET", "/api/v1/namespaces/shop/pods", &format!("--header '{field}'"));
    }
    // Privilege, in every kind of body.
    let pods = "/api/v1/namespaces/shop/pods";
    let deployment = "/apis/apps/v1/namespaces/shop/deployments/web";
    for spec in [
        r#""hostNetwork":true"#,
        r#""hostPID":true"#,
        r#""hostIPC":true"#,
        r#""HostPID":true"#,
        r#""volumes":[{"name":"v","hostPath":{"path":"/"}}]"#,
        r#""containers":[{"name":"c","image":"i","securityContext":{"privileged":true}}]"#,
        r#""initContainers":[{"name":"c","image":"i","securityContext":{"privileged":true}}]"#,
    ] {
        let pod =
            format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"x"}},"spec":{{{spec}}}}}"#);
        add("POST", pods, &json("application/json", &pod));
        let patch = format!(r#"{{"spec":{{"template":{{"spec":{{{spec}}}}}}}}}"#);
        for kind in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
            add("PATCH", deployment, &json(kind, &patch));
        }
        add("PATCH", &format!("{deployment}?fieldManager=x"), &json("application/apply-patch+yaml", &patch));
    }
    let patch = "application/json-patch+json";
    add(
        "PATCH",
        deployment,
        &json(patch, r#"[{"op":"add","path":"/spec/template/spec/hostNetwork","value":true}]"#),
    );
    add(
        "PATCH",
        deployment,
        &json(patch, r#"[{"op":"replace","path":"/spec/template/spec","value":{"hostPID":true}}]"#),
    );
    // Values of Secrets, copied or guessed.
    let secret = "/api/v1/namespaces/shop/secrets/db";
    for operation in [
        r#"{"op":"copy","from":"/data/password","path":"/metadata/annotations/x"}"#,
        r#"{"op":"move","from":"/data/password","path":"/metadata/annotations/x"}"#,
        r#"{"op":"test","path":"/data/password","value":"bWFya2Vy"}"#,
    ] {
        add("PATCH", secret, &json(patch, &format!("[{operation}]")));
    }
    // Formats that are not read, and bodies with two meanings.
    for kind in [
        "application/vnd.kubernetes.protobuf",
        "application/yaml",
        "application/cbor",
        "text/plain",
        "application/x-www-form-urlencoded",
    ] {
        add("POST", pods, &json(kind, "k8s"));
    }
    add("POST", pods, &json("application/json", r#"{"spec":{"hostNetwork":true},"spec":{}}"#));
    add("POST", pods, &json("application/json", r#"{"spec":{}}{"spec":{"hostNetwork":true}}"#));
    add(
        "PATCH",
        deployment,
        &json("application/apply-patch+yaml", "spec: {template: {spec: {hostNetwork: true}}}"),
    );
    add("DELETE", "/api/v1/namespaces/shop/configmaps/copy?dryRun=All", &json("application/json", "{}"));
    // Streams by other ways than those that are read.
    let upgrade = |name: &str| format!("--http1.1 --header 'Connection: Upgrade' --header 'Upgrade: {name}'");
    let socket = format!(
        "{} --header 'Sec-WebSocket-Version: 13' --header 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='",
        upgrade("websocket")
    );
    add("POST", "/api/v1/namespaces/shop/pods/web/exec?command=id", &upgrade("SPDY/3.1"));
    add("GET", "/api/v1/namespaces/shop/pods/web/exec?command=id", &upgrade("SPDY/3.1"));
    add(
        "GET",
        "/api/v1/namespaces/shop/pods/web/exec?command=id",
        &format!("{socket} --header 'Sec-WebSocket-Protocol: base64.channel.k8s.io'"),
    );
    add(
        "GET",
        "/api/v1/namespaces/shop/pods/web/portforward?ports=80",
        &format!("{socket} --header 'Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io'"),
    );
    add(
        "GET",
        "/api/v1/namespaces/bank/pods/web/exec?command=id",
        &format!("{socket} --header 'Sec-WebSocket-Protocol: v4.channel.k8s.io'"),
    );
    add(
        "GET",
        "/api/v1/namespaces/kube-system/pods/x/exec?command=id",
        &format!("{socket} --header 'Sec-WebSocket-Protocol: v4.channel.k8s.io'"),
    );
    add(
        "GET",
        "/api/v1/namespaces/shop/pods?watch=true",
        &format!("{socket} --header 'Sec-WebSocket-Protocol: binary.k8s.io'"),
    );
    add("POST", "/api/v1/namespaces/shop/pods/web/exec?command=id", "");
    all
}

#[test]
fn the_server_hears_nothing_of_what_is_forbidden() {
    let ground = Ground::new();
    plant(&ground);
    let attempts = attempts();
    assert!(attempts.len() >= 60);
    let mut script = String::new();
    for (at, (method, path, more)) in attempts.iter().enumerate() {
        let _ = writeln!(
            script,
            "curl --silent --path-as-is --max-time 20 --user-agent 'forbidden-{at}' --request {method} {more} --write-out '\\n#{at} %{{http_code}}\\n' \"$S{path}\""
        );
    }
    let out = ground.script(&script).run();
    let codes: Vec<(usize, u16)> = out
        .stdout
        .lines()
        .filter_map(|line| {
            let (at, code) = line.strip_prefix('#')?.split_once(' ')?;
            Some((at.parse().ok()?, code.parse().ok()?))
        })
        .collect();
    assert_eq!(codes.len(), attempts.len(), "{out}");
    let audit = ground.cluster.audit().expect("an audit log");
    let mut wrong = Vec::new();
    for (at, code) in codes {
        let agent = format!("forbidden-{at}");
        let heard = audit.iter().any(|line| line["userAgent"] == agent);
        if heard || !(400..500).contains(&code) {
            wrong.push(format!(
                "{:?}: {code}{}",
                attempts[at],
                if heard { ", and the server heard of it" } else { "" }
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The way itself is open.
    let open = ground
        .script("curl --silent --fail --user-agent 'allowed' \"$S/api/v1/namespaces/shop/pods\"")
        .run()
        .ok();
    assert!(open.stdout.contains("PodList"), "{open}");
    let audit = ground.cluster.audit().expect("an audit log");
    let line = audit.iter().find(|line| line["userAgent"] == "allowed").expect("a line");
    assert_eq!(line["impersonatedUser"]["username"], "gateway:payments-agent", "{line}");
}
