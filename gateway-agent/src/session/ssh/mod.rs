//! Drives one SSH session: the job's connection, and the channels on it.
//!
//! `job` is the server that the job's client meets, `upstream` the client that logs in to the host; `channel` stands between them, one
//! task a channel, and asks (`ask`) before anything reaches the host.

mod algorithms;
mod ask;
mod channel;
mod commands;
mod confirmed;
mod connect;
mod dial;
mod files;
mod forwards;
mod held;
mod inner;
mod job;
mod limits;
mod lookup;
mod outlet;
mod pins;
mod upstream;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use policy::{Host, Permit, Resource, ResourceKind, SshLimits, SshRequest};
use russh::{Disconnect, server};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{interval, timeout},
};

use self::{
    dial::{Kept, Spare},
    forwards::{Arrivals, Arrived, Listeners},
    held::Held,
    inner::Route,
    job::Event,
};
use super::{
    Shared,
    log::Log,
    observer::Lost,
    registry::{Command, Live, Registration},
    worker::Worker,
};
use crate::{
    intercept::Flow,
    telemetry::{FlowResult, Phase},
};

/// How long the last words to a client may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// What the channels of one connection share.
struct Session {
    worker: Rc<Worker>,
    flow: Flow,
    resource: Arc<Resource>,
    live: Arc<Live>,
    log: Rc<Log>,
    /// As the job asked for it.
    user: String,
    client: String,
    handle: server::Handle,
    /// How the host is reached, where that is through another.
    route: Option<Route>,
    /// What the host listens to for the job, and where it tells of connections.
    listeners: Listeners,
    arrivals: Arrivals,
    /// What of the job's waits to go upstream.
    held: Arc<Held>,
    limits: RefCell<SshLimits>,
    /// A connection to the host that is made before a channel asks for it: the first, and those behind the second.
    spare: RefCell<Option<Spare>>,
    kept: RefCell<Option<Kept>>,
    /// For logging in, from the connection's verdict.
    permit: RefCell<Option<Rc<Permit>>>,
    numbers: Cell<u64>,
    /// Channels that are open, and those that wait for a human.
    open: Cell<usize>,
    asking: Cell<usize>,
    /// Why the session is over.
    end: watch::Sender<Option<Arc<str>>>,
    /// Counts changes of policy.
    epoch: watch::Sender<u64>,
    bytes: Cell<u64>,
    last: Cell<Instant>,
    began: Instant,
}

/// Serves one connection to its end.
pub async fn serve(
    worker: Rc<Worker>,
    flow: Flow,
    resource: Arc<Resource>,
    registration: Registration,
    tcp: TcpStream,
) {
    match upstream::twice(tcp) {
        Ok((tcp, socket)) => {
            serve_on(worker, flow, resource, registration, tcp, None).await;
            // The library's task ends with its socket, whatever it is doing.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        Err(error) => {
            let log = Log::new(&worker.shared, Arc::clone(&registration.live), ResourceKind::Ssh, None);
            log.closed(&format!("the accepted socket cannot be used: {error}")).await;
        }
    }
}

/// The same, on whatever carries the job's bytes; ending that is the caller's, when this returns.
async fn serve_on(
    worker: Rc<Worker>,
    flow: Flow,
    resource: Arc<Resource>,
    mut registration: Registration,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    inside: Option<Inside>,
) {
    let (outer, route) = inside.map_or((None, None), |inside| (Some(inside.outer), inside.route));
    let log = Rc::new(Log::new(&worker.shared, Arc::clone(&registration.live), ResourceKind::Ssh, outer));
    let (sender, mut events) = mpsc::unbounded_channel();
    let patience = worker.shared.config.sessions.login_timeout;
    let held = Arc::<Held>::default();
    let opening = open(&worker, &flow, &resource, stream, (sender, Arc::clone(&held)), &mut events);
    let (reason, result) = match timeout(patience, opening).await {
        Err(_) => {
            ("the client did not log in before the login timeout".to_owned(), Some(FlowResult::Timeout))
        }
        Ok(Err(error)) => (format!("with the client: {error}"), Some(FlowResult::Protocol)),
        Ok(Ok((running, user, client))) => {
            let (arrivals, arrived) = forwards::arrivals();
            let session = Rc::new(Session::new(
                worker,
                flow,
                resource,
                &registration,
                Rc::clone(&log),
                user,
                client,
                running.handle(),
                route,
                (arrivals, held),
            ));
            session.run(running, (events, arrived), &mut registration).await
        }
    };
    if let Some(result) = result {
        log.flow(result);
    }
    log.closed(&reason).await;
}

