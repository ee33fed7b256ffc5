//! What a change would do, in lines for whoever has to agree to it.
//!
//! [`looks`] says what to ask of the server first, with the gateway's own credential; [`describe`] tells the change from the answers.
//! Values of Secrets are never in it.

use std::fmt::Write as _;

use policy::{ApiResource, Kubernetes, PatchKind};
use serde_json::{Map, Value};

use super::{json, patch};

/// Most lines of one description, and most characters of one value.
const LINES: usize = 200;
const VALUE: usize = 200;
/// Members that the server keeps by itself.
const KEPT: &[&str] =
    &["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"];
/// What is counted of a namespace that goes: group, version, resource.
const INSIDE: &[(&str, &str, &str)] = &[
    ("", "v1", "pods"),
    ("", "v1", "services"),
    ("", "v1", "configmaps"),
    ("", "v1", "secrets"),
    ("", "v1", "persistentvolumeclaims"),
    ("apps", "v1", "deployments"),
    ("apps", "v1", "statefulsets"),
    ("batch", "v1", "jobs"),
];
/// What may belong to another object: group, version, resource.
const OWNED: &[(&str, &str, &str)] =
    &[("apps", "v1", "replicasets"), ("", "v1", "pods"), ("batch", "v1", "jobs")];

/// A question to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// What it is about, in a word: `pods`.
    pub what: String,
    /// Path and query of a GET.
    pub target: String,
    kind: LookKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LookKind {
    /// The object as it is.
    Live,
    /// How many there are.
    Count,
    /// Those that belong to the object.
    Dependents,
}

/// What to ask before a change can be described; empty = nothing is changed that exists.
pub fn looks(action: &Kubernetes) -> Vec<Look> {
    let Some(of) = action.resource() else { return Vec::new() };
    let live = |target: String| Look { what: of.resource.clone(), target, kind: LookKind::Live };
    match action.verb.as_str() {
        "update" | "patch" if of.name.is_some() => vec![live(path(of, true))],
        "delete" if of.is_core("namespaces") && of.subresource.is_none() => {
            let namespace = of.name.clone().unwrap_or_default();
            let inside = INSIDE.iter().map(|(group, version, resource)| Look {
                what: (*resource).to_owned(),
                target: format!("{}?limit=1", list(group, version, &namespace, resource)),
                kind: LookKind::Count,
            });
            std::iter::once(live(path(of, true))).chain(inside).collect()
        }
        "delete" => {
            let namespace = of.namespace.clone().unwrap_or_default();
            let owned =
                OWNED.iter().filter(|_| !namespace.is_empty()).map(|(group, version, resource)| Look {
                    what: (*resource).to_owned(),
                    target: format!("{}?limit=500", list(group, version, &namespace, resource)),
                    kind: LookKind::Dependents,
                });
            std::iter::once(live(path(of, true))).chain(owned).collect()
        }
        "deletecollection" => {
            let mut target = format!("{}?limit=500", path(of, false));
            if !of.labels.is_empty() {
                let _ = write!(target, "&labelSelector={}", encode(&of.labels.join(",")));
            }
            if let Some(fields) = &of.fields {
                let _ = write!(target, "&fieldSelector={}", encode(fields));
            }
            vec![Look { what: of.resource.clone(), target, kind: LookKind::Count }]
        }
        _ => Vec::new(),
    }
}

fn list(group: &str, version: &str, namespace: &str, resource: &str) -> String {
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    format!("{root}/namespaces/{namespace}/{resource}")
}

fn path(of: &ApiResource, with_name: bool) -> String {
    let mut path = match of.group.as_str() {
        "" => format!("/api/{}", of.version),
        group => format!("/apis/{group}/{}", of.version),
    };
    if let Some(namespace) = of.namespace.as_ref().filter(|_| of.resource != "namespaces") {
        let _ = write!(path, "/namespaces/{namespace}");
    }
    let _ = write!(path, "/{}", of.resource);
    if let Some(name) = of.name.as_ref().filter(|_| with_name) {
        let _ = write!(path, "/{}", encode(name));
    }
    path
}

fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// The change in lines. `answers`: to [`looks`], in their order; `None` where the server did not answer with an object. `body`: of the
/// request.
pub fn describe(action: &Kubernetes, body: &[u8], answers: &[(Look, Option<Value>)]) -> Vec<String> {
    let mut lines =
        Lines { hides: action.resource().is_some_and(|of| of.is_core("secrets")), lines: Vec::new() };
    for risk in &action.risks {
        lines.add(format!("! it asks for {risk}"));
    }
    let live =
        answers.iter().find(|(look, _)| look.kind == LookKind::Live).and_then(|(_, value)| value.as_ref());
    let asked = json::read(body).ok();
    match (action.verb.as_str(), &asked) {
        ("create", Some(asked)) if action.stream.is_none() => lines.value('+', "", asked),
        ("update", Some(asked)) => match live {
            Some(live) => lines.compare("", live, asked, true),
            None => {
                lines.add("the object as it is now could not be read".to_owned());
                lines.value('+', "", asked);
            }
        },
        ("patch", Some(Value::Array(_))) if action.patch == Some(PatchKind::Json) => {
            lines.operations(live, asked.as_ref().unwrap_or(&Value::Null));
        }
        ("patch", Some(asked)) => match live {
            Some(live) => lines.compare("", live, asked, false),
            None => {
                lines.add("there is no such object yet, or it could not be read".to_owned());
                lines.value('+', "", asked);
            }
        },
        _ => {}
    }
    counts(action, live, answers, &mut lines);
    lines.lines
}

/// What a delete would take.
fn counts(action: &Kubernetes, live: Option<&Value>, answers: &[(Look, Option<Value>)], lines: &mut Lines) {
    let uid = live.and_then(|live| live.pointer("/metadata/uid")).and_then(Value::as_str);
    if let Some(owners) =
        live.and_then(|live| live.pointer("/metadata/ownerReferences")).and_then(Value::as_array)
        && action.verb == "delete"
    {
        for owner in owners {
            let text = |name: &str| owner.get(name).and_then(Value::as_str).unwrap_or("?");
            lines.add(format!("it belongs to {} {}, which may make it again", text("kind"), text("name")));
        }
    }
    // Owners' owners: a deployment's pods belong to its replica sets.
    let mut owners: Vec<&str> = uid.into_iter().collect();
    for (look, answer) in answers {
        let items = answer.as_ref().and_then(|answer| answer.get("items")).and_then(Value::as_array);
        match (look.kind, items) {
            (LookKind::Live, _) => {}
            (_, None) => lines.add(format!("how many {} there are could not be asked", look.what)),
            (LookKind::Count, Some(items)) => {
                let more = answer.as_ref().and_then(|answer| answer.pointer("/metadata/remainingItemCount"));
                let more = more.and_then(Value::as_u64).unwrap_or(0);
                let count = u64::try_from(items.len()).unwrap_or(u64::MAX).saturating_add(more);
                let open = answer.as_ref().and_then(|answer| answer.pointer("/metadata/continue"));
                let open = more == 0 && open.and_then(Value::as_str).is_some_and(|text| !text.is_empty());
                let least = if open { "at least " } else { "" };
                if count > 0 || action.verb == "deletecollection" {
                    lines.add(format!("- {least}{count} {}", look.what));
                }
                if action.verb == "deletecollection" {
                    for name in
                        items.iter().filter_map(|item| item.pointer("/metadata/name")?.as_str()).take(20)
                    {
                        lines.add(format!("-   {name}"));
                    }
                }
            }
            (LookKind::Dependents, Some(items)) => {
                let belongs = |item: &&Value| {
                    let of = item.pointer("/metadata/ownerReferences").and_then(Value::as_array);
                    let of = of.into_iter().flatten().filter_map(|owner| owner.get("uid")?.as_str());
                    of.into_iter().any(|uid| owners.contains(&uid))
                };
                let found: Vec<_> = items.iter().filter(belongs).collect();
                if !found.is_empty() {
                    let fate = match action.propagation.as_deref() {
                        Some("Orphan") => "stay without an owner",
                        _ => "go with it",
                    };
                    lines.add(format!("- {} {} {fate}", found.len(), look.what));
                }
                owners.extend(found.iter().filter_map(|item| item.pointer("/metadata/uid")?.as_str()));
            }
        }
    }
}

struct Lines {
    hides: bool,
    lines: Vec<String>,
}

impl Lines {
    fn add(&mut self, line: String) {
        match self.lines.len() {
            LINES => self.lines.push("…".to_owned()),
            known if known < LINES => self.lines.push(line),
            _ => {}
        }
    }

    fn show(&self, at: &str, value: &Value) -> String {
        if self.hides
            && (at.starts_with(".data") || at.starts_with(".stringData") || at.contains("last-applied"))
        {
            return "(hidden)".to_owned();
        }
        let text = match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        match text.char_indices().nth(VALUE) {
            Some((end, _)) => format!("{} …", text.get(..end).unwrap_or_default()),
            None => text,
        }
    }

