//! The host's leg: the SSH client that logs in with what the job never sees.
//!
//! Each channel of a job has a connection for itself: the library reads a connection only as fast as its slowest channel
//! is read, and channels of jobs must not wait for each other. Where the program ended by itself, the next channel may have the
//! connection; else it is closed with the channel, and so is whatever the host still runs in it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use policy::{Permit, Resource};
use russh::{
    Channel, Disconnect, Limits,
    client::{self, AuthResult, KeyboardInteractiveAuthResponse, Msg},
    keys::{PrivateKeyWithHashAlg, ssh_key},
};
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{
    algorithms,
    forwards::Arrivals,
    job::Forward,
    pins::{Pins, preferred},
};
use crate::{
    credential::{self, Proof, SshLogin},
    session::stream::Stream,
    upstream::{self, UpstreamError},
};

/// Window of a channel; what one round trip can carry.
const WINDOW: u32 = 2 * 1024 * 1024;
/// Messages of the channel that wait to be taken.
const WAITING: usize = 32;
/// The host is asked whether it is still there after this long without a word, so many times.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVES: usize = 5;
/// Most questions that a login by keyboard-interactive may ask.
const QUESTIONS: usize = 4;

/// Why a host cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostError {
    #[error(transparent)]
    Connect(#[from] UpstreamError),
    #[error("its host key is not one that policy names ({0})")]
    HostKey(String),
    #[error(
        "it speaks chacha20-poly1305 without strict key exchange, where messages can be taken out unseen; it needs another cipher, or OpenSSH \
         9.6 or newer"
    )]
    Weak,
    #[error("it does not accept the gateway's login as {0}")]
    Login(String),
    #[error("it does not answer in time")]
    Timeout,
    #[error("by way of {0}: {1}")]
    Way(Arc<str>, Box<HostError>),
    #[error("it closed the connection")]
    Gone,
    #[error("it refuses a channel: {0}")]
    Channel(String),
    #[error("SSH: {0}")]
    Protocol(russh::Error),
    #[error("{0}")]
    Socket(io::Error),
    #[error("a public key of the policy cannot be used: {0}")]
    Key(ssh_key::Error),
    #[error("the gateway's own credential cannot be used")]
    Credential(#[source] credential::SshLoginError),
    #[error("policy no longer says that this is an SSH host")]
    Kind,
}

impl HostError {
    /// For the operator, who reads also what the job does not.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Credential(why) => format!("{self}: {why}"),
            _ => self.to_string(),
        }
    }
}

/// A connection that is logged in. Closed when dropped.
pub(super) struct Upstream {
    handle: client::Handle<Pins>,
    below: Below,
    resource: Arc<str>,
}

/// What a connection is carried by.
enum Below {
    /// The same socket: closing it ends what the library still does with it.
    Socket(std::net::TcpStream),
    /// A connection to another host, which ends with this one.
    Host(#[expect(dead_code, reason = "closed when dropped")] Box<Upstream>),
}

/// Where to connect to, and as whom.
pub(super) struct To<'a> {
    pub(super) resource: &'a Resource,
    pub(super) address: SocketAddr,
    pub(super) login: SshLogin,
    pub(super) patience: Duration,
    pub(super) limits: Limits,
    /// Told of connections that the host's listeners accept; without it there are none.
    pub(super) arrivals: Option<Arrivals>,
}

/// Connects and logs in.
///
/// # Errors
/// When the host cannot be reached, shows another key, or refuses the login.
pub(super) async fn connect(permit: &Permit, to: To<'_>) -> Result<Upstream, HostError> {
    let connecting = upstream::connect(permit, to.resource, to.address, to.patience);
    let Stream::Plain(tcp) = connecting.await? else { return Err(HostError::Kind) };
    let (tcp, socket) = twice(tcp).map_err(HostError::Socket)?;
    over(tcp, Below::Socket(socket), to).await
}

/// The same over a connection that another host makes; `carrier`: to that host.
///
/// # Errors
/// As for [`connect`].
pub(super) async fn connect_through(
    (carrier, channel): (Upstream, Channel<Msg>),
    permit: &Permit,
    to: To<'_>,
) -> Result<Upstream, HostError> {
    is_for(permit, &to.resource.name)?;
    over(channel.into_stream(), Below::Host(Box::new(carrier)), to).await
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    below: Below,
    to: To<'_>,
) -> Result<Upstream, HostError> {
    let To { resource, address, login, patience, limits, arrivals } = to;
    let of = resource.ssh().ok_or(HostError::Kind)?;
    let pins = Pins::new(of, resource, address, arrivals)?;
    let config = client::Config {
        client_id: algorithms::identification(),
        limits,
        window_size: WINDOW,
        channel_buffer_size: WAITING,
        preferred: preferred(of),
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES,
        nodelay: true,
        ..client::Config::default()
    };
    let seen = pins.seen();
    let work = async {
        let handle = match client::connect_stream(Arc::new(config), stream, pins).await {
            Ok(handle) => handle,
            Err(error) => {
                return Err(match (error, seen.take()) {
                    (russh::Error::UnknownKey, seen) => HostError::HostKey(seen.key),
                    (_, seen) if seen.weak => HostError::Weak,
                    (error, _) => protocol(error),
                });
            }
        };
        let mut upstream = Upstream { handle, below, resource: Arc::clone(&resource.name) };
        upstream.log_in(login).await?;
        Ok(upstream)
    };
    timeout(patience, work).await.map_err(|_| HostError::Timeout)?
}

