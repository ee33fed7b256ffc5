//! Detectors and transforms that hide values.

/// How a value is hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transform {
    /// The whole value is replaced.
    Redact,
}

/// Finds and hides secrets and personal data inside text.
#[derive(Debug)]
pub struct Detectors;
