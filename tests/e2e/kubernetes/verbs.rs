//! kubectl's other verbs: each says and does in a job what it says and does directly.

use std::time::Duration;

use tests::{kubernetes::Kubectl, process::Output};

use crate::support::{Ground, recorded};

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","labels":{"app":"web"}},"spec":{"nodeName":"node","containers":[{"name":"web","image":"i","ports":[{"containerPort":80}]}]}}"#;
const DEPLOYMENT: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"NAME"},"spec":{"replicas":2,
    "selector":{"matchLabels":{"app":"NAME"}},"template":{"metadata":{"labels":{"app":"NAME"}},"spec":{"containers":[{"name":"web","image":"web:1"}]}}}}"#;

/// What is not reached by wildcards.
const NODES: &str = r#"
  - id: nodes
    effect: allow
    subjects: [payments-agent]
    resources: [cluster]
    kubernetes:
      requests:
        - { verbs: [get, list, patch], resources: [nodes], cluster: true }
        - { verbs: [get, create, update, patch], resources: [pods/ephemeralcontainers], namespaces: [shop] }
      risks: [ephemeral_container]
"#;

fn pair(ground: &Ground, words: &[&str], stdin: &str) -> (Output, Output) {
    let through = ground.kubectl(Kubectl::New, words).stdin(stdin).run();
    let directly = ground.cluster.attempt(Kubectl::New, &[&["--namespace=shop"], words].concat(), stdin);
    (through, directly.expect("kubectl past the gateway"))
}

#[test]
fn what_only_looks_says_the_same() {
    let ground = Ground::with(NODES);
    ground.direct(&["create", "-f", "-"], POD);
    ground.direct(&["create", "-f", "-"], &DEPLOYMENT.replace("NAME", "front"));
    for words in [
        &["describe", "deployment", "front"][..],
        &["describe", "pod", "web"],
        &["get", "pods", "-o", "yaml"],
        &["get", "pods", "-o", "name"],
        &[
            "get",
            "deployments,pods",
            "--show-labels",
            "--no-headers",
            "-o",
            "custom-columns=N:.metadata.name",
        ],
        &["get", "nodes", "-o", "name"],
        &["rollout", "history", "deployment/front"],
        &["api-versions"],
        &["logs", "web"],
        // There is no metrics server here, which is told in the same words.
        &["top", "pods"],
        &["top", "nodes"],
        &["wait", "--for=jsonpath={.spec.replicas}=2", "deployment/front", "--timeout=10s"],
        &["auth", "can-i", "create", "deployments"],
        &["diff", "-f", "-"],
    ] {
        let (through, directly) = pair(&ground, words, &DEPLOYMENT.replace("NAME", "front"));
        assert_eq!(through.status.code(), directly.status.code(), "{words:?}: {through}\n{directly}");
        assert_eq!(through.stdout, directly.stdout, "{words:?}: {through}");
        let said = |out: &Output| out.stderr.lines().last().unwrap_or_default().to_owned();
        assert_eq!(said(&through), said(&directly), "{words:?}");
    }
}

