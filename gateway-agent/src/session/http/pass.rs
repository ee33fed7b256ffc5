//! TLS that is let through: bytes, counted, for as long as policy says so.

use std::{rc::Rc, time::Duration};

use policy::{Action, Effect, Http, Question};
use tokio::{io::copy_bidirectional, time::sleep};

use super::{FAREWELL, accept::Passing};
use crate::{
    intercept::Flow,
    session::{
        log::{Ended, Log, Said},
        registry::{Command, Registration},
        stream::Stream,
        worker::Worker,
    },
    telemetry::FlowResult,
    upstream,
};

/// Until it ends: why it did.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    flow: &Flow,
    passing: Passing,
    registration: &mut Registration,
    log: &Rc<Log>,
) -> String {
    let Passing { tcp, resource, asked, allow, rules } = passing;
    let live = std::sync::Arc::clone(&registration.live);
    live.set_resource(&resource.name);
    let _ = live.login.set((String::new(), asked.host.clone()));
    let text = format!("TLS to {}:{} let through", asked.host, asked.port);
    let said = Said { kind: "pass_through", text: &text };
    let limits = allow.obligations.http.as_ref().map(|of| of.limits.clone()).unwrap_or_default();
    if let Err(limit) = worker.shared.budgets.request(live.job, &limits.per_minute) {
        let why = format!("the job's limit of {} a minute is used up", limit.most);
        let _ = log.denied(said, std::slice::from_ref(&limit.rule), &why, Duration::ZERO).await;
        log.flow(FlowResult::Denied);
        return why;
    }
    let begun = async {
        log.opened(&asked.host, "TLS, let through").await?;
        let (masks, level) = (&allow.obligations.masks, allow.obligations.record);
        log.allowed(said, &rules, masks, None, level, Duration::ZERO).await
    };
    let running = match begun.await {
        Ok(running) => running,
        Err(lost) => {
            log.flow(FlowResult::Unrecorded);
            return lost.to_string();
        }
    };
    let patience = worker.shared.config.sessions.login_timeout;
    let mut there = match upstream::connect(&allow.permit, &resource, flow.original, patience).await {
        Ok(there) => there,
        Err(error) => {
            log.upstream_failed(&error.to_string());
            log.flow(FlowResult::Upstream);
            let _ = running.ended(&Ended { tag: "unreachable", bytes_in: 0, bytes_out: 0, masked: 0 }).await;
            return error.to_string();
        }
    };
    log.flow(FlowResult::Opened);
    let mut here = Stream::Plain(tcp);
    let duration = limits.duration.clone();
    let (mut reason, mut moved) = ("the connection was closed".to_owned(), (0, 0));
    {
        let copying = copy_bidirectional(&mut here, &mut there);
        tokio::pin!(copying);
        let late = async {
            match &duration {
                Some(limit) => sleep(limit.most).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(late);
        loop {
            tokio::select! {
                copied = &mut copying => {
                    match copied {
                        Ok(bytes) => moved = bytes,
                        Err(error) => reason = error.to_string(),
                    }
                    break;
                }
                () = &mut late => {
                    if let Some(limit) = &duration {
                        reason = format!("the limit of {:?} of rule {} is used up", limit.most, limit.rule);
                        let _ = log.limit_exceeded("duration", &limit.rule, &reason);
                    }
                    break;
                }
                command = registration.commands.recv() => match command {
                    Some(Command::End(why)) => { reason = why.to_string(); break; }
                    Some(Command::Redecide) if !still(worker, &live.subject, &resource.name, &asked) => {
                        reason = "the gateway's policy no longer lets it through".to_owned();
                        break;
                    }
                    _ => {}
                }
            }
        }
    }
    log.moved(moved.0, moved.1);
    let ended = Ended { tag: &reason, bytes_in: moved.0, bytes_out: moved.1, masked: 0 };
    let _ = running.ended(&ended).await;
    let closing = async {
        use tokio::io::AsyncWriteExt as _;
        let _ = there.shutdown().await;
        let _ = here.shutdown().await;
    };
    let _ = tokio::time::timeout(FAREWELL, closing).await;
    reason
}

fn still(worker: &Worker, subject: &str, resource: &str, asked: &policy::PassThrough) -> bool {
    let policy = worker.shared.policy.load();
    let found = policy.policy.subject_named(subject).zip(policy.policy.resource_named(resource));
    found.is_some_and(|(subject, resource)| {
        let action = Action::Http(Http::PassThrough(asked.clone()));
        let now = crate::clock::now();
        let question = Question { subject: &subject, resource, action: &action, now, grant: None };
        matches!(policy.policy.decide(&question).effect, Effect::Allow(_))
    })
}
