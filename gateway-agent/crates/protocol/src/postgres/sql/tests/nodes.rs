//! Every kind of node belongs to a group, and whatever the grammar makes is in some text here that is understood.
//!
//! The kinds are asked of the generated code itself, so one that a later grammar adds is noticed, also where a match still
//! compiles.

use std::collections::BTreeSet;

use pg_query::{NodeEnum, protobuf::Node};
use prost::{
    Message,
    encoding::{WireType, encode_key},
};

use super::{offline, on_big_stack, statements};
use crate::postgres::sql::kinds::{expression_nodes, never_parsed, part_nodes, statement_nodes};

/// What the other tables lack.
const MORE: &[&str] = &[
    "SELECT GROUPING(a), greatest(a, 1.5), a IS NULL, b IS TRUE, ARRAY[a], B'101' FROM t GROUP BY CUBE (a)",
    "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE RETURNING merge_action()",
    "SELECT j IS JSON OBJECT, JSON(j), JSON_SCALAR(1), JSON_SERIALIZE(j RETURNING text), JSON_ARRAY(1, 2), JSON_OBJECT('a': 1) FROM t",
    "SELECT JSON_ARRAY(SELECT a FROM t), JSON_OBJECTAGG(a: b), JSON_ARRAYAGG(a ORDER BY b) FROM t",
    "SELECT JSON_VALUE(j, '$.a' PASSING a AS x DEFAULT 1 ON EMPTY ERROR ON ERROR) FROM t",
    "SELECT * FROM JSON_TABLE('{}', '$' AS p COLUMNS (a int PATH '$.a' DEFAULT 1 ON EMPTY))",
    "INSERT INTO t VALUES (DEFAULT) ON CONFLICT (a) DO UPDATE SET a = 1 RETURNING WITH (OLD AS o) o.a",
    "CREATE TABLE p (a int) PARTITION BY RANGE (a)",
    "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (MAXVALUE)",
    "WITH RECURSIVE r AS (SELECT 1 AS a UNION SELECT a FROM r) SEARCH DEPTH FIRST BY a SET o CYCLE a SET c USING d SELECT * FROM r",
    "CREATE TRIGGER g AFTER UPDATE ON t REFERENCING OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION f()",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1",
    "ALTER TABLE t ALTER CONSTRAINT c DEFERRABLE",
    "ALTER TABLE t REPLICA IDENTITY FULL",
    "ALTER COLLATION c REFRESH VERSION",
    "ALTER DOMAIN d SET NOT NULL",
    "DROP TABLESPACE s",
    "ALTER TABLESPACE s SET (seq_page_cost = 2)",
    "ALTER TABLE ALL IN TABLESPACE s SET TABLESPACE o",
    "ALTER EXTENSION e UPDATE",
    "ALTER EXTENSION e ADD TABLE t",
    "CREATE FOREIGN DATA WRAPPER w HANDLER h",
    "ALTER FOREIGN DATA WRAPPER w OPTIONS (SET a 'b')",
    "ALTER SERVER s OPTIONS (SET a 'b')",
    "ALTER USER MAPPING FOR bob SERVER s OPTIONS (SET a 'b')",
    "ALTER EVENT TRIGGER e DISABLE",
    "CREATE OPERATOR CLASS c FOR TYPE int USING btree AS OPERATOR 1 <, FUNCTION 1 f(int, int)",
    "CREATE OPERATOR FAMILY c USING btree",
    "ALTER OPERATOR FAMILY c USING btree DROP OPERATOR 1 (int, int)",
    "ALTER STATISTICS s SET STATISTICS 10",
    "ALTER FUNCTION f(int) STABLE",
    "ALTER FUNCTION f(int) DEPENDS ON EXTENSION e",
    "ALTER OPERATOR < (int, int) SET (RESTRICT = NONE)",
    "ALTER TYPE t SET (STORAGE = plain)",
    "CREATE TYPE r AS RANGE (SUBTYPE = int)",
    "ALTER DATABASE d CONNECTION LIMIT 5",
    "ALTER DATABASE d REFRESH COLLATION VERSION",
    "CREATE CONVERSION c FOR 'LATIN1' TO 'UTF8' FROM f",
    "CREATE TRANSFORM FOR int LANGUAGE l (FROM SQL WITH FUNCTION f(internal))",
    "ALTER TEXT SEARCH DICTIONARY d (a = b)",
    "ALTER TEXT SEARCH CONFIGURATION c ADD MAPPING FOR word WITH d",
    "ALTER PUBLICATION p ADD TABLE t",
    "ALTER SUBSCRIPTION s ENABLE",
    "SELECT count(*) FILTER (WHERE a) OVER w FROM t WINDOW w AS ()",
    "SELECT a.* INTO n FROM t AS a",
];

