//! Listeners at the host that a rule allows: TCP (`tcpip-forward`) and unix sockets (`streamlocal-forward@openssh.com`).
//!
//! All of a job's connection share one connection to the host, which ends with the last of them. What the host's listeners accept comes
//! back on it, and is a channel of the job like any other: counted, recorded, ended by limits and by a change of policy.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use policy::{Recording, SshLimits, SshRequest};
use russh::{Channel, client};
use tokio::sync::mpsc;

use super::{
    Session,
    ask::{Granted, text},
    job::Forward,
    upstream::Upstream,
};
use crate::session::{
    log::{Ended, Running, Said},
    observer::Lost,
};

/// Listeners of one connection of a job.
const LISTENERS: usize = 16;
/// Connections of listeners that wait to be taken.
const WAITING: usize = 64;

/// A connection that a listener accepted.
pub(super) struct Arrived {
    pub(super) at: Forward,
    /// Who connected, as the host says.
    pub(super) from: String,
    pub(super) channel: Channel<client::Msg>,
    pub(super) reply: client::ChannelOpenHandle,
}

/// Where what arrives is told.
pub(super) type Arrivals = mpsc::Sender<Arrived>;

/// What a session's hosts listen to for it.
#[derive(Default)]
pub(super) struct Listeners {
    upstream: RefCell<Option<Rc<Upstream>>>,
    open: RefCell<HashMap<Forward, Listener>>,
}

struct Listener {
    request: SshRequest,
    running: Running,
    granted: Granted,
}

/// What a connection of a listener runs under.
pub(super) struct Terms {
    pub(super) request: SshRequest,
    pub(super) rules: Vec<Arc<str>>,
    pub(super) masks: Arc<[Arc<str>]>,
    pub(super) level: Recording,
    pub(super) limits: SshLimits,
}

/// Where arrivals of a session are taken.
pub(super) fn arrivals() -> (Arrivals, mpsc::Receiver<Arrived>) {
    mpsc::channel(WAITING)
}

fn request(what: &Forward) -> SshRequest {
    match what {
        Forward::Tcpip { host, port } => {
            SshRequest::TcpipForward { host: host.clone(), port: u16::try_from(*port).unwrap_or_default() }
        }
        Forward::Streamlocal { path } => SshRequest::StreamlocalForward { path: path.clone() },
    }
}

impl Session {
    /// A request for a listener; its port, where one was chosen by the host, or 0.
    pub(super) async fn listen(&self, what: Forward) -> Result<Option<u32>, Lost> {
        let request = request(&what);
        let Ok(granted) = self.ask_now(&request).await? else { return Ok(None) };
        let said = text(&request);
        let said = Said { kind: request.name(), text: &said };
        let busy = {
            let open = self.listeners.open.borrow();
            open.len() >= LISTENERS || open.contains_key(&what)
        };
        if busy {
            let why = format!("it listens there already, or to {LISTENERS} places");
            self.log.denied(said, &granted.rules, &why, granted.since.elapsed()).await?;
            return Ok(None);
        }
        let obligations = &granted.allow.obligations;
        let running = self
            .log
            .allowed(
                said,
                &granted.rules,
                &obligations.masks,
                None,
                obligations.record,
                granted.since.elapsed(),
            )
            .await?;
        match self.listen_at(&what, &granted).await {
            Ok(port) => {
                let key = match what {
                    Forward::Tcpip { host, port: 0 } => Forward::Tcpip { host, port },
                    what => what,
                };
                self.listeners.open.borrow_mut().insert(key, Listener { request, running, granted });
                Ok(Some(port))
            }
            Err(why) => {
                self.log.upstream_failed(&why);
                running.ended(&over(&why)).await?;
                Ok(None)
            }
        }
    }

    async fn listen_at(&self, what: &Forward, granted: &Granted) -> Result<u32, String> {
        let permit = &granted.allow.permit;
        let known = self.listeners.upstream.borrow().clone().filter(|known| known.is_up());
        let upstream = match known {
            Some(known) => known,
            None => {
                let arrivals = self.arrivals.clone();
                let made =
                    self.dial_with(permit, true, Some(arrivals)).await.map_err(|error| error.told())?;
                let made = Rc::new(made);
                *self.listeners.upstream.borrow_mut() = Some(Rc::clone(&made));
                made
            }
        };
        match what {
            Forward::Tcpip { host, port } => upstream.listen(permit, host, *port).await,
            Forward::Streamlocal { path } => upstream.listen_unix(permit, path).await.map(|()| 0),
        }
        .map_err(|error| error.told())
    }

    /// The job takes a listener back; whether there was one.
    pub(super) async fn unlisten(&self, what: &Forward) -> Result<bool, Lost> {
        let Some(listener) = self.listeners.open.borrow_mut().remove(what) else { return Ok(false) };
        self.stop(what, &listener, "taken back").await?;
        Ok(true)
    }

    async fn stop(&self, what: &Forward, listener: &Listener, why: &str) -> Result<(), Lost> {
        let upstream = self.listeners.upstream.borrow().clone();
        if let Some(upstream) = upstream {
            upstream.unlisten(what).await;
        }
        let last = self.listeners.open.borrow().is_empty();
        if last {
            *self.listeners.upstream.borrow_mut() = None;
        }
        listener.running.ended(&over(why)).await
    }

    /// Policy changed: listeners that it no longer allows end.
    pub(super) async fn listeners_redecided(&self) -> Result<(), Lost> {
        let revoked: Vec<Forward> = {
            let open = self.listeners.open.borrow();
            open.iter()
                .filter(|(_, of)| self.still(&of.request).is_err())
                .map(|(what, _)| what.clone())
                .collect()
        };
        for what in revoked {
            let listener = self.listeners.open.borrow_mut().remove(&what);
            if let Some(listener) = listener {
                self.stop(&what, &listener, "the policy no longer allows it").await?;
            }
        }
        Ok(())
    }

    /// The session ends, and its listeners with it.
    pub(super) async fn listeners_over(&self) -> Result<(), Lost> {
        *self.listeners.upstream.borrow_mut() = None;
        let open = std::mem::take(&mut *self.listeners.open.borrow_mut());
        for listener in open.into_values() {
            listener.running.ended(&over("closed")).await?;
        }
        Ok(())
    }

    /// Under what a connection of a listener runs, if there is that listener and it may still be.
    pub(super) fn terms(&self, at: &Forward) -> Option<Terms> {
        let open = self.listeners.open.borrow();
        let listener = open.get(at)?;
        self.still(&listener.request).ok()?;
        let obligations = &listener.granted.allow.obligations;
        Some(Terms {
            request: listener.request.clone(),
            rules: listener.granted.rules.clone(),
            masks: Arc::clone(&obligations.masks),
            level: obligations.record,
            limits: obligations.ssh.as_ref().map(|ssh| ssh.limits.clone()).unwrap_or_default(),
        })
    }
}

fn over(tag: &str) -> Ended<'_> {
    Ended { tag, bytes_in: 0, bytes_out: 0, masked: 0 }
}
