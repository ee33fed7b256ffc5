//! The wire protocol of legacy scp (`scp -t`, `scp -f`), as scp.c of OpenSSH speaks it: control lines, contents, acknowledgements.
//!
//! [`Scp`] sits between a client and a far end, says of each file which path would be read or written, and lets contents through only
//! after that is allowed. A refused file is skipped on both sides, and the transfer goes on. Symbolic links on the host are not
//! seen here: whoever decides can ask the host where a path leads to.
//!
//! The two sides go in step: nothing of the sender is looked at before the receiver has answered what went before, and no answer is
//! taken ahead of its question. Otherwise one side could be brought to take for contents what the other takes for control lines.

use std::collections::VecDeque;

use policy::{Allow, Certainty, Exec, FileOperation, FileRequest, Recording, Route};

use super::{
    files,
    sftp::{FileEvent, FileTotals, Flow, Transferred},
};

/// Longest control line, in bytes.
const LINE_MAX: usize = 4096;
/// Bytes that wait in one place; beyond that nothing more is taken.
const IN_MAX: usize = 256 * 1024;
/// Deepest folder.
const DEPTH_MAX: usize = 64;

/// What the driver has to do next. Before anything else, write out both outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum ScpStep {
    Need,
    /// A file waits: look at [`Scp::pending`], then `allow` or `deny`. Said once for each.
    Ask,
}

/// One side broke the protocol, or the transfer is of a kind that is not followed: close the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("scp: {0}")]
pub struct ScpError(pub &'static str);

/// Which way files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `scp -t`: the client sends.
    Up,
    /// `scp -f`: the far end sends.
    Down,
}

/// A transfer over one channel. The *sender* sends files, the *receiver* acknowledges; which is the client depends on the way.
pub struct Scp {
    way: Way,
    /// The path on the host's side of the command line.
    base: String,
    home: Option<String>,
    /// Whether `base` may be a pattern, so that names are not its own.
    pattern: bool,
    from_sender: VecDeque<u8>,
    from_receiver: VecDeque<u8>,
    to_sender: Vec<u8>,
    to_receiver: Vec<u8>,
    /// Folders below the base.
    folders: Vec<String>,
    /// The receiver has an answer to give before the sender goes on.
    owed: bool,
    /// Times were sent, and then a folder was left: the host may have an error to tell about that in between.
    times: bool,
    leaving: bool,
    loose: bool,
    state: State,
    undecided: VecDeque<FileRequest>,
    announced: bool,
    keep: bool,
    events: VecDeque<FileEvent>,
    next: u64,
}

enum State {
    /// A control line of the sender comes next.
    Line,
    /// A line waits for its decision.
    Deciding { line: Vec<u8>, name: String, size: Option<u64> },
    /// The line went on; the receiver says whether it wants the contents.
    Acknowledged { file: Option<Passing>, entered: bool },
    /// Contents, then a zero byte.
    Contents { left: u64, file: Passing },
    /// The far end was told that a file is not wanted; it goes on by itself.
    Over,
}

struct Passing {
    number: u64,
    path: String,
    size: u64,
    flow: Flow,
    offset: u64,
    keep: bool,
}

