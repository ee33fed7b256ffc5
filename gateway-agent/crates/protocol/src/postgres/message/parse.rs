//! Parse: `P`, statement name, text, parameter types.

use super::{Malformed, Reader, cstr, frame};

/// A Parse message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    pub name: &'a [u8],
    pub sql: &'a [u8],
    /// Count and oids of the parameter types that the client names; empty for none.
    pub types: &'a [u8],
}

impl<'a> Parse<'a> {
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let name = reader.cstr()?;
        let sql = reader.cstr()?;
        let types = reader.rest();
        let mut counted = Reader::new(types);
        let count = counted.u16()?;
        counted.take(usize::from(count) * 4)?;
        counted.end()?;
        Ok(Self { name, sql, types: if count == 0 { &[] } else { types } })
    }

    /// Appends it.
    pub fn write(self, out: &mut Vec<u8>) {
        frame(out, b'P', |out| {
            cstr(out, self.name);
            cstr(out, self.sql);
            out.extend_from_slice(if self.types.is_empty() { &[0, 0] } else { self.types });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut out = Vec::new();
        Parse { name: b"s1", sql: b"SELECT 1", types: &[] }.write(&mut out);
        assert_eq!(out, b"P\0\0\0\x12s1\0SELECT 1\0\0\0");
        assert_eq!(Parse::read(&out[5..]), Ok(Parse { name: b"s1", sql: b"SELECT 1", types: &[] }));
        let typed = Parse { name: b"", sql: b"SELECT $1", types: &[0, 1, 0, 0, 0, 23] };
        out.clear();
        typed.write(&mut out);
        assert_eq!(Parse::read(&out[5..]), Ok(typed));
    }

    #[test]
    fn counts_must_hold() {
        assert!(Parse::read(b"\0SELECT $1\0\0\x01\0\0\0\x17").is_ok());
        assert!(Parse::read(b"\0SELECT $1\0\0\x01\0\0\0").is_err());
        assert!(Parse::read(b"\0SELECT $1\0\0\x01\0\0\0\x17x").is_err());
        assert!(Parse::read(b"\0SELECT $1\0").is_err());
    }
}
