//! Describe and Close: `D` or `C`, `S` or `P`, name.

use super::{Malformed, Reader, cstr, frame};

/// What a Describe or Close is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    Statement(&'a [u8]),
    Portal(&'a [u8]),
}

impl<'a> Target<'a> {
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let kind = reader.u8()?;
        let name = reader.cstr()?;
        reader.end()?;
        match kind {
            b'S' => Ok(Self::Statement(name)),
            b'P' => Ok(Self::Portal(name)),
            _ => Err(Malformed),
        }
    }

    /// Appends a Describe of it.
    pub fn describe(self, out: &mut Vec<u8>) {
        frame(out, b'D', |out| {
            let (kind, name) = match self {
                Self::Statement(name) => (b'S', name),
                Self::Portal(name) => (b'P', name),
            };
            out.push(kind);
            cstr(out, name);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut out = Vec::new();
        Target::Portal(b"p").describe(&mut out);
        assert_eq!(out, b"D\0\0\0\x07Pp\0");
        assert_eq!(Target::read(b"Pp\0"), Ok(Target::Portal(b"p")));
        assert_eq!(Target::read(b"S\0"), Ok(Target::Statement(b"")));
        assert_eq!(Target::read(b"Xp\0"), Err(Malformed));
        assert_eq!(Target::read(b"Pp"), Err(Malformed));
        assert_eq!(Target::read(b"Pp\0\0"), Err(Malformed));
    }
}
