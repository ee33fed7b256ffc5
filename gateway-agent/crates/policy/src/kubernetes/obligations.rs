//! What an allow on an API server is conditional on.

use std::sync::Arc;

use mask::Detectors;

use crate::pattern::Glob;

/// What an allow of a request is conditional on, besides [`record`](crate::Obligations::record), and the limits that are in
/// [`http`](crate::Obligations::http).
#[derive(Debug, Clone)]
pub struct KubernetesObligations {
    /// Those whose contents are not hidden.
    pub shown: ShownSecrets,
    /// Looked for in every other string, and in what streams show: those of the policy's masks, and keys and tokens in any case.
    pub detectors: Arc<Detectors>,
}

/// Secrets that are shown with their contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ShownSecrets {
    #[default]
    None,
    /// Those of these names.
    Named(Vec<Glob>),
    All,
}

impl ShownSecrets {
    /// Those of these names, with wildcards. `None`: one is no pattern.
    pub fn named(names: &[&str]) -> Option<Self> {
        let names = names.iter().map(|name| Glob::new(name).ok());
        names.collect::<Option<_>>().map(Self::Named)
    }

    pub fn all(&self) -> bool {
        *self == Self::All
    }

    /// Whether that of this name is.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::Named(names) => names.iter().any(|glob| glob.matches(name)),
            Self::All => true,
        }
    }

    /// What either of them shows.
    #[must_use]
    pub(crate) fn or(self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::None, other) => other.clone(),
            (one, Self::None) => one,
            (Self::Named(one), Self::Named(other)) => Self::Named([&one[..], other].concat()),
        }
    }
}
