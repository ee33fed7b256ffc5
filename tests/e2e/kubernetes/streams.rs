//! exec, cp, logs and port-forward, through the real API server to a stand-in for a kubelet.

use tests::kubernetes::Kubectl;

use crate::support::{Ground, recorded};

const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"nodeName":"node","containers":[{"name":"web","image":"i"}]}}"#;

#[test]
fn commands_run_in_pods_and_what_they_print_is_masked() {
    let ground = Ground::new();
    ground.direct(&["create", "-f", "-"], POD);
    let exec = |words: &[&str]| {
        let mut all = vec!["exec", "-i", "web", "--"];
        all.extend_from_slice(words);
        ground.kubectl(Kubectl::New, &all)
    };
    assert_eq!(exec(&["echo", "a b"]).run().ok().stdout, "a b\n");
    let failed = exec(&["sh", "-c", "echo out; echo err >&2; exit 3"]).run();
    assert_eq!((failed.status.code(), failed.stdout.as_str()), (Some(3), "out\n"), "{failed}");
    assert!(failed.stderr.contains("err\n"), "{failed}");
    assert_eq!(exec(&["cat"]).stdin("typed\n").run().ok().stdout, "typed\n");
    std::fs::write(ground.cluster.kubelet.folder().join("key"), format!("key {KEY} end\n")).expect("a file");
    assert_eq!(exec(&["cat", "key"]).run().ok().stdout, "key [redacted:aws_access_key] end\n");
    let big = exec(&["head", "-c", "3000000", "/dev/zero"]).run().ok();
    assert_eq!(big.stdout.len(), 3_000_000);
    let copied = ground.script(&format!(
        "echo content > /tmp/f && {k} --cache-dir=/tmp/k -n shop cp /tmp/f web:copied && {k} --cache-dir=/tmp/k -n shop cp web:copied /tmp/g && cat /tmp/g",
        k = Kubectl::New.program().expect("kubectl").display()
    ));
    let copied = copied.run().ok();
    assert!(copied.stdout.contains("content"), "{copied}");
    // What went over it is in a recording, as it was shown.
    let json = recorded(&ground);
    assert!(json.contains("typed") && !json.contains(KEY), "{json}");
}

#[test]
fn logs_are_followed_and_masked() {
    let ground = Ground::new();
    ground.direct(&["create", "-f", "-"], POD);
    ground.cluster.kubelet.write_log("web", &format!("line one\nkey={KEY}\n"));
    for which in [Kubectl::Old, Kubectl::New] {
        let out = ground.kubectl(which, &["logs", "web", "-f"]).run().ok();
        assert_eq!(out.stdout, "line one\nkey=[redacted:aws_access_key]\n", "{out}");
    }
}

#[test]
fn what_cannot_be_seen_through_is_refused_with_words() {
    let ground = Ground::new();
    ground.direct(&["create", "-f", "-"], POD);
    let spdy = ground.kubectl(Kubectl::Old, &["exec", "web", "--", "id"]).run().failed();
    assert!(spdy.stderr.contains("spdy") || spdy.stderr.contains("SPDY"), "{spdy}");
    assert!(
        ground.cluster.kubelet.asked().iter().all(|line| !line.contains("exec")),
        "{:?}",
        ground.cluster.kubelet.asked()
    );
    let debug = ground.kubectl(Kubectl::New, &["debug", "web", "--image=i", "--attach=false"]).run().failed();
    assert!(debug.stderr.contains("builtin:") || debug.stderr.contains("gateway"), "{debug}");
}
