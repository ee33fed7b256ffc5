//! Patterns over names and claim values.
//!
//! `*` stands for any run of characters, `?` for one. Names are matched as the server folds them, so an
//! unquoted pattern is lower case; a quoted part means exactly what it says.

use std::fmt;

use crate::catalog;

/// A pattern that could not be read, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadPattern {
    pub(crate) message: String,
    pub(crate) hint: String,
}

pub(crate) fn bad<T>(message: impl Into<String>, hint: impl Into<String>) -> Result<T, BadPattern> {
    Err(BadPattern { message: message.into(), hint: hint.into() })
}

/// Text with wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    /// False = the text stands for itself.
    wild: bool,
}

impl Glob {
    pub(crate) fn new(text: &str) -> Result<Self, BadPattern> {
        if text.is_empty() {
            return bad("an empty pattern", "write `*` to match anything");
        }
        if text.contains("**") {
            return bad(
                format!("bad pattern `{text}`: `**` means nothing here"),
                format!("`*` already matches any run of characters, also across `/`: `{}`", squeeze(text)),
            );
        }
        if text.chars().any(char::is_control) {
            return bad(format!("bad pattern {text:?}: a control character"), "remove it");
        }
        Ok(Self { text: text.to_owned(), wild: text.contains(['*', '?']) })
    }

    pub(crate) fn exact(text: String) -> Self {
        Self { text, wild: false }
    }

    /// Whether the text matches.
    pub fn matches(&self, text: &str) -> bool {
        match (self.wild, self.text.as_str()) {
            (false, exact) => exact == text,
            (true, "*") => true,
            (true, pattern) => wild_match(pattern, text),
        }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_any(&self) -> bool {
        self.wild && self.text == "*"
    }

    pub(crate) fn is_exact(&self) -> bool {
        !self.wild
    }

    /// Whether some text may match both. Says yes when unsure.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self.wild, other.wild) {
            (true, true) => true,
            (false, _) => other.matches(&self.text),
            (true, false) => self.matches(&other.text),
        }
    }
}

fn squeeze(text: &str) -> String {
    let mut text = text.to_owned();
    while text.contains("**") {
        text = text.replace("**", "*");
    }
    text
}

/// Greedy with one step back: linear in practice, never worse than the product of the lengths.
fn wild_match(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let before = pattern.clone();
        match (pattern.next(), text.clone().next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                retry = Some((pattern.clone(), text.clone()));
                continue;
            }
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                text.next();
                continue;
            }
            _ => drop(before),
        }
        // Let the last `*` take one character more.
        let Some((after_star, mut taken)) = retry.take() else { return false };
        if taken.next().is_none() {
            return false;
        }
        pattern = after_star.clone();
        text = taken.clone();
        retry = Some((after_star, taken));
    }
}

/// `schema.name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamePattern {
    schema: Glob,
    name: Glob,
}

impl NamePattern {
    pub(crate) fn new(text: &str, example: &str) -> Result<Self, BadPattern> {
        match <[Glob; 2]>::try_from(parts(text)?) {
            Ok([schema, name]) => Ok(Self { schema, name }),
            Err(_) => bad(
                format!("`{text}` is not `schema.name`"),
                format!("for example `{example}`; use `\"…\"` around a name that contains a dot"),
            ),
        }
    }

    /// As a restriction or a mask: whatever could be meant matches. A missing schema is any schema.
    pub(crate) fn may_match(&self, schema: Option<&str>, name: &str) -> bool {
        schema.is_none_or(|schema| self.schema.matches(schema)) && self.name.matches(name)
    }

    /// As a grant: a wildcard never reaches into the system schemas, nor to what is secret in them.
    pub(crate) fn grants(&self, schema: &str, name: &str) -> bool {
        let reached = !catalog::is_system_schema(schema)
            || (catalog::is_system_schema(self.schema.as_str())
                && (self.name.is_exact() || !catalog::is_sensitive(name)));
        reached && self.schema.matches(schema) && self.name.matches(name)
    }

    /// As a grant of a call without a schema: only a name that is written out.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.name.is_exact() && self.name.matches(name)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema.as_str(), self.name.as_str())
    }
}

/// `schema.relation.column`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnPattern {
    pub(crate) relation: NamePattern,
    column: Glob,
}

impl ColumnPattern {
    pub(crate) fn new(text: &str) -> Result<Self, BadPattern> {
        match <[Glob; 3]>::try_from(parts(text)?) {
            Ok([schema, name, column]) => Ok(Self { relation: NamePattern { schema, name }, column }),
            Err(_) => bad(
                format!("`{text}` is not `schema.relation.column`"),
                "for example `public.customers.email` or `public.*.ssn`",
            ),
        }
    }

    /// As a restriction or a mask: `relation: None` may be any relation, `*` stands for every column.
    pub(crate) fn may_match(&self, schema: Option<&str>, relation: Option<&str>, column: &str) -> bool {
        relation.is_none_or(|relation| self.relation.may_match(schema, relation))
            && (column == "*" || self.column.matches(column))
    }

    /// As a grant: `*` in a statement is covered only by `*` in the rule.
    pub(crate) fn grants(&self, schema: &str, relation: &str, column: &str) -> bool {
        self.relation.grants(schema, relation)
            && if column == "*" { self.column.is_any() } else { self.column.matches(column) }
    }
}

/// Splits at dots outside quotes.
fn parts(text: &str) -> Result<Vec<Glob>, BadPattern> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_part(text, quoted)?,
            None => plain_part(text, rest)?,
        };
        parts.push(part);
        match after.strip_prefix('.') {
            Some(after) => rest = after,
            None if after.is_empty() => return Ok(parts),
            None => {
                return bad(format!("bad pattern `{text}`"), "after a quoted part comes a dot or the end");
            }
        }
    }
}

