//! What a test asks an actor to do, and what the actor saw: one JSON line each.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One attempt. Sockets that it leaves open stay open until the next [`Ask::CloseAll`] or the actor's end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Connect, non-blocking, waiting a few seconds at most.
    Connect {
        to: SocketAddr,
    },
    /// Connect from a bound source address.
    ConnectFrom {
        from: SocketAddr,
        to: SocketAddr,
    },
    /// Create a TCP socket for a later [`Ask::ConnectPrepared`].
    Prepare {
        v6: bool,
    },
    /// Connect the prepared socket.
    ConnectPrepared {
        to: SocketAddr,
    },
    /// One datagram, with or without connecting first.
    Datagram {
        to: SocketAddr,
        connected: bool,
    },
    /// A datagram that carries an IPv6 routing header through `via` as ancillary data.
    RoutedDatagram {
        to: SocketAddr,
        via: std::net::Ipv6Addr,
    },
    /// socket(2) and nothing else.
    Socket {
        family: i32,
        kind: i32,
        protocol: i32,
    },
    /// setsockopt(2) on a fresh TCP socket.
    Option {
        v6: bool,
        level: i32,
        name: i32,
        value: Vec<u8>,
    },
    /// Bind and listen.
    Listen {
        on: SocketAddr,
    },
    /// Move into another cgroup, given by its directory.
    Enter {
        cgroup: std::path::PathBuf,
    },
    /// Connect and close, that many times; how long it took.
    Cycle {
        to: SocketAddr,
        count: u32,
    },
    CloseAll,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done {
        /// getpeername(2) of what was connected.
        peer: Option<SocketAddr>,
        local: Option<SocketAddr>,
        micros: u64,
    },
    Failed {
        errno: i32,
        micros: u64,
    },
}
