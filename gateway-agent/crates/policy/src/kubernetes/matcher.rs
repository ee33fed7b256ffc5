//! What a rule says about Kubernetes.

use std::{fmt, time::Duration};

use super::{ApiResource, Kubernetes, KubernetesTarget, Risk, ShownSecrets};
use crate::{
    pattern::Glob,
    ssh::matcher::{self as command, SshMatcher, exec_needs},
};

/// What a rule names.
#[derive(Debug, Default)]
pub(crate) struct KubernetesMatcher {
    pub(crate) requests: Vec<RequestPattern>,
    pub(crate) paths: Vec<PathPattern>,
    pub(crate) risks: Vec<Risk>,
    pub(crate) exec: SshMatcher,
    pub(crate) shown: ShownSecrets,
    pub(crate) limits: Bounds,
}

/// The limits of a rule.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) duration: Option<Duration>,
    pub(crate) response_bytes: Option<u64>,
    pub(crate) per_minute: Option<u32>,
}

/// Verbs on objects.
#[derive(Debug)]
pub(crate) struct RequestPattern {
    /// `None` = every one.
    pub(crate) verbs: Option<Vec<String>>,
    pub(crate) groups: Option<Vec<GroupPattern>>,
    pub(crate) resources: Vec<ResourcePattern>,
    pub(crate) namespaces: Option<Vec<Glob>>,
    pub(crate) cluster: bool,
    pub(crate) names: Option<Vec<Glob>>,
    pub(crate) selectors: Vec<String>,
    pub(crate) dry_run: bool,
    pub(crate) containers: Option<Vec<Glob>>,
    pub(crate) ports: Option<Vec<u16>>,
}

/// An API group; the core group has no name.
#[derive(Debug)]
pub(crate) enum GroupPattern {
    Core,
    Named(Glob),
}

impl GroupPattern {
    fn matches(&self, group: &str) -> bool {
        match self {
            Self::Core => group.is_empty(),
            Self::Named(glob) => glob.matches(group),
        }
    }

    fn is_exact(&self) -> bool {
        match self {
            Self::Core => true,
            Self::Named(glob) => glob.is_exact(),
        }
    }
}

/// `resource` or `resource/subresource`.
#[derive(Debug)]
pub(crate) struct ResourcePattern {
    pub(crate) resource: Glob,
    pub(crate) subresource: Option<Glob>,
}

impl ResourcePattern {
    fn matches(&self, of: &ApiResource) -> bool {
        let sub = match (&self.subresource, &of.subresource) {
            (None, None) => true,
            (Some(glob), Some(name)) => glob.matches(name),
            _ => false,
        };
        sub && self.resource.matches(&of.resource)
    }

    fn is_exact(&self) -> bool {
        self.resource.is_exact() && self.subresource.as_ref().is_none_or(Glob::is_exact)
    }

    /// As a restriction a resource is meant with everything below it.
    fn may_match(&self, of: &ApiResource) -> bool {
        let sub = match (&self.subresource, &of.subresource) {
            (None, _) => true,
            (Some(glob), Some(name)) => glob.matches(name),
            (Some(_), None) => false,
        };
        sub && self.resource.matches(&of.resource)
    }
}

/// A path, or with `*` at its end every one that begins like it.
#[derive(Debug)]
pub(crate) struct PathPattern {
    pub(crate) text: String,
    pub(crate) prefix: bool,
}

impl PathPattern {
    fn matches(&self, path: &str) -> bool {
        if self.prefix { path.starts_with(&self.text) } else { path == self.text }
    }
}

/// One thing that has to be granted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need<'a> {
    Request(&'a Kubernetes),
    Risk(&'a Kubernetes, Risk),
    /// A part of what runs in a pod.
    Run(&'a Kubernetes, command::Need<'a>),
}

/// Everything that a request needs.
pub(crate) fn needs(action: &Kubernetes) -> Vec<Need<'_>> {
    let mut needs = vec![Need::Request(action)];
    // What is not stored asks for nothing.
    if !action.dry_run {
        needs.extend(action.risks.iter().map(|risk| Need::Risk(action, *risk)));
    }
    if let Some(exec) = action.stream.as_ref().and_then(|stream| stream.exec.as_ref()) {
        needs.extend(exec_needs(exec).into_iter().map(|need| Need::Run(action, need)));
    }
    needs
}

