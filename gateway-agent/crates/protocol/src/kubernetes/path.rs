//! Paths and queries, as far as they have one meaning.
//!
//! A proxy and the server behind it must see the same request. Whatever two readers could take for two things (encoded slashes,
//! dot segments, doubled slashes, parameters given twice) is refused.

use super::Unreadable;

/// Longest request target, in bytes.
const TARGET_MAX: usize = 32 * 1024;

/// A request target in origin form: its path's segments, and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Decoded, with the first slash.
    pub(super) path: String,
    /// Decoded; without an empty one for a slash at the end.
    pub(super) segments: Vec<String>,
    /// The path ends in a slash.
    pub(super) slash: bool,
    pub(super) query: Query,
}

impl Target {
    pub(super) fn read(target: &str) -> Result<Self, Unreadable> {
        if target.len() > TARGET_MAX {
            return Err(Unreadable::bad("the request target is too long"));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Some(inner) = path.strip_prefix('/') else {
            return Err(Unreadable::bad("the request target does not begin with a slash"));
        };
        if path.contains('#') || query.contains('#') {
            return Err(Unreadable::ambiguous("a fragment"));
        }
        let (inner, slash) = match inner.strip_suffix('/') {
            Some(rest) => (rest, true),
            None => (inner, false),
        };
        let mut segments = Vec::new();
        if !inner.is_empty() {
            for segment in inner.split('/') {
                segments.push(read_segment(segment)?);
            }
        } else if slash {
            return Err(Unreadable::ambiguous("an empty segment"));
        }
        let mut text = String::new();
        for segment in &segments {
            text.push('/');
            text.push_str(segment);
        }
        if slash || text.is_empty() {
            text.push('/');
        }
        Ok(Self { path: text, segments, slash, query: Query::read(query)? })
    }
}

fn read_segment(segment: &str) -> Result<String, Unreadable> {
    if segment.is_empty() {
        return Err(Unreadable::ambiguous("an empty segment"));
    }
    let text = decode(segment, false)?;
    if matches!(text.as_str(), "." | "..") {
        return Err(Unreadable::ambiguous("a dot segment"));
    }
    if segment.contains('%') && text.contains('.') && segment.to_ascii_lowercase().contains("%2e") {
        return Err(Unreadable::ambiguous("an encoded dot"));
    }
    if text.contains(['/', '\\', '%', ';', '?', '#']) {
        return Err(Unreadable::ambiguous("an encoded slash, backslash, percent sign or the like"));
    }
    Ok(text)
}

/// Undoes percent-encoding, once. Controls and what is no UTF-8 are refused.
fn decode(text: &str, plus: bool) -> Result<String, Unreadable> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
                let digits = digits.filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()));
                let value = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
                bytes.push(value.ok_or_else(|| Unreadable::ambiguous("a percent sign without two digits"))?);
                rest = after.get(2..).unwrap_or_default();
            }
            b'+' if plus => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    let text =
        String::from_utf8(bytes).map_err(|_| Unreadable::ambiguous("encoded bytes that are no UTF-8"))?;
    let fine = |c: char| !c.is_control() || (plus && matches!(c, '\n' | '\r' | '\t'));
    match text.chars().all(fine) {
        true => Ok(text),
        false => Err(Unreadable::ambiguous("a control character")),
    }
}

/// Parameters, decoded, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn read(text: &str) -> Result<Self, Unreadable> {
        // Older servers take it for another `&`, newer ones drop the parameter.
        if text.contains(';') {
            return Err(Unreadable::ambiguous("a semicolon in the query"));
        }
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(name, true)?, decode(value, true)?));
        }
        Ok(Self(pairs))
    }

    pub(super) fn all<'q>(&'q self, name: &str) -> impl Iterator<Item = &'q str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value, if it is there; twice is refused.
    pub(super) fn one(&self, name: &str) -> Result<Option<&str>, Unreadable> {
        let mut values = self.all(name);
        let value = values.next();
        match values.next() {
            None => Ok(value),
            Some(_) => Err(Unreadable::ambiguous(&format!("the parameter `{name}` twice"))),
        }
    }

    /// The same, `None` when it is empty.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Unreadable> {
        Ok(self.one(name)?.filter(|value| !value.is_empty()).map(str::to_owned))
    }

    /// As the API server reads booleans: there, and neither `false` in letters of any case nor `0`, is true. Other words than the plain
    /// ones are refused.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Unreadable> {
        match self.one(name)? {
            None => Ok(false),
            Some("1" | "") => Ok(true),
            Some("0") => Ok(false),
            Some(word) if word.eq_ignore_ascii_case("true") => Ok(true),
            Some(word) if word.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(Unreadable::ambiguous(&format!("`{name}` that is neither true nor false"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_targets_are_read() {
        let target = Target::read("/api/v1/namespaces/a/pods?limit=500&labelSelector=app%3Dweb").unwrap();
        assert_eq!(target.segments, ["api", "v1", "namespaces", "a", "pods"]);
        assert_eq!(target.query.one("labelSelector").unwrap(), Some("app=web"));
        assert!(!target.query.flag("watch").unwrap());
        assert!(Target::read("/api/v1/pods?watch=True").unwrap().query.flag("watch").unwrap());
        assert!(!Target::read("/api/v1/pods?watch=False").unwrap().query.flag("watch").unwrap());
        assert_eq!(Target::read("/").unwrap().segments, [""; 0]);
        let target = Target::read("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode").unwrap();
        assert_eq!(target.segments[4], "system:node");
        assert_eq!(Target::read("/healthz/").unwrap().path, "/healthz/");
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for target in [
            "/api/v1/namespaces/a%2Fpods",
            "/api/v1/namespaces/a%2fpods",
            "/api/v1/namespaces/../secrets",
            "/api/v1/namespaces/./a",
            "/api/v1/namespaces/%2e%2e/secrets",
            "/api/v1/namespaces/%2E/secrets",
            "/api//v1/pods",
            "//api/v1/pods",
            "/api/v1/pods//",
            "/api/v1/pods%00",
            "/api/v1/pods%0a",
            "/api/v1/pods%5C..",
            "/api/v1/a%25%32%66b",
            "/api/v1/a%2",
            "/api/v1/a%zz",
            "/api/v1/a%+1",
            "/api/v1/pods;x=1",
            "/api/v1/a%3Bb",
            "/api/v1/%ff",
            "/api/v1/pods#x",
            "/api/v1/pods?a=1;watch=1",
            "http://x/api/v1/pods",
            "*",
            "",
        ] {
            assert!(Target::read(target).is_err(), "{target}");
        }
        let twice = Target::read("/api/v1/pods?watch=0&watch=1").unwrap();
        assert!(twice.query.flag("watch").is_err());
        assert!(Target::read("/api/v1/pods?watch=perhaps").unwrap().query.flag("watch").is_err());
    }
}
