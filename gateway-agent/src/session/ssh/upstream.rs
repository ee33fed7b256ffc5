//! The host's leg: the SSH client that logs in with what the job never sees.
//!
//! Each channel of a job has a connection for itself: the library reads a connection only as fast as its slowest channel
//! is read, and channels of jobs must not wait for each other. Where the program ended by itself, the next channel may have the
//! connection; else it is closed with the channel, and so is whatever the host still runs in it.

use std::{borrow::Cow, io, net::SocketAddr, sync::Arc, time::Duration};

use policy::{Host, HostKey, Permit, Resource, SshUpstream, UnixTime};
use russh::{
    Channel, Disconnect,
    client::{self, AuthResult, ChannelOpenHandle, KeyboardInteractiveAuthResponse, Msg, Session},
    keys::{
        Algorithm, PrivateKeyWithHashAlg, PublicKeyOrCertificate,
        ssh_key::{self, Certificate, HashAlg, certificate::CertType},
    },
};
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{
    algorithms,
    forwards::{Arrivals, Arrived},
    job::Forward,
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
    let To { resource, address, login, patience, arrivals } = to;
    let of = resource.ssh().ok_or(HostError::Kind)?;
    let pins = Pins::new(of, resource, address, arrivals)?;
    let config = client::Config {
        client_id: algorithms::identification(),
        limits: algorithms::limits(),
        window_size: WINDOW,
        channel_buffer_size: WAITING,
        preferred: preferred(of),
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES,
        nodelay: true,
        ..client::Config::default()
    };
    let shown = Arc::clone(&pins.shown);
    let work = async {
        let handle = match client::connect_stream(Arc::new(config), stream, pins).await {
            Ok(handle) => handle,
            Err(russh::Error::UnknownKey) => {
                let shown = shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                return Err(HostError::HostKey(shown));
            }
            Err(error) => return Err(protocol(error)),
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

/// Hosts have several keys: ask for the kinds that are pinned.
fn preferred(of: &SshUpstream) -> russh::Preferred {
    let mut preferred = algorithms::towards_hosts(!of.host_authorities.is_empty());
    let known: Option<Vec<&str>> = of
        .host_keys
        .iter()
        .map(|pin| match pin {
            HostKey::Key(key) => Some(key.algorithm.as_str()),
            // Nobody knows of what kind.
            HostKey::Sha256(_) => None,
        })
        .collect();
    if let Some(known) = known.filter(|known| !known.is_empty()) {
        let kept: Vec<Algorithm> =
            preferred.key.iter().filter(|kind| known.contains(&kind.as_str())).cloned().collect();
        preferred.key = Cow::Owned(kept);
    }
    preferred
}

/// What the host has to show.
struct Pins {
    of: SshUpstream,
    authorities: Vec<ssh_key::Fingerprint>,
    /// By what names a certificate may call it.
    names: Vec<String>,
    now: UnixTime,
    /// What it showed, for the operator.
    shown: Arc<std::sync::Mutex<String>>,
    arrivals: Option<Arrivals>,
}

impl Pins {
    fn new(
        of: &SshUpstream,
        resource: &Resource,
        address: SocketAddr,
        arrivals: Option<Arrivals>,
    ) -> Result<Self, HostError> {
        let authorities = of
            .host_authorities
            .iter()
            .map(|key| Ok(credential::public_key(key)?.fingerprint(HashAlg::Sha256)))
            .collect::<Result<_, _>>()
            .map_err(HostError::Key)?;
        let named = resource.hosts.iter().filter_map(|host| match host {
            Host::Name(name) => Some(name.clone()),
            Host::Net(_) => None,
        });
        let names = named.chain([address.ip().to_canonical().to_string()]).collect();
        Ok(Self {
            of: of.clone(),
            authorities,
            names,
            now: crate::clock::now(),
            shown: Arc::default(),
            arrivals,
        })
    }

    /// Nobody who waits for it, or too many already: dropping the reply refuses it.
    fn arrived(&self, arrived: Arrived) {
        if let Some(arrivals) = &self.arrivals {
            let _ = arrivals.try_send(arrived);
        }
    }

    fn trusts(&self, shown: &PublicKeyOrCertificate) -> bool {
        let Ok(blob) = shown.public_key().to_bytes() else { return false };
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &blob);
        let pinned = <&[u8; 32]>::try_from(digest.as_ref()).is_ok_and(|sha| self.of.trusts_key(&blob, sha));
        pinned || shown.certificate().is_some_and(|certificate| self.trusts_certificate(certificate))
    }

    fn trusts_certificate(&self, certificate: &Certificate) -> bool {
        certificate.cert_type() == CertType::Host
            && certificate.critical_options().is_empty()
            // Without names it would be any host's.
            && certificate.valid_principals().iter().any(|name| self.names.contains(&name.to_ascii_lowercase()))
            && certificate.validate_at(self.now.0, &self.authorities).is_ok()
    }
}

impl client::Handler for Pins {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let key = shown.public_key();
        *self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256));
        Ok(self.trusts(shown))
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let at = Forward::Tcpip { host: host.to_owned(), port };
        self.arrived(Arrived { at, from: format!("{from}:{from_port}"), channel, reply });
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let at = Forward::Streamlocal { path: path.to_owned() };
        self.arrived(Arrived { at, from: "a process of the host".to_owned(), channel, reply });
        Ok(())
    }

    // Hosts open no other channels to jobs: a reply that is dropped refuses. The library's own would accept.

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use russh::keys::{PrivateKey, ssh_key::certificate::Builder};

    use super::*;
    use crate::ssh::fresh_key;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn of(authority: &PrivateKey) -> SshUpstream {
        let public = authority.public_key();
        SshUpstream {
            host_keys: Vec::new(),
            host_authorities: vec![policy::PublicKey {
                algorithm: public.algorithm().to_string(),
                blob: public.to_bytes().unwrap(),
            }],
            users: Vec::new(),
            login: policy::SshLogin {
                user: None,
                users: Vec::new(),
                method: policy::LoginMethod::Password(policy::SecretRef::Env("unused".into())),
            },
        }
    }

    fn pins(of: &SshUpstream) -> Pins {
        let key = credential::public_key(&of.host_authorities[0]).unwrap();
        Pins {
            of: of.clone(),
            authorities: vec![key.fingerprint(HashAlg::Sha256)],
            names: vec!["web.internal".into(), "198.51.100.40".into()],
            now: NOW,
            shown: Arc::default(),
            arrivals: None,
        }
    }

    fn certificate(
        authority: &PrivateKey,
        kind: CertType,
        name: &str,
        until: u64,
        option: bool,
    ) -> PublicKeyOrCertificate {
        let key = fresh_key().unwrap();
        let mut builder =
            Builder::new([7; 32], key.public_key().key_data().clone(), NOW.0 - 100, until).unwrap();
        builder.cert_type(kind).unwrap().valid_principal(name).unwrap();
        if option {
            builder.critical_option("verify-required", "").unwrap();
        }
        PublicKeyOrCertificate::Certificate(builder.sign(authority).unwrap())
    }

    #[test]
    fn a_host_certificate_counts_if_it_is_of_the_authority_for_this_host_and_now() {
        let (ours, theirs) = (fresh_key().unwrap(), fresh_key().unwrap());
        let pins = pins(&of(&ours));
        let until = NOW.0 + 100;
        assert!(pins.trusts(&certificate(&ours, CertType::Host, "web.internal", until, false)));
        assert!(pins.trusts(&certificate(&ours, CertType::Host, "198.51.100.40", until, false)));
        assert!(!pins.trusts(&certificate(&ours, CertType::Host, "db.internal", until, false)));
        assert!(!pins.trusts(&certificate(&ours, CertType::User, "web.internal", until, false)));
        assert!(!pins.trusts(&certificate(&ours, CertType::Host, "web.internal", NOW.0 - 1, false)));
        assert!(!pins.trusts(&certificate(&ours, CertType::Host, "web.internal", until, true)));
        assert!(!pins.trusts(&certificate(&theirs, CertType::Host, "web.internal", until, false)));
        // A bare key is none of the authority's words.
        assert!(!pins.trusts(&ours.public_key().clone().into()));
    }

    #[test]
    fn a_pinned_key_counts_by_itself_and_by_its_digest() {
        let key = fresh_key().unwrap();
        let blob = key.public_key().to_bytes().unwrap();
        let sha = key.fingerprint(HashAlg::Sha256).sha256().unwrap();
        let ca = fresh_key().unwrap();
        let pin = policy::PublicKey { algorithm: "ssh-ed25519".into(), blob };
        for pin in [HostKey::Key(pin), HostKey::Sha256(sha)] {
            let pins = pins(&SshUpstream { host_keys: vec![pin], ..of(&ca) });
            assert!(pins.trusts(&key.public_key().clone().into()));
            assert!(!pins.trusts(&fresh_key().unwrap().public_key().clone().into()));
        }
    }

    #[test]
    fn only_the_kinds_of_pinned_keys_are_asked_for() {
        let ca = fresh_key().unwrap();
        let pin = policy::PublicKey { algorithm: "ecdsa-sha2-nistp256".into(), blob: Vec::new() };
        let pinned = SshUpstream { host_keys: vec![HostKey::Key(pin)], host_authorities: vec![], ..of(&ca) };
        let kinds = |of: &SshUpstream| preferred(of).key.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(kinds(&pinned), ["ecdsa-sha2-nistp256"]);
        assert_eq!(kinds(&of(&ca)).len(), 4);
        assert!(preferred(&pinned).host_key_certificates.is_empty());
        assert_eq!(preferred(&of(&ca)).host_key_certificates.len(), 4);
    }
}
