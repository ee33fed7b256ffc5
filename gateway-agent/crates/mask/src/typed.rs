//! Cells of types that are not text, hidden without leaving their type.

use crate::{
    calendar::{self, Unit},
    numeric,
    transform::{Bucket, Key, Masked, REDACTED, Transform},
};

/// A type whose values can be replaced by values of the same type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Date,
    /// With or without time zone.
    Timestamp,
    Uuid,
    Bytea,
}

/// How a cell is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    Text,
    Binary,
}

const DAY: i64 = 86_400_000_000;
const HOUR: i64 = DAY / 24;

impl Transform {
    /// Hides one cell of a type: appends a value of that type to `out`, or makes it NULL where the transform has none.
    ///
    /// What may be shown of a text (`partial`) has no counterpart in other types. Dates and times in text are
    /// understood in ISO style.
    pub fn apply_typed(&self, key: &Key, of: Type, format: Format, cell: &[u8], out: &mut Vec<u8>) -> Masked {
        let start = out.len();
        match self.typed(key, of, format, cell, out) {
            Some(()) => Masked::Text,
            None => {
                out.truncate(start);
                Masked::Null
            }
        }
    }

    fn typed(&self, key: &Key, of: Type, format: Format, cell: &[u8], out: &mut Vec<u8>) -> Option<()> {
        match of {
            Type::Int2 | Type::Int4 | Type::Int8 => {
                let value = self.integer(key, of, integer(of, format, cell)?)?;
                write_integer(of, format, value, out)
            }
            Type::Numeric => {
                let text = match format {
                    Format::Text => std::str::from_utf8(cell).ok()?.to_owned(),
                    Format::Binary => numeric::decode(cell)?,
                };
                let value = self.decimal(key, &text)?;
                match format {
                    Format::Text => out.extend_from_slice(value.as_bytes()),
                    Format::Binary => numeric::encode(&value, out)?,
                }
                Some(())
            }
            Type::Float4 | Type::Float8 => self.float(of, format, cell, out),
            Type::Date | Type::Timestamp => match format {
                Format::Text => self.calendar_text(key, std::str::from_utf8(cell).ok()?, out),
                Format::Binary => self.calendar_binary(key, of, cell, out),
            },
            Type::Uuid => self.uuid(key, format, cell, out),
            Type::Bytea => self.bytea(key, format, cell, out),
        }
    }

    fn integer(&self, key: &Key, of: Type, value: i64) -> Option<i64> {
        let most = match of {
            Type::Int2 => i64::from(i16::MAX),
            Type::Int4 => i64::from(i32::MAX),
            _ => i64::MAX,
        };
        match self {
            // Two bytes are too few to keep values apart.
            Self::Hash if of != Type::Int2 => {
                let mac = key.mac(value.to_string().as_bytes());
                Some(i64::from_be_bytes(*mac.first_chunk()?) & most)
            }
            Self::Tokenise => {
                let mut digits = value.unsigned_abs().to_string();
                for _ in 0..64 {
                    digits = key.tokeniser()?.integer(&digits)?;
                    if let Some(token) = digits.parse::<i64>().ok().filter(|token| *token <= most) {
                        return Some(if value < 0 { -token } else { token });
                    }
                }
                None
            }
            Self::Bucket(Bucket { size: Some(size), .. }) => {
                let size = i64::from(*size);
                value.checked_sub(value.checked_rem_euclid(size)?).filter(|floor| *floor >= -most - 1)
            }
            _ => None,
        }
    }

    fn decimal(&self, key: &Key, text: &str) -> Option<String> {
        match self {
            Self::Hash => {
                let mac = key.mac(text.as_bytes());
                // 18 digits at most: within any numeric.
                Some((u64::from_be_bytes(*mac.first_chunk()?) % 1_000_000_000_000_000_000).to_string())
            }
            Self::Tokenise if numeric::is_plain(text) => {
                let mut out = Vec::new();
                key.tokeniser()?.text(text.as_bytes(), &mut out).then_some(())?;
                String::from_utf8(out).ok()
            }
            Self::Bucket(bucket) => bucket.number(text),
            _ => None,
        }
    }

