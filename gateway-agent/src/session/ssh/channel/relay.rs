//! A program that runs, or a connection that is open: bytes in both directions, until one side is done.

use std::rc::Rc;

use bytes::Bytes;
use policy::{FileOperation, FileRequest, Recording, SshRequest};
use record::{Event as Recorded, Stream};
use russh::{ChannelMsg, ChannelReadHalf, Sig};

use super::{Bounds, Channel, FAREWELL, Masks, Over, UNAVAILABLE, masks::pause, name_of};
use crate::session::{
    log::{Ended, Running, Said},
    registry::Shown,
    ssh::{
        ask::{Refused, text},
        files::{Machine, Next, Operations},
        job::Message,
        lookup::Lookup,
        outlet::{Outlet, ToHost, ToJob},
        upstream::Upstream,
    },
};

/// A program that runs, or a connection that is open.
pub(super) struct Relay {
    pub(super) running: Running,
    pub(super) request: SshRequest,
    pub(super) level: Recording,
    pub(super) bounds: Bounds,
    pub(super) masks: Option<Masks>,
    pub(super) host: Outlet<ToHost>,
    pub(super) from_host: ChannelReadHalf,
    /// Its own; what a listener accepted comes by one that others share.
    pub(super) upstream: Option<Upstream>,
    /// Reads what is transferred, where it is understood.
    pub(super) machine: Option<Machine>,
    /// Tells where paths lead to, where the protocol itself does not.
    pub(super) lookup: Option<Lookup>,
    pub(super) operations: Operations,
    /// The machine may have more to do without hearing from either side.
    pub(super) again: bool,
    /// The job has nothing more to say; the host is told behind all that it said.
    pub(super) job_over: bool,
    /// What the job was told of the end of either direction.
    pub(super) ends: Ends,
    /// What the host said before it said that the program began.
    pub(super) first: Vec<ChannelMsg>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) outcome: Outcome,
}

/// A client that has ended its input closes the channel when it hears that the output ended too, and with it the program. One that runs on
/// without output still has a status to tell: its end of output is told with that.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) input: bool,
    pub(super) output_held: bool,
}

#[derive(Default)]
pub(super) struct Outcome {
    pub(super) status: Option<u32>,
    pub(super) signal: Option<String>,
}

impl Relay {
    fn is_program(&self) -> bool {
        matches!(self.request, SshRequest::Exec(_) | SshRequest::Shell | SshRequest::Subsystem { .. })
    }

    async fn close(&self) {
        if let Some(upstream) = &self.upstream {
            upstream.close().await;
        }
    }
}

