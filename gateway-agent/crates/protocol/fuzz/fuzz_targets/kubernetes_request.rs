//! What a job may send to an API server: any head, any body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::kubernetes::{Head, Request, change};

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];
const TYPES: [&str; 6] = [
    "application/json",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/vnd.kubernetes.protobuf",
];

fuzz_target!(|input: (u8, u8, String, Vec<u8>)| {
    let (method, kind, target, body) = input;
    let method = METHODS[usize::from(method) % METHODS.len()];
    let head = Head { method, target: &target, content_type: Some(TYPES[usize::from(kind) % TYPES.len()]) };
    let Ok(request) = Request::read(&head) else { return };
    let unread = request.is_unread();
    let Ok(json) = request.as_json(&body) else { return };
    let body = json.unwrap_or(body);
    let Ok(action) = request.with_body(&body) else { return };
    let Some(of) = action.resource() else { return };
    // Whatever the path was, it names one resource and nothing that a path could be read from.
    for part in [Some(&of.resource), of.subresource.as_ref(), of.namespace.as_ref(), of.name.as_ref()]
        .into_iter()
        .flatten()
    {
        assert!(!part.contains('/') && !part.is_empty(), "{of:?}");
    }
    let path = target.split('?').next().unwrap_or_default();
    assert!(unread || !path.contains("//"), "{target}");
    change::describe(&action, &body, &[]);
    for look in change::looks(&action) {
        assert!(look.target.starts_with("/api"));
    }
});
