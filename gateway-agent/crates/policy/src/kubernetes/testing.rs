//! Expected decisions on API servers.

use schemars::JsonSchema;
use serde::Deserialize;

/// A request to be decided.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesCase {
    /// `GET /api/v1/namespaces/shop/pods?watch=true`, as it is sent.
    pub request: String,
    /// Content-Type of the body. Default: application/json.
    pub content_type: Option<String>,
    /// The body.
    pub body: Option<serde_json::Value>,
}
