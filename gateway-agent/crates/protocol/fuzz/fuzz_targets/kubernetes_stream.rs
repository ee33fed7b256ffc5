//! Both ends of a pod's stream, hostile: frames of any kind, cut anywhere.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use mask::Detectors;
use protocol::kubernetes::{
    spdy::Tunnel,
    stream::{PodFrames, StreamKind},
};

fuzz_target!(|input: (bool, Vec<(bool, Vec<u8>)>)| {
    let (process, pieces) = input;
    // As a tunnel: what passes is what came, as far as it was read.
    let (mut tunnel, mut came, mut passed) = (Tunnel::from_job(), Vec::new(), Vec::new());
    for (_, bytes) in &pieces {
        came.extend_from_slice(bytes);
        let Ok(_) = tunnel.push(bytes, &mut passed, |_| {}) else { break };
        assert!(came.starts_with(&passed));
    }
    let kind = if process { StreamKind::Process } else { StreamKind::Ports };
    let mut frames = PodFrames::new(kind, &Arc::new(Detectors::compile(&["aws_access_key"]).unwrap()));
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for (job, bytes) in pieces {
        let done = match job {
            true => frames.from_job(&bytes, &mut up, |_| {}),
            false => frames.from_pod(&bytes, &mut down, |_| {}),
        };
        if done.is_err() {
            break;
        }
    }
    frames.pause(&mut down, |_| {});
    // What is written is a stream again, with nothing left to be found in it.
    let mut again = PodFrames::new(kind, &Arc::new(Detectors::compile(&["aws_access_key"]).unwrap()));
    again.from_pod(&down, &mut Vec::new(), |_| {}).unwrap();
});
