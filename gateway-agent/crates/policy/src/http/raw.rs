//! The language's part for HTTP, as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Ambiguity;
use crate::raw::RawSecret;

/// Requests to HTTP hosts.
///
/// An allow rule grants a request that is all of what it names. A deny or approve rule applies to every request that could be
/// what it names, in any way that a server may read the path; what it does not name is anything.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawHttp {
    /// Names of the resource. Default: all of them.
    pub(crate) hosts: Option<Vec<String>>,
    /// `GET`, `POST`, …; `"*"` for any. Allow and approve rules name them.
    pub(crate) methods: Vec<String>,
    /// Templates: `{name}` is one segment, `*` a part of one, `**` any number of them. Allow and approve rules name them.
    pub(crate) paths: Vec<String>,
    /// Parameters of the query and values that they may have, with wildcards. For allow rules each is there exactly once.
    pub(crate) query: BTreeMap<String, Vec<String>>,
    /// Protocols that a connection may be upgraded to: `websocket`. What is said then is not seen. Default: none; for deny rules
    /// any request.
    pub(crate) upgrade: Vec<String>,
    /// Paths may be ambiguous in these ways. The template is compared with the path decoded once.
    pub(crate) ambiguous: Vec<Ambiguity>,
    /// TLS to the named hosts is let through without being ended: nothing of it is seen. Alone, but for `hosts` and `limits`.
    pub(crate) pass_through: bool,
    /// Bounds. Of several rules that grant a request the strictest count.
    pub(crate) limits: RawHttpLimits,
}

/// Bounds on requests.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawHttpLimits {
    /// Bytes of a request's body.
    pub(crate) request_bytes: Option<u64>,
    /// Bytes of a response's body.
    pub(crate) response_bytes: Option<u64>,
    /// From being allowed until the end of the response, or of what it was upgraded to, as `5m`.
    pub(crate) duration: Option<String>,
    /// Requests that the rule grants, in any 60 seconds.
    pub(crate) per_minute: Option<u32>,
}

/// A header field that the gateway sets. Jobs never see its value, and what they send under its name is dropped.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawInject {
    /// Its name.
    pub(crate) header: String,
    /// Text in front of the secret: `"Bearer "`.
    #[serde(default)]
    pub(crate) prefix: String,
    /// Instead of `prefix`: HTTP basic authentication of this user, with the secret as the password.
    pub(crate) basic_user: Option<String>,
    pub(crate) value: RawSecret,
}
