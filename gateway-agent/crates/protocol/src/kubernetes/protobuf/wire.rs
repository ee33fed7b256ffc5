//! Protobuf on the wire (<https://protobuf.dev/programming-guides/encoding/>), as far as Kubernetes uses it: no groups, no fixed32.

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written<'a> {
    Varint(u64),
    Fixed64(u64),
    /// A string, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
}

/// Bytes that are no message, or not one with a single meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("ends in the middle of a field")]
    Short,
    #[error("has a number of more than 64 bits")]
    Number,
    #[error("has a field of wire type {0}")]
    WireType(u64),
    #[error("has field {0} twice")]
    Twice(u64),
    #[error("has field {0}, which is not known")]
    Unknown(u64),
    #[error("has field {0} as another type")]
    Type(u64),
}

/// Reads one field after another. Lengths are compared with what is there, and nothing is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's number and what it holds; `None` at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u64, Written<'a>)>, Broken> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        let written = match tag & 7 {
            0 => Written::Varint(self.varint()?),
            1 => {
                let (bytes, rest) = self.rest.split_first_chunk().ok_or(Broken::Short)?;
                self.rest = rest;
                Written::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Broken::Short)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Broken::Short)?;
                self.rest = rest;
                Written::Bytes(bytes)
            }
            other => return Err(Broken::WireType(other)),
        };
        Ok(Some((number, written)))
    }

    /// One number of those that are packed behind each other; `None` at the end.
    pub(super) fn packed(&mut self) -> Result<Option<u64>, Broken> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    fn varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(Broken::Short)?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            // Of the tenth byte one bit has room.
            if shift == 63 && bits > 1 {
                return Err(Broken::Number);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Broken::Number)
    }
}

/// A small message whose fields are numbered from 1, each there once at most.
pub(super) fn flat<'a, const N: usize>(bytes: &'a [u8]) -> Result<[Option<Written<'a>>; N], Broken> {
    let mut fields = [None; N];
    let mut reader = Reader::new(bytes);
    while let Some((number, written)) = reader.field()? {
        let index = number.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        let place = index.and_then(|index| fields.get_mut(index)).ok_or(Broken::Unknown(number))?;
        if place.replace(written).is_some() {
            return Err(Broken::Twice(number));
        }
    }
    Ok(fields)
}

/// Field `number` of those, which holds bytes; empty when it is not there.
pub(super) fn bytes(written: Option<Written<'_>>, number: u64) -> Result<&[u8], Broken> {
    match written {
        None => Ok(&[]),
        Some(Written::Bytes(bytes)) => Ok(bytes),
        Some(_) => Err(Broken::Type(number)),
    }
}

/// The same, of a signed number; zero when it is not there.
pub(super) fn signed(written: Option<Written<'_>>, number: u64) -> Result<i64, Broken> {
    match written {
        None => Ok(0),
        Some(Written::Varint(value)) => Ok(value.cast_signed()),
        Some(_) => Err(Broken::Type(number)),
    }
}