impl Channel {
    pub(super) async fn relay(&mut self, mut relay: Relay) -> Result<(), Over> {
        let done = match self.pump(&mut relay).await {
            Err(Over::Broken(why)) => Ok(Some(why)),
            done => done,
        };
        // Whatever was held back is shown: the stream is over.
        if !matches!(done, Err(Over::Lost(_))) {
            self.show_rest(&mut relay).await?;
            if let Some(machine) = &mut relay.machine {
                machine.finish();
                for event in machine.events() {
                    relay.operations.happened(&self.session.log, self.number, event).await?;
                }
                relay.operations.over().await?;
            }
            let tag = match (&relay.outcome, &done) {
                (Outcome { signal: Some(signal), .. }, _) => format!("signal {signal}"),
                (Outcome { status: Some(status), .. }, _) => format!("exit {status}"),
                (_, Ok(Some(why))) => why.clone(),
                (_, Ok(None)) => "closed by the host".to_owned(),
                (_, Err(_)) => "closed by the job".to_owned(),
            };
            if relay.level != Recording::None {
                let closed = Recorded::ChannelClosed {
                    channel: self.number,
                    status: relay.outcome.status,
                    signal: relay.outcome.signal.as_deref().map(Into::into),
                };
                self.session.log.append(&closed).await?;
            }
            let masked = relay.masks.as_ref().map_or(0, Masks::hidden);
            let (bytes_in, bytes_out) = (relay.bytes_in, relay.bytes_out);
            relay.running.ended(&Ended { tag: &tag, bytes_in, bytes_out, masked }).await?;
        }
        match done {
            Ok(None) => {
                self.job.push(ToJob::Close);
                // What asked the host beside it has a channel there still.
                if relay.lookup.is_none() && relay.is_program() {
                    relay.upstream.take().into_iter().for_each(|upstream| self.session.keep(upstream));
                }
                self.sent().await
            }
            Ok(Some(why)) => {
                // A host without a terminal would let it run on. The connection stays until it says that it is over: what is
                // queued when a connection is closed is not sent.
                relay.host.push(match relay.upstream {
                    Some(_) => ToHost::Signal(Sig::KILL),
                    None => ToHost::Close,
                });
                let over = async {
                    while let Some(message) = relay.from_host.wait().await {
                        if matches!(message, ChannelMsg::Close) {
                            break;
                        }
                    }
                };
                let _ = tokio::time::timeout(FAREWELL, over).await;
                relay.close().await;
                match relay.request {
                    // There is nobody to read why.
                    SshRequest::TcpipForward { .. } | SshRequest::StreamlocalForward { .. } => {
                        self.job.push(ToJob::Close);
                    }
                    _ => {
                        self.say(&[why]);
                        self.end(UNAVAILABLE);
                    }
                }
                self.sent().await
            }
            Err(over) => {
                relay.host.push(ToHost::Close);
                // The host learns of it by the connection's end at the latest.
                let _ = tokio::time::timeout(FAREWELL, relay.host.emptied()).await;
                relay.close().await;
                Err(over)
            }
        }
    }

    /// Moves bytes until one side is done. A text: the channel was ended, and why.
    async fn pump(&mut self, relay: &mut Relay) -> Result<Option<String>, Over> {
        let session = Rc::clone(&self.session);
        let mut epoch = session.epoch();
        loop {
            for message in std::mem::take(&mut relay.first) {
                self.hear_host(relay, message).await?;
            }
            if let Some(message) = self.early.pop_front() {
                self.hear_job(relay, message).await?;
                continue;
            }
            if let Some(why) = relay.bounds.exceeded(&session, relay.bytes_in + relay.bytes_out)? {
                return Ok(Some(why));
            }
            let job = Rc::clone(&self.job);
            let (of_job, of_host) = relay.machine.as_ref().map_or((true, true), Machine::takes);
            tokio::select! {
                message = async { relay.host.has_room().await; self.inbox.recv().await }, if of_job => {
                    match message {
                        Some(Message::Close) | None => return Err(Over::Job),
                        Some(message) => self.hear_job(relay, message).await?,
                    }
                }
                message = async { job.has_room().await; relay.from_host.wait().await }, if of_host => {
                    match message {
                        Some(ChannelMsg::Close) | None => return Ok(None),
                        Some(message) => self.hear_host(relay, message).await?,
                    }
                }
                () = async { job.has_room().await; relay.host.has_room().await }, if relay.again => {
                    self.transfer(relay).await?;
                }
                () = pause(&relay.masks, self.terminal.is_some()) => self.show_rest(relay).await?,
                () = relay.bounds.due() => {}
                _ = epoch.changed() => if let Err(refused) = session.still(&relay.request) {
                    return Ok(Some(format!("ended: the policy no longer allows it ({})", refused.line())));
                },
                why = session.ended() => return Ok(Some(why.to_string())),
            }
        }
    }

