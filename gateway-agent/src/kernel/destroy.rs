//! Ends sockets that a cgroup had before it was enrolled: NETLINK_SOCK_DIAG with SOCK_DESTROY (linux/inet_diag.h,
//! linux/sock_diag.h).
//!
//! The packet hooks cut such sockets off in any case, because packets are judged by their socket's cgroup. This
//! makes it known at once: whoever reads from one gets ECONNABORTED instead of waiting.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use rustix::{
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const INET_DIAG_CGROUP_ID: u16 = 21;
/// nlmsghdr, inet_diag_req_v2, inet_diag_msg, inet_diag_sockid.
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
const MESSAGE: usize = HEADER + 72;
const SOCKID: usize = 48;

/// What became of the sockets.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Destroyed {
    pub sockets: usize,
    /// What this kernel does not do (CONFIG_INET_DIAG_DESTROY, udp_diag); those sockets only lose their packets.
    pub unsupported: BTreeSet<String>,
}

/// Destroys the TCP and UDP sockets that were made in a cgroup or below it, in the calling thread's network
/// namespace and in those of the cgroup's processes. Takes milliseconds; it lists all sockets of the host.
///
/// # Errors
/// When a namespace cannot be entered or the kernel's answers are malformed.
pub fn destroy_sockets(cgroup: &Path) -> io::Result<Destroyed> {
    let mut ids = BTreeSet::new();
    let mut pids = BTreeSet::new();
    survey(cgroup, &mut ids, &mut pids)?;
    let own = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let mut seen = BTreeSet::from([own]);
    let mut total = destroy_here(&ids)?;
    for pid in pids {
        // A process that is gone has left its namespace to others, who are asked too.
        let Ok(netns) = File::open(format!("/proc/{pid}/ns/net")) else { continue };
        if !seen.insert(netns.metadata()?.ino()) {
            continue;
        }
        // A thread of its own enters the namespace and never comes back.
        let there = std::thread::scope(|scope| {
            let enter = scope.spawn(|| {
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
                destroy_here(&ids)
            });
            enter.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
        })?;
        total.sockets += there.sockets;
        total.unsupported.extend(there.unsupported);
    }
    Ok(total)
}