/// Namespaces of the cluster itself.
fn is_system(namespace: &str) -> bool {
    namespace.starts_with("kube-") || namespace.starts_with("openshift")
}

const STREAMS: &[&str] = &["exec", "attach", "portforward"];

/// What a wildcard does not reach: it leads past what rules are about, or hands out rights.
fn is_sensitive(action: &Kubernetes, of: &ApiResource) -> bool {
    let sub = of.subresource.as_deref();
    let change = action.is_change() || action.verb == "proxy";
    match (of.group.as_str(), of.resource.as_str(), sub) {
        ("", _, Some("proxy"))
        | ("", "pods", Some("exec" | "attach" | "portforward" | "ephemeralcontainers")) => true,
        ("", "serviceaccounts", Some("token")) => true,
        ("", "pods", Some("binding")) | ("", "bindings", _) | ("", "namespaces", Some("finalize")) => true,
        ("", "nodes", _) => change,
        ("certificates.k8s.io", _, Some(_)) => true,
        ("certificates.k8s.io", "signers", None) => true,
        ("authentication.k8s.io", "tokenreviews" | "tokenrequests", _) => true,
        ("rbac.authorization.k8s.io" | "admissionregistration.k8s.io" | "apiregistration.k8s.io", _, _) => {
            change
        }
        // Not objects but what may be done to them: users, groups, uids.
        ("", "users" | "groups" | "uids", _) | ("authentication.k8s.io", "userextras" | "uids", _) => true,
        _ => action.verb == "proxy",
    }
}

impl KubernetesMatcher {
    /// As a grant.
    pub(crate) fn grants(&self, need: Need<'_>) -> bool {
        match need {
            Need::Request(action) => self.grants_request(action),
            Need::Risk(action, risk) => self.risks.contains(&risk) && self.grants_request(action),
            Need::Run(action, part) => {
                (self.exec.shell || self.exec.grants(part)) && self.grants_request(action)
            }
        }
    }

    fn grants_request(&self, action: &Kubernetes) -> bool {
        match &action.target {
            // The rest of a path may be a server's logs or profile: named, or not granted.
            KubernetesTarget::Path { path } => {
                matches!(action.verb.as_str(), "get" | "options")
                    && self.paths.iter().any(|pattern| pattern.matches(path))
            }
            KubernetesTarget::Resource(of) => {
                let enters = match (of.is_core("pods"), of.subresource.as_deref()) {
                    (true, Some("exec")) => self.exec.runs(),
                    (true, Some("attach")) => self.exec.shell,
                    _ => true,
                };
                enters && self.requests.iter().any(|pattern| pattern.grants(action, of))
            }
        }
    }

    /// As a restriction: what of the request it could be about.
    pub(crate) fn touched(&self, action: &Kubernetes) -> Option<String> {
        let named = match &action.target {
            KubernetesTarget::Path { path } => self.paths.iter().any(|pattern| pattern.matches(path)),
            KubernetesTarget::Resource(of) => {
                self.requests.iter().any(|pattern| pattern.may_mean(action, of))
            }
        };
        let anything = self.requests.is_empty() && self.paths.is_empty();
        if !named && !anything {
            return None;
        }
        let risk = action.risks.iter().find(|risk| self.risks.contains(risk));
        if !self.risks.is_empty() {
            return risk.map(|risk| format!("{}: {risk}", action.line()));
        }
        let exec = action.stream.as_ref().and_then(|stream| stream.exec.as_ref());
        match exec {
            Some(exec) if self.exec.is_about_parts() => {
                self.exec.touched_exec(exec).map(|need| need.to_string())
            }
            _ => named.then(|| action.line()),
        }
    }
}

