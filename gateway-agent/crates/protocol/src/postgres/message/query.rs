//! Query: `Q`, text.

use super::{Malformed, Reader};

/// The text of a Query body.
pub fn read(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(body);
    let sql = reader.cstr()?;
    reader.end()?;
    Ok(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_and_nothing_else() {
        assert_eq!(read(b"SELECT 1\0"), Ok(&b"SELECT 1"[..]));
        assert_eq!(read(b"\0"), Ok(&b""[..]));
        assert_eq!(read(b"SELECT 1"), Err(Malformed));
        assert_eq!(read(b"SELECT 1\0; DROP TABLE t\0"), Err(Malformed));
        assert_eq!(read(b""), Err(Malformed));
    }
}