/// Ids and processes of a cgroup and everything below it.
fn survey(cgroup: &Path, ids: &mut BTreeSet<u64>, pids: &mut BTreeSet<u32>) -> io::Result<()> {
    ids.insert(fs::metadata(cgroup)?.ino());
    let procs = fs::read_to_string(cgroup.join("cgroup.procs"))?;
    pids.extend(procs.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            match survey(&entry.path(), ids, pids) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn destroy_here(cgroups: &BTreeSet<u64>) -> io::Result<Destroyed> {
    let mut diag = Diag::new()?;
    let mut result = Destroyed::default();
    for (protocol, name) in [(6, "TCP"), (17, "UDP")] {
        for family in [2, 10] {
            let found = match diag.list(family, protocol) {
                Ok(found) => found,
                Err(error) if is_unsupported(&error) => {
                    result.unsupported.insert(format!("listing {name} sockets: {error}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            for socket in found.iter().filter(|socket| cgroups.contains(&socket.cgroup)) {
                match diag.destroy(family, protocol, socket) {
                    Ok(true) => result.sockets += 1,
                    Ok(false) => {}
                    Err(error) if is_unsupported(&error) => {
                        result.unsupported.insert(format!("destroying {name} sockets: {error}"));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(result)
}

/// No module for the protocol, or built without CONFIG_INET_DIAG_DESTROY.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOENT | libc::EINVAL))
}

struct Found {
    id: [u8; SOCKID],
    cgroup: u64,
}

struct Diag {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Diag {
    fn new() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?;
        // The kernel fills at most 32 KiB at a time.
        Ok(Self { socket, sequence: 0, buffer: vec![0; 64 * 1024] })
    }

    fn ask(&mut self, kind: u16, flags: u16, head: [u8; 2], id: &[u8; SOCKID]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(REQUEST);
        bytes.extend(u32::try_from(REQUEST).map_err(io::Error::other)?.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(head);
        bytes.extend([0, 0]);
        bytes.extend(u32::MAX.to_ne_bytes()); // every state
        bytes.extend(id);
        send(&self.socket, &bytes, SendFlags::empty())?;
        Ok(())
    }

    /// Every socket of a family and protocol that belongs to a cgroup.
    fn list(&mut self, family: u8, protocol: u8) -> io::Result<Vec<Found>> {
        self.ask(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, [family, protocol], &[0; SOCKID])?;
        let mut found = Vec::new();
        loop {
            let (_, length) = recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty())?;
            let mut rest = self.buffer.get(..length).ok_or_else(malformed)?;
            while !rest.is_empty() {
                let (message, after) = split(rest)?;
                rest = after;
                if u32::from_ne_bytes(read(message, 8)?) != self.sequence {
                    continue;
                }
                match u16::from_ne_bytes(read(message, 4)?) {
                    NLMSG_DONE => {
                        // A dump that fails at once says so here.
                        return match i32::from_ne_bytes(read(message, HEADER)?) {
                            code if code < 0 => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                            _ => Ok(found),
                        };
                    }
                    NLMSG_ERROR => return Err(errno(message)?),
                    SOCK_DIAG_BY_FAMILY => found.extend(read_socket(message)?),
                    _ => return Err(malformed()),
                }
            }
        }
    }

    /// `false` when it was closed meanwhile.
    fn destroy(&mut self, family: u8, protocol: u8, socket: &Found) -> io::Result<bool> {
        self.ask(SOCK_DESTROY, NLM_F_ACK, [family, protocol], &socket.id)?;
        loop {
            let (_, length) = recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty())?;
            let (message, _) = split(self.buffer.get(..length).ok_or_else(malformed)?)?;
            if u32::from_ne_bytes(read(message, 8)?) != self.sequence {
                continue;
            }
            let error = errno(message)?;
            return match error.raw_os_error() {
                Some(0) => Ok(true),
                Some(libc::ENOENT) => Ok(false),
                _ => Err(error),
            };
        }
    }
}

/// The first message, and what follows it.
fn split(bytes: &[u8]) -> io::Result<(&[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(read(bytes, 0)?)).map_err(io::Error::other)?;
    if length < HEADER {
        return Err(malformed());
    }
    let message = bytes.get(..length).ok_or_else(malformed)?;
    Ok((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn errno(message: &[u8]) -> io::Result<io::Error> {
    if u16::from_ne_bytes(read(message, 4)?) != NLMSG_ERROR {
        return Err(malformed());
    }
    Ok(io::Error::from_raw_os_error(i32::from_ne_bytes(read(message, HEADER)?).wrapping_neg()))
}

/// `None`: the socket is in no cgroup, as sockets in TIME_WAIT are.
fn read_socket(message: &[u8]) -> io::Result<Option<Found>> {
    // inet_diag_msg: family, state, timer, retransmits, then the inet_diag_sockid.
    let id = read(message, HEADER + 4)?;
    let mut at = MESSAGE;
    while at + 4 <= message.len() {
        let length = usize::from(u16::from_ne_bytes(read(message, at)?));
        if length < 4 {
            return Err(malformed());
        }
        if u16::from_ne_bytes(read(message, at + 2)?) == INET_DIAG_CGROUP_ID {
            return Ok(Some(Found { id, cgroup: u64::from_ne_bytes(read(message, at + 4)?) }));
        }
        at += length.next_multiple_of(4);
    }
    Ok(None)
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; N]> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is malformed")
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    /// The very sockets, without destroying anything.
    #[test]
    fn sockets_are_listed_with_their_cgroup() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let datagrams = UdpSocket::bind("[::1]:0").unwrap();
        let mut diag = Diag::new().unwrap();
        let own = crate::kernel::cgroup2_mount().unwrap().join(
            fs::read_to_string("/proc/self/cgroup")
                .unwrap()
                .lines()
                .find_map(|line| line.strip_prefix("0::/"))
                .unwrap(),
        );
        let own = fs::metadata(own).unwrap().ino();
        let has = |found: &[Found], port: u16| {
            found.iter().any(|socket| socket.id[..2] == port.to_be_bytes() && socket.cgroup == own)
        };
        let tcp = diag.list(2, 6).unwrap();
        assert!(has(&tcp, listener.local_addr().unwrap().port()));
        let udp = diag.list(10, 17).unwrap();
        assert!(has(&udp, datagrams.local_addr().unwrap().port()));
    }

    #[test]
    fn malformed_answers_are_errors() {
        for bytes in [&[][..], &[0; 15], &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[200; 40]] {
            assert!(split(bytes).is_err(), "{bytes:?}");
        }
        assert!(read_socket(&[0; 60]).is_err());
    }
}
