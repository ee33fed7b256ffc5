//! What is particular to API servers: requests as the server reads them, answers without their secrets, and the gateway's own login.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    HeaderMap, Request, StatusCode,
    client::conn,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderName, HeaderValue},
    http::request,
};
use hyper_util::rt::TokioIo;
use policy::{Action, Kubernetes, KubernetesTarget, Permit, builtin};
use protocol::kubernetes::{self, BODY_MAX, Head, Refusal, Unreadable, accept, change, spdy, stream};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Session, kind::Asked, refusal::Refused, upstream::HostError};
use crate::{
    credential::{self, CredentialError, KubernetesAccess},
    tls::HTTP_1,
};

/// Longest answer to a question of the gateway's own.
const ANSWER: usize = 8 * 1024 * 1024;
const PROTOCOLS: HeaderName = HeaderName::from_static("sec-websocket-protocol");
/// The same for SPDY.
const STREAMS: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const EXTENSIONS: HeaderName = HeaderName::from_static("sec-websocket-extensions");
/// Fields by which the server would take a request for somebody else's. What begins so goes as well.
const IDENTITY: &[&str] = &["impersonate-", "x-remote-"];

/// Why a request is not read.
pub(super) fn interpret(
    head: &request::Parts,
    upgrade: Option<&str>,
) -> Result<kubernetes::Request, Refused> {
    let mut kinds = head.headers.get_all(CONTENT_TYPE).iter();
    let content_type = match (kinds.next(), kinds.next()) {
        (None, _) => None,
        (Some(kind), None) => Some(kind.to_str().map_err(|_| refused(&unreadable("Content-Type")))?),
        (Some(_), Some(_)) => return Err(refused(&unreadable("Content-Type"))),
    };
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let request = kubernetes::Request::read(&Head { method: head.method.as_str(), target, content_type })
        .map_err(|error| refused(&error))?;
    // Clients ask what there is before anything else. That is told them, as nobody in particular, so that they get as far as the
    // refusal.
    let discovers =
        matches!(&request.action().target, KubernetesTarget::Path { path } if accept::is_discovery(path));
    if !discovers
        && let Some(name) = head.headers.keys().find(|name| name.as_str().starts_with("impersonate-"))
    {
        let rules = [builtin::IMPERSONATION.into()];
        let reason = format!("the request says whom to act as ({name}), which the gateway alone does");
        return Err(Refused::new(&rules, reason, "leave out `--as` and its like"));
    }
    let rules = [builtin::KUBERNETES.into()];
    let forwards = request.forwards();
    let other_client = match forwards {
        true => {
            "use kubectl, which falls back to SPDY/3.1, or a client library that speaks v4.channel.k8s.io"
        }
        false => {
            "use a client that speaks WebSocket: kubectl 1.31 or newer (KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true before), the Python client"
        }
    };
    match (upgrade, &request.action().stream) {
        (None, None) => Ok(request),
        (Some("websocket"), Some(_)) if protocols(&head.headers).is_some() => Ok(request),
        (Some(spdy::UPGRADE), Some(_)) if forwards && tunnels(&head.headers) => {
            request.tunnelled().map_err(|error| refused(&error))
        }
        (Some("websocket"), Some(_)) => Err(Refused::new(
            &rules,
            "the stream's channels are not those of v5.channel.k8s.io or v4.channel.k8s.io",
            other_client,
        )),
        (Some(other), Some(_)) => Err(Refused::new(
            &rules,
            format!("streams to pods over {other} cannot be seen through"),
            other_client,
        )),
        (None, Some(_)) => {
            Err(Refused::new(&rules, "a stream to a pod without an upgrade", "ask for it by WebSocket")
                .with_status(400))
        }
        (Some(_), None) => Err(Refused::new(
            &rules,
            "only streams to pods are upgraded",
            "watch by plain HTTP, as kubectl does",
        )),
    }
}

fn unreadable(what: &str) -> Unreadable {
    Unreadable {
        code: 400,
        what: format!("{what} is there twice, or is no text"),
        hint: "send it as the Kubernetes clients do",
    }
}

/// A request that is not read, in the client's own terms.
pub(super) fn refused(error: &Unreadable) -> Refused {
    Refused::new(&[builtin::KUBERNETES.into()], error.what.clone(), error.hint).with_status(error.code)
}

