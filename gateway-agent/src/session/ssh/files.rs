//! Files on a channel: SFTP and legacy scp, operation by operation.
//!
//! The protocol crate reads both sides; here its questions are answered, and what it tells of is written down.

use std::collections::{HashMap, VecDeque};

use policy::{Allow, FileOperation, FileRequest, Recording, Route};
use protocol::ssh::{
    scp::{Scp, ScpStep},
    sftp::{FileEvent, FileTotals, Sftp, SftpStep},
};
use record::{Event as Recorded, List};

use super::ask::Refused;
use crate::session::{
    log::{Ended, Log, Running},
    observer::Lost,
};

/// Contents of files are recorded in pieces of at most this.
const PIECE: usize = 64 * 1024;

/// What reads the channel.
pub(super) enum Machine {
    Sftp(Box<Sftp>),
    Scp(Box<Scp>),
}

/// What a machine wants next.
pub(super) enum Next {
    /// Bytes of either side.
    Bytes,
    /// An answer about this.
    Answer(FileRequest),
}

impl Machine {
    pub(super) fn job_in(&mut self, bytes: &[u8]) {
        match self {
            Self::Sftp(sftp) => sftp.job_in(bytes),
            Self::Scp(scp) => scp.job_in(bytes),
        }
    }

    pub(super) fn host_in(&mut self, bytes: &[u8]) {
        match self {
            Self::Sftp(sftp) => sftp.upstream_in(bytes),
            Self::Scp(scp) => scp.upstream_in(bytes),
        }
    }

    /// Whether more of the job, and of the host, is wanted.
    pub(super) fn takes(&self) -> (bool, bool) {
        match self {
            Self::Sftp(sftp) => (sftp.takes_job(), sftp.takes_upstream()),
            Self::Scp(scp) => (scp.takes_job(), scp.takes_upstream()),
        }
    }

    /// Whether everything that the job sent went on, or was answered.
    pub(super) fn job_is_done(&self) -> bool {
        match self {
            Self::Sftp(sftp) => sftp.job_is_done(),
            Self::Scp(scp) => scp.job_is_done(),
        }
    }

    /// What goes out to the job, and to the host.
    pub(super) fn out(&mut self) -> (Vec<u8>, Vec<u8>) {
        match self {
            Self::Sftp(sftp) => (std::mem::take(sftp.job_out()), std::mem::take(sftp.upstream_out())),
            Self::Scp(scp) => (std::mem::take(scp.job_out()), std::mem::take(scp.upstream_out())),
        }
    }

    /// # Errors
    /// When a side broke its protocol.
    pub(super) fn step(&mut self) -> Result<Next, String> {
        let (asks, pending) = match self {
            Self::Sftp(sftp) => {
                let step = sftp.step().map_err(|error| error.to_string())?;
                (step == SftpStep::Ask, sftp.pending())
            }
            Self::Scp(scp) => {
                let step = scp.step().map_err(|error| error.to_string())?;
                (step == ScpStep::Ask, scp.pending())
            }
        };
        Ok(match pending.filter(|_| asks) {
            Some(request) => Next::Answer(request.clone()),
            None => Next::Bytes,
        })
    }

    pub(super) fn allow(&mut self, allow: &Allow) {
        match self {
            Self::Sftp(sftp) => sftp.allow(allow),
            Self::Scp(scp) => scp.allow(allow),
        }
    }

    pub(super) fn deny(&mut self, refused: &Refused) {
        let Refused { rule, reason, hint } = refused;
        match self {
            Self::Sftp(sftp) => sftp.deny(rule, reason, hint),
            Self::Scp(scp) => scp.deny(rule, reason, hint),
        }
    }

    /// The channel ends.
    pub(super) fn finish(&mut self) {
        match self {
            Self::Sftp(sftp) => sftp.finish(),
            Self::Scp(scp) => scp.finish(),
        }
    }

    pub(super) fn events(&mut self) -> Vec<FileEvent> {
        match self {
            Self::Sftp(sftp) => sftp.events().collect(),
            Self::Scp(scp) => scp.events().collect(),
        }
    }
}

/// Operations of a channel that were allowed, until they have ended.
#[derive(Default)]
pub(super) struct Operations {
    begun: VecDeque<(FileRequest, Running)>,
    open: HashMap<u64, Vec<Running>>,
}

impl Operations {
    pub(super) fn begun(&mut self, request: FileRequest, running: Running) {
        self.begun.push_back((request, running));
    }

