//! A second opinion: sqlparser reads plain statements too, and has to find the same relations.
//!
//! libpg_query is the server's grammar and decides what is read; this catches a walk of its tree that misses a
//! relation. sqlparser's own misreadings would refuse good statements, so text that has one of their marks is
//! left to libpg_query: `FROM ONLY t` is a table "only" to it, `TABLE t` none at all, and `U&"…"` three tokens.
//! What it cannot parse it has no opinion on.

use std::{
    collections::HashSet,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
};

use pg_query::{NodeEnum, protobuf::ParseResult};
use policy::{Access, Statement};
use sqlparser::{
    ast::{Ident, ObjectName, ObjectNamePart, Query, TableFactor, Visit, Visitor},
    dialect::PostgreSqlDialect,
    parser::Parser,
};

use super::Refused;

/// Levels that sqlparser may recurse; deeper text it has no opinion on.
const MAX_DEPTH: usize = 64;

/// The server cuts longer names.
const MAX_NAME: usize = 63;

/// Values that may stand in FROM without parentheses.
const VALUE_FUNCTIONS: [&str; 12] = [
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "localtime",
    "localtimestamp",
    "session_user",
    "system_user",
    "user",
];

pub(super) fn check(sql: &str, tree: &ParseResult, statements: &[Statement]) -> Result<(), Refused> {
    let plain = tree.stmts.iter().all(|raw| {
        matches!(
            raw.stmt.as_ref().and_then(|node| node.node.as_ref()),
            Some(
                NodeEnum::SelectStmt(_)
                    | NodeEnum::InsertStmt(_)
                    | NodeEnum::UpdateStmt(_)
                    | NodeEnum::DeleteStmt(_)
            )
        )
    });
    if !plain || statements.is_empty() || is_misread(sql) {
        return Ok(());
    }
    let Some(opinions) = catch_unwind(AssertUnwindSafe(|| read(sql))).ok().flatten() else {
        return Ok(());
    };
    if opinions.len() != statements.len() {
        return Err(disagree("how many statements there are"));
    }
    for (opinion, statement) in opinions.iter().zip(statements) {
        let mut ours: HashSet<&str> = HashSet::new();
        for relation in statement.relations.iter().filter(|relation| relation.access != Access::Define) {
            if relation.name.len() >= MAX_NAME {
                return Ok(());
            }
            ours.insert(&relation.name);
        }
        let same = |name: &str| opinion.others.contains(name) || VALUE_FUNCTIONS.contains(&name);
        let missing = opinion.relations.iter().any(|name| !ours.contains(name.as_str()) && !same(name));
        let added = ours.iter().any(|name| !opinion.relations.contains(*name) && !same(name));
        if missing || added {
            return Err(disagree("which relations it names"));
        }
    }
    Ok(())
}

fn disagree(about: &str) -> Refused {
    Refused::new(
        format!("two parsers disagree about the statement: {about}"),
        "write it in a plainer way: quote odd names, give every relation its schema",
    )
}

/// Whether the text has a mark of something that sqlparser reads wrongly.
fn is_misread(sql: &str) -> bool {
    const MARKS: [&[u8]; 3] = [b"only", b"table", b"u&"];
    MARKS
        .iter()
        .any(|mark| sql.as_bytes().windows(mark.len()).any(|window| window.eq_ignore_ascii_case(mark)))
}

fn read(sql: &str) -> Option<Vec<Opinion>> {
    let dialect = PostgreSqlDialect {};
    let parser = Parser::new(&dialect).with_recursion_limit(MAX_DEPTH);
    let statements = parser.try_with_sql(sql).ok()?.parse_statements().ok()?;
    Some(
        statements
            .iter()
            .map(|statement| {
                let mut opinion = Opinion::default();
                let ControlFlow::Continue(()) = statement.visit(&mut opinion);
                opinion
            })
            .collect(),
    )
}

/// What sqlparser found in one statement.
#[derive(Default)]
struct Opinion {
    relations: HashSet<String>,
    /// Names of WITH queries and of functions in FROM, which look like relations to it.
    others: HashSet<String>,
}

impl Visitor for Opinion {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.others.insert(folded(&cte.alias.name));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Self::Break> {
        if let TableFactor::Table { name, args: Some(_), .. } = factor {
            self.others.extend(last(name));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Self::Break> {
        self.relations.extend(last(relation));
        ControlFlow::Continue(())
    }
}

fn last(name: &ObjectName) -> Option<String> {
    name.0.last().and_then(ObjectNamePart::as_ident).map(folded)
}

fn folded(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_ascii_lowercase(),
    }
}