/// How many bytes of the body have to be seen first.
pub(super) fn wants_body(asked: &Asked) -> Option<usize> {
    let request = asked.pending.as_ref()?;
    // What has no body is read as one that is empty.
    (!request.is_unread()).then_some(BODY_MAX)
}

/// The subprotocols that are let through, of those that the client offers; never one with its token in it.
fn protocols(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = headers.get_all(PROTOCOLS).iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = offered.flat_map(|value| value.split(',')).map(str::trim).collect();
    let kept: Vec<&str> = stream::PROTOCOLS.iter().copied().filter(|known| offered.contains(known)).collect();
    match kept.is_empty() {
        true => None,
        false => HeaderValue::from_str(&kept.join(", ")).ok(),
    }
}

/// The client would forward ports over SPDY.
fn tunnels(headers: &HeaderMap) -> bool {
    let offered = headers.get_all(STREAMS).iter().filter_map(|value| value.to_str().ok());
    offered.flat_map(|value| value.split(',')).any(|one| one.trim() == spdy::PROTOCOL)
}

/// The head for the server: nothing in it says who asks, and the answer comes in a format that can be masked.
pub(super) fn rewrite(headers: &mut HeaderMap, action: &Kubernetes) {
    let identity = |name: &HeaderName| IDENTITY.iter().any(|begin| name.as_str().starts_with(begin));
    let gone: Vec<_> = headers.keys().filter(|name| identity(name)).cloned().collect();
    for name in gone.iter().chain([&AUTHORIZATION, &COOKIE, &ACCEPT_ENCODING, &EXTENSIONS]) {
        headers.remove(name);
    }
    if let Some(kept) = protocols(headers) {
        headers.insert(PROTOCOLS, kept);
    } else {
        headers.remove(PROTOCOLS);
    }
    let offered = headers.remove(STREAMS);
    if offered.is_some() && action.stream.as_ref().is_some_and(|stream| stream.tunnel) {
        headers.insert(STREAMS, HeaderValue::from_static(spdy::PROTOCOL));
    }
    let ranges: Vec<_> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let ranges = (!ranges.is_empty()).then(|| ranges.join(","));
    if let Some(narrowed) = accept::narrowed(action, ranges.as_deref())
        && let Ok(value) = HeaderValue::from_str(&narrowed)
    {
        headers.insert(ACCEPT, value);
    }
}

/// Whether the server agreed on channels that are read here, and on nothing besides.
pub(super) fn agreed(headers: &HeaderMap, tunnel: bool) -> bool {
    let (name, all) = if tunnel { (STREAMS, &[spdy::PROTOCOL][..]) } else { (PROTOCOLS, stream::PROTOCOLS) };
    let mut chosen = headers.get_all(name).iter();
    let known = |value: &HeaderValue| all.iter().any(|known| value.as_bytes() == known.as_bytes());
    chosen.next().is_some_and(known) && chosen.next().is_none() && !headers.contains_key(EXTENSIONS)
}

/// What kubectl and its like print.
pub(super) fn document(refused: &Refused) -> Vec<u8> {
    let rule = (!refused.rule.is_empty()).then_some(&*refused.rule);
    let hint = if refused.hint.is_empty() { "try again later" } else { refused.hint.as_str() };
    let refusal = Refusal { code: refused.status, rule, reason: &refused.reason, hint };
    let mut text = kubernetes::status(&refusal).to_string().into_bytes();
    text.push(b'\n');
    text
}

/// Why the gateway could not ask for itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum OwnError {
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("the server answers {0}")]
    Status(StatusCode),
    #[error("the server's answer cannot be read")]
    Answer,
}

impl Session {
    /// Fields that say who asks, for every request; a token of an account is asked for when there is none that is still good.
    ///
    /// # Errors
    /// When the gateway has nothing to log in with.
    pub(super) async fn identity(&self, permit: &Permit) -> Result<Vec<(HeaderName, HeaderValue)>, OwnError> {
        let resource = self.resource();
        let Some(of) = resource.kubernetes() else { return Ok(Vec::new()) };
        let access = self.access(permit).await?;
        let mut fields = authorization(access.bearer.as_ref())?;
        if let Some(whom) = &of.impersonate {
            let value = |text: &str| {
                HeaderValue::from_str(text)
                    .map_err(|_| CredentialError::Unusable("a name that cannot be impersonated".to_owned()))
            };
            fields
                .push((HeaderName::from_static("impersonate-user"), value(&whom.user(&self.live.subject))?));
            for group in &whom.groups {
                fields.push((HeaderName::from_static("impersonate-group"), value(group)?));
            }
        }
        Ok(fields)
    }

