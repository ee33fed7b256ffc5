//! How a value is hidden.

use std::{borrow::Cow, fmt, sync::OnceLock};

use aws_lc_rs::hmac;
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{calendar::Unit, tokenise::Tokeniser, typed::hex};

/// What takes the place of a value of which nothing may be shown.
pub const REDACTED: &str = "[redacted]";

/// Stands for the hidden part of a partly shown value; of fixed width, so that it does not tell the length.
const HIDDEN: &[u8] = b"****";

/// Bytes of the MAC that a hash shows: 128 bits, so that two values of one column never collide in practice.
const HASH_BYTES: usize = 16;

/// How a value is hidden.
///
/// Written in YAML as `redact`, `null`, `hash`, `tokenise`, `{partial: {keep_first: 1, keep_last: 4}}`,
/// `{date_shift: {days: 30}}` or `{bucket: {size: 10}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    /// The whole value is replaced by [`REDACTED`].
    Redact,
    /// Some characters at the ends stay.
    Partial(Partial),
    /// The value becomes NULL.
    Null,
    /// The value becomes a keyed hash of itself: equal values stay equal, nothing else is told.
    Hash,
    /// The value becomes another one of the same format, by a key: equal values stay equal. Its length and its
    /// punctuation are told.
    Tokenise,
    /// A date is moved by a number of days that only the key tells, the same for all: intervals stay.
    DateShift(DateShift),
    /// A number or a date becomes the lower bound of a range that it is in.
    Bucket(Bucket),
}

/// How far dates are moved.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct DateShift {
    /// At most this many days, forwards or backwards, and at least one.
    #[schemars(range(min = 1))]
    pub days: u16,
}

/// How coarse numbers and dates become. What is neither, and has no field here, is redacted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bucket {
    /// Of numbers: the width of a range; ranges begin at its multiples.
    #[schemars(range(min = 1))]
    pub size: Option<u32>,
    /// Of dates and times.
    pub unit: Option<Unit>,
}

/// Characters at the ends of a value that stay readable. Values less than twice as long as what would stay
/// are hidden whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Partial {
    /// Characters kept at the start.
    pub keep_first: u16,
    /// Characters kept at the end.
    pub keep_last: u16,
}

/// What became of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masked {
    /// The replacement was appended to the output.
    Text,
    /// The cell is NULL now; nothing was appended.
    Null,
}

/// The key of hashes, tokens and shifts. The same key gives the same ones, also after a restart.
pub struct Key {
    hmac: hmac::Key,
    /// Made when first needed.
    tokeniser: OnceLock<Option<Tokeniser>>,
}

/// A hash key too short to keep guessed values from being confirmed.
#[derive(Debug, thiserror::Error)]
#[error("a masking key needs at least {} bytes, this one has {found}", Key::MIN_BYTES)]
pub struct WeakKey {
    /// Bytes given.
    pub found: usize,
}

impl Key {
    /// Fewest bytes a key may have.
    pub const MIN_BYTES: usize = 16;

    /// A key from secret bytes.
    pub fn new(secret: &SecretSlice<u8>) -> Result<Self, WeakKey> {
        let bytes = secret.expose_secret();
        if bytes.len() < Self::MIN_BYTES {
            return Err(WeakKey { found: bytes.len() });
        }
        Ok(Self::of(bytes))
    }

    fn of(bytes: &[u8]) -> Self {
        Self { hmac: hmac::Key::new(hmac::HMAC_SHA256, bytes), tokeniser: OnceLock::new() }
    }

    /// A key of its own for each label, so that hashes of one resource say nothing about another's.
    pub fn derive(&self, label: &str) -> Self {
        Self::of(hmac::sign(&self.hmac, label.as_bytes()).as_ref())
    }

    /// The first [`HASH_BYTES`] of a value's MAC.
    pub(crate) fn mac(&self, value: &[u8]) -> [u8; HASH_BYTES] {
        let tag = hmac::sign(&self.hmac, value);
        // The tag has 32 bytes.
        tag.as_ref().first_chunk().copied().unwrap_or_default()
    }

    pub(crate) fn tokeniser(&self) -> Option<&Tokeniser> {
        self.tokeniser.get_or_init(|| Tokeniser::new(&self.hmac)).as_ref()
    }

