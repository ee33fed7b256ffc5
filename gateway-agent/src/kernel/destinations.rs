//! From what policy declares to entries of the kernel's trie.

use std::collections::{BTreeMap, BTreeSet};

use gateway_common::{
    DestKey,
    addr::{Prefix, RESERVED},
    decide::{self, dest},
};
use ipnet::IpNet;

/// What a job may do with a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// A resource: jobs are sent to the gateway, everybody else but the gateway is refused.
    Redirect,
    /// A resource that policy leaves open to whoever is in no job. Where it overlaps with one that is not, the
    /// other counts.
    RedirectJobs,
    /// Jobs may go there directly.
    Allow,
}

impl Disposition {
    const fn flags(self) -> u32 {
        match self {
            Self::Redirect => dest::REDIRECT | dest::PROTECT,
            Self::RedirectJobs => dest::REDIRECT,
            Self::Allow => dest::ALLOW,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// A declared destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Destination {
    pub net: IpNet,
    /// 0 = any.
    pub port: u16,
    pub protocol: Protocol,
    pub disposition: Disposition,
}

/// A trie entry: prefix length including the key's head, key, flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) prefix: u32,
    pub(super) key: DestKey,
    pub(super) flags: u32,
}

/// The form in which the kernel compares a network: however an IPv4 network is written, it is one. `None` when
/// it consists of tunnel addresses (6to4, Teredo, ISATAP, …), which jobs are refused whatever is declared.
pub fn canonical(net: IpNet) -> Option<IpNet> {
    let prefix = prefix(net).canonical()?;
    let bits = if prefix.is_v4() { prefix.bits().checked_sub(Prefix::MAPPED.bits())? } else { prefix.bits() };
    IpNet::new(prefix.addr().ip(), bits).ok()
}

/// The trie answers with the longest prefix only, so every entry carries the flags of the networks around it:
/// a resource stays one inside an allowed network, and an exception inside a resource's network does not open
/// it. IPv6 networks never speak for IPv4 addresses, whose mapped form lies inside `::/0`; and no network opens
/// a reserved one that lies inside it.
pub(super) fn entries(destinations: &[Destination]) -> Vec<Entry> {
    let mut groups: BTreeMap<(u16, u8), BTreeMap<Prefix, u32>> = BTreeMap::new();
    for destination in destinations {
        let Some(prefix) = prefix(destination.net).canonical() else { continue };
        let protocol = match destination.protocol {
            Protocol::Tcp => decide::IPPROTO_TCP,
            Protocol::Udp => decide::IPPROTO_UDP,
        };
        let group = groups.entry((destination.port, protocol)).or_default();
        *group.entry(prefix).or_default() |= destination.disposition.flags();
    }
    groups.into_iter().flat_map(|((port, protocol), group)| group_entries(port, protocol, group)).collect()
}

fn group_entries(port: u16, protocol: u8, mut group: BTreeMap<Prefix, u32>) -> Vec<Entry> {
    for barrier in RESERVED.into_iter().chain([Prefix::MAPPED]) {
        // An entry of its own, or the network around it would answer for it.
        if group.keys().any(|prefix| *prefix != barrier && prefix.covers(barrier)) {
            group.entry(barrier).or_default();
        }
    }
    let lengths: BTreeSet<u8> = group.keys().map(Prefix::bits).collect();
    let flags = |prefix: Prefix| {
        let reserved = RESERVED.into_iter().find(|reserved| reserved.covers(prefix));
        let around = lengths.iter().filter_map(|bits| prefix.widened(*bits));
        around.filter(|around| around.is_v4() == prefix.is_v4()).fold(0, |flags, around| {
            let more = group.get(&around).copied().unwrap_or(0);
            let opens = reserved.is_none_or(|reserved| reserved.covers(around));
            flags | if opens { more } else { more & !dest::ALLOW }
        })
    };
    group
        .keys()
        .map(|prefix| Entry {
            prefix: DestKey::HEAD_BITS + u32::from(prefix.bits()),
            key: DestKey::new(prefix.addr(), port.to_be(), protocol),
            flags: flags(*prefix),
        })
        .collect()
}

fn prefix(net: IpNet) -> Prefix {
    match net {
        IpNet::V4(net) => Prefix::v4(net.network().octets(), net.prefix_len()),
        IpNet::V6(net) => Prefix::new(net.network().to_bits(), net.prefix_len()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use gateway_common::{
        Addr,
        decide::dest::{ALLOW, PROTECT, REDIRECT},
    };

    use super::*;

    fn allow(net: &str, port: u16) -> Destination {
        Destination {
            net: net.parse().unwrap(),
            port,
            protocol: Protocol::Tcp,
            disposition: Disposition::Allow,
        }
    }

    fn resource(net: &str, port: u16) -> Destination {
        Destination { disposition: Disposition::Redirect, ..allow(net, port) }
    }

    /// What the kernel does: longest prefix of the exact port, joined with longest prefix of any port.
    fn flags(entries: &[Entry], to: &str, port: u16) -> u32 {
        let to = Prefix::new(Addr::from(to.parse::<IpAddr>().unwrap()).bits(), 128);
        [port, 0]
            .map(|port| {
                entries
                    .iter()
                    .filter(|entry| {
                        let bits = u8::try_from(entry.prefix - DestKey::HEAD_BITS).unwrap();
                        entry.key.port == port.to_be() && entry.key.addr == to.widened(bits).unwrap().addr()
                    })
                    .max_by_key(|entry| entry.prefix)
                    .map_or(0, |entry| entry.flags)
            })
            .iter()
            .fold(0, |all, flags| all | flags)
    }

    const RESOURCE: u32 = REDIRECT | PROTECT;

    #[test]
    fn a_resource_inside_an_allowed_network_stays_a_resource() {
        let entries = entries(&[allow("10.0.0.0/8", 0), resource("10.1.2.3/32", 5432)]);
        assert_eq!(flags(&entries, "10.1.2.3", 5432), ALLOW | RESOURCE);
        assert_eq!(flags(&entries, "10.1.2.3", 80), ALLOW);
        assert_eq!(flags(&entries, "11.1.2.3", 5432), 0);
    }

    #[test]
    fn an_exception_does_not_open_a_resource() {
        let entries = entries(&[resource("10.0.0.0/8", 5432), allow("10.1.0.0/16", 5432)]);
        assert_eq!(flags(&entries, "10.1.2.3", 5432), ALLOW | RESOURCE);
        assert_eq!(flags(&entries, "10.2.2.3", 5432), RESOURCE);
    }

    #[test]
    fn ipv6_networks_do_not_speak_for_ipv4() {
        let entries = entries(&[allow("::/0", 443), resource("198.51.100.0/24", 443)]);
        assert_eq!(flags(&entries, "2001:db8::1", 443), ALLOW);
        assert_eq!(flags(&entries, "203.0.113.9", 443), 0);
        assert_eq!(flags(&entries, "198.51.100.7", 443), RESOURCE);
    }

    #[test]
    fn mapped_and_translated_networks_mean_ipv4() {
        let entries = entries(&[allow("::ffff:10.0.0.0/104", 1), allow("64:ff9b::10.9.0.0/112", 2)]);
        assert_eq!(flags(&entries, "10.200.0.1", 1), ALLOW);
        assert_eq!(flags(&entries, "10.9.1.1", 2), ALLOW);
        assert_eq!(flags(&entries, "10.8.1.1", 2), 0);
    }

    #[test]
    fn only_a_resource_that_says_so_is_open_outside_of_jobs() {
        let open = |net, port| Destination { disposition: Disposition::RedirectJobs, ..resource(net, port) };
        let entries =
            entries(&[open("10.0.0.0/8", 5432), resource("10.1.0.0/16", 5432), open("10.1.2.0/24", 5432)]);
        assert_eq!(flags(&entries, "10.2.0.1", 5432), REDIRECT);
        assert_eq!(flags(&entries, "10.1.9.9", 5432), RESOURCE);
        assert_eq!(flags(&entries, "10.1.2.3", 5432), RESOURCE, "the stricter of two counts");
    }

    #[test]
    fn wide_exceptions_do_not_open_what_is_reserved() {
        let entries = entries(&[
            allow("0.0.0.0/0", 80),
            allow("::/0", 80),
            allow("127.0.0.53/32", 80),
            allow("169.254.0.0/16", 80),
            allow("fd00:ec2::/32", 80),
        ]);
        for open in ["198.51.100.7", "2001:db8::7", "127.0.0.53", "169.254.169.254", "fd00:ec2::253"] {
            assert_eq!(flags(&entries, open, 80), ALLOW, "{open}");
        }
        for closed in [
            "127.0.0.1",
            "::1",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
        ] {
            assert_eq!(flags(&entries, closed, 80), 0, "{closed}");
        }
    }

    #[test]
    fn a_resource_may_be_on_loopback() {
        let entries = entries(&[resource("127.0.0.0/8", 5432), allow("0.0.0.0/0", 5432)]);
        assert_eq!(flags(&entries, "127.0.0.1", 5432), RESOURCE);
    }

    #[test]
    fn tunnels_are_declared_in_vain() {
        assert_eq!(entries(&[allow("2002::/16", 80), allow("64:ff9b:1::/48", 80)]), []);
        assert_eq!(canonical("2001:0::/32".parse().unwrap()), None);
        assert_eq!(canonical("64:ff9b::10.0.0.0/104".parse().unwrap()), Some("10.0.0.0/8".parse().unwrap()));
    }
}
