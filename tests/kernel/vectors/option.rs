//! Socket options and ancillary data that steer packets.

use gateway_agent::kernel::Reason::{BindAddress, PacketHeader, SocketOption, Undeclared};

use super::{
    BEYOND_V4, BEYOND_V6,
    steps::{ONE, addr, datagram, option, send_with, socket, stream, to},
};
use crate::{
    ask::Step,
    attempt::{Attempt, Expect, both, refused},
    ground::{FAR_V4, FAR_V6},
};

const V4: bool = false;
const V6: bool = true;

/// Rows, name, family, level, number, value.
type Setting<'a> = (&'static [u8], &'a str, bool, i32, i32, &'a [u8]);

pub(super) fn attempts() -> Vec<Attempt> {
    let mut all = Vec::new();
    let one = &ONE[..];
    let routing = routing_header(FAR_V6);
    let loose = source_route();
    let options: &[Setting<'_>] = &[
        (&[7], "IPV6_RTHDR", V6, libc::IPPROTO_IPV6, 57, &routing),
        (&[7], "IPV6_2292RTHDR", V6, libc::IPPROTO_IPV6, 5, &routing),
        (&[7], "IPV6_RTHDRDSTOPTS", V6, libc::IPPROTO_IPV6, 55, &[0; 8]),
        (&[7], "IPV6_HOPOPTS", V6, libc::IPPROTO_IPV6, 54, &[0; 8]),
        (&[7], "IPV6_DSTOPTS", V6, libc::IPPROTO_IPV6, 59, &[0; 8]),
        (&[7], "IPV6_2292PKTOPTIONS", V6, libc::IPPROTO_IPV6, 6, &[0; 24]),
        (&[7], "IPV6_NEXTHOP", V6, libc::IPPROTO_IPV6, 9, &[0; 28]),
        (&[7], "IP_OPTIONS with a source route", V4, libc::IPPROTO_IP, libc::IP_OPTIONS, &loose),
        (&[4], "IPV6_ADDRFORM", V6, libc::IPPROTO_IPV6, 1, &[2, 0, 0, 0]),
        (&[15], "IP_HDRINCL", V4, libc::IPPROTO_IP, libc::IP_HDRINCL, one),
        (&[15], "IPV6_HDRINCL", V6, libc::IPPROTO_IPV6, 36, one),
        (&[36], "SO_BINDTODEVICE", V4, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"veth0\0"),
        (&[36], "SO_BINDTODEVICE on IPv6", V6, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"veth0\0"),
        (&[36], "SO_BINDTOIFINDEX", V4, libc::SOL_SOCKET, 62, &[2, 0, 0, 0]),
        (&[36], "IP_UNICAST_IF", V4, libc::IPPROTO_IP, 50, &[0, 0, 0, 2]),
        (&[36], "IPV6_UNICAST_IF", V6, libc::IPPROTO_IPV6, 76, &[0, 0, 0, 2]),
        (&[36], "IP_MULTICAST_IF", V4, libc::IPPROTO_IP, 32, &[198, 51, 100, 1]),
        (&[36], "IP_ADD_MEMBERSHIP", V4, libc::IPPROTO_IP, 35, &[224, 0, 0, 9, 198, 51, 100, 1]),
        (&[36], "IPV6_JOIN_GROUP", V6, libc::IPPROTO_IPV6, 20, &[0xff; 20]),
        (&[36], "MCAST_JOIN_GROUP", V4, libc::IPPROTO_IP, 42, &[0; 136]),
        (&[36], "IP_FREEBIND", V4, libc::IPPROTO_IP, libc::IP_FREEBIND, one),
        (&[36], "IPV6_FREEBIND", V6, libc::IPPROTO_IPV6, 78, one),
        (&[37], "SO_MARK", V4, libc::SOL_SOCKET, libc::SO_MARK, one),
        (&[37], "SO_MARK on IPv6", V6, libc::SOL_SOCKET, libc::SO_MARK, one),
        (&[37], "IP_TRANSPARENT", V4, libc::IPPROTO_IP, libc::IP_TRANSPARENT, one),
        (&[37], "IPV6_TRANSPARENT", V6, libc::IPPROTO_IPV6, 75, one),
        (&[37], "TCP_REPAIR", V4, libc::IPPROTO_TCP, libc::TCP_REPAIR, one),
        (&[37], "TCP_REPAIR on IPv6", V6, libc::IPPROTO_TCP, libc::TCP_REPAIR, one),
        (&[16], "SOL_PACKET", V4, 263, 1, one),
        (&[15], "SOL_RAW", V4, 255, 1, one),
    ];
    for (rows, name, v6, level, number, value) in options {
        let family = if *v6 { libc::AF_INET6 } else { libc::AF_INET };
        for (kind, on) in [(libc::SOCK_STREAM, "tcp"), (libc::SOCK_DGRAM, "udp")] {
            let steps = vec![socket(family, kind, 0), option(*level, *number, value)];
            all.push(refused(rows, format!("{name} on {on}"), steps, &[SocketOption]));
        }
    }

    // As ancillary data of one datagram to an allowed destination: only the packet gives it away.
    let first = format!("[{FAR_V6}]:53");
    let dropped = || Expect::Dropped(vec![PacketHeader]);
    for (name, kind, privileged) in [
        ("IPV6_RTHDR", 57, false),
        ("IPV6_2292RTHDR", 5, false),
        ("IPV6_HOPOPTS", 54, true),
        ("IPV6_DSTOPTS", 59, true),
    ] {
        let data = if privileged { vec![0, 0, 1, 4, 0, 0, 0, 0] } else { routing_header(BEYOND_V6) };
        let steps = vec![datagram(&first), send_with(&first, libc::IPPROTO_IPV6, kind, data)];
        let attempt = both(&[7], format!("{name} as ancillary data"), steps, dropped());
        all.push(if privileged { attempt.plain(Expect::Kernel(&[libc::EPERM])) } else { attempt });
    }
    let open = format!("{FAR_V4}:53");
    all.push(
        both(
            &[7],
            "a loose source route as ancillary data",
            vec![datagram(&open), send_with(&open, libc::IPPROTO_IP, 7, source_route())],
            dropped(),
        )
        .plain(Expect::Kernel(&[libc::EPERM])),
    );
    let beyond = format!("{BEYOND_V4}:9999");
    all.push(
        refused(
            &[37],
            "SO_MARK as ancillary data",
            vec![datagram(&beyond), send_with(&beyond, libc::SOL_SOCKET, libc::SO_MARK, ONE.to_vec())],
            &[Undeclared],
        )
        // Before or after the kernel asks for the capability.
        .plain(Expect::Kernel(&[libc::EPERM])),
    );

    // Another source.
    for from in ["198.51.100.1:0", "198.51.100.1:5555", "[2001:db8:51::1]:0", "[::ffff:198.51.100.1]:0"] {
        for (kind, on) in [(libc::SOCK_STREAM, "tcp"), (libc::SOCK_DGRAM, "udp")] {
            let family = if from.starts_with('[') { libc::AF_INET6 } else { libc::AF_INET };
            let steps = vec![socket(family, kind, 0), Step::Bind { to: addr(from) }];
            all.push(refused(&[36], format!("bind {on} to {from}"), steps, &[BindAddress]));
        }
    }
    let dial = format!("{FAR_V4}:80");
    all.push(refused(
        &[36],
        "from loopback to the outside",
        vec![stream(&dial), Step::Bind { to: addr("127.0.0.1:0") }, to(&dial)],
        &[Undeclared],
    ));
    all
}

/// Type 2, which the kernel still sends: next header (the kernel's), length in 8 bytes, type, segments left,
/// four reserved bytes, one address.
fn routing_header(last: &str) -> Vec<u8> {
    let mut header = vec![0, 2, 2, 1, 0, 0, 0, 0];
    header.extend(last.parse::<std::net::Ipv6Addr>().unwrap().octets());
    header
}

/// LSRR, one hop, padded to four bytes.
fn source_route() -> Vec<u8> {
    vec![0x83, 7, 4, 203, 0, 113, 9, 0]
}