    /// Days to move dates by.
    pub(crate) fn shift(&self, shift: DateShift) -> i64 {
        let mac = self.mac(b"\0date shift");
        let [sign, drawn @ ..] = mac;
        let drawn = drawn.first_chunk().copied().map_or(0, u32::from_be_bytes);
        let days = i64::from(drawn % u32::from(shift.days).max(1)) + 1;
        if sign & 1 == 0 { days } else { -days }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Transform {
    /// Hides one textual cell: appends what may be shown to `out`.
    pub fn apply(&self, key: &Key, cell: &[u8], out: &mut Vec<u8>) -> Masked {
        match self {
            Self::Null => return Masked::Null,
            Self::Redact => out.extend_from_slice(REDACTED.as_bytes()),
            Self::Partial(partial) => partial.apply(cell, out),
            Self::Hash => hex(&key.mac(cell), out),
            Self::Tokenise => {
                if !key.tokeniser().is_some_and(|tokeniser| tokeniser.text(cell, out)) {
                    out.extend_from_slice(REDACTED.as_bytes());
                }
            }
            Self::DateShift(_) | Self::Bucket(_) => {
                let start = out.len();
                if self.counted(key, cell, out).is_none() {
                    out.truncate(start);
                    out.extend_from_slice(REDACTED.as_bytes());
                }
            }
        }
        Masked::Text
    }

    /// A number or a date in text.
    fn counted(&self, key: &Key, cell: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let text = std::str::from_utf8(cell).ok()?;
        if let Self::Bucket(bucket) = self
            && let Some(number) = bucket.number(text)
        {
            out.extend_from_slice(number.as_bytes());
            return Some(());
        }
        self.calendar_text(key, text, out)
    }

    /// The one of two transforms that shows less; of two partial ones, the ends both would show.
    #[must_use]
    pub fn stronger(self, other: Self) -> Self {
        match (self, other) {
            (Self::Partial(a), Self::Partial(b)) => Self::Partial(a.stronger(b)),
            (Self::DateShift(a), Self::DateShift(b)) => Self::DateShift(a.max(b)),
            (Self::Bucket(a), Self::Bucket(b)) => Self::Bucket(a.stronger(b)),
            _ if self.strength() >= other.strength() => self,
            _ => other,
        }
    }

    fn strength(self) -> u8 {
        match self {
            Self::Partial(_) => 0,
            Self::DateShift(_) => 1,
            Self::Bucket(_) => 2,
            Self::Tokenise => 3,
            Self::Hash => 4,
            Self::Redact => 5,
            Self::Null => 6,
        }
    }
}

impl Bucket {
    /// The wider ranges; what only one of them shows, neither does.
    #[must_use]
    pub fn stronger(self, other: Self) -> Self {
        Self {
            size: self.size.zip(other.size).map(|(a, b)| a.max(b)),
            unit: self.unit.zip(other.unit).map(|(a, b)| a.max(b)),
        }
    }
}

impl Partial {
    /// The ends that both would show.
    #[must_use]
    pub fn stronger(self, other: Self) -> Self {
        Self {
            keep_first: self.keep_first.min(other.keep_first),
            keep_last: self.keep_last.min(other.keep_last),
        }
    }

    /// Appends the value with its middle hidden, or [`REDACTED`] when it is too short or not UTF-8.
    pub(crate) fn apply(self, cell: &[u8], out: &mut Vec<u8>) {
        match self.ends(cell) {
            Some((first, last)) => {
                out.extend_from_slice(first.as_bytes());
                out.extend_from_slice(HIDDEN);
                out.extend_from_slice(last.as_bytes());
            }
            None => out.extend_from_slice(REDACTED.as_bytes()),
        }
    }

    fn ends(self, cell: &[u8]) -> Option<(&str, &str)> {
        let text = std::str::from_utf8(cell).ok()?;
        let (first, last) = (usize::from(self.keep_first), usize::from(self.keep_last));
        let kept = first + last;
        // At least as much is hidden as shown. `nth` also bounds the walk: long values are not counted through.
        text.chars().nth((2 * kept).max(1) - 1)?;
        let start = text.char_indices().nth(first).map_or(text.len(), |(at, _)| at);
        let end = match last {
            0 => text.len(),
            _ => text.char_indices().rev().nth(last - 1).map_or(0, |(at, _)| at),
        };
        Some((text.get(..start)?, text.get(end..)?))
    }
}

/// The names a transform may be written with.
const NAMES: &[&str] = &["redact", "null", "hash", "tokenise", "partial", "date_shift", "bucket"];
/// Those that need more than a name.
const MAPS: &[&str] = &["partial", "date_shift", "bucket"];

impl<'de> Deserialize<'de> for Transform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TransformVisitor)
    }
}

struct TransformVisitor;

