//! Frames: the prefix, frame headers and the chain.

use crate::limits;

pub(crate) const MAGIC: [u8; 8] = *b"\x89GWREC\r\n";
pub(crate) const VERSION: u32 = 1;
pub(crate) const PREFIX: usize = 16;
/// A frame header on disk.
pub(crate) const HEADER: usize = 136;
/// The part of it that the content hash is added to.
pub(crate) const FIELDS: usize = 72;
const HASHED: usize = 104;

pub(crate) type Hash = [u8; 32];

pub(crate) fn prefix() -> [u8; PREFIX] {
    let mut out = [0; PREFIX];
    let (magic, rest) = out.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    if let Some(version) = rest.first_chunk_mut() {
        *version = VERSION.to_le_bytes();
    }
    out
}

pub(crate) fn hash(bytes: &[u8]) -> Hash {
    *blake3::hash(bytes).as_bytes()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Head,
    Data,
    Sign,
}

impl Kind {
    fn tag(self) -> [u8; 4] {
        match self {
            Kind::Head => *b"HEAD",
            Kind::Data => *b"DATA",
            Kind::Sign => *b"SIGN",
        }
    }

    fn from_tag(tag: [u8; 4]) -> Option<Self> {
        [Kind::Head, Kind::Data, Kind::Sign].into_iter().find(|kind| kind.tag() == tag)
    }

    /// Caps on `stored` and `raw`.
    pub(crate) fn caps(self) -> (usize, usize) {
        match self {
            Kind::Head => (limits::HEADER, limits::HEADER),
            Kind::Data => (limits::STORED, limits::RAW),
            Kind::Sign => (crate::checkpoint::LEN, crate::checkpoint::LEN),
        }
    }
}

/// A frame header without its two hashes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    pub(crate) kind: Kind,
    pub(crate) records: u32,
    pub(crate) sequence: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) stored: u32,
    pub(crate) raw: u32,
    pub(crate) previous: Hash,
}

impl Fields {
    /// Bytes 0..72.
    pub(crate) fn encode(&self) -> [u8; FIELDS] {
        let mut out = [0; FIELDS];
        let mut rest = out.as_mut_slice();
        for part in [
            &self.kind.tag()[..],
            &self.records.to_le_bytes(),
            &self.sequence.to_le_bytes(),
            &self.first.to_le_bytes(),
            &self.last.to_le_bytes(),
            &self.stored.to_le_bytes(),
            &self.raw.to_le_bytes(),
            &self.previous,
        ] {
            let Some((here, after)) = rest.split_at_mut_checked(part.len()) else { break };
            here.copy_from_slice(part);
            rest = after;
        }
        out
    }

    /// Appends the frame and returns the hash that the next one carries.
    pub(crate) fn push_frame(&self, body: &[u8], to: &mut Vec<u8>) -> Hash {
        let start = to.len();
        to.extend_from_slice(&self.encode());
        to.extend_from_slice(&hash(body));
        let own = hash(to.get(start..).unwrap_or_default());
        to.extend_from_slice(&own);
        to.extend_from_slice(body);
        own
    }
}

/// A frame header as read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameHeader {
    pub(crate) fields: Fields,
    pub(crate) content: Hash,
    pub(crate) own: Hash,
}

pub(crate) enum HeaderError {
    /// The header is not what was hashed.
    Changed,
    /// The hash holds but the kind is not known.
    Kind,
}

impl FrameHeader {
    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Result<Self, HeaderError> {
        let mut cursor = Cursor(bytes);
        let mut parse = || {
            let tag = cursor.array()?;
            let (records, sequence) = (cursor.u32()?, cursor.u64()?);
            let (first, last) = (cursor.u64()?, cursor.u64()?);
            let (stored, raw) = (cursor.u32()?, cursor.u32()?);
            let (previous, content, own) = (cursor.array()?, cursor.array()?, cursor.array()?);
            Some((
                tag,
                Fields { kind: Kind::Head, records, sequence, first, last, stored, raw, previous },
                content,
                own,
            ))
        };
        let (tag, fields, content, own) = parse().ok_or(HeaderError::Changed)?;
        let hashed = bytes.get(..HASHED).ok_or(HeaderError::Changed)?;
        if hash(hashed) != own {
            return Err(HeaderError::Changed);
        }
        let kind = Kind::from_tag(tag).ok_or(HeaderError::Kind)?;
        Ok(Self { fields: Fields { kind, ..fields }, content, own })
    }
}

/// Takes integers and runs of bytes off the front; `None` when they are not there.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    /// LEB128, at most ten bytes, no bits beyond 64.
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}
