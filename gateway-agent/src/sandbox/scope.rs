//! Landlock for jobs: abstract unix sockets have no path that a mount could cover.

use landlock::{CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError, Scope};

/// From here on, this process and all that it starts connect to abstract unix sockets of each other only, and signal
/// each other only. Linux 6.12; older kernels do nothing of it, which `SECURITY.md` tells.
///
/// # Errors
/// When a kernel that knows this refuses it.
pub(crate) fn close() -> Result<(), RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        .restrict_self()
        .map(drop)
}
