//! What an allow on an SSH host is conditional on.

use std::{sync::Arc, time::Duration};

use mask::Detectors;

/// What an allow on an SSH host is conditional on, besides [`record`](crate::Obligations::record) and the ids of the masks.
///
/// What is looked for in the output of commands and shells is in [`detectors`](crate::Obligations::detectors): in what
/// the job is sent as in what is stored.
#[derive(Debug, Clone, Default)]
pub struct SshObligations {
    /// Looked for in the contents of this file when it is read. Only for [`File`](crate::SshRequest::File) requests;
    /// `None` = the contents pass as they are.
    pub contents: Option<Arc<Detectors>>,
    /// A copy of what is written is kept. Only for [`File`](crate::SshRequest::File) requests that write.
    pub quarantine: bool,
    pub limits: SshLimits,
}

/// Bounds; of several rules that grant something the strictest count.
///
/// Those of a connection's verdict hold for the connection and everything on it; those of another verdict for the
/// channel of that request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SshLimits {
    /// Without a byte in either direction.
    pub idle: Option<Bounded<Duration>>,
    /// From being allowed.
    pub duration: Option<Bounded<Duration>>,
    /// Bytes of channel data, both directions together.
    pub bytes: Option<Bounded<u64>>,
    /// Channels open at once; counts in a connection's verdict only.
    pub channels: Option<Bounded<u32>>,
    /// Requests for exec, shell and subsystem of the job that the rule granted, in any 60 seconds.
    pub per_minute: Vec<Bounded<u32>>,
}

/// A bound, and the rule that set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounded<T> {
    pub most: T,
    pub rule: Arc<str>,
}

impl<T: Ord + Copy> Bounded<T> {
    /// What each of these rules sets.
    pub(crate) fn each<'a, B: 'a>(
        bounds: impl Iterator<Item = (&'a B, &'a Arc<str>)>,
        of: fn(&B) -> Option<T>,
    ) -> impl Iterator<Item = Self> {
        bounds.filter_map(move |(bounds, rule)| Some(Self { most: of(bounds)?, rule: Arc::clone(rule) }))
    }

    /// The strictest of them.
    pub(crate) fn strictest<'a, B: 'a>(
        bounds: impl Iterator<Item = (&'a B, &'a Arc<str>)>,
        of: fn(&B) -> Option<T>,
    ) -> Option<Self> {
        Self::each(bounds, of).min_by_key(|bound| bound.most)
    }
}
