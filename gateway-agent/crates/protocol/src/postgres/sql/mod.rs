//! SQL text to [`policy::Statement`]: what a statement does, to which relations and columns, with which
//! functions, and where every result column comes from.
//!
//! The authority is libpg_query, the server's own grammar. Node kinds are matched without a wildcard: what this
//! module does not know makes the statement opaque and puts it in the most dangerous class. sqlparser reads
//! plain statements a second time, and a disagreement about relations refuses the statement.
//!
//! Not seen from text: what functions, triggers, rules and operators that are there already do inside; a function called as an
//! attribute of a relation that the catalogue does not know; values that statistics views repeat.
//!
//! Run on a stack of 128 MiB: a statement within the limits of [`guard`] may use a good part of it.

mod analyser;
mod body;
mod call;
mod catalogue;
mod copy;
mod cross;
mod ddl;
mod dml;
mod expr;
mod facts;
mod flow;
mod from;
mod guard;
mod kinds;
mod naming;
mod object;
mod parts;
mod planned;
mod plpgsql;
mod query;
mod report;
mod resolve;
mod scope;
mod shape;
mod statement;
mod total;
mod utility;
mod with;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use pg_query::ParserOptions;
use policy::Statement;

pub use catalogue::{
    BaseColumn, CATALOGUE_SQL, Catalogue, CatalogueError, Relation, RelationColumn, RelationKind, Row,
};
pub(super) use copy::copy_data;
pub(super) use planned::plannable;
pub use report::report;
pub use shape::{shape, shape_counts};

use analyser::{Analyser, Names};

/// Stack, in bytes, that [`analyse`] and [`report`] need from their thread.
pub const STACK: usize = 128 << 20;

/// Why text is not run: it cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    pub reason: String,
    /// What the author of the statement can do.
    pub hint: String,
    /// The grammar does not know it.
    pub not_sql: bool,
}

impl Refused {
    fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: hint.into(), not_sql: false }
    }

    fn too_complex(what: &str) -> Self {
        Self::new(
            format!("the statement is too complex to analyse: {what}"),
            "split it into smaller statements",
        )
    }
}

/// What each statement of `sql` does, in order; empty for text without statements.
///
/// `sql` may have up to `max_bytes` bytes. To be called on a stack of [`STACK`] bytes.
pub fn analyse(sql: &str, catalogue: &Catalogue, max_bytes: usize) -> Result<Vec<Statement>, Refused> {
    analyse_as(sql, catalogue, max_bytes, Names::Resolved)
}

fn analyse_as(
    sql: &str,
    catalogue: &Catalogue,
    max_bytes: usize,
    names: Names,
) -> Result<Vec<Statement>, Refused> {
    guard::check(sql, max_bytes)?;
    let tree = parse(sql)?;
    let mut statements = Vec::with_capacity(tree.stmts.len());
    for raw in &tree.stmts {
        statements.push(Analyser::new(catalogue, names).run(raw)?);
    }
    cross::check(sql, &tree, &statements)?;
    Ok(statements)
}

fn parse(sql: &str) -> Result<pg_query::protobuf::ParseResult, Refused> {
    parse_as(sql, ParserOptions::DEFAULT)
}

fn parse_as(sql: &str, options: ParserOptions) -> Result<pg_query::protobuf::ParseResult, Refused> {
    // The crate collects table names of its own while it decodes, and asserts what it finds.
    let parsed = catch_unwind(AssertUnwindSafe(|| pg_query::parse(sql, options))).map_err(|_| {
        Refused::new("the SQL parser failed on the statement", "write it in another way, and report this")
    })?;
    parsed.map(|result| result.protobuf).map_err(|error| match error {
        pg_query::Error::Parse(message) => Refused {
            not_sql: true,
            ..Refused::new(
                format!("not valid SQL: {message}"),
                "the gateway reads SQL as PostgreSQL 18 does; check the statement there",
            )
        },
        other => Refused::new(
            format!("the SQL cannot be read: {other}"),
            "write it in another way, and report this",
        ),
    })
}

/// The JSON that libpg_query makes of a function in PL/pgSQL; `None` when it cannot be compiled.
fn parse_plpgsql(sql: &str) -> Option<serde_json::Value> {
    catch_unwind(AssertUnwindSafe(|| pg_query::parse_plpgsql(sql))).ok()?.ok()
}
