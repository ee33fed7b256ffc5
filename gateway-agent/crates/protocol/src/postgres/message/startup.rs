//! What a client may send first: StartupMessage, SSLRequest, GSSENCRequest, CancelRequest. Length, code, rest.

use super::{Malformed, Reader, cstr, writer::counted};
use crate::postgres::CancelKey;

/// PostgreSQL's own limit for this packet (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX: usize = 10_000;

/// The first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    Ssl,
    Gss,
    Cancel(CancelKey),
    Startup(Parameters<'a>),
    /// A protocol version that is not spoken here.
    Version {
        major: u16,
        minor: u16,
    },
}

/// A StartupMessage of protocol 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters<'a> {
    pub minor: u16,
    rest: &'a [u8],
}

impl<'a> Packet<'a> {
    /// `None` while more bytes are needed; else the packet and its length.
    pub fn read(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let Some((length, _)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Malformed)?;
        if !(8..=MAX).contains(&length) {
            return Err(Malformed);
        }
        let Some(packet) = bytes.get(4..length) else { return Ok(None) };
        let mut reader = Reader::new(packet);
        let (major, minor) = (reader.u16()?, reader.u16()?);
        let packet = match (major, minor) {
            (1234, 5678) => {
                let pid = reader.u32()?;
                let secret = reader.rest();
                if !(4..=CancelKey::MAX_SECRET).contains(&secret.len()) {
                    return Err(Malformed);
                }
                return Ok(Some((Self::Cancel(CancelKey { pid, secret: secret.to_vec() }), length)));
            }
            (1234, 5679) => Self::Ssl,
            (1234, 5680) => Self::Gss,
            (3, minor) => {
                let parameters = Parameters { minor, rest: reader.rest() };
                parameters.check()?;
                return Ok(Some((Self::Startup(parameters), length)));
            }
            (major, minor) => return Ok(Some((Self::Version { major, minor }, length))),
        };
        reader.end()?;
        Ok(Some((packet, length)))
    }
}

impl<'a> Parameters<'a> {
    /// Most parameters that are accepted; libpq sends about five.
    const MOST: usize = 64;

    fn check(self) -> Result<(), Malformed> {
        let mut reader = Reader::new(self.rest);
        for _ in 0..=Self::MOST {
            if reader.cstr()?.is_empty() {
                return reader.end();
            }
            reader.cstr()?;
        }
        Err(Malformed)
    }

    /// Names and values.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut reader = Reader::new(self.rest);
        std::iter::from_fn(move || {
            let name = reader.cstr().ok().filter(|name| !name.is_empty())?;
            Some((name, reader.cstr().ok()?))
        })
    }
}

/// Appends an SSLRequest.
pub fn ssl_request(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\0\0\0\x08\x04\xd2\x16\x2f");
}

/// Appends a StartupMessage of protocol 3.0.
pub fn startup<'p>(out: &mut Vec<u8>, parameters: impl Iterator<Item = (&'p str, &'p str)>) {
    counted(out, |out| {
        out.extend_from_slice(&[0, 3, 0, 0]);
        for (name, value) in parameters {
            cstr(out, name.as_bytes());
            cstr(out, value.as_bytes());
        }
        out.push(0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        assert_eq!(Packet::read(b"\0\0\0\x08\x04\xd2\x16\x2f"), Ok(Some((Packet::Ssl, 8))));
        assert_eq!(Packet::read(b"\0\0\0\x08\x04\xd2\x16\x30more"), Ok(Some((Packet::Gss, 8))));
        assert_eq!(Packet::read(b"\0\0\0\x09\x04\xd2\x16\x2fx"), Err(Malformed));
        assert_eq!(Packet::read(b"\0\0\0\x08\x04\xd2\x16"), Ok(None));
        assert_eq!(
            Packet::read(b"\0\0\0\x08\0\x02\0\0"),
            Ok(Some((Packet::Version { major: 2, minor: 0 }, 8)))
        );
    }

    #[test]
    fn cancel_with_short_and_long_keys() {
        let short = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd";
        let key = CancelKey { pid: 7, secret: b"abcd".to_vec() };
        assert_eq!(Packet::read(short), Ok(Some((Packet::Cancel(key), 16))));
        let long = CancelKey { pid: 7, secret: vec![1; 256] }.request();
        assert!(
            matches!(Packet::read(&long), Ok(Some((Packet::Cancel(key), 268))) if key.secret.len() == 256)
        );
        assert_eq!(Packet::read(b"\0\0\0\x0f\x04\xd2\x16\x2e\0\0\0\x07abc"), Err(Malformed));
        let mut longer = vec![0, 0, 1, 13, 4, 0xd2, 0x16, 0x2e, 0, 0, 0, 7];
        longer.extend_from_slice(&[1; 257]);
        assert_eq!(Packet::read(&longer), Err(Malformed));
    }

    #[test]
    fn startup_reads_what_it_writes() {
        let mut out = Vec::new();
        startup(&mut out, [("user", "u"), ("database", "d")].into_iter());
        assert_eq!(out, b"\0\0\0\x1b\0\x03\0\0user\0u\0database\0d\0\0");
        let Ok(Some((Packet::Startup(parameters), 27))) = Packet::read(&out) else { panic!("not read") };
        assert_eq!(parameters.minor, 0);
        assert_eq!(
            parameters.iter().collect::<Vec<_>>(),
            [(&b"user"[..], &b"u"[..]), (&b"database"[..], &b"d"[..])]
        );
    }

    #[test]
    fn refuses_bad_lengths_and_endings() {
        assert_eq!(Packet::read(b"\0\0\0\x07"), Err(Malformed));
        assert_eq!(Packet::read(b"\0\0\x27\x11"), Err(Malformed));
        assert_eq!(Packet::read(b"\xff\xff\xff\xff"), Err(Malformed));
        assert_eq!(Packet::read(b"\0\0\0\x0f\0\x03\0\0user\0u\0"), Err(Malformed));
        assert_eq!(Packet::read(b"\0\0\0\x0a\0\x03\0\0\0x"), Err(Malformed));
    }

    #[test]
    fn refuses_too_many_parameters() {
        let mut out = Vec::new();
        startup(&mut out, std::iter::repeat_n(("a", "b"), 65));
        assert_eq!(Packet::read(&out), Err(Malformed));
    }
}
