//! Both sides of legacy scp, hostile.

#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::{Effect, SshRequest};
use protocol::ssh::{
    command,
    scp::{Scp, ScpStep},
};
use protocol_fuzz::ask;

fuzz_target!(|input: (bool, Vec<(bool, Vec<u8>)>)| {
    let (up, pieces) = input;
    let command = if up { "scp -r -t /srv/a" } else { "scp -r -f /srv/a" };
    let mut scp = Scp::new(&command::read(command.as_bytes()), None).expect("a transfer");
    for (job, bytes) in pieces {
        if job {
            scp.job_in(&bytes)
        } else {
            scp.upstream_in(&bytes)
        }
        loop {
            match scp.step() {
                Ok(ScpStep::Ask) => {
                    let Some(file) = scp.pending().cloned() else { panic!("asked about nothing") };
                    match ask(SshRequest::File(file.clone())) {
                        Effect::Allow(allow) => {
                            assert!(file.path.starts_with("/srv"), "{file:?}");
                            scp.allow(&allow);
                        }
                        _ => scp.deny("r", "no", "ask"),
                    }
                }
                Ok(ScpStep::Need) => break,
                Err(_) => return,
            }
        }
        scp.job_out().clear();
        scp.upstream_out().clear();
        scp.events().for_each(drop);
        let _ = (scp.takes_job(), scp.takes_upstream(), scp.job_is_done());
    }
});
