//! Bind parameters, as they came.

use crate::postgres::message::Reader;

/// The parameters of a bound statement.
///
/// The bytes are the middle of a Bind message: format codes, then values.
#[derive(Debug, Clone, Copy)]
pub struct Params<'a> {
    body: &'a [u8],
    complete: bool,
}

/// One parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param<'a> {
    /// The client sent it in the type's binary format.
    pub binary: bool,
    /// `None` is NULL.
    pub value: Option<&'a [u8]>,
}

impl<'a> Params<'a> {
    /// No parameters.
    pub const NONE: Params<'static> = Params { body: &[], complete: true };

    pub(crate) fn from_raw(body: &'a [u8], complete: bool) -> Self {
        Self { body, complete }
    }

    /// The bytes as they came: the middle of a Bind message.
    pub fn bytes(self) -> &'a [u8] {
        self.body
    }

    pub(crate) fn raw(self) -> (&'a [u8], bool) {
        (self.body, self.complete)
    }

    /// False when they were longer than is kept: then there are none to see here. What has to be shown to a
    /// human must be denied if not complete.
    pub fn complete(self) -> bool {
        self.complete
    }

    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }

    /// The parameters in order.
    pub fn iter(self) -> impl Iterator<Item = Param<'a>> {
        let mut reader = Reader::new(self.body);
        let formats = reader.i16_list().unwrap_or_default();
        let count = reader.u16().unwrap_or(0);
        (0..usize::from(count)).map_while(move |at| {
            let binary = match formats.len() {
                0 => false,
                1 => formats.get(0) == Some(1),
                _ => formats.get(at) == Some(1),
            };
            let value = reader.value().ok()?;
            Some(Param { binary, value })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_values_with_their_formats() {
        let body = b"\0\x02\0\0\0\x01\0\x02\0\0\0\x02hi\xff\xff\xff\xff";
        let params: Vec<_> = Params::from_raw(body, true).iter().collect();
        assert_eq!(
            params,
            [Param { binary: false, value: Some(b"hi") }, Param { binary: true, value: None }]
        );
        assert!(Params::NONE.is_empty());
    }

    #[test]
    fn one_format_is_for_all() {
        let body = b"\0\x01\0\x01\0\x02\0\0\0\x01a\0\0\0\x01b";
        assert!(Params::from_raw(body, true).iter().all(|param| param.binary));
        assert_eq!(Params::from_raw(b"\0\0\0\x05\0\0\0\x09short", true).iter().count(), 0);
    }
}
