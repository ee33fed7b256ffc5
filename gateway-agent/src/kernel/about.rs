//! What each hook is for, told to operators: which kernel brings it, and what its absence means.

use gateway_common::Hook;

/// One hook in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// The first Linux with everything this program needs of its hook.
    pub since: &'static str,
    /// What jobs can do, or what no longer works, while it is off.
    pub without: &'static str,
    /// Off is acceptable: the kernel may lack it.
    pub optional: bool,
}

/// Versions are those of the hook, its link and the helpers that the program calls, in the kernel's own history.
#[must_use]
pub const fn about(hook: Hook) -> About {
    let (since, without) = match hook {
        Hook::Connect4 => {
            ("5.8", "IPv4 connects are not sent to the gateway; undeclared ones end as dropped packets")
        }
        Hook::Connect6 => {
            ("5.8", "IPv6 connects are not sent to the gateway; undeclared ones end as dropped packets")
        }
        Hook::Sendmsg4 => ("5.8", "IPv4 datagrams are judged as packets only, and refused without a reason"),
        Hook::Sendmsg6 => ("5.8", "IPv6 datagrams are judged as packets only, and refused without a reason"),
        Hook::Recvmsg4 => ("5.8", "IPv4 clients may see the gateway's address as the sender"),
        Hook::Recvmsg6 => ("5.8", "IPv6 clients may see the gateway's address as the sender"),
        Hook::Getpeername4 => ("5.8", "IPv4 clients see the gateway as their peer"),
        Hook::Getpeername6 => ("5.8", "IPv6 clients see the gateway as their peer"),
        Hook::Bind4 => ("5.8", "jobs bind to any IPv4 address, the gateway's port included"),
        Hook::Bind6 => ("5.8", "jobs bind to any IPv6 address, the gateway's port included"),
        Hook::SockCreate => {
            ("5.8", "jobs make raw, MPTCP, SCTP and UDP-Lite sockets, and no socket is known as theirs")
        }
        Hook::SockRelease => {
            ("5.9", "records of closed sockets stay until the map is full, and then connects are refused")
        }
        Hook::Setsockopt => ("6.1", "jobs set routing headers, marks, devices and transparent mode"),
        Hook::Egress => (
            "5.8",
            "packets of jobs leave unchecked: sockets from before enrolment, raw headers, forwarded ones",
        ),
        Hook::Ingress => ("5.8", "packets from anywhere reach sockets of jobs"),
        Hook::SkLookup => ("5.9", "any process can squat the gateway's port"),
        Hook::SocketCreate => {
            ("6.0 with bpf in lsm=", "jobs make AF_VSOCK sockets, and AF_PACKET ones with CAP_NET_RAW")
        }
        Hook::Bpf => ("6.0 with bpf in lsm=", "jobs with CAP_BPF load and attach programs of their own"),
        Hook::UnixStreamConnect => (
            "6.0 with bpf in lsm=",
            "jobs that `exec` did not make reach container engines, D-Bus and agents by their unix sockets",
        ),
        Hook::UnixMaySend => ("6.0 with bpf in lsm=", "the same, where such a socket takes datagrams"),
        Hook::FileReceive => {
            ("6.0 with bpf in lsm=", "a helper outside can pass a job a socket that it connected")
        }
        Hook::PtraceAccessCheck => (
            "6.0 with bpf in lsm=",
            "jobs look into processes of the same user outside, and take their sockets",
        ),
        Hook::TaskKill => ("6.0 with bpf in lsm=", "jobs signal processes of the same user outside"),
    };
    let optional = matches!(
        hook,
        Hook::SocketCreate
            | Hook::Bpf
            | Hook::UnixStreamConnect
            | Hook::UnixMaySend
            | Hook::FileReceive
            | Hook::PtraceAccessCheck
            | Hook::TaskKill
    );
    About { since, without, optional }
}
