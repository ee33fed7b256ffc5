//! Strings and numbers of JSON.

use std::sync::Arc;

use super::BadJson;
use crate::{detect::Detectors, stream::Stream};

/// A pair of surrogates, the longest that stands for one character.
const PAIR: usize = 12;

/// A string that is shown while it is read.
#[derive(Debug)]
pub(super) enum Long {
    Plain,
    Searched(Stream),
}

impl Long {
    pub(super) fn searched(detectors: Arc<Detectors>) -> Self {
        Self::Searched(Stream::new(detectors))
    }

    /// Takes from `written` all but what may be the beginning of an escape.
    pub(super) fn push(&mut self, written: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), BadJson> {
        match self {
            Self::Plain => out.append(written),
            Self::Searched(stream) => {
                let (value, read) = decode_until(written, written.len().saturating_sub(PAIR))?;
                written.drain(..read);
                let mut shown = Vec::new();
                stream.push(&value, &mut shown);
                escape(&shown, out);
            }
        }
        Ok(())
    }

    /// The string is over: how much was hidden in it.
    pub(super) fn end(&mut self, written: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<u64, BadJson> {
        match self {
            Self::Plain => {
                out.append(written);
                Ok(0)
            }
            Self::Searched(stream) => {
                let mut shown = Vec::new();
                stream.push(&decode(written)?, &mut shown);
                stream.release(&mut shown);
                escape(&shown, out);
                Ok(stream.hidden())
            }
        }
    }
}

/// The value of a string, as its reader has it. A lone surrogate becomes U+FFFD.
pub(super) fn decode(written: &[u8]) -> Result<Vec<u8>, BadJson> {
    decode_until(written, written.len()).map(|(value, _)| value)
}

/// The same up to the first character that begins at `end` or behind, and where that is.
fn decode_until(written: &[u8], end: usize) -> Result<(Vec<u8>, usize), BadJson> {
    let mut value = Vec::with_capacity(written.len());
    let mut at = 0;
    while at < end {
        let rest = written.get(at..).unwrap_or_default();
        let plain = memchr::memchr(b'\\', rest).unwrap_or(rest.len()).min(end.saturating_sub(at));
        if plain > 0 {
            value.extend_from_slice(rest.get(..plain).unwrap_or_default());
            at = at.saturating_add(plain);
            continue;
        }
        let short = match rest.get(1).ok_or(BadJson::Syntax)? {
            b'"' => b'"',
            b'\\' => b'\\',
            b'/' => b'/',
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (character, length) = unicode(rest)?;
                value.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                at = at.saturating_add(length);
                continue;
            }
            _ => return Err(BadJson::Syntax),
        };
        value.push(short);
        at = at.saturating_add(2);
    }
    Ok((value, at))
}

/// `\uXXXX`, or a pair of them, and its length.
fn unicode(text: &[u8]) -> Result<(char, usize), BadJson> {
    let high = unit(text)?;
    if let Some(character) = char::from_u32(high) {
        return Ok((character, 6));
    }
    if (0xd800..0xdc00).contains(&high)
        && let Some(next) = text.get(6..)
        && next.starts_with(b"\\u")
        && let low @ 0xdc00..=0xdfff = unit(next)?
    {
        let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        return Ok((char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), PAIR));
    }
    Ok((char::REPLACEMENT_CHARACTER, 6))
}

fn unit(text: &[u8]) -> Result<u32, BadJson> {
    let digits = text.get(2..6).ok_or(BadJson::Syntax)?;
    let mut unit = 0;
    for digit in digits {
        let value = char::from(*digit).to_digit(16).ok_or(BadJson::Syntax)?;
        unit = unit * 16 + value;
    }
    Ok(unit)
}

/// Writes a value as a string.
pub(super) fn quote(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    escape(value, out);
    out.push(b'"');
}

fn escape(value: &[u8], out: &mut Vec<u8>) {
    for byte in value {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
}

/// RFC 8259 section 6.
pub(super) fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest.first() == Some(&b'0')) {
        return false;
    }
    let mut rest = rest.get(whole..).unwrap_or_default();
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = fraction.get(length..).unwrap_or_default();
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let exponent =
            exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let length = digits(exponent);
        return length > 0 && exponent.len() == length;
    }
    rest.is_empty()
}
