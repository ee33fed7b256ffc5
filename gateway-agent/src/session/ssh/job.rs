//! The job's leg: the SSH server that its client meets.
//!
//! The library's task calls [`Handler`]; that only passes on what was asked, and what it needs an answer to waits for it. Nothing here
//! decides.
//!
//! **Windows.** The library gives a channel new window as soon as its data was read, whether that went anywhere or not. So what a
//! session's channels hold back is counted ([`Held`]); above [`SOFT`] windows are no longer filled but by [`TRICKLE`] bytes, which keeps a
//! client that has more to say in touch without taking it, and above [`HARD`] nothing is read at all.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, Limits, Pty, Sig,
    keys::{Certificate, PrivateKey},
    server::{
        self, Auth, ChannelOpenHandle, Config, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
};

use super::{
    algorithms,
    confirmed::Confirmed,
    held::{Credit, Held},
};

/// Window of a channel towards the job.
const WINDOW: u32 = 1024 * 1024;
/// Bytes of a session that wait to go upstream before windows stay small.
const SOFT: usize = 8 * 1024 * 1024;
/// The most that may wait.
const HARD: usize = 96 * 1024 * 1024;
/// The window then, which is filled when it is empty.
const TRICKLE: u32 = 2;
/// Between two fillings, so that neither side spins.
const PAUSE: Duration = Duration::from_millis(10);
/// Channels at once, whatever policy allows.
pub(super) const CHANNELS: usize = 128;
/// Requests of a channel that were passed on and not taken.
const REQUESTS: usize = 4096;
/// Names and values of environment variables of one channel.
const ENVIRONMENT: usize = 64 * 1024;

/// What the client did, for the session.
pub(super) enum Event {
    /// It is in, under this name. Whoever it is has been proved by the kernel.
    Authenticated {
        user: String,
        client: String,
    },
    Opened(Opened),
    /// A listener is wanted; the answer is its port, or 0 where that is known.
    Forward {
        what: Forward,
        answer: oneshot::Sender<Option<u32>>,
    },
    /// A listener is wanted no more.
    Unforward {
        what: Forward,
        answer: oneshot::Sender<bool>,
    },
}

impl Opened {
    /// Refuses it, unless it has been accepted.
    pub(super) async fn reject(reply: Option<ChannelOpenHandle>, code: u32, reason: String) {
        if let Some(reply) = reply {
            reply.reject(ChannelOpenFailure::Other { code, reason }).await;
        }
    }
}

/// A channel that the client wants.
pub(super) struct Opened {
    pub(super) what: Wanted,
    pub(super) channel: Channel<Msg>,
    /// Taken once it has been answered.
    pub(super) reply: Option<ChannelOpenHandle>,
    pub(super) inbox: mpsc::UnboundedReceiver<Message>,
}

pub(super) enum Wanted {
    Session,
    DirectTcpip { host: String, port: u32 },
    DirectStreamlocal { path: String },
}

/// A listener that the client wants at the far end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Forward {
    Tcpip { host: String, port: u32 },
    Streamlocal { path: String },
}

/// What the client did on one channel.
pub(super) enum Message {
    Data(Credit),
    Eof,
    Close,
    Pty(Terminal, oneshot::Sender<bool>),
    Env { name: String, value: String, answer: oneshot::Sender<bool> },
    Exec(Bytes),
    Shell,
    Subsystem(String),
    Agent(oneshot::Sender<bool>),
    X11(oneshot::Sender<bool>),
    Size { columns: u32, rows: u32, width: u32, height: u32 },
    Signal(Sig),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Terminal {
    pub(super) term: String,
    pub(super) columns: u32,
    pub(super) rows: u32,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) modes: Vec<(Pty, u32)>,
}

/// What the client does on a channel that was opened towards it. The library queues what comes on such a channel, and reads no other
/// while that is full: it is taken at once, and counted with the rest.
pub(super) fn taken(mut from_job: ChannelReadHalf, held: Arc<Held>) -> mpsc::UnboundedReceiver<Message> {
    let (messages, inbox) = mpsc::unbounded_channel();
    tokio::task::spawn_local(async move {
        while let Some(message) = from_job.wait().await {
            let told = match message {
                ChannelMsg::Data { data } => messages.send(Message::Data(Credit::new(data, &held))),
                ChannelMsg::Eof => messages.send(Message::Eof),
                ChannelMsg::Close => messages.send(Message::Close),
                _ => Ok(()),
            };
            if told.is_err() {
                break;
            }
            while held.is_over(HARD) {
                held.fewer.notified().await;
            }
        }
    });
    inbox
}

