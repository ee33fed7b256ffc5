//! What a job's sockets may be and do. Pure: the hooks only fetch the facts.

use crate::{Addr, Canonical, Reason, flow::Config, flow::flags, limits};

pub const AF_UNIX: u32 = 1;
pub const AF_INET: u32 = 2;
pub const AF_INET6: u32 = 10;
pub const AF_NETLINK: u32 = 16;

pub const SOCK_STREAM: u32 = 1;
pub const SOCK_DGRAM: u32 = 2;

pub const IPPROTO_TCP: u8 = 6;
pub const IPPROTO_UDP: u8 = 17;

/// Destination flags, combined over every entry that matches.
pub mod dest {
    /// A resource: jobs are redirected.
    pub const REDIRECT: u32 = 1;
    /// Jobs may go there directly.
    pub const ALLOW: u32 = 2;
    /// A resource that everybody but jobs and the gateway is refused.
    pub const PROTECT: u32 = 4;
}

/// What becomes of a job's connect or datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Redirect,
    Pass,
    Deny(Reason),
}

/// A connect or datagram of a job to a declared destination. A resource beats an exception: only TCP can be
/// redirected, so anything else to a resource is refused.
#[inline(always)]
pub const fn destination(flags: u32, protocol: u32, connect: bool) -> Outcome {
    if flags & dest::REDIRECT != 0 {
        if protocol == IPPROTO_TCP as u32 && connect {
            return Outcome::Redirect;
        }
        return Outcome::Deny(Reason::Undeclared);
    }
    if flags & dest::ALLOW != 0 { Outcome::Pass } else { Outcome::Deny(Reason::Undeclared) }
}

/// Where resolvers listen, network order.
pub const DNS_PORT: u16 = 53_u16.to_be();

/// Whether a job that asks this port asks a resolver, whose questions the gateway answers itself. Whatever the
/// address is: no declared destination comes before it.
#[inline(always)]
pub const fn resolver(port: u16, config: &Config) -> bool {
    port == DNS_PORT && config.flags & flags::DNS != 0
}

/// Place of a namespace's socket in the socket map.
#[inline(always)]
pub const fn listener(slot: u32, protocol: u8, v4: bool) -> u32 {
    let udp = if protocol == IPPROTO_UDP { 2 } else { 0 };
    let v6 = if v4 { 0 } else { 1 };
    slot * limits::LISTENERS_PER_NETNS + udp + v6
}

/// What is said about an undeclared destination: a special one is not opened by declaring what lies around it.
#[inline(always)]
pub const fn undeclared(addr: &Addr) -> Reason {
    if addr.is_special() { Reason::Special } else { Reason::Undeclared }
}

/// Internet sockets that a job may create: TCP and UDP. No raw, ping, UDP-Lite, MPTCP, SCTP, DCCP or L2TP.
#[inline(always)]
pub const fn inet_socket(family: u32, kind: u32, protocol: u32) -> bool {
    (family == AF_INET || family == AF_INET6)
        && ((kind == SOCK_STREAM && protocol == IPPROTO_TCP as u32)
            || (kind == SOCK_DGRAM && protocol == IPPROTO_UDP as u32))
}

/// Socket families that a job may create at all, for the hook that sees every family. Netlink only for
/// routes and addresses, which getaddrinfo and getifaddrs read.
#[inline(always)]
pub const fn socket_family(family: u32, protocol: u32) -> bool {
    match family {
        AF_UNIX | AF_INET | AF_INET6 => true,
        AF_NETLINK => protocol == 0,
        _ => false,
    }
}

/// Addresses that a job may bind: loopback and unspecified, never the gateway's port.
#[inline(always)]
pub const fn bind(addr: Addr, port: u16, config: &Config) -> bool {
    (addr.is_unspecified() || addr.is_loopback()) && port != config.port
}

/// Whether a heartbeat still counts. One that is written between the caller's two readings lies in the future.
#[inline(always)]
pub const fn alive(beat_ns: u64, now_ns: u64) -> bool {
    beat_ns != 0 && now_ns.saturating_sub(beat_ns) <= crate::limits::STALE_NS
}

