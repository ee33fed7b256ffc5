//! What names mean at one point of a query.

use std::{cell::RefCell, rc::Rc};

use pg_query::{Node, protobuf::CommonTableExpr};

use super::{catalogue::Relation, flow::Flow};

/// Names visible at one level of nesting, and the levels around it.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s, 'a> {
    pub(super) parent: Option<&'s Scope<'s, 'a>>,
    pub(super) items: &'s [Item<'a>],
    pub(super) ctes: &'s [Cte<'a>],
}

impl<'s, 'a> Scope<'s, 'a> {
    pub(super) const fn outermost() -> Self {
        Self { parent: None, items: &[], ctes: &[] }
    }

    pub(super) const fn within(parent: &'s Scope<'s, 'a>) -> Self {
        Self { parent: Some(parent), items: &[], ctes: &[] }
    }

    pub(super) const fn with_items(parent: &'s Scope<'s, 'a>, items: &'s [Item<'a>]) -> Self {
        Self { parent: Some(parent), items, ctes: &[] }
    }

    /// This level and those around it, innermost first.
    pub(super) fn levels(&'s self) -> impl Iterator<Item = &'s Scope<'s, 'a>> {
        std::iter::successors(Some(self), |scope| scope.parent)
    }
}

/// An entry of FROM, or the target of a change.
#[derive(Clone)]
pub(super) struct Item<'a> {
    /// The alias, or else the relation's name; `None` for a join without alias.
    pub(super) name: Option<&'a str>,
    /// Of a relation without alias.
    pub(super) schema: Option<&'a str>,
    pub(super) columns: Columns<'a>,
    /// What the statement itself puts into columns before they are read back by RETURNING.
    pub(super) assigned: Option<Rc<Assigned<'a>>>,
    /// Whether `name.column` finds it.
    pub(super) by_name: bool,
    /// Whether `column` finds it.
    pub(super) bare: bool,
    /// Whether FOR UPDATE without OF locks its rows.
    pub(super) locked: bool,
}

impl<'a> Item<'a> {
    pub(super) const fn new(name: Option<&'a str>, columns: Columns<'a>) -> Self {
        Self { name, schema: None, columns, assigned: None, by_name: true, bare: true, locked: true }
    }
}

#[derive(Clone)]
pub(super) enum Columns<'a> {
    Base(Base<'a>),
    Derived(Rc<Derived<'a>>),
}

/// A real relation.
#[derive(Clone, Copy)]
pub(super) struct Base<'a> {
    /// In the statement's facts.
    pub(super) index: usize,
    pub(super) schema: Option<&'a str>,
    pub(super) name: &'a str,
    /// What the catalogue knows of it.
    pub(super) known: Option<&'a Relation>,
    /// New names of its first columns.
    pub(super) renamed: &'a [Node],
}

/// Rows computed by the statement.
#[derive(Clone, Default)]
pub(super) struct Derived<'a> {
    /// In order. Complete and rightly placed only when nothing is open.
    pub(super) columns: Vec<(&'a str, Flow)>,
    /// Where columns come from that cannot be listed.
    pub(super) open: Vec<Open<'a>>,
    /// Relations whose rows these are, in the statement's facts.
    pub(super) relations: Vec<usize>,
}

impl<'a> Derived<'a> {
    /// Any number of columns, each of which may derive from all of `flow`.
    pub(super) fn anything(flow: Flow) -> Self {
        Self { columns: Vec::new(), open: vec![Open::Flow(flow)], relations: Vec::new() }
    }

    pub(super) fn column(name: &'a str, flow: Flow) -> Self {
        Self { columns: vec![(name, flow)], ..Self::default() }
    }
}

/// Columns that cannot be listed.
#[derive(Clone)]
pub(super) enum Open<'a> {
    /// Those of a relation that the catalogue does not know.
    Relation(Base<'a>),
    /// Any, each deriving from these.
    Flow(Flow),
}

/// What an INSERT, UPDATE or MERGE puts into its target.
#[derive(Default)]
pub(super) struct Assigned<'a> {
    pub(super) columns: Vec<(&'a str, Flow)>,
    /// Into columns that cannot be told.
    pub(super) any: Flow,
}

impl Assigned<'_> {
    pub(super) fn to(&self, column: &str) -> Flow {
        let mut flow = self.any.clone();
        for (name, assigned) in &self.columns {
            if *name == column {
                flow.add(assigned);
            }
        }
        flow
    }

    pub(super) fn all(&self) -> Flow {
        self.columns.iter().fold(self.any.clone(), |flow, (_, assigned)| flow.with(assigned))
    }
}

/// A query of WITH.
pub(super) struct Cte<'a> {
    pub(super) node: &'a CommonTableExpr,
    pub(super) recursive: bool,
    pub(super) state: RefCell<CteState<'a>>,
}

#[derive(Clone)]
pub(super) enum CteState<'a> {
    Pending,
    /// Being read; with its columns once the non-recursive term is known.
    Running(Option<Rc<Derived<'a>>>),
    Done(Rc<Derived<'a>>),
}

/// The text of a name.
pub(super) fn text(node: &Node) -> Option<&str> {
    match &node.node {
        Some(pg_query::NodeEnum::String(string)) => Some(&string.sval),
        _ => None,
    }
}

/// The parts of a qualified name.
pub(super) fn texts(nodes: &[Node]) -> Vec<&str> {
    nodes.iter().filter_map(text).collect()
}
