//! What a job may write as a command line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::{Effect, SshRequest};
use protocol::ssh::command;
use protocol_fuzz::ask;

fuzz_target!(|text: &[u8]| {
    let exec = command::read(text);
    let programs: Vec<_> = exec.invocations.iter().map(|run| run.program.text.clone()).collect();
    if let Effect::Allow(_) = ask(SshRequest::Exec(exec)) {
        // The policy grants one program, and builtins start nothing.
        let foreign = ["rm", "sh", "bash", "cat", "sudo", "ls", "id"];
        assert!(!programs.iter().any(|name| foreign.contains(&name.as_str())), "{programs:?}");
    }
});
