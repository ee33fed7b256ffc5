//! What a job may send as protobuf: of any kind, any bytes. What is taken is JSON that reads the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::kubernetes::{Head, Request};

const KINDS: [(&str, &str); 8] = [
    ("v1", "Pod"),
    ("v1", "Secret"),
    ("apps/v1", "Deployment"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("resource.k8s.io/v1", "ResourceClaim"),
    ("apps/v1", "ControllerRevision"),
    ("v1", "DeleteOptions"),
];

fn part(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

fuzz_target!(|input: (u8, bool, Vec<u8>)| {
    let (kind, enveloped, bytes) = input;
    let (version, kind) = KINDS[usize::from(kind) % KINDS.len()];
    let meta = [part(1, version.as_bytes()), part(2, kind.as_bytes())].concat();
    let body = match enveloped {
        true => [b"k8s\0".to_vec(), part(1, &meta), part(2, &bytes)].concat(),
        false => [b"k8s\0", &bytes[..]].concat(),
    };
    let head = |content_type| Head {
        method: "POST",
        target: "/api/v1/namespaces/a/pods",
        content_type: Some(content_type),
    };
    let Ok(request) = Request::read(&head("application/vnd.kubernetes.protobuf")) else { return };
    let Ok(json) = request.as_json(&body) else { return };
    let json = json.expect("JSON in place of protobuf");
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(&json) else { panic!("no JSON: {json:?}") };
    assert!(value["kind"].is_string() && value["apiVersion"].is_string());
    // The same decision as for a client that sends this JSON itself.
    let plain = Request::read(&head("application/json")).expect("a head");
    assert_eq!(plain.as_json(&json), Ok(None));
    assert_eq!(request.with_body(&json), plain.with_body(&json));
});
