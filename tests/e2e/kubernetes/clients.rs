//! kubectl's verbs, and other clients, as they are used.

use tests::kubernetes::Kubectl;

use crate::support::{Ground, stored};

const DEPLOYMENT: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"NAME","labels":{"app":"web"}},
    "spec":{"replicas":2,"selector":{"matchLabels":{"app":"NAME"}},"template":{"metadata":{"labels":{"app":"NAME"}},
    "spec":{"containers":[{"name":"web","image":"web:1","ports":[{"containerPort":80}]}]}}}}"#;

#[test]
fn kubectl_works_as_it_does_directly() {
    let ground = Ground::new();
    for which in [Kubectl::Old, Kubectl::New] {
        let run = |words: &[&str], stdin: &str| ground.kubectl(which, words).stdin(stdin).run().ok().stdout;
        let web = DEPLOYMENT.replace("NAME", "web");
        assert!(run(&["version"], "").contains("v1.20.2"));
        assert!(run(&["api-resources"], "").contains("deployments"));
        // The new one wants schemas that a server of this age does not have.
        if which == Kubectl::Old {
            assert!(run(&["explain", "deployment.spec.replicas"], "").contains("replicas"));
        }
        assert!(run(&["auth", "can-i", "list", "pods"], "").contains("yes"));
        assert!(run(&["apply", "-f", "-"], &web).contains("created"));
        assert!(run(&["apply", "-f", "-"], &web).contains("unchanged"));
        assert!(run(&["apply", "-f", "-"], &web.replace("web:1", "web:2")).contains("configured"));
        let diff = ground.kubectl(which, &["diff", "-f", "-"]).stdin(web.replace("web:1", "web:3")).run();
        assert!(diff.stdout.contains("+        image: web:3") || diff.stdout.contains("web:3"), "{diff}");
        assert!(run(&["get", "deployments"], "").contains("web"));
        assert!(
            run(
                &["get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"],
                ""
            ) == "web:2"
        );
        assert!(run(&["describe", "deployment", "web"], "").contains("web:2"));
        assert!(run(&["scale", "deployment/web", "--replicas=3"], "").contains("scaled"));
        assert!(run(&["set", "image", "deployment/web", "web=web:4"], "").contains("updated"));
        assert!(run(&["rollout", "restart", "deployment/web"], "").contains("restarted"));
        assert!(run(&["label", "deployment/web", "tier=front"], "").contains("labeled"));
        assert!(
            run(&["patch", "deployment", "web", "-p", r#"{"spec":{"replicas":1}}"#], "").contains("patched")
        );
        // What a controller would do.
        let generation =
            ground.object("/apis/apps/v1/namespaces/shop/deployments/web")["metadata"]["generation"].clone();
        let status = serde_json::json!({ "status": { "observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
            "conditions": [{ "type": "Available", "status": "True" }] } });
        ground
            .cluster
            .raw(
                "PATCH",
                "/apis/apps/v1/namespaces/shop/deployments/web/status",
                Some(("application/merge-patch+json", &status.to_string())),
            )
            .expect("a status");
        assert!(run(&["rollout", "status", "deployment/web"], "").contains("successfully rolled out"));
        assert!(
            run(&["wait", "--for=condition=Available", "deployment/web", "--timeout=20s"], "")
                .contains("condition met")
        );
        let edited = ground
            .kubectl(which, &["edit", "deployment", "web"])
            .env("KUBE_EDITOR", "sed -i s/web:4/web:5/")
            .run()
            .ok();
        assert!(edited.stdout.contains("edited"), "{edited}");
        // The new one writes what it makes itself in protobuf.
        assert!(run(&["create", "configmap", "settings", "--from-literal=a=b"], "").contains("created"));
        assert!(run(&["delete", "configmap", "settings"], "").contains("deleted"));
        assert!(run(&["delete", "deployment", "web"], "").contains("deleted"));
        // Refused in the client's own words.
        let denied = ground.kubectl(which, &["get", "pods", "-n", "bank"]).run().failed();
        assert!(
            denied.stderr.contains("builtin:default-deny") && denied.stderr.contains("Forbidden"),
            "{denied}"
        );
        let host = ground
            .kubectl(
                which,
                &[
                    "run",
                    "x",
                    "--image=i",
                    "--overrides",
                    r#"{"apiVersion":"v1","spec":{"hostNetwork":true}}"#,
                ],
            )
            .run()
            .failed();
        assert!(
            host.stderr.contains("no-hosts") && host.stderr.contains("jobs do not get hold of nodes"),
            "{host}"
        );
        let acting = ground.kubectl(which, &["get", "pods", "--as=admin"]).run().failed();
        assert!(acting.stderr.contains("builtin:impersonation"), "{acting}");
    }
}

#[test]
fn server_side_apply_stores_what_it_does_directly() {
    let ground = Ground::new();
    let apply = ["apply", "--server-side", "-f", "-"];
    let through = ground.kubectl(Kubectl::New, &apply).stdin(DEPLOYMENT.replace("NAME", "same")).run().ok();
    assert!(through.stdout.contains("serverside-applied"), "{through}");
    let path = "/apis/apps/v1/namespaces/shop/deployments/same";
    let key = "/registry/deployments/shop/same";
    let (told, bytes) = (ground.object(path), stored(&ground, key, path));
    ground.direct(&["delete", "deployment", "same"], "");
    ground.direct(&apply, &DEPLOYMENT.replace("NAME", "same"));
    assert_eq!(told, ground.object(path));
    assert!(bytes == stored(&ground, key, path), "{}", String::from_utf8_lossy(&bytes));
}

#[test]
fn the_python_client_lists_watches_and_runs() {
    let ground = Ground::new();
    ground.direct(&["create", "-f", "-"], r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"nodeName":"node","containers":[{"name":"web","image":"i"}]}}"#);
    let python = r#"
import itertools
from kubernetes import client, config, watch
from kubernetes.stream import stream
config.load_kube_config()
api = client.CoreV1Api()
print([pod.metadata.name for pod in api.list_namespaced_pod("shop").items])
for event in watch.Watch().stream(api.list_namespaced_pod, "shop", timeout_seconds=2):
    print(event["type"], event["object"].metadata.name)
print(stream(api.connect_get_namespaced_pod_exec, "web", "shop", command=["echo", "from", "the pod"], stderr=True, stdin=False, stdout=True, tty=False))
try:
    api.list_namespaced_pod("bank")
except client.ApiException as refused:
    print(refused.status, "builtin:default-deny" in refused.body)
"#;
    let program = ground.world.python();
    let out = ground.world.job(&[program.as_str(), "-c", python]).run().ok();
    assert_eq!(out.stdout, "['web']\nADDED web\nfrom the pod\n\n403 True\n", "{out}");
}

#[test]
fn who_has_to_agree_sees_what_would_happen() {
    let ground = Ground::new();
    for name in ["one", "two"] {
        ground.direct(&["create", "configmap", name], "");
    }
    let waiting = ground
        .kubectl(Kubectl::New, &["delete", "--raw", "/api/v1/namespaces/shop/configmaps"])
        .start()
        .expect("a job");
    let list = || -> Option<serde_json::Value> {
        let out = ground.world.agent.cli(&["approvals", "list", "--json"]).ok()?;
        let all: serde_json::Value = serde_json::from_str(&out.stdout).ok()?;
        all.as_array()?.first().cloned()
    };
    let asked = tests::process::wait_for("a request for approval", std::time::Duration::from_secs(30), list)
        .expect("one");
    assert!(asked.to_string().contains("- 2 configmaps"), "{asked}");
    let id = asked["id"].as_str().expect("an id");
    let _ = ground.world.agent.cli(&["approvals", "approve", id]).expect("the command line").ok();
    let _ = waiting.finish(tests::process::LIMIT).expect("an end").ok();
    assert!(!ground.direct(&["get", "configmaps"], "").stdout.contains("one"));
}

const JAVA: &str = r#"
import java.net.URI;
import java.net.http.*;

public class Main {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (String path : new String[] { "/version", "/api/v1/namespaces/bank/secrets" }) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(System.getenv("S") + path)).build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body().contains("builtin:default-deny"));
        }
    }
}
"#;

#[test]
fn java_trusts_the_gateway_by_what_exec_sets() {
    let ground = Ground::new();
    let run = |more: &str| {
        let text = format!("cat > /tmp/Main.java && {more} java /tmp/Main.java");
        ground.script(&text).stdin(JAVA).run()
    };
    let out = run("").ok();
    assert_eq!(out.stdout, "200 false\n403 true\n", "{out}");
    // By Java's own roots it does not.
    let out = run("unset JAVA_TOOL_OPTIONS;").failed();
    assert!(out.stderr.contains("PKIX path building failed"), "{out}");
}
