//! What views and functions in SQL show, from their definitions.
//!
//! One that cannot be read, that does more than read, or that leads back to itself stays what it was: a view that may
//! show whatever it reads in any column, a function that may return anything.

use std::collections::{BTreeMap, BTreeSet};

use pg_query::protobuf::ParseResult;
use policy::{Class, Column, Lineage, Outputs, Statement};

use super::{Catalogue, Seen, Shows, functions::Body};
use crate::postgres::sql::{
    analyser::{Analyser, Names},
    guard, parse,
};

/// Longest definition, in bytes, and what all of them may have together.
const LONGEST: usize = 64 << 10;
const MOST: usize = 4 << 20;
/// Definitions that build on each other in longer chains than this are not followed.
const ROUNDS: usize = 16;

/// What a function in SQL returns and what it decides by.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Summary {
    /// Any column of its result may derive from these,
    pub(in super::super) columns: Vec<Seen>,
    /// and from its arguments.
    pub(in super::super) arguments: bool,
    /// These decide which rows it finds,
    pub(in super::super) predicates: Vec<Seen>,
    /// and so do its arguments.
    pub(in super::super) filters_by_arguments: bool,
    /// They may make it fail.
    pub(in super::super) fails_by_arguments: bool,
}

enum Of {
    View(usize),
    Function(Body),
}

struct Definition {
    of: Of,
    tree: ParseResult,
}

/// Reads definitions until nothing new is found.
pub(super) fn understand(catalogue: &mut Catalogue, views: Vec<(usize, String)>, bodies: Vec<Body>) {
    let mut left = MOST;
    let mut read = |sql: &str| -> Option<ParseResult> {
        left = left.checked_sub(sql.len())?;
        guard::check(sql, LONGEST).ok()?;
        parse(sql).ok()
    };
    let mut pending = Vec::new();
    let mut odd = Vec::new();
    for (view, sql) in views {
        match read(&sql) {
            Some(tree) => pending.push(Definition { of: Of::View(view), tree }),
            None => odd.push(view),
        }
    }
    for body in bodies {
        if let Some(tree) = read(&body.sql) {
            pending.push(Definition { of: Of::Function(body), tree });
        }
    }
    for _ in 0..ROUNDS {
        let waiting = Waiting::new(catalogue, &pending);
        let mut still = Vec::new();
        let mut found = Vec::new();
        for definition in pending {
            match definition.statements(catalogue) {
                Some(statements) if statements.iter().any(|statement| waiting.hold_up(statement)) => {
                    still.push(definition);
                }
                statements => found.push((definition, statements)),
            }
        }
        let progress = !found.is_empty();
        for (definition, statements) in found {
            definition.keep(catalogue, statements);
        }
        pending = still;
        if !progress || pending.is_empty() {
            break;
        }
    }
    for definition in pending {
        definition.keep(catalogue, None);
    }
    for view in odd {
        all_unknown(catalogue, view);
    }
}

/// Definitions that are not understood yet.
struct Waiting {
    views: BTreeSet<(String, String)>,
    functions: BTreeSet<String>,
}

impl Waiting {
    fn new(catalogue: &Catalogue, pending: &[Definition]) -> Self {
        let mut waiting = Self { views: BTreeSet::new(), functions: BTreeSet::new() };
        for definition in pending {
            match &definition.of {
                Of::View(view) => {
                    if let Some(view) = catalogue.relations.get(*view) {
                        waiting.views.insert((view.schema.to_string(), view.name.to_string()));
                    }
                }
                Of::Function(body) => {
                    waiting.functions.insert(body.name.to_string());
                }
            }
        }
        waiting
    }

    fn hold_up(&self, statement: &Statement) -> bool {
        statement.relations.iter().any(|relation| {
            let schema = relation.schema.clone().unwrap_or_default();
            self.views.contains(&(schema, relation.name.clone()))
        }) || statement.functions.iter().any(|function| {
            let name = function.rsplit_once('.').map_or(function.as_str(), |(_, name)| name);
            self.functions.contains(name)
        })
    }
}

impl Definition {
    /// `None` when it is not understood.
    fn statements(&self, catalogue: &Catalogue) -> Option<Vec<Statement>> {
        let mut statements = Vec::with_capacity(self.tree.stmts.len());
        for raw in &self.tree.stmts {
            let analyser = Analyser::new(catalogue, Names::Resolved);
            let statement = match &self.of {
                Of::View(_) => analyser.run(raw),
                Of::Function(body) => analyser.run_body(raw, &body.name, &body.arguments),
            };
            statements.push(statement.ok()?);
        }
        Some(statements)
    }

