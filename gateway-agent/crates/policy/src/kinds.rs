//! The commands that rules can name, and how dangerous each is by itself.

use crate::action::Class;

/// The class of a command taken alone; `None` for a name that no command has.
///
/// What a statement carries inside can raise its own class above this.
pub fn class_of(kind: &str) -> Option<Class> {
    KINDS.iter().find(|(_, kinds)| kinds.contains(&kind)).map(|(class, _)| *class)
}

/// Every command name, by class.
pub fn all() -> impl Iterator<Item = (Class, &'static str)> + Clone {
    KINDS.iter().flat_map(|(class, kinds)| kinds.iter().map(|kind| (*class, *kind)))
}

/// Commands that only add rows: naming one of them in a rule does not say that the rows may be read back.
pub(crate) const APPENDING: &[&str] = &["insert", "copy_from_stdin", "copy_from_file", "copy_from_program"];

/// Commands that touch only the columns they list.
pub(crate) const BY_COLUMN: &[&str] = &["insert", "update", "copy_from_stdin"];

const KINDS: &[(Class, &[&str])] = &[
    (
        Class::Transaction,
        &[
            "begin",
            "commit",
            "commit_prepared",
            "prepare_transaction",
            "release_savepoint",
            "rollback",
            "rollback_prepared",
            "rollback_to_savepoint",
            "savepoint",
            "set_constraints",
            "set_transaction",
            "start_transaction",
        ],
    ),
    (
        Class::Session,
        &[
            "close",
            "deallocate",
            "deallocate_all",
            "declare",
            "discard_all",
            "discard_plans",
            "discard_sequences",
            "discard_temp",
            "execute",
            "fetch",
            "listen",
            "move",
            "prepare",
            "reset",
            "reset_all",
            "set",
            "set_session_characteristics",
            "show",
            "unlisten",
        ],
    ),
    (Class::Read, &["copy_to_stdout", "explain", "explain_analyze", "return", "select", "values"]),
    (
        Class::Write,
        &[
            "copy_from_stdin",
            "delete",
            "insert",
            "merge",
            "notify",
            "refresh_materialized_view",
            "truncate",
            "update",
        ],
    ),
    (
        Class::Utility,
        &[
            "analyze",
            "checkpoint",
            "cluster",
            "lock",
            "reindex_database",
            "reindex_index",
            "reindex_schema",
            "reindex_system",
            "reindex_table",
            "vacuum",
        ],
    ),
    (
        Class::Ddl,
        &["create_materialized_view", "create_table", "create_table_as", "drop_table", "select_into"],
    ),
    (Class::Privilege, &["alter_system", "grant", "revoke"]),
    (
        Class::Code,
        &[
            "call",
            "copy_from_file",
            "copy_from_program",
            "copy_to_file",
            "copy_to_program",
            "do",
            "load",
            "unknown",
        ],
    ),
];
