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
    /// The method of a request of HTTP/1.1.
    Http,
    /// Nothing that is spoken here.
    Other,
}

/// Looks at the first bytes of a connection without consuming them.
pub fn sniff(bytes: &[u8]) -> Sniffed {
    match bytes {
        [] => Sniffed::More,
        [b'A'..=b'Z', ..] => method(bytes),
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

/// Longest method.
const METHOD: usize = 16;

/// Upper-case letters, then a space and what a target begins with.
fn method(bytes: &[u8]) -> Sniffed {
    let letters = bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    match bytes.get(letters..) {
        _ if letters > METHOD => Sniffed::Other,
        Some([b' ', b'/' | b'*' | b'h' | b'H' | b'0'..=b'9' | b'a'..=b'z' | b'[', ..]) => Sniffed::Http,
        Some([] | [b' ']) => Sniffed::More,
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
        assert_eq!(sniff(b"GET / HTTP/1.1"), Sniffed::Http);
        assert_eq!(sniff(b"M-SEARCH *"), Sniffed::Http);
    }

    #[test]
    fn waits_and_refuses() {
        for short in
            [&b""[..], b"G", b"GET", b"GET ", b"\x16", b"\0", b"\0\0\0\x08", b"\0\0\0\x08\x04\xd2\x16"]
        {
            assert_eq!(sniff(short), Sniffed::More, "{short:?}");
        }
        for wrong in [
            &b"GET\t/"[..],
            b"SSH-2.0",
            b"AAAAAAAAAAAAAAAAAAAA",
            b"\0\0\xff\xff",
            b"\0\0\0\x08\0\x02\0\0",
            b"\x16\x04",
        ] {
            assert_eq!(sniff(wrong), Sniffed::Other, "{wrong:?}");
        }
    }
}
