//! From what policy declares to entries of the kernel's trie.

use std::collections::BTreeMap;

use gateway_common::{Addr, DestKey, decide};
use ipnet::IpNet;

/// What a job may do with a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// A resource: jobs are sent to the gateway, everybody else but the gateway is refused.
    Redirect,
    /// Jobs may go there directly.
    Allow,
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

/// IPv4 lives in this prefix.
const MAPPED_BITS: u8 = 96;

type Group = BTreeMap<(u8, u128), u32>;

/// The trie answers with the longest prefix only, so every entry carries the flags of the networks around it:
/// a resource stays one inside an allowed network, and an exception inside a resource's network does not open
/// it. IPv6 networks never speak for IPv4 addresses, whose mapped form lies inside `::/0`.
pub(super) fn entries(destinations: &[Destination]) -> Vec<Entry> {
    let mut groups: BTreeMap<(u16, u8), Group> = BTreeMap::new();
    for destination in destinations {
        let protocol = match destination.protocol {
            Protocol::Tcp => decide::IPPROTO_TCP,
            Protocol::Udp => decide::IPPROTO_UDP,
        };
        let flag = match destination.disposition {
            Disposition::Redirect => decide::dest::REDIRECT,
            Disposition::Allow => decide::dest::ALLOW,
        };
        let group = groups.entry((destination.port, protocol)).or_default();
        *group.entry(prefix(destination.net)).or_default() |= flag;
    }
    let mut entries = Vec::new();
    for ((port, protocol), mut group) in groups {
        let mapped = prefix_of(0xffff_u128 << 32, MAPPED_BITS);
        if group.keys().any(|(bits, base)| *bits < MAPPED_BITS && cut(mapped.1, *bits) == *base) {
            group.entry(mapped).or_default();
        }
        for (bits, base) in group.keys().copied() {
            let v4 = bits >= MAPPED_BITS && cut(base, MAPPED_BITS) == mapped.1;
            let around = if v4 { MAPPED_BITS..=bits } else { 0..=bits };
            let flags = around
                .filter_map(|shorter| group.get(&(shorter, cut(base, shorter))))
                .fold(0, |flags, more| flags | more);
            entries.push(Entry {
                prefix: DestKey::HEAD_BITS + u32::from(bits),
                key: DestKey::new(addr(base), port.to_be(), protocol),
                flags,
            });
        }
    }
    entries
}

/// Prefix in the 128-bit form. A network given in a translated or mapped form is the IPv4 network it means.
fn prefix(net: IpNet) -> (u8, u128) {
    match net {
        IpNet::V4(net) => {
            let base = (0xffff_u128 << 32) | u128::from(u32::from(net.network()));
            prefix_of(base, MAPPED_BITS + net.prefix_len())
        }
        IpNet::V6(net) => {
            let base = u128::from(net.network());
            let nat64 = 0x0064_ff9b_u128 << 96;
            if net.prefix_len() >= MAPPED_BITS && cut(base, MAPPED_BITS) == nat64 {
                return prefix_of((0xffff_u128 << 32) | (base & 0xffff_ffff), net.prefix_len());
            }
            prefix_of(base, net.prefix_len())
        }
    }
}

fn prefix_of(base: u128, bits: u8) -> (u8, u128) {
    (bits, cut(base, bits))
}

fn cut(base: u128, bits: u8) -> u128 {
    if bits == 0 { 0 } else { base & (u128::MAX << (128 - u32::from(bits))) }
}

pub(super) fn addr(base: u128) -> Addr {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(base.to_be_bytes().as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    Addr(words)
}

/// An address as the standard library knows it.
pub(super) fn ip(addr: Addr) -> std::net::IpAddr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(addr.0) {
        *bytes = word.to_ne_bytes();
    }
    std::net::Ipv6Addr::from(octets).to_canonical()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use gateway_common::decide::dest::{ALLOW, REDIRECT};

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
        let IpAddr::V6(to) = (match to.parse().unwrap() {
            IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
            v6 => v6,
        }) else {
            unreachable!()
        };
        [port, 0]
            .map(|port| {
                entries
                    .iter()
                    .filter(|entry| {
                        let bits = u8::try_from(entry.prefix - DestKey::HEAD_BITS).unwrap();
                        entry.key.port == port.to_be() && entry.key.addr == addr(cut(to.into(), bits))
                    })
                    .max_by_key(|entry| entry.prefix)
                    .map_or(0, |entry| entry.flags)
            })
            .iter()
            .fold(0, |all, flags| all | flags)
    }

    #[test]
    fn a_resource_inside_an_allowed_network_stays_a_resource() {
        let entries = entries(&[allow("10.0.0.0/8", 0), resource("10.1.2.3/32", 5432)]);
        assert_eq!(flags(&entries, "10.1.2.3", 5432), ALLOW | REDIRECT);
        assert_eq!(flags(&entries, "10.1.2.3", 80), ALLOW);
        assert_eq!(flags(&entries, "11.1.2.3", 5432), 0);
    }

    #[test]
    fn an_exception_does_not_open_a_resource() {
        let entries = entries(&[resource("10.0.0.0/8", 5432), allow("10.1.0.0/16", 5432)]);
        assert_eq!(flags(&entries, "10.1.2.3", 5432), ALLOW | REDIRECT);
        assert_eq!(flags(&entries, "10.2.2.3", 5432), REDIRECT);
    }

    #[test]
    fn ipv6_networks_do_not_speak_for_ipv4() {
        let entries = entries(&[allow("::/0", 443), resource("198.51.100.0/24", 443)]);
        assert_eq!(flags(&entries, "2001:db8::1", 443), ALLOW);
        assert_eq!(flags(&entries, "203.0.113.9", 443), 0);
        assert_eq!(flags(&entries, "198.51.100.7", 443), REDIRECT);
    }

    #[test]
    fn mapped_and_translated_networks_mean_ipv4() {
        let entries = entries(&[allow("::ffff:10.0.0.0/104", 1), allow("64:ff9b::10.9.0.0/112", 2)]);
        assert_eq!(flags(&entries, "10.200.0.1", 1), ALLOW);
        assert_eq!(flags(&entries, "10.9.1.1", 2), ALLOW);
        assert_eq!(flags(&entries, "10.8.1.1", 2), 0);
    }
}