#[test]
fn what_changes_leaves_the_same_behind() {
    let ground = Ground::with(NODES);
    let path = |name: &str| format!("/apis/apps/v1/namespaces/shop/deployments/{name}");
    let clear = |text: String, name: &str| text.replace(name, "NAME");
    for words in [
        &["apply", "-f", "-"][..],
        &["apply", "-f", "-", "--server-side", "--force-conflicts"],
        &["set", "image", "deployment/NAME", "web=web:2"],
        &["set", "env", "deployment/NAME", "A=b"],
        &["set", "resources", "deployment/NAME", "--limits=cpu=200m,memory=1Gi"],
        &["scale", "deployment/NAME", "--replicas=4"],
        &["autoscale", "deployment/NAME", "--min=2", "--max=5"],
        &["annotate", "deployment/NAME", "a=b"],
        &["label", "deployment/NAME", "a=b"],
        &[
            "patch",
            "deployment",
            "NAME",
            "--type=json",
            "-p",
            r#"[{"op":"replace","path":"/spec/replicas","value":3}]"#,
        ],
        &["patch", "deployment", "NAME", "--type=merge", "-p", r#"{"spec":{"paused":true}}"#],
        &["rollout", "resume", "deployment/NAME"],
        &["rollout", "pause", "deployment/NAME"],
        &["replace", "-f", "-"],
        &["expose", "deployment/NAME", "--port=80", "--cluster-ip=None"],
    ] {
        let run = |name: &str, through: bool| {
            let words: Vec<String> = words.iter().map(|word| word.replace("NAME", name)).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let stdin = DEPLOYMENT.replace("NAME", name);
            match through {
                true => ground.kubectl(Kubectl::New, &words).stdin(stdin).run().ok(),
                false => ground.direct(&words, &stdin),
            }
        };
        let (through, directly) = (run("through", true), run("directly", false));
        assert_eq!(clear(through.stdout, "through"), clear(directly.stdout, "directly"), "{words:?}");
        let of = |name: &str| clear(ground.object(&path(name)).to_string(), name);
        assert_eq!(of("through"), of("directly"), "{words:?}");
    }
    // Going back to an earlier revision needs the replica sets that a controller would have made.
    for name in ["through", "directly"] {
        let uid: serde_json::Value =
            serde_json::from_str(&ground.cluster.raw("GET", &path(name), None).expect("an object"))
                .expect("JSON");
        for (revision, image) in [("1", "web:1"), ("2", "web:2")] {
            let set = serde_json::json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": format!("{name}-{revision}"),
                "labels": { "app": name }, "annotations": { "deployment.kubernetes.io/revision": revision },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": uid["metadata"]["uid"], "controller": true }] },
                "spec": { "replicas": 0, "selector": { "matchLabels": { "app": name } }, "template": { "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "web", "image": image }] } } } });
            ground.direct(&["create", "-f", "-"], &set.to_string());
        }
    }
    let _ = ground
        .kubectl(Kubectl::New, &["rollout", "undo", "deployment/through", "--to-revision=1"])
        .run()
        .ok();
    ground.direct(&["rollout", "undo", "deployment/directly", "--to-revision=1"], "");
    let of = |name: &str| clear(ground.object(&path(name)).to_string(), name);
    assert_eq!(of("through"), of("directly"));
    assert!(of("through").contains("web:1"));
}

#[test]
fn nodes_are_cordoned_and_drained_where_a_rule_says_so() {
    let ground = Ground::with(NODES);
    ground.direct(&["create", "-f", "-"], POD);
    let run = |words: &[&str]| ground.kubectl(Kubectl::New, words).run();
    assert!(run(&["cordon", "node"]).ok().stdout.contains("cordoned"));
    assert_eq!(ground.object("/api/v1/nodes/node")["spec"]["unschedulable"], true);
    assert!(run(&["uncordon", "node"]).ok().stdout.contains("uncordoned"));
    let drain = ["drain", "node", "--force", "--grace-period=0", "--pod-selector=app=web", "--timeout=30s"];
    let drained = run(&drain).ok();
    assert!(drained.stdout.contains("pod/web evicted") && drained.stdout.contains("drained"), "{drained}");
    let closed = Ground::new();
    // kubectl tells it and goes on to the next node.
    let refused = closed.kubectl(Kubectl::New, &["cordon", "node"]).run();
    assert!(refused.stderr.contains("builtin:default-deny"), "{refused}");
}

#[test]
fn containers_are_put_into_pods_where_a_rule_says_so() {
    let ground = Ground::with(NODES);
    ground.direct(&["create", "-f", "-"], POD);
    let copy = ["debug", "web", "--image=i", "--copy-to=copy", "--attach=false", "--container=extra"];
    let _ = ground.kubectl(Kubectl::New, &copy).run().ok();
    let containers = ground.object("/api/v1/namespaces/shop/pods/copy")["spec"]["containers"].clone();
    assert_eq!(containers.as_array().map(Vec::len), Some(2), "{containers}");
    // The server is of an age in which it does not take any: what it says is told.
    let (through, directly) =
        pair(&ground, &["debug", "web", "--image=i", "--attach=false", "--container=x"], "");
    assert_eq!(through.stderr, directly.stderr);
    let asked = ground.cluster.audit().expect("an audit log");
    let of = |user: &str| {
        asked.iter().any(|line| {
            line["user"]["username"] == user && line["objectRef"]["subresource"] == "ephemeralcontainers"
        })
    };
    assert!(of("gateway") && of("admin"));
}

#[test]
fn what_a_pod_s_process_says_is_attached_to() {
    let ground = Ground::new();
    ground.direct(&["create", "-f", "-"], POD);
    let attached =
        ground.kubectl(Kubectl::New, &["attach", "-i", "web", "-c", "web"]).stdin("typed\n").run().ok();
    assert_eq!(attached.stdout, "typed\n", "{attached}");
    assert!(recorded(&ground).contains("typed"));
}

const FORWARDING: &str = r#"
import sys
from kubernetes import client, config
from kubernetes.stream import portforward
config.load_kube_config()
api = client.CoreV1Api()
ports = [int(port) for port in sys.argv[1:]]
try:
    forward = portforward(api.connect_get_namespaced_pod_portforward, "web", "shop", ports=",".join(map(str, ports)))
    for port in ports:
        stream = forward.socket(port)
        stream.setblocking(True)
        stream.sendall(b"through port %d" % port)
        print(stream.recv(100).decode())
    forward.close()
except client.ApiException as refused:
    print(refused.status, refused.reason)
"#;

#[test]
fn ports_are_forwarded_where_a_rule_names_them() {
    let ground = Ground::forwarding(
        r#"
  - id: one-port
    effect: allow
    subjects: [payments-agent]
    resources: [cluster]
    kubernetes:
      requests:
        - { verbs: [get, list], resources: [pods], namespaces: [shop] }
        - { verbs: [create], resources: [pods/portforward], namespaces: [shop], ports: [80, 81] }
    record: results
"#,
    );
    ground.direct(&["create", "-f", "-"], POD);
    let python = ground.world.python();
    let forward = |ports: &[&str]| {
        let words: Vec<&str> =
            [python.as_str(), "-c", FORWARDING].into_iter().chain(ports.iter().copied()).collect();
        ground.world.job(&words).limit(Duration::from_secs(60)).run()
    };
    assert_eq!(forward(&["80"]).ok().stdout, "through port 80\n");
    assert_eq!(forward(&["80", "81"]).ok().stdout, "through port 80\nthrough port 81\n");
    for ports in [&["82"][..], &["80", "82"], &["22"]] {
        let refused = forward(ports);
        assert!(
            refused.stdout.contains("403") && !refused.stdout.contains("through"),
            "{ports:?}: {refused}"
        );
    }
    assert!(recorded(&ground).contains("through port 81"));
    // kubectl opens a tunnel, in which each connection says its port.
    let running = ("application/merge-patch+json", r#"{"status":{"phase":"Running"}}"#);
    ground.cluster.raw("PATCH", "/api/v1/namespaces/shop/pods/web/status", Some(running)).expect("a status");
    let kubectl = |port: u16| {
        let program = Kubectl::New.program().expect("kubectl").display().to_string();
        let text = format!(
            "{program} --cache-dir=/tmp/k -n shop port-forward web 18080:{port} > /tmp/out 2>&1 & n=0; \
             until grep -q Forwarding /tmp/out || [ $n = 100 ]; do sleep 0.2; n=$((n+1)); done; \
             for word in first second; do exec 3<>/dev/tcp/127.0.0.1/18080 && printf '%s\\n' $word >&3 && timeout 5 head -n 1 <&3; exec 3>&-; done; \
             kill %1; cat /tmp/out >&2"
        );
        ground.world.job(&["bash", "-c", &text]).limit(Duration::from_secs(90)).run()
    };
    let out = kubectl(81);
    assert_eq!(out.stdout, "first\nsecond\n", "{out}");
    let refused = kubectl(22);
    assert_eq!(refused.stdout, "", "{refused}");
    let audit = ground.world.agent.audit().expect("an audit log");
    let refused = |line: &serde_json::Value| {
        line["verdict"] == "deny" && line["reason"].to_string().contains("web in shop port 22")
    };
    assert!(audit.iter().any(refused), "{audit:#?}");
    let recorded = recorded(&ground);
    assert_eq!(recorded.matches("create pods/portforward web in shop port 81 ").count(), 2, "{recorded}");
    assert!(recorded.contains("second"), "{recorded}");
    assert!(ground.cluster.kubelet.tunnelled().iter().all(|port| *port == 81));
}