impl Scp {
    /// For an exec that moves files by scp and nothing else; `home`: of the login, if it is known.
    ///
    /// # Errors
    /// When it is something else, or names several paths.
    pub fn new(exec: &Exec, home: Option<&str>) -> Result<Self, ScpError> {
        let [used] = exec.files.as_slice() else {
            return Err(ScpError("more than one path: copy one after the other"));
        };
        let [run] = exec.invocations.as_slice() else {
            return Err(ScpError("the command does more than to copy"));
        };
        if used.by != Route::Scp || !run.transfer || !exec.opaque.is_empty() {
            return Err(ScpError("the command does more than to copy"));
        }
        let way = match used.operation {
            FileOperation::Write => Way::Up,
            FileOperation::Read => Way::Down,
            _ => return Err(ScpError("neither `-t` nor `-f`")),
        };
        let text = &used.path.text;
        let relative = || home.ok_or(ScpError("a relative path, and home is not known: write it from `/`"));
        let base = match used.path.certainty {
            Certainty::Literal | Certainty::Glob if text.starts_with('/') => files::joined("/", text),
            Certainty::Literal | Certainty::Glob => files::joined(relative()?, text),
            Certainty::Home => files::joined(relative()?, text.trim_start_matches(['~', '/'])),
            Certainty::Value | Certainty::Words => return Err(ScpError("a path that is not literal")),
        };
        if files::leads_upwards(&base) {
            return Err(ScpError("a path with `..`: write where it leads to"));
        }
        let pattern = used.path.certainty == Certainty::Glob;
        if pattern && files::folder_of(&base).contains(['*', '?', '[']) {
            return Err(ScpError("a pattern in the name of a folder: write the folder's name"));
        }
        Ok(Self {
            way,
            base,
            home: home.map(str::to_owned),
            pattern,
            from_sender: VecDeque::new(),
            from_receiver: VecDeque::new(),
            to_sender: Vec::new(),
            to_receiver: Vec::new(),
            folders: Vec::new(),
            // The receiver begins.
            owed: true,
            times: false,
            leaving: false,
            loose: false,
            state: State::Line,
            undecided: VecDeque::new(),
            announced: false,
            keep: false,
            events: VecDeque::new(),
            next: 0,
        })
    }

    /// Bytes from the client.
    pub fn job_in(&mut self, bytes: &[u8]) {
        match self.way {
            Way::Up => self.from_sender.extend(bytes),
            Way::Down => self.from_receiver.extend(bytes),
        }
    }

    /// Bytes from the far end.
    pub fn upstream_in(&mut self, bytes: &[u8]) {
        match self.way {
            Way::Up => self.from_receiver.extend(bytes),
            Way::Down => self.from_sender.extend(bytes),
        }
    }

    /// For the client: take what was written out.
    pub fn job_out(&mut self) -> &mut Vec<u8> {
        match self.way {
            Way::Up => &mut self.to_sender,
            Way::Down => &mut self.to_receiver,
        }
    }

    /// For the far end: take what was written out.
    pub fn upstream_out(&mut self) -> &mut Vec<u8> {
        match self.way {
            Way::Up => &mut self.to_receiver,
            Way::Down => &mut self.to_sender,
        }
    }

    /// Whether more of the client is wanted.
    pub fn takes_job(&self) -> bool {
        match self.way {
            Way::Up => self.from_sender.len() <= IN_MAX && self.to_receiver.len() <= IN_MAX,
            Way::Down => self.from_receiver.len() <= IN_MAX,
        }
    }

    /// Whether more of the far end is wanted.
    pub fn takes_upstream(&self) -> bool {
        match self.way {
            Way::Up => self.from_receiver.len() <= IN_MAX,
            Way::Down => self.from_sender.len() <= IN_MAX && self.to_receiver.len() <= IN_MAX,
        }
    }

    /// Whether everything that the client sent went on, or nowhere.
    pub fn job_is_done(&self) -> bool {
        match self.way {
            Way::Up => self.from_sender.is_empty() && !matches!(self.state, State::Deciding { .. }),
            Way::Down => self.from_receiver.is_empty(),
        }
    }

