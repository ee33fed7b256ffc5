//! One channel of a job: what it asks for is decided, carried out on a connection of its own to the host, recorded, masked, and ended.

use std::{collections::VecDeque, future::Future, pin::pin, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use policy::{Permit, Recording, Route, SshRequest};
use protocol::ssh::{
    scp::Scp,
    sftp::{Room, Sftp},
};
use record::Event as Recorded;
use russh::{ChannelMsg, Sig};
use tokio::{sync::mpsc, time::sleep};

use super::{
    Session,
    ask::{Answer, Granted, Refused, text},
    commands,
    files::{Machine, Operations},
    job::{Message, Opened, Terminal, Wanted},
    lookup::Lookup,
    outlet::{self, Outlet, ToJob},
    upstream::{HostError, Upstream},
};
use crate::session::{
    log::{Ended, Running, Said},
    observer::Lost,
};

mod arrived;
mod bounds;
mod inner;
mod masks;
mod relay;

pub(super) use self::arrived::arrived;
use self::{
    bounds::Bounds,
    masks::{Masks, moves_files},
    relay::{Ends, Outcome, Relay},
};

/// Exit statuses of a program that never ran: refused, and not to be had.
const REFUSED: u32 = 126;
const UNAVAILABLE: u32 = 255;
/// Messages that a host may send before it says that a program began.
const EARLY: usize = 64;
/// How long the last bytes to a job may take when the channel is ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a channel is over, where it is not by itself.
enum Over {
    /// The job closed it, or is gone.
    Job,
    /// What happened cannot be written down.
    Lost(Lost),
    /// A side does not keep to its protocol.
    Broken(String),
}

impl From<Lost> for Over {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

struct Channel {
    session: Rc<Session>,
    number: u64,
    inbox: mpsc::UnboundedReceiver<Message>,
    /// Taken from the inbox while something else was waited for.
    early: VecDeque<Message>,
    job: Rc<Outlet<ToJob>>,
    terminal: Option<Terminal>,
    environment: Vec<(String, String)>,
}

/// Serves a channel to its end.
pub(super) async fn serve(session: Rc<Session>, opened: Opened) {
    let Opened { what, channel, reply, inbox } = opened;
    let number = session.next_channel();
    let (_, half) = channel.split();
    let open = match session.admit_channel() {
        Ok(open) => open,
        Err(bounded) => {
            let reason = format!("denied by policy rule {}: {} channels at once", bounded.rule, bounded.most);
            return Opened::reject(reply, 4, reason).await;
        }
    };
    let handle = session.handle.clone();
    let mut channel = Channel {
        session: Rc::clone(&session),
        number,
        inbox,
        early: VecDeque::new(),
        job: Rc::new(outlet::to_job(half, handle)),
        terminal: None,
        environment: Vec::new(),
    };
    let done = match what {
        Wanted::Session => {
            if let Some(reply) = reply {
                reply.accept().await;
            }
            channel.programs().await
        }
        Wanted::DirectTcpip { host, port } => {
            let port = u16::try_from(port).unwrap_or_default();
            match session.declared(&host, port) {
                Some(destination) => Box::pin(channel.inner(destination, host, port, reply)).await,
                None => Box::pin(channel.tunnel(SshRequest::DirectTcpip { host, port }, reply)).await,
            }
        }
        Wanted::DirectStreamlocal { path } => {
            Box::pin(channel.tunnel(SshRequest::DirectStreamlocal { path }, reply)).await
        }
    };
    if let Err(Over::Lost(lost)) = done {
        session.lost(&lost).await;
    }
    drop(open);
}

impl Channel {
    /// A session channel: settings, then one program.
    async fn programs(&mut self) -> Result<(), Over> {
        loop {
            let ending = Rc::clone(&self.session);
            let message = tokio::select! {
                message = self.inbox.recv() => message.ok_or(Over::Job)?,
                why = ending.ended() => return self.farewell(&why).await,
            };
            match message {
                Message::Pty(terminal, answer) => {
                    let allowed = self.terminal(terminal).await?;
                    // The client may be gone.
                    let _ = answer.send(allowed);
                }
                Message::Env { name, value, answer } => {
                    let request = SshRequest::Env { name: name.clone(), value: value.clone() };
                    let answered = self.session.ask_now(&request).await?;
                    if let Ok(granted) = &answered {
                        self.session.granted(&request, granted)?;
                        self.environment.push((name, value));
                    }
                    let _ = answer.send(answered.is_ok());
                }
                Message::Agent(answer) => {
                    self.forwarding(&SshRequest::AgentForwarding).await?;
                    let _ = answer.send(false);
                }
                Message::X11(answer) => {
                    self.forwarding(&SshRequest::X11).await?;
                    let _ = answer.send(false);
                }
                Message::Size { columns, rows, width, height } => {
                    self.resize(columns, rows, width, height).await?;
                }
                Message::Exec(command) => {
                    let request = commands::exec(&command, self.terminal.is_some());
                    if command.len() > commands::LENGTH_MAX {
                        return self.too_long(&request).await;
                    }
                    return self.program(request, Some(command)).await;
                }
                Message::Shell => return self.program(SshRequest::Shell, None).await,
                Message::Subsystem(name) => return self.program(SshRequest::Subsystem { name }, None).await,
                // There is no program to have it.
                Message::Signal(_) => {}
                message @ (Message::Data(_) | Message::Eof) => self.early.push_back(message),
                Message::Close => return Err(Over::Job),
            }
        }
    }

    async fn terminal(&mut self, terminal: Terminal) -> Result<bool, Over> {
        let request = SshRequest::Pty { term: terminal.term.clone() };
        match self.session.ask_now(&request).await? {
            Ok(granted) => {
                self.session.granted(&request, &granted)?;
                self.session.log.append(&sized(self.number, &terminal, true)).await?;
                self.terminal = Some(terminal);
                Ok(true)
            }
            Err(refused) => {
                self.say(&refused.lines());
                Ok(false)
            }
        }
    }

    async fn resize(&mut self, columns: u32, rows: u32, width: u32, height: u32) -> Result<(), Over> {
        if let Some(terminal) = &mut self.terminal {
            *terminal = Terminal { columns, rows, width, height, ..std::mem::take(terminal) };
            self.session.log.append(&sized(self.number, terminal, false)).await?;
        }
        Ok(())
    }

    /// The job's agent and its display are not lent to hosts: no policy loads that would allow it.
    async fn forwarding(&mut self, request: &SshRequest) -> Result<(), Over> {
        if let Err(refused) = self.session.ask_now(request).await? {
            self.say(&refused.lines());
        }
        Ok(())
    }

    /// What cannot be shown to people as a whole is not run, whatever a rule says.
    async fn too_long(&mut self, request: &SshRequest) -> Result<(), Over> {
        let rules = [policy::builtin::DEFAULT_DENY.into()];
        let reason = format!("a command of more than {} bytes", commands::LENGTH_MAX);
        let refused = Refused::new(&rules, reason, "put it into a file and run that, or send it as input");
        let what = text(request);
        let said = Said { kind: request.name(), text: &what };
        self.session.log.denied(said, &rules, &refused.reason, Duration::ZERO).await?;
        self.say(&refused.lines());
        self.end(REFUSED);
        self.sent().await
    }

    /// Decides and runs the program of this channel.
    async fn program(&mut self, request: SshRequest, command: Option<Bytes>) -> Result<(), Over> {
        let granted = match self.granted(&request, command.as_deref()).await? {
            Some(Ok(granted)) => granted,
            Some(Err(refused)) => {
                self.say(&refused.lines());
                self.end(REFUSED);
                return self.sent().await;
            }
            None => return Err(Over::Job),
        };
        let what = text(&request);
        let started = Box::pin(self.start(request, granted, &what, command)).await?;
        match started {
            Ok(relay) => self.relay(relay).await,
            Err(Some(why)) => {
                self.say(&[why]);
                self.end(UNAVAILABLE);
                self.sent().await
            }
            Err(None) => Err(Over::Job),
        }
    }

    /// `None`: the job did not wait for the answer.
    async fn granted(
        &mut self,
        request: &SshRequest,
        command: Option<&[u8]>,
    ) -> Result<Option<Answer>, Lost> {
        let session = Rc::clone(&self.session);
        let mut beside: Vec<_> =
            self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        // What is shown of it is not what is sent then.
        beside.extend(command.filter(|command| std::str::from_utf8(command).is_err()).map(hex::encode));
        let notice = self.notice();
        let asked = async {
            let answer = session.ask(request, &beside, notice).await?;
            let Ok(granted) = &answer else { return Ok(answer) };
            let Err(bounded) = session.within_rate(granted) else { return Ok(answer) };
            let refused = Refused::new(
                &[Arc::clone(&bounded.rule)],
                format!("more than {} requests in a minute", bounded.most),
                "try again in a minute",
            );
            let said = text(request);
            let said = Said { kind: request.name(), text: &said };
            session.log.limit_exceeded("per_minute", &bounded.rule, &refused.reason)?;
            session
                .log
                .denied(said, &[Arc::clone(&bounded.rule)], &refused.reason, granted.since.elapsed())
                .await?;
            Ok(Err(refused))
        };
        self.beside(asked).await.transpose()
    }

    /// Connects and starts the program. The inner error is told to the job; without one it is gone.
    async fn start(
        &mut self,
        request: SshRequest,
        granted: Granted,
        what: &str,
        command: Option<Bytes>,
    ) -> Result<Result<Relay, Option<String>>, Lost> {
        let session = Rc::clone(&self.session);
        let obligations = &granted.allow.obligations;
        let level = obligations.record;
        let said = Said { kind: request.name(), text: what };
        let running = session
            .log
            .allowed(
                said,
                &granted.rules,
                &obligations.masks,
                granted.approval.as_ref(),
                level,
                granted.since.elapsed(),
            )
            .await?;
        if level != Recording::None {
            let event = Recorded::Channel { n: running.n, channel: self.number, what: what.into() };
            session.log.append(&event).await?;
        }
        let limits = obligations.ssh.as_ref().map(|ssh| ssh.limits.clone()).unwrap_or_default();
        let masks = obligations.detectors.as_ref().filter(|_| !moves_files(&request)).map(Masks::new);
        let connecting = async {
            let permit = &granted.allow.permit;
            let (upstream, channel) = match &request {
                SshRequest::DirectTcpip { host, port } => {
                    let upstream = session.dial(permit, true).await?;
                    let channel = upstream.direct_tcpip(permit, host, u32::from(*port)).await?;
                    (upstream, channel)
                }
                SshRequest::DirectStreamlocal { path } => {
                    let upstream = session.dial(permit, true).await?;
                    let channel = upstream.direct_streamlocal(permit, path).await?;
                    (upstream, channel)
                }
                _ => session.program(permit).await?,
            };
            Ok::<_, HostError>((upstream, channel))
        };
        let (upstream, channel) = match self.beside(connecting).await {
            None => return Ok(Err(self.unstarted(&running, "the job left").await?.and(None))),
            Some(Err(error)) => {
                session.log.upstream_failed(&error.told());
                let why = format!("cannot use resource {}: {error}", session.resource.name);
                return Ok(Err(self.unstarted(&running, &why).await?));
            }
            Some(Ok(connected)) => connected,
        };
        let room = Arc::clone(&self.session.shared().sftp_room);
        let transfer = self.beside(machine(&request, &upstream, &granted.allow.permit, &room)).await;
        let (machine, lookup) = match transfer {
            Some(Ok(both)) => both,
            Some(Err(why)) => return Ok(Err(self.unstarted(&running, &why).await?)),
            None => return Ok(Err(self.unstarted(&running, "the job left").await?.and(None))),
        };
        let (mut from_host, half) = channel.split();
        let start = {
            let (terminal, environment) = (self.terminal.clone(), std::mem::take(&mut self.environment));
            let (request, command) = (&request, &command);
            let (half, from_host) = (&half, &mut from_host);
            async move {
                if let Some(terminal) = &terminal {
                    let Terminal { term, columns, rows, width, height, modes } = terminal;
                    half.request_pty(false, term, *columns, *rows, *width, *height, modes).await?;
                }
                for (name, value) in environment {
                    half.set_env(false, name, value).await?;
                }
                match (request, command) {
                    (SshRequest::Exec(_), Some(command)) => half.exec(true, command.to_vec()).await?,
                    (SshRequest::Subsystem { name }, _) => {
                        half.request_subsystem(true, name.as_str()).await?
                    }
                    (SshRequest::Shell, _) => half.request_shell(true).await?,
                    // A connection has nothing to start.
                    _ => return Ok(Some(Vec::new())),
                }
                let mut first = Vec::new();
                loop {
                    match from_host.wait().await {
                        Some(ChannelMsg::Success) => return Ok(Some(first)),
                        Some(ChannelMsg::Failure | ChannelMsg::Close) | None => return Ok(None),
                        Some(_) if first.len() >= EARLY => return Ok(None),
                        Some(message) => first.push(message),
                    }
                }
            }
        };
        let why = match self.beside(start).await {
            Some(Ok(Some(first))) => {
                return Ok(Ok(Relay {
                    running,
                    request,
                    level,
                    bounds: Bounds::new(limits),
                    // What is transferred is no text; contents are searched by whoever reads it.
                    masks: masks.filter(|_| machine.is_none()),
                    machine,
                    lookup,
                    operations: Operations::default(),
                    again: false,
                    job_over: false,
                    ends: Ends::default(),
                    first,
                    host: outlet::to_host(half),
                    from_host,
                    upstream: Some(upstream),
                    bytes_in: 0,
                    bytes_out: 0,
                    outcome: Outcome::default(),
                }));
            }
            Some(Ok(None)) => "the host does not start it".to_owned(),
            Some(Err(error)) => {
                let error: russh::Error = error;
                format!("the host is gone: {error}")
            }
            None => return Ok(Err(self.unstarted(&running, "the job left").await?.and(None))),
        };
        Ok(Err(self.unstarted(&running, &why).await?))
    }

    async fn unstarted(&self, running: &Running, why: &str) -> Result<Option<String>, Lost> {
        running.ended(&Ended { tag: why, bytes_in: 0, bytes_out: 0, masked: 0 }).await?;
        Ok(Some(why.to_owned()))
    }

    /// Does something while the job may go on asking for things, or leave: then `None`.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let session = Rc::clone(&self.session);
        loop {
            let message = tokio::select! {
                done = &mut work => return Some(done),
                message = self.inbox.recv() => message?,
                _ = session.ended() => return None,
            };
            match message {
                Message::Close => return None,
                Message::Pty(_, answer)
                | Message::Env { answer, .. }
                | Message::Agent(answer)
                | Message::X11(answer) => {
                    // Too late: the program has been decided.
                    let _ = answer.send(false);
                }
                Message::Size { columns, rows, width, height } => {
                    if let Some(terminal) = &mut self.terminal {
                        *terminal = Terminal { columns, rows, width, height, ..std::mem::take(terminal) };
                    }
                }
                message => self.early.push_back(message),
            }
        }
    }

    /// A connection from the host to elsewhere.
    async fn tunnel(
        &mut self,
        request: SshRequest,
        reply: Option<russh::server::ChannelOpenHandle>,
    ) -> Result<(), Over> {
        // There is nowhere to tell of a wait, and clients give up soon.
        let refused = match self.session.ask_now(&request).await? {
            Ok(granted) => {
                let what = text(&request);
                match Box::pin(self.start(request, granted, &what, None)).await? {
                    Ok(relay) => {
                        if let Some(reply) = reply {
                            reply.accept().await;
                        }
                        return self.relay(relay).await;
                    }
                    Err(why) => why.unwrap_or_else(|| "the connection is over".to_owned()),
                }
            }
            Err(refused) => refused.line(),
        };
        Opened::reject(reply, 1, refused).await;
        Ok(())
    }

    /// Words of the gateway, on standard error.
    fn say(&self, lines: &[String]) {
        let end = self.line_end();
        let text: String = lines.iter().map(|line| format!("gateway: {}{end}", printable(line))).collect();
        self.job.push(ToJob::Error(text.into()));
    }

    /// The same, for whoever asks a human.
    fn notice(&self) -> impl Fn(&str) + use<> {
        let (job, end) = (Rc::clone(&self.job), self.line_end());
        move |text| job.push(ToJob::Error(format!("gateway: {}{end}", printable(text)).into()))
    }

    /// A client whose terminal is the job's own has it in raw mode.
    fn line_end(&self) -> &'static str {
        if self.terminal.is_some() { "\r\n" } else { "\n" }
    }

    fn end(&self, status: u32) {
        self.job.push(ToJob::Eof);
        self.job.push(ToJob::Status(status));
        self.job.push(ToJob::Close);
    }

    /// The session is over: the job reads why.
    async fn farewell(&mut self, why: &str) -> Result<(), Over> {
        self.say(&[why.to_owned()]);
        self.end(UNAVAILABLE);
        self.sent().await
    }

    /// Returns when the job has been sent everything, or is gone.
    async fn sent(&mut self) -> Result<(), Over> {
        let job = Rc::clone(&self.job);
        let session = Rc::clone(&self.session);
        loop {
            tokio::select! {
                () = job.emptied() => return Ok(()),
                message = self.inbox.recv() => match message {
                    Some(Message::Close) | None => return Ok(()),
                    // The program is over.
                    Some(_) => {}
                },
                () = async { session.ended().await; sleep(FAREWELL).await } => return Ok(()),
            }
        }
    }
}

