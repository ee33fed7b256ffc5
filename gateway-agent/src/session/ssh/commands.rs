//! From what a client sends to what policy is asked.

use policy::{Exec, SshRequest};

/// A command line, read as the host's shell will read it.
pub(super) fn exec(command: &[u8]) -> SshRequest {
    SshRequest::Exec(Exec {
        text: String::from_utf8_lossy(command).into_owned(),
        opaque: vec!["commands are not read yet".to_owned()],
        ..Exec::default()
    })
}
