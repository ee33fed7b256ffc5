//! A channel that carries a session with another host.

use std::{pin::Pin, rc::Rc, sync::Arc};

use bytes::Bytes;
use policy::SshRequest;
use russh::server::ChannelOpenHandle;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};

use super::{Channel, Over};
use crate::session::ssh::{
    Inside,
    inner::Destination,
    job::{Message, Opened},
    outlet::ToJob,
    serve_on,
};

/// Bytes between the two sessions, in either direction.
const PIPE: usize = 256 * 1024;
/// What is taken of them at once.
const PIECE: usize = 32 * 1024;

impl Channel {
    pub(super) async fn inner(
        &mut self,
        destination: Destination,
        host: String,
        port: u16,
        reply: Option<ChannelOpenHandle>,
    ) -> Result<(), Over> {
        let session = Rc::clone(&self.session);
        let route = session.way(&host, port);
        let tunnel = route.is_some().then_some(SshRequest::DirectTcpip { host, port });
        let theirs = match self.begin_inner(destination, route) {
            Ok(theirs) => theirs,
            Err(why) => {
                Opened::reject(reply, 4, why).await;
                return Ok(());
            }
        };
        if let Some(reply) = reply {
            reply.accept().await;
        }
        let (mut read, mut write) = split(theirs);
        let (inbox, job) = (&mut self.inbox, Rc::clone(&self.job));
        let from_job = async {
            while let Some(message) = inbox.recv().await {
                match message {
                    Message::Data(credit) => {
                        session.moved(credit.data.len() as u64, 0);
                        if write.write_all(&credit.data).await.is_err() {
                            break;
                        }
                    }
                    // The inner session says itself how it ends.
                    Message::Eof => drop(write.shutdown().await),
                    Message::Close => break,
                    Message::Pty(_, answer)
                    | Message::Env { answer, .. }
                    | Message::Agent(answer)
                    | Message::X11(answer) => {
                        // There is no program to have it. The client may be gone.
                        let _ = answer.send(false);
                    }
                    Message::Exec(_)
                    | Message::Shell
                    | Message::Subsystem(_)
                    | Message::Size { .. }
                    | Message::Signal(_) => {}
                }
            }
        };
        let to_job = async {
            let mut piece = vec![0; PIECE];
            loop {
                job.has_room().await;
                match read.read(&mut piece).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => {
                        session.moved(0, count as u64);
                        let data = piece.get(..count).unwrap_or_default();
                        job.push(ToJob::Data(Bytes::copy_from_slice(data)));
                    }
                }
            }
        };
        let revoked = async {
            let mut epoch = session.epoch();
            loop {
                if epoch.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                // It goes by way of the host only as long as that may be.
                if tunnel.as_ref().is_some_and(|tunnel| session.still(tunnel).is_err()) {
                    break;
                }
            }
        };
        tokio::select! {
            () = from_job => {}
            () = to_job => {}
            () = revoked => {}
            _ = session.ended() => {}
        }
        // The inner session ends with its pipe.
        drop((read, write));
        self.job.push(ToJob::Eof);
        self.job.push(ToJob::Close);
        self.sent().await
    }

    /// Starts the session inside; its client's end of the pipe, or why there is none.
    fn begin_inner(
        &self,
        destination: Destination,
        route: Option<crate::session::ssh::inner::Route>,
    ) -> Result<DuplexStream, String> {
        let session = &self.session;
        let Destination { resource, address } = destination;
        let limits = &session.shared().config.sessions;
        let live = session.live.inside(&resource.name, address);
        let registry = &session.shared().registry;
        let registration =
            registry.register(live, limits.max_total, limits.max_per_job).map_err(|full| full.to_string())?;
        let (ours, theirs) = duplex(PIPE);
        let mut flow = session.flow.clone();
        flow.original = address;
        let inside = Inside { outer: Arc::clone(&session.live.id), route };
        // Boxed: it is the kind of session that this one is.
        let serving: Pin<Box<dyn Future<Output = ()>>> =
            Box::pin(serve_on(Rc::clone(&session.worker), flow, resource, registration, ours, Some(inside)));
        tokio::task::spawn_local(serving);
        Ok(theirs)
    }
}
