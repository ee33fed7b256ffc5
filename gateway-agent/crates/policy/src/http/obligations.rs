//! What an allow on an HTTP host is conditional on.

use std::{sync::Arc, time::Duration};

use mask::{JsonPath, Transform};

use crate::ssh::Bounded;

/// What an allow of a request is conditional on, besides [`record`](crate::Obligations::record) and
/// [`detectors`](crate::Obligations::detectors), which are for the response.
#[derive(Debug, Clone, Default)]
pub struct HttpObligations {
    /// Values of the response that are hidden. Not empty: a response that is no JSON is withheld.
    pub json: Arc<[(JsonPath, Transform)]>,
    pub limits: HttpLimits,
}

/// Bounds on a request; of several rules that grant it the strictest count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of the request's body.
    pub request_bytes: Option<Bounded<u64>>,
    /// Bytes of the response's body, as they come from the server.
    pub response_bytes: Option<Bounded<u64>>,
    /// From being allowed until the end of the response, or of what it was upgraded to.
    pub duration: Option<Bounded<Duration>>,
    /// Requests of the job that the rule granted, in any 60 seconds.
    pub per_minute: Vec<Bounded<u32>>,
}
