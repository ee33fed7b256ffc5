//! What the names in a database stand for.
//!
//! Built from text rows of [`CATALOGUE_SQL`], which the agent runs with its own login. It may be out of date:
//! a relation that it lacks is treated as having any column, and a column that it lacks as deriving from
//! anything.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::postgres::{Origin, Origins};

/// Queries whose rows [`Catalogue::build`] takes, in this order. Every column is text.
///
/// 1. relations: oid, schema, name, kind
/// 2. columns: relation oid, number, name
/// 3. what views read: view oid, relation oid, column number (0 = the relation), whether whole rows are read
/// 4. inheritance and partitions: child oid, parent oid
/// 5. the schemas of the search path, first first
pub const CATALOGUE_SQL: &[&str] = &[
    "SELECT c.oid::text, n.nspname::text, c.relname::text, c.relkind::text \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_(toast|temp)'",
    "SELECT a.attrelid::text, a.attnum::text, a.attname::text \
     FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_(toast|temp)' \
     AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum",
    // A whole-row reference leaves no trace in pg_depend but is a Var of attribute 0 in the stored rule, and
    // nothing depends on system relations (oid below 16384) there, but the rule names them.
    "SELECT r.ev_class::text, d.refobjid::text, d.refobjsubid::text, \
     (pg_catalog.strpos(r.ev_action::text, ':varattno 0 ') > 0)::text \
     FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d \
     ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid \
     AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'n' \
     WHERE r.ev_type = '1' AND d.refobjid <> r.ev_class \
     UNION \
     SELECT r.ev_class::text, m[1], '0', 'true' FROM pg_catalog.pg_rewrite r, \
     pg_catalog.regexp_matches(r.ev_action::text, ':relid ([0-9]+)', 'g') m \
     WHERE r.ev_type = '1' AND r.ev_class >= 16384 AND m[1]::pg_catalog.int8 BETWEEN 1 AND 16383",
    "SELECT i.inhrelid::text, i.inhparent::text \
     FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid \
     WHERE c.relkind IN ('r', 'p', 'f')",
    "SELECT s.name::text FROM pg_catalog.unnest(pg_catalog.current_schemas(true)) \
     WITH ORDINALITY AS s(name, n) ORDER BY s.n",
];