    /// The channel ends: what is still open is closed.
    pub fn finish(&mut self) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Contents { file, .. } | State::Acknowledged { file: Some(file), .. } => self.close(file),
            _ => {}
        }
    }

    /// What happened since the last call.
    pub fn events(&mut self) -> impl Iterator<Item = FileEvent> + '_ {
        self.events.drain(..)
    }

    /// The file that waits for a decision.
    pub fn pending(&self) -> Option<&FileRequest> {
        self.undecided.front()
    }

    /// The pending file is allowed.
    pub fn allow(&mut self, allow: &Allow) {
        if self.undecided.pop_front().is_none() {
            return;
        }
        self.announced = false;
        self.keep |= allow.obligations.record == Recording::Results;
        if let Some(ssh) = &allow.obligations.ssh {
            self.keep |= ssh.quarantine;
            if ssh.contents.is_some() {
                return self.refuse("its contents are masked: read it by SFTP");
            }
        }
        if self.undecided.is_empty() {
            self.go_on();
        }
    }

    /// The pending file is refused.
    pub fn deny(&mut self, rule: &str, reason: &str, hint: &str) {
        if !self.undecided.is_empty() {
            self.refuse(&format!("{reason} [{rule}]; {hint}"));
        }
    }

    /// Goes on as far as it can.
    ///
    /// # Errors
    /// When a side broke the protocol: nothing more is relayed.
    pub fn step(&mut self) -> Result<ScpStep, ScpError> {
        loop {
            let moved = match &self.state {
                State::Deciding { .. } if !self.undecided.is_empty() => {
                    if !self.announced {
                        self.announced = true;
                        return Ok(ScpStep::Ask);
                    }
                    return Ok(ScpStep::Need);
                }
                State::Deciding { .. } => return Err(ScpError("out of step")),
                State::Line => self.line()?,
                State::Acknowledged { .. } => self.acknowledged()?,
                State::Contents { .. } => self.contents()?,
                State::Over => false,
            };
            if !moved {
                return Ok(ScpStep::Need);
            }
        }
    }

    /// A control line of the sender, once the receiver has said what it owes.
    fn line(&mut self) -> Result<bool, ScpError> {
        let said = self.answered()?;
        if self.owed {
            return Ok(said);
        }
        let Some(end) = self.from_sender.iter().position(|c| *c == b'\n') else {
            return match self.from_sender.len() > LINE_MAX {
                true => Err(ScpError("a line without end")),
                false => Ok(said),
            };
        };
        if end >= LINE_MAX {
            return Err(ScpError("a line without end"));
        }
        let line: Vec<u8> = self.from_sender.drain(..=end).collect();
        let text = line.split_last().map(|(_, text)| text).unwrap_or_default();
        match text.split_first() {
            Some((b'C', rest)) => self.named(rest, true, &line)?,
            Some((b'D', rest)) => self.named(rest, false, &line)?,
            Some((b'E', [])) => {
                if self.folders.pop().is_none() {
                    return Err(ScpError("it leaves a folder that it never entered"));
                }
                self.leaving = true;
                self.pass(line);
            }
            Some((b'T', times)) if times.iter().all(|c| c.is_ascii_digit() || *c == b' ') => {
                self.times = true;
                self.pass(line);
            }
            // A word about a file that is passed over, or the end.
            Some((1, _)) => self.to_receiver.extend_from_slice(&line),
            Some((2, _)) => {
                self.to_receiver.extend_from_slice(&line);
                self.state = State::Over;
            }
            _ => return Err(ScpError("a control line that is not known")),
        }
        Ok(true)
    }

    /// Sends a line on; its acknowledgement comes next.
    fn pass(&mut self, line: Vec<u8>) {
        self.to_receiver.extend_from_slice(&line);
        self.state = State::Acknowledged { file: None, entered: false };
    }

    /// `C0644 12 name` or `D0755 0 name`.
    fn named(&mut self, rest: &[u8], is_file: bool, line: &[u8]) -> Result<(), ScpError> {
        let text = std::str::from_utf8(rest).map_err(|_| ScpError("a name that is not UTF-8"))?;
        let mut parts = text.splitn(3, ' ');
        let (Some(mode), Some(size), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(ScpError("a control line that is not known"));
        };
        if mode.len() != 4 || !mode.bytes().all(|c| (b'0'..=b'7').contains(&c)) {
            return Err(ScpError("a mode that is none"));
        }
        let digits = !size.is_empty() && size.len() < 19 && size.bytes().all(|c| c.is_ascii_digit());
        let size: u64 = size.parse().ok().filter(|_| digits).ok_or(ScpError("a size that is none"))?;
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) || name.chars().any(char::is_control)
        {
            return Err(ScpError("a name that leads elsewhere"));
        }
        if self.folders.len() >= DEPTH_MAX {
            return Err(ScpError("folders are nested too deeply"));
        }
        let operation = if self.way == Way::Up { FileOperation::Write } else { FileOperation::Read };
        let operation = if self.way == Way::Down && !is_file { FileOperation::List } else { operation };
        self.undecided = self
            .places(name)
            .into_iter()
            .map(|path| FileRequest {
                operation,
                path,
                target: None,
                home: self.home.clone(),
                by: Route::Scp,
            })
            .collect();
        self.announced = false;
        self.keep = false;
        self.state =
            State::Deciding { line: line.to_vec(), name: name.to_owned(), size: is_file.then_some(size) };
        Ok(())
    }

    /// Every path that the file may have on the host.
    fn places(&self, name: &str) -> Vec<String> {
        let below = |from: &str| {
            let mut path = from.to_owned();
            for folder in &self.folders {
                path = files::joined(&path, folder);
            }
            files::joined(&path, name)
        };
        match self.way {
            // Whether the base is a folder only the host knows: the file goes there, or into it.
            Way::Up => {
                let mut places = vec![below(&self.base)];
                match self.folders.split_first() {
                    None => places.push(self.base.clone()),
                    Some((_, rest)) => {
                        let mut path = self.base.clone();
                        for folder in rest {
                            path = files::joined(&path, folder);
                        }
                        places.push(files::joined(&path, name));
                    }
                }
                places
            }
            Way::Down => {
                let own = !self.pattern
                    && self.folders.first().map_or(name, String::as_str) == files::name_of(&self.base);
                match own || self.pattern {
                    true => vec![below(files::folder_of(&self.base))],
                    // `host:.` and the like: the name is the folder's own.
                    false => vec![below(files::folder_of(&self.base)), below(&self.base)],
                }
            }
        }
    }

    /// All about the line is allowed.
    fn go_on(&mut self) {
        let State::Deciding { line, name, size } = std::mem::replace(&mut self.state, State::Over) else {
            return;
        };
        let path = self.places(&name).into_iter().next().unwrap_or_default();
        self.to_receiver.extend_from_slice(&line);
        let file = size.map(|size| {
            self.next += 1;
            let (read, write) = (self.way == Way::Down, self.way == Way::Up);
            self.events.push_back(FileEvent::Opened { file: self.next, path: path.clone(), read, write });
            Passing { number: self.next, path, size, flow: Flow::new(), offset: 0, keep: self.keep }
        });
        let entered = file.is_none();
        if entered {
            self.folders.push(name);
        }
        self.state = State::Acknowledged { file, entered };
    }

    /// Neither side gets the file: the sender is told as the receiver would, and passes over it.
    fn refuse(&mut self, why: &str) {
        self.undecided.clear();
        let plain: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let word = format!("\u{1}scp: {plain}\n");
        self.to_sender.extend_from_slice(word.as_bytes());
        if self.way == Way::Down {
            self.to_receiver.extend_from_slice(word.as_bytes());
        }
        self.state = State::Line;
    }

    /// What the receiver says while the sender has the word: the answer that it owes. A host may also tell of an error by itself; a
    /// client's answers wait for their questions.
    fn answered(&mut self) -> Result<bool, ScpError> {
        let mut any = false;
        while self.owed || (self.way == Way::Up && !self.from_receiver.is_empty()) {
            let Some(word) = self.acknowledgement()? else { break };
            if !self.owed && word.first() == Some(&0) {
                return Err(ScpError("an acknowledgement of nothing"));
            }
            self.owed = false;
            self.to_sender.extend_from_slice(&word);
            any = true;
        }
        Ok(any)
    }

    /// One acknowledgement: a zero byte, or 1 or 2 with a line.
    fn acknowledgement(&mut self) -> Result<Option<Vec<u8>>, ScpError> {
        match self.from_receiver.front() {
            None => Ok(None),
            Some(0) => Ok(self.from_receiver.pop_front().map(|zero| vec![zero])),
            Some(1 | 2) => match self.from_receiver.iter().position(|c| *c == b'\n') {
                Some(end) => Ok(Some(self.from_receiver.drain(..=end).collect())),
                None if self.from_receiver.len() > LINE_MAX => Err(ScpError("a line without end")),
                None => Ok(None),
            },
            Some(_) => Err(ScpError("an acknowledgement that is none")),
        }
    }

    fn acknowledged(&mut self) -> Result<bool, ScpError> {
        let Some(word) = self.acknowledgement()? else { return Ok(false) };
        self.to_sender.extend_from_slice(&word);
        let State::Acknowledged { file, entered } = std::mem::replace(&mut self.state, State::Line) else {
            return Err(ScpError("out of step"));
        };
        let accepted = word.first() == Some(&0);
        let loose = std::mem::take(&mut self.loose);
        if std::mem::take(&mut self.leaving) {
            self.loose = self.times;
        } else if loose && !accepted && self.way == Way::Up {
            if let Some(file) = file {
                self.close(file);
            }
            return Err(ScpError("an error that may be about the folder before: copy without -p"));
        }
        match (word.first(), file) {
            (Some(0), Some(file)) => self.state = State::Contents { left: file.size, file },
            (Some(0), None) => {}
            (_, Some(file)) => self.close(file),
            // A folder that the receiver does not take is not entered.
            (_, None) if entered => drop(self.folders.pop()),
            (_, None) => {}
        }
        Ok(true)
    }

    fn contents(&mut self) -> Result<bool, ScpError> {
        let State::Contents { left, file } = &mut self.state else { return Err(ScpError("out of step")) };
        let available = self.from_sender.len();
        let piece = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
        if piece > 0 {
            let data = taken(&mut self.from_sender, piece);
            file.flow.passed(file.offset, &data);
            let moved = u64::try_from(piece).unwrap_or(u64::MAX);
            if file.keep {
                let (number, write, offset) = (file.number, self.way == Way::Up, file.offset);
                self.events.push_back(FileEvent::Data { file: number, write, offset, bytes: data.clone() });
            }
            file.offset += moved;
            *left -= moved;
            self.to_receiver.extend_from_slice(&data);
            return Ok(true);
        }
        if *left > 0 {
            return Ok(false);
        }
        // The sender's own word on how reading went, then the receiver's.
        let word: Vec<u8> = match self.from_sender.front() {
            None => return Ok(false),
            Some(0) => self.from_sender.drain(..1).collect(),
            Some(1 | 2) => match self.from_sender.iter().position(|c| *c == b'\n') {
                Some(end) => self.from_sender.drain(..=end).collect(),
                None if available > LINE_MAX => return Err(ScpError("a line without end")),
                None => return Ok(false),
            },
            Some(_) => return Err(ScpError("contents are longer than was said")),
        };
        self.to_receiver.extend_from_slice(&word);
        self.owed = true;
        if let State::Contents { file, .. } = std::mem::replace(&mut self.state, State::Line) {
            self.close(file);
        }
        Ok(true)
    }

    fn close(&mut self, file: Passing) {
        let none = Transferred::default();
        let total = file.flow.total();
        let (read, written) = if self.way == Way::Down { (total, none) } else { (none, total) };
        self.events.push_back(FileEvent::Closed(FileTotals {
            file: file.number,
            path: file.path,
            read,
            written,
        }));
    }
}

/// The first bytes, in pieces rather than one by one.
fn taken(from: &mut VecDeque<u8>, count: usize) -> Vec<u8> {
    let (first, second) = from.as_slices();
    let split = count.min(first.len());
    let mut taken = Vec::with_capacity(count);
    taken.extend_from_slice(first.get(..split).unwrap_or_default());
    taken.extend_from_slice(second.get(..count.saturating_sub(split)).unwrap_or_default());
    drop(from.drain(..count));
    taken
}

#[cfg(test)]
mod tests;
