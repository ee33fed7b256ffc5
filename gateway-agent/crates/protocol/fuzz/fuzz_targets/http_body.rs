//! What a server may send as a body: whatever the coding and however it is cut, a value that is masked by path is not shown.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use mask::{Detectors, JsonPath, Transform};
use protocol::http::body::{Body, Search};

const CODINGS: [Option<&str>; 5] = [None, Some("gzip"), Some("deflate"), Some("br"), Some("zstd")];

fuzz_target!(|input: (u8, bool, Vec<Vec<u8>>)| {
    let (coding, json, pieces) = input;
    let coding = CODINGS[usize::from(coding) % CODINGS.len()];
    let detectors = Arc::new(Detectors::compile(&["email", "private_key"]).expect("detectors"));
    let paths: Arc<[_]> = [(JsonPath::parse("$..token").expect("a path"), Transform::Redact)].into();
    let none: Arc<[_]> = Arc::new([]);
    let search = match json {
        true => Search::of("application/json", &paths, Some(&detectors)),
        false => Search::of("text/plain", &none, Some(&detectors)),
    };
    let mut body = Body::new(coding, search.expect("a search")).expect("a body");
    let mut shown = Vec::new();
    for piece in &pieces {
        let mut input = piece.as_slice();
        loop {
            let before = shown.len();
            match body.step(&mut input, &mut shown) {
                Ok(true) => assert!(shown.len() - before <= (1 << 20) + 8 * piece.len(), "a step shows too much"),
                Ok(false) => break,
                Err(_) => return,
            }
        }
    }
    // Read whole, it is what a reader of JSON would see, but for what is hidden.
    if body.finish(&mut shown).is_ok() && json && coding.is_none() {
        let whole = pieces.concat();
        let documents = serde_json::Deserializer::from_slice(&whole).into_iter::<serde_json::Value>();
        let before: Result<Vec<_>, _> = documents.collect();
        let after: Result<Vec<_>, _> =
            serde_json::Deserializer::from_slice(&shown).into_iter::<serde_json::Value>().collect();
        if let (Ok(before), Ok(after)) = (before, after) {
            assert_eq!(before.len(), after.len());
            for value in &after {
                no_token(value);
            }
        }
    }
});

fn no_token(value: &serde_json::Value) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, value) in members {
                assert!(name != "token" || value == "[redacted]", "{value}");
                no_token(value);
            }
        }
        serde_json::Value::Array(elements) => elements.iter().for_each(no_token),
        _ => {}
    }
}
