//! What the server says.

use super::{Asked, MASKED_MAX, OUT_MAX, PIECE, Phase, Sftp, SftpError, Stage};
use crate::ssh::{
    files,
    sftp::{
        handle::{FileEvent, Flow, HANDLE_MAX, Open},
        packet::{self, Malformed, Reader},
        room::Contents,
    },
};

const BROKEN: SftpError = SftpError::Upstream("a reply that cannot be read");

impl From<Malformed> for SftpError {
    fn from(_: Malformed) -> Self {
        BROKEN
    }
}

impl Sftp {
    /// Takes every whole reply; whether there was one.
    pub(super) fn replies(&mut self) -> Result<bool, SftpError> {
        let mut any = false;
        while self.job_out.len() <= OUT_MAX {
            let Some(reply) = self.up_in.packet(SftpError::Upstream)? else { break };
            any = true;
            self.reply(&reply)?;
        }
        Ok(any)
    }

    fn reply(&mut self, reply: &[u8]) -> Result<(), SftpError> {
        let body = reply.get(4..).unwrap_or_default();
        let mut reader = Reader::new(body);
        let kind = reader.byte()?;
        match self.phase {
            Phase::Start => return Err(SftpError::Upstream("it speaks before it is spoken to")),
            Phase::Version => return self.version(kind, reader),
            Phase::Home | Phase::Running => {}
        }
        let id = reader.u32()?;
        let rest = body.get(5..).unwrap_or_default();
        if self.own == Some(id) {
            self.own = None;
            return self.own_reply(kind, rest);
        }
        if let Some(at) = self.unheard.iter().position(|own| *own == id) {
            self.unheard.swap_remove(at);
            return Ok(());
        }
        let Some(asked) = self.in_flight.remove(&id) else {
            return Err(SftpError::Upstream("a reply to nothing"));
        };
        self.check(kind, rest, &asked)?;
        match asked {
            Asked::Open { path, read, write, folder, keep } if kind == packet::HANDLE => {
                let handle = self.fresh_handle(rest)?;
                let (reads, writes) = (Flow::new(), Flow::new());
                let open =
                    Open { path: path.clone(), read, write, folder, keep, masked: None, reads, writes };
                let file = self.handles.add(handle, open);
                if !folder {
                    self.events.push_back(FileEvent::Opened { file, path, read, write });
                }
            }
            Asked::Read { file, offset } if kind == packet::DATA => {
                let mut reader = Reader::new(rest);
                let data = reader.string()?;
                reader.end()?;
                self.passed(file, false, offset, data);
            }
            Asked::Close { file } => self.events.extend(self.handles.close(file)),
            Asked::Done(request) => {
                let status = Reader::new(rest).u32()?;
                self.events.push_back(FileEvent::Done { request, status });
            }
            _ => {}
        }
        self.job_out.extend_from_slice(reply);
        Ok(())
    }

    /// A handle that names nothing yet.
    fn fresh_handle(&self, rest: &[u8]) -> Result<Vec<u8>, SftpError> {
        let mut reader = Reader::new(rest);
        let handle = reader.string()?;
        reader.end()?;
        if handle.len() > HANDLE_MAX {
            return Err(SftpError::Upstream("a handle of more than 256 bytes"));
        }
        match self.handles.number(handle) {
            Some(_) => Err(SftpError::Upstream("a handle that is in use")),
            None => Ok(handle.to_vec()),
        }
    }

    /// Whether a reply of this kind can be one to that request.
    fn check(&self, kind: u8, rest: &[u8], asked: &Asked) -> Result<(), SftpError> {
        let wanted = match asked {
            Asked::Open { .. } => packet::HANDLE,
            Asked::Read { .. } => packet::DATA,
            Asked::Attrs => packet::ATTRS,
            Asked::Names => packet::NAME,
            Asked::Extended => packet::EXTENDED_REPLY,
            Asked::Close { .. } | Asked::Plain | Asked::Done(_) => packet::STATUS,
        };
        if kind == packet::STATUS {
            let code = Reader::new(rest).u32()?;
            // A success has to bring what was asked for.
            if wanted != packet::STATUS && code == packet::OK {
                return Err(SftpError::Upstream("a success without its answer"));
            }
            return Ok(());
        }
        if kind == wanted { Ok(()) } else { Err(SftpError::Upstream("a reply of another kind")) }
    }

    fn version(&mut self, kind: u8, mut reader: Reader<'_>) -> Result<(), SftpError> {
        if kind != packet::VERSION || reader.u32()? != 3 {
            return Err(SftpError::Upstream("it does not speak version 3"));
        }
        let mut offered = Vec::new();
        while !reader.is_done() {
            let (name, data) = (reader.string()?, reader.string()?);
            if packet::EXTENSIONS.contains(&name) {
                offered.push((name.to_vec(), data.to_vec()));
            }
        }
        packet::write(&mut self.job_out, packet::VERSION, |out| {
            out.extend_from_slice(&3u32.to_be_bytes());
            for (name, data) in &offered {
                packet::put_string(out, name);
                packet::put_string(out, data);
            }
        });
        self.phase = Phase::Home;
        let id = self.own_id();
        self.own = Some(id);
        packet::write(&mut self.up_out, packet::REALPATH, |out| {
            out.extend_from_slice(&id.to_be_bytes());
            packet::put_string(out, b".");
        });
        Ok(())
    }