impl<'de> de::Visitor<'de> for TransformVisitor {
    type Value = Transform;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redact, null, hash, tokenise, {partial: {keep_last: 4}}, {date_shift: {days: 30}} or {bucket: {size: 10}}")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Transform, E> {
        match name {
            "redact" => Ok(Transform::Redact),
            "null" => Ok(Transform::Null),
            "hash" => Ok(Transform::Hash),
            "tokenise" => Ok(Transform::Tokenise),
            "partial" => {
                Err(E::custom("`partial` needs what to keep, for example {partial: {keep_last: 4}}"))
            }
            "date_shift" => {
                Err(E::custom("`date_shift` needs how far, for example {date_shift: {days: 30}}"))
            }
            "bucket" => Err(E::custom(
                "`bucket` needs its width, for example {bucket: {size: 10}} or {bucket: {unit: month}}",
            )),
            _ => Err(E::unknown_variant(name, NAMES)),
        }
    }

    // YAML reads a bare `null` as nothing at all.
    fn visit_unit<E: de::Error>(self) -> Result<Transform, E> {
        Ok(Transform::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Transform, E> {
        Ok(Transform::Null)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Transform, A::Error> {
        let Some(name) = map.next_key::<String>()? else {
            return Err(de::Error::custom("an empty transform; write redact, null, hash or {partial: …}"));
        };
        let transform = match name.as_str() {
            "partial" => Transform::Partial(map.next_value()?),
            "date_shift" => Transform::DateShift(map.next_value()?),
            "bucket" => Transform::Bucket(map.next_value()?),
            _ => return Err(de::Error::unknown_variant(&name, MAPS)),
        };
        if let Some(more) = map.next_key::<String>()? {
            return Err(de::Error::custom(format!("`{more}` beside `{name}`: a transform is one thing")));
        }
        match transform {
            Transform::Partial(partial) if partial == Partial::default() => {
                Err(de::Error::custom("`partial` that keeps nothing; write redact"))
            }
            Transform::DateShift(DateShift { days: 0 }) => {
                Err(de::Error::custom("`date_shift` by no days; write at least 1"))
            }
            Transform::Bucket(Bucket { size: None, unit: None }) => {
                Err(de::Error::custom("`bucket` without `size` or `unit` shows nothing; write redact"))
            }
            Transform::Bucket(Bucket { size: Some(0), .. }) => {
                Err(de::Error::custom("`bucket` of size 0; write at least 1"))
            }
            transform => Ok(transform),
        }
    }
}

impl schemars::JsonSchema for Transform {
    fn schema_name() -> Cow<'static, str> {
        "Transform".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let partial = generator.subschema_for::<Partial>();
        let date_shift = generator.subschema_for::<DateShift>();
        let bucket = generator.subschema_for::<Bucket>();
        schemars::json_schema!({
            "description": "How a value is hidden.",
            "oneOf": [
                { "enum": ["redact", "null", "hash", "tokenise", null] },
                {
                    "type": "object",
                    "properties": { "partial": partial },
                    "required": ["partial"],
                    "additionalProperties": false
                },
                {
                    "type": "object",
                    "properties": { "date_shift": date_shift },
                    "required": ["date_shift"],
                    "additionalProperties": false
                },
                {
                    "type": "object",
                    "properties": { "bucket": bucket },
                    "required": ["bucket"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> Key {
        Key::new(&SecretSlice::from(vec![byte; 32])).unwrap()
    }

    fn apply(transform: Transform, cell: &str) -> String {
        let mut out = Vec::new();
        match transform.apply(&key(1), cell.as_bytes(), &mut out) {
            Masked::Text => String::from_utf8(out).unwrap(),
            Masked::Null => {
                assert!(out.is_empty());
                "NULL".into()
            }
        }
    }

    fn partial(keep_first: u16, keep_last: u16) -> Transform {
        Transform::Partial(Partial { keep_first, keep_last })
    }

    #[test]
    fn each_transform_shows_what_it_says() {
        assert_eq!(apply(Transform::Redact, "secret"), "[redacted]");
        assert_eq!(apply(Transform::Null, "secret"), "NULL");
        assert_eq!(apply(partial(0, 4), "4111111111111111"), "****1111");
        assert_eq!(apply(partial(2, 2), "abcdefgh"), "ab****gh");
        assert_eq!(apply(partial(1, 0), "Grüße"), "G****");
        assert_eq!(apply(partial(2, 1), "日本語テキスト"), "日本****ト");
    }

    #[test]
    fn tokens_keep_the_format_and_nothing_else() {
        let token = |cell: &str| apply(Transform::Tokenise, cell);
        for cell in ["4111 1111 1111 1111", "jane.doe@mail.example", "AB 12 34 56 C", "a1", "日本 12"] {
            let token = token(cell);
            assert_eq!(token, apply(Transform::Tokenise, cell), "stable");
            assert_ne!(token, cell);
            assert_eq!(token.chars().count(), cell.chars().count());
            for (was, is) in cell.chars().zip(token.chars()) {
                let same = |kind: fn(&char) -> bool| kind(&was) == kind(&is);
                assert!(same(char::is_ascii_digit) && same(char::is_ascii_uppercase), "{cell} {token}");
                assert!(was.is_alphanumeric() || was == is, "{cell} {token}");
            }
        }
        let tokens: std::collections::HashSet<_> =
            (0..5000).map(|n| token(&format!("{:06}", n * 199))).collect();
        assert_eq!(tokens.len(), 5000, "one to one");
        assert_eq!(apply(Transform::Tokenise, &"1".repeat(300)), REDACTED);
    }

    #[test]
    fn dates_move_together_and_numbers_fall_into_buckets() {
        let shift = Transform::DateShift(DateShift { days: 30 });
        let days = |cell: &str| crate::calendar::parse(&apply(shift, cell)).unwrap().0;
        let moved = days("2024-02-29") - crate::calendar::parse("2024-02-29").unwrap().0;
        assert!(moved != 0 && moved.abs() <= 30);
        assert_eq!(days("2024-03-31") - days("2024-02-29"), 31);
        assert!(apply(shift, "1999-12-31 23:59:59+00").ends_with(" 23:59:59+00"));
        assert_eq!(apply(shift, "31.12.1999"), REDACTED);
        let bucket = |size, unit, cell: &str| apply(Transform::Bucket(Bucket { size, unit }), cell);
        assert_eq!(bucket(Some(10), None, "47"), "40");
        assert_eq!(bucket(Some(10), None, "-0.5"), "-10");
        assert_eq!(bucket(None, Some(Unit::Month), "2024-02-29"), "2024-02-01");
        assert_eq!(bucket(None, Some(Unit::Hour), "2024-02-29 11:22:33.4+02"), "2024-02-29 11:00:00+02");
        assert_eq!(bucket(None, Some(Unit::Year), "47"), REDACTED);
        assert_eq!(bucket(Some(10), None, "forty-seven"), REDACTED);
    }

    #[test]
    fn partial_hides_short_and_broken_values_whole() {
        for short in ["", "a", "abc", "1234", "1234567"] {
            assert_eq!(apply(partial(0, 4), short), "[redacted]", "{short:?}");
        }
        let mut out = Vec::new();
        partial(1, 1).apply(&key(1), b"ab\xffcdefgh", &mut out);
        assert_eq!(out, b"[redacted]");
    }

    #[test]
    fn a_hash_depends_on_value_and_key_only() {
        let hash = |k: &Key, cell: &[u8]| {
            let mut out = Vec::new();
            Transform::Hash.apply(k, cell, &mut out);
            out
        };
        assert_eq!(hash(&key(1), b"a"), hash(&key(1), b"a"));
        assert_ne!(hash(&key(1), b"a"), hash(&key(1), b"b"));
        assert_ne!(hash(&key(1), b"a"), hash(&key(2), b"a"));
        assert_eq!(hash(&key(1).derive("orders"), b"a"), hash(&key(1).derive("orders"), b"a"));
        assert_ne!(hash(&key(1).derive("orders"), b"a"), hash(&key(1).derive("users"), b"a"));
        assert_eq!(hash(&key(1), b"a").len(), 32);
    }

    #[test]
    fn a_short_key_is_refused_and_a_key_is_never_printed() {
        assert_eq!(Key::new(&SecretSlice::from(vec![7; 15])).unwrap_err().found, 15);
        assert_eq!(format!("{:?}", key(7)), "Key");
    }

    fn any_transform() -> impl Strategy<Value = Transform> {
        prop_oneof![
            Just(Transform::Redact),
            Just(Transform::Null),
            Just(Transform::Hash),
            Just(Transform::Tokenise),
            any::<u16>().prop_map(|days| Transform::DateShift(DateShift { days })),
            (any::<Option<u32>>(), any::<bool>()).prop_map(|(size, months)| Transform::Bucket(Bucket {
                size,
                unit: months.then_some(Unit::Month)
            })),
            (any::<u16>(), any::<u16>()).prop_map(|(first, last)| partial(first, last)),
            (0u16..6, 0u16..6).prop_map(|(first, last)| partial(first, last)),
        ]
    }

    proptest! {
        #[test]
        fn stronger_is_a_semilattice(a in any_transform(), b in any_transform(), c in any_transform()) {
            prop_assert_eq!(a.stronger(a), a);
            prop_assert_eq!(a.stronger(b), b.stronger(a));
            prop_assert_eq!(a.stronger(b).stronger(c), a.stronger(b.stronger(c)));
        }

        #[test]
        fn any_cell_stays_text(transform in any_transform(), cell: Vec<u8>) {
            let mut out = Vec::new();
            transform.apply(&key(3), &cell, &mut out);
            prop_assert!(std::str::from_utf8(&out).is_ok());
        }

        #[test]
        fn partial_never_shows_more_than_half(first in 0u16..9, last in 0u16..9, cell in "\\PC{0,24}") {
            let shown = apply(partial(first, last), &cell);
            if shown != REDACTED {
                let kept = usize::from(first + last);
                prop_assert_eq!(shown.chars().count(), kept + HIDDEN.len());
                prop_assert!(2 * kept <= cell.chars().count());
            }
        }
    }
}
