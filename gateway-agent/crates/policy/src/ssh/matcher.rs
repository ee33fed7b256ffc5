//! What a rule says about SSH.

use std::{sync::Arc, time::Duration};

use super::{
    Assignment, Certainty, Exec, FileOperation, FileRequest, Invocation, PathUse, Route, SshRequest,
    command::{CommandPattern, certain_name},
    environment,
    pattern::{Path, PathPattern},
};
use crate::pattern::Glob;

/// What a rule names.
#[derive(Debug, Default)]
pub(crate) struct SshMatcher {
    pub(crate) users: Option<Vec<Glob>>,
    pub(crate) commands: Vec<CommandPattern>,
    pub(crate) shell: bool,
    pub(crate) pty: bool,
    pub(crate) env: Vec<Glob>,
    pub(crate) subsystems: Vec<Glob>,
    pub(crate) files: Vec<FilePattern>,
    pub(crate) to: Vec<HostPort>,
    pub(crate) sockets: Vec<PathPattern>,
    pub(crate) listen: Vec<HostPort>,
    pub(crate) listen_sockets: Vec<PathPattern>,
    pub(crate) agent: bool,
    pub(crate) x11: bool,
    pub(crate) signals: Vec<Glob>,
    pub(crate) opaque: bool,
    pub(crate) quarantine: bool,
    pub(crate) limits: Bounds,
}

#[derive(Debug)]
pub(crate) struct FilePattern {
    pub(crate) operations: Vec<FileOperation>,
    pub(crate) paths: Vec<PathPattern>,
    pub(crate) by: Vec<Route>,
}

/// `host:port`.
#[derive(Debug)]
pub(crate) struct HostPort {
    pub(crate) host: Glob,
    /// `None` = any.
    pub(crate) port: Option<u16>,
}

impl HostPort {
    fn matches(&self, host: &str, port: u16) -> bool {
        self.port.is_none_or(|wanted| wanted == port) && self.host.matches(&host.to_ascii_lowercase())
    }
}

/// The limits of a rule.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) idle: Option<Duration>,
    pub(crate) duration: Option<Duration>,
    pub(crate) bytes: Option<u64>,
    pub(crate) channels: Option<u32>,
    pub(crate) per_minute: Option<u32>,
}

