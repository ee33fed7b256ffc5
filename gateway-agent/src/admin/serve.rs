//! The control socket: made safely, callers known by the kernel's word.

use std::{
    collections::HashMap,
    os::unix::fs::PermissionsExt,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
};

use super::{Control, handlers};
use crate::identity::Peer;

/// Connections that one job, or one user outside of jobs, may hold open.
const MAX_CONNECTIONS: usize = 64;

/// Makes the socket. Everybody may connect, because jobs enrol through it as any user; who may do what is
/// decided per call, by peer credentials.
///
/// A socket that nobody listens on any more is replaced; a live one is an error, so that two daemons do not
/// take each other's calls.
pub fn bind_control(path: &Path) -> std::io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => {
            return Err(std::io::Error::new(
                std::io::ErrorKind::AddrInUse,
                format!("another gateway-agent answers on {}", path.display()),
            ));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(_) => std::fs::remove_file(path)?,
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Serves until dropped.
pub async fn serve_control(listener: UnixListener, control: Arc<Control>) -> std::io::Result<()> {
    let doors = Doors { control: control.clone(), open: Arc::default() };
    let router = handlers::router(control);
    axum::serve(ControlListener { listener, doors }, router.into_make_service_with_connect_info::<Caller>())
        .await
}

/// Asks for the peer at accept, before a byte is read: the sooner, the smaller the window in which a pid could
/// be reused on kernels without a pidfd of the peer.
struct ControlListener {
    listener: UnixListener,
    doors: Doors,
}

impl Listener for ControlListener {
    type Io = Connection;
    type Addr = Caller;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    // Out of descriptors, most likely: give others time to end.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            match Peer::of(&stream) {
                Ok(peer) => match self.doors.enter(&peer) {
                    Some(place) => {
                        return (Connection { stream, _place: place }, Caller(Arc::new(peer)));
                    }
                    None => tracing::warn!(pid = peer.pid, uid = peer.uid, "too many control connections"),
                },
                Err(error) => tracing::warn!(%error, "a control connection without a peer was dropped"),
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(Caller(Arc::new(Peer::this_process())))
    }
}

/// Connections by whose they are, so that nobody can take the socket away from others.
struct Doors {
    control: Arc<Control>,
    open: Arc<Mutex<HashMap<Whose, usize>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Whose {
    Job(u64),
    User(u32),
}

/// One connection's place; given back on drop.
struct Place {
    whose: Whose,
    open: Arc<Mutex<HashMap<Whose, usize>>>,
}

impl Doors {
    fn enter(&self, peer: &Peer) -> Option<Place> {
        let whose = match self.control.enrolments.inside(peer) {
            Ok(Some(job)) => Whose::Job(job.cgroup_id),
            Ok(None) | Err(_) => Whose::User(peer.uid),
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(whose).or_default();
        if *count >= MAX_CONNECTIONS {
            return None;
        }
        *count += 1;
        Some(Place { whose, open: self.open.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.whose) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.whose);
            }
        }
    }
}

/// A control connection and its place.
struct Connection {
    stream: UnixStream,
    _place: Place,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Who calls.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Arc<Peer>);

impl Connected<IncomingStream<'_, ControlListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, ControlListener>) -> Self {
        stream.remote_addr().clone()
    }
}
