//! One form for every address, so that a destination cannot be named in a way that is not compared.
//!
//! Kernel programs, the destination trie, configuration and policy all go through [`Addr::canonical`] or, for
//! networks, [`Prefix::canonical`]: there is no second opinion on what an address means.

use core::net::{IpAddr, Ipv6Addr};

/// An address in its 128-bit form, IPv4 as `::ffff:a.b.c.d`. Words and bytes are in network order, as they
/// lie in packets and socket addresses.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Addr(pub [u32; 4]);

/// What an address means to this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Canonical {
    /// The one form under which policy knows it.
    Known(Addr),
    /// It names an IPv4 host through a translator or tunnel whose far end cannot be told: 6to4, Teredo,
    /// ISATAP, IPv4-compatible, IPv4-translated (SIIT), local-use NAT64.
    Tunnelled,
}

const fn word(host_order: u32) -> u32 {
    host_order.to_be()
}

const MAPPED: u32 = word(0x0000_ffff);
const ONE: u32 = word(1);
const NAT64: u32 = word(0x0064_ff9b);
const TEREDO: u32 = word(0x2001_0000);
const ISATAP: u32 = word(0x0000_5efe);
const ISATAP_GLOBAL: u32 = word(0x0200_5efe);
const LOCALHOST: u32 = word(0x7f00_0001);
const SIIT: u32 = word(0xffff_0000);

/// Networks that only an exception inside of them opens: an allowed `0.0.0.0/0` or `::/0` does not reach them.
/// Host-local and link-local addresses, multicast, broadcast, and where clouds serve credentials.
pub const RESERVED: [Prefix; 13] = [
    Prefix::v4([0, 0, 0, 0], 8),
    Prefix::v4([127, 0, 0, 0], 8),
    Prefix::v4([169, 254, 0, 0], 16),
    // Azure's and Alibaba's metadata services lie outside of link-local.
    Prefix::v4([168, 63, 129, 16], 32),
    Prefix::v4([100, 100, 100, 200], 32),
    Prefix::v4([224, 0, 0, 0], 4),
    Prefix::v4([240, 0, 0, 0], 4),
    Prefix::new(1, 128),
    Prefix::new(0xfe80 << 112, 10),
    // Site-local, deprecated, and routed by whoever still does.
    Prefix::new(0xfec0 << 112, 10),
    Prefix::new(0xff00 << 112, 8),
    // Amazon's and Google's metadata services.
    Prefix::new(0xfd00_0ec2_0000_0000_0000_0000_0000_0254, 128),
    Prefix::new(0xfd20_00ce_0000_0000_0000_0000_0000_0254, 128),
];

impl Addr {
    pub const LOOPBACK_V4: Self = Self([0, 0, MAPPED, LOCALHOST]);
    pub const LOOPBACK_V6: Self = Self([0, 0, 0, ONE]);

    /// From an IPv4 address in network order.
    #[inline(always)]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// The IPv4 address in network order, when it is one.
    #[inline(always)]
    pub const fn as_v4(&self) -> Option<u32> {
        let [a, b, c, d] = self.0;
        if a == 0 && b == 0 && c == MAPPED { Some(d) } else { None }
    }