    fn keep(self, catalogue: &mut Catalogue, statements: Option<Vec<Statement>>) {
        match self.of {
            Of::View(view) => match statements.as_deref() {
                Some([statement]) if only_reads(statement) => keep_view(catalogue, view, statement),
                _ => all_unknown(catalogue, view),
            },
            Of::Function(body) => {
                if let Some(summary) = statements.and_then(|statements| summary(&statements)) {
                    catalogue.functions.understood(&body.name, body.at, summary);
                }
            }
        }
    }
}

fn only_reads(statement: &Statement) -> bool {
    statement.class <= Class::Read
        && !statement.opaque
        && !statement.filters_unseen
        && statement.settings.is_empty()
        && statement.nested.is_empty()
}

fn keep_view(catalogue: &mut Catalogue, view: usize, statement: &Statement) {
    let Outputs::Columns(outputs) = &statement.outputs else { return all_unknown(catalogue, view) };
    let through = Through::new(statement);
    // What picks the rows can be told from any of them.
    let predicates = through.used(|used| used.predicate);
    let Some(view) = catalogue.relations.get_mut(view) else { return };
    if outputs.len() != view.columns.len() {
        // Columns were dropped or added meanwhile.
        view.columns
            .iter_mut()
            .for_each(|column| column.shows = Some(Shows { unknown: true, ..Shows::default() }));
        return;
    }
    for (column, lineage) in view.columns.iter_mut().zip(outputs) {
        let mut shows = Shows::default();
        match lineage {
            Lineage::Known(columns) => {
                shows.columns.extend(columns.iter().map(|column| through.seen(column)))
            }
            Lineage::Unknown => shows.unknown = true,
        }
        shows.columns.extend(predicates.iter().cloned());
        shows.columns.sort_unstable();
        shows.columns.dedup();
        column.shows = Some(shows);
    }
}

/// Each column may show anything, besides what the view is known to read.
fn all_unknown(catalogue: &mut Catalogue, view: usize) {
    let Some(view) = catalogue.relations.get_mut(view) else { return };
    let columns: Vec<_> = view.reads.iter().map(|base| Seen::of(base, false)).collect();
    for column in &mut view.columns {
        column.shows = Some(Shows { columns: columns.clone(), unknown: true });
    }
}

fn summary(statements: &[Statement]) -> Option<Summary> {
    let (last, _) = statements.split_last()?;
    let mut summary = Summary::default();
    if !statements.iter().all(only_reads) {
        return None;
    }
    let Outputs::Columns(outputs) = &last.outputs else { return None };
    let through = Through::new(last);
    for lineage in outputs {
        let Lineage::Known(columns) = lineage else { return None };
        for column in columns {
            match is_argument(column) {
                true => summary.arguments = true,
                false => summary.columns.push(through.seen(column)),
            }
        }
    }
    for statement in statements {
        for column in statement.columns.iter().filter(|used| used.predicate) {
            summary.filters_by_arguments |= is_argument(&column.column);
        }
        summary.fails_by_arguments |=
            statement.columns.iter().any(|used| used.fails && is_argument(&used.column));
        let predicates = Through::new(statement).used(|used| used.predicate && !is_argument(&used.column));
        summary.predicates.extend(predicates);
    }
    // The server, too, takes nobody's word for what was not asked for.
    for seen in summary.columns.iter_mut().chain(&mut summary.predicates) {
        seen.through = true;
    }
    summary.columns.sort_unstable();
    summary.columns.dedup();
    Some(summary)
}

/// What stands for the arguments of a function in its body.
const ARGUMENT: &str = "\0argument";

pub(in super::super) fn argument() -> Column {
    Column { schema: None, relation: Some(ARGUMENT.to_owned()), name: ARGUMENT.to_owned() }
}

fn is_argument(column: &Column) -> bool {
    column.name == ARGUMENT
}

/// Which of a statement's columns need no grant.
struct Through<'a> {
    statement: &'a Statement,
    columns: BTreeMap<&'a Column, bool>,
}

impl<'a> Through<'a> {
    fn new(statement: &'a Statement) -> Self {
        let columns = statement.columns.iter().map(|used| (&used.column, used.shown_through)).collect();
        Self { statement, columns }
    }

    fn seen(&self, column: &Column) -> Seen {
        Seen {
            schema: column.schema.as_deref().map(Into::into),
            relation: column.relation.as_deref().map(Into::into),
            name: column.name.as_str().into(),
            through: self.columns.get(column).copied().unwrap_or(false),
        }
    }

    fn used(&self, is: impl Fn(&policy::ColumnUse) -> bool) -> Vec<Seen> {
        self.statement.columns.iter().filter(|used| is(used)).map(|used| self.seen(&used.column)).collect()
    }
}