    /// Writes down what a machine tells of.
    pub(super) async fn happened(&mut self, log: &Log, channel: u64, event: FileEvent) -> Result<(), Lost> {
        match event {
            FileEvent::Opened { file, path, .. } => {
                let mut opened = Vec::new();
                let mut rest = VecDeque::new();
                for (request, running) in self.begun.drain(..) {
                    let opens = matches!(
                        request.operation,
                        FileOperation::Read | FileOperation::Write | FileOperation::List
                    );
                    // scp has one file at a time, of which more than one path may have been asked about.
                    match opens && (request.path == path || request.by == Route::Scp) {
                        true => opened.push(running),
                        false => rest.push_back((request, running)),
                    }
                }
                self.begun = rest;
                self.open.insert(file, opened);
                Ok(())
            }
            FileEvent::Data { file, write, offset, bytes } => {
                let n = self.open.get(&file).and_then(|opened| opened.first()).map_or(0, |running| running.n);
                for (piece, at) in bytes.chunks(PIECE).zip((offset..).step_by(PIECE)) {
                    log.append(&Recorded::Contents { channel, n, write, offset: at, data: piece.into() })
                        .await?;
                }
                Ok(())
            }
            FileEvent::Closed(totals) => self.closed(log, channel, &totals).await,
            FileEvent::Done { request, status } => {
                let outcome = outcome(status);
                // A file whose size is set is written by that.
                let sizes = |of: &FileRequest| {
                    request.operation == FileOperation::Setstat
                        && of.operation == FileOperation::Write
                        && of.path == request.path
                };
                if let Some(at) = self.begun.iter().position(|(begun, _)| sizes(begun))
                    && let Some((_, written)) = self.begun.remove(at)
                {
                    written.ended(&Ended { tag: &outcome, bytes_in: 0, bytes_out: 0, masked: 0 }).await?;
                }
                let at = self.begun.iter().position(|(begun, _)| *begun == request);
                let running = at.and_then(|at| self.begun.remove(at)).map(|(_, running)| running);
                let Some(running) = running else { return Ok(()) };
                if running.level != Recording::None {
                    let paths = std::iter::once(&request.path).chain(&request.target).cloned().collect();
                    let event = Recorded::File {
                        channel,
                        n: running.n,
                        operation: request.operation.name().into(),
                        paths: List::Owned(paths),
                        outcome: outcome.as_str().into(),
                        bytes: 0,
                        digest: None,
                    };
                    log.append(&event).await?;
                }
                running.ended(&Ended { tag: &outcome, bytes_in: 0, bytes_out: 0, masked: 0 }).await
            }
        }
    }

    async fn closed(&mut self, log: &Log, channel: u64, totals: &FileTotals) -> Result<(), Lost> {
        let opened = self.open.remove(&totals.file).unwrap_or_default();
        let level = opened.iter().map(|running| running.level).max().unwrap_or_default();
        for (operation, moved) in [("read", &totals.read), ("write", &totals.written)] {
            if moved.bytes == 0 || level == Recording::None {
                continue;
            }
            let event = Recorded::File {
                channel,
                n: opened.first().map_or(0, |running| running.n),
                operation: operation.into(),
                paths: List::Owned(vec![totals.path.clone()]),
                outcome: "ok".into(),
                bytes: moved.bytes,
                digest: moved.sha256.map(|digest| hex::encode(digest).into()),
            };
            log.append(&event).await?;
        }
        let (bytes_in, bytes_out) = (totals.written.bytes, totals.read.bytes);
        for running in opened {
            running.ended(&Ended { tag: "closed", bytes_in, bytes_out, masked: 0 }).await?;
        }
        Ok(())
    }

    /// The channel is over: what had begun has ended with it.
    pub(super) async fn over(&mut self) -> Result<(), Lost> {
        let begun = std::mem::take(&mut self.begun).into_iter().map(|(_, running)| running);
        let open = std::mem::take(&mut self.open).into_values().flatten();
        for running in begun.chain(open) {
            running.ended(&Ended { tag: "not done", bytes_in: 0, bytes_out: 0, masked: 0 }).await?;
        }
        Ok(())
    }
}

/// A status of the server in words.
fn outcome(status: u32) -> String {
    match status {
        0 => "ok".to_owned(),
        1 => "end of file".to_owned(),
        2 => "no such file".to_owned(),
        3 => "permission denied by the host".to_owned(),
        8 => "not supported by the host".to_owned(),
        status => format!("failed with status {status}"),
    }
}