impl Upstream {
    async fn log_in(&mut self, login: SshLogin) -> Result<(), HostError> {
        let SshLogin { user, proof } = login;
        let result = match proof {
            Proof::Key(key) => {
                let key = PrivateKeyWithHashAlg::new(key, None);
                self.handle.authenticate_publickey(&user, key).await.map_err(protocol)?
            }
            Proof::Certificate(key, certificate) => {
                self.handle.authenticate_openssh_cert(&user, key, *certificate).await.map_err(protocol)?
            }
            Proof::Password(password) => {
                // The library keeps its own copy of it, in memory that it does not wipe.
                let result = self
                    .handle
                    .authenticate_password(&user, password.expose_secret())
                    .await
                    .map_err(protocol)?;
                match result {
                    AuthResult::Success => result,
                    AuthResult::Failure { .. } => self.answer(&user, password.expose_secret()).await?,
                }
            }
        };
        match result {
            AuthResult::Success => Ok(()),
            AuthResult::Failure { .. } => Err(HostError::Login(user)),
        }
    }

    /// Hosts with PAM often take passwords only as the answer to a question.
    async fn answer(&mut self, user: &str, password: &str) -> Result<AuthResult, HostError> {
        let mut response =
            self.handle.authenticate_keyboard_interactive_start(user, None).await.map_err(protocol)?;
        for _ in 0..QUESTIONS {
            response = match response {
                KeyboardInteractiveAuthResponse::Success => return Ok(AuthResult::Success),
                KeyboardInteractiveAuthResponse::Failure { .. } => break,
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                    let answers = match prompts.as_slice() {
                        [] => Vec::new(),
                        // Hidden when typed: it asks for the password.
                        [one] if !one.echo => vec![password.to_owned()],
                        _ => break,
                    };
                    self.handle.authenticate_keyboard_interactive_respond(answers).await.map_err(protocol)?
                }
            };
        }
        Err(HostError::Login(user.to_owned()))
    }

    /// Opens a channel for a program.
    ///
    /// # Errors
    /// When the permit is for another resource, or the host refuses.
    pub(super) async fn session(&self, permit: &Permit) -> Result<Channel<Msg>, HostError> {
        self.check(permit)?;
        self.handle.channel_open_session().await.map_err(refused)
    }

    /// Opens a connection from the host to somewhere.
    ///
    /// # Errors
    /// When the permit is for another resource, or the host refuses.
    pub(super) async fn direct_tcpip(
        &self,
        permit: &Permit,
        host: &str,
        port: u32,
    ) -> Result<Channel<Msg>, HostError> {
        self.check(permit)?;
        self.handle.channel_open_direct_tcpip(host, port, "127.0.0.1", 0).await.map_err(refused)
    }

    /// Opens a connection to a unix socket of the host.
    ///
    /// # Errors
    /// When the permit is for another resource, or the host refuses.
    pub(super) async fn direct_streamlocal(
        &self,
        permit: &Permit,
        path: &str,
    ) -> Result<Channel<Msg>, HostError> {
        self.check(permit)?;
        self.handle.channel_open_direct_streamlocal(path).await.map_err(refused)
    }

    /// Has the host listen; the port that it chose, or 0.
    ///
    /// # Errors
    /// When the permit is for another resource, or the host refuses.
    pub(super) async fn listen(&self, permit: &Permit, host: &str, port: u32) -> Result<u32, HostError> {
        self.check(permit)?;
        self.handle.tcpip_forward(host, port).await.map_err(not_done)
    }

    /// The same for a unix socket.
    ///
    /// # Errors
    /// As for [`listen`](Self::listen).
    pub(super) async fn listen_unix(&self, permit: &Permit, path: &str) -> Result<(), HostError> {
        self.check(permit)?;
        self.handle.streamlocal_forward(path).await.map_err(not_done)
    }

    /// Takes a listener back. What cannot be taken back ends with the connection.
    pub(super) async fn unlisten(&self, what: &Forward) {
        let done = match what {
            Forward::Tcpip { host, port } => self.handle.cancel_tcpip_forward(host, *port).await,
            Forward::Streamlocal { path } => self.handle.cancel_streamlocal_forward(path).await,
        };
        if done.is_err() {
            self.close().await;
        }
    }

    /// It still stands.
    pub(super) fn is_up(&self) -> bool {
        !self.handle.is_closed()
    }

    /// Says goodbye; dropping it does the rest.
    pub(super) async fn close(&self) {
        // It may be gone already.
        let _ = self.handle.disconnect(Disconnect::ByApplication, "", "").await;
    }

    fn check(&self, permit: &Permit) -> Result<(), HostError> {
        is_for(permit, &self.resource)
    }
}

fn is_for(permit: &Permit, resource: &Arc<str>) -> Result<(), HostError> {
    match permit.resource() == &**resource {
        true => Ok(()),
        false => Err(HostError::Connect(UpstreamError::Permit {
            permit: permit.resource().to_owned(),
            resource: Arc::clone(resource),
        })),
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Below::Socket(socket) = &self.below {
            // It may be closed already.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// A socket, and a second handle on it.
pub(super) fn twice(tcp: TcpStream) -> io::Result<(TcpStream, std::net::TcpStream)> {
    let std = tcp.into_std()?;
    let second = std.try_clone()?;
    Ok((TcpStream::from_std(std)?, second))
}

fn protocol(error: russh::Error) -> HostError {
    match error {
        russh::Error::Disconnect | russh::Error::HUP | russh::Error::SendError | russh::Error::RecvError => {
            HostError::Gone
        }
        error => HostError::Protocol(error),
    }
}

fn not_done(error: russh::Error) -> HostError {
    match error {
        russh::Error::RequestDenied => HostError::Channel("it does not listen there".to_owned()),
        error => protocol(error),
    }
}

fn refused(error: russh::Error) -> HostError {
    match error {
        russh::Error::ChannelOpenFailure(why) => HostError::Channel(why.description().to_owned()),
        error => protocol(error),
    }
}
