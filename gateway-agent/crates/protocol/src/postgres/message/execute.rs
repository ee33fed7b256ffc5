//! Execute: `E`, portal, row limit.

use super::{Malformed, Reader};

/// The portal's name. (The row limit is between client and server.)
pub fn read(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(body);
    let portal = reader.cstr()?;
    reader.i32()?;
    reader.end()?;
    Ok(portal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portal_and_limit() {
        assert_eq!(read(b"p\0\0\0\0\x05"), Ok(&b"p"[..]));
        assert_eq!(read(b"\0\0\0\0\0"), Ok(&b""[..]));
        assert_eq!(read(b"p\0\0\0\0"), Err(Malformed));
        assert_eq!(read(b"p\0\0\0\0\0\0"), Err(Malformed));
    }
}