/// One thing that has to be granted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need<'a> {
    /// What is no command line, as a whole.
    Request(&'a SshRequest),
    Run(&'a Invocation),
    Open(&'a PathUse),
    Set(&'a Assignment),
    Opaque(&'a Exec),
}

/// Everything that a request needs.
pub(crate) fn needs(request: &SshRequest) -> Vec<Need<'_>> {
    match request {
        SshRequest::Exec(exec) => exec_needs(exec),
        request => vec![Need::Request(request)],
    }
}

/// Everything that a command needs.
pub(crate) fn exec_needs(exec: &Exec) -> Vec<Need<'_>> {
    let runs = exec.invocations.iter().filter(|run| !run.transfer && !is_idle(run)).map(Need::Run);
    let opens = exec.files.iter().map(Need::Open);
    let sets = exec.assignments.iter().filter(|set| !environment::is_own(set)).map(Need::Set);
    let opaque = (!exec.opaque.is_empty()).then_some(Need::Opaque(exec));
    runs.chain(opens).chain(sets).chain(opaque).collect()
}

/// Builtins of shells that start nothing and open nothing; what they print they were given.
const IDLE: &[&str] = &[
    "!", ":", "[", "[[", "break", "cd", "command", "continue", "declare", "echo", "exit", "export", "false",
    "local", "printf", "pwd", "read", "readonly", "return", "set", "shift", "test", "times", "trap", "true",
    "type", "typeset", "umask", "unset", "wait",
];

/// Whether it needs no grant: a builtin, unless a pattern makes it tell names of files.
fn is_idle(run: &Invocation) -> bool {
    run.via.is_empty()
        && run.program.value().is_some_and(|name| IDLE.contains(&name))
        && !run.arguments.iter().any(|word| word.certainty == Certainty::Glob)
}

impl SshMatcher {
    /// It is about sessions with this login name.
    pub(crate) fn is_for(&self, user: &str) -> bool {
        self.users.as_ref().is_none_or(|users| users.iter().any(|glob| glob.matches(user)))
    }

    /// It grants something that runs.
    pub(crate) fn runs(&self) -> bool {
        !self.commands.is_empty() || self.shell || self.opaque
    }

    /// As a grant.
    pub(crate) fn grants(&self, need: Need<'_>) -> bool {
        match need {
            Need::Run(run) => self.commands.iter().any(|command| command.grants(run)),
            Need::Open(used) => {
                let path = Path::of_word(&used.path, used.folder.as_deref());
                path.is_some_and(|path| {
                    let paths = &[path];
                    self.grants_file(used.operation, paths, used.by, used.recursive)
                })
            }
            Need::Set(set) => self.grants_variable(&set.name, set.value.value()),
            Need::Opaque(_) => self.opaque,
            Need::Request(request) => self.grants_request(request),
        }
    }

    fn grants_request(&self, request: &SshRequest) -> bool {
        match request {
            // Decided elsewhere: by the rule's `connect`, and part by part.
            SshRequest::Connect | SshRequest::Exec(_) => false,
            SshRequest::Shell => self.shell,
            SshRequest::Pty { .. } => self.pty,
            SshRequest::Env { name, value } => self.grants_variable(name, Some(value)),
            SshRequest::Subsystem { name } => {
                let by_sftp = || self.files.iter().any(|files| files.by.contains(&Route::Sftp));
                self.subsystems.iter().any(|glob| glob.matches(name)) || (name == "sftp" && by_sftp())
            }
            SshRequest::File(file) => both(file).is_some_and(|paths| {
                paths.iter().all(|at| self.grants_file(file.operation, at, file.by, false))
            }),
            SshRequest::DirectTcpip { host, port } => self.to.iter().any(|to| to.matches(host, *port)),
            SshRequest::TcpipForward { host, port } => self.listen.iter().any(|on| on.matches(host, *port)),
            SshRequest::DirectStreamlocal { path } => has(&self.sockets, path),
            SshRequest::StreamlocalForward { path } => has(&self.listen_sockets, path),
            SshRequest::AgentForwarding => self.agent,
            SshRequest::X11 => self.x11,
            SshRequest::Signal { .. } => self.runs(),
        }
    }

    /// `paths`: one path, in every form that it is known in.
    fn grants_file(&self, operation: FileOperation, paths: &[Path<'_>], by: Route, below: bool) -> bool {
        self.files.iter().filter(|files| files.by.contains(&by)).any(|files| {
            let named = files.operations.contains(&operation);
            let known = operation == FileOperation::Stat;
            files.paths.iter().any(|pattern| {
                paths.iter().any(|path| match below {
                    true => named && pattern.grants_below(path),
                    false => {
                        ((named || known) && pattern.grants(path)) || (known && pattern.leads_through(path))
                    }
                })
            })
        })
    }

    fn grants_variable(&self, name: &str, value: Option<&str>) -> bool {
        // An exported function, which old shells run, and a subscript, which bash does when it takes the value for a name.
        let runs = |value: &str| {
            value.trim_start().starts_with("()") || (value.contains('[') && value.contains(['$', '`']))
        };
        !value.is_some_and(runs) && self.env.iter().any(|glob| environment::grants(glob, name))
    }

    /// As a restriction: what of the request it could be about.
    pub(crate) fn touched<'a>(&self, request: &'a SshRequest) -> Option<Need<'a>> {
        match request {
            SshRequest::Exec(exec) => self.touched_exec(exec),
            request => self.may_mean(request).then_some(Need::Request(request)),
        }
    }

    /// It names something that commands do.
    pub(crate) fn is_about_parts(&self) -> bool {
        !self.commands.is_empty() || !self.files.is_empty() || !self.env.is_empty() || self.opaque
    }

    /// As a restriction: what of the command it could be about.
    pub(crate) fn touched_exec<'a>(&self, exec: &'a Exec) -> Option<Need<'a>> {
        if self.is_about_parts() && !exec.opaque.is_empty() {
            return Some(Need::Opaque(exec));
        }
        let run = exec.invocations.iter().find(|run| {
            self.commands.iter().any(|command| command.may_mean(run)) || self.may_be_given_file(run)
        });
        let open = || {
            exec.files.iter().find(|used| {
                let path = Path::of_word(&used.path, used.folder.as_deref());
                self.may_mean_file(used.operation, path.as_slice(), used.by, used.recursive)
            })
        };
        let set = || exec.assignments.iter().find(|set| self.env.iter().any(|glob| glob.matches(&set.name)));
        run.map(Need::Run).or_else(|| open().map(Need::Open)).or_else(|| set().map(Need::Set))
    }

    fn may_mean(&self, request: &SshRequest) -> bool {
        match request {
            SshRequest::Connect | SshRequest::Exec(_) => false,
            SshRequest::Shell => self.shell,
            SshRequest::Pty { .. } => self.pty,
            SshRequest::Env { name, .. } => self.env.iter().any(|glob| glob.matches(name)),
            SshRequest::Subsystem { name } => self.subsystems.iter().any(|glob| glob.matches(name)),
            SshRequest::File(file) => {
                // What is moved takes along what is below it.
                let below = file.operation == FileOperation::Rename;
                forms(&file.path, file.home.as_deref())
                    .into_iter()
                    .chain(
                        file.target
                            .as_deref()
                            .map(|path| forms(path, file.home.as_deref()))
                            .unwrap_or_default(),
                    )
                    .any(|path| self.may_mean_file(file.operation, path.as_slice(), file.by, below))
                    || self.may_escape(file)
            }
            SshRequest::DirectTcpip { host, port } => self.to.iter().any(|to| to.matches(host, *port)),
            SshRequest::TcpipForward { host, port } => {
                // Port 0 lets the host choose.
                self.listen.iter().any(|on| on.matches(host, *port) || (*port == 0 && on.host.matches(host)))
            }
            SshRequest::DirectStreamlocal { path } => has_maybe(&self.sockets, path),
            SshRequest::StreamlocalForward { path } => has_maybe(&self.listen_sockets, path),
            SshRequest::AgentForwarding => self.agent,
            SshRequest::X11 => self.x11,
            SshRequest::Signal { name } => self.signals.iter().any(|glob| glob.matches(name)),
        }
    }

    /// A file with another name escapes a rule about the old one, whatever that rule is about, and the new one is written. A link
    /// reads and writes as what it leads to does.
    fn may_escape(&self, file: &FileRequest) -> bool {
        let home = file.home.as_deref();
        let meant = |operations: &[FileOperation], path: &str| {
            forms(path, home).into_iter().any(|path| {
                operations
                    .iter()
                    .any(|operation| self.may_mean_file(*operation, path.as_slice(), file.by, true))
            })
        };
        match (file.operation, file.target.as_deref()) {
            (FileOperation::Rename, Some(target)) => {
                meant(&FileOperation::ALL, &file.path) || meant(&[FileOperation::Write], target)
            }
            (_, Some(target)) => meant(&[FileOperation::Read, FileOperation::Write], target),
            (_, None) => false,
        }
    }

    /// `path`: empty = it could be any.
    fn may_mean_file(&self, operation: FileOperation, path: &[Path<'_>], by: Route, below: bool) -> bool {
        self.files.iter().any(|files| {
            files.by.contains(&by)
                && files.operations.contains(&operation)
                && files.paths.iter().any(|pattern| match below {
                    true => pattern.may_mean_below(path.first()),
                    false => pattern.may_mean(path.first()),
                })
        })
    }

    /// A program is given a path of the rule, whatever it does with it.
    fn may_be_given_file(&self, run: &Invocation) -> bool {
        if is_idle(run) || run.transfer {
            return false;
        }
        let folder = run.folder.as_deref();
        let mut patterns =
            self.files.iter().filter(|files| files.by.contains(&Route::Exec)).flat_map(|files| &files.paths);
        patterns.any(|pattern| {
            let program = Some(&run.program).filter(|word| word.text.contains('/') || word.value().is_none());
            run.arguments.iter().chain(program).any(|word| given_path(pattern, word, folder))
        })
    }
}

