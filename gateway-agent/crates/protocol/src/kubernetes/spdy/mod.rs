//! Forwarded ports over SPDY/3.1 (draft-mbelshe-httpbis-spdy-00, and flow control), as kubectl opens them.
//!
//! Each connection is a pair of streams, `error` and `data`, whose first frame says the port in its header fields. A frame of the job
//! passes when it has been read; before one that opens a `data` stream its port is told, so that it can be decided. What opens no
//! connection changes nothing that is decided, and passes as it is.

mod headers;

use std::mem;

pub use self::headers::DICTIONARY;
use self::headers::Headers;

/// What the connection is upgraded to, lower case, and what is spoken by it.
pub const UPGRADE: &str = "spdy/3.1";
pub const PROTOCOL: &str = "portforward.k8s.io";

/// Longest control frame, in bytes: it is held until it is over.
const CONTROL: usize = 16 * 1024;
/// A frame's head, in bytes.
const HEAD: usize = 8;
const VERSION: u16 = 3;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Bytes that are no such tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTunnel {
    #[error("a frame that SPDY/3.1 does not have, or not in this direction")]
    Frame,
    #[error("a control frame of more than {CONTROL} bytes")]
    Long,
    #[error("header fields that cannot be read")]
    Headers,
    #[error("a stream that is neither `data` nor `error` of a port")]
    Stream,
}

/// One direction of a tunnel.
#[derive(Debug)]
pub struct Tunnel {
    /// `Some`: from the job, whose header fields are read.
    headers: Option<Headers>,
    /// A frame's head, or a control frame that is not over.
    held: Vec<u8>,
    /// Bytes of a data frame that are still to come.
    left: usize,
}

impl Tunnel {
    pub fn from_job() -> Self {
        Self { headers: Some(Headers::default()), held: Vec::new(), left: 0 }
    }

    pub fn from_pod() -> Self {
        Self { headers: None, held: Vec::new(), left: 0 }
    }

    /// Appends to `out` what goes on, tells the bytes of connections, and returns the ports to which connections are opened by what
    /// was appended.
    ///
    /// # Errors
    /// When it is no tunnel; nothing more may pass.
    pub fn push(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mut seen: impl FnMut(&[u8]),
    ) -> Result<Vec<u16>, BadTunnel> {
        let mut opened = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.left > 0 {
                let (data, after) = rest.split_at_checked(self.left).unwrap_or((rest, &[]));
                self.left = self.left.saturating_sub(data.len());
                rest = after;
                out.extend_from_slice(data);
                seen(data);
                continue;
            }
            let wanted = self.wanted()?.saturating_sub(self.held.len());
            let (part, after) = rest.split_at_checked(wanted).unwrap_or((rest, &[]));
            self.held.extend_from_slice(part);
            rest = after;
            if self.held.len() < self.wanted()? {
                continue;
            }
            let frame = mem::take(&mut self.held);
            let Some(([first, second, third, fourth, _, length @ ..], payload)) =
                frame.split_first_chunk::<HEAD>()
            else {
                return Err(BadTunnel::Frame);
            };
            if first & 0x80 == 0 {
                self.left = size(*length);
            } else {
                let version = u16::from_be_bytes([first & 0x7f, *second]);
                let kind = u16::from_be_bytes([*third, *fourth]);
                if version != VERSION {
                    return Err(BadTunnel::Frame);
                }
                opened.extend(self.control(kind, payload)?);
            }
            out.extend_from_slice(&frame);
        }
        Ok(opened)
    }

    /// How many bytes of a frame are held before it is looked at.
    fn wanted(&self) -> Result<usize, BadTunnel> {
        let Some([first, _, _, _, _, length @ ..]) = self.held.first_chunk::<HEAD>() else { return Ok(HEAD) };
        let length = if first & 0x80 == 0 { 0 } else { size(*length) };
        match length <= CONTROL {
            true => Ok(HEAD.saturating_add(length)),
            false => Err(BadTunnel::Long),
        }
    }

    /// A control frame: the port to which it opens a connection.
    fn control(&mut self, kind: u16, payload: &[u8]) -> Result<Option<u16>, BadTunnel> {
        match (kind, &mut self.headers) {
            (RST_STREAM | SETTINGS | PING | GOAWAY | WINDOW_UPDATE, _) => Ok(None),
            (SYN_REPLY | HEADERS, None) => Ok(None),
            (SYN_STREAM, Some(headers)) => {
                // Identifiers of the stream and of one that it belongs to, priority, slot.
                let (_, block) = payload.split_first_chunk::<10>().ok_or(BadTunnel::Frame)?;
                let fields = headers.read(block)?;
                let one = |name: &str| {
                    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
                };
                let port = one("port").and_then(|port| port.parse::<u16>().ok()).filter(|port| *port != 0);
                match (one("streamtype"), port) {
                    (Some("data"), Some(port)) => Ok(Some(port)),
                    (Some("error"), Some(_)) => Ok(None),
                    _ => Err(BadTunnel::Stream),
                }
            }
            _ => Err(BadTunnel::Frame),
        }
    }
}

