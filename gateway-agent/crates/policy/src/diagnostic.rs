//! What is wrong with a policy, where, and what would be right.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, IgnoredAny},
};

/// One complaint about a source file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
    pub hint: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if !self.hint.is_empty() {
            write!(f, "\n  hint: {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// A step into a YAML document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seg {
    Key(String),
    Index(usize),
}

impl From<&str> for Seg {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Seg {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A node of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index of the source.
    pub(crate) source: usize,
    pub(crate) path: Vec<Seg>,
}

impl Place {
    pub(crate) fn new(source: usize, list: &str, index: usize) -> Self {
        Self { source, path: vec![list.into(), index.into()] }
    }

    /// The node below this one.
    pub(crate) fn at(&self, seg: impl Into<Seg>) -> Self {
        let mut path = self.path.clone();
        path.push(seg.into());
        Self { source: self.source, path }
    }
}

/// A complaint that has not been given its line yet.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) place: Place,
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// Collects findings.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    pub(crate) fn add(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Finding { place, message: message.into(), hint: hint.into() });
    }
}

/// Line and column, both from 1, of the node at `path`; of its deepest ancestor that exists, when it does not.
pub(crate) fn locate(text: &str, path: &[Seg]) -> (usize, usize) {
    (0..=path.len()).rev().find_map(|length| probe(text, path.get(..length)?)).unwrap_or((1, 1))
}

/// The YAML reader reports where it was when a value was refused: so read down to the node, and refuse it.
fn probe(text: &str, path: &[Seg]) -> Option<(usize, usize)> {
    let refused = Probe { path }.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    let location = refused.location()?;
    refused.to_string().contains(REFUSED).then(|| (location.line(), location.column()))
}

const REFUSED: &str = "\u{1}here\u{1}";

struct Probe<'p> {
    path: &'p [Seg],
}

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! refuse {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E: de::Error>(self, _: $type) -> Result<(), E> { self.scalar() })*
    };
}

impl Probe<'_> {
    fn scalar<E: de::Error>(&self) -> Result<(), E> {
        match self.path {
            [] => Err(E::custom(REFUSED)),
            _ => Ok(()),
        }
    }
}

impl<'de> de::Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    refuse!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.scalar()
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        self.scalar()
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let (wanted, rest) = match self.path.split_first() {
            None => return self.scalar(),
            Some((Seg::Index(index), rest)) => (Some(*index), rest),
            Some((Seg::Key(_), rest)) => (None, rest),
        };
        for index in 0.. {
            let more = match wanted == Some(index) {
                true => list.next_element_seed(Probe { path: rest })?,
                false => list.next_element::<IgnoredAny>()?.map(|_| ()),
            };
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (wanted, rest) = match self.path.split_first() {
            None => return self.scalar(),
            Some((Seg::Key(key), rest)) => (Some(key), rest),
            Some((Seg::Index(_), rest)) => (None, rest),
        };
        while let Some(key) = map.next_key::<String>()? {
            match wanted == Some(&key) {
                true => map.next_value_seed(Probe { path: rest })?,
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// The second use of a key in one mapping, which readers of YAML are known to pass over.
pub(crate) fn duplicate_key(file: &str, text: &str) -> Option<Diagnostic> {
    let error = Unique.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    let diagnostic = from_yaml(file, &error);
    // Whatever else is wrong is better said by the reader that knows what belongs here.
    diagnostic.message.contains(DUPLICATE).then_some(diagnostic)
}

const DUPLICATE: &str = "duplicate key ";

/// Any value whose mappings have each key once.
#[derive(Clone, Copy)]
struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! accept {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E: de::Error>(self, _: $type) -> Result<(), E> { Ok(()) })*
    };
}

impl<'de> de::Visitor<'de> for Unique {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    accept!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while map.next_key_seed(NewKey { seen: &mut seen })?.is_some() {
            map.next_value_seed(Self)?;
        }
        Ok(())
    }
}

/// A key that was not there yet.
struct NewKey<'s> {
    seen: &'s mut BTreeSet<String>,
}

impl<'de> DeserializeSeed<'de> for NewKey<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl de::Visitor<'_> for NewKey<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<(), E> {
        match self.seen.insert(key.to_owned()) {
            true => Ok(()),
            false => Err(E::custom(format!("{DUPLICATE}`{key}`"))),
        }
    }
}

/// Turns what the YAML reader says into a diagnostic with a useful hint.
pub(crate) fn from_yaml(file: &str, error: &serde_yaml::Error) -> Diagnostic {
    let text = error.to_string();
    let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
    let message = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text).to_owned();
    let hint = hint(&message);
    Diagnostic { file: file.to_owned(), line, column, message, hint }
}

/// From "unknown field `a`, expected one of `b`, `c`": which of those is meant.
fn hint(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.contains("unknown field") || message.contains("unknown variant") {
        let found = quoted.next().unwrap_or_default();
        let known: Vec<_> = quoted.collect();
        return did_you_mean(found, known.iter().copied());
    }
    if message.contains("missing field") {
        return format!("add `{}:` here", quoted.next().unwrap_or_default());
    }
    if message.contains("duplicate") {
        return "keep one of the two: YAML would silently take the last".to_owned();
    }
    if message.contains("invalid type") || message.contains("invalid value") {
        return "the README beside the shipped policies and schema.json show what belongs here".to_owned();
    }
    "check indentation, quotes and brackets; text with `: `, `#` or a leading `*` needs quotes".to_owned()
}

/// The nearest known name, or all of them when none is near.
pub(crate) fn did_you_mean<'a>(found: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let near = known
        .clone()
        .map(|name| (distance(found, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.chars().count().min(found.chars().count()) / 3)
        .min();
    match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => {
            let names: Vec<_> = known.take(40).map(|name| format!("`{name}`")).collect();
            match names.is_empty() {
                true => "none is defined".to_owned(),
                false => format!("known here: {}", names.join(", ")),
            }
        }
    }
}

/// Edits (insert, drop, change, swap neighbours counted as two) from one name to another.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (to, above) in b.iter().zip(row.iter().skip(1)) {
            let changed = diagonal + usize::from(from != *to);
            left = changed.min(left + 1).min(above + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_located() {
        let text = "version: 1\nrules:\n  - id: a\n    list: [x, {k: y}]\n  -   id: b # rules: id:\n      z: |\n        id: c\n      w: q\n";
        let path = |segs: &[Seg]| locate(text, segs);
        let rules: Seg = "rules".into();
        assert_eq!(path(&[]), (1, 1));
        assert_eq!(path(&[rules.clone(), 0.into(), "id".into()]), (3, 9));
        assert_eq!(path(&[rules.clone(), 0.into(), "list".into(), 1.into(), "k".into()]), (4, 19));
        assert_eq!(path(&[rules.clone(), 1.into(), "id".into()]), (5, 11));
        assert_eq!(path(&[rules.clone(), 1.into(), "w".into()]), (8, 10));
        assert_eq!(path(&[rules.clone(), 1.into(), "absent".into()]), (5, 7), "the nearest ancestor");
        assert_eq!(path(&[rules, 9.into()]), (3, 3));
    }

    #[test]
    fn near_names_are_suggested() {
        let known = ["effect", "expires", "id"];
        assert_eq!(did_you_mean("efect", known.into_iter()), "did you mean `effect`?");
        assert_eq!(did_you_mean("zzz", known.into_iter()), "known here: `effect`, `expires`, `id`");
        assert_eq!(did_you_mean("zzz", [].into_iter()), "none is defined");
    }

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("abc", "abc", 0), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }
}