    /// The server does not take the login any more: another one is read or asked for next time.
    pub(super) fn refused_login(&self) {
        self.shared().kubernetes.forget(&self.resource());
    }

    async fn access(&self, permit: &Permit) -> Result<KubernetesAccess, OwnError> {
        let resource = self.resource();
        let tokens = &self.shared().kubernetes;
        if let Some(kept) = tokens.kept(permit, &resource)? {
            return Ok(kept);
        }
        let (own, good) = credential::kubernetes_login(permit, &resource).await?;
        let account = resource.kubernetes().and_then(|of| of.login.service_account.as_ref());
        let Some(account) = account else {
            tokens.keep(&resource, own.clone(), good);
            return Ok(own);
        };
        let target =
            format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", account.namespace, account.name);
        let mut spec = json!({ "expirationSeconds": account.valid_for.as_secs() });
        if !account.audiences.is_empty() {
            spec["audiences"] = json!(account.audiences);
        }
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec });
        let fields = authorization(own.bearer.as_ref())?;
        let answer = self.own(permit, &own, "POST", &target, fields, Some(body)).await?;
        let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
        let token = text("/status/token").filter(|token| !token.is_empty()).ok_or(OwnError::Answer)?;
        let access = KubernetesAccess { bearer: Some(SecretString::from(token)), certificate: None };
        let good = text("/status/expirationTimestamp").and_then(credential::left).unwrap_or_default();
        tokens.keep(&resource, access.clone(), good.min(account.valid_for / 2));
        Ok(access)
    }

    /// What a change would do, against what is there now. Looks with the gateway's own credential; what it cannot see is said.
    pub(super) async fn preview(&self, permit: &Permit, action: &Action, body: &[u8]) -> Option<String> {
        let Action::Kubernetes(action) = action else { return None };
        let mut answers = Vec::new();
        for look in change::looks(action) {
            let answer = self.look(permit, &look.target).await;
            if let Err(error) = &answer {
                tracing::debug!(%error, what = look.what, "looking at what a change is about");
            }
            answers.push((look, answer.ok()));
        }
        let lines = change::describe(action, body, &answers);
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    async fn look(&self, permit: &Permit, target: &str) -> Result<Value, OwnError> {
        let access = self.access(permit).await?;
        let fields = self.identity(permit).await?;
        self.own(permit, &access, "GET", target, fields, None).await
    }

    /// A request of the gateway's own, on a connection of its own.
    async fn own(
        &self,
        permit: &Permit,
        access: &KubernetesAccess,
        method: &str,
        target: &str,
        fields: Vec<(HeaderName, HeaderValue)>,
        body: Option<Value>,
    ) -> Result<Value, OwnError> {
        let host = self.name.clone().unwrap_or_default();
        let patience = self.shared().config.sessions.login_timeout;
        let asking = async {
            let stream = self.dial(permit, &host, HTTP_1, access.certificate.clone()).await?;
            let (mut sender, connection) =
                conn::http1::handshake(TokioIo::new(stream)).await.map_err(HostError::Http)?;
            tokio::task::spawn_local(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection of the gateway's own");
                }
            });
            let authority = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            let authority = format!("{authority}:{}", self.flow.original.port());
            let mut request = Request::builder().method(method).uri(target).header(HOST, authority);
            request = request.header(ACCEPT, "application/json");
            if body.is_some() {
                request = request.header(CONTENT_TYPE, "application/json");
            }
            let text = body.map(|body| body.to_string()).unwrap_or_default();
            let mut request = request.body(Full::new(Bytes::from(text))).map_err(|_| OwnError::Answer)?;
            request.headers_mut().extend(fields);
            let response = sender.send_request(request).await.map_err(HostError::Http)?;
            let status = response.status();
            let read = Limited::new(response.into_body(), ANSWER).collect().await;
            if !status.is_success() {
                return Err(OwnError::Status(status));
            }
            let bytes = read.map_err(|_| OwnError::Answer)?.to_bytes();
            serde_json::from_slice(&bytes).map_err(|_| OwnError::Answer)
        };
        timeout(patience, asking).await.unwrap_or(Err(OwnError::Host(HostError::Timeout)))
    }
}

