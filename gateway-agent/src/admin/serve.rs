//! The control socket: made safely, callers known by the kernel's word.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::net::{UnixListener, UnixStream};

use super::{Control, handlers};
use crate::identity::Peer;

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
    let router = handlers::router(control);
    axum::serve(ControlListener(listener), router.into_make_service_with_connect_info::<Caller>()).await
}

/// Asks for the peer at accept, before a byte is read: the sooner, the smaller the window in which a pid could
/// be reused on kernels without a pidfd of the peer.
struct ControlListener(UnixListener);

impl Listener for ControlListener {
    type Io = UnixStream;
    type Addr = Caller;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => match Peer::of(&stream) {
                    Ok(peer) => return (stream, Caller(Arc::new(peer))),
                    Err(error) => tracing::warn!(%error, "a control connection without a peer was dropped"),
                },
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    // Out of descriptors, most likely: give others time to end.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(Caller(Arc::new(Peer::this_process())))
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