fn size(length: [u8; 3]) -> usize {
    let [a, b, c] = length;
    usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of header fields as a client compresses it: stored, which every reader has to take.
    fn block(begun: &mut bool, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = u32::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
        for text in fields.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            plain.extend(text.as_bytes());
        }
        let mut out = Vec::new();
        if !*begun {
            out.extend([0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2]);
            *begun = true;
        }
        let length = u16::try_from(plain.len()).unwrap();
        out.push(0);
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(plain);
        // An empty block ends it, as a flush does.
        out.extend([0, 0, 0, 0xff, 0xff]);
        out
    }

    fn control(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[0x80, 3][..], &kind.to_be_bytes(), &[0], &length[1..], payload].concat()
    }

    fn open(begun: &mut bool, stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
        let payload = [&stream.to_be_bytes()[..], &[0; 6], &block(begun, fields)].concat();
        control(SYN_STREAM, &payload)
    }

    fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&stream.to_be_bytes()[..], &[0], &length[1..], bytes].concat()
    }

    fn refused(frames: &[Vec<u8>]) -> Option<BadTunnel> {
        Tunnel::from_job().push(&frames.concat(), &mut Vec::new(), |_| {}).err()
    }

    #[test]
    fn ports_are_told_before_their_frames_pass() {
        let mut begun = false;
        let pair = |kind| [("port", "80"), ("requestid", "0"), ("streamtype", kind)];
        let stream = [
            open(&mut begun, 1, &pair("error")),
            open(&mut begun, 3, &pair("data")),
            data(3, b"GET / HTTP/1.0\r\n\r\n"),
            control(PING, &[0, 0, 0, 1]),
            open(&mut begun, 5, &[("streamtype", "data"), ("port", "8080")]),
            data(5, &[7; 70_000]),
        ]
        .concat();
        for size in [1, 3, 100, stream.len()] {
            let (mut tunnel, mut out, mut seen, mut ports) =
                (Tunnel::from_job(), Vec::new(), Vec::new(), Vec::new());
            for piece in stream.chunks(size) {
                ports.extend(tunnel.push(piece, &mut out, |data| seen.extend_from_slice(data)).unwrap());
            }
            assert_eq!((ports.as_slice(), &out), (&[80, 8080][..], &stream));
            assert!(seen.starts_with(b"GET / HTTP/1.0\r\n\r\n\x07") && seen.len() == 70_018);
        }
    }

    #[test]
    fn what_is_no_tunnel_ends() {
        let open = |fields: &[(&str, &str)]| vec![open(&mut false, 1, fields)];
        assert_eq!(refused(&open(&[("streamtype", "data")])), Some(BadTunnel::Stream));
        assert_eq!(refused(&open(&[("streamtype", "data"), ("port", "70000")])), Some(BadTunnel::Stream));
        assert_eq!(refused(&open(&[("streamtype", "data"), ("port", "0")])), Some(BadTunnel::Stream));
        assert_eq!(refused(&open(&[("streamtype", "stdin"), ("port", "80")])), Some(BadTunnel::Stream));
        let twice = [("streamtype", "data"), ("port", "80"), ("port", "22")];
        assert_eq!(refused(&open(&twice)), Some(BadTunnel::Headers));
        assert_eq!(refused(&open(&[("streamtype", "data"), ("Port", "80")])), Some(BadTunnel::Headers));
        assert_eq!(
            refused(&open(&[("streamtype", "data"), ("port", "80\u{0}22")])),
            Some(BadTunnel::Headers)
        );
        for kind in [0, SYN_REPLY, HEADERS, 5, 10, 0xffff] {
            assert_eq!(refused(&[control(kind, &[0; 8])]), Some(BadTunnel::Frame), "{kind}");
        }
        assert_eq!(refused(&[vec![0x80, 2, 0, 1, 0, 0, 0, 0]]), Some(BadTunnel::Frame));
        assert_eq!(refused(&[vec![0x80, 3, 0, 1, 0, 0xff, 0, 0]]), Some(BadTunnel::Long));
        assert_eq!(refused(&[control(SYN_STREAM, &[0; 20])]), Some(BadTunnel::Headers));
        // Pods open nothing.
        let mut tunnel = Tunnel::from_pod();
        assert_eq!(tunnel.push(&control(SYN_REPLY, &[0; 8]), &mut Vec::new(), |_| {}), Ok(Vec::new()));
        let opening = open(&[("streamtype", "data"), ("port", "80")]).concat();
        assert_eq!(tunnel.push(&opening, &mut Vec::new(), |_| {}), Err(BadTunnel::Frame));
    }
}