fn authorization(bearer: Option<&SecretString>) -> Result<Vec<(HeaderName, HeaderValue)>, CredentialError> {
    let Some(bearer) = bearer else { return Ok(Vec::new()) };
    let text = zeroize::Zeroizing::new(format!("Bearer {}", bearer.expose_secret()));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| CredentialError::Unusable("the token cannot be in a header field".to_owned()))?;
    value.set_sensitive(true);
    Ok(vec![(AUTHORIZATION, value)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, target: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const EXEC: &str = "/api/v1/namespaces/a/pods/x/exec?command=id";

    #[test]
    fn nothing_of_the_job_s_own_identity_goes_on() {
        let fields = [
            ("authorization", "Bearer placeholder"),
            ("cookie", "a=b"),
            ("impersonate-user", "admin"),
            ("impersonate-extra-scopes", "x"),
            ("x-remote-user", "admin"),
            ("x-remote-group", "system:masters"),
            ("accept", "application/vnd.kubernetes.protobuf,application/json;as=Table"),
            ("accept-encoding", "gzip"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.dG9rZW4, v4.channel.k8s.io"),
            ("user-agent", "kubectl"),
        ];
        let mut head = parts("GET", "/api/v1/namespaces/a/pods", &fields);
        let target = Head { method: "GET", target: "/api/v1/namespaces/a/pods", content_type: None };
        let action = kubernetes::Request::read(&target).unwrap().action().clone();
        rewrite(&mut head.headers, &action);
        let mut left: Vec<_> =
            head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "accept: application/json;as=Table",
                "sec-websocket-protocol: v4.channel.k8s.io",
                "user-agent: kubectl",
            ]
        );
    }

    #[test]
    fn what_could_not_be_followed_is_refused() {
        let ask = |target: &str, fields: &[(&str, &str)], upgrade: Option<&str>| {
            interpret(&parts("GET", target, fields), upgrade).err().map(|refused| refused.rule.to_string())
        };
        let channels = [("sec-websocket-protocol", "v5.channel.k8s.io")];
        assert_eq!(ask(EXEC, &channels, Some("websocket")), None);
        assert_eq!(ask("/api/v1/namespaces/a/pods", &[], None), None);
        let refused = Some(builtin::KUBERNETES.to_owned());
        assert_eq!(ask(EXEC, &[], None), refused);
        assert_eq!(ask(EXEC, &[], Some("websocket")), refused);
        assert_eq!(ask(EXEC, &[], Some("spdy/3.1")), refused);
        let tunnel = [("sec-websocket-protocol", "SPDY/3.1+portforward.k8s.io")];
        assert_eq!(ask(EXEC, &tunnel, Some("websocket")), refused);
        assert_eq!(ask("/api/v1/pods?watch=1", &channels, Some("websocket")), refused);
        assert_eq!(ask("/api/v1/pods", &[("content-type", "a"), ("content-type", "b")], None), refused);
        let acting = [("impersonate-user", "admin")];
        assert_eq!(ask("/apis/apps/v1", &acting, None), None);
        assert_eq!(ask("/metrics", &acting, None), Some(builtin::IMPERSONATION.to_owned()));
        assert_eq!(ask("/api/v1/pods", &acting, None), Some(builtin::IMPERSONATION.to_owned()));
    }

    #[test]
    fn only_channels_that_are_read_are_agreed_on() {
        let of = |fields: &[(&str, &str)]| agreed(&parts("GET", "/", fields).headers, false);
        let tunnel =
            |protocol| agreed(&parts("GET", "/", &[("x-stream-protocol-version", protocol)]).headers, true);
        assert!(tunnel("portforward.k8s.io") && !tunnel("v4.channel.k8s.io"));
        assert!(!of(&[("x-stream-protocol-version", "portforward.k8s.io")]));
        assert!(of(&[("sec-websocket-protocol", "v4.channel.k8s.io")]));
        assert!(!of(&[]));
        assert!(!of(&[("sec-websocket-protocol", "base64.channel.k8s.io")]));
        assert!(!of(&[("sec-websocket-protocol", "v4.channel.k8s.io"), ("sec-websocket-extensions", "x")]));
    }
}
