//! What the engine sees in SQL text, for people and for other programs.

use std::collections::HashSet;

use policy::Class;
use serde_json::{Value, json};

use super::{Catalogue, analyse_as, analyser::Names, call::join_name};

/// Most text that a report reads.
const MAX_BYTES: usize = 1 << 20;

/// One object a statement, names as written, unquoted ones folded: `kind`, `class`, `relations`, `columns`,
/// `functions`, `opaque`. What is refused becomes one object with `error` and `hint`.
///
/// To be called on a stack of [`super::STACK`] bytes.
pub fn report(sql: &str) -> Vec<Value> {
    let statements = match analyse_as(sql, &Catalogue::empty(), MAX_BYTES, Names::AsWritten) {
        Ok(statements) => statements,
        Err(refused) => return vec![json!({ "error": refused.reason, "hint": refused.hint })],
    };
    let objects = statements.into_iter().map(|statement| {
        let relations: Vec<String> = statement
            .relations
            .iter()
            .map(|relation| match &relation.schema {
                Some(schema) => join_name(&[schema, &relation.name]),
                None => join_name(&[&relation.name]),
            })
            .collect();
        let mut seen = HashSet::new();
        let columns: Vec<&str> = statement
            .columns
            .iter()
            .map(|usage| usage.column.name.as_str())
            .filter(|name| seen.insert(*name))
            .collect();
        json!({
            "kind": statement.kind,
            "class": class(statement.class),
            "relations": relations,
            "columns": columns,
            "functions": statement.functions,
            "opaque": statement.opaque,
        })
    });
    objects.collect()
}

const fn class(class: Class) -> &'static str {
    match class {
        Class::Transaction => "transaction",
        Class::Session => "session",
        Class::Read => "read",
        Class::Write => "write",
        Class::Utility => "utility",
        Class::Ddl => "ddl",
        Class::Privilege => "privilege",
        Class::Code => "code",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_what_readers_expect() {
        let seen = report(
            "SELECT Upper(u.Name), U&\"\\0070assword\" FROM Public.Users u WHERE id = 1; /**/DELETE FROM orders",
        );
        assert_eq!(
            seen,
            [
                json!({
                    "kind": "select", "class": "read", "relations": ["public.users"],
                    "columns": ["name", "password", "id"], "functions": ["upper"], "opaque": false,
                }),
                json!({
                    "kind": "delete", "class": "write", "relations": ["orders"],
                    "columns": [], "functions": [], "opaque": false,
                }),
            ]
        );
        assert_eq!(
            report("DO $$ BEGIN EXECUTE 'x'; END $$").first().and_then(|seen| seen["opaque"].as_bool()),
            Some(true)
        );
        assert!(report("").is_empty());
    }

    #[test]
    fn what_is_not_understood_is_an_error_object() {
        let seen = report("SELECT 1; DROP TABEL users");
        assert_eq!(seen.len(), 1);
        assert!(seen[0]["error"].as_str().is_some_and(|error| error.contains("syntax error")));
        assert!(seen[0]["hint"].is_string());
        assert_eq!(seen[0].as_object().map(serde_json::Map::len), Some(2));
    }
}
