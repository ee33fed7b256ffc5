//! What a job may send as the head of a request: whatever is allowed has one meaning, and it is what the rule says.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use libfuzzer_sys::fuzz_target;
use policy::{Effect, Http, Scheme};
use protocol::http::{
    fields,
    target::{self, Came},
};
use protocol_fuzz::ask_http;

fuzz_target!(|input: (bool, &str, &str, Vec<(&str, &[u8])>)| {
    let (h2, method, target, pairs) = input;
    // Alone: every text has an answer.
    drop(target::path(target));
    drop(target::query(target));
    drop(target::host_port(target));
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers.entry("host").or_insert(HeaderValue::from_static("api.example"));
    let Ok(uri) = target.parse::<Uri>() else { return };
    let version = if h2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let came = Came { scheme: Scheme::Https, name: Some("api.example"), port: 443 };
    let Ok(request) = target::read(came, method, &uri, version, &headers) else { return };
    assert_eq!((request.host.as_str(), request.port), ("api.example", 443));
    let path = request.path.clone();
    if let Effect::Allow(_) = ask_http(Http::Request(request)) {
        assert!(path.ambiguous.is_empty() && path.readings.is_empty(), "{path:?}");
        assert_eq!(path.segments.first().map(String::as_str), Some("open"), "{path:?}");
        assert!(method == "GET");
    }
    fields::request(&mut headers, &[]);
    for name in ["host", "connection", "transfer-encoding", "content-length", "upgrade", "expect", "x-original-url"] {
        assert!(!headers.contains_key(name), "{name}");
    }
});
