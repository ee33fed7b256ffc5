//! What psql, pgbench, pg_dump, psycopg, asyncpg, pg8000, SQLAlchemy and Django send, from a server's log: all of it
//! is understood, and what it reads of the catalogue needs no function that a rule would have to name.

use super::{offline, on_big_stack};

const STATEMENTS: &str = include_str!("clients.sql");

/// Functions off the list of safe ones that these clients call.
const KNOWN: [&str; 2] = ["set_config", "pg_catalog.set_config"];

#[test]
fn clients_are_understood() {
    on_big_stack(|| {
        let mut count = 0;
        for sql in STATEMENTS.split("\n--------\n") {
            let statements = offline(sql).unwrap_or_else(|refused| panic!("{refused}: {sql}"));
            for statement in statements {
                count += 1;
                assert_ne!(statement.kind, "unknown", "{sql}");
                for function in &statement.functions {
                    let known = policy::functions::is_safe(function) || KNOWN.contains(&function.as_str());
                    assert!(known, "{function} in {sql}");
                }
            }
        }
        assert!(count > 200, "{count}");
    });
}
