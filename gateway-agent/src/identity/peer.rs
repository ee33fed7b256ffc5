//! Who is at the other end of a unix socket, as the kernel says.

use std::os::{
    fd::{AsFd, AsRawFd, OwnedFd},
    unix::fs::MetadataExt as _,
};

use nix::sys::socket::{getsockopt, sockopt};

/// The process that connected, at the moment it did.
#[derive(Debug)]
pub struct Peer {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
    /// Holds the process against reuse of its pid. Taken from the socket on kernels that can (6.5 and later);
    /// on older ones opened by pid after accept, which leaves a window between connect and accept.
    pidfd: Option<OwnedFd>,
}

impl Peer {
    /// Asks the kernel about a connected unix socket.
    pub fn of(socket: &impl AsFd) -> std::io::Result<Self> {
        let cred = getsockopt(socket, sockopt::PeerCredentials)?;
        let pidfd = match getsockopt(socket, sockopt::PeerPidfd) {
            Ok(fd) => Some(fd),
            Err(_) => rustix::process::Pid::from_raw(cred.pid())
                .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()),
        };
        Ok(Self { pid: cred.pid(), uid: cred.uid(), gid: cred.gid(), pidfd })
    }

    /// A process by its number, held against reuse of it.
    pub fn process(pid: i32) -> std::io::Result<Self> {
        let gone = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let raw = rustix::process::Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() > 0);
        let pidfd = rustix::process::pidfd_open(raw.ok_or_else(gone)?, rustix::process::PidfdFlags::empty())?;
        let owner = std::fs::metadata(format!("/proc/{pid}"))?;
        Ok(Self { pid, uid: owner.uid(), gid: owner.gid(), pidfd: Some(pidfd) })
    }

    /// This process, for tests and for callers that act for themselves.
    pub fn this_process() -> Self {
        Self {
            pid: i32::try_from(std::process::id()).unwrap_or_default(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            pidfd: None,
        }
    }

    /// Whether `pid` still is that process. Asked *after* reading anything under `/proc/PID`, it proves that
    /// what was read was this process's. Without a pidfd the answer is yes.
    pub fn still_there(&self) -> bool {
        let Some(fd) = &self.pidfd else { return self.pid > 0 };
        let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
        std::fs::read_to_string(path).is_ok_and(|info| {
            info.lines()
                .find_map(|l| l.strip_prefix("Pid:"))
                .is_some_and(|pid| pid.trim().parse() == Ok(self.pid))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_peer_of_a_socket_pair_is_this_process() {
        let (a, _b) = UnixStream::pair().unwrap();
        let peer = Peer::of(&a).unwrap();
        assert_eq!(peer.pid, std::process::id() as i32);
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
        assert!(peer.still_there());
    }

    #[test]
    fn a_dead_process_is_noticed() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        child.wait().unwrap();
        let peer = Peer { pid: child.id() as i32, uid: 0, gid: 0, pidfd: Some(pidfd) };
        assert!(!peer.still_there());
    }
}
