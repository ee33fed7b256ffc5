//! Sockets that are neither TCP nor UDP, and other ways to the same system call.

use gateway_agent::kernel::Reason::{SocketKind, Undeclared};

use super::{
    BEYOND_V4, RESOURCE,
    steps::{ONE, addr, datagram, option, socket, stream, to},
};
use crate::{
    ask::Step,
    attempt::{Attempt, Expect, both, refused},
    ground::{FAR_V4, FAR_V6},
};

pub(super) fn attempts() -> Vec<Attempt> {
    let mut all = sockets();
    all.extend(families());
    all.extend(calls());
    all
}

/// Of the internet families, where the cgroup hook decides.
fn sockets() -> Vec<Attempt> {
    let mut all = Vec::new();
    let kinds: &[(&'static [u8], &str, i32, i32, bool)] = &[
        (&[9], "MPTCP", libc::SOCK_STREAM, libc::IPPROTO_MPTCP, false),
        (&[10], "SCTP stream", libc::SOCK_STREAM, libc::IPPROTO_SCTP, false),
        (&[10], "SCTP seqpacket", libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP, false),
        (&[10], "DCCP", 6, libc::IPPROTO_DCCP, false),
        (&[10], "L2TP", libc::SOCK_DGRAM, 115, false),
        (&[10], "SMC by IPPROTO_SMC", libc::SOCK_STREAM, 256, false),
        (&[11], "UDP-Lite", libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE, false),
        (&[15], "raw TCP", libc::SOCK_RAW, libc::IPPROTO_TCP, true),
        (&[15], "raw UDP", libc::SOCK_RAW, libc::IPPROTO_UDP, true),
        (&[15], "IPPROTO_RAW", libc::SOCK_RAW, libc::IPPROTO_RAW, true),
        (&[15, 10], "raw GRE", libc::SOCK_RAW, 47, true),
        (&[15, 10], "raw IPIP", libc::SOCK_RAW, 4, true),
    ];
    for (family, tail) in [(libc::AF_INET, ""), (libc::AF_INET6, " on IPv6")] {
        for (rows, name, kind, protocol, privileged) in kinds {
            let steps = vec![socket(family, *kind, *protocol)];
            let attempt = refused(rows, format!("{name}{tail}"), steps, &[SocketKind]).may_lack();
            all.push(if *privileged { attempt.plain(Expect::Kernel(&[libc::EPERM])) } else { attempt });
        }
        let icmp = if family == libc::AF_INET { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
        all.push(refused(
            &[12],
            format!("ping socket{tail}"),
            vec![socket(family, libc::SOCK_DGRAM, icmp)],
            &[SocketKind],
        ));
        all.push(
            refused(
                &[12],
                format!("raw ICMP{tail}"),
                vec![socket(family, libc::SOCK_RAW, icmp)],
                &[SocketKind],
            )
            .plain(Expect::Kernel(&[libc::EPERM])),
        );
    }
    all
}

/// Rows, name, family, type, protocol, and whether the kernel asks for a capability.
type Family = (&'static [u8], &'static str, i32, i32, i32, bool);

/// Families that no cgroup hook sees.
fn families() -> Vec<Attempt> {
    let mut all = Vec::new();
    let families: &[Family] = &[
        (&[16], "AF_PACKET raw", libc::AF_PACKET, libc::SOCK_RAW, 0, true),
        (&[16], "AF_PACKET datagram", libc::AF_PACKET, libc::SOCK_DGRAM, 0, true),
        (&[16], "AF_XDP", libc::AF_XDP, libc::SOCK_RAW, 0, true),
        (&[17], "AF_VSOCK stream", libc::AF_VSOCK, libc::SOCK_STREAM, 0, false),
        (&[17], "AF_VSOCK datagram", libc::AF_VSOCK, libc::SOCK_DGRAM, 0, false),
        (&[10], "AF_SMC", 43, libc::SOCK_STREAM, 0, false),
        (&[10], "AF_SMC for IPv6", 43, libc::SOCK_STREAM, 1, false),
        (&[10], "AF_RXRPC", 33, libc::SOCK_DGRAM, libc::AF_INET, false),
        (&[10], "AF_TIPC", 30, libc::SOCK_STREAM, 0, false),
        (&[10], "AF_RDS", 21, libc::SOCK_SEQPACKET, 0, false),
        (&[10], "AF_KCM", 41, libc::SOCK_DGRAM, 0, false),
        (&[10], "AF_CAN", libc::AF_CAN, libc::SOCK_RAW, 1, false),
        (&[10], "AF_BLUETOOTH", libc::AF_BLUETOOTH, libc::SOCK_STREAM, 3, false),
        (&[10], "AF_QIPCRTR", 42, libc::SOCK_DGRAM, 0, false),
        (&[37], "netlink to netfilter", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER, false),
        (&[37], "netlink to IPsec", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_XFRM, false),
    ];
    for (rows, name, family, kind, protocol, privileged) in families {
        let steps = vec![socket(*family, *kind, *protocol)];
        let attempt = both(rows, *name, steps, Expect::Lsm(vec![SocketKind])).may_lack();
        all.push(if *privileged { attempt.plain(Expect::Kernel(&[libc::EPERM])) } else { attempt });
    }
    all
}

/// The same connect by another door of the kernel.
fn calls() -> Vec<Attempt> {
    let mut all = Vec::new();
    let reasons = &[Undeclared];
    for dial in [format!("{FAR_V4}:80"), format!("[{FAR_V6}]:80"), format!("[::ffff:{BEYOND_V4}]:443")] {
        all.push(refused(
            &[8],
            format!("MSG_FASTOPEN to {dial}"),
            vec![stream(&dial), Step::SendTo { to: addr(&dial), flags: libc::MSG_FASTOPEN, control: None }],
            reasons,
        ));
        all.push(refused(
            &[8],
            format!("TCP_FASTOPEN_CONNECT to {dial}"),
            vec![stream(&dial), option(libc::IPPROTO_TCP, 30, &ONE), to(&dial)],
            reasons,
        ));
        for (polled, how) in [(false, "io_uring"), (true, "io_uring with SQPOLL")] {
            all.push(
                refused(
                    &[18],
                    format!("connect by {how} to {dial}"),
                    vec![stream(&dial), Step::RingConnect { to: addr(&dial), polled }],
                    reasons,
                )
                .may_lack(),
            );
            all.push(
                refused(
                    &[18],
                    format!("sendmsg by {how} to {dial}"),
                    vec![datagram(&dial), Step::RingSend { to: addr(&dial), polled }],
                    reasons,
                )
                .may_lack(),
            );
        }
        all.push(
            refused(
                &[19],
                format!("x32 connect to {dial}"),
                vec![stream(&dial), Step::X32Connect { to: addr(&dial) }],
                reasons,
            )
            .may_lack(),
        );
    }
    let beyond = format!("{BEYOND_V4}:443");
    all.push(
        refused(&[19], "32-bit connect", vec![Step::CompatConnect { to: beyond.parse().unwrap() }], reasons)
            .may_lack(),
    );
    let resource = format!("{FAR_V4}:{RESOURCE}");
    all.push(
        both(
            &[18],
            "connect by io_uring to the resource",
            vec![stream(&resource), Step::RingConnect { to: addr(&resource), polled: false }],
            Expect::Gateway { original: addr(&resource), shown: addr(&resource) },
        )
        .may_lack(),
    );
    all
}
