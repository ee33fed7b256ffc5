//! What an allow on an API server is conditional on.

use std::{sync::Arc, time::Duration};

use mask::Detectors;

use crate::ssh::Bounded;

/// What an allow of a request is conditional on, besides [`record`](crate::Obligations::record).
#[derive(Debug, Clone)]
pub struct KubernetesObligations {
    /// The contents of Secrets are hidden.
    pub mask_secrets: bool,
    /// Looked for in every other string, and in what streams show: those of the policy's masks, and keys and tokens in any case.
    pub detectors: Arc<Detectors>,
    pub limits: KubernetesLimits,
}

/// Bounds on a request; of several rules that grant it the strictest count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubernetesLimits {
    /// From being allowed until the end of the answer or stream.
    pub duration: Option<Bounded<Duration>>,
    /// Bytes of the answer, or of the stream in both directions.
    pub bytes: Option<Bounded<u64>>,
    /// Requests of the job that the rule granted, in any 60 seconds.
    pub per_minute: Vec<Bounded<u32>>,
}
