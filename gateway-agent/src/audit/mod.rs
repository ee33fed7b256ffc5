//! What happened, for afterwards: a recording per session and one audit log for all.
//!
//! Both promise that nothing is done which they could not write down: once writing fails or falls too far
//! behind, they answer with an error, and the caller refuses the action. Neither makes a session wait for the disk,
//! unless asked to ([`Durability::Each`]).

mod event;
mod key;
mod log;
mod recorder;
mod recovery;

pub use event::{AuditEvent, Context, Facts, Kind, Scope, Value, statement_hash};
pub use key::{KeyFileError, load_or_create, public_key};
pub use log::{Audit, AuditConfig, AuditLost};
pub use recorder::{
    Durability, Recorder, RecorderConfig, RecorderStats, RecordingLost, SessionRecorder, StartError,
};
pub use recovery::{Recovered, recover_dir};

/// Nanoseconds since 1970.
pub fn unix_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
