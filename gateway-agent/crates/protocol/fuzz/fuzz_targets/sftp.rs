//! A client and a server of SFTP, both hostile: packets in any order, cut anywhere.

#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::{Effect, SshRequest};
use protocol::ssh::sftp::{Sftp, SftpStep};
use protocol_fuzz::ask;

fuzz_target!(|pieces: Vec<(bool, Vec<u8>)>| {
    let mut sftp = Sftp::default();
    for (job, bytes) in pieces {
        // Half of the time the fuzzer need not find the length.
        let mut packet = Vec::new();
        if bytes.first().is_some_and(|c| c % 2 == 0) {
            packet.extend_from_slice(&u32::try_from(bytes.len() - 1).unwrap_or_default().to_be_bytes());
            packet.extend_from_slice(&bytes[1..]);
        } else {
            packet.extend_from_slice(&bytes);
        }
        if job {
            sftp.job_in(&packet)
        } else {
            sftp.upstream_in(&packet)
        }
        loop {
            match sftp.step() {
                Ok(SftpStep::Ask) => {
                    let Some(file) = sftp.pending().cloned() else { panic!("asked about nothing") };
                    match ask(SshRequest::File(file.clone())) {
                        Effect::Allow(allow) => {
                            assert!(file.path.starts_with("/srv") || file.path == "/", "{file:?}");
                            assert!(!file.path.split('/').any(|name| name == ".."), "{file:?}");
                            sftp.allow(&allow);
                        }
                        _ => sftp.deny("r", "no", "ask"),
                    }
                }
                Ok(SftpStep::Need) => break,
                Err(_) => {
                    sftp.finish();
                    return;
                }
            }
        }
        sftp.job_out().clear();
        sftp.upstream_out().clear();
        sftp.events().for_each(drop);
    }
});
