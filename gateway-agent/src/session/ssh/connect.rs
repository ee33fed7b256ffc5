//! Deciding the connection itself.

use std::{rc::Rc, time::Instant};

use policy::{Allow, Effect, SshRequest, Verdict};
use tokio::sync::{mpsc, watch};

use super::{
    Running, Session,
    ask::{Granted, Refused},
    job::{Event, Opened, Wanted},
};
use crate::{
    session::registry::{Command, Registration},
    telemetry::FlowResult,
};

/// Channels that may wait for the connection to be decided.
const WAITING: usize = 64;

impl Session {
    /// Decides the connection, which may take a human: then the job's first channel is told.
    pub(super) async fn connect(
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
    pub(super) async fn hold(
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
    pub(super) fn allowed(self: &Rc<Self>, allow: Allow) {
        if let Some(ssh) = &allow.obligations.ssh {
            *self.limits.borrow_mut() = ssh.limits.clone();
        }
        *self.permit.borrow_mut() = Some(Rc::new(allow.permit));
        self.prepare();
    }
}