/// Whether a socket that is being closed leaves a connection behind that its peer can still accept and read: a TCP
/// one that was established once. `state` is that of net/tcp_states.h.
#[inline(always)]
pub const fn outlives(protocol: u32, state: u32) -> bool {
    protocol == IPPROTO_TCP as u32
        && matches!(
            state,
            1 | // ESTABLISHED
            4 | // FIN_WAIT1
            5 | // FIN_WAIT2
            8 | // CLOSE_WAIT
            9 | // LAST_ACK
            11 // CLOSING
        )
}

/// Both ends are on loopback and one of them is the gateway's port.
#[inline(always)]
pub const fn gateway_leg(src: &Addr, sport: u16, dst: &Addr, dport: u16, port: u16) -> bool {
    (sport == port || dport == port) && src.is_loopback() && dst.is_loopback()
}

/// The address under which the destination trie is asked, or `None` when jobs are refused outright.
#[inline(always)]
pub const fn lookup_form(addr: Addr) -> Option<Addr> {
    match addr.canonical() {
        Canonical::Known(addr) => Some(addr),
        Canonical::Tunnelled => None,
    }
}

const SOL_IP: i32 = 0;
const SOL_SOCKET: i32 = 1;
const SOL_TCP: i32 = 6;
const SOL_UDP: i32 = 17;
const SOL_IPV6: i32 = 41;
const SOL_NETLINK: i32 = 270;
const SOL_TLS: i32 = 282;

