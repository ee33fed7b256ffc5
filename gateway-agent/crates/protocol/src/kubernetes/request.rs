//! What is asked for: verb, resource and the rest, as k8s.io/apiserver derives them (`pkg/endpoints/request`), where there is only
//! one way to derive them.

use policy::{ApiResource, Kubernetes, KubernetesCase, KubernetesTarget, PatchKind, PodStream};

use super::{
    Unreadable, body,
    path::{Query, Target},
};
use crate::ssh::command;

/// Longest body that is read before deciding, in bytes; what the API server takes is 3 MiB.
pub const BODY_MAX: usize = 3 * 1024 * 1024;

/// Prefixes of paths that are resources.
const CORE: &str = "api";
const GROUPS: &str = "apis";
/// Subresources that open a stream to a pod. Which HTTP method asks for them makes no difference: WebSocket clients use GET.
const STREAMS: &[&str] = &["exec", "attach", "portforward"];
/// Resources that forward whatever is asked.
const PROXIED: &[&str] = &["pods", "services", "nodes"];

/// The head of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head<'a> {
    /// Upper case.
    pub method: &'a str,
    /// Path and query as they were sent.
    pub target: &'a str,
    /// The one Content-Type.
    pub content_type: Option<&'a str>,
}

/// A request whose body has not been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub(super) action: Kubernetes,
    pub(super) body: body::Kind,
}

impl Request {
    /// Reads the head.
    ///
    /// # Errors
    /// When it could be read in two ways, or asks for nothing that an API server has.
    pub fn read(head: &Head<'_>) -> Result<Self, Unreadable> {
        let target = Target::read(head.target)?;
        let Some(place) = Place::of(&target)? else {
            return path(head, &target);
        };
        let verb = verb(head, &target, &place)?;
        let mut resource = ApiResource {
            group: place.group.to_owned(),
            version: place.version.to_owned(),
            resource: place.resource.to_owned(),
            subresource: place.subresource.map(str::to_owned),
            namespace: place.namespace.map(str::to_owned),
            name: place.name.map(str::to_owned),
            labels: Vec::new(),
            fields: None,
        };
        selectors(&target.query, &verb, &mut resource)?;
        let streams = place.streams();
        let body = match verb.as_str() {
            _ if place.is_proxy() => body::Kind::Unseen,
            _ if streams => body::Kind::None,
            "create" | "update" => body::Kind::Object(body::Format::of(head.content_type)?),
            "patch" => body::Kind::Patch(body::patch_kind(head.content_type)?),
            "delete" | "deletecollection" => body::Kind::DeleteOptions(head.content_type.map(str::to_owned)),
            _ => body::Kind::None,
        };
        let stream = if streams { Some(pod_stream(&target.query, &place)?) } else { None };
        let action = Kubernetes {
            dry_run: dry_run(&target.query)?,
            field_manager: target.query.text("fieldManager")?,
            force: target.query.flag("force")?,
            propagation: target.query.text("propagationPolicy")?,
            patch: match &body {
                body::Kind::Patch(kind) => Some(*kind),
                _ => None,
            },
            ..plain(verb, KubernetesTarget::Resource(resource), stream)
        };
        if action.patch != Some(PatchKind::Apply) && action.force {
            return Err(Unreadable::bad("`force` belongs to server-side apply"));
        }
        Ok(Self { action, body })
    }

    /// What is known without the body.
    pub fn action(&self) -> &Kubernetes {
        &self.action
    }

    /// Whether the body has to be read, up to [`BODY_MAX`], before this can be decided. Other requests have no body that means
    /// something; those that go on unread ([`is_unread`](Self::is_unread)) pass theirs on.
    pub fn wants_body(&self) -> bool {
        !matches!(self.body, body::Kind::None | body::Kind::Unseen)
    }

    /// Its body goes on unread: to a pod, a service or a node, where nobody knows what it means.
    pub fn is_unread(&self) -> bool {
        self.body == body::Kind::Unseen
    }

    /// It forwards ports of a pod.
    pub fn forwards(&self) -> bool {
        self.action
            .resource()
            .is_some_and(|of| of.is_core("pods") && of.subresource.as_deref() == Some("portforward"))
    }

    /// The ports are said by what the connection becomes, one by one.
    ///
    /// # Errors
    /// When the head says some as well.
    pub fn tunnelled(mut self) -> Result<Self, Unreadable> {
        if let Some(stream) = &mut self.action.stream {
            if !stream.ports.is_empty() {
                return Err(Unreadable::ambiguous("ports in its query and in its streams"));
            }
            stream.tunnel = true;
        }
        Ok(self)
    }

