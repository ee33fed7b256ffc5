//! A cursor over one message body.

/// The bytes do not form the message that they claim to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message")]
pub struct Malformed;

/// Reads a message body from front to back.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// A counted list of 16-bit numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct I16List<'a>(&'a [u8]);

impl I16List<'_> {
    pub fn len(self) -> usize {
        self.0.len() / 2
    }

    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub fn get(self, at: usize) -> Option<i16> {
        let start = at.checked_mul(2)?;
        let pair = self.0.get(start..start.checked_add(2)?)?;
        Some(i16::from_be_bytes(pair.try_into().ok()?))
    }
}

impl<'a> Reader<'a> {
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// What is not yet read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Ends the message: anything left over is an error.
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    /// Bytes up to a NUL, which is skipped.
    pub fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr::memchr(0, self.rest).ok_or(Malformed)?;
        let text = self.take(end)?;
        self.take(1)?;
        Ok(text)
    }

    /// A length and as many bytes; length -1 is NULL, other negative lengths are malformed.
    pub fn value(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.i32()? {
            -1 => Ok(None),
            length => self.take(usize::try_from(length).map_err(|_| Malformed)?).map(Some),
        }
    }

    /// A count and as many 16-bit numbers.
    pub fn i16_list(&mut self) -> Result<I16List<'a>, Malformed> {
        let count = self.u16()?;
        self.take(usize::from(count) * 2).map(I16List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_order_and_ends() {
        let mut reader = Reader::new(b"\x01\x00\x02\xff\xff\xff\xffab\0\0\0\0\x01z\xff\xff\xff\xff");
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.i32(), Ok(-1));
        assert_eq!(reader.cstr(), Ok(&b"ab"[..]));
        assert_eq!(reader.value(), Ok(Some(&b"z"[..])));
        assert_eq!(reader.value(), Ok(None));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn never_runs_past_the_end() {
        assert_eq!(Reader::new(b"abc").cstr(), Err(Malformed));
        assert_eq!(Reader::new(b"\0\0\0\x05abcd").value(), Err(Malformed));
        assert_eq!(Reader::new(b"\xff\xff\xff\xfe").value(), Err(Malformed));
        assert_eq!(Reader::new(b"\0").u16(), Err(Malformed));
        assert!(Reader::new(b"\0\x02\0\0\0").i16_list().is_err());
        assert_eq!(Reader::new(b"x").end(), Err(Malformed));
    }

    #[test]
    fn lists_index() {
        let list = Reader::new(b"\0\x02\0\x01\xff\xff").i16_list().unwrap();
        assert_eq!((list.len(), list.get(0), list.get(1), list.get(2)), (2, Some(1), Some(-1), None));
    }
}
