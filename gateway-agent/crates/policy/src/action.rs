//! What a job asks of a resource, in terms a rule can name.
//!
//! Protocol crates build these from wire messages; nothing here has seen text that it would have to parse.

use serde::Serialize;

use crate::{http::Http, kubernetes::Kubernetes, ssh::Ssh};

/// One thing asked of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Open a session on a database.
    Connect(Connect),
    /// Run one SQL statement.
    Statement(Statement),
    /// Anything asked of an SSH host, connecting included.
    Ssh(Ssh),
    /// A request to an HTTP host.
    Http(Http),
    /// A request to an API server.
    Kubernetes(Box<Kubernetes>),
}

/// A database session, as the client named it. The gateway logs in with its own user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Connect {
    pub database: String,
    pub user: String,
    pub application: String,
}

/// One parsed SQL statement.
///
/// Names are folded as the server folds them. A list that could not be told completely is never silently
/// short: `opaque` is set, and policy treats the statement as the most dangerous thing it could be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Statement {
    /// The command, in snake case: `select`, `insert`, `drop_table`, `copy_to_program`.
    pub kind: &'static str,
    /// Kinds of every command inside that runs, now or when it is called for: DML in a CTE, the actions of
    /// MERGE and ON CONFLICT, what EXPLAIN ANALYZE, PREPARE, DECLARE, COPY (…) or CREATE … AS carries. A rule
    /// against `delete` finds the DELETE in `WITH … INSERT` only by this list.
    pub nested: Vec<&'static str>,
    /// The most dangerous class of anything inside: a CTE with DML makes a SELECT a write.
    pub class: Class,
    /// Every relation named anywhere, with the strongest use made of it.
    pub relations: Vec<RelationUse>,
    /// Every base column that the statement reads or writes, with the strongest use made of it.
    pub columns: Vec<ColumnUse>,
    /// Every function or procedure called, as written: `lower`, `pg_catalog.set_config`. Operators are not listed.
    pub functions: Vec<String>,
    /// Something inside cannot be seen: dynamic SQL, a procedural body, an unknown node.
    pub opaque: bool,
    /// A value of which nobody can tell what it derives from is stored.
    pub stores_unseen: bool,
    /// Such a value decides which rows there are or in what order.
    pub filters_unseen: bool,
    /// Whether the statement fails, or how long it takes, depends on such a value.
    pub fails_unseen: bool,
    /// Where each result column comes from.
    pub outputs: Outputs,
    /// A statement name or cursor this one runs (EXECUTE, FETCH); its own meaning must be decided too.
    pub refers: Option<Named>,
    /// A statement name or cursor this one creates (PREPARE, DECLARE).
    pub defines: Option<Named>,
    /// Session settings this changes: lower-case name and, where literal, the value.
    pub settings: Vec<(String, Option<String>)>,
}

impl Statement {
    /// Text that could not be read: it may do anything.
    pub fn unread() -> Self {
        Self {
            kind: "unknown",
            nested: Vec::new(),
            class: Class::Code,
            relations: Vec::new(),
            columns: Vec::new(),
            functions: Vec::new(),
            opaque: true,
            stores_unseen: true,
            filters_unseen: true,
            fails_unseen: true,
            outputs: Outputs::Unknown,
            refers: None,
            defines: None,
            settings: Vec::new(),
        }
    }
}

/// A session-local name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "type", content = "name", rename_all = "snake_case")]
pub enum Named {
    Prepared(String),
    Cursor(String),
}

/// What a statement can do, least dangerous first; the derived order is used for "the most dangerous of".
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// BEGIN, COMMIT, SAVEPOINT.
    Transaction,
    /// SET, SHOW, DISCARD, LISTEN, PREPARE, DEALLOCATE, cursors.
    Session,
    /// Reads rows.
    Read,
    /// Changes rows.
    Write,
    /// VACUUM, ANALYZE, CHECKPOINT, LOCK, CLUSTER, REINDEX.
    Utility,
    /// Creates, alters or drops objects.
    Ddl,
    /// Roles, grants, ownership, security labels, default privileges, row security.
    Privilege,
    /// Runs code on the server: DO, CALL, COPY … PROGRAM, CREATE FUNCTION, LOAD.
    Code,
}

/// A relation and what is done to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RelationUse {
    /// As written, or as the catalogue resolved it; `None` when neither says.
    pub schema: Option<String>,
    pub name: String,
    pub access: Access,
}

/// Strongest use of a relation or column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Its values are read.
    Read,
    /// Its rows are inserted, updated, deleted, merged, truncated or locked.
    Write,
    /// The object itself is created, altered, dropped, granted, owned.
    Define,
}

/// A base column and the uses made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnUse {
    pub column: Column,
    /// Some result column derives from it.
    pub output: bool,
    /// It decides which rows there are or in what order: WHERE, JOIN, GROUP, ORDER, DISTINCT, HAVING, LIMIT.
    pub predicate: bool,
    /// Its value flows into a stored row or object: INSERT … SELECT, UPDATE SET, CREATE TABLE AS.
    pub stored: bool,
    /// Whether the statement fails, or how long it takes, may depend on it: it is cast, computed with, or decides whether
    /// something else is.
    pub fails: bool,
    /// It is assigned.
    pub written: bool,
    /// The statement does not name it nor its relation: a column that it does name may show its values (a partition's
    /// through the parent, a column that another is generated from). Masks count for it; no grant is needed.
    pub shown_through: bool,
}

/// A column. `relation: None` means it may belong to any relation of the statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Column {
    pub schema: Option<String>,
    pub relation: Option<String>,
    /// `*` when every column of the relation is meant and the catalogue could not list them.
    pub name: String,
}

/// Result columns of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", content = "columns", rename_all = "snake_case")]
pub enum Outputs {
    /// The statement returns no rows.
    None,
    /// As many entries as result columns, in order.
    Columns(Vec<Lineage>),
    /// Rows come back whose columns cannot be told from the text.
    Unknown,
}

/// Where one result column comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", content = "columns", rename_all = "snake_case")]
pub enum Lineage {
    /// Derives from these base columns and nothing else; empty for constants.
    Known(Vec<Column>),
    /// May derive from anything.
    Unknown,
}
