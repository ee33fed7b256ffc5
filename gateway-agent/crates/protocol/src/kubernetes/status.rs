//! Refusals as the API server's clients know them.

use serde_json::{Value, json};

/// Why a request is not answered by the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// HTTP status.
    pub code: u16,
    /// The rule that refused, if one did.
    pub rule: Option<&'a str>,
    pub reason: &'a str,
    pub hint: &'a str,
}

/// A `Status` of `meta/v1`: what kubectl prints after `Error from server`.
pub fn status(refusal: &Refusal<'_>) -> Value {
    let Refusal { code, rule, reason, hint } = refusal;
    let message = match rule {
        Some(rule) => format!("gateway: denied by policy rule {rule}: {reason} (hint: {hint})"),
        None => format!("gateway: {reason} (hint: {hint})"),
    };
    let mut causes = vec![json!({ "reason": "GatewayHint", "message": hint })];
    if let Some(rule) = rule {
        causes.insert(0, json!({ "reason": "GatewayRule", "message": rule }));
    }
    // Of an invalid object kubectl prints the causes in place of the message.
    if *code == 422 {
        let told = message.trim_start_matches("gateway: ");
        causes = vec![json!({ "reason": "FieldValueInvalid", "field": "gateway", "message": told })];
    }
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason_of(*code),
        "details": { "causes": causes },
        "code": code,
    })
}

/// The server's word for a status.
fn reason_of(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        413 => "RequestEntityTooLarge",
        415 => "UnsupportedMediaType",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "Unknown",
    }
}