/// Whether a job may set this option. Refused is what picks another route, interface or source, forges
/// packets, changes the socket's family, or makes the kernel send packets that the job chose.
#[inline(always)]
pub const fn socket_option(level: i32, name: i32) -> bool {
    match level {
        SOL_SOCKET => !matches!(
            name,
            25 | // SO_BINDTODEVICE
            36 | // SO_MARK
            62 // SO_BINDTOIFINDEX
        ),
        SOL_IP => !matches!(
            name,
            3 | // IP_HDRINCL
            4 | // IP_OPTIONS
            15 | // IP_FREEBIND
            19 | // IP_TRANSPARENT
            32 | // IP_MULTICAST_IF
            35..=41 | // IP_ADD_MEMBERSHIP to IP_MSFILTER
            42..=48 | // MCAST_JOIN_GROUP to MCAST_MSFILTER
            50 // IP_UNICAST_IF
        ),
        SOL_TCP => !matches!(
            name,
            19..=22 | // TCP_REPAIR, _REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_OPTIONS
            29 // TCP_REPAIR_WINDOW
        ),
        SOL_IPV6 => !matches!(
            name,
            1 | // IPV6_ADDRFORM
            3..=6 | // IPV6_2292HOPOPTS, _2292DSTOPTS, _2292RTHDR, _2292PKTOPTIONS
            9 | // IPV6_NEXTHOP
            17 | // IPV6_MULTICAST_IF
            20 | // IPV6_JOIN_GROUP
            22 | // IPV6_ROUTER_ALERT
            27 | // IPV6_JOIN_ANYCAST
            36 | // IPV6_HDRINCL
            42..=48 | // MCAST_JOIN_GROUP to MCAST_MSFILTER
            54 | // IPV6_HOPOPTS
            55 | // IPV6_RTHDRDSTOPTS
            57 | // IPV6_RTHDR
            59 | // IPV6_DSTOPTS
            75 | // IPV6_TRANSPARENT
            76 | // IPV6_UNICAST_IF
            78 // IPV6_FREEBIND
        ),
        SOL_UDP | SOL_NETLINK | SOL_TLS => true,
        // Levels of protocols that a job's sockets cannot be.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_redirected_and_beat_exceptions() {
        assert_eq!(destination(dest::REDIRECT, 6, true), Outcome::Redirect);
        assert_eq!(destination(dest::REDIRECT | dest::ALLOW, 6, true), Outcome::Redirect);
        assert_eq!(destination(dest::REDIRECT, 17, true), Outcome::Deny(Reason::Undeclared));
        assert_eq!(destination(dest::REDIRECT, 17, false), Outcome::Deny(Reason::Undeclared));
        assert_eq!(destination(dest::ALLOW, 17, false), Outcome::Pass);
        assert_eq!(destination(0, 6, true), Outcome::Deny(Reason::Undeclared));
    }

    #[test]
    fn only_tcp_and_udp_sockets() {
        for family in [AF_INET, AF_INET6] {
            assert!(inet_socket(family, SOCK_STREAM, 6) && inet_socket(family, SOCK_DGRAM, 17));
            for (kind, protocol) in
                [(1, 262), (1, 132), (2, 136), (2, 1), (2, 58), (3, 6), (3, 255), (5, 132)]
            {
                assert!(!inet_socket(family, kind, protocol), "{kind} {protocol}");
            }
        }
        assert!(!socket_family(17, 0) && !socket_family(40, 0) && !socket_family(AF_NETLINK, 9));
        assert!(socket_family(AF_UNIX, 0) && socket_family(AF_NETLINK, 0));
    }

    #[test]
    fn options_that_steer_packets_are_refused() {
        for (level, name) in [
            (41, 57), // IPV6_RTHDR
            (41, 5),  // IPV6_2292RTHDR
            (41, 54), // IPV6_HOPOPTS
            (0, 4),   // IP_OPTIONS
            (1, 36),  // SO_MARK
            (0, 19),  // IP_TRANSPARENT
            (0, 15),  // IP_FREEBIND
            (6, 19),  // TCP_REPAIR
            (0, 35),  // IP_ADD_MEMBERSHIP
            (263, 1), // SOL_PACKET
            (255, 1), // SOL_RAW
        ] {
            assert!(!socket_option(level, name), "{level} {name}");
        }
        for (level, name) in [
            (1, 2),   // SO_REUSEADDR
            (1, 9),   // SO_KEEPALIVE
            (6, 1),   // TCP_NODELAY
            (6, 30),  // TCP_FASTOPEN_CONNECT
            (0, 1),   // IP_TOS
            (41, 26), // IPV6_V6ONLY
            (41, 49), // IPV6_RECVPKTINFO
        ] {
            assert!(socket_option(level, name), "{level} {name}");
        }
    }

    #[test]
    fn port_53_is_the_resolvers_wherever_it_is() {
        let on = Config { flags: flags::DNS, ..Config::default() };
        assert!(resolver(53_u16.to_be(), &on));
        assert!(!resolver(53_u16.to_be(), &Config::default()));
        assert!(!resolver(853_u16.to_be(), &on) && !resolver(5353_u16.to_be(), &on));
    }

    #[test]
    fn every_socket_of_every_namespace_has_its_own_place() {
        let mut places = std::vec::Vec::new();
        for slot in [0, 1, limits::MAX_NETNS - 1] {
            for protocol in [IPPROTO_TCP, IPPROTO_UDP] {
                places.extend([listener(slot, protocol, true), listener(slot, protocol, false)]);
            }
        }
        assert!(places.iter().all(|place| *place < limits::MAX_LISTENERS));
        assert!(places.is_sorted_by(|one, next| one < next), "{places:?}");
    }

    #[test]
    fn a_heartbeat_dies() {
        let now = 10_000_000_000;
        assert!(alive(now, now) && alive(now - crate::limits::STALE_NS, now));
        assert!(!alive(now - crate::limits::STALE_NS - 1, now));
        assert!(!alive(0, 1) && alive(now + 1, now));
    }

    #[test]
    fn the_gateways_leg_stays_on_loopback() {
        let port = 15001_u16.to_be();
        let outside = Addr::v4(u32::from_ne_bytes([198, 51, 100, 7]));
        let local = Addr::LOOPBACK_V4;
        assert!(gateway_leg(&local, 1, &local, port, port) && gateway_leg(&local, port, &local, 1, port));
        assert!(!gateway_leg(&local, 1, &outside, port, port));
        assert!(!gateway_leg(&local, port, &outside, 1, port));
        assert!(!gateway_leg(&local, 1, &local, 2, port));
    }

    #[test]
    fn jobs_bind_to_loopback_only() {
        let config = Config { port: 15001_u16.to_be(), ..Config::default() };
        assert!(bind(Addr::LOOPBACK_V4, 0, &config) && bind(Addr([0; 4]), 80_u16.to_be(), &config));
        assert!(!bind(Addr::LOOPBACK_V4, 15001_u16.to_be(), &config));
        assert!(!bind(Addr::v4(u32::from_ne_bytes([198, 51, 100, 7])), 0, &config));
    }
}
