//! Bind: `B`, portal, statement, parameter formats, parameters, result formats.

use super::{I16List, Malformed, Reader};

/// A Bind message.
#[derive(Debug, Clone, Copy)]
pub struct Bind<'a> {
    pub portal: &'a [u8],
    pub statement: &'a [u8],
    /// Parameter formats and parameters, as they came.
    pub params: &'a [u8],
    pub result_formats: I16List<'a>,
}

impl<'a> Bind<'a> {
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let portal = reader.cstr()?;
        let statement = reader.cstr()?;
        let params = reader.rest();
        reader.i16_list()?;
        for _ in 0..reader.u16()? {
            reader.value()?;
        }
        let length = params.len() - reader.rest().len();
        let params = params.get(..length).ok_or(Malformed)?;
        let result_formats = reader.i16_list()?;
        reader.end()?;
        Ok(Self { portal, statement, params, result_formats })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_part() {
        let body = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x02\0\0\0\x01";
        let bind = Bind::read(body).unwrap();
        assert_eq!((bind.portal, bind.statement), (&b"p"[..], &b"s"[..]));
        assert_eq!(bind.params, b"\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff");
        assert_eq!(bind.result_formats.len(), 2);
        assert_eq!(bind.result_formats.get(1), Some(1));
    }

    #[test]
    fn counts_must_hold() {
        assert!(Bind::read(b"\0\0\0\0\0\0\0\0").is_ok());
        assert!(Bind::read(b"\0\0\0\0\0\0\0\0x").is_err());
        assert!(Bind::read(b"\0\0\0\0\0\x01\0\0\0\x05x\0\0").is_err());
        assert!(Bind::read(b"\0\0\xff\xff").is_err());
        assert!(Bind::read(b"").is_err());
    }
}
