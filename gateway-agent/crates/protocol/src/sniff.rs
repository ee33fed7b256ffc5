//! Which protocol a client speaks, from its first bytes.
//!
//! The destination names the protocol; this only confirms it, so an answer of [`Sniffed::Other`] closes the flow.

/// What the first bytes of a connection look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniffed {
    /// Too few bytes to say.
    More,
    /// A PostgreSQL startup packet: StartupMessage, SSLRequest, GSSENCRequest or CancelRequest.
    Postgres,
    /// A TLS ClientHello without a protocol's own request before it: PostgreSQL 17 clients do this with ALPN
    /// `postgresql`.
    Tls,
    /// Nothing that is spoken here.
    Other,
}

/// Looks at the first bytes of a connection without consuming them.
pub fn sniff(bytes: &[u8]) -> Sniffed {
    match bytes {
        [] => Sniffed::More,
        [0x16, 0x03, ..] => Sniffed::Tls,
        [0x16] => Sniffed::More,
        [a, b, c, d, rest @ ..] => {
            let length = u32::from_be_bytes([*a, *b, *c, *d]);
            if !(8..=10_000).contains(&length) {
                return Sniffed::Other;
            }
            match rest {
                [0, 3, _, _, ..] | [0x04, 0xd2, 0x16, 0x2e..=0x30, ..] => Sniffed::Postgres,
                [_, _, _, _, ..] => Sniffed::Other,
                _ => Sniffed::More,
            }
        }
        [0, ..] => Sniffed::More,
        _ => Sniffed::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_each_first_packet() {
        assert_eq!(sniff(b"\0\0\0\x08\x04\xd2\x16\x2f"), Sniffed::Postgres);
        assert_eq!(sniff(b"\0\0\0\x08\x04\xd2\x16\x30"), Sniffed::Postgres);
        assert_eq!(sniff(b"\0\0\0\x10\x04\xd2\x16\x2e"), Sniffed::Postgres);
        assert_eq!(sniff(b"\0\0\0\x29\0\x03\0\0user"), Sniffed::Postgres);
        assert_eq!(sniff(b"\0\0\0\x29\0\x03\0\x02user"), Sniffed::Postgres);
        assert_eq!(sniff(b"\x16\x03\x01\x02"), Sniffed::Tls);
    }

    #[test]
    fn waits_and_refuses() {
        for short in [&b""[..], b"\x16", b"\0", b"\0\0\0\x08", b"\0\0\0\x08\x04\xd2\x16"] {
            assert_eq!(sniff(short), Sniffed::More, "{short:?}");
        }
        for wrong in
            [&b"GET / HTTP/1.1"[..], b"SSH-2.0", b"\0\0\xff\xff", b"\0\0\0\x08\0\x02\0\0", b"\x16\x04"]
        {
            assert_eq!(sniff(wrong), Sniffed::Other, "{wrong:?}");
        }
    }
}
