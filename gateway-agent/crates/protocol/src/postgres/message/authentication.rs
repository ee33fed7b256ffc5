//! Authentication messages: `R` from the server, `p` from the client.

use super::{Malformed, Reader, cstr, frame};

/// What the server asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication<'a> {
    Ok,
    Cleartext,
    Md5([u8; 4]),
    /// The mechanisms, as a list of NUL-terminated names with the closing NUL left out.
    Sasl(&'a [u8]),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    /// Kerberos, GSSAPI, SSPI and what else there may be.
    Other(u32),
}

impl<'a> Authentication<'a> {
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let read = match reader.u32()? {
            0 => Self::Ok,
            3 => Self::Cleartext,
            5 => Self::Md5(reader.take(4)?.try_into().map_err(|_| Malformed)?),
            10 => {
                let (last, names) = reader.rest().split_last().ok_or(Malformed)?;
                if *last != 0 {
                    return Err(Malformed);
                }
                return Ok(Self::Sasl(names));
            }
            11 => return Ok(Self::SaslContinue(reader.rest())),
            12 => return Ok(Self::SaslFinal(reader.rest())),
            other => return Ok(Self::Other(other)),
        };
        reader.end()?;
        Ok(read)
    }

    /// Whether a mechanism is in the list of an [`Authentication::Sasl`].
    pub fn offers(mechanisms: &[u8], wanted: &str) -> bool {
        mechanisms.split(|byte| *byte == 0).any(|name| name == wanted.as_bytes())
    }
}

/// Appends AuthenticationOk.
pub fn ok(out: &mut Vec<u8>) {
    frame(out, b'R', |out| out.extend_from_slice(&[0; 4]));
}

/// Appends a PasswordMessage.
pub fn password(out: &mut Vec<u8>, password: &[u8]) {
    frame(out, b'p', |out| cstr(out, password));
}

/// Appends a SASLInitialResponse.
pub fn sasl_initial(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) {
    frame(out, b'p', |out| {
        cstr(out, mechanism.as_bytes());
        super::writer::counted_apart(out, data);
    });
}

/// Appends a SASLResponse.
pub fn sasl(out: &mut Vec<u8>, data: &[u8]) {
    frame(out, b'p', |out| out.extend_from_slice(data));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        assert_eq!(Authentication::read(b"\0\0\0\0"), Ok(Authentication::Ok));
        assert_eq!(Authentication::read(b"\0\0\0\x03"), Ok(Authentication::Cleartext));
        assert_eq!(Authentication::read(b"\0\0\0\x05abcd"), Ok(Authentication::Md5(*b"abcd")));
        assert_eq!(Authentication::read(b"\0\0\0\x05abc"), Err(Malformed));
        assert_eq!(Authentication::read(b"\0\0\0\0x"), Err(Malformed));
        assert_eq!(Authentication::read(b"\0\0\0\x0bdata"), Ok(Authentication::SaslContinue(b"data")));
        assert_eq!(Authentication::read(b"\0\0\0\x07"), Ok(Authentication::Other(7)));
        assert_eq!(Authentication::read(b"\0\0\0"), Err(Malformed));
    }

    #[test]
    fn mechanisms() {
        let Ok(Authentication::Sasl(names)) =
            Authentication::read(b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
        else {
            panic!("not read")
        };
        assert!(Authentication::offers(names, "SCRAM-SHA-256"));
        assert!(Authentication::offers(names, "SCRAM-SHA-256-PLUS"));
        assert!(!Authentication::offers(names, "SCRAM"));
    }

    #[test]
    fn responses() {
        let mut out = Vec::new();
        ok(&mut out);
        password(&mut out, b"pw");
        sasl_initial(&mut out, "X", b"abc");
        sasl(&mut out, b"d");
        assert_eq!(out, b"R\0\0\0\x08\0\0\0\0p\0\0\0\x07pw\0p\0\0\0\x0dX\0\0\0\0\x03abcp\0\0\0\x05d");
    }
}