impl RequestPattern {
    fn grants(&self, action: &Kubernetes, of: &ApiResource) -> bool {
        let sensitive = is_sensitive(action, of);
        let verb = match &self.verbs {
            Some(verbs) => verbs.contains(&action.verb),
            None => action.verb != "proxy",
        };
        let group = match &self.groups {
            Some(groups) => {
                groups.iter().any(|group| group.matches(&of.group) && (!sensitive || group.is_exact()))
            }
            None => of.group.is_empty(),
        };
        let resource =
            self.resources.iter().any(|pattern| pattern.matches(of) && (!sensitive || pattern.is_exact()));
        let enters =
            of.is_core("pods") && of.subresource.as_deref().is_some_and(|sub| STREAMS.contains(&sub));
        let namespace = match &of.namespace {
            None => self.cluster,
            Some(namespace) => self.namespaces.iter().flatten().any(|glob| {
                glob.matches(namespace) && (glob.is_exact() || !(enters && is_system(namespace)))
            }),
        };
        let name = match (&self.names, &of.name) {
            (None, _) => true,
            (Some(names), Some(name)) => names.iter().any(|glob| glob.matches(name)),
            (Some(_), None) => false,
        };
        let selected = self.selectors.iter().all(|wanted| of.labels.contains(wanted));
        let dry = !self.dry_run || action.dry_run || !action.is_change();
        verb && group && resource && namespace && name && selected && dry && self.enters(action)
    }

    fn enters(&self, action: &Kubernetes) -> bool {
        let Some(stream) = &action.stream else { return true };
        let container = match (&self.containers, &stream.container) {
            (None, _) => true,
            (Some(names), Some(name)) => names.iter().any(|glob| glob.matches(name)),
            (Some(_), None) => false,
        };
        let forwards = action.resource().is_some_and(|of| of.subresource.as_deref() == Some("portforward"));
        let ports = match &self.ports {
            Some(_) if forwards && stream.tunnel => true,
            Some(ports) if forwards => {
                !stream.ports.is_empty() && stream.ports.iter().all(|port| ports.contains(port))
            }
            _ => true,
        };
        container && ports
    }

    /// As a restriction: the request could reach what is named.
    fn may_mean(&self, action: &Kubernetes, of: &ApiResource) -> bool {
        let verb = self.verbs.as_ref().is_none_or(|verbs| verbs.contains(&action.verb));
        let group =
            self.groups.as_ref().is_none_or(|groups| groups.iter().any(|group| group.matches(&of.group)));
        let resource =
            self.resources.is_empty() || self.resources.iter().any(|pattern| pattern.may_match(of));
        let could = |patterns: &Option<Vec<Glob>>, name: &Option<String>| match (patterns, name) {
            (Some(patterns), Some(name)) => patterns.iter().any(|glob| glob.matches(name)),
            _ => true,
        };
        // `cluster` beside no namespaces: only what has none.
        let namespace = match (&self.namespaces, &of.namespace) {
            (None, Some(_)) => !self.cluster,
            (namespaces, namespace) => could(namespaces, namespace),
        };
        let container = match &action.stream {
            Some(stream) => could(&self.containers, &stream.container),
            None => self.containers.is_none(),
        };
        let ports = match (&self.ports, &action.stream) {
            (None, _) => true,
            (Some(_), Some(stream)) if stream.tunnel => false,
            (Some(ports), Some(stream)) => {
                stream.ports.is_empty() || stream.ports.iter().any(|port| ports.contains(port))
            }
            (Some(_), None) => false,
        };
        verb && group && resource && namespace && could(&self.names, &of.name) && container && ports
    }
}

impl fmt::Display for Need<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(action) => f.write_str(&action.line()),
            Self::Risk(_, risk) => write!(f, "{risk}"),
            Self::Run(_, part) => write!(f, "{part}"),
        }
    }
}
