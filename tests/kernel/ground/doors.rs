//! What stands open on a host beside the network: a daemon's unix sockets, and processes of the job's own user.

use std::{
    fs,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixDatagram, UnixListener},
    },
    path::PathBuf,
};

use super::{Actor, Ground, User, emulated};

/// Outside of every job, and there until this is dropped.
pub(crate) struct Doors {
    /// Listens, like a container engine, a database or a keyring.
    pub(crate) stream: PathBuf,
    /// Receives, like syslog or systemd.
    pub(crate) datagram: PathBuf,
    neighbours: [Actor; 2],
    _sockets: (UnixListener, UnixDatagram),
}

impl Doors {
    pub(crate) fn open(ground: &Ground) -> Self {
        let (stream, datagram) = (ground.scratch.join("stream"), ground.scratch.join("datagram"));
        let sockets = (UnixListener::bind(&stream).unwrap(), UnixDatagram::bind(&datagram).unwrap());
        for path in [&stream, &datagram] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        // Another security module would refuse first, and this is about ours. In a machine of the test's own only.
        let yama = "/proc/sys/kernel/yama/ptrace_scope";
        if emulated() && fs::exists(yama).unwrap() {
            fs::write(yama, "0").unwrap();
        }
        let neighbours = User::JOBS.map(|user| ground.actor_as("other", user));
        Self { stream, datagram, neighbours, _sockets: sockets }
    }

    /// Pids of processes outside, each of the user at the same place of [`User::JOBS`].
    pub(crate) fn neighbours(&self) -> [u32; 2] {
        self.neighbours.each_ref().map(Actor::pid)
    }
}
