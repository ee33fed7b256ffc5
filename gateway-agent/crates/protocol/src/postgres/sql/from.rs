//! Items of FROM.

use std::rc::Rc;

use pg_query::{
    Node, NodeEnum,
    protobuf::{
        Alias, JoinExpr, JsonTable, JsonTableColumn, JsonTableColumnType, RangeFunction, RangeTableFunc,
    },
};
use policy::Access;

use super::{
    analyser::{Analyser, Answer},
    facts::Use,
    flow::Flow,
    naming::column_name,
    resolve::derived_item,
    scope::{Columns, Derived, Item, Open, Scope, text, texts},
};

/// Built-in functions that return one column when they stand in FROM.
const ONE_COLUMN: &[&str] = &[
    "generate_series",
    "generate_subscripts",
    "json_array_elements",
    "json_array_elements_text",
    "json_object_keys",
    "jsonb_array_elements",
    "jsonb_array_elements_text",
    "jsonb_object_keys",
    "jsonb_path_query",
    "regexp_matches",
    "regexp_split_to_table",
    "string_to_table",
];

impl<'a> Analyser<'a> {
    /// Appends what an item of FROM makes visible to `items`, which LATERAL items may refer to.
    pub(super) fn from(
        &mut self,
        node: &'a Node,
        scope: &Scope<'_, 'a>,
        items: &mut Vec<Item<'a>>,
    ) -> Answer<()> {
        self.spend(1)?;
        match &node.node {
            Some(NodeEnum::RangeVar(range)) => {
                let alias = range.alias.as_ref();
                let item = match self.cte_item(range, scope)? {
                    Some(item) => item,
                    None => {
                        let mut base = self.relation(range, Access::Read);
                        base.renamed = alias.map_or(&[], |alias| &alias.colnames);
                        let mut item = Item::new(Some(&range.relname), Columns::Base(base));
                        item.schema = base.schema;
                        item
                    }
                };
                items.push(under_alias(item, alias));
                Ok(())
            }
            Some(NodeEnum::RangeSubselect(subselect)) => {
                let mut rows = match &subselect.subquery {
                    Some(query) if subselect.lateral => {
                        self.subquery(query, &Scope::with_items(scope, items))?
                    }
                    Some(query) => self.subquery(query, &Scope::within(scope))?,
                    None => Derived::anything(Flow::unknown()),
                };
                self.alias_columns(&mut rows, subselect.alias.as_ref())?;
                items.push(derived_item(alias_name(subselect.alias.as_ref()), rows));
                Ok(())
            }
            Some(NodeEnum::RangeFunction(function)) => {
                let item = self.function_item(function, &Scope::with_items(scope, items))?;
                items.push(item);
                Ok(())
            }
            Some(NodeEnum::RangeTableFunc(table)) => {
                let item = self.xml_table(table, &Scope::with_items(scope, items))?;
                items.push(item);
                Ok(())
            }
            Some(NodeEnum::JsonTable(table)) => {
                let item = self.json_table(table, &Scope::with_items(scope, items))?;
                items.push(item);
                Ok(())
            }
            Some(NodeEnum::RangeTableSample(sample)) => {
                let method = texts(&sample.method);
                if !matches!(method.as_slice(), ["bernoulli" | "system"]) {
                    self.function_name(&method);
                }
                for arg in sample.args.iter().chain(sample.repeatable.as_deref()) {
                    self.predicate(Some(arg), &Scope::with_items(scope, items))?;
                }
                match &sample.relation {
                    Some(relation) => self.deeper(|this| this.from(relation, scope, items)),
                    None => Ok(()),
                }
            }
            Some(NodeEnum::JoinExpr(join)) => self.deeper(|this| this.join(join, scope, items)),
            // Nothing else stands in FROM.
            _ => {
                self.unknown_node();
                items.push(derived_item(None, Derived::anything(Flow::unknown())));
                Ok(())
            }
        }
    }

