//! Column references to base columns, the way the server resolves them.

use std::rc::Rc;

use super::{
    analyser::{Analyser, Answer},
    catalogue::Seen,
    facts::Use,
    flow::Flow,
    scope::{Base, Columns, Derived, Item, Open, Scope, text},
    total::{self, Total},
};
use pg_query::{Node, NodeEnum, protobuf::ColumnRef};

/// Columns that every table has.
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"];

/// Built-in functions that take a row of any table: `t.count` calls `count(t)`.
const ROW_FUNCTIONS: &[&str] = &[
    "any_value",
    "array_agg",
    "concat",
    "count",
    "hash_record",
    "hash_record_extended",
    "json_agg",
    "json_agg_strict",
    "json_build_array",
    "json_build_object",
    "jsonb_agg",
    "jsonb_agg_strict",
    "jsonb_build_array",
    "jsonb_build_object",
    "max",
    "min",
    "num_nonnulls",
    "num_nulls",
    "pg_column_size",
    "pg_typeof",
    "quote_literal",
    "quote_nullable",
    "record_out",
    "record_send",
    "row_to_json",
    "to_json",
    "to_jsonb",
];

/// Whether an item has a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Has {
    No,
    /// The item's columns cannot be listed.
    Perhaps,
    Yes,
}

impl<'a> Analyser<'a> {
    pub(super) fn column_ref(&mut self, column: &'a ColumnRef, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        let flow = self.referred(column, scope)?;
        self.facts.named(&flow);
        Ok(flow)
    }