fn quoted_part<'a>(text: &str, quoted: &'a str) -> Result<(Glob, &'a str), BadPattern> {
    match quoted.split_once('"') {
        Some(("", _)) => bad(format!("bad pattern `{text}`: an empty name"), "remove the quotes"),
        Some((part, after)) => Ok((Glob::exact(part.to_owned()), after)),
        None => bad(format!("bad pattern `{text}`: a quote is not closed"), "add the closing `\"`"),
    }
}

fn plain_part<'a>(text: &str, rest: &'a str) -> Result<(Glob, &'a str), BadPattern> {
    let (part, after) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
    if part.is_empty() {
        return bad(format!("bad pattern `{text}`: a name is missing"), "write `*` to match any name");
    }
    if let Some(odd) = part.chars().find(|c| c.is_whitespace() || "[]{}()\\'\"/,;!".contains(*c)) {
        return bad(
            format!("bad pattern `{text}`: `{odd}` means nothing here"),
            "`*` and `?` are the only wildcards; a name with other characters goes in double quotes",
        );
    }
    if part.chars().any(char::is_uppercase) {
        return bad(
            format!("`{text}` would never match: the server folds unquoted names to lower case"),
            format!("write `{}`, or `\"{part}\"` for a name created with quotes", text.to_lowercase()),
        );
    }
    Ok((Glob::new(part)?, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(text: &str) -> Glob {
        Glob::new(text).unwrap()
    }

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "A", false),
            ("*", "", true),
            ("a*", "a", true),
            ("refs/heads/*", "refs/heads/x/y", true),
            ("refs/heads/*", "refs/tags/x", false),
            ("*b*c", "abcbc", true),
            ("*b*c", "abcb", false),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("dependabot[bot]", "dependabot[bot]", true),
            ("*.*", "a.b", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(glob(pattern).matches(text), expected, "{pattern} {text}");
        }
        assert!(Glob::new("").is_err());
        assert!(Glob::new("a**b").unwrap_err().hint.contains("`a*b`"));
    }

    #[test]
    fn names() {
        let name = |text: &str| NamePattern::new(text, "public.orders");
        assert!(name("public.*").unwrap().grants("public", "orders"));
        assert!(!name("public.*").unwrap().grants("app", "orders"));
        assert!(name(r#"public."Or.ders""#).unwrap().grants("public", "Or.ders"));
        assert!(!name(r#"public."*""#).unwrap().grants("public", "orders"), "a quoted * is a name");
        for wrong in [
            "orders",
            "a.b.c",
            "public.",
            ".x",
            "public.[ab]",
            "Public.x",
            "\"public.x",
            "a b.c",
            "\"\".x",
            "\"a\"b.c",
            "public.**",
        ] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
        assert!(name("public.Orders").unwrap_err().hint.contains("`public.orders`"));
    }

    #[test]
    fn grants_do_not_reach_into_the_catalogue_by_wildcard() {
        let name = |text: &str| NamePattern::new(text, "").unwrap();
        assert!(!name("*.*").grants("pg_catalog", "pg_class"));
        assert!(!name("p*.*").grants("pg_catalog", "pg_class"));
        assert!(!name("*.pg_authid").grants("pg_catalog", "pg_authid"));
        assert!(name("pg_catalog.*").grants("pg_catalog", "pg_class"));
        assert!(!name("pg_catalog.*").grants("pg_catalog", "pg_authid"));
        assert!(name("pg_catalog.pg_authid").grants("pg_catalog", "pg_authid"));
        assert!(name("*.*").may_match(Some("pg_catalog"), "pg_authid"), "but restrictions do");
    }

    #[test]
    fn columns() {
        let column = |text: &str| ColumnPattern::new(text).unwrap();
        let email = column("public.customers.email");
        assert!(email.may_match(None, None, "email") && email.may_match(None, Some("customers"), "*"));
        assert!(email.may_match(Some("public"), Some("customers"), "email"));
        assert!(!email.may_match(Some("app"), Some("customers"), "email"));
        assert!(!email.may_match(None, Some("orders"), "email"));
        assert!(email.grants("public", "customers", "email") && !email.grants("public", "customers", "*"));
        assert!(column("public.customers.*").grants("public", "customers", "*"));
        assert!(ColumnPattern::new("customers.email").is_err());
    }

    proptest! {
        #[test]
        fn a_glob_without_wildcards_is_equality(a in "[a-z]{1,4}", b in "[a-z]{0,4}") {
            prop_assert_eq!(glob(&a).matches(&b), a == b);
        }

        #[test]
        fn globs_agree_with_a_plain_recursion(pattern in "[ab*?]{1,7}", text in "[ab]{0,7}") {
            fn slow(p: &[u8], t: &[u8]) -> bool {
                match (p.split_first(), t.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => slow(rest, t) || (!t.is_empty() && slow(p, &t[1..])),
                    (Some((p0, pr)), Some((t0, tr))) => (*p0 == b'?' || p0 == t0) && slow(pr, tr),
                    _ => false,
                }
            }
            if let Ok(glob) = Glob::new(&pattern) {
                prop_assert_eq!(glob.matches(&text), slow(pattern.as_bytes(), text.as_bytes()));
            }
        }

        #[test]
        fn any_text_is_a_pattern_or_an_error(text in "\\PC{0,20}") {
            let _ = ColumnPattern::new(&text);
        }
    }
}