    async fn hear_job(&mut self, relay: &mut Relay, message: Message) -> Result<(), Over> {
        match message {
            Message::Data(credit) => {
                let len = credit.data.len() as u64;
                relay.bytes_in += len;
                relay.bounds.active();
                self.session.moved(len, 0);
                if let Some(machine) = &mut relay.machine {
                    machine.job_in(&credit.data);
                    return self.transfer(relay).await;
                }
                if relay.level == Recording::Results {
                    self.record_input(relay, &credit.data).await?;
                }
                relay.host.push(ToHost::Relayed(credit));
            }
            Message::Eof => {
                relay.ends.input = true;
                relay.job_over = true;
                self.end_input(relay);
            }
            Message::Size { columns, rows, width, height } => {
                self.resize(columns, rows, width, height).await?;
                if let Some(terminal) = &self.terminal {
                    relay.host.push(ToHost::Size(terminal.clone()));
                }
            }
            Message::Signal(signal) => {
                let request = SshRequest::Signal { name: name_of(&signal) };
                if let Ok(granted) = self.session.ask_now(&request).await? {
                    self.session.granted(&request, &granted)?;
                    relay.host.push(ToHost::Signal(signal));
                }
            }
            Message::Pty(_, answer)
            | Message::Env { answer, .. }
            | Message::Agent(answer)
            | Message::X11(answer) => {
                // The program has begun without it. The client may be gone.
                let _ = answer.send(false);
            }
            // One program a channel, which the library's side has seen to; and Close is seen before.
            Message::Exec(_) | Message::Shell | Message::Subsystem(_) | Message::Close => {}
        }
        Ok(())
    }