/// Starts the server on a connection; `events` hears what its client does. Returns when the client has said who it is.
///
/// # Errors
/// When the client does not speak SSH.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    limits: Limits,
    (key, certificate): (&PrivateKey, Certificate),
    events: mpsc::UnboundedSender<Event>,
    held: Arc<Held>,
) -> Result<server::RunningSession<Handler>, russh::Error> {
    let config = Config {
        server_id: algorithms::identification(),
        // What is refused is refused by mistake of the client's: no attempt opens anything.
        auth_rejection_time: Duration::from_millis(100),
        keys: vec![key.clone()],
        certificates: vec![certificate],
        limits,
        window_size: WINDOW,
        preferred: algorithms::towards_jobs(),
        max_auth_attempts: 10,
        inactivity_timeout: None,
        keepalive_interval: Some(Duration::from_secs(60)),
        keepalive_max: 5,
        event_buffer_size: 32,
        // Nobody reads channels by the library's own queue.
        channel_buffer_size: 1,
        nodelay: true,
        ..Config::default()
    };
    let handler = Handler { events, user: None, channels: HashMap::new(), held };
    server::run_stream(Arc::new(config), Confirmed::new(stream), handler).await
}

pub(super) struct Handler {
    events: mpsc::UnboundedSender<Event>,
    user: Option<String>,
    channels: HashMap<ChannelId, Inbox>,
    held: Arc<Held>,
}

struct Inbox {
    messages: mpsc::UnboundedSender<Message>,
    /// A program was asked for: there is one a channel.
    started: bool,
    environment: usize,
    /// Requests without a window of their own.
    requests: usize,
}

impl Handler {
    fn accept(&mut self, user: &str) -> Auth {
        self.user = Some(user.to_owned());
        Auth::Accept
    }

    fn tell(&self, channel: ChannelId, message: Message) {
        if let Some(inbox) = self.channels.get(&channel) {
            // A channel that nobody listens to is being closed.
            let _ = inbox.messages.send(message);
        }
    }

    /// Asks the channel, and answers the client before the next request is read: the library keeps one flag a channel for whether an
    /// answer is wanted.
    async fn ask(
        &mut self,
        id: ChannelId,
        session: &mut Session,
        message: impl FnOnce(oneshot::Sender<bool>) -> Message,
    ) -> Result<(), russh::Error> {
        let (sender, answer) = oneshot::channel();
        self.tell(id, message(sender));
        // Nobody there: no.
        match answer.await.unwrap_or(false) {
            true => session.channel_success(id),
            false => session.channel_failure(id),
        }
    }

    /// The program of a channel: the first that is asked for. The client is told that it begins before it is decided: only then does it
    /// show what a refusal says.
    fn start(&mut self, id: ChannelId, session: &mut Session, message: Message) -> Result<(), russh::Error> {
        let first =
            self.channels.get_mut(&id).is_some_and(|inbox| !std::mem::replace(&mut inbox.started, true));
        if !first {
            return session.channel_failure(id);
        }
        session.channel_success(id)?;
        self.tell(id, message);
        Ok(())
    }

    fn open(&mut self, what: Wanted, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        let (messages, inbox) = mpsc::unbounded_channel();
        let started = !matches!(what, Wanted::Session);
        let id = channel.id();
        // Channels that are over, and those that were refused.
        self.channels.retain(|_, inbox| !inbox.messages.is_closed());
        if self.channels.len() >= CHANNELS {
            let reason = format!("the gateway takes {CHANNELS} channels of a connection");
            tokio::spawn(reply.reject(ChannelOpenFailure::Other { code: 4, reason }));
            return;
        }
        self.channels.insert(id, Inbox { messages, started, environment: 0, requests: 0 });
        // When nobody listens, dropping the handle refuses the channel.
        let _ = self.events.send(Event::Opened(Opened { what, channel, reply: Some(reply), inbox }));
    }

    /// Nobody there: no.
    async fn forward(&mut self, what: Forward) -> Option<u32> {
        let (answer, asked) = oneshot::channel();
        self.events.send(Event::Forward { what, answer }).ok()?;
        asked.await.ok().flatten()
    }

    async fn unforward(&mut self, what: Forward) -> bool {
        let (answer, asked) = oneshot::channel();
        self.events.send(Event::Unforward { what, answer }).is_ok() && asked.await.unwrap_or(false)
    }

