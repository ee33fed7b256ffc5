//! What of a statement the server can be asked the cost of, before it runs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use pg_query::{
    DeparseOptions, NodeEnum,
    protobuf::{CopyStmt, ExplainStmt, Node, RawStmt},
};

use crate::postgres::Plannable;

const CODE: &str = "it runs code that the planner does not look into";

/// What EXPLAIN may be put before, for statement `index` of `sql`.
pub(in crate::postgres) fn plannable(sql: &str, index: usize, opaque: bool) -> Plannable {
    let Ok(tree) = super::parse(sql) else { return Plannable::Unknown("it cannot be read") };
    let Some(raw) = tree.stmts.get(index) else { return Plannable::Nothing };
    let Some(node) = raw.stmt.as_ref().and_then(|stmt| stmt.node.as_ref()) else { return Plannable::Nothing };
    let found = of(node).unwrap_or_else(|| slice(sql, raw));
    match found {
        Plannable::Nothing if opaque => Plannable::Unknown(CODE),
        found => found,
    }
}

/// `None`: the statement as it is written.
fn of(node: &NodeEnum) -> Option<Plannable> {
    match node {
        NodeEnum::SelectStmt(_)
        | NodeEnum::InsertStmt(_)
        | NodeEnum::UpdateStmt(_)
        | NodeEnum::DeleteStmt(_)
        | NodeEnum::MergeStmt(_)
        | NodeEnum::DeclareCursorStmt(_)
        | NodeEnum::CreateTableAsStmt(_) => None,
        NodeEnum::ExplainStmt(explain) => Some(explained(explain)),
        NodeEnum::CopyStmt(copy) => Some(copied(copy)),
        NodeEnum::ExecuteStmt(_) => Some(Plannable::Unknown(
            "EXECUTE runs a statement that was planned before; send the statement itself, or prepare it by the protocol",
        )),
        NodeEnum::CallStmt(_) | NodeEnum::DoStmt(_) => Some(Plannable::Unknown(CODE)),
        NodeEnum::RefreshMatViewStmt(_) => {
            Some(Plannable::Unknown("a materialized view's query is not planned ahead"))
        }
        _ => Some(Plannable::Nothing),
    }
}

/// EXPLAIN ANALYZE runs what it explains.
fn explained(explain: &ExplainStmt) -> Plannable {
    let analyze = explain.options.iter().any(|option| {
        matches!(&option.node, Some(NodeEnum::DefElem(option)) if option.defname.eq_ignore_ascii_case("analyze"))
    });
    match (analyze, &explain.query) {
        (false, _) => Plannable::Nothing,
        (true, Some(query)) => match query.node.as_ref().and_then(of) {
            Some(found) => found,
            None => written(query),
        },
        (true, None) => Plannable::Unknown("it cannot be read"),
    }
}

fn copied(copy: &CopyStmt) -> Plannable {
    if copy.is_from {
        return Plannable::Nothing;
    }
    match (&copy.query, &copy.relation) {
        (Some(query), _) => written(query),
        (None, Some(relation)) => {
            let mut text = "SELECT * FROM ".to_owned();
            if !relation.schemaname.is_empty() {
                quote(&mut text, &relation.schemaname);
                text.push('.');
            }
            quote(&mut text, &relation.relname);
            Plannable::Text(text.into())
        }
        (None, None) => Plannable::Unknown("it cannot be read"),
    }
}

fn quote(text: &mut String, name: &str) {
    text.push('"');
    text.push_str(&name.replace('"', "\"\""));
    text.push('"');
}

/// A part of a statement, written anew.
fn written(node: &Node) -> Plannable {
    // It is C beneath, and asserts what it is given.
    let written = catch_unwind(AssertUnwindSafe(|| node.deparse(DeparseOptions::default())));
    match written {
        Ok(Ok(text)) => Plannable::Text(text.into()),
        _ => Plannable::Unknown("it cannot be written apart from what is around it"),
    }
}

fn slice(sql: &str, raw: &RawStmt) -> Plannable {
    let start = usize::try_from(raw.stmt_location).unwrap_or(0);
    let length = usize::try_from(raw.stmt_len).unwrap_or(0);
    let text = match length {
        0 => sql.get(start..),
        length => start.checked_add(length).and_then(|end| sql.get(start..end)),
    };
    match text {
        Some(text) => Plannable::Text(Arc::from(text.trim_end_matches([';', ' ', '\t', '\n', '\r']))),
        None => Plannable::Unknown("it cannot be told apart from the statements around it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(sql: &str, index: usize) -> String {
        match plannable(sql, index, false) {
            Plannable::Text(text) => text.trim().to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn each_statement_of_a_text_is_asked_about_by_itself() {
        let sql = "SELECT 'é;' ; /* two; */ DELETE FROM t WHERE a = 1;\nBEGIN";
        assert_eq!(text(sql, 0), "SELECT 'é;'");
        assert_eq!(text(sql, 1), "DELETE FROM t WHERE a = 1");
        assert_eq!(text(sql, 2), "Nothing");
        assert_eq!(text("SELECT $1 + $2", 0), "SELECT $1 + $2");
    }

    #[test]
    fn what_carries_a_query_is_asked_about_by_it() {
        for (sql, asked) in [
            ("COPY (SELECT a FROM t WHERE b > 1) TO STDOUT", "SELECT a FROM t WHERE b > 1"),
            ("COPY public.\"T\"\"x\" (a) TO STDOUT", "SELECT * FROM \"public\".\"T\"\"x\""),
            ("COPY t FROM STDIN", "Nothing"),
            ("EXPLAIN SELECT a FROM t", "Nothing"),
            ("EXPLAIN (ANALYZE, FORMAT JSON) SELECT a FROM t", "SELECT a FROM t"),
            ("DECLARE c CURSOR FOR SELECT 1", "DECLARE c CURSOR FOR SELECT 1"),
            ("FETCH 1 FROM c", "Nothing"),
            ("CREATE TABLE x AS SELECT 1", "CREATE TABLE x AS SELECT 1"),
            ("SET work_mem = '1MB'", "Nothing"),
        ] {
            assert_eq!(text(sql, 0), asked, "{sql}");
        }
    }

    #[test]
    fn what_cannot_be_seen_through_may_cost_anything() {
        for sql in [
            "CALL p()",
            "DO 'BEGIN END'",
            "EXECUTE s(1)",
            "EXPLAIN ANALYZE EXECUTE s",
            "REFRESH MATERIALIZED VIEW v",
        ] {
            assert!(matches!(plannable(sql, 0, false), Plannable::Unknown(_)), "{sql}");
        }
        assert!(matches!(plannable("LOCK TABLE t", 0, true), Plannable::Unknown(_)));
    }
}