    async fn hear_host(&mut self, relay: &mut Relay, message: ChannelMsg) -> Result<(), Over> {
        match message {
            ChannelMsg::Data { data } => self.show(relay, Stream::Output, data).await?,
            ChannelMsg::ExtendedData { data, ext: 1 } => self.show(relay, Stream::Error, data).await?,
            ChannelMsg::Eof => {
                self.show_rest(relay).await?;
                let told = relay.outcome.status.is_some() || relay.outcome.signal.is_some();
                match relay.ends.input && relay.is_program() && !told {
                    true => relay.ends.output_held = true,
                    false => self.job.push(ToJob::Eof),
                }
            }
            ChannelMsg::ExitStatus { exit_status } => {
                relay.outcome.status = Some(exit_status);
                self.job.push(ToJob::Status(exit_status));
                self.end_output(relay);
            }
            ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, .. } => {
                relay.outcome.signal = Some(name_of(&signal_name));
                self.job.push(ToJob::Signal { name: signal_name, core_dumped, message: error_message });
                self.end_output(relay);
            }
            // Other streams than standard error are not defined; the rest is between the library and the host.
            _ => {}
        }
        Ok(())
    }

    /// Tells the job that nothing more comes, if that was held back.
    fn end_output(&self, relay: &mut Relay) {
        if std::mem::take(&mut relay.ends.output_held) {
            self.job.push(ToJob::Eof);
        }
    }

    /// Tells the host that nothing more comes, as soon as that is so.
    fn end_input(&self, relay: &mut Relay) {
        let done = relay.machine.as_ref().is_none_or(Machine::job_is_done);
        if done && std::mem::take(&mut relay.job_over) {
            relay.host.push(ToHost::Eof);
        }
    }

    /// Lets a transfer go on as far as it can, and answers what it asks.
    async fn transfer(&mut self, relay: &mut Relay) -> Result<(), Over> {
        loop {
            let Some(machine) = &mut relay.machine else { return Ok(()) };
            let next = machine.step();
            // Written down before either side hears of it.
            for event in machine.events() {
                relay.operations.happened(&self.session.log, self.number, event).await?;
            }
            let (to_job, to_host) = machine.out();
            relay.again = !to_job.is_empty() || !to_host.is_empty();
            if !to_job.is_empty() {
                self.job.push(ToJob::Data(to_job.into()));
            }
            if !to_host.is_empty() {
                relay.host.push(ToHost::Data(to_host.into()));
            }
            match next.map_err(Over::Broken)? {
                Next::Bytes => {
                    self.end_input(relay);
                    return Ok(());
                }
                Next::Answer(request) => self.file(relay, request).await?,
            }
        }
    }

    /// Decides one operation on files.
    async fn file(&mut self, relay: &mut Relay, file: FileRequest) -> Result<(), Over> {
        let file = match &mut relay.lookup {
            None => file,
            Some(lookup) => {
                let led = self.beside(lookup.led(file)).await.ok_or(Over::Job)?;
                led.map_err(|_| Over::Broken("the host does not say where a path leads to".to_owned()))?
            }
        };
        let request = SshRequest::File(file.clone());
        let session = Rc::clone(&self.session);
        let notice = self.notice();
        let asked = async { session.ask(&request, &[], notice).await };
        let answer = self.beside(asked).await.ok_or(Over::Job)??;
        let Some(machine) = &mut relay.machine else { return Ok(()) };
        let granted = match answer {
            Ok(granted) => granted,
            Err(refused) => {
                machine.deny(&refused);
                return Ok(());
            }
        };
        let obligations = &granted.allow.obligations;
        let quarantine = obligations.ssh.as_ref().is_some_and(|ssh| ssh.quarantine);
        let what = text(&request);
        let said = Said { kind: request.name(), text: &what };
        if quarantine && !self.session.log.records().await {
            let refused = Refused::new(
                &granted.rules,
                "a copy is to be kept, and this session is not recorded",
                "have the rule for the connection record it",
            );
            let took = granted.since.elapsed();
            self.session.log.denied(said, &granted.rules, &refused.reason, took).await?;
            machine.deny(&refused);
            return Ok(());
        }
        // Clients look at every folder on the way; what they only look at is counted, not listed.
        if file.operation != FileOperation::Stat {
            let running = self
                .session
                .log
                .allowed(
                    said,
                    &granted.rules,
                    &obligations.masks,
                    granted.approval.as_ref(),
                    obligations.record,
                    granted.since.elapsed(),
                )
                .await?;
            relay.operations.begun(file, running);
        }
        machine.allow(&granted.allow);
        Ok(())
    }

    /// Output of the host: masked, recorded, shown.
    async fn show(&mut self, relay: &mut Relay, stream: Stream, data: Bytes) -> Result<(), Over> {
        relay.bytes_out += data.len() as u64;
        relay.bounds.active();
        self.session.moved(0, data.len() as u64);
        if stream == Stream::Output
            && let Some(machine) = &mut relay.machine
        {
            machine.host_in(&data);
            return self.transfer(relay).await;
        }
        let shown = match &mut relay.masks {
            None => data,
            Some(masks) => masks.push(stream, &data),
        };
        self.deliver(relay.level, stream, shown).await
    }

    async fn show_rest(&mut self, relay: &mut Relay) -> Result<(), Over> {
        let Some(masks) = &mut relay.masks else { return Ok(()) };
        masks.since = None;
        for stream in [Stream::Output, Stream::Error, Stream::Input] {
            let rest = masks.rest(stream);
            match stream {
                Stream::Input if rest.is_empty() => {}
                Stream::Input => self.record(relay.level, stream, &rest).await?,
                Stream::Output | Stream::Error => self.deliver(relay.level, stream, rest).await?,
            }
        }
        Ok(())
    }

    async fn deliver(&self, level: Recording, stream: Stream, data: Bytes) -> Result<(), Over> {
        if data.is_empty() {
            return Ok(());
        }
        self.record(level, stream, &data).await?;
        self.session.live.watchers.tell(|| Shown {
            channel: self.number,
            error: stream == Stream::Error,
            data: data.clone(),
        });
        self.job.push(match stream {
            Stream::Error => ToJob::Error(data),
            Stream::Output | Stream::Input => ToJob::Data(data),
        });
        Ok(())
    }

    async fn record_input(&self, relay: &mut Relay, data: &Bytes) -> Result<(), Over> {
        let kept = match &mut relay.masks {
            None => data.clone(),
            Some(masks) => masks.push(Stream::Input, data),
        };
        if kept.is_empty() {
            return Ok(());
        }
        self.record(relay.level, Stream::Input, &kept).await
    }

    async fn record(&self, level: Recording, stream: Stream, data: &[u8]) -> Result<(), Over> {
        if level != Recording::Results {
            return Ok(());
        }
        let event = Recorded::Data { channel: self.number, stream, data: data.into() };
        Ok(self.session.log.append(&event).await?)
    }
}
