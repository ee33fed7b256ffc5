//! ReadyForQuery: `Z`, transaction status.

use super::{Malformed, Reader, frame};

/// State of the server's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    #[default]
    Idle,
    InTransaction,
    Failed,
}

impl Status {
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let status = match reader.u8()? {
            b'I' => Self::Idle,
            b'T' => Self::InTransaction,
            b'E' => Self::Failed,
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(status)
    }

    /// Appends a ReadyForQuery with it.
    pub fn write(self, out: &mut Vec<u8>) {
        let status = match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        };
        frame(out, b'Z', |out| out.push(status));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for (status, bytes) in [
            (Status::Idle, b"Z\0\0\0\x05I"),
            (Status::InTransaction, b"Z\0\0\0\x05T"),
            (Status::Failed, b"Z\0\0\0\x05E"),
        ] {
            let mut out = Vec::new();
            status.write(&mut out);
            assert_eq!(out, bytes);
            assert_eq!(Status::read(&out[5..]), Ok(status));
        }
        assert!(Status::read(b"X").is_err());
        assert!(Status::read(b"II").is_err());
        assert!(Status::read(b"").is_err());
    }
}
