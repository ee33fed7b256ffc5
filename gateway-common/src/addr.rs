//! One form for every address, so that a destination cannot be named in a way that is not compared.

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
    /// ISATAP, IPv4-compatible, local-use NAT64.
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
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn addr(text: &str) -> Addr {
        let octets = match text.parse::<std::net::IpAddr>().unwrap() {
            std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(v6) => v6.octets(),
        };
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().unwrap());
        }
        Addr(words)
    }

    fn known(text: &str) -> Option<Ipv6Addr> {
        match addr(text).canonical() {
            Canonical::Known(Addr(words)) => {
                let mut octets = [0; 16];
                for (bytes, word) in octets.chunks_exact_mut(4).zip(words) {
                    bytes.copy_from_slice(&word.to_ne_bytes());
                }
                Some(octets.into())
            }
            Canonical::Tunnelled => None,
        }
    }

    #[test]
    fn every_spelling_of_an_ipv4_host_is_one_address() {
        let host = Some("::ffff:198.51.100.7".parse().unwrap());
        for spelling in ["198.51.100.7", "::ffff:198.51.100.7", "64:ff9b::198.51.100.7"] {
            assert_eq!(known(spelling), host, "{spelling}");
        }
    }

    #[test]
    fn unspecified_is_loopback_of_its_family() {
        assert_eq!(known("0.0.0.0"), Some("::ffff:127.0.0.1".parse().unwrap()));
        assert_eq!(known("::ffff:0.0.0.0"), Some("::ffff:127.0.0.1".parse().unwrap()));
        assert_eq!(known("64:ff9b::"), Some("::ffff:127.0.0.1".parse().unwrap()));
        assert_eq!(known("::"), Some("::1".parse().unwrap()));
        assert_eq!(known("::1"), Some("::1".parse().unwrap()));
    }

    #[test]
    fn tunnels_have_no_canonical_form() {
        for tunnel in [
            "2002:c633:6407::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "fe80::5efe:198.51.100.7",
            "2001:db8::200:5efe:198.51.100.7",
            "::198.51.100.7",
            "64:ff9b:1::198.51.100.7",
        ] {
            assert_eq!(known(tunnel), None, "{tunnel}");
        }
    }

    #[test]
    fn plain_addresses_stay_themselves() {
        for plain in ["2001:db8:51::2", "fd00:ec2::254", "fe80::1", "2001:4860::8888"] {
            assert_eq!(known(plain), Some(plain.parse().unwrap()));
        }
        assert!(addr("127.8.9.10").is_loopback() && addr("::1").is_loopback());
        assert!(!addr("128.0.0.1").is_loopback() && !addr("::2").is_loopback());
        assert!(addr("::").is_unspecified() && addr("0.0.0.0").is_unspecified());
        assert!(!addr("::1").is_unspecified());
    }
}
