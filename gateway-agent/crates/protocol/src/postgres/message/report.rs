//! ErrorResponse and NoticeResponse: `E` or `N`, fields of a letter and a text, NUL.

use super::{Malformed, Reader, cstr, frame};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The connection ends.
    Fatal,
    Error,
    Warning,
    Notice,
}

impl Severity {
    fn text(self) -> &'static [u8] {
        match self {
            Self::Fatal => b"FATAL",
            Self::Error => b"ERROR",
            Self::Warning => b"WARNING",
            Self::Notice => b"NOTICE",
        }
    }
}

/// A report of the gateway's own.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    pub severity: Severity,
    pub sqlstate: &'a str,
    pub message: &'a str,
    pub detail: Option<&'a str>,
    pub hint: Option<&'a str>,
}

impl Report<'_> {
    /// Appends an ErrorResponse, or a NoticeResponse if it is no error.
    pub fn write(&self, out: &mut Vec<u8>) {
        let tag = match self.severity {
            Severity::Fatal | Severity::Error => b'E',
            Severity::Warning | Severity::Notice => b'N',
        };
        frame(out, tag, |out| {
            for (letter, text) in [
                (b'S', Some(self.severity.text())),
                (b'V', Some(self.severity.text())),
                (b'C', Some(self.sqlstate.as_bytes())),
                (b'M', Some(self.message.as_bytes())),
                (b'D', self.detail.map(str::as_bytes)),
                (b'H', self.hint.map(str::as_bytes)),
            ] {
                if let Some(text) = text {
                    out.push(letter);
                    cstr(out, text);
                }
            }
            out.push(0);
        });
    }
}

/// Calls `each` for the fields of a body in order.
pub fn fields<'a>(body: &'a [u8], mut each: impl FnMut(u8, &'a [u8])) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    loop {
        match reader.u8()? {
            0 => return reader.end(),
            letter => each(letter, reader.cstr()?),
        }
    }
}

/// One field of a body, if it is there.
pub fn field(body: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut found = None;
    fields(body, |letter, text| {
        if letter == wanted && found.is_none() {
            found = Some(text);
        }
    })
    .ok()?;
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_bytes() {
        let mut out = Vec::new();
        let mut report = Report {
            severity: Severity::Error,
            sqlstate: "42501",
            message: "no",
            detail: None,
            hint: Some("ask"),
        };
        report.write(&mut out);
        assert_eq!(out, b"E\0\0\0\x23SERROR\0VERROR\0C42501\0Mno\0Hask\0\0");
        assert_eq!(field(&out[5..], b'C'), Some(&b"42501"[..]));
        assert_eq!(field(&out[5..], b'D'), None);
        report.severity = Severity::Notice;
        out.clear();
        report.write(&mut out);
        assert_eq!(out[0], b'N');
    }

    #[test]
    fn fields_must_end() {
        assert!(fields(b"Mx\0\0", |_, _| ()).is_ok());
        assert!(fields(b"Mx\0", |_, _| ()).is_err());
        assert!(fields(b"Mx\0\0\0", |_, _| ()).is_err());
        assert!(fields(b"Mx", |_, _| ()).is_err());
        assert!(fields(b"", |_, _| ()).is_err());
    }
}
