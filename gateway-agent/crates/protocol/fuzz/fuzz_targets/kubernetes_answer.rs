//! What an API server may answer, wherever it is cut: nothing of a Secret is shown.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use mask::Detectors;
use protocol::kubernetes::{
    Head, Request,
    mask::{Filter, Masks},
};

const MARK: &[u8] = b"QmVhcmVyIG9mIHRoZSBtYXJr";

fuzz_target!(|input: (bool, u8, Vec<u8>)| {
    let (secrets, cut, mut body) = input;
    // A member of a Secret, in the middle of whatever there is.
    let target = if secrets { "/api/v1/namespaces/a/secrets/s" } else { "/api/v1/namespaces/a/pods" };
    let object = [&b"{\"kind\":\"Secret\",\"data\":{\"a\":\""[..], MARK, b"\"}}"].concat();
    let at = body.iter().position(|byte| *byte == b'@');
    if let Some(at) = at {
        body.splice(at..=at, object);
    }
    let head = Head { method: "GET", target, content_type: None };
    let Ok(action) = Request::read(&head).and_then(|request| request.with_body(b"")) else { return };
    let detectors = Arc::new(Detectors::compile(&["private_key", "jwt"]).unwrap());
    let Ok(mut filter) = Filter::new(&action, Some("application/json"), &Masks { shown: policy::ShownSecrets::None, detectors })
    else {
        return;
    };
    let mut out = Vec::new();
    let (first, second) = body.split_at(body.len() * usize::from(cut) / 255);
    let done = filter
        .push(first, &mut out)
        .and_then(|()| filter.push(second, &mut out))
        .and_then(|()| filter.finish(&mut out));
    // Inside of a string it is text like any other.
    if done.is_ok() && !body.contains(&b'\\') && is_value(&body, at) {
        assert!(!out.windows(MARK.len()).any(|window| window == MARK), "{}", String::from_utf8_lossy(&out));
    }
});

/// The object stands where no string is open.
fn is_value(body: &[u8], at: Option<usize>) -> bool {
    at.is_some_and(|at| body[..at].iter().filter(|byte| **byte == b'"').count() % 2 == 0)
}