/// Whether a word could be a path that the pattern means, alone or behind an option's name.
pub(crate) fn given_path(pattern: &PathPattern, word: &super::Word, folder: Option<&str>) -> bool {
    if !matches!(word.certainty, Certainty::Literal | Certainty::Home | Certainty::Glob) {
        return true;
    }
    let means =
        |text: &str, certainty| pattern.may_mean_below(Path::of_text(text, certainty, folder).as_ref());
    // `--file=/etc/x`, `-f/etc/x`, `if=/etc/x`, `host:/etc/x`: from each slash, and behind each mark.
    let text = word.text.as_str();
    let behind = |mark: char| {
        text.split_once(mark).is_some_and(|(_, rest)| !rest.is_empty() && means(rest, word.certainty))
    };
    let rooted = text.find('/').filter(|at| *at > 0).and_then(|at| text.get(at..));
    means(text, word.certainty)
        || behind('=')
        || behind(':')
        || behind('@')
        || (text.starts_with('-') && rooted.is_some_and(|rest| means(rest, word.certainty)))
}

/// The path, and as it is written from home.
fn forms<'a>(path: &'a str, home: Option<&'a str>) -> Vec<Option<Path<'a>>> {
    let mut forms = vec![Path::absolute(path)];
    if let Some(below) = home.and_then(|home| Path::below_home(path, home)) {
        forms.push(Some(below));
    }
    forms
}

