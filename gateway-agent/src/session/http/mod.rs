//! Drives one connection that is called by HTTP: HTTP/1.1 or HTTP/2 towards the job and towards the host, both hyper's.
//!
//! `accept` finds out what the connection is to and ends TLS; `request` answers one request, `exchange` carries an allowed one to the
//! host and its response back, `upstream` keeps connections to the host, `body` and `upgrade` move bytes. What is particular to each
//! kind of resource is in `kind`.

mod accept;
mod ask;
mod body;
mod cluster;
mod exchange;
mod kind;
mod pass;
mod pump;
mod refusal;
mod request;
mod upgrade;
mod upstream;

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use hyper::{Request, Response, body::Incoming, rt::Executor};
use hyper_util::rt::{TokioIo, TokioTimer};
use policy::{Resource, Scheme};
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    time::{Instant, interval, sleep_until, timeout},
};

use self::{accept::Accepted, body::ToJob, kind::Kind, upstream::Pool};
use super::{
    Shared,
    log::Log,
    observer::Lost,
    registry::{Command, Live, Registration, State},
    stream::Stream,
    worker::Worker,
};
use crate::{intercept::Flow, telemetry::FlowResult};

/// How long requests that are under way may take when the session ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// Header fields of one message, and their bytes together.
const FIELDS: usize = 128;
const HEAD: usize = 64 * 1024;
/// Requests at once on one connection of HTTP/2.
const STREAMS: u32 = 256;
/// What waits to be sent on each of them, at most.
const WAITING: usize = 64 * 1024;
/// Bytes of a request that a connection takes before somebody reads them: for each stream, and together.
const STREAM_WINDOW: u32 = 256 * 1024;
const WINDOW: u32 = 1024 * 1024;
/// A connection without a request is closed after this.
const IDLE: Duration = Duration::from_secs(300);

/// What the requests of one connection share.
struct Session {
    worker: Rc<Worker>,
    flow: Flow,
    /// Known from the beginning where there is TLS, else from the first request on.
    resource: RefCell<Arc<Resource>>,
    scheme: Scheme,
    /// What the connection is to. `None` without TLS: each request names it.
    name: Option<String>,
    live: Arc<Live>,
    log: Rc<Log>,
    pool: Pool,
    /// Requests that are under way, and those that wait for a human.
    active: Cell<usize>,
    asking: Cell<usize>,
    /// A request has ended.
    settled: Notify,
    /// Why the session is over.
    end: watch::Sender<Option<Arc<str>>>,
    /// Counts changes of policy.
    epoch: watch::Sender<u64>,
    secrets: RefCell<request::Secrets>,
    /// Without TLS: a request has said what the connection is to.
    bound: Cell<bool>,
}

/// Serves one connection to its end.
pub async fn serve(
    worker: Rc<Worker>,
    flow: Flow,
    resource: Arc<Resource>,
    mut registration: Registration,
    tcp: TcpStream,
) {
    let log = Rc::new(Log::new(&worker.shared, Arc::clone(&registration.live), resource.kind(), None));
    let patience = worker.shared.config.sessions.login_timeout;
    let subject = Arc::clone(&registration.live.subject);
    let reason = match timeout(patience, accept::accept(&worker, &flow, &resource, &subject, tcp)).await {
        Err(_) => {
            log.flow(FlowResult::Timeout);
            "the client sent nothing before the login timeout".to_owned()
        }
        Ok(Err(refused)) => {
            log.flow(refused.result());
            let said = super::log::Said { kind: "connect", text: &refused.about() };
            let rules = [refused.rule()];
            // The connection is over, whether this can be written or not.
            let _ = log.denied(said, &rules, &refused.to_string(), Duration::ZERO).await;
            refused.to_string()
        }
        Ok(Ok(Accepted::PassThrough(passing))) => {
            pass::serve(&worker, &flow, passing, &mut registration, &log).await
        }
        Ok(Ok(Accepted::Ended { stream, resource, name })) => {
            registration.live.set_resource(&resource.name);
            let session = Rc::new(Session::new(worker, flow, resource, name, &registration, Rc::clone(&log)));
            session.run(stream, &mut registration).await
        }
    };
    log.closed(&reason).await;
}

