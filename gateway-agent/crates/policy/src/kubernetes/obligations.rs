//! What an allow on an API server is conditional on.

use std::sync::Arc;

use mask::Detectors;

/// What an allow of a request is conditional on, besides [`record`](crate::Obligations::record), and the limits that are in
/// [`http`](crate::Obligations::http).
#[derive(Debug, Clone)]
pub struct KubernetesObligations {
    /// The contents of Secrets are hidden.
    pub mask_secrets: bool,
    /// Looked for in every other string, and in what streams show: those of the policy's masks, and keys and tokens in any case.
    pub detectors: Arc<Detectors>,
}
