//! Single messages: checked readers and writers.
//!
//! A reader borrows from the message and never runs past it; a body with bytes left over is malformed. Where a
//! module has both sides, what a client sends and what a server sends are separate types.
//!
//! Source: PostgreSQL documentation, "Frontend/Backend Protocol", chapter "Message Formats".

pub mod authentication;
pub mod bind;
pub mod data_row;
pub mod execute;
pub mod function_call;
pub mod parse;
pub mod query;
pub mod ready;
pub mod report;
pub mod row_description;
pub mod startup;
pub mod target;

mod reader;
mod writer;

pub use reader::{I16List, Malformed, Reader};
pub(crate) use writer::patch;
pub use writer::{cstr, frame};

/// Bytes of a message's type and length.
pub const HEADER: usize = 5;

/// A message's first five bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub tag: u8,
    /// Of the whole message, type and length included.
    pub total: usize,
}

impl Header {
    /// `None` while fewer than five bytes are there; an error for a length that cannot be.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(([tag, length @ ..], _)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        // The length counts itself. Both sides of PostgreSQL read it as signed.
        if !(4..=0x7fff_ffff).contains(&length) {
            return Err(Malformed);
        }
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        Ok(Some(Self { tag: *tag, total: length.checked_add(1).ok_or(Malformed)? }))
    }
}

/// The body of a complete message.
pub(crate) fn body(message: &[u8]) -> &[u8] {
    message.get(HEADER..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_wants_a_possible_length() {
        assert_eq!(Header::read(b"Q\0\0\0"), Ok(None));
        assert_eq!(Header::read(b"Q\0\0\0\x04"), Ok(Some(Header { tag: b'Q', total: 5 })));
        assert_eq!(Header::read(b"Q\0\0\0\x03"), Err(Malformed));
        assert_eq!(Header::read(b"Q\xff\xff\xff\xff"), Err(Malformed));
        assert_eq!(Header::read(b"D\x7f\xff\xff\xffx"), Ok(Some(Header { tag: b'D', total: 0x8000_0000 })));
    }
}