    /// Everything below a value, a line each.
    fn value(&mut self, mark: char, at: &str, value: &Value) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                for (name, value) in members {
                    self.value(mark, &format!("{at}.{name}"), value);
                }
            }
            Value::Array(list) if !list.is_empty() => {
                for (index, value) in list.iter().enumerate() {
                    self.value(mark, &format!("{at}[{index}]"), value);
                }
            }
            value => {
                let shown = self.show(at, value);
                self.add(format!("{mark} {at}: {shown}"));
            }
        }
    }

    /// `whole`: what is missing in what is asked for is removed.
    fn compare(&mut self, at: &str, live: &Value, asked: &Value, whole: bool) {
        match (live, asked) {
            (live, asked) if live == asked => {}
            (Value::Object(live), Value::Object(asked)) => self.members(at, live, asked, whole),
            (Value::Array(live), Value::Array(asked)) => self.elements(at, live, asked, whole),
            (live, Value::Null) if !whole => self.value('-', at, live),
            (live, asked) => {
                if live.is_object() || live.is_array() || asked.is_object() || asked.is_array() {
                    self.value('-', at, live);
                    self.value('+', at, asked);
                } else {
                    let (old, new) = (self.show(at, live), self.show(at, asked));
                    self.add(format!("~ {at}: {old} -> {new}"));
                }
            }
        }
    }

    fn members(&mut self, at: &str, live: &Map<String, Value>, asked: &Map<String, Value>, whole: bool) {
        let kept = |name: &str| {
            (at == ".metadata" && KEPT.contains(&name)) || (whole && at.is_empty() && name == "status")
        };
        for (name, value) in asked.iter().filter(|(name, _)| !kept(name)) {
            let at = format!("{at}.{name}");
            match live.get(name) {
                Some(live) => self.compare(&at, live, value, whole),
                None if value.is_null() => {}
                None => self.value('+', &at, value),
            }
        }
        if whole {
            for (name, value) in live.iter().filter(|(name, _)| !kept(name) && !asked.contains_key(*name)) {
                self.value('-', &format!("{at}.{name}"), value);
            }
        }
    }

    /// Elements that have names are compared by them.
    fn elements(&mut self, at: &str, live: &[Value], asked: &[Value], whole: bool) {
        let name = |value: &Value| value.get("name").and_then(Value::as_str).map(str::to_owned);
        for (index, value) in asked.iter().enumerate() {
            match name(value) {
                Some(named) => {
                    let at = format!("{at}[{named}]");
                    match live.iter().find(|live| name(live).as_ref() == Some(&named)) {
                        Some(live) => self.compare(&at, live, value, whole),
                        None => self.value('+', &at, value),
                    }
                }
                None => {
                    let at = format!("{at}[{index}]");
                    match live.get(index) {
                        Some(live) => self.compare(&at, live, value, whole),
                        None => self.value('+', &at, value),
                    }
                }
            }
        }
        if whole {
            for (index, value) in live.iter().enumerate() {
                let gone = match name(value) {
                    Some(named) => !asked.iter().any(|asked| name(asked).as_ref() == Some(&named)),
                    None => index >= asked.len(),
                };
                if gone {
                    let place = name(value).unwrap_or_else(|| index.to_string());
                    self.value('-', &format!("{at}[{place}]"), value);
                }
            }
        }
    }

    fn operations(&mut self, live: Option<&Value>, asked: &Value) {
        let Ok(operations) = patch::read(asked) else { return };
        for operation in operations {
            let at = operation.path();
            let old = live.and_then(|live| live.pointer(&operation.pointer()));
            let old = old.map_or_else(|| "(none)".to_owned(), |old| self.show(&at, old));
            let line = match operation.asked() {
                Some(new) => format!("~ {at}: {old} -> {}", self.show(&at, new)),
                None => format!("~ {at}: {old}: {}", operation.name()),
            };
            self.add(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kubernetes::{Head, Request};

    fn ask(method: &str, target: &str, kind: &str, body: &Value) -> Kubernetes {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let head = Head { method, target, content_type: Some(kind) };
        Request::read(&head).unwrap().with_body(text.as_bytes()).unwrap()
    }

    fn described(method: &str, target: &str, kind: &str, body: &Value, answers: &[Value]) -> Vec<String> {
        let action = ask(method, target, kind, body);
        let looks = looks(&action);
        assert_eq!(looks.len(), answers.len(), "{looks:?}");
        let answers: Vec<_> =
            looks.into_iter().zip(answers.iter().map(|answer| Some(answer.clone()))).collect();
        describe(&action, body.to_string().as_bytes(), &answers)
    }

    const WEB: &str = "/apis/apps/v1/namespaces/a/deployments/web";

    #[test]
    fn changes_are_told_against_what_is_there() {
        let live = json!({ "metadata": { "uid": "u", "resourceVersion": "7", "labels": { "x": "y" } },
            "spec": { "replicas": 2, "template": { "spec": { "containers": [{ "name": "web", "image": "a:1" }, { "name": "side", "image": "s" }] } } }, "status": { "z": 1 } });
        let strategic = "application/strategic-merge-patch+json";
        let patch = json!({ "spec": { "replicas": 3, "template": { "spec": { "hostNetwork": true, "containers": [{ "name": "web", "image": "a:2" }] } } } });
        assert_eq!(
            described("PATCH", WEB, strategic, &patch, std::slice::from_ref(&live)),
            [
                "! it asks for the node's network",
                "~ .spec.replicas: 2 -> 3",
                "~ .spec.template.spec.containers[web].image: a:1 -> a:2",
                "+ .spec.template.spec.hostNetwork: true",
            ]
        );
        let mut whole = live.clone();
        whole["spec"]["template"]["spec"]["containers"] = json!([{ "name": "web", "image": "a:1" }]);
        whole.as_object_mut().unwrap().remove("status");
        assert_eq!(
            described("PUT", WEB, "application/json", &whole, std::slice::from_ref(&live)),
            [
                "- .spec.template.spec.containers[side].image: s",
                "- .spec.template.spec.containers[side].name: side"
            ]
        );
        let operations = json!([{ "op": "replace", "path": "/spec/replicas", "value": 5 }, { "op": "remove", "path": "/metadata/labels/x" }]);
        assert_eq!(
            described("PATCH", WEB, "application/json-patch+json", &operations, std::slice::from_ref(&live)),
            ["~ .spec.replicas: 2 -> 5", "~ .metadata.labels.x: y: remove"]
        );
        let created = json!({ "metadata": { "name": "x" } });
        assert_eq!(
            described("POST", "/api/v1/namespaces/a/pods", "application/json", &created, &[]),
            ["+ .metadata.name: x"]
        );
    }

    #[test]
    fn deletes_tell_what_goes_with_them() {
        let live = json!({ "metadata": { "uid": "d", "ownerReferences": [{ "kind": "App", "name": "shop", "uid": "o" }] } });
        let owned = |uid: &str, owner: &str| json!({ "metadata": { "uid": uid, "ownerReferences": [{ "uid": owner }] } });
        let sets = json!({ "items": [owned("r", "d"), owned("q", "other")] });
        let pods = json!({ "items": [owned("1", "r"), owned("2", "r"), owned("3", "q")] });
        let none = json!({ "items": [] });
        assert_eq!(
            described("DELETE", WEB, "application/json", &Value::Null, &[live.clone(), sets, pods, none]),
            [
                "it belongs to App shop, which may make it again",
                "- 1 replicasets go with it",
                "- 2 pods go with it"
            ]
        );
        let named = |name: &str| json!({ "metadata": { "name": name } });
        let some = json!({ "metadata": { "continue": "x" }, "items": [named("a"), named("b")] });
        let target = "/api/v1/namespaces/a/pods?labelSelector=app%3Dweb";
        assert_eq!(
            looks(&ask("DELETE", target, "", &Value::Null))[0].target,
            "/api/v1/namespaces/a/pods?limit=500&labelSelector=app%3Dweb"
        );
        assert_eq!(
            described("DELETE", target, "application/json", &Value::Null, &[some]),
            ["- at least 2 pods", "-   a", "-   b"]
        );
        let mut answers = vec![live];
        answers.extend((0..8).map(|count| json!({ "metadata": { "remainingItemCount": 4 }, "items": if count == 0 { vec![named("p")] } else { vec![] } })));
        let lines = described("DELETE", "/api/v1/namespaces/a", "application/json", &Value::Null, &answers);
        assert_eq!(lines[1], "- 5 pods");
    }

    #[test]
    fn values_of_secrets_are_in_no_description() {
        let live = json!({ "data": { "password": "T0xE" }, "metadata": { "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "T0xE" } } });
        let secret = "/api/v1/namespaces/a/secrets/s";
        for (kind, body) in [
            ("application/merge-patch+json", json!({ "data": { "password": "TkVX" } })),
            (
                "application/json-patch+json",
                json!([{ "op": "replace", "path": "/data/password", "value": "TkVX" }]),
            ),
        ] {
            let lines = described("PATCH", secret, kind, &body, std::slice::from_ref(&live)).join("\n");
            assert!(
                lines.contains("password: (hidden) -> (hidden)")
                    && !lines.contains("TkVX")
                    && !lines.contains("T0xE"),
                "{lines}"
            );
        }
        let put =
            described("PUT", secret, "application/json", &json!({ "stringData": { "a": "NEW" } }), &[live])
                .join("\n");
        assert!(!put.contains("NEW") && !put.contains("T0xE"), "{put}");
    }
}
