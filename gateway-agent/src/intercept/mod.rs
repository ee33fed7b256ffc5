//! From an accepted connection to a [`Flow`]: whose it is, and where it wanted to go.
//!
//! The kernel programs send a job's connects to a pair of loopback listeners. For each accepted connection the
//! client's own socket is found by its exact addresses, its cookie leads to what the connect hook noted, and
//! the socket's cgroup is compared with the note. Anything missing or different closes the connection: dialling
//! the listeners by hand leads nowhere.

mod diag;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener},
    sync::{Mutex, PoisonError},
};

use tokio::net::{TcpListener, TcpStream};

use crate::kernel::{self, Kernel, Process};

/// Connections that wait to be accepted, each listener; the kernel's own limit applies on top.
const BACKLOG: i32 = 4096;

/// One intercepted connection. It exists only for what a kernel program redirected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Cgroup id of the job.
    pub job: u64,
    /// Where the job wanted to go.
    pub original: SocketAddr,
    /// Cookie of the client's socket.
    pub cookie: u64,
    /// Who called connect.
    pub process: Process,
    /// The client's end of the connection.
    pub peer: SocketAddr,
}

/// Why a connection is none of ours.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the connection's own addresses cannot be read: {0}")]
    Addresses(io::Error),
    #[error("{peer} is not on loopback")]
    NotLoopback { peer: SocketAddr },
    #[error("the socket of {peer} cannot be looked up: {source}")]
    Lookup { peer: SocketAddr, source: io::Error },
    #[error("no socket of this network namespace is {peer}")]
    NoSocket { peer: SocketAddr },
    #[error("the kernel names no cgroup for the socket of {peer}")]
    NoCgroup { peer: SocketAddr },
    #[error("{peer} was not redirected here: it dialled the gateway itself")]
    NotRedirected { peer: SocketAddr },
    #[error("the socket of {peer} is in cgroup {found}, but cgroup {noted} made it")]
    Mismatch { peer: SocketAddr, found: u64, noted: u64 },
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
}

/// The listener pair. Accepting and identifying are cheap and may be called from any task.
pub struct Intercept {
    v4: TcpListener,
    v6: TcpListener,
    identifier: Identifier,
}

impl Intercept {
    /// Listens on loopback in the network namespace of the calling thread, and makes the listeners the
    /// gateway. Needs a tokio runtime, on which they will be polled.
    pub fn bind(kernel: &Kernel) -> io::Result<Self> {
        let v4 = listen((Ipv4Addr::LOCALHOST, 0).into())?;
        let v6 = listen((Ipv6Addr::LOCALHOST, 0).into())?;
        kernel.set_listeners(&v4, &v6).map_err(io::Error::other)?;
        Ok(Self {
            v4: TcpListener::from_std(v4)?,
            v6: TcpListener::from_std(v6)?,
            identifier: Identifier::new()?,
        })
    }

    /// The next connection, not yet identified. Cancel-safe.
    ///
    /// # Errors
    /// Those of accept(2): running out of descriptors or memory passes, so wait a little and call again.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        tokio::select! {
            accepted = self.v4.accept() => accepted,
            accepted = self.v6.accept() => accepted,
        }
    }

    /// Whose connection it is. A few microseconds, without waiting. Drop the stream when it is refused.
    pub fn identify(&self, kernel: &Kernel, stream: &TcpStream) -> Result<Flow, Refused> {
        let peer = stream.peer_addr().map_err(Refused::Addresses)?;
        let local = stream.local_addr().map_err(Refused::Addresses)?;
        self.identifier.identify(kernel, peer, local)
    }
}

/// Finds out whose connection it is; keeps one netlink socket for that.
pub struct Identifier {
    diag: Mutex<diag::Diag>,
}

impl Identifier {
    /// For connections in the network namespace of the calling thread.
    pub fn new() -> io::Result<Self> {
        Ok(Self { diag: Mutex::new(diag::Diag::new()?) })
    }

    /// `peer` and `local` are the two ends as the gateway's socket sees them.
    pub fn identify(&self, kernel: &Kernel, peer: SocketAddr, local: SocketAddr) -> Result<Flow, Refused> {
        if !peer.ip().is_loopback() {
            return Err(Refused::NotLoopback { peer });
        }
        let socket = self
            .diag
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .find(peer, local)
            .map_err(|source| Refused::Lookup { peer, source })?
            .ok_or(Refused::NoSocket { peer })?;
        // Taken before anything is compared: a record is good for one attempt.
        let origin = kernel.take_origin(socket.cookie)?.ok_or(Refused::NotRedirected { peer })?;
        let found = socket.cgroup.ok_or(Refused::NoCgroup { peer })?;
        if found != origin.cgroup {
            return Err(Refused::Mismatch { peer, found, noted: origin.cgroup });
        }
        Ok(Flow {
            job: origin.job,
            original: origin.destination,
            cookie: socket.cookie,
            process: origin.process,
            peer,
        })
    }
}

fn listen(addr: SocketAddr) -> io::Result<StdListener> {
    let domain = socket2::Domain::for_address(addr);
    let socket =
        socket2::Socket::new(domain, socket2::Type::STREAM.nonblocking(), Some(socket2::Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
