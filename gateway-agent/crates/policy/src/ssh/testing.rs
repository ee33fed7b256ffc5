//! Expected decisions on SSH hosts.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Exec, FileOperation, FileRequest, Route, Ssh, SshRequest};

/// A request to be decided: `user` and one of the others.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SshCase {
    /// The login name that is asked for.
    pub user: String,
    pub connect: bool,
    /// A command line.
    pub exec: Option<String>,
    pub shell: bool,
    pub pty: bool,
    /// The name of a variable.
    pub env: Option<String>,
    pub subsystem: Option<String>,
    pub file: Option<FileCase>,
    /// `host:port`.
    pub direct_tcpip: Option<String>,
    /// A path.
    pub direct_streamlocal: Option<String>,
    /// `address:port`.
    pub tcpip_forward: Option<String>,
    /// A path.
    pub streamlocal_forward: Option<String>,
    pub agent_forwarding: bool,
    pub x11: bool,
    pub signal: Option<String>,
}

/// An operation on files.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileCase {
    pub operation: FileOperation,
    /// Absolute.
    pub path: String,
    pub target: Option<String>,
    pub home: Option<String>,
    /// Default: sftp.
    pub by: Option<Route>,
}

impl SshCase {
    /// The request. `read` reads command lines.
    ///
    /// # Errors
    /// When it names none or several, or a place that is none.
    pub fn action(&self, read: impl Fn(&str) -> Exec) -> Result<Ssh, String> {
        let place = |text: &String| match text.rsplit_once(':') {
            Some((host, port)) => {
                let port = port.parse().map_err(|_| format!("`{text}` has no port"))?;
                Ok((host.trim_matches(['[', ']']).to_owned(), port))
            }
            None => Err(format!("`{text}` is not host:port")),
        };
        let to = self.direct_tcpip.as_ref().map(place).transpose()?;
        let on = self.tcpip_forward.as_ref().map(place).transpose()?;
        let requests = [
            self.connect.then_some(SshRequest::Connect),
            self.exec.as_deref().map(|text| SshRequest::Exec(read(text))),
            self.shell.then_some(SshRequest::Shell),
            self.pty.then(|| SshRequest::Pty { term: "xterm".into() }),
            self.env.clone().map(|name| SshRequest::Env { name, value: "x".into() }),
            self.subsystem.clone().map(|name| SshRequest::Subsystem { name }),
            self.file.as_ref().map(|file| {
                SshRequest::File(FileRequest {
                    operation: file.operation,
                    path: file.path.clone(),
                    target: file.target.clone(),
                    home: file.home.clone(),
                    by: file.by.unwrap_or(Route::Sftp),
                })
            }),
            to.map(|(host, port)| SshRequest::DirectTcpip { host, port }),
            self.direct_streamlocal.clone().map(|path| SshRequest::DirectStreamlocal { path }),
            on.map(|(host, port)| SshRequest::TcpipForward { host, port }),
            self.streamlocal_forward.clone().map(|path| SshRequest::StreamlocalForward { path }),
            self.agent_forwarding.then_some(SshRequest::AgentForwarding),
            self.x11.then_some(SshRequest::X11),
            self.signal.clone().map(|name| SshRequest::Signal { name }),
        ];
        let mut requests = requests.into_iter().flatten();
        match (requests.next(), requests.next()) {
            (Some(request), None) => Ok(Ssh { user: self.user.clone(), request }),
            _ => Err("`ssh` names exactly one request".to_owned()),
        }
    }
}
