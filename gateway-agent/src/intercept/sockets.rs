//! The gateway's sockets in a network namespace, and how they get there.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd as _,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::diag::Diag;
use crate::kernel;

/// Connections that wait to be accepted, each listener; the kernel's own limit applies on top.
const BACKLOG: i32 = 4096;
/// Bytes of questions that wait to be read, each socket.
const QUESTIONS: usize = 1 << 20;

/// Sockets of one namespace, not yet in use.
pub(super) struct Sockets {
    pub(super) tcp: [TcpListener; 2],
    /// For questions to resolvers.
    pub(super) udp: Option<[UdpSocket; 2]>,
    /// Asks the kernel about sockets of the same namespace.
    pub(super) diag: Diag,
}

impl Sockets {
    /// In the network namespace of the calling thread, on loopback. `dns`: the virtual port, where resolvers'
    /// questions are to be answered.
    pub(super) fn open(dns: Option<u16>) -> io::Result<Self> {
        let both = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let [v4, v6] = both.map(|ip| listen((ip, 0).into()));
        let tcp = [v4?, v6?];
        let udp = match dns {
            Some(port) => {
                let [v4, v6] = both.map(|ip| {
                    receive((ip, port).into()).map_err(|error| {
                        io::Error::new(
                            error.kind(),
                            format!("binding {ip} port {port}, UDP, for DNS: {error}; kernel.virtual_port must be free"),
                        )
                    })
                });
                Some([v4?, v6?])
            }
            None => None,
        };
        Ok(Self { tcp, udp, diag: Diag::new()? })
    }

    /// The same in another namespace: a thread goes there and comes back with them.
    pub(super) fn open_in(netns: &File, dns: Option<u16>) -> io::Result<Self> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
                Self::open(dns)
            });
            inside.join().map_err(|_| io::Error::other("the thread in the namespace panicked"))?
        })
    }

    pub(super) fn as_kernel(&self) -> kernel::Sockets<'_> {
        kernel::Sockets { tcp: self.tcp.each_ref(), udp: self.udp.as_ref().map(<[UdpSocket; 2]>::each_ref) }
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(addr, socket2::Type::STREAM, socket2::Protocol::TCP)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn receive(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(addr, socket2::Type::DGRAM, socket2::Protocol::UDP)?;
    socket.set_recv_buffer_size(QUESTIONS)?;
    Ok(socket.into())
}

/// Bound, and bound alone: nothing here shares its port with anyone.
fn socket(addr: SocketAddr, kind: socket2::Type, protocol: socket2::Protocol) -> io::Result<socket2::Socket> {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(addr), kind.nonblocking(), Some(protocol))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}
