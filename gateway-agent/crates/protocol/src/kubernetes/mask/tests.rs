//! What is shown of answers.

use std::sync::Arc;

use mask::Detectors;
use policy::ShownSecrets;
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::{Head, Request};

const MARK: &str = "TUFSS0VSLXMzY3IzdC12YWx1ZQ==";
const PLAIN: &str = "MARKER-s3cr3t-value";

fn masks() -> Masks {
    let detectors = Detectors::compile(&["aws_access_key", "private_key", "jwt"]).unwrap();
    Masks { shown: ShownSecrets::None, detectors: Arc::new(detectors) }
}

fn filter(target: &str, content_type: &str) -> Filter {
    let head = Head { method: "GET", target, content_type: None };
    let action = Request::read(&head).unwrap().with_body(b"").unwrap();
    Filter::new(&action, Some(content_type), &masks()).unwrap()
}

fn shown_in(target: &str, body: &str, size: usize) -> Result<String, Withheld> {
    let mut filter = filter(target, "application/json");
    let mut out = Vec::new();
    for piece in body.as_bytes().chunks(size) {
        filter.push(piece, &mut out)?;
    }
    filter.finish(&mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn shown(target: &str, body: &str) -> String {
    let whole = shown_in(target, body, body.len().max(1)).unwrap();
    for size in [1, 2, 7, 64] {
        assert_eq!(shown_in(target, body, size).unwrap(), whole, "in pieces of {size}");
    }
    whole
}

const SECRETS: &str = "/api/v1/namespaces/a/secrets";
const PODS: &str = "/api/v1/namespaces/a/pods";

fn secret() -> Value {
    json!({ "kind": "Secret", "apiVersion": "v1", "metadata": { "name": "s", "annotations": {
        "kubectl.kubernetes.io/last-applied-configuration":
            json!({ "apiVersion": "v1", "data": { "password": MARK }, "kind": "Secret", "metadata": { "name": "s" } }).to_string() + "\n",
    } }, "data": { "password": MARK, "user": MARK }, "type": "Opaque" })
}

#[track_caller]
fn hides(target: &str, body: &str) -> String {
    let out = shown(target, body);
    for secret in [MARK, PLAIN] {
        assert!(!out.contains(secret), "{target}: {out}");
    }
    out
}

#[test]
fn what_needs_no_mask_keeps_its_bytes() {
    let pod =
        "{ \"kind\" : \"Pod\",\n\t\"spec\":{\"a\":[1,-2.5e3,true,null,\"x\\u003cy\\n\"],\"\\u0061\":{}} }\n";
    for body in [
        pod,
        "{}",
        "{\"items\":[]}",
        "\n",
        "",
        "[1, 2]",
        "\"x\"",
        "{\"items\":[{\"a\":1},\n{\"b\":2}],\"z\":1}\n",
    ] {
        assert_eq!(shown(PODS, body), body);
    }
}

#[test]
fn secrets_are_hidden_in_every_shape() {
    let one = secret();
    let text = |value: &Value| value.to_string();
    let single = hides(SECRETS, &text(&one));
    let read: Value = serde_json::from_str(&single).unwrap();
    assert_eq!(read["data"]["password"], crate::kubernetes::marker::SECRET_BASE64);
    assert_eq!(read["type"], "Opaque");
    let applied =
        read["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str().unwrap();
    let applied: Value = serde_json::from_str(applied).unwrap();
    assert_eq!(applied["metadata"]["name"], "s");

    let mut bare = one.clone();
    bare.as_object_mut().unwrap().remove("kind");
    let list = json!({ "kind": "SecretList", "metadata": {}, "items": [bare, bare] });
    hides(SECRETS, &text(&list));
    hides(SECRETS, &text(&json!({ "items": [bare] })));
    // Partial metadata, alone and in tables: annotations may hold a copy.
    let partial = json!({ "kind": "PartialObjectMetadata", "metadata": one["metadata"] });
    hides(SECRETS, &text(&partial));
    hides(SECRETS, &text(&json!({ "kind": "PartialObjectMetadataList", "items": [partial] })));
    let table = json!({ "kind": "Table", "columnDefinitions": [{ "name": "Name" }], "rows": [{ "cells": ["s", "Opaque", 2], "object": partial }, { "cells": [], "object": one }] });
    let table = hides(SECRETS, &text(&table));
    assert!(table.contains(r#""cells":["s","Opaque",2]"#), "{table}");
    let events: String = ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
        .iter()
        .map(|kind| text(&json!({ "type": kind, "object": one })) + "\n")
        .collect();
    assert_eq!(hides(SECRETS, &events).lines().count(), 4);
    hides(SECRETS, &text(&json!({ "type": "ADDED", "object": table_of(&one) })));
    // Other ways to ask, and other kinds around it.
    for target in [PODS, "/apis/example.org/v1/things", "/api/v1/watch/namespaces/a/pods"] {
        hides(target, &text(&one));
        hides(target, &text(&json!({ "kind": "List", "items": [{ "kind": "Pod" }, one] })));
        hides(target, &text(&json!({ "kind": "SecretList", "items": [bare] })));
        hides(target, &text(&json!({ "spec": { "template": [[one]] } })));
        hides(target, &text(&json!({ "type": "ADDED", "object": one })));
        hides(target, &text(&json!({ "metadata": { "annotations": { "copy": text(&one) } } })));
        hides(target, &text(&json!({ "data": { "list.json": text(&json!([one])) } })));
        hides(target, &text(&json!({ "data": { "deep": text(&json!({ "inner": text(&one) })) } })));
    }
}

fn table_of(object: &Value) -> Value {
    json!({ "kind": "Table", "rows": [{ "cells": [], "object": object }] })
}

#[test]
fn odd_writing_hides_nothing_from_the_mask() {
    for body in [
        // Members before the kind, twice, in other letters, with escapes.
        format!(r#"{{"data":{{"a":"{MARK}"}},"kind":"Secret"}}"#),
        format!(r#"{{"kind":"Pod","data":{{"a":"{MARK}"}},"kind":"Secret"}}"#),
        format!(r#"{{"kind":"\u0053ecret","data":{{"a":"{MARK}"}}}}"#),
        format!(r#"{{"\u006bind":"Secret","d\u0061ta":{{"a":"{MARK}"}}}}"#),
        format!(r#"{{"Kind":"Secret","Data":{{"a":"{MARK}"}}}}"#),
        format!(r#"{{"kind":"Secret","stringData":{{"a":"{PLAIN}"}}}}"#),
        format!(r#"{{"kind":"Secret","data":["{MARK}",{{"x":["{MARK}"]}}]}}"#),
        format!(r#"{{"kind":"Secret","data":"{MARK}"}}"#),
        format!(r#"{{"kind" : "Secret" , "data" : {{ "a" : "{MARK}" }} }}"#),
        format!(r#"{{"spec":{{"data":{{"a":"{MARK}"}},"kind":"Secret"}}}}"#),
        // An envelope that says only behind its elements what it is.
        format!(r#"{{"items":[{{}}],"data":{{"a":"{MARK}"}},"kind":"Secret"}}"#),
        format!(r#"{{"data":{{"a":"{MARK}"}},"items":[{{}}],"kind":"Secret"}}"#),
        format!("{{\"a\":\"kind: Secret\\ndata:\\n  a: {MARK}\\n\"}}"),
        format!("{{\"a\":\"- apiVersion: v1\\n  kind: \\\"Secret\\\"\\n  data: {{a: {MARK}}}\\n\"}}"),
        format!(r#"{{"a":"{{\"kind\":\"Secret\",\"data\":{{\"a\":\"{MARK}\"}}"}}"#),
    ] {
        hides(PODS, &body);
    }
    // In answers about Secrets a copy that cannot be read is hidden as a whole.
    hides(SECRETS, &format!(r#"{{"metadata":{{"annotations":{{"x":"{{\"data\":{{\"a\":\"{MARK}\""}}}}}}"#));
}

#[test]
fn refusals_do_not_quote_secrets() {
    let status = |reason: &str| {
        json!({ "kind": "Status", "status": "Failure", "reason": reason, "code": 422, "message": format!("bigger context |{PLAIN}|"),
            "details": { "name": "s", "causes": [{ "reason": "x", "message": PLAIN, "field": "data" }] } }).to_string()
    };
    for reason in ["Invalid", "BadRequest", "InternalError", "Odd"] {
        let out = hides(SECRETS, &status(reason));
        assert!(out.contains(r#""name":"s""#), "{out}");
    }
    let missing =
        json!({ "kind": "Status", "reason": "NotFound", "message": "secrets \"s\" not found" }).to_string();
    assert_eq!(shown(SECRETS, &missing), missing);
    let event =
        json!({ "type": "ERROR", "object": serde_json::from_str::<Value>(&status("Invalid")).unwrap() });
    hides(SECRETS, &event.to_string());
    assert_eq!(shown(PODS, &status("Invalid")), status("Invalid"));
}

#[test]
fn detectors_look_everywhere() {
    const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
    for body in [
        json!({ "kind": "ConfigMap", "data": { "a": KEY } }),
        json!({ "spec": { "containers": [{ "env": [{ "name": "K", "value": format!("x {KEY}") }] }] } }),
        json!({ "kind": "Status", "message": format!("invalid value: {KEY}"), "details": { "causes": [{ "message": KEY }] } }),
        json!({ "kind": "Table", "rows": [{ "cells": [KEY] }] }),
        json!({ "type": "ERROR", "object": { "message": KEY } }),
        json!({ KEY: 1 }),
        json!([KEY]),
    ] {
        let out = shown(PODS, &body.to_string());
        assert!(!out.contains(KEY), "{out}");
        assert!(serde_json::from_str::<Value>(&out).is_ok(), "{out}");
    }
    let escaped = r#"{"a":"\u0041KIAIOSFODNN7EXAMPLE"}"#;
    assert_eq!(shown(PODS, escaped), r#"{"a":"[redacted:aws_access_key]"}"#);
    let mut logs = filter("/api/v1/namespaces/a/pods/x/log", "text/plain");
    let mut out = Vec::new();
    logs.push(b"key AKIAIOSF", &mut out).unwrap();
    logs.push(b"ODNN7EXAMPLE\nmore", &mut out).unwrap();
    logs.finish(&mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "key [redacted:aws_access_key]\nmore");
    assert_eq!(logs.hidden(), 1);
}

#[test]
fn what_is_no_json_is_withheld() {
    for body in [
        "{",
        "{\"a\":1",
        "}",
        "{\"a\" 1}",
        "{\"a\":}",
        "{a:1}",
        "[1,]",
        "{\"a\":1,}",
        "[1 2]",
        "<html>",
        "{\"a\":tru}",
        "\"x",
        "{]",
        "{\"items\":[}",
    ] {
        assert!(shown_in(PODS, body, 3).is_err(), "{body}");
    }
    assert!(shown_in(PODS, &("[".repeat(1000) + &"]".repeat(1000)), 64).is_err());
    assert!(shown_in(PODS, "{\"a\":\"\n\"}", 64).is_err());
}

#[test]
fn a_long_list_is_not_held() {
    let item = format!(
        "{},",
        json!({ "metadata": { "name": "x".repeat(100) }, "spec": { "a": "b".repeat(10_000) } })
    );
    let mut filter = filter(PODS, "application/json");
    let mut out = Vec::new();
    filter.push(b"{\"kind\":\"PodList\",\"items\":[", &mut out).unwrap();
    let mut most = 0;
    for _ in 0..5_000 {
        out.clear();
        filter.push(item.as_bytes(), &mut out).unwrap();
        most = most.max(out.len());
    }
    assert!(most < 2 * item.len());
}

#[test]
fn shown_secrets_are_shown_where_policy_says_so() {
    let head = Head { method: "GET", target: SECRETS, content_type: None };
    let action = Request::read(&head).unwrap().with_body(b"").unwrap();
    let open = Masks { shown: ShownSecrets::All, ..masks() };
    let mut filter = Filter::new(&action, Some("application/json"), &open).unwrap();
    let mut out = Vec::new();
    filter.push(secret().to_string().as_bytes(), &mut out).unwrap();
    filter.finish(&mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), secret().to_string());
}

#[test]
fn of_several_secrets_those_of_a_name_are_shown() {
    let head = Head { method: "GET", target: SECRETS, content_type: None };
    let action = Request::read(&head).unwrap().with_body(b"").unwrap();
    let shown = ShownSecrets::named(&["release.*"]).unwrap();
    let show = |body: &Value, size: usize| {
        let masks = Masks { shown: shown.clone(), ..masks() };
        let mut filter = Filter::new(&action, Some("application/json"), &masks).unwrap();
        let mut out = Vec::new();
        let text = body.to_string();
        text.as_bytes().chunks(size).for_each(|piece| filter.push(piece, &mut out).unwrap());
        filter.finish(&mut out).unwrap();
        serde_json::from_slice::<Value>(&out).unwrap()
    };
    let of = |name: &str| {
        // A label, an annotation or a value that says the name is no name.
        json!({ "kind": "Secret", "data": { "a": MARK, "name": MARK }, "metadata": { "name": name,
            "labels": { "name": "release.v1" }, "annotations": { "x": "{\"kind\":\"Secret\",\"metadata\":{\"name\":\"release.v1\"},\"stringData\":{\"a\":\"MARKER\"}}" } } })
    };
    let (open, closed) = (of("release.v1"), of("db"));
    let untyped = |mut object: Value| {
        object.as_object_mut().unwrap().remove("kind");
        object
    };
    for size in [1, 7, 100_000] {
        assert_eq!(show(&open, size)["data"]["a"], MARK);
        assert!(!show(&closed, size).to_string().contains("MARKER"));
        let list = json!({ "kind": "SecretList", "metadata": { "resourceVersion": "1" },
            "items": [untyped(open.clone()), untyped(closed.clone()), untyped(open.clone())] });
        let list = show(&list, size);
        assert_eq!(list["items"][0]["data"]["a"], MARK);
        assert_eq!(list["items"][2]["data"]["a"], MARK);
        assert!(
            !list["items"][1].to_string().contains(MARK) && !list["items"][1].to_string().contains("MARKER")
        );
        for (object, wanted) in [(&open, true), (&closed, false)] {
            let event = show(&json!({ "type": "ADDED", "object": object }), size);
            assert_eq!(event["object"]["data"]["a"] == MARK, wanted, "{event}");
            let row = json!({ "kind": "Table", "rows": [{ "cells": ["x"], "object": object }] });
            assert_eq!(show(&row, size)["rows"][0]["object"]["data"]["a"] == MARK, wanted, "{row}");
        }
        // Called so twice, or in another place.
        let twice = r#"{"kind":"Secret","metadata":{"name":"release.v1"},"metadata":{"name":"db"},"data":{"a":"TUFSS0VS"}}"#;
        let mut filter =
            Filter::new(&action, Some("application/json"), &Masks { shown: shown.clone(), ..masks() })
                .unwrap();
        let mut out = Vec::new();
        twice.as_bytes().chunks(size).for_each(|piece| filter.push(piece, &mut out).unwrap());
        assert!(!String::from_utf8(out).unwrap().contains("TUFSS0VS"));
    }
}
