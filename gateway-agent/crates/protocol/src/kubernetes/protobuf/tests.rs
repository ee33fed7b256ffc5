//! Bodies in protobuf.

use serde_json::{Value, json};

use super::*;

fn varint(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap());
    out
}

/// A field that holds bytes.
fn part(number: usize, bytes: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | 2)[..], &varint(bytes.len()), bytes].concat()
}

fn body(version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
    let meta = [part(1, version.as_bytes()), part(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), part(1, &meta), part(2, object), part(3, b""), part(4, b"")].concat()
}

fn read(version: &str, kind: &str, object: &[u8]) -> Result<Value, Unreadable> {
    to_json(&body(version, kind, object)).map(|text| serde_json::from_slice(&text).unwrap())
}

#[test]
fn an_object_becomes_what_a_client_would_have_written_in_json() {
    let metadata = [part(1, b"db"), part(3, b""), part(5, b""), vec![7 << 3, 0], part(8, b"")].concat();
    let labels = part(11, &[part(1, b"app"), part(2, b"web")].concat());
    let secret = [
        part(1, &[metadata, labels].concat()),
        part(2, &[part(1, b"password"), part(2, b"\x00\xff!")].concat()),
        part(2, &part(1, b"empty")),
        part(3, b"Opaque"),
        vec![5 << 3, 1],
    ];
    assert_eq!(
        read("v1", "Secret", &secret.concat()).unwrap(),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "db", "labels": { "app": "web" } },
            "data": { "password": "AP8h", "empty": "" }, "type": "Opaque", "immutable": true })
    );
    // Sources of a volume stand beside its name; a port is a number or a name.
    let volume = [part(1, b"v"), part(2, &part(1, &part(1, b"/etc")))].concat();
    let probe = part(1, &part(2, &[part(1, b"/"), part(2, &[0x08, 1, 0x10, 0, 0x1a, 1, b'p'])].concat()));
    let container = [part(1, b"c"), part(10, &probe)].concat();
    let limits = part(1, &[part(1, b"cpu"), part(2, &part(1, b"100m"))].concat());
    let container = [container, part(8, &limits)].concat();
    let spec = [part(1, &volume), part(2, &container), vec![4 << 3, 30], vec![11 << 3, 1]].concat();
    assert_eq!(
        read("v1", "Pod", &part(2, &spec)).unwrap()["spec"],
        json!({ "volumes": [{ "name": "v", "hostPath": { "path": "/etc" } }],
            "containers": [{ "name": "c", "livenessProbe": { "httpGet": { "path": "/", "port": "p" } },
                "resources": { "limits": { "cpu": "100m" } } }],
            "terminationGracePeriodSeconds": 30, "hostNetwork": true })
    );
    // JSON inside of protobuf, and a list that is a type of its own.
    let owner = part(17, &[part(1, b"kubectl"), part(7, &part(1, br#"{"f:a":{}}"#))].concat());
    let managed = read("v1", "ConfigMap", &part(1, &owner)).unwrap();
    assert_eq!(managed["metadata"]["managedFields"][0]["fieldsV1"], json!({ "f:a": {} }));
    let extra = part(5, &[part(1, b"scopes"), part(2, &[part(1, b"a"), part(1, b"b")].concat())].concat());
    let review = read("authorization.k8s.io/v1", "SubjectAccessReview", &part(2, &extra)).unwrap();
    assert_eq!(review["spec"]["extra"], json!({ "scopes": ["a", "b"] }));
    // Numbers one by one or packed.
    let groups =
        |list: &[u8]| read("v1", "Pod", &part(2, &part(14, list))).unwrap()["spec"]["securityContext"].take();
    let wanted = json!({ "supplementalGroups": [1, 300] });
    assert_eq!(groups(&[4 << 3, 1, 4 << 3, 0xac, 2]), wanted);
    assert_eq!(groups(&part(4, &[1, 0xac, 2])), wanted);
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let twice = |number: usize, one: &[u8]| [part(number, one), part(number, one)].concat();
    let entry = [part(1, b"a"), part(2, b"b")].concat();
    for (what, object, words) in [
        ("an unknown field", part(15, b"x"), "core.v1.Pod has field 15, which is not known"),
        ("a part twice", twice(2, b""), "core.v1.Pod has field 2 twice"),
        ("another wire type", vec![2 << 3, 1], "core.v1.Pod has field 2 as another type"),
        ("a group", vec![2 << 3 | 3, 2 << 3 | 4], "wire type 3"),
        ("fixed32", vec![2 << 3 | 5, 0, 0, 0, 0], "wire type 5"),
        ("cut off", vec![2 << 3 | 2, 5, 1], "ends in the middle"),
        ("an endless number", [vec![2 << 3], vec![0xff; 10], vec![1]].concat(), "64 bits"),
        ("a text twice", part(2, &twice(3, b"Never")), "core.v1.PodSpec has field 3 twice"),
        ("no UTF-8", part(2, &part(3, b"\xff")), "core.v1.PodSpec has field 3 as another type"),
        ("a bool of 2", part(2, &[11 << 3, 2]), "field 11 as another type"),
        ("a label twice", part(1, &twice(11, &entry)), "the member \"a\" twice"),
        ("a label without a name", part(1, &part(11, &part(2, b"b"))), "meta.v1.ObjectMeta ends"),
        ("members of JSON twice", part(1, &part(17, &part(7, &part(1, br#"{"a":1,"a":2}"#)))), "there twice"),
    ] {
        let refused = read("v1", "Pod", &object).expect_err(what);
        assert!(refused.what.contains(words), "{what}: {}", refused.what);
    }
    for (version, kind) in
        [("v1", "Deployment"), ("v2", "Pod"), ("", ""), ("v1", "PodList"), ("v1", "Volume")]
    {
        let refused = read(version, kind, b"").expect_err(kind);
        assert!(refused.code == 415 && refused.hint.contains("JSON"), "{refused:?}");
    }
    let plain = body("v1", "Pod", b"");
    assert!(to_json(&plain).is_ok() && to_json(&plain[1..]).is_err() && to_json(b"k8s\0").is_err());
    for more in [part(2, b""), part(4, b"application/json"), part(3, b"gzip"), part(9, b"")] {
        assert!(to_json(&[plain.clone(), more.clone()].concat()).is_err(), "{more:?}");
    }
}

#[test]
fn whatever_is_written_over_a_body_it_is_read_or_refused() {
    let container = [part(1, b"c"), part(2, b"i:1"), part(15, &[2 << 3, 1])].concat();
    let metadata = [part(1, b"x"), part(11, &[part(1, b"app"), part(2, b"web")].concat()), vec![7 << 3, 3]];
    let pod = [part(1, &metadata.concat()), part(2, &part(2, &container))].concat();
    let good = body("v1", "Pod", &pod);
    assert!(to_json(&good).is_ok());
    // A generator of its own (Knuth's constants), so that a failure can be repeated.
    let mut state = 1_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut read = 0;
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            match next(3) {
                0 => bytes[at] = u8::try_from(next(256)).unwrap(),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, u8::try_from(next(256)).unwrap()),
            }
        }
        let Ok(text) = to_json(&bytes) else { continue };
        let value = json::read(&text).expect("what is made is read again");
        assert!(value["kind"].is_string() && value["apiVersion"].is_string(), "{bytes:?}");
        read += 1;
    }
    // Letters of texts may be others; most of the rest breaks something.
    assert!((100..10_000).contains(&read), "{read}");
}
