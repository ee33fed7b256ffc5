//! What the names in a database stand for.
//!
//! Built from text rows of [`CATALOGUE_SQL`], which the agent runs with its own login. It may be out of date:
//! a relation that it lacks is treated as having any column, and a column that it lacks as deriving from
//! anything.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

mod definitions;
mod functions;
mod queries;

use crate::postgres::{Origin, Origins};

pub use queries::CATALOGUE_SQL;

pub(super) use definitions::{Summary, argument};
use functions::Functions;
pub(super) use functions::{Known, Nature};

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
    functions: Functions,
}

#[derive(Debug)]
pub struct Relation {
    pub oid: u32,
    pub schema: Arc<str>,
    pub name: Arc<str>,
    pub kind: RelationKind,
    /// By number; dropped ones left out.
    pub columns: Vec<RelationColumn>,
    /// Columns of other relations that a view's columns may show where [`RelationColumn::shows`] does not say: all that
    /// it reads, through views below it, whichever of its columns shows them.
    pub reads: Vec<BaseColumn>,
    /// Tables that this one inherits from or is a partition of, near and far. Columns correspond by name.
    parents: Vec<usize>,
    /// Tables that inherit from this one, near and far: reading it reads them.
    children: Vec<usize>,
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
    /// Of its type.
    pub type_oid: Option<u32>,
    /// Computed from others by the server.
    pub generated: bool,
    /// Of a view whose definition is understood: what the column derives from.
    shows: Option<Shows>,
    /// Columns of the same relation that it is generated from.
    generated_from: Vec<Arc<str>>,
}

/// What a column of a view shows.
#[derive(Debug, Clone, Default)]
struct Shows {
    columns: Vec<Seen>,
    /// And perhaps anything else.
    unknown: bool,
}

/// A column that can be seen through another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    pub(super) schema: Option<Arc<str>>,
    /// `None` = any relation of the schema.
    pub(super) relation: Option<Arc<str>>,
    pub(super) name: Arc<str>,
    /// Whoever reads the one needs no grant for this one.
    pub(super) through: bool,
}

/// Up to this many partitions are told apart; of more, any relation of their schemas could be one.
const MAX_CHILDREN: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BaseColumn {
    pub schema: Arc<str>,
    pub relation: Arc<str>,
    pub name: Arc<str>,
}

