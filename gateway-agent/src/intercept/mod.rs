//! From an accepted connection to a [`Flow`]: whose it is, and where it wanted to go.
//!
//! The kernel programs send a job's connects to a pair of loopback listeners. For each accepted connection the
//! client's own socket is found by its exact addresses, its cookie leads to what the connect hook noted, and
//! the socket's cgroup is compared with the note. Of a client that wrote and closed before it was accepted, the kernel
//! kept the note under the connection's addresses. Anything missing or different closes the connection: dialling
//! the listeners by hand leads nowhere. Questions to resolvers come as datagrams to a pair of sockets beside them,
//! and are traced back in the same way.
//!
//! There is one such set in the agent's own network namespace, and one in each namespace of jobs that it follows.

mod diag;
mod sockets;

use std::{
    fs::File,
    io,
    net::SocketAddr,
    os::fd::AsFd as _,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::kernel::{self, Kernel, Process};

/// One intercepted connection, or one question to a resolver. It exists only for what a kernel program redirected.
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
    #[error("{peer} reset its connection")]
    Reset { peer: SocketAddr },
    #[error("{peer} was not redirected here: it dialled the gateway itself")]
    NotRedirected { peer: SocketAddr },
    #[error("the socket of {peer} is in cgroup {found}, but cgroup {noted} made it")]
    Mismatch { peer: SocketAddr, found: u64, noted: u64 },
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
}

/// The gateway's sockets in one network namespace. Accepting and identifying are cheap and may be called from any
/// task.
pub struct Intercept {
    v4: TcpListener,
    v6: TcpListener,
    questions: Vec<Questions>,
    identifier: Arc<Identifier>,
}

impl Intercept {
    /// Listens in the network namespace of the calling thread, and makes the sockets the gateway. Needs a tokio
    /// runtime, on which they will be polled.
    pub fn bind(kernel: &Kernel) -> io::Result<Self> {
        let sockets = sockets::Sockets::open(dns_port(kernel))?;
        kernel.set_listeners(&sockets.as_kernel()).map_err(io::Error::other)?;
        Self::new(sockets, kernel::netns_cookie()?)
    }

    /// The same in another network namespace, which `netns` opens. Returns its cookie too.
    pub fn follow(kernel: &Kernel, netns: &File) -> Result<(u64, Self), kernel::NotFollowed> {
        // Before anything is made in there.
        kernel::trusted(netns.as_fd())?;
        let failed = |source| kernel::NotFollowed::System { what: "the sockets", source };
        let sockets = sockets::Sockets::open_in(netns, dns_port(kernel)).map_err(failed)?;
        let cookie = kernel.follow(netns, &sockets.as_kernel())?;
        Ok((cookie, Self::new(sockets, cookie).map_err(failed)?))
    }

    fn new(sockets: sockets::Sockets, netns: u64) -> io::Result<Self> {
        let [v4, v6] = sockets.tcp;
        let identifier = Arc::new(Identifier { diag: Mutex::new(sockets.diag), netns });
        let questions = sockets.udp.into_iter().flatten().map(|socket| {
            let local = socket.local_addr()?;
            let socket = Arc::new(UdpSocket::from_std(socket)?);
            Ok(Questions { socket, local, identifier: Arc::clone(&identifier) })
        });
        Ok(Self {
            v4: TcpListener::from_std(v4)?,
            v6: TcpListener::from_std(v6)?,
            questions: questions.collect::<io::Result<_>>()?,
            identifier,
        })
    }

    /// The sockets for resolvers' questions, to be read by whoever answers them; empty after the first call, and
    /// when the gateway does not answer any.
    pub fn questions(&mut self) -> Vec<Questions> {
        std::mem::take(&mut self.questions)
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
        self.identifier.identify(kernel, peer, local, || stream.peer_addr().is_ok_and(|still| still == peer))
    }
}

fn dns_port(kernel: &Kernel) -> Option<u16> {
    let config = kernel.config();
    config.dns.then_some(config.virtual_port)
}