    /// A body that came as protobuf, as the JSON that goes on in its place; `None`: it goes on as it came.
    ///
    /// # Errors
    /// When it is an object of a kind that is not known, or has anything in it that is not.
    pub fn as_json(&self, body: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
        body::as_json(&self.body, body)
    }

    /// What is to be decided; of a body in protobuf it takes what [`as_json`](Self::as_json) made of it.
    ///
    /// # Errors
    /// When the body cannot be read, or holds what the gateway has masked before.
    pub fn with_body(self, body: &[u8]) -> Result<Kubernetes, Unreadable> {
        body::read(self, body)
    }
}

/// Reads a case of a policy's tests.
///
/// # Errors
/// Says why it is refused before any rule is asked.
pub fn case(case: &KubernetesCase) -> Result<Kubernetes, String> {
    let (method, target) =
        case.request.split_once(' ').ok_or("write `request: GET /api/v1/namespaces/shop/pods`")?;
    let body = case.body.as_ref().map(ToString::to_string).unwrap_or_default();
    let default = if body.is_empty() { None } else { Some("application/json") };
    let head = Head { method, target, content_type: case.content_type.as_deref().or(default) };
    let read = Request::read(&head).and_then(|request| {
        let json = request.as_json(body.as_bytes())?;
        request.with_body(json.as_deref().unwrap_or(body.as_bytes()))
    });
    read.map_err(|refused| refused.to_string())
}

fn plain(verb: String, target: KubernetesTarget, stream: Option<PodStream>) -> Kubernetes {
    Kubernetes {
        verb,
        target,
        dry_run: false,
        field_manager: None,
        force: false,
        propagation: None,
        risks: Vec::new(),
        patch: None,
        reads_stored: false,
        stream,
    }
}

/// A path that is no resource.
fn path(head: &Head<'_>, target: &Target) -> Result<Request, Unreadable> {
    let first = target.segments.first().map(String::as_str).unwrap_or_default();
    if [CORE, GROUPS].iter().any(|known| known.eq_ignore_ascii_case(first) && *known != first) {
        return Err(Unreadable::ambiguous("`api` in other letters"));
    }
    let verb = match head.method {
        "GET" | "HEAD" => "get",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => return Err(Unreadable::bad("a method that the API server does not have")),
    };
    let body = if verb == "get" || verb == "options" { body::Kind::None } else { body::Kind::Unseen };
    let action = plain(verb.to_owned(), KubernetesTarget::Path { path: target.path.clone() }, None);
    Ok(Request { action, body })
}

/// The parts of a resource's path.
struct Place<'t> {
    group: &'t str,
    version: &'t str,
    /// `/watch/` or `/proxy/` in front of the resource, as old clients write it.
    special: Option<&'t str>,
    namespace: Option<&'t str>,
    resource: &'t str,
    name: Option<&'t str>,
    subresource: Option<&'t str>,
}

impl<'t> Place<'t> {
    /// `None`: it is no resource.
    fn of(target: &'t Target) -> Result<Option<Self>, Unreadable> {
        let parts: Vec<&str> = target.segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            [CORE, version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            [GROUPS, group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return Ok(None),
        };
        let (special, rest) = match rest {
            [prefix @ ("watch" | "proxy"), rest @ ..] if !rest.is_empty() => (Some(*prefix), rest),
            ["watch" | "proxy"] => return Err(Unreadable::bad("nothing is named behind the prefix")),
            rest => (None, rest),
        };
        let (namespace, rest) = match rest {
            // The namespace itself, and its own subresources.
            ["namespaces", name] => (Some(*name), rest),
            ["namespaces", name, "status" | "finalize"] => (Some(*name), rest),
            ["namespaces", name, inside @ ..] => (Some(*name), inside),
            rest => (None, rest),
        };
        let (resource, name, subresource, more) = match rest {
            [resource] => (*resource, None, None, &[][..]),
            [resource, name] => (*resource, Some(*name), None, &[][..]),
            [resource, name, subresource, more @ ..] => (*resource, Some(*name), Some(*subresource), more),
            [] => return Err(Unreadable::bad("no resource is named")),
        };
        let place = Self { group, version, special, namespace, resource, name, subresource };
        if !more.is_empty() && !place.is_proxy() {
            return Err(Unreadable::bad("the path goes on behind a subresource"));
        }
        if target.slash && !place.is_proxy() {
            return Err(Unreadable::ambiguous("a slash at its end"));
        }
        place.check()?;
        Ok(Some(place))
    }

    /// Names as the server has them, so that nothing else can stand for them.
    fn check(&self) -> Result<(), Unreadable> {
        let lower = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_'))
        };
        let words = [self.version, self.resource];
        let group = self.group.is_empty() || lower(self.group);
        if !group || !words.iter().all(|word| lower(word)) || !self.subresource.is_none_or(lower) {
            return Err(Unreadable::ambiguous(
                "a group, version or resource in other letters than lower-case ones",
            ));
        }
        // Proxied names may say scheme and port: `https:web:443`.
        let name = |text: &str| {
            !text.is_empty()
                && !text.chars().any(|c| c.is_whitespace() || matches!(c, '*' | ',' | '"' | '\''))
        };
        match self.namespace.is_none_or(lower) && self.name.is_none_or(name) {
            true => Ok(()),
            false => Err(Unreadable::bad("a name that no object has")),
        }
    }