/// Each path of a request, in every form that it is known in; `None`: one of them is no path.
fn both(file: &FileRequest) -> Option<Vec<Vec<Path<'_>>>> {
    let one = |path| forms(path, file.home.as_deref()).into_iter().collect::<Option<Vec<_>>>();
    let mut paths = vec![one(&file.path)?];
    if let Some(target) = &file.target {
        paths.push(one(target)?);
    }
    Some(paths)
}

fn has(patterns: &[PathPattern], path: &str) -> bool {
    Path::absolute(path).is_some_and(|path| patterns.iter().any(|pattern| pattern.grants(&path)))
}

fn has_maybe(patterns: &[PathPattern], path: &str) -> bool {
    let path = Path::absolute(path);
    patterns.iter().any(|pattern| pattern.may_mean(path.as_ref()))
}

/// The masks of files' contents on one resource.
#[derive(Debug)]
pub(crate) struct FileMask {
    pub(crate) paths: Vec<PathPattern>,
    pub(crate) detectors: Vec<(mask::Detector, Option<mask::Partial>)>,
    pub(crate) id: Arc<str>,
}

impl FileMask {
    /// Whether it could be about this file, or with `below` about something in it.
    pub(crate) fn is_about(&self, path: &str, home: Option<&str>, below: bool) -> bool {
        forms(path, home).iter().any(|path| {
            self.paths.iter().any(|pattern| match below {
                true => pattern.may_mean_below(path.as_ref()),
                false => pattern.may_mean(path.as_ref()),
            })
        })
    }

    /// Whether a command line could read such a file.
    pub(crate) fn may_be_read_by(&self, exec: &Exec) -> bool {
        let given = |pattern: &PathPattern, run: &Invocation| {
            let mut words = run.arguments.iter();
            words.any(|word| given_path(pattern, word, run.folder.as_deref()))
        };
        !exec.opaque.is_empty()
            || self.paths.iter().any(|pattern| {
                exec.invocations
                    .iter()
                    .any(|run| !is_idle(run) && (given(pattern, run) || run.folder.is_none()))
                    || exec.files.iter().any(|used| {
                        pattern.may_mean_below(Path::of_word(&used.path, used.folder.as_deref()).as_ref())
                    })
            })
    }

    /// Whether a transfer that is not seen into could carry such a file away.
    pub(crate) fn may_leave_by(&self, used: &PathUse) -> bool {
        let path = Path::of_word(&used.path, used.folder.as_deref());
        used.operation == FileOperation::Read
            && matches!(used.by, Route::Rsync | Route::Git)
            && self.paths.iter().any(|pattern| pattern.may_mean_below(path.as_ref()))
    }
}

/// The name of a program for messages.
pub(crate) fn shown(run: &Invocation) -> String {
    let mut text = String::new();
    for via in &run.via {
        text.push_str(via);
        text.push(' ');
    }
    let name = certain_name(run).unwrap_or(&run.program.text);
    text.push_str(name);
    for word in &run.arguments {
        text.push(' ');
        text.push_str(&word.text);
    }
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{} …", text.get(..at).unwrap_or_default()),
        None => text,
    }
}