/// Where datagrams to resolvers arrive, of one address family in one namespace.
pub struct Questions {
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    identifier: Arc<Identifier>,
}

impl Questions {
    /// Receives into `buffer`, for [`Questions::identify`] and the answer. Cancel-safe.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(buffer).await
    }

    /// Whose question it is, by the socket that `peer` is now.
    pub fn identify(&self, kernel: &Kernel, peer: SocketAddr) -> Result<Flow, Refused> {
        self.identifier.datagram(kernel, peer, self.local)
    }

    /// The socket to answer by.
    pub fn socket(&self) -> Arc<UdpSocket> {
        Arc::clone(&self.socket)
    }
}

/// Finds out whose connection it is; keeps one netlink socket for that.
struct Identifier {
    diag: Mutex<diag::Diag>,
    /// Cookie of the network namespace.
    netns: u64,
}

impl Identifier {
    /// `peer` and `local` are the two ends as the gateway's socket sees them.
    ///
    /// Once a connection is reset, its addresses are anybody's, and its client's socket may be on the way elsewhere.
    /// So what was found counts only if the connection lives when all is done. It is looked at before, too: a record
    /// that belongs to the same socket's next connection is better not taken at all.
    fn identify(
        &self,
        kernel: &Kernel,
        peer: SocketAddr,
        local: SocketAddr,
        lives: impl Fn() -> bool,
    ) -> Result<Flow, Refused> {
        let socket = self.find(diag::Transport::Tcp, peer, local)?.filter(diag::Socket::is_connected);
        if !lives() {
            return Err(Refused::Reset { peer });
        }
        let flow = self.take(kernel, socket, peer, local)?;
        if lives() { Ok(flow) } else { Err(Refused::Reset { peer }) }
    }

    fn take(
        &self,
        kernel: &Kernel,
        socket: Option<diag::Socket>,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Result<Flow, Refused> {
        // Taken before anything is compared: a record is good for one attempt.
        if let Some(socket) = socket
            && let Some(origin) = kernel.take_origin(socket.cookie)?
        {
            return flow(socket, origin, peer);
        }
        // Closed before, or in this very moment.
        match (socket, kernel.take_released(self.netns, peer, local)?) {
            (None, Some((cookie, origin))) => Ok(whose(cookie, origin, peer)),
            (Some(socket), Some((cookie, origin))) if socket.cookie == cookie => flow(socket, origin, peer),
            (None, None) => Err(Refused::NoSocket { peer }),
            (Some(_), _) => Err(Refused::NotRedirected { peer }),
        }
    }

    /// The same for a datagram. Its socket may send more: the record stays.
    fn datagram(&self, kernel: &Kernel, peer: SocketAddr, local: SocketAddr) -> Result<Flow, Refused> {
        let socket = self.find(diag::Transport::Udp, peer, local)?.ok_or(Refused::NoSocket { peer })?;
        let origin = kernel.origin(socket.cookie)?.ok_or(Refused::NotRedirected { peer })?;
        flow(socket, origin, peer)
    }

    fn find(
        &self,
        transport: diag::Transport,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Result<Option<diag::Socket>, Refused> {
        if !peer.ip().is_loopback() {
            return Err(Refused::NotLoopback { peer });
        }
        self.diag
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .find(transport, peer, local)
            .map_err(|source| Refused::Lookup { peer, source })
    }
}

fn flow(socket: diag::Socket, origin: kernel::Origin, peer: SocketAddr) -> Result<Flow, Refused> {
    let found = socket.cgroup.ok_or(Refused::NoCgroup { peer })?;
    if found != origin.cgroup {
        return Err(Refused::Mismatch { peer, found, noted: origin.cgroup });
    }
    Ok(whose(socket.cookie, origin, peer))
}

fn whose(cookie: u64, origin: kernel::Origin, peer: SocketAddr) -> Flow {
    Flow { job: origin.job, original: origin.destination, cookie, process: origin.process, peer }
}