    async fn data(&mut self, id: ChannelId, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.tell(id, Message::Data(Credit::new(Bytes::copy_from_slice(data), &self.held)));
        if self.held.is_over(SOFT) {
            tokio::time::sleep(PAUSE).await;
        }
        while self.held.is_over(HARD) {
            self.held.fewer.notified().await;
        }
    }
}

impl server::Handler for Handler {
    type Error = russh::Error;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        Ok(self.accept(user))
    }

    async fn auth_password(&mut self, user: &str, _: &str) -> Result<Auth, Self::Error> {
        Ok(self.accept(user))
    }

    async fn auth_publickey_offered(&mut self, _: &str, _: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn auth_publickey(&mut self, user: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(self.accept(user))
    }

    async fn auth_openssh_certificate(&mut self, user: &str, _: &Certificate) -> Result<Auth, Self::Error> {
        Ok(self.accept(user))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _: &str,
        _: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.accept(user))
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        let user = self.user.take().ok_or(russh::Error::Inconsistent)?;
        let client = String::from_utf8_lossy(session.remote_sshid()).into_owned();
        self.events.send(Event::Authenticated { user, client }).map_err(|_| russh::Error::Disconnect)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.open(Wanted::Session, channel, reply);
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.open(Wanted::DirectTcpip { host: host.to_owned(), port }, channel, reply);
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.open(Wanted::DirectStreamlocal { path: path.to_owned() }, channel, reply);
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        Handler::data(self, id, data).await;
        Ok(())
    }

    /// Clients have no standard error to send; what they send as such goes nowhere.
    async fn extended_data(
        &mut self,
        _: ChannelId,
        _: u32,
        _: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        if self.held.is_over(SOFT) { TRICKLE } else { WINDOW }
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.tell(id, Message::Eof);
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.tell(id, Message::Close);
        self.channels.remove(&id);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let terminal =
            Terminal { term: term.to_owned(), columns, rows, width, height, modes: modes.to_vec() };
        self.ask(id, session, |answer| Message::Pty(terminal, answer)).await
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let size = name.len().saturating_add(value.len()).saturating_add(16);
        let fits = self.channels.get_mut(&id).is_some_and(|inbox| {
            inbox.environment = inbox.environment.saturating_add(size);
            inbox.environment <= ENVIRONMENT
        });
        if !fits {
            return session.channel_failure(id);
        }
        let (name, value) = (name.to_owned(), value.to_owned());
        self.ask(id, session, |answer| Message::Env { name, value, answer }).await
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(id, session, Message::Exec(Bytes::copy_from_slice(command)))
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.start(id, session, Message::Shell)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(id, session, Message::Subsystem(name.to_owned()))
    }

    async fn agent_request(&mut self, id: ChannelId, _: &mut Session) -> Result<bool, Self::Error> {
        let (answer, asked) = oneshot::channel();
        self.tell(id, Message::Agent(answer));
        Ok(asked.await.unwrap_or(false))
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.ask(id, session, Message::X11).await
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.channels.get_mut(&id).is_some_and(Inbox::takes_another) {
            self.tell(id, Message::Size { columns, rows, width, height });
        }
        session.channel_success(id)
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, session: &mut Session) -> Result<(), Self::Error> {
        if self.channels.get_mut(&id).is_some_and(Inbox::takes_another) {
            self.tell(id, Message::Signal(signal));
        }
        session.channel_success(id)
    }

    async fn tcpip_forward(
        &mut self,
        host: &str,
        port: &mut u32,
        _: &mut Session,
    ) -> Result<bool, Self::Error> {
        let listens = self.forward(Forward::Tcpip { host: host.to_owned(), port: *port }).await;
        if let Some(chosen) = listens.filter(|_| *port == 0) {
            *port = chosen;
        }
        Ok(listens.is_some())
    }

    async fn cancel_tcpip_forward(
        &mut self,
        host: &str,
        port: u32,
        _: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.unforward(Forward::Tcpip { host: host.to_owned(), port }).await)
    }

    async fn streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, Self::Error> {
        Ok(self.forward(Forward::Streamlocal { path: path.to_owned() }).await.is_some())
    }

    async fn cancel_streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, Self::Error> {
        Ok(self.unforward(Forward::Streamlocal { path: path.to_owned() }).await)
    }
}

impl Inbox {
    /// Requests that need no answer and no window are taken up to a number, then they are dropped: the client that sends
    /// thousands of them has other plans than telling the size of its terminal.
    fn takes_another(&mut self) -> bool {
        self.requests = self.requests.saturating_add(1);
        self.requests <= REQUESTS
    }
}