/// One row of a [`CATALOGUE_SQL`] query.
pub type Row = Vec<Option<String>>;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CatalogueError {
    #[error("the catalogue needs the results of {expected} queries, not {found}")]
    Results { expected: usize, found: usize },
    #[error("catalogue query {query}: row {row} has no usable {what}")]
    Row { query: usize, row: usize, what: &'static str },
}

/// The relations of one database.
#[derive(Debug, Default)]
pub struct Catalogue {
    relations: Vec<Relation>,
    by_oid: HashMap<u32, usize>,
    by_name: HashMap<Arc<str>, HashMap<Arc<str>, usize>>,
    search_path: Vec<Arc<str>>,
}

#[derive(Debug)]
pub struct Relation {
    pub oid: u32,
    pub schema: Arc<str>,
    pub name: Arc<str>,
    pub kind: RelationKind,
    /// By number; dropped ones left out.
    pub columns: Vec<RelationColumn>,
    /// Columns of other relations that a view's or a child table's columns may show: all that a view reads,
    /// through views below it, whichever of its columns shows them.
    pub reads: Vec<BaseColumn>,
    /// Tables that this one inherits from or is a partition of, near and far. Columns correspond by name.
    parents: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    View,
    MaterializedView,
    ForeignTable,
    Sequence,
}

#[derive(Debug)]
pub struct RelationColumn {
    pub number: i16,
    pub name: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BaseColumn {
    pub schema: Arc<str>,
    pub relation: Arc<str>,
    pub name: Arc<str>,
}

impl Relation {
    pub(super) fn column(&self, name: &str) -> Option<(usize, &RelationColumn)> {
        self.columns.iter().enumerate().find(|(_, column)| &*column.name == name)
    }

    fn base(&self, column: &RelationColumn) -> BaseColumn {
        BaseColumn {
            schema: Arc::clone(&self.schema),
            relation: Arc::clone(&self.name),
            name: Arc::clone(&column.name),
        }
    }
}

impl Catalogue {
    /// Knows no relation: for reading SQL offline.
    pub fn empty() -> Self {
        Self::default()
    }

    /// From the rows of [`CATALOGUE_SQL`], query by query. Relations that appear between two of the queries
    /// are left out; a row that cannot be read is an error.
    pub fn build(results: &[Vec<Row>]) -> Result<Self, CatalogueError> {
        let [relations, columns, views, children, path] = results else {
            return Err(CatalogueError::Results { expected: CATALOGUE_SQL.len(), found: results.len() });
        };
        let mut catalogue = Self::default();
        let mut names = Names::default();
        for row in Rows::of(1, relations) {
            let kind = match row.text(3, "relation kind")? {
                "r" | "p" => RelationKind::Table,
                "v" => RelationKind::View,
                "m" => RelationKind::MaterializedView,
                "f" => RelationKind::ForeignTable,
                "S" => RelationKind::Sequence,
                _ => return Err(row.error("relation kind")),
            };
            catalogue.add(Relation {
                oid: row.number(0, "oid")?,
                schema: names.get(row.text(1, "schema")?),
                name: names.get(row.text(2, "relation name")?),
                kind,
                columns: Vec::new(),
                reads: Vec::new(),
                parents: Vec::new(),
            });
        }
        for row in Rows::of(2, columns) {
            let relation: u32 = row.number(0, "oid")?;
            let number = row.number(1, "column number")?;
            let name = names.get(row.text(2, "column name")?);
            if let Some(relation) = catalogue.find_mut(relation) {
                relation.columns.push(RelationColumn { number, name });
            }
        }
        for relation in &mut catalogue.relations {
            relation.columns.sort_by_key(|column| column.number);
        }
        let views = catalogue.views(views)?;
        catalogue.inheritance(children)?;
        catalogue.resolve_views(&views);
        for row in Rows::of(5, path) {
            catalogue.search_path.push(names.get(row.text(0, "schema")?));
        }
        Ok(catalogue)
    }

    /// With the search path that sessions really have.
    #[must_use]
    pub fn with_search_path<S: AsRef<str>>(mut self, path: impl IntoIterator<Item = S>) -> Self {
        self.search_path = path.into_iter().map(|schema| Arc::from(schema.as_ref())).collect();
        self
    }

    pub fn relation(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.relations.get(*self.by_name.get(schema)?.get(name)?)
    }

    /// The relation that a name without schema stands for.
    pub fn resolve(&self, name: &str) -> Option<&Relation> {
        let listed = self.search_path.iter().any(|schema| &**schema == SYSTEM);
        let system = (!listed).then(|| self.relation(SYSTEM, name)).flatten();
        system.or_else(|| self.search_path.iter().find_map(|schema| self.relation(schema, name)))
    }

    pub fn by_oid(&self, oid: u32) -> Option<&Relation> {
        self.relations.get(*self.by_oid.get(&oid)?)
    }

    /// Schema, relation and column that a RowDescription field names as its origin.
    pub fn origin(&self, oid: u32, number: i16) -> Option<(&str, &str, &str)> {
        let relation = self.by_oid(oid)?;
        let column = relation.columns.iter().find(|column| column.number == number)?;
        Some((&relation.schema, &relation.name, &column.name))
    }

    /// Whether nothing is known at all.
    pub fn is_empty(&self) -> bool {
        self.relations.is_empty()
    }

    /// Columns of other relations whose values this column may show.
    pub(super) fn behind<'a>(
        &'a self,
        relation: &'a Relation,
        column: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
        let parents = relation.parents.iter().filter_map(|parent| self.relations.get(*parent));
        let same = parents.filter(move |parent| parent.column(column).is_some());
        let inherited = same.map(move |parent| (&*parent.schema, &*parent.name, column));
        relation.reads.iter().map(|base| (&*base.schema, &*base.relation, &*base.name)).chain(inherited)
    }

    fn add(&mut self, relation: Relation) {
        let at = self.relations.len();
        self.by_oid.insert(relation.oid, at);
        let schema = self.by_name.entry(Arc::clone(&relation.schema)).or_default();
        schema.insert(Arc::clone(&relation.name), at);
        self.relations.push(relation);
    }

    fn find_mut(&mut self, oid: u32) -> Option<&mut Relation> {
        self.relations.get_mut(*self.by_oid.get(&oid)?)
    }

    /// View -> relation -> columns read directly; no columns = all of them.
    fn views(&self, rows: &[Row]) -> Result<Reads, CatalogueError> {
        let mut reads = Reads::new();
        for row in Rows::of(3, rows) {
            let view: u32 = row.number(0, "view oid")?;
            let relation: u32 = row.number(1, "relation oid")?;
            let column: i16 = row.number(2, "column number")?;
            let whole = match row.text(3, "whole-row mark")? {
                "true" => true,
                "false" => false,
                _ => return Err(row.error("whole-row mark")),
            };
            let (Some(view), Some(relation)) = (self.by_oid.get(&view), self.by_oid.get(&relation)) else {
                continue;
            };
            let read = reads.entry(*view).or_default().entry(*relation).or_default();
            read.whole |= whole;
            if column != 0 {
                read.columns.insert(column);
            }
        }
        Ok(reads)
    }

    fn inheritance(&mut self, rows: &[Row]) -> Result<(), CatalogueError> {
        let mut parents: HashMap<usize, Vec<usize>> = HashMap::new();
        for row in Rows::of(4, rows) {
            let child: u32 = row.number(0, "child oid")?;
            let parent: u32 = row.number(1, "parent oid")?;
            if let (Some(child), Some(parent)) = (self.by_oid.get(&child), self.by_oid.get(&parent)) {
                parents.entry(*child).or_default().push(*parent);
            }
        }
        for child in parents.keys() {
            let mut all = BTreeSet::new();
            let mut left = vec![*child];
            while let Some(next) = left.pop() {
                let above = parents.get(&next).into_iter().flatten().copied();
                left.extend(above.filter(|parent| parent != child && all.insert(*parent)));
            }
            if let Some(relation) = self.relations.get_mut(*child) {
                relation.parents = all.into_iter().collect();
            }
        }
        Ok(())
    }

    fn resolve_views(&mut self, reads: &Reads) {
        let mut resolved: Vec<(usize, Vec<BaseColumn>)> = Vec::new();
        for view in reads.keys() {
            let mut columns = BTreeSet::new();
            let mut seen = BTreeSet::from([*view]);
            let mut left = vec![*view];
            while let Some(next) = left.pop() {
                for (at, read) in reads.get(&next).into_iter().flatten() {
                    let Some(relation) = self.relations.get(*at) else { continue };
                    let read_here =
                        relation.columns.iter().filter(|it| read.whole || read.columns.contains(&it.number));
                    for column in read_here {
                        columns.insert(relation.base(column));
                        columns.extend(self.behind(relation, &column.name).map(|(schema, name, column)| {
                            BaseColumn { schema: schema.into(), relation: name.into(), name: column.into() }
                        }));
                    }
                    if seen.insert(*at) {
                        left.push(*at);
                    }
                }
            }
            resolved.push((*view, columns.into_iter().collect()));
        }
        for (view, columns) in resolved {
            if let Some(relation) = self.relations.get_mut(view) {
                relation.reads = columns;
            }
        }
    }
}

const SYSTEM: &str = "pg_catalog";

type Reads = HashMap<usize, HashMap<usize, Read>>;

#[derive(Debug, Default)]
struct Read {
    columns: BTreeSet<i16>,
    whole: bool,
}

/// Each name once in memory.
#[derive(Default)]
struct Names(HashMap<Box<str>, Arc<str>>);

impl Names {
    fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = Arc::from(name);
        self.0.insert(Box::from(name), Arc::clone(&shared));
        shared
    }
}

