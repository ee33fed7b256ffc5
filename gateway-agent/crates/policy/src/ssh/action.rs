//! What a job asks of an SSH host, in terms a rule can name.

use serde::Serialize;

/// One request of a session. Serialises as `{"action": "ssh", "user": …, "request": "exec", …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ssh {
    /// The login name that the job asked for, whatever the gateway logs in as.
    pub user: String,
    #[serde(flatten)]
    pub request: SshRequest,
}

/// What is asked for. Names are RFC 4254's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum SshRequest {
    /// To log in as [`Ssh::user`]; decided once, before the upstream is reached.
    Connect,
    /// `exec`: one command line.
    Exec(Exec),
    /// `shell`: whatever is typed then is not seen as commands.
    Shell,
    /// `pty-req`. By itself it does nothing: approve rules grant it without asking.
    Pty {
        /// `TERM`.
        term: String,
    },
    /// `env`. Approve rules grant it without asking.
    Env { name: String, value: String },
    /// `subsystem`. `sftp` is granted by any rule that grants files by SFTP.
    Subsystem { name: String },
    /// One operation on files, of SFTP or legacy scp.
    File(FileRequest),
    /// `direct-tcpip`: a connection from the host to somewhere.
    DirectTcpip { host: String, port: u16 },
    /// `direct-streamlocal@openssh.com`: a connection to a unix socket of the host.
    DirectStreamlocal { path: String },
    /// `tcpip-forward`: a listener on the host.
    TcpipForward { host: String, port: u16 },
    /// `streamlocal-forward@openssh.com`: a unix socket made on the host.
    StreamlocalForward { path: String },
    /// `auth-agent-req@openssh.com`.
    AgentForwarding,
    /// `x11-req`.
    X11,
    /// `signal`, its name without `SIG`. Whoever may run something may end it.
    Signal { name: String },
}

impl SshRequest {
    /// Its name in audit lines, metrics and messages: as it is serialised.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Exec(_) => "exec",
            Self::Shell => "shell",
            Self::Pty { .. } => "pty",
            Self::Env { .. } => "env",
            Self::Subsystem { .. } => "subsystem",
            Self::File(_) => "file",
            Self::DirectTcpip { .. } => "direct_tcpip",
            Self::DirectStreamlocal { .. } => "direct_streamlocal",
            Self::TcpipForward { .. } => "tcpip_forward",
            Self::StreamlocalForward { .. } => "streamlocal_forward",
            Self::AgentForwarding => "agent_forwarding",
            Self::X11 => "x11",
            Self::Signal { .. } => "signal",
        }
    }
}

/// A command line, read as a shell reads it.
///
/// Nothing in it is silently left out: what could not be read is in `opaque`, and then nothing but a rule that says
/// `opaque: true` grants it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Exec {
    /// The command line as it was sent; what is shown to people, recorded and relayed. Bytes that are no UTF-8 are replaced, and
    /// then it is opaque.
    pub text: String,
    /// Every program that would run, in the order of the text: of pipes, lists, substitutions, loops, functions, and
    /// what launchers such as `sudo` or `xargs` start.
    pub invocations: Vec<Invocation>,
    /// Files that redirections open, and those that a file transfer program (`scp -t`, `rsync --server`,
    /// `git-receive-pack`) is started for.
    pub files: Vec<PathUse>,
    /// Variables that are set.
    pub assignments: Vec<Assignment>,
    /// Why it is not understood as a whole; empty = it is.
    pub opaque: Vec<String>,
}

/// One program that would run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invocation {
    /// As written, after quotes: `git`, `/usr/bin/git`, `./deploy.sh`.
    pub program: Word,
    pub arguments: Vec<Word>,
    /// The folder in which it runs: `~` is the login's home, `None` cannot be told.
    pub folder: Option<String>,
    /// Programs that start this one as somebody else or somewhere else, outermost first: `sudo`, `docker`. Launchers
    /// that change nothing of the kind (`nohup`, `env`, `xargs`) are looked through and not named.
    pub via: Vec<String>,
    /// It only moves files, all of which are in [`Exec::files`]: the files have to be granted, the program itself has not.
    pub transfer: bool,
}

/// One word of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Word {
    /// Its value if it is literal; otherwise as written.
    pub text: String,
    pub certainty: Certainty,
    /// What its value certainly begins with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
}

impl Word {
    /// A word whose value is known.
    pub fn literal(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { prefix: text.clone(), text, certainty: Certainty::Literal }
    }

    /// A word whose value is not known.
    pub fn unknown(written: impl Into<String>, certainty: Certainty) -> Self {
        Self { text: written.into(), certainty, prefix: String::new() }
    }

    /// The value, if it is known to the letter.
    pub fn value(&self) -> Option<&str> {
        (self.certainty == Certainty::Literal).then_some(self.text.as_str())
    }
}

/// How well the value of a word is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// To the letter.
    Literal,
    /// `~` or `~/…`, unquoted: below the login's home.
    Home,
    /// A pattern for names of files, `*.log`: as many words as there are files, each of which it matches, or itself.
    Glob,
    /// One word of which at most the beginning is known: `"release-$VERSION"`.
    Value,
    /// Any number of unknown words: `$FILES`, `$(ls)`, `"$@"`.
    Words,
}

/// A file that a command line opens or moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathUse {
    pub operation: FileOperation,
    pub path: Word,
    /// The folder that a relative path starts from, as [`Invocation::folder`].
    pub folder: Option<String>,
    /// Everything below it, too.
    pub recursive: bool,
    pub by: Route,
}

/// A variable that a command line sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Assignment {
    pub name: String,
    pub value: Word,
    /// A program sees it: it stands in front of a command, or is exported. A shell's own variable needs no grant as long as
    /// its name means nothing to shells.
    pub exported: bool,
}

/// An operation on files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileRequest {
    pub operation: FileOperation,
    /// Absolute and normalised; as the server's realpath has it where it could be asked.
    pub path: String,
    /// The other path of rename, symlink and link, and of a copy: where it leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The login's home, if the server has told: what `~` means in rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    pub by: Route,
}

/// What is done to a file.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum FileOperation {
    /// What stat, readlink and realpath tell. Granted by any grant on the path, or on something below it.
    Stat,
    /// Names in a folder.
    List,
    /// Contents.
    Read,
    /// Contents are made, changed or added to; folders are made.
    Write,
    /// Files and folders are removed.
    Remove,
    /// A file gets another name. Both paths count; the target is written.
    Rename,
    /// Size, owner, mode and times are changed.
    Setstat,
    /// A symbolic or hard link is made. Both paths count.
    Symlink,
}

impl FileOperation {
    pub const ALL: [Self; 8] = [
        Self::Stat,
        Self::List,
        Self::Read,
        Self::Write,
        Self::Remove,
        Self::Rename,
        Self::Setstat,
        Self::Symlink,
    ];

    /// Its name in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::List => "list",
            Self::Read => "read",
            Self::Write => "write",
            Self::Remove => "remove",
            Self::Rename => "rename",
            Self::Setstat => "setstat",
            Self::Symlink => "symlink",
        }
    }
}

/// By what means files are reached.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// The SFTP subsystem, each operation seen.
    Sftp,
    /// Legacy scp, each file seen.
    Scp,
    /// A redirection of an exec. Symbolic links are not seen.
    Exec,
    /// rsync: only the folder that its far end is started for is seen.
    Rsync,
    /// git: only the repository is seen.
    Git,
}

impl Route {
    /// Its name in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sftp => "sftp",
            Self::Scp => "scp",
            Self::Exec => "exec",
            Self::Rsync => "rsync",
            Self::Git => "git",
        }
    }
}
