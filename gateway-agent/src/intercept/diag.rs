//! NETLINK_SOCK_DIAG: one socket by its exact addresses (linux/inet_diag.h, linux/sock_diag.h).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const INET_DIAG_CGROUP_ID: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// nlmsghdr and inet_diag_req_v2.
const REQUEST: usize = 16 + 56;
/// nlmsghdr and inet_diag_msg.
const REPLY: usize = 16 + 72;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    /// Also finds a socket that is bound to any address of its port, or connected to nobody.
    Udp,
}

/// What the kernel says about a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Socket {
    /// Of one in TIME_WAIT this is not the cookie that it had in life.
    pub(super) cookie: u64,
    /// The cgroup in which the socket was created.
    pub(super) cgroup: Option<u64>,
    state: u8,
}

impl Socket {
    /// Whether a TCP socket can be the other end of a connection that was accepted: one that still connects cannot.
    /// Of one in TIME_WAIT (whatever state it says) only the addresses are left, and no cgroup.
    pub(super) fn is_connected(&self) -> bool {
        const SYN_SENT: u8 = 2;
        const SYN_RECV: u8 = 3;
        const TIME_WAIT: u8 = 6;
        const CLOSE: u8 = 7;
        const LISTEN: u8 = 10;
        const NEW_SYN_RECV: u8 = 12;
        self.cgroup.is_some()
            && !matches!(self.state, SYN_SENT | SYN_RECV | TIME_WAIT | CLOSE | LISTEN | NEW_SYN_RECV)
    }
}

/// A netlink socket, bound to the network namespace in which it was made.
pub(super) struct Diag {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Diag {
    pub(super) fn new() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; 4096] })
    }

    /// The socket whose own address is `local` and whose peer is `remote`. `None` when there is none, or it is
    /// closed already. The kernel answers within the request: nothing is waited for.
    pub(super) fn find(
        &mut self,
        transport: Transport,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> io::Result<Option<Socket>> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(transport, local, remote, self.sequence)?;
        send(&self.socket, &request, SendFlags::empty())?;
        loop {
            let (_, length) = recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT)?;
            let message = self.buffer.get(..length).ok_or_else(malformed)?;
            // An answer to an earlier request that failed half-way is not ours.
            if read_u32(message, 8)? == self.sequence {
                return reply(transport, message, local, remote);
            }
        }
    }
}

