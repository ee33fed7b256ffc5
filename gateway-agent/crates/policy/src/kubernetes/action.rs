//! What a job asks of an API server, in terms a rule can name.

use serde::Serialize;

use super::Risk;
use crate::ssh::Exec;

/// One request, as the API server itself reads it. Serialises as `{"action": "kubernetes", "verb": …, …}`.
///
/// Nothing in it is silently left out: a request that could be read in two ways, or whose body could not be read, never gets
/// here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kubernetes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; of paths that are no resources
    /// the method in lower case.
    pub verb: String,
    #[serde(flatten)]
    pub target: KubernetesTarget,
    /// Nothing is to be stored.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Who the change is attributed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_manager: Option<String>,
    /// Server-side apply takes fields from other managers.
    #[serde(skip_serializing_if = "is_false")]
    pub force: bool,
    /// What becomes of the objects that depend on what is deleted: `Background`, `Foreground`, `Orphan`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation: Option<String>,
    /// What the body asks for beyond an ordinary object, each once, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub risks: Vec<Risk>,
    /// How the object is changed, for `patch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<PatchKind>,
    /// A JSON patch moves, copies or compares values of the stored object.
    #[serde(skip_serializing_if = "is_false")]
    pub reads_stored: bool,
    /// What is run or opened in a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<PodStream>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum KubernetesTarget {
    Resource(ApiResource),
    /// A path that is no resource: `/version`, `/metrics`.
    Path {
        path: String,
    },
}

/// Objects, or a part of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ApiResource {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    /// Plural, lower case: `pods`.
    pub resource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subresource: Option<String>,
    /// Missing for objects that are in none, and for lists across all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// From the path, from a field selector that names one object, or of what is created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Requirements of the label selector, each as sent: `app=web`, `tier in (a,b)`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The field selector, as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<String>,
}

impl ApiResource {
    /// `pods`, `pods/exec`.
    pub fn kind(&self) -> String {
        match &self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource),
            None => self.resource.clone(),
        }
    }

    /// Whether it is this resource of the core group, or any subresource of it.
    pub fn is_core(&self, resource: &str) -> bool {
        self.group.is_empty() && self.resource == resource
    }
}

/// How a patch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    Strategic,
    /// Server-side apply.
    Apply,
}

/// `exec`, `attach` and `portforward`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PodStream {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// What would run, read as far as it is a shell's command line; only of `exec`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    pub stdin: bool,
    pub tty: bool,
    /// Of `portforward`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Of `portforward`: ports are said later, with each connection, which is decided then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tunnel: bool,
}

impl Kubernetes {
    pub fn resource(&self) -> Option<&ApiResource> {
        match &self.target {
            KubernetesTarget::Resource(resource) => Some(resource),
            KubernetesTarget::Path { .. } => None,
        }
    }

    /// Whether what it does stays.
    pub fn is_change(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// On one line, for people: `create pods/exec web-0 in shop`.
    pub fn line(&self) -> String {
        let mut line = self.verb.clone();
        line.push(' ');
        match &self.target {
            KubernetesTarget::Path { path } => line.push_str(path),
            KubernetesTarget::Resource(of) => {
                line.push_str(&of.kind());
                if !of.group.is_empty() {
                    line.push('.');
                    line.push_str(&of.group);
                }
                if let Some(name) = &of.name {
                    line.push(' ');
                    line.push_str(name);
                }
                if let Some(namespace) = of.namespace.as_ref().filter(|_| of.resource != "namespaces") {
                    line.push_str(" in ");
                    line.push_str(namespace);
                }
                if !of.labels.is_empty() {
                    line.push_str(" with ");
                    line.push_str(&of.labels.join(","));
                }
            }
        }
        if let Some(exec) = self.stream.as_ref().and_then(|stream| stream.exec.as_ref()) {
            line.push_str(": ");
            line.push_str(&exec.text);
        }
        if let Some(stream) = &self.stream {
            for port in &stream.ports {
                line.push_str(&format!(" port {port}"));
            }
        }
        if self.dry_run {
            line.push_str(" (dry run)");
        }
        line
    }
}
