//! Paths into JSON, and how far each has matched on the way to a value.

use std::fmt;

use crate::transform::Transform;

/// Most steps of a path.
const STEPS: usize = 60;

/// A path into a JSON document: `$.items[*].token`, `$..password`, `$['odd name'][0]` (child and descendant segments of RFC
/// 9535 with names, indices from 0 and wildcards; no slices and filters).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JsonPath {
    text: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Name(String),
    Index(u64),
    Any,
    /// `..`: any number of levels.
    Descend,
}

/// A path that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no path into JSON: {what}")]
pub struct BadJsonPath {
    pub text: String,
    pub what: &'static str,
}

impl JsonPath {
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadJsonPath> {
        let bad = |what| BadJsonPath { text: text.to_owned(), what };
        let mut rest = text.strip_prefix('$').ok_or_else(|| bad("it begins with `$`"))?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("..") {
                steps.push(Step::Descend);
                rest = match after.starts_with('[') {
                    true => after,
                    false => {
                        name(after, &mut steps).ok_or_else(|| bad("`..` is followed by a name or `*`"))?
                    }
                };
            } else if let Some(after) = rest.strip_prefix('.') {
                rest = name(after, &mut steps).ok_or_else(|| bad("`.` is followed by a name or `*`"))?;
            } else if let Some(after) = rest.strip_prefix('[') {
                rest = bracket(after, &mut steps)
                    .ok_or_else(|| bad("brackets hold a number, `*` or a name in quotes"))?;
            } else {
                return Err(bad("names follow a dot or stand in brackets"));
            }
        }
        if steps.len() > STEPS {
            return Err(bad("it has more than 60 steps"));
        }
        if steps.last() == Some(&Step::Descend) {
            return Err(bad("`..` is followed by a name, `*` or brackets"));
        }
        Ok(Self { text: text.to_owned(), steps })
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn name<'t>(text: &'t str, steps: &mut Vec<Step>) -> Option<&'t str> {
    if let Some(rest) = text.strip_prefix('*') {
        steps.push(Step::Any);
        return Some(rest);
    }
    let end = text.find(['.', '[']).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end)?;
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '$' || c == '@';
    if name.is_empty() || !name.chars().all(plain) {
        return None;
    }
    steps.push(Step::Name(name.to_owned()));
    Some(rest)
}

fn bracket<'t>(text: &'t str, steps: &mut Vec<Step>) -> Option<&'t str> {
    for quote in ['\'', '"'] {
        if let Some(rest) = text.strip_prefix(quote) {
            // No escapes: a name with both quotes in it cannot be written.
            let (name, rest) = rest.split_once(quote)?;
            steps.push(Step::Name(name.to_owned()));
            return rest.strip_prefix(']');
        }
    }
    let (inner, rest) = text.split_once(']')?;
    steps.push(match inner {
        "*" => Step::Any,
        number => Step::Index(number.parse().ok()?),
    });
    Some(rest)
}

/// For each path, after how many of its steps it may be: bit n is set when n steps have matched.
#[derive(Debug, Clone, Default)]
pub(super) struct States(Vec<u64>);

impl States {
    pub(super) fn start(paths: &[(JsonPath, Transform)]) -> Self {
        Self(paths.iter().map(|(path, _)| path.closure(1)).collect())
    }

    pub(super) fn member(&self, paths: &[(JsonPath, Transform)], name: &[u8]) -> Self {
        self.step(paths, |step| match step {
            Step::Name(wanted) => wanted.as_bytes() == name,
            Step::Any => true,
            Step::Index(_) | Step::Descend => false,
        })
    }

    pub(super) fn element(&self, paths: &[(JsonPath, Transform)], index: u64) -> Self {
        self.step(paths, |step| match step {
            Step::Index(wanted) => *wanted == index,
            Step::Any => true,
            Step::Name(_) | Step::Descend => false,
        })
    }

    fn step(&self, paths: &[(JsonPath, Transform)], fits: impl Fn(&Step) -> bool) -> Self {
        let one = |(path, state): (&(JsonPath, Transform), &u64)| {
            let mut next = 0;
            for (at, step) in path.0.steps.iter().enumerate() {
                let bit = 1_u64 << at;
                if state & bit == 0 {
                    continue;
                }
                if *step == Step::Descend {
                    next |= bit;
                } else if fits(step) {
                    next |= bit << 1;
                }
            }
            path.0.closure(next)
        };
        Self(paths.iter().zip(&self.0).map(one).collect())
    }

    /// Paths that lead to exactly this value.
    pub(super) fn found<'p>(
        &self,
        paths: &'p [(JsonPath, Transform)],
    ) -> impl Iterator<Item = &'p (JsonPath, Transform)> {
        let states = self.0.clone();
        paths
            .iter()
            .zip(states)
            .filter(|(path, state)| (state >> path.0.steps.len()) & 1 == 1)
            .map(|(path, _)| path)
    }
}

impl JsonPath {
    /// `..` may stand for no level at all.
    fn closure(&self, mut state: u64) -> u64 {
        for (at, step) in self.steps.iter().enumerate() {
            let bit = 1_u64 << at;
            if *step == Step::Descend && state & bit != 0 {
                state |= bit << 1;
            }
        }
        state
    }
}