fn request(
    transport: Transport,
    local: SocketAddr,
    remote: SocketAddr,
    sequence: u32,
) -> io::Result<Vec<u8>> {
    // For UDP the kernel takes the ends the other way round, as a packet to the socket would have them.
    let (protocol, local, remote) = match transport {
        Transport::Tcp => (6, local, remote),
        Transport::Udp => (17, remote, local),
    };
    let (family, local_ip, remote_ip) = match (local.ip(), remote.ip()) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            (AF_INET, octets4(local.octets()), octets4(remote.octets()))
        }
        (IpAddr::V6(local), IpAddr::V6(remote)) => (AF_INET6, local.octets(), remote.octets()),
        _ => return Err(io::Error::other("the two ends have different families")),
    };
    let mut bytes = Vec::with_capacity(REQUEST);
    let length = u32::try_from(REQUEST).map_err(io::Error::other)?;
    bytes.extend(length.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([family, protocol, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes()); // every state
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    bytes.extend(local_ip);
    bytes.extend(remote_ip);
    bytes.extend(0_u32.to_ne_bytes()); // any interface
    bytes.extend(u64::MAX.to_ne_bytes()); // any cookie
    Ok(bytes)
}

fn octets4(octets: [u8; 4]) -> [u8; 16] {
    let mut all = [0; 16];
    all[..4].copy_from_slice(&octets);
    all
}

fn reply(
    transport: Transport,
    message: &[u8],
    local: SocketAddr,
    remote: SocketAddr,
) -> io::Result<Option<Socket>> {
    match read_u16(message, 4)? {
        SOCK_DIAG_BY_FAMILY => {}
        NLMSG_ERROR => {
            let errno = i32::from_ne_bytes(read(message, 16)?).wrapping_neg();
            return match errno {
                libc::ENOENT => Ok(None),
                _ => Err(io::Error::from_raw_os_error(errno)),
            };
        }
        _ => return Err(malformed()),
    }
    // inet_diag_msg: four bytes, then the ports in network order. A listener on the same port has no peer.
    let ports = (u16::from_be_bytes(read(message, 20)?), u16::from_be_bytes(read(message, 22)?));
    let unconnected = transport == Transport::Udp && ports.1 == 0;
    if ports.0 != local.port() || !(unconnected || ports.1 == remote.port()) {
        return Ok(None);
    }
    let cookie = u64::from(read_u32(message, 60)?) | (u64::from(read_u32(message, 64)?) << 32);
    let mut cgroup = None;
    let mut at = REPLY;
    while at + 4 <= message.len() {
        let length = usize::from(read_u16(message, at)?);
        if length < 4 {
            return Err(malformed());
        }
        if read_u16(message, at + 2)? == INET_DIAG_CGROUP_ID {
            cgroup = Some(u64::from_ne_bytes(read(message, at + 4)?));
        }
        at += length.next_multiple_of(4);
    }
    let [state] = read(message, 17)?;
    Ok(Some(Socket { cookie, cgroup, state }))
}

fn read<const N: usize>(message: &[u8], at: usize) -> io::Result<[u8; N]> {
    message.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or_else(malformed)
}

fn read_u16(message: &[u8], at: usize) -> io::Result<u16> {
    read(message, at).map(u16::from_ne_bytes)
}

fn read_u32(message: &[u8], at: usize) -> io::Result<u32> {
    read(message, at).map(u32::from_ne_bytes)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is malformed")
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        os::linux::fs::MetadataExt as _,
    };

    use super::*;

    fn pair(bind: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(bind).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (client, server)
    }

    #[test]
    fn finds_exactly_the_clients_socket() {
        let mut diag = Diag::new().unwrap();
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let (client, server) = pair(bind);
            let peer = server.peer_addr().unwrap();
            let local = server.local_addr().unwrap();
            let found = diag.find(Transport::Tcp, peer, local).unwrap().unwrap();
            let other = diag.find(Transport::Tcp, local, peer).unwrap().unwrap();
            let cookie = found.cookie;
            assert_ne!(cookie, other.cookie, "the two ends are two sockets");
            assert_eq!(found.cgroup, own_cgroup());
            assert!(found.is_connected());
            // The server's end waits for its own close; the client's is gone, or its addresses linger.
            drop(client);
            let found = diag.find(Transport::Tcp, peer, local).unwrap();
            assert!(found.is_none_or(|left| !left.is_connected() || left.cookie == cookie), "{found:?}");
            assert!(diag.find(Transport::Tcp, local, peer).unwrap().unwrap().is_connected());
        }
    }

    #[test]
    fn a_listener_is_not_a_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let nobody = "127.0.0.1:9".parse().unwrap();
        assert_eq!(Diag::new().unwrap().find(Transport::Tcp, local, nobody).unwrap(), None);
        assert_eq!(Diag::new().unwrap().find(Transport::Tcp, nobody, local).unwrap(), None);
    }

    #[test]
    fn finds_the_socket_that_sent_a_datagram() {
        let mut diag = Diag::new().unwrap();
        for (bind, any) in [("127.0.0.1:0", "0.0.0.0:0"), ("[::1]:0", "[::]:0")] {
            let server = UdpSocket::bind(bind).unwrap();
            let local = server.local_addr().unwrap();
            let (unconnected, connected) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
            unconnected.send_to(b"x", local).unwrap();
            connected.connect(local).unwrap();
            connected.send(b"x").unwrap();
            for client in [unconnected, connected] {
                let peer = server.recv_from(&mut [0; 8]).unwrap().1;
                let found = diag.find(Transport::Udp, peer, local).unwrap().unwrap();
                assert_eq!(found.cookie, rustix::net::sockopt::socket_cookie(&client).unwrap());
                assert_eq!(found.cgroup, own_cgroup());
                drop(client);
                assert_eq!(diag.find(Transport::Udp, peer, local).unwrap(), None);
            }
        }
    }

    #[test]
    fn short_answers_are_errors() {
        let local = "127.0.0.1:1".parse().unwrap();
        for length in [0, 15, 20, 60] {
            let mut message = vec![0; length];
            if let Some(kind) = message.get_mut(4..6) {
                kind.copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
            }
            assert!(!matches!(reply(Transport::Tcp, &message, local, local), Ok(Some(_))), "{length}");
        }
    }

    fn own_cgroup() -> Option<u64> {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let root = crate::kernel::cgroup2_mount().unwrap();
        Some(std::fs::metadata(root.join(path)).unwrap().st_ino())
    }
}