    /// `0.0.0.0`, `::` or `::ffff:0.0.0.0`.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        let [a, b, c, d] = self.0;
        a == 0 && b == 0 && (c == 0 || c == MAPPED) && d == 0
    }

    /// `127.0.0.0/8` in either form, or `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        let [a, b, c, d] = self.0;
        a == 0 && b == 0 && ((c == 0 && d == ONE) || (c == MAPPED && u32::from_be(d) >> 24 == 127))
    }

    /// Inside one of [`RESERVED`], loopback aside.
    #[inline(always)]
    pub const fn is_special(&self) -> bool {
        let [a, b, c, d] = self.0;
        if let Some(v4) = self.as_v4() {
            let ip = u32::from_be(v4);
            return matches!(ip >> 24, 0 | 224..=255)
                || ip >> 16 == 0xa9fe
                || ip == 0xa83f_8110
                || ip == 0x6464_64c8;
        }
        let head = u32::from_be(a) >> 16;
        if head >> 8 == 0xff || matches!(head & 0xffc0, 0xfe80 | 0xfec0) {
            return true;
        }
        let metadata = a == word(0xfd00_0ec2) || a == word(0xfd20_00ce);
        metadata && b == 0 && c == 0 && d == word(0x254)
    }

    /// The form that policy compares. Unspecified addresses reach loopback, so they are loopback.
    #[inline(always)]
    pub const fn canonical(&self) -> Canonical {
        let [a, b, c, d] = self.0;
        if a == 0 && b == 0 {
            if c == MAPPED {
                return Canonical::Known(if d == 0 { Self::LOOPBACK_V4 } else { *self });
            }
            if c == 0 {
                return match d {
                    0 | ONE => Canonical::Known(Self::LOOPBACK_V6),
                    _ => Canonical::Tunnelled,
                };
            }
            if c == SIIT {
                return Canonical::Tunnelled;
            }
        }
        // RFC 6052: the well-known prefix is exactly 96 bits; RFC 8215's local-use block has any layout.
        if a == NAT64 && b == 0 && c == 0 {
            return Canonical::Known(if d == 0 { Self::LOOPBACK_V4 } else { Self::v4(d) });
        }
        let local_nat64 = a == NAT64 && u32::from_be(b) >> 16 == 1;
        let six_to_four = u32::from_be(a) >> 16 == 0x2002;
        let isatap = c == ISATAP || c == ISATAP_GLOBAL;
        if local_nat64 || six_to_four || a == TEREDO || isatap {
            return Canonical::Tunnelled;
        }
        Canonical::Known(*self)
    }

    /// The 128 bits in host order.
    pub const fn bits(&self) -> u128 {
        let [a, b, c, d] = self.0;
        (u32::from_be(a) as u128) << 96
            | (u32::from_be(b) as u128) << 64
            | (u32::from_be(c) as u128) << 32
            | u32::from_be(d) as u128
    }

    pub const fn from_bits(bits: u128) -> Self {
        Self([
            word((bits >> 96) as u32),
            word((bits >> 64) as u32),
            word((bits >> 32) as u32),
            word(bits as u32),
        ])
    }

    /// As the standard library knows it: IPv4 where it is IPv4.
    pub fn ip(&self) -> IpAddr {
        Ipv6Addr::from_bits(self.bits()).to_canonical()
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        Self::from_bits(match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        })
    }
}

/// A network in the 128-bit form: IPv4 networks are at least 96 bits long.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    /// At most 128.
    bits: u8,
    /// Zero beyond `bits`.
    base: u128,
}

impl Prefix {
    /// Where IPv4 lives.
    pub const MAPPED: Self = Self::new(0xffff << 32, 96);

    /// Bits of `base` beyond the length are ignored, and so is what a length has over 128.
    pub const fn new(base: u128, bits: u8) -> Self {
        let bits = if bits > 128 { 128 } else { bits };
        Self { bits, base: cut(base, bits) }
    }

    pub const fn v4(octets: [u8; 4], bits: u8) -> Self {
        Self::new((0xffff << 32) | u32::from_be_bytes(octets) as u128, bits.saturating_add(96))
    }

    pub const fn bits(&self) -> u8 {
        self.bits
    }

    pub const fn addr(&self) -> Addr {
        Addr::from_bits(self.base)
    }

    /// Whether the other network is this one or lies inside.
    pub const fn covers(&self, other: Self) -> bool {
        other.bits >= self.bits && cut(other.base, self.bits) == self.base
    }

    /// The same network with fewer bits. `None` when it does not have that many.
    pub const fn widened(&self, bits: u8) -> Option<Self> {
        if bits > self.bits { None } else { Some(Self::new(self.base, bits)) }
    }

    pub const fn is_v4(&self) -> bool {
        Self::MAPPED.covers(*self)
    }

    /// The form in which addresses of this network are looked up. `None` when all of them are
    /// [`Canonical::Tunnelled`], so that no entry for them could ever match.
    pub fn canonical(self) -> Option<Self> {
        const NAT64: Prefix = Prefix::new(0x0064_ff9b << 96, 96);
        const TUNNELS: [Prefix; 5] = [
            Prefix::new(0x2002 << 112, 16),
            Prefix::new(0x2001_0000 << 96, 32),
            Prefix::new(0x0064_ff9b_0001 << 80, 48),
            Prefix::new(0xffff_0000 << 32, 96),
            Prefix::new(0, 96),
        ];
        if self.bits == 128 {
            return match self.addr().canonical() {
                Canonical::Known(addr) => Some(Self::new(addr.bits(), 128)),
                Canonical::Tunnelled => None,
            };
        }
        if NAT64.covers(self) {
            return Some(Self::new(Self::MAPPED.base | (self.base & 0xffff_ffff), self.bits));
        }
        let isatap = self.bits >= 96 && matches!((self.base >> 32) as u32, 0x5efe | 0x0200_5efe);
        let hidden = isatap || TUNNELS.iter().any(|tunnel| tunnel.covers(self));
        if hidden { None } else { Some(self) }
    }
}

const fn cut(base: u128, bits: u8) -> u128 {
    if bits == 0 { 0 } else { base & (u128::MAX << (128 - bits as u32)) }
}

#[cfg(test)]
#[path = "addr_tests.rs"]
mod tests;
