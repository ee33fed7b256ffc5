//! Drives one SSH session: the job's connection, and the channels on it.
//!
//! `job` is the server that the job's client meets, `upstream` the client that logs in to the host; `channel` stands between them, one
//! task a channel, and asks (`ask`) before anything reaches the host.

mod algorithms;
mod ask;
mod channel;
mod commands;
mod files;
mod forwards;
mod inner;
mod job;
mod lookup;
mod outlet;
mod upstream;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use policy::{Allow, Bounded, Effect, Host, Permit, Resource, ResourceKind, SshLimits, SshRequest, Verdict};
use russh::{Channel, Disconnect, client, server};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{interval, timeout},
};

use self::{
    ask::{Granted, Refused},
    forwards::{Arrivals, Arrived, Listeners},
    inner::Route,
    job::{Event, Held, Opened, Wanted},
    upstream::{HostError, Upstream},
};
use super::{
    Shared,
    log::Log,
    observer::Lost,
    registry::{Command, Live, Registration, State},
    worker::Worker,
};
use crate::{
    credential::{self, For},
    intercept::Flow,
    telemetry::{FlowResult, Phase},
};

/// How long the last words to a client may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// Channels that may wait for the connection to be decided.
const WAITING: usize = 64;

/// A connection that waits for a channel is used for this long.
const SPARE: Duration = Duration::from_secs(60);

/// A connection to the host whose channel is over, for the next one.
struct Kept {
    since: Instant,
    upstream: Upstream,
}

