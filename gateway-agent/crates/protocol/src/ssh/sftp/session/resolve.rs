//! Paths as the server has them.

use std::collections::VecDeque;

use policy::{FileOperation, FileRequest, Route};

use super::{Asked, Sftp, Stage, Unresolved};
use crate::ssh::{files, sftp::packet};

/// What ends in a slash, or a dot behind one, is the folder that is meant: the kernel follows a link there whatever the operation.
fn names_a_folder(path: &[u8]) -> bool {
    path.ends_with(b"/") || path.ends_with(b"/.")
}

impl Sftp {
    /// `~` and `~/…`; nothing for another's home.
    pub(super) fn expanded(&self, path: &[u8]) -> Option<String> {
        let path = std::str::from_utf8(path).ok()?;
        match path.strip_prefix('~') {
            None => Some(path.to_owned()),
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                Some(format!("{}{rest}", self.home.as_deref()?))
            }
            Some(_) => None,
        }
    }

    /// Begins to resolve the path of a request, and the other one.
    #[expect(clippy::too_many_arguments, reason = "one request, spelled out")]
    pub(super) fn resolve(
        &mut self,
        id: u32,
        packet: &[u8],
        sent: &[u8],
        follow: bool,
        target: Option<(&[u8], bool)>,
        operations: Vec<FileOperation>,
        asked: Asked,
    ) {
        let paths = self.absolute(sent).zip(match target {
            None => Some(None),
            Some((target, follow)) => {
                let follow = follow || names_a_folder(target);
                self.absolute(target).map(|target| Some((target, follow)))
            }
        });
        let Some((path, target)) = paths else {
            let why = "the path is not UTF-8, contains a zero byte, or is longer than 4096 bytes";
            return packet::status(&mut self.job_out, id, packet::PERMISSION_DENIED, why);
        };
        // Behind a slash the kernel follows links all the same.
        let follow = follow || names_a_folder(sent);
        self.decide(id, packet, asked, VecDeque::new());
        if let Some(current) = &mut self.current {
            current.stage = Stage::Resolving;
            current.unresolved.push(Unresolved {
                operations,
                path,
                follow,
                target,
                done: None,
                by_folder: false,
            });
        }
        self.ask_realpath();
    }

    /// From home, without `.` and doubled slashes; `..` stays for the server.
    fn absolute(&self, path: &[u8]) -> Option<String> {
        let path = std::str::from_utf8(path).ok().filter(|path| !path.contains('\0'))?;
        let home = self.home.as_deref().unwrap_or("/");
        Some(files::joined(home, path)).filter(|path| path.len() <= files::PATH_MAX)
    }

    /// Asks the server for the real path of what is to be resolved next.
    fn ask_realpath(&mut self) {
        let Some(next) = self.current.as_mut().and_then(|of| of.unresolved.last_mut()) else { return };
        let (path, follow) = match (&next.done, &next.target) {
            (Some(_), Some((target, follow))) => (target, *follow),
            _ => (&next.path, next.follow),
        };
        // What is acted on itself is not followed: its folder is.
        if !follow || next.by_folder {
            next.by_folder = true;
        }
        let path = if next.by_folder { files::folder_of(path).to_owned() } else { path.clone() };
        let id = self.own_id();
        self.own = Some(id);
        packet::write(&mut self.up_out, packet::REALPATH, |out| {
            out.extend_from_slice(&id.to_be_bytes());
            packet::put_string(out, path.as_bytes());
        });
    }

    /// An id that no request of the client has.
    pub(super) fn own_id(&mut self) -> u32 {
        loop {
            let id = self.next_own;
            self.next_own = self.next_own.wrapping_sub(1);
            if !self.in_flight.contains_key(&id) && !self.unheard.contains(&id) {
                return id;
            }
        }
    }

    /// The server's answer about a path; `None` = it has none.
    pub(super) fn resolved(&mut self, real: Option<String>) {
        let Some(current) = &mut self.current else { return };
        let Some(next) = current.unresolved.last_mut() else { return };
        let asked = match (&next.done, &next.target) {
            (Some(_), Some((target, _))) => target.clone(),
            _ => next.path.clone(),
        };
        let path = match (real, next.by_folder) {
            (Some(real), false) => real,
            (Some(real), true) => files::joined(&real, files::name_of(&asked)),
            (None, false) => {
                // It may be about to be made: its folder has to be there.
                next.by_folder = true;
                return self.ask_realpath();
            }
            // Nothing is there. What is written is what is meant, as long as it leads nowhere upwards.
            (None, true) => asked,
        };
        if files::leads_upwards(&path) {
            let id = current.id;
            self.current = None;
            let why = "the host does not say where this path leads to";
            return packet::status(&mut self.job_out, id, packet::PERMISSION_DENIED, why);
        }
        next.by_folder = false;
        if next.target.is_some() && next.done.is_none() {
            next.done = Some(path);
            return self.ask_realpath();
        }
        let Some(done) = current.unresolved.pop() else { return };
        let (path, target) = match done.done {
            Some(first) => (first, Some(path)),
            None => (path, None),
        };
        if let Asked::Open { path: opened, .. } = &mut current.asked {
            opened.clone_from(&path);
        }
        current.stage = Stage::Deciding;
        let home = self.home.clone();
        current.undecided = done
            .operations
            .into_iter()
            .map(|operation| FileRequest {
                operation,
                path: path.clone(),
                target: target.clone(),
                home: home.clone(),
                by: Route::Sftp,
            })
            .collect();
        // What opens nothing is told when it is done.
        if matches!(current.asked, Asked::Plain)
            && let Some(request) = current.undecided.back()
        {
            current.asked = Asked::Done(request.clone());
        }
    }
}
