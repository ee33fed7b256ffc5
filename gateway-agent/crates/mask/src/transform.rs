//! How a value is hidden.

use std::{borrow::Cow, fmt};

use aws_lc_rs::hmac;
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Deserializer, Serialize, de};

/// What takes the place of a value of which nothing may be shown.
pub const REDACTED: &str = "[redacted]";

/// Stands for the hidden part of a partly shown value; of fixed width, so that it does not tell the length.
const HIDDEN: &[u8] = b"****";

/// Bytes of the MAC that a hash shows: 128 bits, so that two values of one column never collide in practice.
const HASH_BYTES: usize = 16;

/// How a value is hidden.
///
/// Written in YAML as `redact`, `null`, `hash` or `{partial: {keep_first: 1, keep_last: 4}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transform {
    /// The whole value is replaced by [`REDACTED`].
    Redact,
    /// Some characters at the ends stay.
    Partial(Partial),
    /// The value becomes NULL.
    Null,
    /// The value becomes a keyed hash of itself: equal values stay equal, nothing else is told.
    Hash,
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

/// The key of [`Transform::Hash`]. The same key gives the same hashes, also after a restart.
pub struct Key(hmac::Key);

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
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// A key of its own for each label, so that hashes of one resource say nothing about another's.
    pub fn derive(&self, label: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&self.0, label.as_bytes()).as_ref()))
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
            Self::Hash => hash(key, cell, out),
        }
        Masked::Text
    }

    /// The one of two transforms that shows less; of two partial ones, the ends both would show.
    #[must_use]
    pub fn stronger(self, other: Self) -> Self {
        match (self, other) {
            (Self::Partial(a), Self::Partial(b)) => Self::Partial(a.stronger(b)),
            _ if self.strength() >= other.strength() => self,
            _ => other,
        }
    }

    fn strength(self) -> u8 {
        match self {
            Self::Partial(_) => 0,
            Self::Hash => 1,
            Self::Redact => 2,
            Self::Null => 3,
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

fn hash(key: &Key, cell: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let tag = hmac::sign(&key.0, cell);
    for byte in tag.as_ref().iter().take(HASH_BYTES) {
        for nibble in [byte >> 4, byte & 15] {
            out.extend(HEX.get(usize::from(nibble)));
        }
    }
}

/// The names a transform may be written with.
const NAMES: &[&str] = &["redact", "null", "hash", "partial"];

impl<'de> Deserialize<'de> for Transform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TransformVisitor)
    }
}

struct TransformVisitor;

impl<'de> de::Visitor<'de> for TransformVisitor {
    type Value = Transform;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redact, null, hash or {partial: {keep_last: 4}}")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Transform, E> {
        match name {
            "redact" => Ok(Transform::Redact),
            "null" => Ok(Transform::Null),
            "hash" => Ok(Transform::Hash),
            "partial" => {
                Err(E::custom("`partial` needs what to keep, for example {partial: {keep_last: 4}}"))
            }
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
        if name != "partial" {
            return Err(de::Error::unknown_variant(&name, &["partial"]));
        }
        let partial: Partial = map.next_value()?;
        if let Some(more) = map.next_key::<String>()? {
            return Err(de::Error::custom(format!("`{more}` beside `partial`: a transform is one thing")));
        }
        if partial == Partial::default() {
            return Err(de::Error::custom("`partial` that keeps nothing; write redact"));
        }
        Ok(Transform::Partial(partial))
    }
}

impl schemars::JsonSchema for Transform {
    fn schema_name() -> Cow<'static, str> {
        "Transform".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let partial = generator.subschema_for::<Partial>();
        schemars::json_schema!({
            "description": "How a value is hidden.",
            "oneOf": [
                { "enum": ["redact", "null", "hash", null] },
                {
                    "type": "object",
                    "properties": { "partial": partial },
                    "required": ["partial"],
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
