//! Expected decisions on HTTP hosts.

use schemars::JsonSchema;
use serde::Deserialize;

/// A request to be decided.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpCase {
    /// Default: GET.
    pub method: Option<String>,
    /// `https://host/path?query`, encoded as it would be sent.
    pub url: String,
    /// What the connection is to become: `websocket`.
    pub upgrade: Option<String>,
    /// TLS to the host of `url` is to be let through.
    pub pass_through: bool,
}
