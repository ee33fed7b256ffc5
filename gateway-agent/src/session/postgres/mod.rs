//! Drives one PostgreSQL session: moves bytes, takes decisions, logs in upstream.

mod ask;
mod gates;
mod login;
mod watch;

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use policy::{ColumnMasks, Policy, Resource};
use protocol::{
    CloseReason, Leg, Step,
    postgres::{Refusal, Session, Settings},
    sniff::{Sniffed, sniff},
};
use tokio::{
    net::TcpStream,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use self::{
    ask::{Answered, Waiting},
    gates::Passed,
    watch::{Look, Watch},
};
use super::{
    legs::{self, Moved, Pipe},
    observer::{Lost, Observer},
    registry::{Command, Registration, State},
    scope::Decisions,
    side::Side,
    stream::Stream,
    worker::Worker,
};
use crate::{intercept::Flow, telemetry::FlowResult, upstream};

/// How long the last words to a client may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves one connection to its end.
pub async fn serve(
    worker: Rc<Worker>,
    flow: Flow,
    resource: Arc<Resource>,
    registration: Registration,
    tcp: TcpStream,
) {
    let mut observer = Observer::new(&worker.shared, Arc::clone(&registration.live), &resource);
    let opening = Driver::open(&worker, &flow, &resource, tcp);
    let reason = match timeout(worker.shared.config.sessions.login_timeout, opening).await {
        Err(_) => {
            observer.flow(FlowResult::Timeout);
            "the client sent nothing before the login timeout".to_owned()
        }
        Ok(Err(reason)) => {
            observer.flow(FlowResult::Protocol);
            reason
        }
        Ok(Ok((session, job))) => {
            let mut driver = Driver::new(worker, flow, resource, registration, observer, session, job);
            let reason = driver.run().await;
            if !driver.logged_in {
                driver.observer.flow(driver.result);
            }
            observer = driver.observer;
            reason
        }
    };
    observer.closed(&reason).await;
}

struct Driver {
    worker: Rc<Worker>,
    flow: Flow,
    resource: Arc<Resource>,
    registration: Registration,
    observer: Observer,
    session: Session,
    job: Pipe,
    upstream: Option<Pipe>,
    decisions: Option<Rc<Decisions>>,
    epoch: u64,
    /// The policy that this session was last decided by.
    followed: Arc<Policy>,
    waiting: Waiting,
    /// A limit that people agreed to go beyond.
    passed: Option<Passed>,
    /// Asks for estimates, with the login of this session.
    estimator: Option<Rc<Side>>,
    /// Asks who blocks whom, with the gateway's own login.
    prober: Option<Rc<Side>>,
    /// Looks after what runs long.
    watch: Watch,
    /// Names were changed here, and may not be committed yet.
    changed_names: bool,
    /// What was masked when this session first defined something. Views of its own, which others do not see, show since then
    /// what was not masked.
    defined_under: Option<Option<Arc<ColumnMasks>>>,
    cancelling: Option<Cancelling>,
    /// Login has to be over by then; afterwards the session may idle until then.
    deadline: Option<Pin<Box<Sleep>>>,
    /// When batched records are due.
    tick: Pin<Box<Sleep>>,
    logged_in: bool,
    since_login: Option<Instant>,
    /// What became of the flow, should it end before login.
    result: FlowResult,
    /// Bytes from and to the job that metrics know of.
    counted: (u64, u64),
    last_activity: Instant,
}

/// A cancel request on its way upstream.
struct Cancelling {
    done: Pin<Box<dyn Future<Output = ()>>>,
    /// The session holds back everything until it is done.
    awaited: bool,
}

enum Wake {
    Moved(Moved),
    Command(Command),
    Answered(Answered),
    Cancelled,
    Deadline,
    Tick,
    Look(Look),
}

impl Driver {
    /// Confirms the protocol and, for clients that start so, ends TLS.
    async fn open(
        worker: &Worker,
        flow: &Flow,
        resource: &Arc<Resource>,
        tcp: TcpStream,
    ) -> Result<(Session, Pipe), String> {
        let shared = &worker.shared;
        let key = worker.new_key().map_err(|error| error.to_string())?;
        let mut session =
            Session::new(Settings { sql_max: shared.config.sessions.sql_max_bytes, ..Settings::new(key) });
        let mut stream = Stream::Plain(tcp);
        match peek(&stream).await.map_err(|error| format!("before the first message: {error}"))? {
            Sniffed::Postgres => {}
            Sniffed::Tls => {
                stream = accept_tls(worker, resource, flow.original, stream).await?;
                // As the server wants it: bytes meant for another protocol are not to be taken for this one's.
                if stream.job_protocol() != Some(b"postgresql") {
                    return Err("a direct TLS connection without ALPN `postgresql`".to_owned());
                }
                session.tls_started(Leg::Job, None);
            }
            Sniffed::More | Sniffed::Http | Sniffed::Other => {
                return Err("the client does not speak PostgreSQL, which this destination is for".to_owned());
            }
        }
        Ok((session, Pipe::new(stream)))
    }

    fn new(
        worker: Rc<Worker>,
        flow: Flow,
        resource: Arc<Resource>,
        registration: Registration,
        observer: Observer,
        session: Session,
        job: Pipe,
    ) -> Self {
        let deadline = Some(Box::pin(sleep(worker.shared.config.sessions.login_timeout)));
        Self {
            followed: Arc::clone(&worker.shared.policy.load().policy),
            worker,
            flow,
            resource,
            registration,
            observer,
            session,
            job,
            upstream: None,
            decisions: None,
            epoch: 0,
            waiting: Waiting::Nothing,
            passed: None,
            estimator: None,
            prober: None,
            watch: Watch::default(),
            changed_names: false,
            defined_under: None,
            cancelling: None,
            deadline,
            tick: Box::pin(sleep(Duration::ZERO)),
            logged_in: false,
            since_login: None,
            result: FlowResult::Abandoned,
            counted: (0, 0),
            last_activity: Instant::now(),
        }
    }

    /// Until the session ends; says why it did.
    async fn run(&mut self) -> String {
        loop {
            self.follow_policy();
            self.follow_epoch();
            let step = self.session.step();
            if let Err(lost) = self.record().await {
                self.end_unrecorded(&lost);
                continue;
            }
            match step {
                Step::Need => {}
                Step::Ask => {
                    self.ask();
                    continue;
                }
                Step::Login => {
                    self.login().await;
                    continue;
                }
                Step::StartTls(leg) => {
                    if let Err(reason) = self.start_tls(leg).await {
                        return reason;
                    }
                    continue;
                }
                Step::Cancel => {
                    self.result = FlowResult::Cancel;
                    return self.pass_cancel_on();
                }
                Step::Close(reason) => {
                    self.result = match reason {
                        CloseReason::Job(_) => FlowResult::Protocol,
                        CloseReason::Upstream(_)
                        | CloseReason::LoginFailed { .. }
                        | CloseReason::UpstreamGone => FlowResult::Upstream,
                        CloseReason::Ended | CloseReason::Refused => self.result,
                    };
                    self.farewell().await;
                    return reason.to_string();
                }
            }
            self.note_login();
            self.drop_overtaken();
            if self.session.take_cancel() {
                self.cancel_upstream(true);
            }
            let wake = poll_fn(|cx| self.poll(cx)).await;
            if let Some(reason) = self.react(wake).await {
                return reason;
            }
        }
    }

    /// What happens next. Sockets come last: they are ready most often.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if let Poll::Ready(Some(command)) = self.registration.commands.poll_recv(cx) {
            return Poll::Ready(Wake::Command(command));
        }
        if let Poll::Ready(answered) = self.waiting.poll(cx) {
            return Poll::Ready(Wake::Answered(answered));
        }
        if let Some(cancelling) = &mut self.cancelling
            && cancelling.done.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Wake::Cancelled);
        }
        if let Poll::Ready(moved) = legs::poll(cx, &mut self.session, &mut self.job, self.upstream.as_mut()) {
            return Poll::Ready(Wake::Moved(moved));
        }
        if self.observer.dirty() && self.tick.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Wake::Tick);
        }
        if let Poll::Ready(look) = self.watch.poll(cx) {
            return Poll::Ready(Wake::Look(look));
        }
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(cx).map(|()| Wake::Deadline),
            None => Poll::Pending,
        }
    }

    /// A text means that the session is over.
    async fn react(&mut self, wake: Wake) -> Option<String> {
        match wake {
            Wake::Moved(Moved::Bytes) => self.last_activity_now(),
            Wake::Moved(Moved::Eof(Leg::Job)) => {
                return self.abandon("the client closed the connection").await;
            }
            Wake::Moved(Moved::Failed(Leg::Job, error)) => {
                return self.abandon(&format!("connection to the client: {error}")).await;
            }
            Wake::Moved(Moved::Eof(Leg::Upstream) | Moved::Failed(Leg::Upstream, _)) => {
                self.upstream = None;
                self.session.upstream_gone();
            }
            Wake::Command(Command::Redecide) => self.redecide(),
            Wake::Command(Command::End(why)) => {
                self.waiting = Waiting::Nothing;
                self.stop_backend();
                self.session.terminate(&Refusal {
                    sqlstate: "57P01",
                    message: format!("terminating connection: {why}"),
                    detail: None,
                    hint: None,
                });
            }
            Wake::Command(Command::Cancel) => self.cancel(),
            Wake::Answered(answered) => self.answered(answered),
            Wake::Cancelled => {
                if self.cancelling.take().is_some_and(|c| c.awaited) {
                    self.session.cancel_done();
                }
            }
            Wake::Deadline => self.deadline_passed(),
            Wake::Tick => {
                if let Err(lost) = self.observer.flush() {
                    self.end_unrecorded(&lost);
                }
            }
            Wake::Look(look) => self.look(look),
        }
        None
    }

    /// Hands what happened to recording and audit. What it tells of is still in the outputs: when this fails,
    /// it never leaves.
    async fn record(&mut self) -> Result<(), Lost> {
        let was_dirty = self.observer.dirty();
        let mut events = self.session.events();
        while let Some(event) = events.next() {
            if self.observer.event(&event)?
                && let Some(decisions) = &self.decisions
            {
                self.worker.catalogue_changed(decisions);
                self.changed_names = true;
                let scope = decisions.scope();
                self.defined_under
                    .get_or_insert_with(|| scope.policy.column_masks(&scope.subject, &scope.resource));
            }
        }
        drop(events);
        self.watch.follow(self.observer.front());
        self.observer.settle().await?;
        if !was_dirty && self.observer.dirty() {
            let due = tokio::time::Instant::now() + Observer::FLUSH_AFTER;
            self.tick.as_mut().reset(due);
        }
        Ok(())
    }

    /// An action that cannot be recorded does not happen: what was about to be sent upstream is dropped with
    /// the connection.
    fn end_unrecorded(&mut self, lost: &Lost) {
        if self.upstream.take().is_some() {
            self.session.upstream_gone();
        }
        self.waiting = Waiting::Nothing;
        self.observer.give_up();
        self.session.terminate(&Refusal {
            sqlstate: "58030",
            message: format!("refused by builtin:recording-required: {lost}"),
            detail: None,
            hint: Some(
                "Nothing runs here that cannot be recorded. Tell the operators of the gateway.".to_owned(),
            ),
        });
    }

    /// What arrives after a policy came into force is decided by it, whether this session has been told or not.
    fn follow_policy(&mut self) {
        let in_force = self.worker.shared.policy.load();
        if !Arc::ptr_eq(&self.followed, &in_force.policy) {
            self.followed = Arc::clone(&in_force.policy);
            self.redecide();
        }
    }

    fn follow_epoch(&mut self) {
        if let Some(decisions) = &self.decisions
            && decisions.epoch() != self.epoch
        {
            self.epoch = decisions.epoch();
            self.session.set_epoch(self.epoch);
        }
    }

    fn note_login(&mut self) {
        if self.logged_in {
            let state = match (&self.waiting, self.session.idle()) {
                (Waiting::Human(_), _) => State::AwaitingApproval,
                (_, true) => State::Idle,
                (_, false) => State::Active,
            };
            self.registration.live.state.set(state);
            return;
        }
        if let Some(key) = self.session.job_key() {
            self.registration.set_cancel_key(key.clone());
            self.logged_in = true;
            self.since_login = Some(Instant::now());
            let backend = self.session.upstream_key().map_or(0, |key| key.pid);
            self.registration.live.backend.store(backend, Ordering::Relaxed);
            self.observer.logged_in();
            self.deadline = self.worker.shared.config.sessions.idle_timeout.map(|t| Box::pin(sleep(t)));
        }
    }

    fn last_activity_now(&mut self) {
        let (from, to) = (self.job.bytes_in, self.job.bytes_out);
        self.observer.transferred(from - self.counted.0, to - self.counted.1);
        self.counted = (from, to);
        let live = &self.registration.live;
        live.bytes_in.store(self.job.bytes_in, Ordering::Relaxed);
        live.bytes_out.store(self.job.bytes_out, Ordering::Relaxed);
        if self.deadline.is_some() {
            self.last_activity = Instant::now();
        }
    }

    fn deadline_passed(&mut self) {
        let shared = &self.worker.shared;
        if !self.logged_in {
            self.deadline = None;
            self.result = FlowResult::Timeout;
            self.session.refuse(&Refusal {
                sqlstate: "57014",
                message: "login through the gateway took too long".to_owned(),
                detail: None,
                hint: Some("Is the database reachable from the gateway's host?".to_owned()),
            });
            return;
        }
        let Some(limit) = shared.config.sessions.idle_timeout else {
            self.deadline = None;
            return;
        };
        let idle = self.last_activity.elapsed();
        if idle < limit || !self.session.idle() {
            let rest = limit.saturating_sub(idle).max(Duration::from_secs(1));
            self.deadline = Some(Box::pin(sleep(rest)));
            return;
        }
        self.deadline = None;
        self.session.terminate(&Refusal {
            sqlstate: "57P05",
            message: "terminating connection: idle for longer than the gateway allows".to_owned(),
            detail: None,
            hint: None,
        });
    }

    async fn start_tls(&mut self, leg: Leg) -> Result<(), String> {
        match leg {
            Leg::Job => {
                legs::flush(&mut self.job, self.session.job_out()).await.map_err(|e| e.to_string())?;
                let stream = self.job.take_stream().ok_or("the client is gone")?;
                let accepting = accept_tls(&self.worker, &self.resource, self.flow.original, stream);
                let stream = timeout(self.worker.shared.config.sessions.login_timeout, accepting)
                    .await
                    .map_err(|_| "TLS with the client timed out".to_owned())??;
                self.job.restore(stream);
                self.session.tls_started(Leg::Job, None);
            }
            Leg::Upstream => {
                let pipe = self.upstream.as_mut().ok_or("TLS upstream without a connection")?;
                legs::flush(pipe, self.session.up_out()).await.map_err(|e| e.to_string())?;
                let stream = pipe.take_stream().ok_or("the server is gone")?;
                let connecting =
                    upstream::start_tls(&self.worker.shared.tls, &self.resource, self.flow.original, stream);
                match timeout(self.worker.shared.config.sessions.login_timeout, connecting).await {
                    Ok(Ok((stream, end_point))) => {
                        pipe.restore(stream);
                        self.session.tls_started(Leg::Upstream, end_point);
                    }
                    Ok(Err(error)) => self.refuse_upstream(&error.to_string()),
                    Err(_) => self.refuse_upstream("TLS handshake timed out"),
                }
            }
        }
        Ok(())
    }

    /// The client learns that the server cannot be used, the operator why.
    fn refuse_upstream(&mut self, why: &str) {
        self.upstream = None;
        self.result = FlowResult::Upstream;
        self.observer.upstream_failed(why);
        self.session.refuse(&Refusal {
            sqlstate: "08001",
            message: format!("the gateway cannot connect to resource {}: {why}", self.resource.name),
            detail: None,
            hint: Some(
                "Ask the operators of the gateway to check the resource's tls and login settings.".to_owned(),
            ),
        });
    }

    /// This connection only carries a cancel key; tells the session that it belongs to.
    fn pass_cancel_on(&mut self) -> String {
        let found = self
            .session
            .cancel_key()
            .is_some_and(|key| self.worker.shared.registry.cancel(self.flow.job, key));
        match found {
            true => "cancel request passed on".to_owned(),
            false => "cancel request for no session of this job".to_owned(),
        }
    }

    /// The client asked, on another connection, to stop what runs.
    fn cancel(&mut self) {
        if self.waiting.may_be_cancelled() {
            self.waiting = Waiting::Nothing;
            self.session.deny(&Refusal {
                sqlstate: "57014",
                message: "canceling statement due to user request".to_owned(),
                detail: None,
                hint: None,
            });
        } else if self.cancelling.is_none() {
            self.cancel_upstream(false);
        }
    }

    fn cancel_upstream(&mut self, awaited: bool) {
        let Some(key) = self.session.upstream_key() else {
            if awaited {
                self.session.cancel_done();
            }
            return;
        };
        let sending = upstream::cancel(
            Arc::clone(&self.worker.shared.tls),
            Arc::clone(&self.resource),
            self.flow.original,
            key.request(),
        );
        self.cancelling = Some(Cancelling { done: Box::pin(sending), awaited });
    }

    /// Nothing of a session that is ended goes on running: the statement is cancelled, and should that not be enough,
    /// its backend is ended.
    fn stop_backend(&mut self) {
        let (true, false, Some(key)) = (self.logged_in, self.session.idle(), self.session.upstream_key())
        else {
            return;
        };
        let cancelling = upstream::cancel(
            Arc::clone(&self.worker.shared.tls),
            Arc::clone(&self.resource),
            self.flow.original,
            key.request(),
        );
        let (pid, side, decisions) = (key.pid, self.prober.clone(), self.decisions.clone());
        // Measured from the login's end: a backend that takes the number over is younger by all that has passed.
        let age = self.since_login.map(|since| since.elapsed()).unwrap_or_default();
        tokio::task::spawn_local(async move {
            cancelling.await;
            if let (Some(side), Some(decisions)) = (side, decisions)
                && let Err(error) = side.terminate(&decisions.permit, pid, age).await
            {
                tracing::warn!(%error, pid, "a backend whose session has ended could not be ended");
            }
        });
    }

    /// The client is gone: what it left running is cancelled.
    async fn abandon(&mut self, reason: &str) -> Option<String> {
        self.cancel_running();
        Some(reason.to_owned())
    }

    /// The server would notice the end of the connection only when it next writes to it.
    fn cancel_running(&mut self) {
        if self.logged_in && !self.session.idle() && self.upstream.is_some() {
            self.cancel_upstream(false);
            if let Some(cancelling) = self.cancelling.take() {
                tokio::task::spawn_local(cancelling.done);
            }
        }
    }

    async fn farewell(&mut self) {
        let job = legs::flush(&mut self.job, self.session.job_out());
        // A client that does not read its last message misses it.
        let _ = timeout(FAREWELL, job).await;
        if let Some(upstream) = &mut self.upstream {
            let _ = timeout(FAREWELL, legs::flush(upstream, self.session.up_out())).await;
        }
        self.job.shutdown(FAREWELL).await;
    }
}

async fn accept_tls(
    worker: &Worker,
    resource: &Resource,
    dialled: SocketAddr,
    stream: Stream,
) -> Result<Stream, String> {
    let config = worker.shared.tls.job_config(resource, dialled).map_err(|error| error.to_string())?;
    stream
        .accept_tls(TlsAcceptor::from(config))
        .await
        .map_err(|error| format!("TLS with the client: {error}"))
}

/// Looks at the first bytes without taking them.
async fn peek(stream: &Stream) -> io::Result<Sniffed> {
    let Stream::Plain(tcp) = stream else { return Ok(Sniffed::Other) };
    let mut first = [0; 16];
    let mut seen = 0;
    loop {
        tcp.readable().await?;
        let n = tcp.peek(&mut first).await?;
        match sniff(first.get(..n).unwrap_or_default()) {
            Sniffed::More if n > seen => seen = n,
            // The peer closed, or dribbles: peeking cannot wait for more bytes than there are.
            Sniffed::More if n == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Sniffed::More => sleep(Duration::from_millis(5)).await,
            found => return Ok(found),
        }
    }
}