struct Rows<'a> {
    query: usize,
    row: usize,
    cells: &'a [Option<String>],
}

impl<'a> Rows<'a> {
    fn of(query: usize, rows: &'a [Row]) -> impl Iterator<Item = Self> {
        rows.iter().enumerate().map(move |(row, cells)| Self { query, row, cells })
    }

    fn text(&self, column: usize, what: &'static str) -> Result<&'a str, CatalogueError> {
        self.cells.get(column).and_then(Option::as_deref).ok_or_else(|| self.error(what))
    }

    fn number<N: std::str::FromStr>(&self, column: usize, what: &'static str) -> Result<N, CatalogueError> {
        self.text(column, what)?.parse().map_err(|_| self.error(what))
    }

    const fn error(&self, what: &'static str) -> CatalogueError {
        CatalogueError::Row { query: self.query, row: self.row, what }
    }
}

impl Origins for Catalogue {
    fn origin(&self, table_oid: u32, attnum: i16, with: &mut dyn FnMut(Origin<'_>)) {
        let Some((schema, relation, column)) = self.origin(table_oid, attnum) else { return };
        let stored = |of: &Relation| matches!(of.kind, RelationKind::Table | RelationKind::ForeignTable);
        let base = self
            .by_oid(table_oid)
            .is_some_and(|relation| stored(relation) && self.behind(relation, column).next().is_none());
        with(Origin { schema, relation, column, base });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Row> {
        rows.iter().map(|row| row.iter().map(|cell| Some((*cell).to_owned())).collect()).collect()
    }

    fn sample() -> Vec<Vec<Row>> {
        vec![
            rows(&[
                &["100", "public", "customers", "r"],
                &["101", "public", "customers_eu", "r"],
                &["102", "app", "v", "v"],
                &["103", "app", "vv", "v"],
                &["104", "pg_catalog", "pg_class", "r"],
                &["105", "app", "customers", "r"],
            ]),
            rows(&[
                &["100", "2", "email"],
                &["100", "1", "id"],
                &["101", "1", "id"],
                &["101", "2", "email"],
                &["102", "1", "x"],
                &["103", "1", "y"],
                &["999", "1", "gone"],
                &["104", "1", "oid"],
            ]),
            rows(&[
                &["102", "101", "2", "false"],
                &["103", "102", "1", "false"],
                &["998", "102", "1", "false"],
            ]),
            rows(&[&["101", "100"]]),
            rows(&[&["app"], &["public"]]),
        ]
    }

    #[test]
    fn names_resolve_by_search_path_after_the_system_schema() {
        let catalogue = Catalogue::build(&sample()).unwrap();
        assert_eq!(catalogue.resolve("customers").map(|found| found.oid), Some(105));
        assert_eq!(catalogue.resolve("pg_class").map(|found| found.oid), Some(104));
        assert_eq!(catalogue.resolve("nothing").map(|found| found.oid), None);
        let catalogue = catalogue.with_search_path(["public"]);
        assert_eq!(catalogue.resolve("customers").map(|found| found.oid), Some(100));
        assert_eq!(catalogue.origin(100, 2), Some(("public", "customers", "email")));
        assert_eq!(catalogue.origin(100, 3), None);
    }

    #[test]
    fn a_view_shows_what_it_reads_through_views_and_parents() {
        let catalogue = Catalogue::build(&sample()).unwrap();
        let view = catalogue.relation("app", "vv").unwrap();
        let behind: Vec<_> = catalogue.behind(view, "y").collect();
        assert_eq!(
            behind,
            [("app", "v", "x"), ("public", "customers", "email"), ("public", "customers_eu", "email")]
        );
    }

    #[test]
    fn malformed_rows_are_errors() {
        assert_eq!(Catalogue::build(&[]).unwrap_err(), CatalogueError::Results { expected: 5, found: 0 });
        for (query, row) in [
            (0, vec![Some("x".into()), Some("s".into()), Some("n".into()), Some("r".into())]),
            (0, vec![Some("1".into()), None, Some("n".into()), Some("r".into())]),
            (0, vec![Some("1".into()), Some("s".into()), Some("n".into()), Some("?".into())]),
            (1, vec![Some("1".into()), Some("99999".into()), Some("n".into())]),
            (2, vec![Some("1".into()), Some("1".into()), Some("1".into()), Some("yes".into())]),
            (3, vec![Some("1".into())]),
            (4, vec![None]),
        ] {
            let mut results = sample();
            results[query].push(row);
            assert!(matches!(Catalogue::build(&results), Err(CatalogueError::Row { .. })), "{query}");
        }
    }
}