impl Seen {
    fn of(base: &BaseColumn, through: bool) -> Self {
        Self {
            schema: Some(Arc::clone(&base.schema)),
            relation: Some(Arc::clone(&base.relation)),
            name: Arc::clone(&base.name),
            through,
        }
    }
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
    /// are left out; a row that cannot be read is an error. To be called on a stack of [`STACK`](super::STACK) bytes:
    /// definitions of views and functions are analysed.
    pub fn build(results: &[Vec<Row>]) -> Result<Self, CatalogueError> {
        let [
            relations,
            columns,
            views,
            children,
            path,
            _,
            definitions,
            functions,
            operators,
            casts,
            generated,
        ] = results
        else {
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
                children: Vec::new(),
            });
        }
        for row in Rows::of(2, columns) {
            let relation: u32 = row.number(0, "oid")?;
            let number = row.number(1, "column number")?;
            let name = names.get(row.text(2, "column name")?);
            let type_oid = Some(row.number(3, "type")?);
            let generated = row.flag(4, "generated mark")?;
            if let Some(relation) = catalogue.find_mut(relation) {
                relation.columns.push(RelationColumn {
                    number,
                    name,
                    type_oid,
                    generated,
                    shows: None,
                    generated_from: Vec::new(),
                });
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
        catalogue.generated(generated)?;
        let views = catalogue.definitions(definitions)?;
        let bodies = catalogue.functions.read(&mut names, functions, operators, casts)?;
        definitions::understand(&mut catalogue, views, bodies);
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

    /// What a call by this name may reach outside pg_catalog, as it is written.
    pub(super) fn function(&self, parts: &[&str]) -> Option<Known<'_>> {
        self.functions.called(parts, &self.search_path)
    }

    /// What an operator written without a schema may call outside pg_catalog.
    pub(super) fn operator(&self, name: &str) -> Option<Known<'_>> {
        self.functions.operator(name)
    }

    /// What a cast to a type of this name may call outside pg_catalog.
    pub(super) fn cast(&self, name: &str) -> Option<Known<'_>> {
        self.functions.cast(name)
    }

    /// Other columns whose values this column may show, and whether it may show anything. `*` is all columns.
    pub(super) fn behind(&self, relation: &Relation, column: &str) -> (Vec<Seen>, bool) {
        let mut seen = Vec::new();
        let mut unknown = false;
        self.seen(relation, column, &mut seen, &mut unknown);
        (seen, unknown)
    }

    fn seen(&self, relation: &Relation, column: &str, seen: &mut Vec<Seen>, unknown: &mut bool) {
        let known = relation.column(column).map(|(_, column)| column);
        match known.and_then(|column| column.shows.as_ref()) {
            Some(shows) => {
                seen.extend_from_slice(&shows.columns);
                *unknown |= shows.unknown;
            }
            None => {
                seen.extend(relation.reads.iter().map(|base| Seen::of(base, false)));
                let mut shows = relation.columns.iter().filter_map(|column| column.shows.as_ref());
                *unknown |= shows.any(|shows| shows.unknown);
            }
        }
        for (others, through) in [(&relation.parents, false), (&relation.children, true)] {
            let others = others.iter().filter_map(|other| self.relations.get(*other));
            if others.clone().count() <= MAX_CHILDREN {
                let others = others.filter(|other| column == ALL || other.column(column).is_some());
                seen.extend(others.map(|other| Seen {
                    schema: Some(Arc::clone(&other.schema)),
                    relation: Some(Arc::clone(&other.name)),
                    name: column.into(),
                    through,
                }));
            } else {
                let schemas: BTreeSet<_> = others.map(|other| &other.schema).collect();
                seen.extend(schemas.into_iter().map(|schema| Seen {
                    schema: Some(Arc::clone(schema)),
                    relation: None,
                    name: column.into(),
                    through: true,
                }));
            }
        }
        for source in known.iter().flat_map(|column| &column.generated_from) {
            seen.push(Seen {
                schema: Some(Arc::clone(&relation.schema)),
                relation: Some(Arc::clone(&relation.name)),
                name: Arc::clone(source),
                through: true,
            });
            // Expressions of generated columns refer to no generated columns.
            self.seen(relation, source, seen, unknown);
        }
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
            let whole = row.flag(3, "whole-row mark")?;
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
            for parent in &all {
                if let Some(parent) = self.relations.get_mut(*parent) {
                    parent.children.push(*child);
                }
            }
            if let Some(relation) = self.relations.get_mut(*child) {
                relation.parents = all.into_iter().collect();
            }
        }
        Ok(())
    }

    fn generated(&mut self, rows: &[Row]) -> Result<(), CatalogueError> {
        for row in Rows::of(11, rows) {
            let (number, from): (i16, i16) =
                (row.number(1, "column number")?, row.number(2, "column number")?);
            let Some(relation) = self.find_mut(row.number(0, "oid")?) else { continue };
            let source = relation.columns.iter().find(|column| column.number == from);
            let Some(source) = source.map(|column| Arc::clone(&column.name)) else { continue };
            if let Some(column) = relation.columns.iter_mut().find(|column| column.number == number) {
                column.generated_from.push(source);
            }
        }
        Ok(())
    }

    /// View -> its SELECT.
    fn definitions(&self, rows: &[Row]) -> Result<Vec<(usize, String)>, CatalogueError> {
        let mut definitions = Vec::new();
        for row in Rows::of(7, rows) {
            let view: u32 = row.number(0, "view oid")?;
            // NULL for a view that is gone meanwhile.
            if let (Some(view), Ok(text)) = (self.by_oid.get(&view), row.text(1, "definition")) {
                definitions.push((*view, text.to_owned()));
            }
        }
        Ok(definitions)
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
                        let (behind, _) = self.behind(relation, &column.name);
                        columns.extend(behind.into_iter().filter_map(|seen| {
                            Some(BaseColumn {
                                schema: seen.schema?,
                                relation: seen.relation?,
                                name: seen.name,
                            })
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

/// Stands for every column.
const ALL: &str = "*";

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

    /// A boolean, as a cast to text writes it.
    fn flag(&self, column: usize, what: &'static str) -> Result<bool, CatalogueError> {
        match self.text(column, what)? {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.error(what)),
        }
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
        let (Some(of), Some((schema, relation, column))) =
            (self.by_oid(table_oid), self.origin(table_oid, attnum))
        else {
            return;
        };
        let understood = of.columns.iter().any(|column| column.number == attnum && column.shows.is_some());
        let (behind, unknown) = self.behind(of, column);
        let known =
            !unknown && (understood || matches!(of.kind, RelationKind::Table | RelationKind::ForeignTable));
        with(Origin { schema: Some(schema), relation: Some(relation), column, known });
        for seen in &behind {
            let (schema, relation) = (seen.schema.as_deref(), seen.relation.as_deref());
            with(Origin { schema, relation, column: &seen.name, known });
        }
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
                &["100", "2", "email", "25", "false"],
                &["100", "1", "id", "25", "false"],
                &["101", "1", "id", "25", "false"],
                &["101", "2", "email", "25", "false"],
                &["102", "1", "x", "25", "false"],
                &["103", "1", "y", "25", "false"],
                &["999", "1", "gone", "25", "false"],
                &["104", "1", "oid", "25", "false"],
            ]),
            rows(&[
                &["102", "101", "2", "false"],
                &["103", "102", "1", "false"],
                &["998", "102", "1", "false"],
            ]),
            rows(&[&["101", "100"]]),
            rows(&[&["app"], &["public"]]),
            Vec::new(),
            rows(&[&["103", " SELECT v.x AS y FROM app.v;"]]),
            rows(&[
                &["app", "shout", "sql", "i", "false", "false", "SELECT upper($1)", ""],
                &["app", "hide", "plpgsql", "s", "true", "false", "", "a"],
                &["app", "pure", "c", "i", "false", "false", "", ""],
            ]),
            rows(&[&["###", "app", "hide"]]),
            rows(&[&["int4", "app", "pure"]]),
            rows(&[&["105", "2", "1"]]),
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
        let (behind, unknown) = catalogue.behind(view, "y");
        let behind: Vec<_> = behind
            .iter()
            .map(|seen| format!("{}.{}", seen.relation.as_deref().unwrap(), seen.name))
            .collect();
        assert_eq!(behind, ["v.x", "customers.email", "customers_eu.email"]);
        assert!(!unknown);
    }

    #[test]
    fn a_parent_shows_its_children_and_a_child_its_parent() {
        let catalogue = Catalogue::build(&sample()).unwrap();
        let of = |name: &str| {
            let (behind, _) = catalogue.behind(catalogue.relation("public", name).unwrap(), "email");
            behind
                .iter()
                .map(|seen| (seen.relation.as_deref().unwrap().to_owned(), seen.through))
                .collect::<Vec<_>>()
        };
        assert_eq!(of("customers"), [("customers_eu".to_owned(), true)]);
        assert_eq!(of("customers_eu"), [("customers".to_owned(), false)]);
    }

    #[test]
    fn functions_are_found_by_schema_or_path() {
        let catalogue = Catalogue::build(&sample()).unwrap();
        let nature = |parts: &[&str]| catalogue.function(parts).map(|known| known.natures[0].clone());
        assert!(
            matches!(nature(&["shout"]), Some(Nature::Body(body)) if body.arguments && body.columns.is_empty())
        );
        assert!(matches!(nature(&["app", "hide"]), Some(Nature::Unseen)));
        assert!(matches!(nature(&["pure"]), Some(Nature::Pure)));
        assert!(nature(&["public", "pure"]).is_none() && nature(&["other"]).is_none());
        assert!(catalogue.operator("###").is_some_and(|known| known.set));
        assert!(catalogue.cast("int4").is_some() && catalogue.cast("text").is_none());
    }

    #[test]
    fn malformed_rows_are_errors() {
        assert_eq!(Catalogue::build(&[]).unwrap_err(), CatalogueError::Results { expected: 11, found: 0 });
        for (query, row) in [
            (0, vec![Some("x".into()), Some("s".into()), Some("n".into()), Some("r".into())]),
            (0, vec![Some("1".into()), None, Some("n".into()), Some("r".into())]),
            (0, vec![Some("1".into()), Some("s".into()), Some("n".into()), Some("?".into())]),
            (1, vec![Some("1".into()), Some("99999".into()), Some("n".into())]),
            (2, vec![Some("1".into()), Some("1".into()), Some("1".into()), Some("yes".into())]),
            (3, vec![Some("1".into())]),
            (4, vec![None]),
            (6, vec![Some("x".into()), None]),
            (7, vec![Some("app".into()), Some("f".into()), None]),
            (8, vec![Some("+".into()), None, Some("f".into())]),
            (10, vec![Some("100".into()), Some("1".into()), None]),
        ] {
            let mut results = sample();
            results[query].push(row);
            assert!(matches!(Catalogue::build(&results), Err(CatalogueError::Row { .. })), "{query}");
        }
    }
}
