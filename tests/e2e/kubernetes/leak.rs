//! Ways to read a Secret. None of them shows it.

use tests::kubernetes::Kubectl;

use crate::support::{Ground, MARKER, plant, recorded, shows_nothing};

const PATHS: &[&str] = &[
    "/api/v1/namespaces/shop/secrets/db",
    "/api/v1/namespaces/shop/secrets",
    "/api/v1/secrets",
    "/api/v1/secrets?limit=1",
    "/api/v1/namespaces/shop/secrets?resourceVersion=0",
    "/api/v1/namespaces/shop/secrets?labelSelector=app%3Dweb",
    "/api/v1/namespaces/shop/secrets?fieldSelector=metadata.name%3Ddb",
    "/api/v1/namespaces/shop/secrets?watch=true&timeoutSeconds=1",
    "/api/v1/namespaces/shop/secrets?watch=1&allowWatchBookmarks=true&timeoutSeconds=1",
    "/api/v1/watch/namespaces/shop/secrets?timeoutSeconds=1",
    "/api/v1/watch/namespaces/shop/secrets/db?timeoutSeconds=1",
    "/api/v1/namespaces/shop/configmaps/copy",
    "/api/v1/configmaps",
];
const ACCEPTS: &[&str] = &[
    "application/json",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/vnd.kubernetes.protobuf",
    "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/yaml",
    "application/cbor, */*",
];

#[test]
fn a_secret_is_shown_by_none_of_the_ways_to_read_it() {
    let ground = Ground::new();
    plant(&ground);
    let mut script = String::from("set -u; n=0\n");
    let mut ways = 0;
    for path in PATHS {
        for accept in ACCEPTS {
            for more in ["", "--compressed --header 'Accept-Encoding: gzip'"] {
                ways += 1;
                script.push_str(&format!(
                    "curl --silent --show-error --max-time 20 {more} --header 'Accept: {accept}' --write-out '\\n#%{{http_code}}\\n' \"$S{path}\"\n"
                ));
            }
        }
    }
    for path in [
        "/api/v1/namespaces/shop/secrets?includeObject=Object",
        "/api/v1/namespaces/shop/secrets/db?includeObject=Object",
    ] {
        ways += 1;
        script.push_str(&format!(
            "curl --silent --header 'Accept: application/json;as=Table;v=v1;g=meta.k8s.io' --write-out '\\n#%{{http_code}}\\n' \"$S{path}\"\n"
        ));
    }
    // Answers to changes hold the object as well.
    for (method, kind, body, query) in [
        ("PATCH", "application/merge-patch+json", r#"{"metadata":{"labels":{"a":"b"}}}"#, ""),
        ("PATCH", "application/strategic-merge-patch+json", r#"{"metadata":{"labels":{"a":"c"}}}"#, ""),
        (
            "PATCH",
            "application/json-patch+json",
            r#"[{"op":"add","path":"/metadata/labels/a","value":"d"}]"#,
            "",
        ),
        (
            "PATCH",
            "application/apply-patch+yaml",
            r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"db"}}"#,
            "?fieldManager=x",
        ),
        ("PATCH", "application/merge-patch+json", r#"{"data":{"z":"not base64!!"}}"#, ""),
        ("PATCH", "application/json-patch+json", r#"[{"op":"add","path":"/data/z","value":{"a":1}}]"#, ""),
        ("PATCH", "application/merge-patch+json", "{}", "?dryRun=All"),
        ("DELETE", "application/json", r#"{"dryRun":["All"]}"#, ""),
    ] {
        ways += 1;
        script.push_str(&format!(
            "curl --silent --request {method} --header 'Content-Type: {kind}' --data '{body}' --write-out '\\n#%{{http_code}}\\n' \"$S/api/v1/namespaces/shop/secrets/db{query}\"\n"
        ));
    }
    let out = ground.script(&script).run().ok();
    shows_nothing("an answer", &out.stdout);
    shows_nothing("curl", &out.stderr);
    let codes: Vec<&str> = out.stdout.lines().filter_map(|line| line.strip_prefix('#')).collect();
    assert_eq!(codes.len(), ways, "{out}");
    let fine = codes.iter().filter(|code| **code == "200").count();
    // Some do not go together (a list as one object's metadata); most have to be answered, or this would show nothing.
    assert!(fine * 10 >= ways * 6, "{fine} of {ways} were answered: {codes:?}");
    assert!(out.stdout.contains("[redacted:secret]") && out.stdout.contains("W3JlZGFjdGVkOnNlY3JldF0="));

    for which in [Kubectl::Old, Kubectl::New] {
        for words in [
            &["get", "secret", "db", "-o", "yaml"][..],
            &["get", "secret", "db", "-o", "json"],
            &["get", "secrets", "-o", "wide"],
            &["get", "secret", "db", "-o", "jsonpath={.data.password}"],
            &["get", "secret", "db", "-o", "go-template={{.data.password | base64decode}}"],
            &["get", "secret", "db", "-o", "custom-columns=P:.data.password"],
            &["get", "secret", "db", "--show-managed-fields=true", "-o", "yaml"],
            &["get", "all,secrets,configmaps", "-o", "yaml"],
            &["get", "--raw", "/api/v1/namespaces/shop/secrets/db"],
            &["describe", "secret", "db"],
            &["describe", "configmap", "copy"],
            &["apply", "view-last-applied", "secret", "db"],
            &["label", "secret", "db", "x=y", "--overwrite", "-o", "yaml"],
            &["annotate", "secret", "db", "x=y", "--overwrite", "-o", "json"],
        ] {
            let out = ground.kubectl(which, words).run();
            shows_nothing(&format!("{which:?} {words:?}"), &format!("{}{}", out.stdout, out.stderr));
        }
    }
    // And it is still what it was.
    assert_eq!(
        ground
            .direct(&["get", "secret", "db", "-o", "go-template={{.data.password | base64decode}}"], "")
            .text(),
        MARKER
    );
    // Neither do recordings show it.
    shows_nothing("a recording", &recorded(&ground));
}

#[test]
fn what_was_masked_is_not_written_back() {
    let ground = Ground::new();
    plant(&ground);
    for which in [Kubectl::Old, Kubectl::New] {
        let program = which.program().expect("kubectl").display().to_string();
        let script = format!(
            "K='{program} --cache-dir=/tmp/k -n shop'; $K get secret db -o yaml > /tmp/s.yaml && {{ $K replace -f /tmp/s.yaml; $K apply -f /tmp/s.yaml; $K apply --server-side --force-conflicts -f /tmp/s.yaml; \
             $K get secret db -o json | sed 's/\"db\"/\"other\"/' | $K create -f -; KUBE_EDITOR=\"sed -i s/Opaque/Opaque/;s/app:/app2:/\" $K edit secret db; }}"
        );
        let out = ground.script(&script).run();
        assert!(out.stderr.matches("masked").count() >= 4, "{which:?} {out}");
        assert_eq!(
            ground
                .direct(&["get", "secret", "db", "-o", "go-template={{.data.password | base64decode}}"], "")
                .text(),
            MARKER
        );
        assert!(!ground.direct(&["get", "secrets"], "").stdout.contains("other"));
    }
}
