//! What an object asks for beyond itself.
//!
//! Found by the names of members, wherever they stand: in pods, in templates, in patches that hold a part only, in objects of kinds
//! that hold pods and that nobody here knows. Names count in any case of letters, as lenient servers read them.

use policy::{ApiResource, Risk};
use serde_json::{Map, Value};

/// Everything found, each once.
pub(super) fn of(resource: &ApiResource, value: &Value) -> Vec<Risk> {
    let mut risks = Vec::new();
    match (resource.group.as_str(), resource.resource.as_str()) {
        // A schema describes members that it does not have.
        ("apiextensions.k8s.io", _) => {
            if has(value, "webhook", says) || has(value, "webhookClientConfig", says) {
                risks.push(Risk::ApiExtension);
            }
            owned(value, &mut risks);
        }
        // Reviews: they ask, and change nothing.
        ("authorization.k8s.io" | "authentication.k8s.io", _) => {}
        ("rbac.authorization.k8s.io", kind) => {
            owned(value, &mut risks);
            rights(kind, value, &mut risks);
        }
        ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => {
            risks.push(Risk::ApiExtension);
            owned(value, &mut risks);
        }
        // Their data are no members of anything.
        ("", "configmaps") => owned(value, &mut risks),
        ("", "secrets") => {
            owned(value, &mut risks);
            match value.get("type").and_then(Value::as_str) {
                // The cluster writes a token of the account into it, and logs in whoever shows a bootstrap token.
                Some("kubernetes.io/service-account-token") => risks.push(Risk::ServiceAccount),
                Some("bootstrap.kubernetes.io/token") => risks.push(Risk::Escalation),
                _ => {}
            }
        }
        // Their certificates are shown to nobody but the controller.
        (_, "ingresses") => {
            walk(value, &mut risks);
            risks.retain(|risk| *risk != Risk::Secrets);
        }
        _ => walk(value, &mut risks),
    }
    if resource.is_core("pods") && resource.subresource.as_deref() == Some("ephemeralcontainers") {
        risks.push(Risk::EphemeralContainer);
    }
    if resource.is_core("bindings")
        || (resource.is_core("pods") && resource.subresource.as_deref() == Some("binding"))
    {
        risks.push(Risk::NodeName);
    }
    risks.sort_unstable();
    risks.dedup();
    risks
}

fn is_true(value: &Value) -> bool {
    // Text counts too: whatever reads it may be lenient.
    value == &Value::Bool(true) || value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

fn says(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    }
}

/// Whether a member of that name is what `test` looks for, wherever it stands.
fn has(value: &Value, name: &str, test: fn(&Value) -> bool) -> bool {
    match value {
        Value::Array(list) => list.iter().any(|one| has(one, name, test)),
        Value::Object(members) => members.iter().any(|(known, value)| {
            (known.eq_ignore_ascii_case(name) && test(value)) || has(value, name, test)
        }),
        _ => false,
    }
}

/// Owners and finalizers, of objects whose other members are not pods'.
fn owned(value: &Value, risks: &mut Vec<Risk>) {
    if has(value, "ownerReferences", says) || has(value, "finalizers", says) {
        risks.push(Risk::OwnerReferences);
    }
}

/// Bindings hand out a role; roles with these verbs, or any, let their holders do so.
fn rights(kind: &str, value: &Value, risks: &mut Vec<Risk>) {
    let strong = |of: &Value| {
        let names =
            |text: &str| matches!(text, "*" | "bind" | "escalate" | "impersonate" | "approve" | "sign");
        match of {
            Value::Array(list) => list.iter().filter_map(Value::as_str).any(names),
            Value::String(text) => names(text),
            _ => false,
        }
    };
    let binds = kind.ends_with("bindings");
    let aggregates = has(value, "aggregationRule", says);
    if binds || aggregates || has(value, "verbs", strong) || has(value, "resources", strong) {
        risks.push(Risk::Escalation);
    }
}

fn walk(value: &Value, risks: &mut Vec<Risk>) {
    match value {
        Value::Array(list) => list.iter().for_each(|one| walk(one, risks)),
        Value::Object(members) => {
            for (name, value) in members {
                if let Some(risk) = member(&name.to_ascii_lowercase(), value, members) {
                    risks.push(risk);
                }
                walk(value, risks);
            }
        }
        _ => {}
    }
}

fn member(name: &str, value: &Value, beside: &Map<String, Value>) -> Option<Risk> {
    let (holds, risk) = match name {
        "privileged" | "allowprivilegeescalation" | "hostprocess" => (is_true(value), Risk::Privileged),
        "procmount" => {
            (value.as_str().is_some_and(|text| !text.is_empty() && text != "Default"), Risk::Privileged)
        }
        "hostpath" | "local" if name == "hostpath" || value.get("path").is_some() => {
            (says(value), Risk::HostPath)
        }
        "allowedhostpaths" => (says(value), Risk::HostPath),
        "hostnetwork" => (is_true(value), Risk::HostNetwork),
        "hostport" => (value.as_i64() != Some(0) && says(value), Risk::HostNetwork),
        "hostpid" => (is_true(value), Risk::HostPid),
        "hostipc" => (is_true(value), Risk::HostIpc),
        "capabilities" => (value.get("add").is_some_and(says), Risk::Capabilities),
        "allowedcapabilities" | "defaultaddcapabilities" => (says(value), Risk::Capabilities),
        "seccompprofile" | "apparmorprofile" => {
            let kind = value.get("type").and_then(Value::as_str);
            (kind.is_some_and(|kind| kind != "RuntimeDefault"), Risk::Unconfined)
        }
        "selinuxoptions" | "sysctls" => (says(value), Risk::Unconfined),
        _ if name.starts_with("container.apparmor.security.beta.kubernetes.io")
            || name.contains("seccomp.security.alpha.kubernetes.io") =>
        {
            (value.as_str().is_some_and(|text| !text.starts_with("runtime/default")), Risk::Unconfined)
        }
        "serviceaccountname" | "serviceaccount" => {
            (value.as_str().is_some_and(|text| !text.is_empty() && text != "default"), Risk::ServiceAccount)
        }
        "secretkeyref" | "secretref" | "secretname" => (says(value), Risk::Secrets),
        // A volume: `secret: {secretName: …}`, projected `secret: {name: …}`.
        "secret" => (value.is_object() && says(value), Risk::Secrets),
        "ephemeralcontainers" => (says(value), Risk::EphemeralContainer),
        "ownerreferences" => (says(value), Risk::OwnerReferences),
        "finalizers" => {
            // Of a namespace's spec: `kubernetes` is what every one has.
            let usual = value.as_array().is_some_and(|list| list.iter().all(|one| one == "kubernetes"));
            (says(value) && !usual, Risk::OwnerReferences)
        }
        "nodename" => (says(value) && !beside.contains_key("targetRef"), Risk::NodeName),
        _ => return None,
    };
    holds.then_some(risk)
}