/// Not in what is parsed of SQL: assignments of PL/pgSQL, and what only later stages make of it.
const NOT_IN_SQL: [&str; 3] = ["plassignstmt", "intlist", "partitionrangedatum"];

/// A message with an empty field of each number in turn: the numbers that stand for nodes come back as those.
fn all() -> Vec<NodeEnum> {
    let node = |number: u32| {
        let mut bytes = Vec::new();
        encode_key(number, WireType::LengthDelimited, &mut bytes);
        bytes.push(0);
        Node::decode(bytes.as_slice()).ok()?.node
    };
    (1..=10_000).filter_map(node).collect()
}

fn name(node: &NodeEnum) -> String {
    format!("{node:?}").split('(').next().unwrap_or_default().to_ascii_lowercase()
}

/// Whether the grammar makes it.
fn made(node: &NodeEnum) -> bool {
    matches!(node, statement_nodes!()) || matches!(node, expression_nodes!()) || matches!(node, part_nodes!())
}

/// Kinds of nodes anywhere in a text, also those that stand in fields of their own type, and which of them stand where
/// any node may.
#[derive(Default)]
struct Seen {
    anywhere: BTreeSet<String>,
    as_nodes: BTreeSet<String>,
}

impl Seen {
    fn add(&mut self, sql: &str) {
        let tree = pg_query::parse(sql, 0).unwrap_or_else(|error| panic!("{error}: {sql}"));
        let shown = format!("{:?}", tree.protobuf);
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = shown.split(|c: char| !is_word(c)).map(str::to_ascii_lowercase);
        self.anywhere.extend(words);
        let opened = shown.split('(').filter_map(|text| text.rsplit(|c: char| !is_word(c)).next());
        self.as_nodes.extend(opened.map(str::to_ascii_lowercase));
    }
}

#[test]
fn every_kind_is_in_a_group() {
    let all = all();
    assert!(all.len() > 250, "{}", all.len());
    for node in &all {
        let never = matches!(node, never_parsed!());
        assert!(made(node) != never, "{}: one of both", name(node));
    }
}

#[test]
fn whatever_the_grammar_makes_is_in_a_text_that_is_understood() {
    on_big_stack(|| {
        let tables = [
            statements::QUERIES,
            statements::CHANGES,
            statements::DEFINITIONS,
            statements::PRIVILEGES,
            statements::THE_SESSION,
        ];
        let texts = tables.into_iter().flatten().map(|(sql, _)| *sql).chain(MORE.iter().copied());
        let mut seen = Seen::default();
        for sql in texts {
            seen.add(sql);
            for statement in offline(sql).unwrap_or_default() {
                assert!(policy::kinds::class_of(statement.kind).is_some(), "{}: {sql}", statement.kind);
            }
        }
        let all = all();
        let missing: Vec<_> = all
            .iter()
            .filter(|node| made(node))
            .map(name)
            .filter(|name| !seen.anywhere.contains(name) && !NOT_IN_SQL.contains(&name.as_str()))
            .collect();
        assert!(missing.is_empty(), "in no text: {missing:?}");
        let impossible: Vec<_> = all
            .iter()
            .filter(|node| !made(node))
            .map(name)
            .filter(|name| seen.as_nodes.contains(name))
            .collect();
        assert!(impossible.is_empty(), "the grammar does make: {impossible:?}");
    });
}