    fn float(&self, of: Type, format: Format, cell: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let Self::Bucket(Bucket { size: Some(size), .. }) = self else { return None };
        let value = match (format, of) {
            (Format::Text, _) => std::str::from_utf8(cell).ok()?.parse::<f64>().ok()?,
            (Format::Binary, Type::Float4) => f64::from(f32::from_be_bytes(cell.try_into().ok()?)),
            (Format::Binary, _) => f64::from_be_bytes(cell.try_into().ok()?),
        };
        // Up to here every integer is a float of its own.
        let size = f64::from(*size);
        let floor = (value / size).floor() * size;
        (floor.abs() < 9e15).then_some(())?;
        let text = format!("{floor:.0}");
        match (format, of) {
            (Format::Text, _) => out.extend_from_slice(text.as_bytes()),
            (Format::Binary, Type::Float4) => out.extend_from_slice(&text.parse::<f32>().ok()?.to_be_bytes()),
            (Format::Binary, _) => out.extend_from_slice(&floor.to_be_bytes()),
        }
        Some(())
    }

    /// A date, or a date and a time after it.
    pub(crate) fn calendar_text(&self, key: &Key, text: &str, out: &mut Vec<u8>) -> Option<()> {
        let (days, rest) = calendar::parse(text)?;
        match self {
            Self::DateShift(shift) => {
                out.extend_from_slice(calendar::write(days.checked_add(key.shift(*shift))?)?.as_bytes());
                out.extend_from_slice(rest.as_bytes());
            }
            Self::Bucket(Bucket { unit: Some(unit), .. }) => {
                out.extend_from_slice(calendar::write(calendar::floor(days, *unit))?.as_bytes());
                // ` 11:22:33.44+02`
                let (time, zone) = match rest.find(['+', '-', 'Z']) {
                    Some(at) => rest.split_at_checked(at)?,
                    None => (rest, ""),
                };
                if !time.is_empty() {
                    let hour = time.get(1..3).filter(|hour| hour.bytes().all(|b| b.is_ascii_digit()))?;
                    out.extend_from_slice(time.get(..1)?.as_bytes());
                    out.extend_from_slice(if *unit == Unit::Hour { hour } else { "00" }.as_bytes());
                    out.extend_from_slice(b":00:00");
                    out.extend_from_slice(zone.as_bytes());
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn calendar_binary(&self, key: &Key, of: Type, cell: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let (value, day) = match of {
            Type::Date => (i64::from(i32::from_be_bytes(cell.try_into().ok()?)), 1),
            _ => (i64::from_be_bytes(cell.try_into().ok()?), DAY),
        };
        let (days, rest) = (value.div_euclid(day), value.rem_euclid(day));
        // Infinity is no date, nor are years that text has no four digits for.
        calendar::write(days)?;
        let masked = match self {
            Self::DateShift(shift) => {
                let days = days.checked_add(key.shift(*shift))?;
                calendar::write(days)?;
                days.checked_mul(day)?.checked_add(rest)?
            }
            Self::Bucket(Bucket { unit: Some(unit), .. }) => {
                let hours = if *unit == Unit::Hour && of == Type::Timestamp {
                    rest - rest.rem_euclid(HOUR)
                } else {
                    0
                };
                calendar::floor(days, *unit).checked_mul(day)?.checked_add(hours)?
            }
            _ => return None,
        };
        match of {
            Type::Date => out.extend_from_slice(&i32::try_from(masked).ok()?.to_be_bytes()),
            _ => out.extend_from_slice(&masked.to_be_bytes()),
        }
        Some(())
    }

    fn uuid(&self, key: &Key, format: Format, cell: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let bytes: [u8; 16] = match format {
            Format::Binary => cell.try_into().ok()?,
            Format::Text => unhex(cell.iter().copied().filter(|b| *b != b'-'))?.try_into().ok()?,
        };
        let masked: [u8; 16] = match self {
            Self::Hash => key.mac(&bytes),
            Self::Tokenise => key.tokeniser()?.uuid(bytes)?,
            _ => return None,
        };
        match format {
            Format::Binary => out.extend_from_slice(&masked),
            Format::Text => {
                for (at, byte) in masked.iter().enumerate() {
                    if matches!(at, 4 | 6 | 8 | 10) {
                        out.push(b'-');
                    }
                    hex(&[*byte], out);
                }
            }
        }
        Some(())
    }

    fn bytea(&self, key: &Key, format: Format, cell: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let plain = match format {
            Format::Binary => cell.to_vec(),
            // The other style, `escape`, is not told apart from damage.
            Format::Text => unhex(cell.strip_prefix(b"\\x")?.iter().copied())?,
        };
        let mut masked = Vec::new();
        match self {
            Self::Redact => masked.extend_from_slice(REDACTED.as_bytes()),
            Self::Hash => masked.extend_from_slice(&key.mac(&plain)),
            Self::Tokenise => key.tokeniser()?.bytes(&plain, &mut masked),
            _ => return None,
        }
        match format {
            Format::Binary => out.extend_from_slice(&masked),
            Format::Text => {
                out.extend_from_slice(b"\\x");
                hex(&masked, out);
            }
        }
        Some(())
    }
}

impl Bucket {
    /// The lower bound of the bucket that a decimal number is in.
    pub(crate) fn number(self, text: &str) -> Option<String> {
        let size = i128::from(self.size?);
        numeric::is_plain(text).then_some(())?;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let truncated: i128 = if matches!(whole, "" | "-") { 0 } else { whole.parse().ok()? };
        let below = text.starts_with('-') && fraction.bytes().any(|b| b != b'0');
        let floor = if below { truncated.checked_sub(1)? } else { truncated };
        Some(floor.checked_sub(floor.checked_rem_euclid(size)?)?.to_string())
    }
}

fn integer(of: Type, format: Format, cell: &[u8]) -> Option<i64> {
    Some(match (format, of) {
        (Format::Text, _) => std::str::from_utf8(cell).ok()?.parse().ok()?,
        (Format::Binary, Type::Int2) => i64::from(i16::from_be_bytes(cell.try_into().ok()?)),
        (Format::Binary, Type::Int4) => i64::from(i32::from_be_bytes(cell.try_into().ok()?)),
        (Format::Binary, _) => i64::from_be_bytes(cell.try_into().ok()?),
    })
}

fn write_integer(of: Type, format: Format, value: i64, out: &mut Vec<u8>) -> Option<()> {
    match (format, of) {
        (Format::Text, _) => out.extend_from_slice(value.to_string().as_bytes()),
        (Format::Binary, Type::Int2) => out.extend_from_slice(&i16::try_from(value).ok()?.to_be_bytes()),
        (Format::Binary, Type::Int4) => out.extend_from_slice(&i32::try_from(value).ok()?.to_be_bytes()),
        (Format::Binary, _) => out.extend_from_slice(&value.to_be_bytes()),
    }
    Some(())
}

/// Appends bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.extend(DIGITS.get(usize::from(nibble)));
        }
    }
}

fn unhex(digits: impl Iterator<Item = u8>) -> Option<Vec<u8>> {
    let nibbles: Option<Vec<u8>> = digits
        .map(|digit| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            b'A'..=b'F' => Some(digit - b'A' + 10),
            _ => None,
        })
        .collect();
    let nibbles = nibbles?;
    let pairs = nibbles.chunks_exact(2);
    pairs.remainder().is_empty().then_some(())?;
    pairs.map(|pair| if let [high, low] = pair { Some((high << 4) | low) } else { None }).collect()
}
