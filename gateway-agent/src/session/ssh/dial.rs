//! Connections to the host: one for each channel, made ahead where that helps.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use policy::Permit;
use russh::{Channel, client};
use tokio::task::JoinHandle;

use super::{
    Session, algorithms,
    forwards::Arrivals,
    upstream::{self, HostError, Upstream},
};
use crate::{
    credential::{self, For},
    telemetry::Phase,
};

/// A connection that waits for a channel is used for this long.
const SPARE: Duration = Duration::from_secs(60);

/// A connection to the host whose channel is over, for the next one.
pub(super) struct Kept {
    since: Instant,
    upstream: Upstream,
}

/// A connection to the host that no channel has asked for yet.
pub(super) struct Spare {
    since: Instant,
    pub(super) dialling: JoinHandle<Result<Upstream, HostError>>,
}

impl Session {
    /// Dials for a channel that is still to come.
    pub(super) fn prepare(self: &Rc<Self>) {
        let Some(permit) = self.permit.borrow().clone() else { return };
        let session = Rc::clone(self);
        let dialling = tokio::task::spawn_local(async move { session.dial(&permit, false).await });
        *self.spare.borrow_mut() = Some(Spare { since: Instant::now(), dialling });
    }

    /// A channel for a program, and the connection that it has for itself: that of a program before it, or another.
    pub(super) async fn program(
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
    pub(super) fn keep(&self, upstream: Upstream) {
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

    pub(super) async fn dial(&self, permit: &Permit, forwarding: bool) -> Result<Upstream, HostError> {
        self.dial_with(permit, forwarding, None).await
    }

    /// `arrivals`: told of connections that the host's listeners accept.
    pub(super) async fn dial_with(
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
        let login =
            credential::ssh_login(permit, &self.resource, &whom).await.map_err(HostError::Credential)?;
        let sessions = &self.shared().config.sessions;
        let to = upstream::To {
            resource: &self.resource,
            address: self.flow.original,
            login,
            patience: sessions.login_timeout,
            limits: algorithms::limits(sessions),
            arrivals,
        };
        let connected = match &self.route {
            None => upstream::connect(permit, to).await?,
            Some(route) => route.connect(permit, to).await?,
        };
        self.log.took(Phase::Connect, since.elapsed());
        Ok(connected)
    }
}
