//! From what a client sends to what policy is asked.

use policy::SshRequest;
use protocol::ssh::command;

/// A command line, read as the host's shell will read it.
pub(super) fn exec(command: &[u8]) -> SshRequest {
    SshRequest::Exec(command::read(command))
}
