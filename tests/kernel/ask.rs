//! What a test asks an actor to do, and what the actor saw: one JSON line each.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// One attempt. Sockets that it leaves open stay open until the next [`Ask::CloseAll`] or the actor's end;
/// those of a script until the next script.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Connect, non-blocking, waiting a few seconds at most.
    Connect {
        to: SocketAddr,
    },
    /// Connect from a bound source address; closing it is a reset.
    ConnectFrom {
        from: SocketAddr,
        to: SocketAddr,
    },
    /// Connect, write these words and the number of the turn, and close at once; that many times.
    Leave {
        from: Option<SocketAddr>,
        to: SocketAddr,
        words: String,
        count: u32,
    },
    /// Create a TCP socket for a later [`Ask::ConnectPrepared`].
    Prepare {
        v6: bool,
    },
    /// Pass the prepared socket to itself by SCM_RIGHTS.
    PassPrepared,
    /// Connect the prepared socket.
    ConnectPrepared {
        to: SocketAddr,
    },
    /// One datagram, with or without connecting first.
    Datagram {
        to: SocketAddr,
        connected: bool,
    },
    /// Bind and listen.
    Listen {
        on: SocketAddr,
    },
    /// Move into another cgroup, given by its directory.
    Enter {
        cgroup: PathBuf,
    },
    /// Connect and close, that many times; how long it took.
    Cycle {
        to: SocketAddr,
        count: u32,
    },
    /// The same for a connect that is refused, and for datagrams: connect, or send unconnected.
    Repeat {
        what: Repeat,
        to: SocketAddr,
        count: u32,
    },
    /// Send this many MiB to a listener that swallows them.
    Bulk {
        to: SocketAddr,
        mebibytes: u32,
    },
    /// Steps one after the other, in a process of their own.
    Script(Vec<Step>),
    /// Random socket calls.
    Random {
        seed: u64,
        millis: u64,
        raw: bool,
    },
    /// Allowed and forbidden connects by turns.
    Hammer {
        millis: u64,
        redirected: SocketAddr,
        allowed: SocketAddr,
        forbidden: SocketAddr,
    },
    CloseAll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Repeat {
    RefusedConnect,
    DatagramConnect,
    DatagramSend,
}

/// One system call, on the socket that the latest [`Step::Socket`] made. The first that fails ends the script.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Step {
    Socket {
        family: i32,
        kind: i32,
        protocol: i32,
    },
    Option {
        level: i32,
        name: i32,
        value: Vec<u8>,
    },
    Bind {
        to: SocketAddr,
    },
    /// Waits for the connection for a second.
    Connect {
        to: SocketAddr,
    },
    /// connect(2) to AF_UNSPEC.
    Disconnect,
    /// send(2) on a connected socket.
    Send,
    /// sendto(2) or sendmsg(2), with ancillary data or without.
    SendTo {
        to: SocketAddr,
        flags: i32,
        control: Option<Control>,
    },
    Listen,
    /// recv(2), waiting for a second.
    Receive,
    /// recvfrom(2), waiting for a second; fails when it comes from anybody else.
    ReceiveFrom {
        from: SocketAddr,
    },
    /// IORING_OP_CONNECT on the socket.
    RingConnect {
        to: SocketAddr,
        polled: bool,
    },
    /// IORING_OP_SENDMSG on the socket.
    RingSend {
        to: SocketAddr,
        polled: bool,
    },
    /// socket(2) and connect(2) by `int 0x80`; IPv4 only.
    CompatConnect {
        to: std::net::SocketAddrV4,
    },
    /// connect(2) by its x32 number.
    X32Connect {
        to: SocketAddr,
    },
    /// unshare(2).
    Unshare {
        user: bool,
        net: bool,
    },
    /// setns(2) into a network namespace.
    Setns {
        path: PathBuf,
    },
    EnterCgroup {
        path: PathBuf,
    },
    MakeDir {
        path: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    Unmount {
        path: PathBuf,
    },
    /// BPF_OBJ_GET and BPF_LINK_DETACH.
    DetachPin {
        path: PathBuf,
    },
    /// BPF_PROG_LOAD of two instructions.
    LoadProgram,
    UnixConnect {
        path: PathBuf,
    },
    /// One datagram to a unix socket.
    UnixSend {
        path: PathBuf,
    },
    /// Everything that a job may do with unix sockets, descriptors and processes of its own.
    OwnDoors,
    /// kill(2) with signal 0.
    Signal {
        pid: u32,
    },
    /// Passes the latest socket to itself by SCM_RIGHTS.
    PassSocket,
    /// A descriptor by SCM_RIGHTS from whoever listens there; it becomes the socket.
    ReceiveSocket {
        path: PathBuf,
    },
    /// A descriptor of another process; it becomes the socket.
    StealSocket {
        pid: u32,
        fd: i32,
    },
    /// Sets the process's name.
    Comm {
        name: String,
    },
}

/// Ancillary data of one message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Control {
    pub(crate) level: i32,
    pub(crate) kind: i32,
    pub(crate) data: Vec<u8>,
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
        /// 0 when no system call failed, but the process died of it.
        errno: i32,
        micros: u64,
        /// Of a script: which step.
        step: usize,
    },
    Hammered(Hammered),
    /// Random calls: how many, and how many of them were refused with EPERM.
    Called {
        calls: u64,
        refused: u64,
    },
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Hammered {
    pub(crate) allowed: u64,
    /// Allowed ones that were refused all the same.
    pub(crate) refused: u64,
    /// The latest errno of those.
    pub(crate) errno: i32,
    pub(crate) forbidden: u64,
    /// Forbidden ones that were not refused.
    pub(crate) passed: u64,
}