/// A connection to the host that no channel has asked for yet.
struct Spare {
    since: Instant,
    dialling: JoinHandle<Result<Upstream, HostError>>,
}

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
    let mut running =
        job::serve(stream, keys.host_key(), certificate, sender, held).await.map_err(|e| e.to_string())?;
    tokio::select! {
        event = events.recv() => match event {
            Some(Event::Authenticated { user, client }) => Ok((running, user, client)),
            _ => Err("it left before it was logged in".to_owned()),
        },
        ended = &mut running => Err(match ended {
            Ok(()) => "it left before it was logged in".to_owned(),
            Err(error) => error.to_string(),
        }),
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
        // Channels that are told tell their clients.
        self.end.send_replace(Some(reason.as_str().into()));
        let ending = async { while channels.join_next().await.is_some() {} };
        let _ = timeout(FAREWELL, ending).await;
        channels.shutdown().await;
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

    /// Decides the connection, which may take a human: then the job's first channel is told.
    async fn connect(
        self: &Rc<Self>,
        running: &mut Running,
        events: &mut mpsc::UnboundedReceiver<Event>,
        registration: &mut Registration,
        waiting: &mut Vec<Opened>,
    ) -> Result<(), (String, FlowResult)> {
        let since = Instant::now();
        let policy = self.shared().policy.load_full();
        let verdict = self.decide(&policy.policy, &SshRequest::Connect, None);
        let (verdict, approval) = match &verdict.effect {
            Effect::Approve(_) => {
                let notices = watch::Sender::new(String::new());
                let asked = self.ask(&SshRequest::Connect, &[], |text| {
                    notices.send_modify(|said| said.push_str(&format!("gateway: {text}\n")));
                });
                let holding = self.hold(running, events, registration, waiting, notices.subscribe());
                let answer = tokio::select! {
                    answer = asked => answer.map_err(|lost| (lost.to_string(), FlowResult::Unrecorded))?,
                    why = holding => return Err((why, FlowResult::Abandoned)),
                };
                match answer {
                    Ok(granted) => {
                        let Granted { rules, allow, approval, .. } = granted;
                        (
                            Verdict { effect: Effect::Allow(allow), rules, valid_until: None, ahead: None },
                            approval,
                        )
                    }
                    Err(refused) => return Err((refused.line(), FlowResult::Denied)),
                }
            }
            _ => (verdict, None),
        };
        self.log
            .connect(&self.user, &self.client, &verdict, approval.as_ref(), since.elapsed())
            .await
            .map_err(|lost| (lost.to_string(), FlowResult::Unrecorded))?;
        match verdict.effect {
            Effect::Allow(allow) => {
                self.allowed(allow);
                Ok(())
            }
            Effect::Deny(denial) => {
                Err((Refused::new(&verdict.rules, denial.reason, denial.hint).line(), FlowResult::Denied))
            }
            Effect::Approve(_) => {
                let refused = Refused::new(&verdict.rules, "the approval does not cover this", "");
                Err((refused.line(), FlowResult::Denied))
            }
        }
    }

    /// Keeps what happens while a human decides on the connection, and tells the first channel why it waits. Returns when there is no
    /// connection any more.
    async fn hold(
        &self,
        running: &mut Running,
        events: &mut mpsc::UnboundedReceiver<Event>,
        registration: &mut Registration,
        waiting: &mut Vec<Opened>,
        mut notices: watch::Receiver<String>,
    ) -> String {
        let mut told = 0;
        loop {
            if let Some(first) = waiting.iter_mut().find(|opened| matches!(opened.what, Wanted::Session)) {
                if let Some(reply) = first.reply.take() {
                    reply.accept().await;
                }
                let said = notices.borrow_and_update().get(told..).unwrap_or_default().to_owned();
                told += said.len();
                if !said.is_empty() {
                    // The client may be gone.
                    let _ = self.handle.extended_data(first.channel.id(), 1, said.into_bytes()).await;
                }
            }
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Opened(opened)) if waiting.len() < WAITING => waiting.push(opened),
                    Some(Event::Opened(opened)) => {
                        let reason = "the connection itself still waits for an approval".to_owned();
                        Opened::reject(opened.reply, 4, reason).await;
                    }
                    // Dropping the question answers it.
                    Some(Event::Forward { .. } | Event::Unforward { .. } | Event::Authenticated { .. }) => {}
                    None => return "the client left".to_owned(),
                },
                command = registration.commands.recv() => if let Some(Command::End(why)) = command {
                    return why.to_string();
                },
                Ok(()) = notices.changed() => {}
                _ = &mut *running => return "the client left before the connection was approved".to_owned(),
            }
        }
    }

    /// The connection may be: the host is dialled while the client still asks for its first channel.
    fn allowed(self: &Rc<Self>, allow: Allow) {
        if let Some(ssh) = &allow.obligations.ssh {
            *self.limits.borrow_mut() = ssh.limits.clone();
        }
        *self.permit.borrow_mut() = Some(Rc::new(allow.permit));
        self.prepare();
    }

    /// Dials for a channel that is still to come.
    fn prepare(self: &Rc<Self>) {
        let Some(permit) = self.permit.borrow().clone() else { return };
        let session = Rc::clone(self);
        let dialling = tokio::task::spawn_local(async move { session.dial(&permit, false).await });
        *self.spare.borrow_mut() = Some(Spare { since: Instant::now(), dialling });
    }

    /// A channel for a program, and the connection that it has for itself: that of a program before it, or another.
    async fn program(
        self: &Rc<Self>,
        permit: &Permit,
    ) -> Result<(Upstream, Channel<client::Msg>), HostError> {
        let kept = self.kept.borrow_mut().take();
        if let Some(Kept { upstream, .. }) = kept.filter(|kept| kept.since.elapsed() < SPARE && kept.upstream.is_up())
            // A host may bound how many channels a connection has in its life.
            && let Ok(channel) = upstream.session(permit).await
        {
            return Ok((upstream, channel));
        }
        let upstream = self.upstream(permit).await?;
        let channel = upstream.session(permit).await?;
        Ok((upstream, channel))
    }

    /// A program has ended by itself, and left nothing open on its connection.
    fn keep(&self, upstream: Upstream) {
        *self.kept.borrow_mut() = Some(Kept { since: Instant::now(), upstream });
    }

    /// A connection to the host for one channel. A client that opens channels beside each other opens more: then one is made ahead.
    async fn upstream(self: &Rc<Self>, permit: &Permit) -> Result<Upstream, HostError> {
        let spare = self.spare.borrow_mut().take().filter(|spare| spare.since.elapsed() < SPARE);
        if self.numbers.get() > 1 {
            self.prepare();
        }
        match spare {
            None => self.dial(permit, false).await,
            Some(spare) => match spare.dialling.await {
                Ok(Ok(upstream)) if upstream.is_up() => Ok(upstream),
                Ok(Err(error)) if self.numbers.get() < 2 => Err(error),
                // It did not wait as long as the client did.
                Ok(_) | Err(_) => self.dial(permit, false).await,
            },
        }
    }

    async fn dial(&self, permit: &Permit, forwarding: bool) -> Result<Upstream, HostError> {
        self.dial_with(permit, forwarding, None).await
    }

    /// `arrivals`: told of connections that the host's listeners accept.
    async fn dial_with(
        &self,
        permit: &Permit,
        forwarding: bool,
        arrivals: Option<Arrivals>,
    ) -> Result<Upstream, HostError> {
        let since = Instant::now();
        let whom = For {
            user: &self.user,
            job: self.live.job,
            subject: &self.live.subject,
            session: &self.live.id,
            now: crate::clock::now(),
            terminal: true,
            forwarding,
        };
        let login = credential::ssh_login(permit, &self.resource, &whom).map_err(HostError::Credential)?;
        let patience = self.shared().config.sessions.login_timeout;
        let to =
            upstream::To { resource: &self.resource, address: self.flow.original, login, patience, arrivals };
        let connected = match &self.route {
            None => upstream::connect(permit, to).await?,
            Some(route) => route.connect(permit, to).await?,
        };
        self.log.took(Phase::Connect, since.elapsed());
        Ok(connected)
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

    fn next_channel(&self) -> u64 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    /// Another channel, if there may be one; given back when dropped.
    fn admit_channel(self: &Rc<Self>) -> Result<Counted, Bounded<u32>> {
        let limits = self.limits.borrow();
        match &limits.channels {
            Some(bound) if self.open.get() >= bound.most as usize => Err(bound.clone()),
            _ => Ok(Counted::new(Rc::clone(self), |session| &session.open)),
        }
    }

    /// As long as it lives, a human is asked.
    fn waiting(&self) -> Asking<'_> {
        self.asking.set(self.asking.get() + 1);
        self.note_state();
        Asking(self)
    }

    fn within_rate(&self, granted: &Granted) -> Result<(), Bounded<u32>> {
        let limits = granted.allow.obligations.ssh.as_ref().map(|ssh| ssh.limits.per_minute.as_slice());
        self.shared().budgets.request(self.live.job, limits.unwrap_or_default()).map_err(Bounded::clone)
    }

    fn moved(&self, from_job: u64, to_job: u64) {
        self.bytes.set(self.bytes.get() + from_job + to_job);
        self.last.set(Instant::now());
        self.log.moved(from_job, to_job);
    }

    /// Limits of the connection as a whole, and the host's own on idling.
    fn exceeded(&self) -> Result<Option<String>, Lost> {
        let limits = self.limits.borrow().clone();
        let idle = self.last.get().elapsed();
        let (limit, rule, why) = match () {
            // Who waits for a human is not idle.
            () if self.asking.get() == 0 && limits.idle.as_ref().is_some_and(|bound| idle >= bound.most) => {
                ("idle", limits.idle.map(|bound| bound.rule), "idle for too long")
            }
            () if limits.duration.as_ref().is_some_and(|bound| self.began.elapsed() >= bound.most) => {
                ("duration", limits.duration.map(|bound| bound.rule), "open for too long")
            }
            () if limits.bytes.as_ref().is_some_and(|bound| self.bytes.get() > bound.most) => {
                ("bytes", limits.bytes.map(|bound| bound.rule), "too many bytes")
            }
            () => {
                let own = self.shared().config.sessions.idle_timeout;
                let idles = self.open.get() == 0 && own.is_some_and(|limit| idle >= limit);
                return Ok(idles.then(|| "idle for longer than the gateway allows".to_owned()));
            }
        };
        let rule = rule.unwrap_or_default();
        self.log.limit_exceeded(limit, &rule, why)?;
        Ok(Some(format!("ended by policy rule {rule}: {why}")))
    }

    fn note_state(&self) {
        self.live.state.set(match (self.asking.get(), self.open.get()) {
            (0, 0) => State::Idle,
            (0, _) => State::Active,
            _ => State::AwaitingApproval,
        });
    }
}

/// One of something that is counted.
struct Counted {
    session: Rc<Session>,
    what: fn(&Session) -> &Cell<usize>,
}

impl Counted {
    fn new(session: Rc<Session>, what: fn(&Session) -> &Cell<usize>) -> Self {
        what(&session).set(what(&session).get() + 1);
        Self { session, what }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let count = (self.what)(&self.session);
        count.set(count.get().saturating_sub(1));
    }
}

struct Asking<'a>(&'a Session);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asking.set(self.0.asking.get().saturating_sub(1));
        self.0.note_state();
    }
}