impl Session {
    fn new(
        worker: Rc<Worker>,
        flow: Flow,
        resource: Arc<Resource>,
        name: Option<String>,
        registration: &Registration,
        log: Rc<Log>,
    ) -> Self {
        Self {
            worker,
            flow,
            resource: RefCell::new(resource),
            scheme: if name.is_some() { Scheme::Https } else { Scheme::Http },
            name,
            live: Arc::clone(&registration.live),
            log,
            pool: Pool::default(),
            active: Cell::new(0),
            asking: Cell::new(0),
            settled: Notify::new(),
            end: watch::Sender::new(None),
            epoch: watch::Sender::new(0),
            secrets: RefCell::default(),
            bound: Cell::new(false),
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.worker.shared
    }

    fn resource(&self) -> Arc<Resource> {
        Arc::clone(&self.resource.borrow())
    }

    fn kind(&self) -> Kind {
        Kind::of(&self.resource.borrow())
    }

    /// Until the session ends: why it did.
    async fn run(self: &Rc<Self>, stream: Stream, registration: &mut Registration) -> String {
        let host = self.name.clone().unwrap_or_default();
        // Set once: a session begins once.
        let _ = self.live.login.set((String::new(), host.clone()));
        let h2 = stream.job_protocol() == Some(b"h2");
        let client = match (self.scheme, h2) {
            (Scheme::Http, _) => "HTTP/1.1 without TLS",
            (Scheme::Https, false) => "HTTP/1.1",
            (Scheme::Https, true) => "HTTP/2",
        };
        if let Err(lost) = self.log.opened(&host, client).await {
            self.log.flow(FlowResult::Unrecorded);
            return lost.to_string();
        }
        self.log.flow(FlowResult::Opened);
        let mut serving = Serving::new(self, stream, h2);
        let reason = self.watch(&mut serving, registration).await;
        self.end(&reason);
        serving.finish();
        let ending = async {
            serving.until_over().await;
            self.settle().await;
        };
        let _ = timeout(FAREWELL, ending).await;
        reason
    }

    async fn watch(&self, serving: &mut Serving, registration: &mut Registration) -> String {
        let mut flush = interval(Log::FLUSH_AFTER);
        let mut ended = self.end.subscribe();
        let mut busy = Instant::now();
        loop {
            self.note_state();
            if self.active.get() > 0 {
                busy = Instant::now();
            } else if serving.over {
                return "the client closed the connection".to_owned();
            }
            tokio::select! {
                // What was upgraded goes on.
                result = serving.run(), if !serving.over => if let Err(error) = result {
                    return format!("connection to the client: {error}");
                },
                () = self.settled.notified() => {}
                command = registration.commands.recv() => match command {
                    Some(Command::Redecide) => if let Err(why) = self.redecide() {
                        return why;
                    },
                    Some(Command::End(why)) => return why.to_string(),
                    Some(Command::Cancel) | None => {}
                },
                _ = flush.tick() => if let Err(lost) = self.log.flush().await {
                    return self.lost(&lost).await;
                },
                () = sleep_until(busy + IDLE), if self.active.get() == 0 => {
                    return "no request for five minutes".to_owned();
                }
                _ = ended.changed() => {
                    let why = ended.borrow().clone();
                    return why.map_or_else(String::new, |why| why.to_string());
                }
            }
        }
    }

    /// Policy changed: the host has to be the same, and requests that are under way are decided again.
    fn redecide(&self) -> Result<(), String> {
        let policy = self.shared().policy.load();
        let resource = self.resource.borrow();
        let same = policy.policy.resource_named(&resource.name).is_some_and(|now| **now == **resource);
        if !same {
            return Err("the gateway's policy has another host of this name".to_owned());
        }
        self.epoch.send_modify(|epoch| *epoch = epoch.wrapping_add(1));
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

    async fn settle(&self) {
        while self.active.get() > 0 {
            self.settled.notified().await;
        }
    }

    fn note_state(&self) {
        self.live.state.set(match (self.asking.get(), self.active.get()) {
            (0, 0) => State::Idle,
            (0, _) => State::Active,
            _ => State::AwaitingApproval,
        });
    }

    /// Counts a request as under way until the answer is dropped.
    fn busy(self: &Rc<Self>) -> Busy {
        self.active.set(self.active.get().saturating_add(1));
        self.note_state();
        Busy(Rc::clone(self))
    }
}

/// A request that is under way.
struct Busy(Rc<Session>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
        self.0.note_state();
        self.0.settled.notify_one();
    }
}

/// Tasks of a connection stay on its worker.
#[derive(Debug, Clone, Copy)]
struct Here;

impl<F: Future + 'static> Executor<F> for Here
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

#[derive(Clone)]
struct Service(Rc<Session>);

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<ToJob>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<ToJob>, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let session = Rc::clone(&self.0);
        Box::pin(async move { Ok(request::answer(session, request).await) })
    }
}

/// The server that the job's client meets.
struct Serving {
    connection: Connection,
    /// It has ended, and is not to be polled again.
    over: bool,
}

enum Connection {
    One(Pin<Box<hyper::server::conn::http1::UpgradeableConnection<TokioIo<Stream>, Service>>>),
    Two(Pin<Box<hyper::server::conn::http2::Connection<TokioIo<Stream>, Service, Here>>>),
}

impl Serving {
    fn new(session: &Rc<Session>, stream: Stream, h2: bool) -> Self {
        let (io, service) = (TokioIo::new(stream), Service(Rc::clone(session)));
        if h2 {
            let mut builder = hyper::server::conn::http2::Builder::new(Here);
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .max_send_buf_size(WAITING)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(WINDOW)
                .max_header_list_size(u32::try_from(HEAD).unwrap_or(u32::MAX))
                .keep_alive_interval(Duration::from_secs(60));
            let connection = Connection::Two(Box::pin(builder.serve_connection(io, service)));
            return Self { connection, over: false };
        }
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).max_headers(FIELDS).max_buf_size(HEAD).header_read_timeout(IDLE);
        let connection = Connection::One(Box::pin(builder.serve_connection(io, service).with_upgrades()));
        Self { connection, over: false }
    }

    async fn run(&mut self) -> Result<(), hyper::Error> {
        let result = match &mut self.connection {
            Connection::One(connection) => connection.as_mut().await,
            Connection::Two(connection) => connection.as_mut().await,
        };
        self.over = true;
        result
    }

    /// Takes no more requests.
    fn finish(&mut self) {
        match &mut self.connection {
            _ if self.over => {}
            Connection::One(connection) => connection.as_mut().graceful_shutdown(),
            Connection::Two(connection) => connection.as_mut().graceful_shutdown(),
        }
    }

    async fn until_over(&mut self) {
        if !self.over {
            // Whatever is wrong with a connection that ends, it ends.
            let _ = self.run().await;
        }
    }
}