/// What reads the channel of a program that moves files, and what asks the host where its paths lead to.
async fn machine(
    request: &SshRequest,
    upstream: &Upstream,
    permit: &Permit,
    room: &Arc<Room>,
) -> Result<(Option<Machine>, Option<Lookup>), String> {
    match request {
        SshRequest::Subsystem { name } if name == "sftp" => {
            Ok((Some(Machine::Sftp(Box::new(Sftp::new(Arc::clone(room))))), None))
        }
        SshRequest::Exec(exec) if exec.files.iter().any(|used| used.by == Route::Scp) => {
            let mut lookup = Lookup::open(upstream, permit).await;
            let home = match &mut lookup {
                Some(lookup) => lookup.real(".").await.ok().flatten(),
                None => None,
            };
            let scp = Scp::new(exec, home.as_deref()).map_err(|error| error.to_string())?;
            Ok((Some(Machine::Scp(Box::new(scp))), lookup))
        }
        _ => Ok((None, None)),
    }
}

fn sized(channel: u64, terminal: &Terminal, new: bool) -> Recorded<'_> {
    Recorded::Terminal {
        channel,
        columns: terminal.columns.into(),
        rows: terminal.rows.into(),
        term: if new { terminal.term.as_str().into() } else { "".into() },
    }
}

/// The name of a signal, without `SIG`.
fn name_of(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}

/// What comes from elsewhere cannot drive the job's terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
