//! What the body of a request adds: the name, what it asks for beyond an ordinary object, options of a delete.

use policy::{Kubernetes, KubernetesTarget, PatchKind, Risk};
use serde_json::Value;

use super::{Unreadable, json, marker, patch, protobuf, request::Request, risk};

/// What the body is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is none.
    None,
    /// It goes on unread.
    Unseen,
    Object(Format),
    Patch(PatchKind),
    /// Its Content-Type, which only matters when there is a body.
    DeleteOptions(Option<String>),
}

/// How an object is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Protobuf,
}

impl Format {
    pub(super) fn of(content_type: Option<&str>) -> Result<Self, Unreadable> {
        match media_type(content_type.unwrap_or("application/json")).as_str() {
            "application/json" => Ok(Self::Json),
            "application/yaml" => Err(Unreadable::format("YAML")),
            "application/cbor" => Err(Unreadable::format("CBOR")),
            "application/vnd.kubernetes.protobuf" => Ok(Self::Protobuf),
            _ => Err(Unreadable::format("a format of their own")),
        }
    }
}

pub(super) fn patch_kind(content_type: Option<&str>) -> Result<PatchKind, Unreadable> {
    match media_type(content_type.unwrap_or_default()).as_str() {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchKind::Strategic),
        // JSON is YAML; other YAML is refused when the body is read.
        "application/apply-patch+yaml" => Ok(PatchKind::Apply),
        "application/apply-patch+cbor" => Err(Unreadable::format("CBOR")),
        _ => Err(Unreadable::format("a format that is no patch")),
    }
}

/// Without its parameters, lower case.
fn media_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The body as JSON, where it is not that already.
pub(super) fn as_json(kind: &Kind, bytes: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
    let format = match kind {
        Kind::Object(format) => *format,
        Kind::DeleteOptions(content_type) if !bytes.is_empty() => Format::of(content_type.as_deref())?,
        _ => return Ok(None),
    };
    match format {
        Format::Json => Ok(None),
        Format::Protobuf => protobuf::to_json(bytes).map(Some),
    }
}

pub(super) fn read(request: Request, bytes: &[u8]) -> Result<Kubernetes, Unreadable> {
    let Request { mut action, body } = request;
    match body {
        Kind::None if bytes.is_empty() => {}
        Kind::None => return Err(Unreadable::bad("a body where the API server expects none")),
        Kind::Unseen => {}
        Kind::Object(_) => object(&mut action, &json::read(bytes)?)?,
        Kind::Patch(kind) => patched(&mut action, kind, bytes)?,
        Kind::DeleteOptions(_) if bytes.is_empty() => {}
        Kind::DeleteOptions(content_type) => {
            Format::of(content_type.as_deref())?;
            deleting(&mut action, &json::read(bytes)?)?;
        }
    }
    Ok(action)
}

/// A whole object.
fn object(action: &mut Kubernetes, value: &Value) -> Result<(), Unreadable> {
    let Value::Object(members) = value else {
        return Err(Unreadable::bad("the body is no object"));
    };
    marker::check(value)?;
    if let KubernetesTarget::Resource(resource) = &mut action.target {
        let named = members.get("metadata").and_then(|metadata| metadata.get("name"));
        // The server refuses an object whose name is not the path's.
        if resource.name.is_none() {
            resource.name = named.and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned);
        }
        action.risks = risk::of(resource, value);
    }
    Ok(())
}

fn patched(action: &mut Kubernetes, kind: PatchKind, bytes: &[u8]) -> Result<(), Unreadable> {
    let value = json::read(bytes).map_err(|error| match kind {
        PatchKind::Apply => {
            Unreadable { hint: "send the configuration as JSON, which is YAML too (kubectl does)", ..error }
        }
        _ => error,
    })?;
    marker::check(&value)?;
    if kind != PatchKind::Json {
        if !value.is_object() {
            return Err(Unreadable::bad("the patch is no object"));
        }
        if let KubernetesTarget::Resource(resource) = &action.target {
            action.risks = risk::of(resource, &value);
        }
        return Ok(());
    }
    let operations = patch::read(&value)?;
    action.reads_stored = operations.iter().any(patch::Operation::reads);
    if let KubernetesTarget::Resource(resource) = &action.target {
        let mut risks: Vec<Risk> =
            operations.iter().flat_map(|operation| risk::of(resource, &operation.written())).collect();
        if operations.iter().any(patch::Operation::moves) {
            risks.push(Risk::Unseen);
        }
        risks.sort_unstable();
        risks.dedup();
        action.risks = risks;
    }
    Ok(())
}

/// DeleteOptions. Where there is a body, the server does not look at the query.
fn deleting(action: &mut Kubernetes, value: &Value) -> Result<(), Unreadable> {
    let Value::Object(members) = value else {
        return Err(Unreadable::bad("the body is no object"));
    };
    let dry_run = match members.get("dryRun") {
        None | Some(Value::Null) => false,
        Some(Value::Array(list)) => !list.is_empty() && list.iter().all(|one| one == "All"),
        Some(_) => return Err(Unreadable::bad("`dryRun` is no list")),
    };
    let propagation = members.get("propagationPolicy").and_then(Value::as_str).map(str::to_owned);
    if (action.dry_run && !dry_run) || (action.propagation.is_some() && action.propagation != propagation) {
        return Err(Unreadable::ambiguous("options in its query that its body does not have"));
    }
    action.dry_run = dry_run;
    action.propagation = propagation;
    Ok(())
}
