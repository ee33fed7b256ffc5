use core::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn prefix(text: &str) -> Prefix {
    let (base, bits) = text.split_once('/').unwrap();
    let bits: u8 = bits.parse().unwrap();
    let extra = if base.contains(':') { 0 } else { 96 };
    Prefix::new(addr(base).bits(), bits + extra)
}

/// The canonical form as 128 bits, or `None` for a tunnel.
fn known(text: &str) -> Option<Ipv6Addr> {
    match addr(text).canonical() {
        Canonical::Known(addr) => Some(Ipv6Addr::from_bits(addr.bits())),
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
        "::ffff:0:198.51.100.7",
        "64:ff9b:1::198.51.100.7",
    ] {
        assert_eq!(known(tunnel), None, "{tunnel}");
        assert_eq!(prefix(&std::format!("{tunnel}/128")).canonical(), None, "{tunnel}");
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

#[test]
fn metadata_link_local_and_multicast_are_special() {
    for special in [
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "0.1.2.3",
        "224.0.0.251",
        "255.255.255.255",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::fb",
    ] {
        assert!(addr(special).is_special(), "{special}");
    }
    for plain in
        ["169.253.0.1", "168.63.129.17", "10.0.0.1", "fd00:ec2::253", "fe00::1", "2001:db8::1", "::1"]
    {
        assert!(!addr(plain).is_special(), "{plain}");
    }
}

#[test]
fn networks_take_the_form_of_their_addresses() {
    for (written, meant) in [
        ("64:ff9b::10.9.0.0/112", "10.9.0.0/16"),
        ("64:ff9b::/96", "0.0.0.0/0"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("0.0.0.0/32", "127.0.0.1/32"),
        ("::/128", "::1/128"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("::/0", "::/0"),
    ] {
        assert_eq!(prefix(written).canonical(), Some(prefix(meant)), "{written}");
    }
    for nothing in ["2002::/16", "2002:c633::/32", "2001::/32", "64:ff9b:1::/48", "::198.51.0.0/112", "::/96"]
    {
        assert_eq!(prefix(nothing).canonical(), None, "{nothing}");
    }
}

#[test]
fn prefixes_cover_what_lies_inside() {
    assert!(prefix("10.0.0.0/8").covers(prefix("10.1.0.0/16")));
    assert!(!prefix("10.1.0.0/16").covers(prefix("10.0.0.0/8")));
    assert!(prefix("::/0").covers(prefix("10.0.0.0/8")) && prefix("0.0.0.0/0").is_v4());
    assert_eq!(prefix("10.1.2.3/32").widened(104), Some(prefix("10.0.0.0/8")));
    assert_eq!(prefix("10.0.0.0/8").widened(128), None);
}

/// Addresses as an attacker would choose them: mostly near something that means something.
fn interesting() -> impl Strategy<Value = u128> {
    let heads =
        [0_u128, 0xffff << 32, 0x0064_ff9b << 96, 0x0064_ff9b_0001 << 80, 0x2002 << 112, 0x2001 << 112];
    let more = [0xfe80_u128 << 112, 0xff02 << 112, 0x5efe << 32, 0xffff_0000 << 32, 0x2001_0db8 << 96];
    let heads: std::vec::Vec<u128> = heads.into_iter().chain(more).collect();
    prop_oneof![
        any::<u128>(),
        (prop::sample::select(heads), any::<u32>(), any::<bool>())
            .prop_map(|(head, low, zero)| head | if zero { 0 } else { u128::from(low) }),
    ]
}

proptest! {
    #[test]
    fn canonical_is_final(bits in interesting()) {
        if let Canonical::Known(once) = Addr::from_bits(bits).canonical() {
            prop_assert_eq!(once.canonical(), Canonical::Known(once));
            prop_assert!(!once.is_unspecified(), "what is known is never unspecified");
        }
    }

    #[test]
    fn an_ipv4_host_is_the_same_however_it_is_embedded(v4: u32) {
        let ip = Ipv4Addr::from_bits(v4);
        let plain = Addr::from(IpAddr::V4(ip)).canonical();
        for head in [0xffff_u128 << 32, 0x0064_ff9b << 96] {
            prop_assert_eq!(Addr::from_bits(head | u128::from(v4)).canonical(), plain);
        }
    }

    #[test]
    fn a_network_of_one_agrees_with_its_address(bits in interesting()) {
        let whole = Prefix::new(bits, 128);
        let one = match Addr::from_bits(bits).canonical() {
            Canonical::Known(addr) => Some(Prefix::new(addr.bits(), 128)),
            Canonical::Tunnelled => None,
        };
        prop_assert_eq!(whole.canonical(), one);
    }

    #[test]
    fn special_is_reserved_without_loopback(bits in interesting()) {
        let addr = Addr::from_bits(bits);
        let listed = RESERVED.iter().any(|reserved| reserved.covers(Prefix::new(bits, 128)));
        prop_assert_eq!(addr.is_special() || addr.is_loopback(), listed);
    }

    #[test]
    fn words_and_bits_are_one(bits: u128) {
        prop_assert_eq!(Addr::from_bits(bits).bits(), bits);
        prop_assert_eq!(Addr::from(Addr::from_bits(bits).ip()).bits(), bits);
    }
}