    fn cte_item(
        &mut self,
        range: &'a pg_query::protobuf::RangeVar,
        scope: &Scope<'_, 'a>,
    ) -> Answer<Option<Item<'a>>> {
        if !range.schemaname.is_empty() {
            return Ok(None);
        }
        let Some(rows) = self.find_cte(&range.relname, scope)? else { return Ok(None) };
        let renames = range.alias.as_ref().is_some_and(|alias| !alias.colnames.is_empty());
        let rows = if renames {
            let mut renamed = (*rows).clone();
            self.alias_columns(&mut renamed, range.alias.as_ref())?;
            Rc::new(renamed)
        } else {
            rows
        };
        let mut item = Item::new(Some(&range.relname), Columns::Derived(rows));
        item.locked = false;
        Ok(Some(item))
    }

    fn alias_columns(&mut self, rows: &mut Derived<'a>, alias: Option<&'a Alias>) -> Answer<()> {
        match alias {
            Some(alias) => self.rename(rows, &alias.colnames),
            None => Ok(()),
        }
    }

    fn join(&mut self, join: &'a JoinExpr, scope: &Scope<'_, 'a>, items: &mut Vec<Item<'a>>) -> Answer<()> {
        let start = items.len();
        if let Some(left) = &join.larg {
            self.from(left, scope, items)?;
        }
        let middle = items.len();
        if let Some(right) = &join.rarg {
            self.from(right, scope, items)?;
        }
        let merges = join.is_natural || !join.using_clause.is_empty();
        if !merges && join.alias.is_none() {
            return self.on(join, scope, items.get(start..).unwrap_or_default());
        }
        let (left, right) = items.get(start..).unwrap_or_default().split_at(middle.saturating_sub(start));
        let (left, right) = (self.listing(left)?, self.listing(right)?);
        let names =
            if join.is_natural { self.natural_columns(&left, &right)? } else { texts(&join.using_clause) };
        let merged = self.merge(&left, &right, &names)?;
        self.on(join, scope, items.get(start..).unwrap_or_default())?;
        if let Some(alias) = &join.join_using_alias {
            let columns = merged.columns.iter().take(names.len()).cloned().collect();
            let mut item = derived_item(Some(&alias.aliasname), Derived { columns, ..Derived::default() });
            item.bare = false;
            items.push(item);
        }
        let mut merged = merged;
        self.alias_columns(&mut merged, join.alias.as_ref())?;
        if join.alias.is_some() {
            items.truncate(start);
        }
        for item in items.get_mut(start..).unwrap_or_default() {
            item.bare = false;
        }
        let mut item = derived_item(alias_name(join.alias.as_ref()), merged);
        item.by_name = join.alias.is_some();
        items.push(item);
        Ok(())
    }

    fn on(&mut self, join: &'a JoinExpr, scope: &Scope<'_, 'a>, items: &[Item<'a>]) -> Answer<()> {
        self.predicate(join.quals.as_deref(), &Scope::with_items(scope, items))
    }

    /// The columns that NATURAL joins by, as far as they can be told; whatever may be one is a predicate.
    fn natural_columns(&mut self, left: &Derived<'a>, right: &Derived<'a>) -> Answer<Vec<&'a str>> {
        if !left.open.is_empty() || !right.open.is_empty() {
            self.predicate_all(left)?;
            self.predicate_all(right)?;
        }
        self.spend(left.columns.len().saturating_add(right.columns.len()))?;
        let names: std::collections::HashSet<&str> = right.columns.iter().map(|(name, _)| *name).collect();
        Ok(left.columns.iter().map(|(name, _)| *name).filter(|name| names.contains(name)).collect())
    }

    /// The columns of a join: merged ones first, then the rest of the left side, then of the right.
    fn merge(&mut self, left: &Derived<'a>, right: &Derived<'a>, names: &[&'a str]) -> Answer<Derived<'a>> {
        let mut merged = Derived::default();
        for name in names {
            let mut both = self.side_column(left, name)?;
            both.add(&self.side_column(right, name)?);
            self.facts.mark(&both, Use::Predicate);
            merged.columns.push((name, both));
        }
        for side in [left, right] {
            for (name, flow) in &side.columns {
                self.spend(names.len().saturating_add(1))?;
                if !names.contains(name) {
                    merged.columns.push((name, flow.clone()));
                }
            }
            merged.open.extend(side.open.iter().cloned());
            merged.relations.extend_from_slice(&side.relations);
        }
        Ok(merged)
    }

    fn side_column(&mut self, side: &Derived<'a>, name: &'a str) -> Answer<Flow> {
        self.spend(side.columns.len() / 8)?;
        let mut flow = Flow::none();
        let mut found = false;
        for (_, column) in side.columns.iter().filter(|(column, _)| *column == name) {
            found = true;
            flow.add(column);
        }
        if !found && side.open.is_empty() {
            flow = self.unplaced(name);
        } else if !found {
            let open = Derived { open: side.open.clone(), ..Derived::default() };
            flow = self.column_of(&derived_item(None, open), name)?;
        }
        Ok(flow)
    }

    fn function_item(&mut self, range: &'a RangeFunction, scope: &Scope<'_, 'a>) -> Answer<Item<'a>> {
        let alias = range.alias.as_ref();
        let mut rows = Derived::default();
        for function in &range.functions {
            // A call and its column definitions.
            let Some(NodeEnum::List(pair)) = &function.node else {
                self.unknown_node();
                rows.open.push(Open::Flow(Flow::unknown()));
                continue;
            };
            let Some((call, definitions)) = pair.items.split_first() else { continue };
            let flow = self.expr(call, scope)?;
            let definitions = definitions.iter().find_map(|node| match &node.node {
                Some(NodeEnum::List(list)) => Some(list.items.as_slice()),
                _ => None,
            });
            let definitions = definitions.unwrap_or(&range.coldeflist);
            if !definitions.is_empty() {
                for definition in definitions {
                    if let Some(NodeEnum::ColumnDef(column)) = &definition.node {
                        rows.columns.push((&column.colname, flow.clone()));
                    }
                }
            } else if returns_one_column(call) {
                let own = column_name(call);
                rows.columns
                    .push((if range.is_rowsfrom { own } else { alias_name(alias).unwrap_or(own) }, flow));
            } else {
                rows.open.push(Open::Flow(flow));
            }
        }
        if range.ordinality {
            rows.columns.push(("ordinality", Flow::none()));
        }
        let own = range.functions.first().and_then(|function| match &function.node {
            Some(NodeEnum::List(pair)) => pair.items.first().map(column_name),
            _ => None,
        });
        self.alias_columns(&mut rows, alias)?;
        Ok(derived_item(alias_name(alias).or(own), rows))
    }

    fn xml_table(&mut self, table: &'a RangeTableFunc, scope: &Scope<'_, 'a>) -> Answer<Item<'a>> {
        let mut flow = self.opt(table.docexpr.as_deref(), scope)?;
        flow.add(&self.opt(table.rowexpr.as_deref(), scope)?);
        // As many rows as the document has.
        self.facts.mark(&flow, Use::Predicate);
        flow.add(&self.exprs(&table.namespaces, scope)?);
        let mut rows = Derived::default();
        for column in &table.columns {
            let Some(NodeEnum::RangeTableFuncCol(column)) = &column.node else {
                self.unknown_node();
                continue;
            };
            let mut of = self.opt(column.colexpr.as_deref(), scope)?;
            of.add(&self.opt(column.coldefexpr.as_deref(), scope)?);
            rows.columns.push((&column.colname, of.with(&flow)));
        }
        self.alias_columns(&mut rows, table.alias.as_ref())?;
        Ok(derived_item(alias_name(table.alias.as_ref()).or(Some("xmltable")), rows))
    }

    fn json_table(&mut self, table: &'a JsonTable, scope: &Scope<'_, 'a>) -> Answer<Item<'a>> {
        let mut flow = self.json_value(table.context_item.as_deref(), scope)?;
        flow.add(&self.exprs(&table.passing, scope)?);
        let path = table.pathspec.as_ref().and_then(|path| path.string.as_deref());
        flow.add(&self.opt(path, scope)?);
        flow.add(&self.json_behaviour(table.on_error.as_deref(), scope)?);
        self.facts.mark(&flow, Use::Predicate);
        let mut rows = Derived::default();
        self.json_columns(&table.columns, &flow, &mut rows, scope)?;
        self.alias_columns(&mut rows, table.alias.as_ref())?;
        Ok(derived_item(alias_name(table.alias.as_ref()).or(Some("json_table")), rows))
    }

    fn json_columns(
        &mut self,
        columns: &'a [Node],
        of_table: &Flow,
        rows: &mut Derived<'a>,
        scope: &Scope<'_, 'a>,
    ) -> Answer<()> {
        for column in columns {
            let Some(NodeEnum::JsonTableColumn(column)) = &column.node else {
                self.unknown_node();
                continue;
            };
            let column: &'a JsonTableColumn = column;
            if column.coltype() == JsonTableColumnType::JtcNested {
                self.deeper(|this| this.json_columns(&column.columns, of_table, rows, scope))?;
                continue;
            }
            let mut flow = self.json_behaviour(column.on_empty.as_deref(), scope)?;
            flow.add(&self.json_behaviour(column.on_error.as_deref(), scope)?);
            rows.columns.push((&column.name, flow.with(of_table)));
        }
        Ok(())
    }
}

fn alias_name(alias: Option<&Alias>) -> Option<&str> {
    alias.map(|alias| alias.aliasname.as_str())
}

fn under_alias<'a>(mut item: Item<'a>, alias: Option<&'a Alias>) -> Item<'a> {
    if let Some(alias) = alias {
        item.name = Some(&alias.aliasname);
        // `schema.name` finds only relations without alias.
        item.schema = Some("");
    }
    item
}

fn returns_one_column(call: &Node) -> bool {
    let Some(NodeEnum::FuncCall(call)) = &call.node else { return false };
    let Some((name, before)) = call.funcname.split_last() else { return false };
    let schema = before.last().and_then(text);
    schema.is_none_or(|schema| schema == "pg_catalog")
        && text(name).is_some_and(|name| ONE_COLUMN.contains(&name))
}