    fn is_proxy(&self) -> bool {
        self.special == Some("proxy")
            || (self.group.is_empty()
                && self.subresource == Some("proxy")
                && PROXIED.contains(&self.resource))
    }

    fn streams(&self) -> bool {
        self.group.is_empty()
            && self.resource == "pods"
            && self.subresource.is_some_and(|name| STREAMS.contains(&name))
    }
}

fn verb(head: &Head<'_>, target: &Target, place: &Place<'_>) -> Result<String, Unreadable> {
    let read = matches!(head.method, "GET" | "HEAD");
    if place.special == Some("proxy") {
        return Ok("proxy".to_owned());
    }
    if place.special == Some("watch") {
        return match read {
            true => Ok("watch".to_owned()),
            false => Err(Unreadable::bad("a watch is asked for by GET")),
        };
    }
    if place.streams() {
        return match head.method {
            "GET" | "POST" => Ok("create".to_owned()),
            _ => Err(Unreadable::bad("a stream to a pod is asked for by GET or POST")),
        };
    }
    let verb = match head.method {
        // Of one object the server ignores `watch`.
        "GET" | "HEAD" if place.name.is_some() => "get",
        "GET" | "HEAD" => match target.query.flag("watch")? {
            true => "watch",
            false => "list",
        },
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if place.name.is_none() => "deletecollection",
        "DELETE" => "delete",
        _ => return Err(Unreadable::bad("a method that the API server does not have")),
    };
    Ok(verb.to_owned())
}

fn selectors(query: &Query, verb: &str, resource: &mut ApiResource) -> Result<(), Unreadable> {
    if !matches!(verb, "list" | "watch" | "deletecollection") {
        return Ok(());
    }
    if let Some(labels) = query.text("labelSelector")? {
        resource.labels = requirements(&labels);
    }
    if let Some(fields) = query.text("fieldSelector")? {
        // Of several requirements all hold, so one that names the object names it.
        let named = fields.split(',').find_map(|one| {
            let (field, value) = one.split_once("==").or_else(|| one.split_once('='))?;
            (field == "metadata.name").then_some(value)
        });
        let plain = |name: &&str| !name.is_empty() && !name.contains(['\\', '/', '%', '=']);
        if resource.name.is_none() {
            resource.name = named.filter(plain).map(str::to_owned);
        }
        resource.fields = Some(fields);
    }
    Ok(())
}

/// The requirements of a label selector, at the commas that are not inside of a set.
fn requirements(text: &str) -> Vec<String> {
    let (mut all, mut one, mut depth) = (Vec::new(), String::new(), 0_u32);
    for c in text.chars() {
        match c {
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                all.push(std::mem::take(&mut one));
                continue;
            }
            _ => {}
        }
        one.push(c);
    }
    all.push(one);
    let all = all.into_iter().map(|one| one.trim().replace("==", "="));
    all.filter(|one| !one.is_empty()).collect()
}

/// `dryRun=All`; what else it says is the server's to refuse, and counts as no dry run.
fn dry_run(query: &Query) -> Result<bool, Unreadable> {
    Ok(query.one("dryRun")? == Some("All"))
}

fn pod_stream(query: &Query, place: &Place<'_>) -> Result<PodStream, Unreadable> {
    let mut stream = PodStream {
        container: query.text("container")?,
        stdin: query.flag("stdin")?,
        tty: query.flag("tty")?,
        ..PodStream::default()
    };
    match place.subresource {
        Some("exec") => {
            let words: Vec<&str> = query.all("command").collect();
            if words.first().is_none_or(|program| program.is_empty()) {
                return Err(Unreadable::bad("exec without a command"));
            }
            // No shell reads it: quoted, every word stands for itself.
            let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
            stream.exec = Some(command::read(quoted.join(" ").as_bytes()));
        }
        Some("portforward") => {
            for ports in query.all("ports") {
                for port in ports.split(',') {
                    let port = port.parse().map_err(|_| Unreadable::bad("a port that is no number"))?;
                    stream.ports.push(port);
                }
            }
        }
        _ => {}
    }
    Ok(stream)
}

/// A word as a shell would have to write it.
fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@%+-,".contains(&byte);
    match !word.is_empty() && word.bytes().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