/// A session inside of another.
struct Inside {
    /// The id of that one.
    outer: Arc<str>,
    route: Option<Route>,
}

type Running = server::RunningSession<job::Handler>;

/// Until the client is logged in: its connection, the name it asked for, and what it calls itself.
async fn open(
    worker: &Worker,
    flow: &Flow,
    resource: &Resource,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (sender, held): (mpsc::UnboundedSender<Event>, Arc<Held>),
    events: &mut mpsc::UnboundedReceiver<Event>,
) -> Result<(Running, String, String), String> {
    let keys = &worker.shared.ssh;
    let certificate =
        keys.certificate(names(resource, flow), crate::clock::now()).map_err(|error| error.to_string())?;
    let limits = algorithms::limits(&worker.shared.config.sessions);
    let mut running = job::serve(stream, limits, (keys.host_key(), certificate), sender, held)
        .await
        .map_err(|error| error.to_string())?;
    tokio::select! {
        event = events.recv() => match event {
            Some(Event::Authenticated { user, client }) => Ok((running, user, client)),
            // It is over; why is there in a moment.
            _ => Err(left((&mut running).await)),
        },
        ended = &mut running => Err(left(ended)),
    }
}

fn left(ended: Result<(), russh::Error>) -> String {
    match ended {
        Ok(()) => "it left before it was logged in".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// By what names the job's client may know the host.
fn names(resource: &Resource, flow: &Flow) -> Vec<String> {
    let mut names = vec![flow.original.ip().to_canonical().to_string()];
    for host in &resource.hosts {
        match host {
            Host::Name(name) => names.push(name.clone()),
            Host::Net(net) if net.prefix_len() == net.max_prefix_len() => names.push(net.addr().to_string()),
            Host::Net(_) => {}
        }
    }
    names.sort();
    names.dedup();
    names
}

impl Session {
    #[expect(clippy::too_many_arguments, reason = "they are what a session consists of")]
    fn new(
        worker: Rc<Worker>,
        flow: Flow,
        resource: Arc<Resource>,
        registration: &Registration,
        log: Rc<Log>,
        user: String,
        client: String,
        handle: server::Handle,
        route: Option<Route>,
        (arrivals, held): (Arrivals, Arc<Held>),
    ) -> Self {
        let now = Instant::now();
        Self {
            worker,
            flow,
            resource,
            live: Arc::clone(&registration.live),
            log,
            user,
            client,
            handle,
            route,
            listeners: Listeners::default(),
            arrivals,
            held,
            limits: RefCell::default(),
            spare: RefCell::default(),
            kept: RefCell::default(),
            permit: RefCell::default(),
            numbers: Cell::new(0),
            open: Cell::new(0),
            asking: Cell::new(0),
            end: watch::Sender::new(None),
            epoch: watch::Sender::new(0),
            bytes: Cell::new(0),
            last: Cell::new(now),
            began: now,
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.worker.shared
    }

    /// Until the session ends: why it did, and what became of the flow if it never was one.
    async fn run(
        self: &Rc<Self>,
        mut running: Running,
        (mut events, mut arrived): (mpsc::UnboundedReceiver<Event>, mpsc::Receiver<Arrived>),
        registration: &mut Registration,
    ) -> (String, Option<FlowResult>) {
        // Set once: a session logs in once.
        let _ = self.live.login.set((String::new(), self.user.clone()));
        let mut channels = JoinSet::new();
        let connected = {
            let mut waiting = Vec::new();
            let connected = self.connect(&mut running, &mut events, registration, &mut waiting).await;
            if connected.is_ok() {
                for opened in waiting {
                    channels.spawn_local(channel::serve(Rc::clone(self), opened));
                }
            }
            connected
        };
        match connected {
            Ok(()) => {
                self.log.flow(FlowResult::Opened);
                self.log.took(Phase::Login, self.log.since_began());
            }
            Err((why, result)) => {
                self.goodbye(&mut running, &why).await;
                return (why, Some(result));
            }
        }
        let reason =
            self.serve_channels(&mut running, (&mut events, &mut arrived), registration, &mut channels).await;
        // What the host listens to ends first: the next connection may ask for the same.
        if let Err(lost) = self.listeners_over().await {
            tracing::error!(session = %self.live.id, %lost, "the end of listeners is not written down");
        }
        // Channels that are told tell their clients.
        self.end.send_replace(Some(reason.as_str().into()));
        let ending = async { while channels.join_next().await.is_some() {} };
        let _ = timeout(FAREWELL, ending).await;
        channels.shutdown().await;
        // And those that were about to begin.
        if let Err(lost) = self.listeners_over().await {
            tracing::error!(session = %self.live.id, %lost, "the end of listeners is not written down");
        }
        if let Some(unused) = self.spare.take() {
            unused.dialling.abort();
        }
        drop(self.kept.take());
        self.goodbye(&mut running, &reason).await;
        (reason, None)
    }

    async fn serve_channels(
        self: &Rc<Self>,
        running: &mut Running,
        (events, arrived): (&mut mpsc::UnboundedReceiver<Event>, &mut mpsc::Receiver<Arrived>),
        registration: &mut Registration,
        channels: &mut JoinSet<()>,
    ) -> String {
        let mut flush = interval(Log::FLUSH_AFTER);
        let mut ended = self.end.subscribe();
        loop {
            self.note_state();
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Opened(opened)) => {
                        channels.spawn_local(channel::serve(Rc::clone(self), opened));
                    }
                    // The client may be gone when it is answered.
                    Some(Event::Forward { what, answer }) => {
                        let session = Rc::clone(self);
                        channels.spawn_local(async move {
                            match session.listen(what).await {
                                Ok(port) => drop(answer.send(port)),
                                Err(lost) => drop(session.lost(&lost).await),
                            }
                        });
                    }
                    Some(Event::Unforward { what, answer }) => {
                        let session = Rc::clone(self);
                        channels.spawn_local(async move {
                            match session.unlisten(&what).await {
                                Ok(was) => drop(answer.send(was)),
                                Err(lost) => drop(session.lost(&lost).await),
                            }
                        });
                    }
                    Some(Event::Authenticated { .. }) => {}
                    None => return "the client left".to_owned(),
                },
                Some(arrived) = arrived.recv() => {
                    channels.spawn_local(channel::arrived(Rc::clone(self), arrived));
                }
                command = registration.commands.recv() => match command {
                    Some(Command::Redecide) => {
                        if let Err(why) = self.redecide() {
                            return why;
                        }
                        if let Err(lost) = self.listeners_redecided().await {
                            return self.lost(&lost).await;
                        }
                    }
                    Some(Command::End(why)) => return why.to_string(),
                    Some(Command::Cancel) | None => {}
                },
                ended = &mut *running => return match ended {
                    Ok(()) => "the client closed the connection".to_owned(),
                    Err(error) => format!("connection to the client: {error}"),
                },
                _ = flush.tick() => {
                    if let Err(lost) = self.log.flush().await {
                        return self.lost(&lost).await;
                    }
                    match self.exceeded() {
                        Ok(None) => {}
                        Ok(Some(why)) => return why,
                        Err(lost) => return self.lost(&lost).await,
                    }
                }
                Some(done) = channels.join_next(), if !channels.is_empty() => {
                    if let Err(error) = done {
                        tracing::error!(%error, session = %self.live.id, "a channel ended by itself");
                    }
                }
                _ = ended.changed() => {
                    let why = ended.borrow().clone();
                    return why.map_or_else(String::new, |why| why.to_string());
                }
            }
        }
    }

    /// Policy changed: the connection is decided again here, and each channel by its own.
    fn redecide(&self) -> Result<(), String> {
        let policy = self.shared().policy.load_full();
        let same = policy
            .policy
            .resource_named(&self.resource.name)
            .is_some_and(|now| now.as_ref() == self.resource.as_ref());
        if !same {
            return Err("the gateway's policy has another host of this name".to_owned());
        }
        if let Err(refused) = self.still(&SshRequest::Connect) {
            return Err(format!("the gateway's policy no longer allows the connection ({})", refused.line()));
        }
        self.epoch.send_modify(|epoch| *epoch += 1);
        Ok(())
    }

    /// What cannot be written down does not happen: the session ends.
    async fn lost(&self, lost: &Lost) -> String {
        let why = format!("refused by builtin:recording-required: {lost}");
        self.log.give_up().await;
        self.end(&why);
        why
    }

    fn end(&self, why: &str) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some(why.into());
            }
            first
        });
    }

    /// Returns when the session is over, with why.
    async fn ended(&self) -> Arc<str> {
        let mut end = self.end.subscribe();
        // The sender lives as long as this.
        match end.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => Arc::default(),
        }
    }

    fn epoch(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// Tells the client why, as far as it listens.
    async fn goodbye(&self, running: &mut Running, why: &str) {
        let telling = async {
            let said =
                self.handle.disconnect(Disconnect::ByApplication, format!("gateway: {why}"), String::new());
            if said.await.is_ok() {
                // Ends when it is sent and the client has closed.
                let _ = running.await;
            }
        };
        let _ = timeout(FAREWELL, telling).await;
    }
}
