//! In which format an answer comes.
//!
//! Answers are masked as JSON. A client that would take protobuf, CBOR or YAML as well is answered in JSON, because that is all the
//! server is told it takes; one that takes nothing but those still gets JSON, which the server's own libraries decode by its
//! Content-Type.

use policy::{Kubernetes, KubernetesTarget};

/// What is done to the body of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Names and schemas of the server's own kinds, which pass as they are.
    Untouched,
    /// JSON documents, masked member by member.
    Json,
    /// Text, masked as it comes.
    Text,
    /// Cannot be masked, so it is withheld.
    Withheld,
}

/// Paths that tell what there is: groups, versions, kinds and their schemas.
pub fn is_discovery(path: &str) -> bool {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    matches!(
        parts.as_slice(),
        ["api" | "apis" | "version" | "swagger.json"]
            | ["api", _]
            | ["apis", _]
            | ["apis", _, _]
            | ["openapi", ..]
            | [".well-known", "openid-configuration"]
    )
}

/// What the server is told of the formats that the client takes. `None` = as the client says.
pub fn narrowed(action: &Kubernetes, accept: Option<&str>) -> Option<String> {
    let resource = action.resource()?;
    if action.stream.is_some() || resource.subresource.as_deref() == Some("proxy") || action.verb == "proxy" {
        return None;
    }
    let ranges = accept.unwrap_or("*/*").split(',').map(str::trim);
    // Tables and partial metadata are JSON with parameters.
    let json: Vec<&str> = ranges.filter(|range| is_json(range)).collect();
    Some(if json.is_empty() { "application/json".to_owned() } else { json.join(",") })
}

fn is_json(range: &str) -> bool {
    let name = range.split(';').next().unwrap_or_default().trim();
    name.eq_ignore_ascii_case("application/json")
}

/// What is done to an answer of this Content-Type.
pub fn passage(action: &Kubernetes, content_type: Option<&str>) -> Passage {
    if let KubernetesTarget::Path { path } = &action.target
        && is_discovery(path)
    {
        return Passage::Untouched;
    }
    let name =
        content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match name.as_str() {
        "application/json" => Passage::Json,
        name if name.ends_with("+json") => Passage::Json,
        "application/yaml" | "application/cbor" | "application/cbor-seq" => Passage::Withheld,
        name if name.contains("protobuf") => Passage::Withheld,
        // Of a resource everything else is text: logs.
        _ => Passage::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::{Head, Request};

    fn get(target: &str) -> Kubernetes {
        let head = Head { method: "GET", target, content_type: None };
        Request::read(&head).unwrap().with_body(b"").unwrap()
    }

    #[test]
    fn only_json_is_asked_for() {
        let pods = get("/api/v1/namespaces/a/pods");
        let narrow = |accept: Option<&str>| narrowed(&pods, accept);
        assert_eq!(narrow(None).unwrap(), "application/json");
        assert_eq!(narrow(Some("application/vnd.kubernetes.protobuf")).unwrap(), "application/json");
        assert_eq!(
            narrow(Some("application/vnd.kubernetes.protobuf, application/json")).unwrap(),
            "application/json"
        );
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(narrow(Some(table)).unwrap(), table);
        let mixed = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json;as=Table;g=meta.k8s.io;v=v1,*/*";
        assert_eq!(narrow(Some(mixed)).unwrap(), "application/json;as=Table;g=meta.k8s.io;v=v1");
        assert_eq!(narrow(Some("application/yaml, application/cbor;q=0.9")).unwrap(), "application/json");
        assert_eq!(
            narrowed(&get("/openapi/v2"), Some("application/com.github.proto-openapi.spec.v2@v1.0+protobuf")),
            None
        );
        assert_eq!(narrowed(&get("/metrics"), Some("text/plain")), None);
    }

    #[test]
    fn what_cannot_be_masked_is_withheld() {
        let pods = get("/api/v1/pods");
        for (kind, wanted) in [
            (Some("application/json"), Passage::Json),
            (Some("application/json;stream=watch"), Passage::Json),
            (Some("application/vnd.kubernetes.protobuf"), Passage::Withheld),
            (Some("application/vnd.kubernetes.protobuf;stream=watch"), Passage::Withheld),
            (Some("Application/YAML"), Passage::Withheld),
            (Some("application/cbor-seq"), Passage::Withheld),
            (Some("text/plain"), Passage::Text),
            (None, Passage::Text),
        ] {
            assert_eq!(passage(&pods, kind), wanted, "{kind:?}");
        }
        assert_eq!(passage(&get("/apis"), Some("application/json")), Passage::Untouched);
        assert_eq!(passage(&get("/openapi/v2"), Some("application/octet-stream")), Passage::Untouched);
    }
}
