//! What the gateway itself asks of a server: names, estimates, who blocks whom, roles of its own making.
//!
//! None of it is a job's statement, so no rule speaks for it. What keeps it from being a door is its shape: the
//! texts are constants of the program, their holes are filled quoted, and the permit that comes with a text is
//! good for that text alone.

use std::{fmt::Write as _, sync::Arc};

use crate::verdict::{Allow, Obligations, Permit, Recording};

/// Statements fixed when the program was built. `{number}`, `{name}` and `{text}` are holes.
pub trait OwnSql {
    const SQL: &'static [&'static str];
}

/// What goes into a hole.
#[derive(Debug, Clone, Copy)]
pub enum Arg<'a> {
    /// Into `{number}`: its digits.
    Number(i64),
    /// Into `{name}`: an identifier, in double quotes.
    Name(&'a str),
    /// Into `{text}`: a string literal, for servers with `standard_conforming_strings` on.
    Text(&'a str),
}

/// Why a statement could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OwnSqlError {
    #[error("there is no such statement")]
    Unknown,
    #[error("the values do not fit the holes of the statement")]
    Holes,
    #[error("a name is empty or longer than 63 bytes, or a value holds a zero byte")]
    Value,
}

/// A permit for the gateway's own statements on one resource. It opens a connection, and nothing that a job sends
/// can ever run by it.
#[derive(Debug)]
pub struct OwnPermit {
    permit: Permit,
}

/// One statement of the gateway's own, and the allow that is good for its text only.
#[derive(Debug)]
pub struct OwnQuery {
    sql: Arc<str>,
    allow: Allow,
}

impl OwnPermit {
    pub(crate) fn new(resource: &Arc<str>) -> Self {
        // No statement is the empty text: by itself it covers nothing.
        Self { permit: Permit::only(resource, Arc::from("")) }
    }

    /// What the connection is opened and logged in by.
    pub fn opens(&self) -> &Permit {
        &self.permit
    }

    /// Statement `at` of a fixed list, its holes filled in order.
    ///
    /// # Errors
    /// When there is no such statement, or the values do not fit it.
    pub fn query<Q: OwnSql>(&self, at: usize, args: &[Arg<'_>]) -> Result<OwnQuery, OwnSqlError> {
        let sql = fill(Q::SQL.get(at).ok_or(OwnSqlError::Unknown)?, args)?;
        Ok(self.permit.own_query(sql.into()))
    }
}

impl OwnQuery {
    /// The text, and the allow for exactly it.
    pub fn into_parts(self) -> (Arc<str>, Allow) {
        (self.sql, self.allow)
    }
}

impl Permit {
    fn only(resource: &Arc<str>, text: Arc<str>) -> Self {
        Self { resource: Arc::clone(resource), only: Some(text) }
    }

    fn own_query(&self, sql: Arc<str>) -> OwnQuery {
        let allow = Allow {
            permit: Self::only(&self.resource, Arc::clone(&sql)),
            obligations: Obligations { record: Recording::Results, ..Obligations::default() },
        };
        OwnQuery { sql, allow }
    }

    /// A permit for the gateway's own statements on the resource that this one is good for.
    pub fn own(&self) -> OwnPermit {
        OwnPermit::new(&self.resource)
    }

    /// The planner's estimate of an allowed statement. The options stand in parentheses, after which the server's
    /// grammar takes no ANALYZE: nothing of the statement runs.
    pub fn estimate(&self, statement: &str) -> OwnQuery {
        self.own_query(format!("EXPLAIN (FORMAT JSON) {statement}").into())
    }

    /// Whether it is for one statement of the gateway's own.
    pub fn is_own(&self) -> bool {
        self.only.is_some()
    }