    /// The answer to a question of the gateway's own.
    fn own_reply(&mut self, kind: u8, rest: &[u8]) -> Result<(), SftpError> {
        if self.current.as_ref().is_some_and(|of| of.stage == Stage::Fetching) {
            return self.fetched(kind, rest);
        }
        let real = match kind {
            packet::NAME => {
                let name = std::str::from_utf8(packet::one_name(rest)?).ok();
                name.filter(|name| name.starts_with('/') && name.len() <= files::PATH_MAX).map(str::to_owned)
            }
            packet::STATUS => None,
            _ => return Err(SftpError::Upstream("a reply of another kind")),
        };
        if self.phase == Phase::Home {
            self.home = Some(real.ok_or(SftpError::Upstream("it does not say where home is"))?);
            self.phase = Phase::Running;
            return Ok(());
        }
        self.resolved(real);
        Ok(())
    }

    /// A file whose contents are masked is opened and read as a whole before the client has its handle.
    fn fetched(&mut self, kind: u8, rest: &[u8]) -> Result<(), SftpError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let id = current.id;
        let Asked::Open { path, read, write, folder, keep } = &current.asked else { return Err(BROKEN) };
        match kind {
            packet::HANDLE if self.fetching.is_none() => {
                let handle = self.fresh_handle(rest)?;
                self.fetching = Some((handle, Contents::new(&self.room)));
                self.fetch_more();
            }
            packet::STATUS if self.fetching.is_none() => {
                if Reader::new(rest).u32()? == packet::OK {
                    return Err(SftpError::Upstream("a success without its answer"));
                }
                packet::write(&mut self.job_out, packet::STATUS, |out| {
                    out.extend_from_slice(&id.to_be_bytes());
                    out.extend_from_slice(rest);
                });
                self.current = None;
            }
            packet::DATA => {
                let mut reader = Reader::new(rest);
                let data = reader.string()?;
                reader.end()?;
                let Some((_, contents)) = &mut self.fetching else { return Err(BROKEN) };
                if contents.bytes().len().saturating_add(data.len()) > MASKED_MAX {
                    return self.give_up(id, "its contents are masked, and it is too large to be searched");
                }
                if !contents.add(data) {
                    let why = "its contents are masked, and too many such files are open: close some, then try again";
                    return self.give_up(id, why);
                }
                if data.is_empty() {
                    return Err(BROKEN);
                }
                self.fetch_more();
            }
            packet::STATUS if Reader::new(rest).u32()? == packet::EOF => {
                let Some((handle, mut contents)) = self.fetching.take() else { return Err(BROKEN) };
                let found = current.contents.as_ref().map(|of| of.find(contents.bytes())).unwrap_or_default();
                for found in found {
                    if let Some(secret) = contents.bytes_mut().get_mut(found.range) {
                        // The length stays: sizes and offsets were told elsewhere.
                        secret.fill(b'*');
                    }
                }
                let path = path.clone();
                let (read, write) = (*read, *write);
                let open = Open {
                    path: path.clone(),
                    read,
                    write,
                    folder: *folder,
                    keep: *keep,
                    masked: Some(contents),
                    reads: Flow::new(),
                    writes: Flow::new(),
                };
                packet::write(&mut self.job_out, packet::HANDLE, |out| {
                    out.extend_from_slice(&id.to_be_bytes());
                    packet::put_string(out, &handle);
                });
                let file = self.handles.add(handle, open);
                self.events.push_back(FileEvent::Opened { file, path, read, write });
                self.current = None;
            }
            packet::STATUS => return self.give_up(id, "its contents are masked, and could not be read"),
            _ => return Err(SftpError::Upstream("a reply of another kind")),
        }
        Ok(())
    }

    fn fetch_more(&mut self) {
        let id = self.own_id();
        let Some((handle, contents)) = &self.fetching else { return };
        let offset = u64::try_from(contents.bytes().len()).unwrap_or(u64::MAX);
        self.own = Some(id);
        packet::write(&mut self.up_out, packet::READ, |out| {
            out.extend_from_slice(&id.to_be_bytes());
            packet::put_string(out, handle);
            out.extend_from_slice(&offset.to_be_bytes());
            out.extend_from_slice(&PIECE.to_be_bytes());
        });
    }

    /// Refuses the file that was being read, and closes it.
    fn give_up(&mut self, id: u32, why: &str) -> Result<(), SftpError> {
        packet::status(&mut self.job_out, id, packet::PERMISSION_DENIED, why);
        self.current = None;
        if let Some((handle, _)) = self.fetching.take() {
            let own = self.own_id();
            // Its answer is nobody's.
            self.unheard.push(own);
            packet::write(&mut self.up_out, 4, |out| {
                out.extend_from_slice(&own.to_be_bytes());
                packet::put_string(out, &handle);
            });
        }
        Ok(())
    }
}
