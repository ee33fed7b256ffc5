//! Network namespaces in which the gateway listens: its own, and those of jobs.
//!
//! A socket belongs to a namespace for good, and so does the sk_lookup hook; what ties the two is a slot of the
//! socket map. Which namespaces are known is decided by the agent; a socket in any other is refused everything.

use std::{
    fs::File,
    net::{TcpListener, UdpSocket},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
};

use gateway_common::{Offsets, limits};

use super::{Error, Kernel, bpffs, hooks, maps, sys};

/// The slot of the agent's own namespace.
const OWN: u32 = 0;

/// The gateway's sockets in one network namespace, each IPv4 then IPv6, all on loopback.
#[derive(Debug, Clone, Copy)]
pub struct Sockets<'a> {
    /// Their ports do not matter.
    pub tcp: [&'a TcpListener; 2],
    /// Bound to the virtual port: answers carry it as their source. `None`: the gateway answers no resolver's
    /// questions.
    pub udp: Option<[&'a UdpSocket; 2]>,
}

/// Why the gateway does not listen in a namespace.
#[derive(Debug, thiserror::Error)]
pub enum NotFollowed {
    #[error(
        "the network namespace belongs to a user namespace that is not the host's, so whoever made it could bend its traffic; make it as the host's root, as container engines do when they are not rootless"
    )]
    Owner,
    #[error("reading {what} of the network namespace: {source}")]
    System { what: &'static str, source: std::io::Error },
    #[error("{} network namespaces are followed already; that is the limit", limits::MAX_NETNS)]
    Full,
    #[error(transparent)]
    Kernel(#[from] Error),
}

impl Kernel {
    /// Makes these sockets the gateway in their network namespace, the agent's own. Every other namespace is
    /// unknown until it is followed again.
    pub fn set_listeners(&self, sockets: &Sockets<'_>) -> Result<(), Error> {
        let own = cookie(sockets)?;
        let mut maps = self.maps();
        for (cookie, _) in maps.namespaces()? {
            if cookie != own {
                maps.remove_namespace(cookie)?;
            }
        }
        maps.set_listeners(OWN, sockets)?;
        maps.add_namespace(own, OWN)
    }

    /// Makes these sockets the gateway in one more namespace, the one that `netns` opens and in which they were
    /// made. Returns its cookie, for [`Kernel::leave`].
    pub fn follow(&self, netns: &File, sockets: &Sockets<'_>) -> Result<u64, NotFollowed> {
        let system = |what| move |source| NotFollowed::System { what, source };
        trusted(netns.as_fd())?;
        let inode = netns.metadata().map_err(system("the inode"))?.ino();
        let cookie = cookie(sockets)?;
        let slot = {
            let maps = self.maps();
            let known = maps.namespaces()?;
            match known.iter().find(|(known, _)| *known == cookie) {
                Some((_, slot)) => *slot,
                None => (OWN + 1..limits::MAX_NETNS)
                    .find(|slot| known.iter().all(|(_, taken)| taken != slot))
                    .ok_or(NotFollowed::Full)?,
            }
        };
        let pin_dir = &self.config.pin_dir;
        let mut ebpf = maps::load(pin_dir, slot, cookie, Offsets::UNKNOWN)?;
        self.maps().set_listeners(slot, sockets)?;
        // The pin keeps it.
        let _link =
            hooks::install_in(&mut ebpf, netns.as_fd(), inode, &bpffs::namespace_link(cookie), pin_dir)?;
        // Known to the connect hooks last: until here they refuse.
        self.maps().add_namespace(cookie, slot)?;
        Ok(cookie)
    }

    /// The gateway listens there no more; sockets in it are refused everything.
    pub fn leave(&self, cookie: u64) -> Result<(), Error> {
        self.maps().remove_namespace(cookie)?;
        self.unpin(cookie)
    }

    /// Detaches from namespaces that nobody follows any more. Call it once all are followed that shall be.
    pub fn leave_unknown(&self) -> Result<(), Error> {
        let failed = |source| Error::PinDir { path: self.config.pin_dir.clone(), step: "reading it", source };
        let known = self.maps().namespaces()?;
        for cookie in bpffs::namespaces(&self.config.pin_dir).map_err(failed)? {
            if known.iter().all(|(known, _)| *known != cookie) {
                self.unpin(cookie)?;
            }
        }
        Ok(())
    }

    fn unpin(&self, cookie: u64) -> Result<(), Error> {
        let failed =
            |source| Error::PinDir { path: self.config.pin_dir.clone(), step: "removing a pin", source };
        bpffs::remove_namespace(&self.config.pin_dir, cookie).map_err(failed)
    }
}

/// Whether whoever may change the namespace may change the host's as well: it belongs to the agent's own user
/// namespace. A job that makes one with `unshare -Urn` owns it, and could bend what happens inside.
pub fn trusted(netns: BorrowedFd<'_>) -> Result<(), NotFollowed> {
    let system = |what| move |source| NotFollowed::System { what, source };
    let owner = match sys::ns_owner(netns) {
        // Not even ours to see.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Err(NotFollowed::Owner),
        owner => File::from(owner.map_err(system("the owner"))?),
    };
    let own = std::fs::metadata("/proc/self/ns/user").map_err(system("our own owner"))?;
    let owner = owner.metadata().map_err(system("the owner"))?;
    if (owner.dev(), owner.ino()) == (own.dev(), own.ino()) { Ok(()) } else { Err(NotFollowed::Owner) }
}

fn cookie(sockets: &Sockets<'_>) -> Result<u64, Error> {
    let [socket, _] = sockets.tcp;
    sys::netns_cookie(socket.as_fd())
        .map_err(|source| Error::System { what: "reading the listener's network namespace", source })
}
