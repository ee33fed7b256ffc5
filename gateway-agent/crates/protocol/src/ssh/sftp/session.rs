//! The state machine.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use mask::Detectors;
use policy::{Allow, FileOperation, FileRequest, Recording, Route};

use self::buffer::Buffer;
use super::{
    handle::{FileEvent, Handles},
    packet::{self, PACKET_MAX, Reader, Request},
    room::{Contents, Room},
};

/// Requests under way at once; beyond that the client waits.
const IN_FLIGHT_MAX: usize = 512;
/// Largest file whose contents are searched, in bytes; a larger one is refused.
pub const MASKED_MAX: usize = 16 * 1024 * 1024;
/// What is read at once of a file that is searched.
const PIECE: u32 = 32 * 1024;
/// Bytes that wait to be written out; beyond that nothing more is taken.
const OUT_MAX: usize = 1024 * 1024;

/// What the driver has to do next. Before anything else, write out both outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum SftpStep {
    /// Everything that could be done is done: write the outputs, read, call again.
    Need,
    /// An operation waits: look at [`Sftp::pending`], then `allow` or `deny`. Said once for each.
    Ask,
}

/// One side broke the protocol: close the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SftpError {
    #[error("the client broke SFTP: {0}")]
    Job(&'static str),
    #[error("the server broke SFTP: {0}")]
    Upstream(&'static str),
}

/// A channel of the subsystem.
pub struct Sftp {
    job_in: Buffer,
    job_out: Vec<u8>,
    up_in: Buffer,
    up_out: Vec<u8>,
    phase: Phase,
    home: Option<String>,
    /// The client's packet that is being looked at.
    current: Option<Current>,
    /// What the client's requests were, by id.
    in_flight: HashMap<u32, Asked>,
    /// The id of the gateway's own request, and the next to try.
    own: Option<u32>,
    next_own: u32,
    /// A file that is read as a whole to be searched: its handle, and what is there so far.
    fetching: Option<(Vec<u8>, Contents)>,
    room: Arc<Room>,
    /// Ids of own requests whose answers nobody waits for.
    unheard: Vec<u32>,
    handles: Handles,
    events: VecDeque<FileEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The client has not said which version it speaks.
    Start,
    /// The server has not.
    Version,
    /// The server is asked where home is.
    Home,
    Running,
}

/// A request on its way to a decision.
struct Current {
    id: u32,
    /// As it was sent, its length included.
    packet: Vec<u8>,
    asked: Asked,
    stage: Stage,
    /// Operations on paths that are not resolved yet, last first.
    unresolved: Vec<Unresolved>,
    /// Operations that wait for a decision, in order.
    undecided: VecDeque<FileRequest>,
    announced: bool,
    /// Collected from the verdicts.
    keep: bool,
    contents: Option<Arc<Detectors>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The path as it is, then the folder it is in, are resolved by the server.
    Resolving,
    Deciding,
    /// The file is read to be searched.
    Fetching,
}

struct Unresolved {
    operations: Vec<FileOperation>,
    path: String,
    follow: bool,
    target: Option<(String, bool)>,
    /// The first path is resolved.
    done: Option<String>,
    /// Only its folder is asked for now, because the file itself is not there, or is not to be followed.
    by_folder: bool,
}

/// What a reply belongs to.
#[derive(Debug, Clone)]
enum Asked {
    Open {
        path: String,
        read: bool,
        write: bool,
        folder: bool,
        keep: bool,
    },
    Close {
        file: u64,
    },
    Read {
        file: u64,
        offset: u64,
    },
    /// Answered by a status.
    Plain,
    Attrs,
    Names,
    Extended,
    Done(FileRequest),
}

impl Default for Sftp {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Sftp {
    /// `room`: for contents that are searched.
    pub fn new(room: Arc<Room>) -> Self {
        Self {
            job_in: Buffer::default(),
            job_out: Vec::new(),
            up_in: Buffer::default(),
            up_out: Vec::new(),
            phase: Phase::Start,
            home: None,
            current: None,
            in_flight: HashMap::new(),
            own: None,
            next_own: u32::MAX,
            fetching: None,
            room,
            unheard: Vec::new(),
            handles: Handles::default(),
            events: VecDeque::new(),
        }
    }

    /// Bytes from the client. Give no more than fits while [`Self::takes_job`] says yes.
    pub fn job_in(&mut self, bytes: &[u8]) {
        self.job_in.add(bytes);
    }

    /// Bytes from the server.
    pub fn upstream_in(&mut self, bytes: &[u8]) {
        self.up_in.add(bytes);
    }

    /// For the client: take what was written out.
    pub fn job_out(&mut self) -> &mut Vec<u8> {
        &mut self.job_out
    }

    /// For the server: take what was written out.
    pub fn upstream_out(&mut self) -> &mut Vec<u8> {
        &mut self.up_out
    }

    /// Whether more of the client is wanted.
    pub fn takes_job(&self) -> bool {
        self.job_in.len() <= PACKET_MAX && self.up_out.len() <= OUT_MAX && self.job_out.len() <= OUT_MAX
    }

    /// Whether more of the server is wanted.
    pub fn takes_upstream(&self) -> bool {
        self.up_in.len() <= PACKET_MAX && self.job_out.len() <= OUT_MAX
    }

    /// Whether everything that the client sent went on, or was answered.
    pub fn job_is_done(&self) -> bool {
        self.job_in.len() == 0 && self.current.is_none()
    }

    /// What happened since the last call.
    pub fn events(&mut self) -> impl Iterator<Item = FileEvent> + '_ {
        self.events.drain(..)
    }

    /// The channel ends: what is still open is closed.
    pub fn finish(&mut self) {
        for number in self.handles.all() {
            self.events.extend(self.handles.close(number));
        }
    }

    /// The operation that waits for a decision.
    pub fn pending(&self) -> Option<&FileRequest> {
        self.current.as_ref().filter(|of| of.stage == Stage::Deciding)?.undecided.front()
    }

    /// The pending operation is allowed.
    pub fn allow(&mut self, allow: &Allow) {
        let Some(current) = self.current.as_mut().filter(|of| of.stage == Stage::Deciding) else { return };
        if current.undecided.pop_front().is_none() {
            return;
        }
        current.announced = false;
        current.keep |= allow.obligations.record == Recording::Results;
        if let Some(ssh) = &allow.obligations.ssh {
            current.keep |= ssh.quarantine;
            if ssh.contents.is_some() {
                current.contents = ssh.contents.clone();
            }
        }
    }

    /// The pending operation is refused. The client reads the reason, the rule and the hint.
    pub fn deny(&mut self, rule: &str, reason: &str, hint: &str) {
        if let Some(current) = self.current.take_if(|of| of.stage == Stage::Deciding) {
            let message = format!("{reason} [{rule}]; {hint}");
            packet::status(&mut self.job_out, current.id, packet::PERMISSION_DENIED, &message);
        }
    }

    /// Goes on as far as it can.
    ///
    /// # Errors
    /// When a side broke the protocol: nothing more is relayed.
    pub fn step(&mut self) -> Result<SftpStep, SftpError> {
        loop {
            let replied = self.replies()?;
            if self.forward_decided() {
                continue;
            }
            if let Some(current) = &mut self.current {
                if current.stage == Stage::Deciding && !current.announced {
                    current.announced = true;
                    return Ok(SftpStep::Ask);
                }
                if !replied {
                    return Ok(SftpStep::Need);
                }
                continue;
            }
            if !self.next_request()? && !replied {
                return Ok(SftpStep::Need);
            }
        }
    }

    /// Takes the next request of the client; false when there is none, or it has to wait.
    fn next_request(&mut self) -> Result<bool, SftpError> {
        let waits = matches!(self.phase, Phase::Version | Phase::Home)
            || self.in_flight.len() >= IN_FLIGHT_MAX
            || self.up_out.len() > OUT_MAX
            || self.job_out.len() > OUT_MAX;
        if waits {
            return Ok(false);
        }
        let Some(packet) = self.job_in.packet(SftpError::Job)? else { return Ok(false) };
        let mut reader = Reader::new(packet.get(4..).unwrap_or_default());
        let kind = reader.byte().map_err(|_| SftpError::Job("an empty packet"))?;
        if self.phase == Phase::Start {
            if kind != packet::INIT {
                return Err(SftpError::Job("it does not begin with INIT"));
            }
            // Whatever it can, version 3 is what is spoken.
            packet::write(&mut self.up_out, packet::INIT, |out| out.extend_from_slice(&3u32.to_be_bytes()));
            self.phase = Phase::Version;
            return Ok(true);
        }
        let id = reader.u32().map_err(|_| SftpError::Job("a packet without an id"))?;
        if self.in_flight.contains_key(&id) {
            return Err(SftpError::Job("an id that is under way already"));
        }
        if self.unheard.contains(&id) {
            let why = "the gateway uses this id at the moment: try again";
            packet::status(&mut self.job_out, id, packet::FAILURE, why);
            return Ok(true);
        }
        match packet::request(kind, packet.get(9..).unwrap_or_default()) {
            Ok(request) => self.look(id, &packet, &request),
            Err(packet::Malformed) => {
                packet::status(&mut self.job_out, id, packet::BAD_MESSAGE, "the request cannot be read");
            }
        }
        Ok(true)
    }

    /// Refuses, answers, forwards, or begins to resolve.
    fn look(&mut self, id: u32, packet: &[u8], request: &Request<'_>) {
        use FileOperation::{List, Read, Remove, Rename, Setstat, Stat, Symlink, Write};
        match request {
            Request::Unknown => {
                packet::status(&mut self.job_out, id, packet::OP_UNSUPPORTED, "not known to the gateway");
            }
            Request::Harmless => self.forward(id, packet, Asked::Extended),
            Request::Open { path, flags } => {
                let operations: Vec<_> = [(flags.read, Read), (flags.write, Write)]
                    .iter()
                    .filter(|of| of.0)
                    .map(|of| of.1)
                    .collect();
                if operations.is_empty() || self.handles.is_full() {
                    let why =
                        if operations.is_empty() { "opened for nothing" } else { "too many open files" };
                    return packet::status(&mut self.job_out, id, packet::FAILURE, why);
                }
                let (read, write) = (flags.read, flags.write);
                let asked = Asked::Open { path: String::new(), read, write, folder: false, keep: false };
                self.resolve(id, packet, path, true, None, operations, asked);
            }
            Request::Opendir { path } => {
                if self.handles.is_full() {
                    return packet::status(&mut self.job_out, id, packet::FAILURE, "too many open files");
                }
                let asked =
                    Asked::Open { path: String::new(), read: true, write: false, folder: true, keep: false };
                self.resolve(id, packet, path, true, None, vec![List], asked);
            }
            Request::Stat { path, follow } => {
                self.resolve(id, packet, path, *follow, None, vec![Stat], Asked::Attrs);
            }
            Request::Setstat { path, follow, sizes } => {
                let operations = if *sizes { vec![Write, Setstat] } else { vec![Setstat] };
                self.resolve(id, packet, path, *follow, None, operations, Asked::Plain);
            }
            Request::Remove { path } | Request::Rmdir { path } => {
                self.resolve(id, packet, path, false, None, vec![Remove], Asked::Plain);
            }
            Request::Mkdir { path } => self.resolve(id, packet, path, false, None, vec![Write], Asked::Plain),
            Request::Realpath { path } if path.is_empty() || *path == b"." => {
                self.forward(id, packet, Asked::Names)
            }
            Request::Realpath { path } => {
                self.resolve(id, packet, path, true, None, vec![Stat], Asked::Names);
            }
            Request::Readlink { path } => {
                self.resolve(id, packet, path, false, None, vec![Stat], Asked::Names);
            }
            Request::Statvfs { path } => {
                self.resolve(id, packet, path, true, None, vec![Stat], Asked::Extended);
            }
            Request::ExpandPath { path } => {
                let Some(expanded) = self.expanded(path) else {
                    let why = "whose home that is only the host knows";
                    return packet::status(&mut self.job_out, id, packet::PERMISSION_DENIED, why);
                };
                self.resolve(id, packet, expanded.as_bytes(), true, None, vec![Stat], Asked::Names);
            }
            Request::Rename { from, to } => {
                self.resolve(id, packet, from, false, Some((to, false)), vec![Rename], Asked::Plain);
            }
            Request::Hardlink { from, to } => {
                self.resolve(id, packet, to, false, Some((from, true)), vec![Symlink], Asked::Plain);
            }
            Request::Symlink { target, link } => {
                // It starts from where the link is.
                let from = match (target.first(), link.iter().rposition(|c| *c == b'/')) {
                    (Some(b'/'), _) | (_, None) => target.to_vec(),
                    (_, Some(slash)) => {
                        let mut path = link.get(..=slash).unwrap_or_default().to_vec();
                        path.extend_from_slice(target);
                        path
                    }
                };
                self.resolve(id, packet, link, false, Some((&from, true)), vec![Symlink], Asked::Plain);
            }
            Request::Close { handle } => match self.handles.forget(handle) {
                Some(file) => self.forward(id, packet, Asked::Close { file }),
                None => self.no_handle(id),
            },
            Request::Read { handle, offset, length } => self.read(id, packet, handle, *offset, *length),
            Request::Write { handle, offset, data } => self.write(id, packet, handle, *offset, data),
            Request::Fstat { handle } => match self.handles.find(handle) {
                Some(_) => self.forward(id, packet, Asked::Attrs),
                None => self.no_handle(id),
            },
            Request::Fstatvfs { handle } => match self.handles.find(handle) {
                Some(_) => self.forward(id, packet, Asked::Extended),
                None => self.no_handle(id),
            },
            Request::Fsync { handle } => match self.handles.find(handle) {
                Some(_) => self.forward(id, packet, Asked::Plain),
                None => self.no_handle(id),
            },
            Request::Readdir { handle } => match self.handles.find(handle) {
                Some((_, open)) if open.folder => self.forward(id, packet, Asked::Names),
                _ => self.no_handle(id),
            },
            Request::Fsetstat { handle, sizes, only_sizes } => match self.handles.find(handle) {
                Some((_, open)) if open.write && *only_sizes => self.forward(id, packet, Asked::Plain),
                Some((_, open)) => {
                    let request = self.on_path(Setstat, open.path.clone(), None);
                    let written = sizes.then(|| self.on_path(Write, open.path.clone(), None));
                    let undecided = written.into_iter().chain([request.clone()]).collect();
                    self.decide(id, packet, Asked::Done(request), undecided);
                }
                None => self.no_handle(id),
            },
        }
    }

    fn no_handle(&mut self, id: u32) {
        let why = "no open file of that kind has this handle";
        packet::status(&mut self.job_out, id, packet::FAILURE, why);
    }

    fn read(&mut self, id: u32, packet: &[u8], handle: &[u8], offset: u64, length: u32) {
        let Some((file, open)) = self.handles.find(handle).filter(|(_, open)| open.read && !open.folder)
        else {
            return self.no_handle(id);
        };
        let Some(contents) = &open.masked else {
            return self.forward(id, packet, Asked::Read { file, offset });
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(PACKET_MAX / 2);
        let rest = contents.bytes().get(from..).unwrap_or_default();
        let piece = rest.get(..length.min(rest.len())).unwrap_or_default().to_vec();
        if piece.is_empty() {
            return packet::status(&mut self.job_out, id, packet::EOF, "end of file");
        }
        self.passed(file, false, offset, &piece);
        packet::write(&mut self.job_out, packet::DATA, |out| {
            out.extend_from_slice(&id.to_be_bytes());
            packet::put_string(out, &piece);
        });
    }

    fn write(&mut self, id: u32, packet: &[u8], handle: &[u8], offset: u64, data: &[u8]) {
        match self.handles.find(handle).filter(|(_, open)| open.write && !open.folder) {
            Some((file, _)) => {
                self.passed(file, true, offset, data);
                self.forward(id, packet, Asked::Plain);
            }
            None => self.no_handle(id),
        }
    }

    fn passed(&mut self, file: u64, write: bool, offset: u64, data: &[u8]) {
        let Some(open) = self.handles.file(file) else { return };
        let flow = if write { &mut open.writes } else { &mut open.reads };
        flow.passed(offset, data);
        if open.keep {
            self.events.push_back(FileEvent::Data { file, write, offset, bytes: data.to_vec() });
        }
    }

    fn forward(&mut self, id: u32, packet: &[u8], asked: Asked) {
        self.in_flight.insert(id, asked);
        self.up_out.extend_from_slice(packet);
    }

    fn on_path(&self, operation: FileOperation, path: String, target: Option<String>) -> FileRequest {
        FileRequest { operation, path, target, home: self.home.clone(), by: Route::Sftp }
    }

    fn decide(&mut self, id: u32, packet: &[u8], asked: Asked, undecided: VecDeque<FileRequest>) {
        self.current = Some(Current {
            id,
            packet: packet.to_vec(),
            asked,
            stage: Stage::Deciding,
            unresolved: Vec::new(),
            undecided,
            announced: false,
            keep: false,
            contents: None,
        });
    }

    /// Everything about the current request is allowed: it goes on.
    fn forward_decided(&mut self) -> bool {
        let ready = |of: &mut Current| of.stage == Stage::Deciding && of.undecided.is_empty();
        let Some(mut current) = self.current.take_if(ready) else { return false };
        if let Asked::Open { write: true, .. } = current.asked
            && current.contents.is_some()
        {
            let why = "its contents are masked: open it for reading alone";
            packet::status(&mut self.job_out, current.id, packet::PERMISSION_DENIED, why);
            return true;
        }
        if let Asked::Open { keep, .. } = &mut current.asked {
            *keep = current.keep;
        }
        if current.contents.is_some() {
            // The client hears of the handle when the contents are here.
            self.up_out.extend_from_slice(&current.packet);
            self.own = Some(current.id);
            current.stage = Stage::Fetching;
            self.current = Some(current);
        } else {
            self.forward(current.id, &current.packet, current.asked);
        }
        true
    }
}

mod buffer;
mod reply;
mod resolve;