    /// Whether it is good for running `sql`. A verdict's permit is: the caller pairs it with what was decided. A permit
    /// for the gateway's own statement knows its text.
    pub fn covers(&self, sql: &str) -> bool {
        self.only.as_deref().is_none_or(|only| !only.is_empty() && only == sql)
    }
}

const HOLES: [&str; 3] = ["{number}", "{name}", "{text}"];
/// NAMEDATALEN - 1: the server cuts longer names, so that two may become one.
const NAME_MAX: usize = 63;

fn fill(template: &str, args: &[Arg<'_>]) -> Result<String, OwnSqlError> {
    let mut sql = String::with_capacity(template.len() + 32 * args.len());
    let mut rest = template;
    let mut args = args.iter();
    while let Some((before, hole, after)) = next_hole(rest) {
        sql.push_str(before);
        match (hole, args.next()) {
            ("{number}", Some(Arg::Number(number))) => {
                // Writing to a String does not fail.
                let _ = write!(sql, "{number}");
            }
            ("{name}", Some(Arg::Name(name))) => {
                if name.is_empty() || name.len() > NAME_MAX {
                    return Err(OwnSqlError::Value);
                }
                quote(&mut sql, name, '"')?;
            }
            ("{text}", Some(Arg::Text(text))) => quote(&mut sql, text, '\'')?,
            _ => return Err(OwnSqlError::Holes),
        }
        rest = after;
    }
    sql.push_str(rest);
    if args.next().is_some() { Err(OwnSqlError::Holes) } else { Ok(sql) }
}

/// The first hole: what is before it, the hole, what is after it.
fn next_hole(text: &str) -> Option<(&str, &'static str, &str)> {
    let (at, hole) = HOLES.iter().filter_map(|hole| Some((text.find(hole)?, *hole))).min()?;
    Some((text.get(..at)?, hole, text.get(at + hole.len()..)?))
}

fn quote(sql: &mut String, value: &str, mark: char) -> Result<(), OwnSqlError> {
    if value.contains('\0') {
        return Err(OwnSqlError::Value);
    }
    sql.push(mark);
    for c in value.chars() {
        if c == mark {
            sql.push(mark);
        }
        sql.push(c);
    }
    sql.push(mark);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Drops;

    impl OwnSql for Drops {
        const SQL: &'static [&'static str] =
            &["SELECT 1", "ALTER ROLE {name} PASSWORD {text} CONNECTION LIMIT {number}"];
    }

    fn permit() -> OwnPermit {
        OwnPermit::new(&Arc::from("orders"))
    }

    #[test]
    fn holes_are_filled_quoted() {
        let args = [Arg::Name("a\"; DROP TABLE t; --"), Arg::Text("it's {name} \\"), Arg::Number(-3)];
        let (sql, allow) = permit().query::<Drops>(1, &args).unwrap().into_parts();
        assert_eq!(
            &*sql,
            "ALTER ROLE \"a\"\"; DROP TABLE t; --\" PASSWORD 'it''s {name} \\' CONNECTION LIMIT -3"
        );
        assert!(allow.permit.covers(&sql));
    }

    #[test]
    fn a_permit_of_an_own_statement_covers_nothing_else() {
        let (sql, allow) = permit().query::<Drops>(0, &[]).unwrap().into_parts();
        assert!(allow.permit.covers(&sql) && !allow.permit.covers("SELECT 2") && !allow.permit.covers(""));
        assert!(!permit().opens().covers("") && !permit().opens().covers("SELECT 1"));
        let (sql, allow) = permit().opens().estimate("SELECT 1").into_parts();
        assert_eq!(&*sql, "EXPLAIN (FORMAT JSON) SELECT 1");
        assert!(!allow.permit.covers("SELECT 1"), "the estimate of a statement does not run it");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let long = "x".repeat(64);
        for (at, args, error) in [
            (9, vec![], OwnSqlError::Unknown),
            (0, vec![Arg::Number(1)], OwnSqlError::Holes),
            (1, vec![Arg::Name("a")], OwnSqlError::Holes),
            (1, vec![Arg::Text("a"), Arg::Text("b"), Arg::Number(1)], OwnSqlError::Holes),
            (1, vec![Arg::Name(""), Arg::Text("b"), Arg::Number(1)], OwnSqlError::Value),
            (1, vec![Arg::Name(&long), Arg::Text("b"), Arg::Number(1)], OwnSqlError::Value),
            (1, vec![Arg::Name("a"), Arg::Text("b\0"), Arg::Number(1)], OwnSqlError::Value),
        ] {
            assert_eq!(permit().query::<Drops>(at, &args).unwrap_err(), error);
        }
    }
}