    fn referred(&mut self, column: &'a ColumnRef, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        match column.fields.as_slice() {
            [only] => match text(only) {
                Some(name) => self.unqualified(name, scope),
                None => self.whole_level(scope),
            },
            [before @ .., last] => {
                let item = find_item(before, scope);
                match (item, text(last)) {
                    (Some(item), Some(name)) => self.column_of(item, name),
                    (Some(item), None) => self.whole(item),
                    (None, Some(name)) => Ok(self.unplaced(name)),
                    (None, None) => Ok(Flow::unknown()),
                }
            }
            [] => Ok(Flow::unknown()),
        }
    }

    /// A column of no relation that is known: the statement is wrong, or the catalogue out of date.
    pub(super) fn unplaced(&mut self, name: &str) -> Flow {
        let mut flow = Flow::one(self.facts.column(None, None, name));
        flow.unknown = true;
        flow
    }

    pub(super) fn unqualified(&mut self, name: &'a str, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        let mut open = Vec::new();
        let mut found = None;
        for level in scope.levels() {
            let outer_open = open.len();
            for item in level.items.iter().filter(|item| item.bare) {
                self.spend(1)?;
                if let Some(flow) = self.listed_column(item, name, &mut open)? {
                    found = Some(found.unwrap_or_else(Flow::none).with(&flow));
                }
            }
            if found.is_some() {
                // Were it also in a relation of this level that cannot be listed, the server would refuse it as
                // ambiguous.
                open.truncate(outer_open);
                break;
            }
        }
        let whole = match found {
            Some(_) => None,
            None => scope
                .levels()
                .flat_map(|level| level.items)
                .find(|item| item.by_name && item.name == Some(name)),
        };
        if found.is_none() && whole.is_none() && open.is_empty() {
            return Ok(self.unplaced(name));
        }
        let mut flow = found.unwrap_or_else(Flow::none);
        if let Some(item) = whole {
            flow.add(&self.whole(item)?);
            open.retain(|open| !same_relation(open, &item.columns));
        }
        self.open_column(&open, name, &mut flow)?;
        self.facts.named(&flow);
        Ok(flow)
    }

    /// Adds the column of one of `open`, or of any of them when there are several.
    fn open_column(&mut self, open: &[Open<'a>], name: &str, flow: &mut Flow) -> Answer<()> {
        self.spend(open.len())?;
        let mut relations = Vec::new();
        for open in open {
            match open {
                Open::Relation(base) => relations.push(base),
                Open::Flow(any) => flow.add(any),
            }
        }
        match relations.as_slice() {
            [] => {}
            [base] => {
                let name = if is_renamed(base, name) { "*" } else { name };
                flow.add(&self.base_column(base, name)?);
            }
            several => {
                flow.insert(self.facts.column(None, None, name));
                for base in several.iter().filter(|base| is_renamed(base, name)) {
                    flow.add(&self.base_column(base, "*")?);
                }
            }
        }
        Ok(())
    }

    /// `item.name`
    pub(super) fn column_of(&mut self, item: &Item<'a>, name: &'a str) -> Answer<Flow> {
        let mut open = Vec::new();
        if let Some(flow) = self.listed_column(item, name, &mut open)? {
            return Ok(flow);
        }
        if open.is_empty() {
            // No such column: a function, applied to the row.
            return self.attribute_call(item, name);
        }
        let mut flow = Flow::none();
        self.open_column(&open, name, &mut flow)?;
        if ROW_FUNCTIONS.contains(&name) {
            flow.add(&self.attribute_call(item, name)?);
        }
        Ok(flow)
    }

    fn attribute_call(&mut self, item: &Item<'a>, function: &str) -> Answer<Flow> {
        let flow = self.whole(item)?;
        if total::function(function) != Total::Yes {
            self.may_fail(&flow);
        }
        self.called(&[function], flow)
    }

    /// The column if it is listed; else notes where it may be.
    fn listed_column(
        &mut self,
        item: &Item<'a>,
        name: &'a str,
        open: &mut Vec<Open<'a>>,
    ) -> Answer<Option<Flow>> {
        let elsewhere = open.len();
        let flow = match &item.columns {
            Columns::Base(base) => self.listed_base_column(base, name, open)?,
            Columns::Derived(derived) => {
                let mut found: Option<Flow> = None;
                self.spend(derived.columns.len() / 8)?;
                for (_, flow) in derived.columns.iter().filter(|(column, _)| *column == name) {
                    found = Some(found.unwrap_or_else(Flow::none).with(flow));
                }
                if found.is_none() {
                    open.extend(derived.open.iter().cloned());
                }
                found
            }
        };
        let Some(assigned) = &item.assigned else { return Ok(flow) };
        if open.len() > elsewhere {
            open.push(Open::Flow(assigned.to(name)));
        }
        Ok(flow.map(|flow| flow.with(&assigned.to(name))))
    }

    fn listed_base_column(
        &mut self,
        base: &Base<'a>,
        name: &'a str,
        open: &mut Vec<Open<'a>>,
    ) -> Answer<Option<Flow>> {
        let Some(known) = base.known else {
            open.push(Open::Relation(*base));
            return Ok(None);
        };
        if let Some(at) = base.renamed.iter().position(|new| text(new) == Some(name)) {
            return match known.columns.get(at) {
                Some(column) => self.base_column(base, &column.name).map(Some),
                None => Ok(Some(Flow::unknown())),
            };
        }
        match known.column(name) {
            Some((at, column)) if at >= base.renamed.len() => self.base_column(base, &column.name).map(Some),
            _ if SYSTEM_COLUMNS.contains(&name) => self.base_column(base, name).map(Some),
            _ => Ok(None),
        }
    }

    /// Whether an item has a column of the name.
    pub(super) fn has_column(item: &Item<'a>, name: &str) -> Has {
        let (listed, open) = match &item.columns {
            Columns::Base(base) => match base.known {
                Some(known) => (known.column(name).is_some() || is_renamed(base, name), false),
                None => (is_renamed(base, name), true),
            },
            Columns::Derived(derived) => {
                (derived.columns.iter().any(|(column, _)| *column == name), !derived.open.is_empty())
            }
        };
        match (listed, open) {
            (true, _) => Has::Yes,
            (false, true) => Has::Perhaps,
            (false, false) => Has::No,
        }
    }

    /// A column of a relation, and whatever it shows of others.
    pub(super) fn base_column(&mut self, base: &Base<'a>, name: &str) -> Answer<Flow> {
        let mut flow = Flow::one(self.facts.column(base.schema, Some(base.name), name));
        if let Some(relation) = base.known {
            let name = match name {
                "*" => name,
                _ => relation.column(name).map_or("", |(_, column)| &column.name),
            };
            let (behind, unknown) = self.catalogue.behind(relation, name);
            flow.unknown |= unknown;
            flow.add(&self.seen(&behind)?);
        }
        Ok(flow)
    }

    /// Columns that the catalogue says are shown.
    pub(super) fn seen(&mut self, columns: &[Seen]) -> Answer<Flow> {
        let mut flow = Flow::none();
        for Seen { schema, relation, name, through } in columns {
            self.spend(1)?;
            let (schema, relation) = (schema.as_deref(), relation.as_deref());
            flow.insert(match through {
                true => self.facts.shown_through(schema, relation, name),
                false => self.facts.column(schema, relation, name),
            });
        }
        Ok(flow)
    }

    /// Everything in one row of an item.
    pub(super) fn whole(&mut self, item: &Item<'a>) -> Answer<Flow> {
        let mut flow = match &item.columns {
            Columns::Base(base) => self.whole_base(base)?,
            Columns::Derived(derived) => self.all_of(derived)?,
        };
        if let Some(assigned) = &item.assigned {
            flow.add(&assigned.all());
        }
        Ok(flow)
    }

    fn whole_base(&mut self, base: &Base<'a>) -> Answer<Flow> {
        let Some(known) = base.known else { return self.base_column(base, "*") };
        let mut flow = Flow::none();
        for column in &known.columns {
            let column = self.base_column(base, &column.name)?;
            flow.add(&column);
        }
        Ok(flow)
    }

    /// Everything in one row.
    pub(super) fn all_of(&mut self, derived: &Derived<'a>) -> Answer<Flow> {
        let mut flow = Flow::none();
        for (_, column) in &derived.columns {
            self.spend(column.len().saturating_add(1))?;
            flow.add(column);
        }
        for open in &derived.open {
            match open {
                Open::Relation(base) => {
                    let all = self.base_column(base, "*")?;
                    flow.add(&all);
                }
                Open::Flow(any) => flow.add(any),
            }
        }
        Ok(flow)
    }

    /// Everything in one row of all that is visible here.
    pub(super) fn whole_level(&mut self, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        let mut flow = Flow::none();
        for item in scope.items.iter().filter(|item| item.bare) {
            let all = self.whole(item)?;
            flow.add(&all);
        }
        Ok(flow)
    }

    /// Appends the columns that `item.*` stands for.
    pub(super) fn star(&mut self, item: &Item<'a>, out: &mut Derived<'a>) -> Answer<()> {
        match &item.columns {
            Columns::Base(base) => {
                let Some(known) = base.known else {
                    out.open.push(Open::Relation(*base));
                    if let Some(assigned) = &item.assigned {
                        out.open.push(Open::Flow(assigned.all()));
                    }
                    return Ok(());
                };
                for (at, column) in known.columns.iter().enumerate() {
                    let mut flow = self.base_column(base, &column.name)?;
                    if let Some(assigned) = &item.assigned {
                        flow.add(&assigned.to(&column.name));
                    }
                    let name = base.renamed.get(at).and_then(text).unwrap_or(&column.name);
                    out.columns.push((name, flow));
                }
            }
            Columns::Derived(derived) => {
                for (name, flow) in &derived.columns {
                    self.spend(flow.len().saturating_add(1))?;
                    out.columns.push((name, flow.clone()));
                }
                out.open.extend(derived.open.iter().cloned());
            }
        }
        Ok(())
    }

    /// The columns of an item under their names, for joins.
    pub(super) fn listing(&mut self, items: &[Item<'a>]) -> Answer<Derived<'a>> {
        let mut derived = Derived::default();
        for item in items {
            match &item.columns {
                Columns::Base(base) => derived.relations.push(base.index),
                Columns::Derived(inner) => derived.relations.extend_from_slice(&inner.relations),
            }
            if item.bare {
                self.star(item, &mut derived)?;
            }
        }
        Ok(derived)
    }

    /// Marks a whole item as deciding about rows.
    pub(super) fn predicate_all(&mut self, derived: &Derived<'a>) -> Answer<()> {
        let all = self.all_of(derived)?;
        self.facts.mark(&all, Use::Predicate);
        Ok(())
    }

    /// `(row).field` of an item, when nothing else can have the item's name.
    pub(super) fn field_of(
        &mut self,
        row: &'a Node,
        field: &'a str,
        scope: &Scope<'_, 'a>,
    ) -> Answer<Option<Flow>> {
        let Some(NodeEnum::ColumnRef(column)) = &row.node else { return Ok(None) };
        let ([only], Some(item)) = (column.fields.as_slice(), find_item(&column.fields, scope)) else {
            return Ok(None);
        };
        let name = text(only).unwrap_or_default();
        let mut items = scope.levels().flat_map(|level| level.items).filter(|item| item.bare);
        let hidden = items.any(|item| Self::has_column(item, name) != Has::No);
        if hidden { Ok(None) } else { self.column_of(item, field).map(Some) }
    }
}

fn is_renamed(base: &Base<'_>, name: &str) -> bool {
    base.renamed.iter().any(|new| text(new) == Some(name))
}

fn same_relation(open: &Open<'_>, columns: &Columns<'_>) -> bool {
    matches!((open, columns), (Open::Relation(one), Columns::Base(two)) if one.index == two.index)
}

/// The item that `name` or `schema.name` stands for.
pub(super) fn find_item<'s, 'a>(fields: &[Node], scope: &'s Scope<'s, 'a>) -> Option<&'s Item<'a>> {
    let (name, before) = fields.split_last()?;
    let name = text(name)?;
    let schema = before.last().and_then(text);
    scope.levels().flat_map(|level| level.items).find(|item| {
        item.by_name
            && item.name == Some(name)
            && match (schema, &item.columns) {
                (None, _) => true,
                (Some(schema), Columns::Base(_)) => item.schema.is_none_or(|of_item| of_item == schema),
                (Some(_), Columns::Derived(_)) => false,
            }
    })
}

/// An item made of computed rows.
pub(super) fn derived_item<'a>(name: Option<&'a str>, derived: Derived<'a>) -> Item<'a> {
    Item::new(name, Columns::Derived(Rc::new(derived)))
}
