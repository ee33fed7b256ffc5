//! Hides what detectors find in a channel, in what the job is shown and in what is stored.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use policy::SshRequest;
use record::Stream;
use tokio::time::sleep;

/// Output that may still become a finding waits this long for more: on a terminal, and elsewhere, where nobody waits to see what is
/// typed, but the program's other end may wait for its answer.
const PATIENCE: Duration = Duration::from_millis(100);
const LONG_PATIENCE: Duration = Duration::from_secs(1);

/// Hides what detectors find, in what the job is shown and in what is stored.
pub(super) struct Masks {
    output: mask::Stream,
    error: mask::Stream,
    /// What is typed goes to the host as it is; only its record is masked.
    input: mask::Stream,
    pub(super) since: Option<Instant>,
}

impl Masks {
    pub(super) fn new(detectors: &Arc<mask::Detectors>) -> Self {
        let stream = || mask::Stream::new(Arc::clone(detectors));
        Self { output: stream(), error: stream(), input: stream(), since: None }
    }

    fn of(&mut self, stream: Stream) -> &mut mask::Stream {
        match stream {
            Stream::Output => &mut self.output,
            Stream::Error => &mut self.error,
            Stream::Input => &mut self.input,
        }
    }

    pub(super) fn push(&mut self, stream: Stream, data: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(data.len());
        self.of(stream).push(data, &mut out);
        // Nobody waits for the record of what is typed.
        if stream != Stream::Input {
            let holds = self.output.holds() || self.error.holds();
            self.since = holds.then(Instant::now);
        }
        out.into()
    }

    pub(super) fn rest(&mut self, stream: Stream) -> Bytes {
        let mut out = Vec::new();
        self.of(stream).release(&mut out);
        out.into()
    }

    /// Of what the job was shown.
    pub(super) fn hidden(&self) -> u64 {
        self.output.hidden() + self.error.hidden()
    }
}

/// Returns when output has been held back for long enough.
pub(super) async fn pause(masks: &Option<Masks>, terminal: bool) {
    let patience = if terminal { PATIENCE } else { LONG_PATIENCE };
    match masks.as_ref().and_then(|masks| masks.since) {
        Some(since) => sleep(patience.saturating_sub(since.elapsed())).await,
        None => std::future::pending().await,
    }
}

/// rsync and git, and nothing beside them: what they move is no text, and masks of files have refused them already.
pub(super) fn moves_files(request: &SshRequest) -> bool {
    match request {
        SshRequest::Exec(exec) => {
            exec.opaque.is_empty()
                && !exec.invocations.is_empty()
                && exec.invocations.iter().all(|invocation| invocation.transfer)
        }
        _ => false,
    }
}
