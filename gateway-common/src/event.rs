//! What the kernel programs report: events, and the counters that share their reasons.

use crate::Addr;

/// One refusal. Events can be lost when nobody reads ([`Reason::EventLost`] counts those); they inform, and
/// never decide.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub at_ns: u64,
    /// Cgroup id of the job; 0 when the process or socket belongs to none.
    pub job: u64,
    /// Socket cookie; 0 where the hook has none.
    pub cookie: u64,
    /// The destination, or the peer of a packet; canonical where it has such a form.
    pub addr: Addr,
    /// Network order.
    pub port: u16,
    /// A [`Reason`].
    pub reason: u16,
    /// A [`Hook`].
    pub hook: u8,
    /// Address family of the socket or packet.
    pub family: u8,
    /// IP protocol.
    pub protocol: u8,
    /// 1 when it was let through all the same, because the mode is to observe.
    pub observed: u8,
    /// Socket type, or option level; 0 elsewhere.
    pub kind: u32,
    /// Option name; 0 elsewhere.
    pub detail: u32,
    /// Process; 0 in hooks that run for packets, whose current process may be anyone.
    pub pid: u32,
    pub uid: u32,
    pub comm: [u8; 16],
}

const _: () = assert!(size_of::<Event>() == 80);

#[cfg(feature = "user")]
mod pod {
    // SAFETY: repr(C), Copy, made of integers only, and its size above leaves no room for padding.
    #[expect(unsafe_code, reason = "aya's marker for types that may cross into the kernel")]
    unsafe impl aya::Pod for super::Event {}
}

macro_rules! coded {
    ($(#[$meta:meta])* $name:ident: $repr:ty { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[repr($repr)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// Stable name for metrics and logs.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            pub const fn code(self) -> $repr {
                self as $repr
            }

            /// The variant that a map or event names; `None` for a program newer than this build.
            pub fn from_code(code: $repr) -> Option<Self> {
                Self::ALL.get(usize::from(code)).copied()
            }
        }
    };
}

coded! {
    /// Why something was let through, refused or lost. Index into the counters.
    Reason: u16 {
        /// A connect was sent to the gateway.
        Redirected = "redirected",
        /// A connect or datagram went to a destination that jobs may reach directly.
        Allowed = "allowed",
        /// An event did not fit into the ring buffer.
        EventLost = "event_lost",
        /// The destination is neither a resource nor allowed.
        Undeclared = "undeclared",
        /// A process outside every job asked for a resource's address.
        Protected = "protected",
        /// The address names its host through a tunnel or translator.
        Tunnelled = "tunnelled",
        /// The agent has not been heard of for too long.
        Stale = "stale",
        /// The original destination could not be stored.
        OriginFull = "origin_full",
        /// The job has too many redirected sockets open.
        Quota = "quota",
        /// The socket was not created by the job that uses it.
        ForeignSocket = "foreign_socket",
        /// The gateway does not listen in the socket's network namespace.
        UnknownNetns = "unknown_netns",
        /// Family, type or protocol of the socket is not on the list.
        SocketKind = "socket_kind",
        /// The socket option could steer packets around the gateway.
        SocketOption = "socket_option",
        /// A job may bind to loopback only.
        BindAddress = "bind_address",
        /// A job's packet was not going to the gateway or an allowed destination.
        PacketOut = "packet_out",
        /// A packet for a job's socket did not come from the gateway or an allowed destination.
        PacketIn = "packet_in",
        /// A job's packet carried IP options, a routing header or another extension header.
        PacketHeader = "packet_header",
        /// The gateway does not listen now.
        NoListener = "no_listener",
        /// The programs have no settings.
        NotConfigured = "not_configured",
        /// Link-local, multicast, broadcast or a cloud's metadata service, and no exception names it.
        Special = "special",
        /// A job may not call bpf(2).
        BpfCall = "bpf_call",
        /// Foreign programs work on the job's cgroup, or the gateway's own do not.
        Quarantined = "quarantined",
        /// A client closed its connection to the gateway before the agent accepted it; it is served all the same.
        ClosedEarly = "closed_early",
        /// A job may talk to its own unix sockets and the gateway's only.
        UnixSocket = "unix_socket",
        /// A job receives no network socket that somebody else made.
        ForeignDescriptor = "foreign_descriptor",
        /// A job looks into and signals its own processes only.
        ForeignProcess = "foreign_process",
    }
}

coded! {
    /// Where in the kernel it happened.
    Hook: u8 {
        Connect4 = "connect4",
        Connect6 = "connect6",
        Sendmsg4 = "sendmsg4",
        Sendmsg6 = "sendmsg6",
        Recvmsg4 = "recvmsg4",
        Recvmsg6 = "recvmsg6",
        Getpeername4 = "getpeername4",
        Getpeername6 = "getpeername6",
        Bind4 = "bind4",
        Bind6 = "bind6",
        SockCreate = "sock_create",
        SockRelease = "sock_release",
        Setsockopt = "setsockopt",
        Egress = "egress",
        Ingress = "ingress",
        SkLookup = "sk_lookup",
        /// BPF LSM, on kernels that have it: sockets of families that no cgroup hook sees.
        SocketCreate = "socket_create",
        /// BPF LSM: the bpf(2) system call.
        Bpf = "bpf",
        /// BPF LSM: connecting to a unix socket.
        UnixStreamConnect = "unix_stream_connect",
        /// BPF LSM: a datagram to a unix socket.
        UnixMaySend = "unix_may_send",
        /// BPF LSM: a descriptor from another process.
        FileReceive = "file_receive",
        /// BPF LSM: ptrace and its relatives.
        PtraceAccessCheck = "ptrace_access_check",
        /// BPF LSM: a signal.
        TaskKill = "task_kill",
    }
}

impl Reason {
    /// Whether it means that something was refused.
    pub const fn is_denial(self) -> bool {
        !matches!(self, Self::Redirected | Self::Allowed | Self::EventLost | Self::ClosedEarly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_positions() {
        for (position, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(usize::from(reason.code()), position);
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
        }
        assert_eq!(Reason::from_code(Reason::COUNT as u16), None);
        assert_eq!(Hook::from_code(Hook::SkLookup.code()), Some(Hook::SkLookup));
    }
}
