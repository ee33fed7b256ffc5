//! A connection that a listener of the host accepted: a channel that is opened towards the job.

use std::{collections::VecDeque, rc::Rc, sync::Arc};

use policy::Recording;
use record::Event as Recorded;

use super::{Bounds, Channel, Ends, Outcome, Over, Relay};
use crate::session::{
    log::Said,
    observer::Lost,
    ssh::{
        Session,
        files::Operations,
        forwards::{Arrived, Terms},
        job::{self, Forward},
        outlet,
    },
};

/// Serves it to its end.
pub(in crate::session::ssh) async fn arrived(session: Rc<Session>, arrived: Arrived) {
    let Arrived { at, from, channel, reply } = arrived;
    // Dropping the reply refuses it.
    let Some(terms) = session.terms(&at) else { return };
    let Ok(open) = session.admit_channel() else { return };
    let (what, opening) = match &at {
        Forward::Tcpip { host, port } => {
            let (name, number) = from.rsplit_once(':').unwrap_or((&from, "0"));
            let number = number.parse().unwrap_or_default();
            let opening = session.handle.channel_open_forwarded_tcpip(host, *port, name, number).await;
            (format!("connection from {from} to the host at {host}:{port}"), opening)
        }
        Forward::Streamlocal { path } => {
            let opening = session.handle.channel_open_forwarded_streamlocal(path).await;
            (format!("connection from {from} to its socket at {path}"), opening)
        }
    };
    // The job does not want it.
    let Ok(to_job) = opening else { return };
    let (from_job, half) = to_job.split();
    let mut served = Channel {
        session: Rc::clone(&session),
        number: session.next_channel(),
        inbox: job::taken(from_job, Arc::clone(&session.held)),
        early: VecDeque::new(),
        job: Rc::new(outlet::to_job(half, session.handle.clone())),
        terminal: None,
        environment: Vec::new(),
    };
    let relay = match begun(&served, terms, &what, channel).await {
        Ok(relay) => relay,
        Err(lost) => {
            session.lost(&lost).await;
            return;
        }
    };
    // Written down before the host hears of it.
    reply.accept().await;
    if let Err(Over::Lost(lost)) = served.relay(relay).await {
        session.lost(&lost).await;
    }
    drop(open);
}

async fn begun(
    channel: &Channel,
    terms: Terms,
    what: &str,
    from_host: russh::Channel<russh::client::Msg>,
) -> Result<Relay, Lost> {
    let Terms { request, rules, masks, level, limits } = terms;
    let log = &channel.session.log;
    let said = Said { kind: request.name(), text: what };
    let running = log.allowed(said, &rules, &masks, None, level, std::time::Duration::ZERO).await?;
    if level != Recording::None {
        log.append(&Recorded::Channel { n: running.n, channel: channel.number, what: what.into() }).await?;
    }
    let (from_host, half) = from_host.split();
    Ok(Relay {
        running,
        request,
        level,
        bounds: Bounds::new(limits),
        masks: None,
        machine: None,
        lookup: None,
        operations: Operations::default(),
        again: false,
        job_over: false,
        ends: Ends::default(),
        first: Vec::new(),
        host: outlet::to_host(half),
        from_host,
        upstream: None,
        bytes_in: 0,
        bytes_out: 0,
        outcome: Outcome::default(),
    })
}
