//! From what a client sends to what policy is asked.

use policy::SshRequest;
use protocol::ssh::command;

/// Longest command line that is run, in bytes.
pub(super) const LENGTH_MAX: usize = 32 * 1024;

/// A command line, read as the host's shell will read it, `terminal`: on one.
pub(super) fn exec(command: &[u8], terminal: bool) -> SshRequest {
    SshRequest::Exec(command::read_for(command, terminal))
}
