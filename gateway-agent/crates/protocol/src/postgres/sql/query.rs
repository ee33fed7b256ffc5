//! SELECT, VALUES and set operations.

use pg_query::{
    Node, NodeEnum,
    protobuf::{IntoClause, LockClauseStrength, LockingClause, SelectStmt, SetOperation},
};
use policy::{Access, Class};

use super::{
    Refused,
    analyser::{Analyser, Answer},
    facts::Use,
    flow::Flow,
    naming::column_name,
    resolve::{Has, find_item},
    scope::{Columns, Cte, Derived, Item, Open, Scope, text},
};

/// The server's limit on result columns.
const MAX_COLUMNS: usize = 1664;

impl<'a> Analyser<'a> {
    pub(super) fn select(&mut self, select: &'a SelectStmt, outer: &Scope<'_, 'a>) -> Answer<Derived<'a>> {
        self.select_as(select, outer, None)
    }

    pub(super) fn select_as(
        &mut self,
        select: &'a SelectStmt,
        outer: &Scope<'_, 'a>,
        recursive: Option<&Cte<'a>>,
    ) -> Answer<Derived<'a>> {
        self.facts.raise(Class::Read);
        let rows = self.deeper(|this| {
            let ctes = this.with(select.with_clause.as_ref(), outer)?;
            let scope = Scope { parent: Some(outer), items: &[], ctes: &ctes };
            if select.op() == SetOperation::SetopNone || select.op() == SetOperation::Undefined {
                if select.values_lists.is_empty() {
                    this.plain_select(select, outer, &ctes)
                } else {
                    let rows = this.values(&select.values_lists, &scope)?;
                    this.order(select, &rows, &scope)?;
                    Ok(rows)
                }
            } else {
                let rows = this.set_operation(select, &scope, recursive)?;
                this.order(select, &rows, &scope)?;
                Ok(rows)
            }
        })?;
        if rows.columns.len() > MAX_COLUMNS {
            return Err(Refused::too_complex("it has more than 1664 result columns"));
        }
        if let Some(into) = &select.into_clause {
            self.store_into(into, &rows)?;
        }
        Ok(rows)
    }

    fn store_into(&mut self, into: &'a IntoClause, rows: &Derived<'a>) -> Answer<()> {
        self.into = true;
        self.facts.raise(Class::Ddl);
        if let Some(relation) = &into.rel {
            self.relation(relation, Access::Define);
        }
        let all = self.all_of(rows)?;
        self.facts.mark(&all, Use::Stored);
        Ok(())
    }

    /// A query as it stands in an expression, in FROM or in WITH.
    pub(super) fn subquery(&mut self, query: &'a Node, scope: &Scope<'_, 'a>) -> Answer<Derived<'a>> {
        match &query.node {
            Some(NodeEnum::SelectStmt(select)) => self.select(select, scope),
            Some(other) => self.changing_query(other, scope),
            None => Ok(Derived::anything(Flow::unknown())),
        }
    }

    fn plain_select(
        &mut self,
        select: &'a SelectStmt,
        outer: &Scope<'_, 'a>,
        ctes: &[Cte<'a>],
    ) -> Answer<Derived<'a>> {
        let mut items = Vec::with_capacity(select.from_clause.len());
        {
            let scope = Scope { parent: Some(outer), items: &[], ctes };
            for item in &select.from_clause {
                self.from(item, &scope, &mut items)?;
            }
        }
        let scope = Scope { parent: Some(outer), items: &items, ctes };
        let mut rows = self.targets(&select.target_list, &scope)?;
        rows.relations = item_relations(&items);
        self.predicate(select.where_clause.as_deref(), &scope)?;
        self.predicate(select.having_clause.as_deref(), &scope)?;
        for group in &select.group_clause {
            self.group_item(group, select, &rows, &scope)?;
        }
        for window in &select.window_clause {
            self.window_node(window, &scope)?;
        }
        for distinct in &select.distinct_clause {
            // Plain DISTINCT is a list of one empty node.
            if distinct.node.is_none() {
                self.predicate_all(&rows)?;
            } else {
                self.order_item(distinct, select, &rows, &scope)?;
            }
        }
        self.order(select, &rows, &scope)?;
        for locking in &select.locking_clause {
            self.lock(locking, &items);
        }
        Ok(rows)
    }

    /// A target list.
    pub(super) fn targets(&mut self, targets: &'a [Node], scope: &Scope<'_, 'a>) -> Answer<Derived<'a>> {
        let mut rows = Derived { columns: Vec::with_capacity(targets.len()), ..Derived::default() };
        for target in targets {
            self.spend(1)?;
            let Some(NodeEnum::ResTarget(target)) = &target.node else {
                self.unknown_node();
                rows.open.push(Open::Flow(Flow::unknown()));
                continue;
            };
            let Some(value) = &target.val else { continue };
            let listed = rows.columns.len();
            if self.star_target(value, scope, &mut rows)? {
                for (_, flow) in rows.columns.iter().skip(listed) {
                    self.facts.named(flow);
                }
                continue;
            }
            let flow = self.expr(value, scope)?;
            let name = if target.name.is_empty() { column_name(value) } else { &target.name };
            rows.columns.push((name, flow));
        }
        Ok(rows)
    }

    /// `*`, `t.*` and `(expression).*` of a target list.
    fn star_target(
        &mut self,
        value: &'a Node,
        scope: &Scope<'_, 'a>,
        rows: &mut Derived<'a>,
    ) -> Answer<bool> {
        match &value.node {
            Some(NodeEnum::ColumnRef(column)) => {
                let Some((last, before)) = column.fields.split_last() else { return Ok(false) };
                if text(last).is_some() {
                    return Ok(false);
                }
                if before.is_empty() {
                    for item in scope.items.iter().filter(|item| item.bare) {
                        self.star(item, rows)?;
                    }
                    return Ok(true);
                }
                match find_item(before, scope) {
                    Some(item) => self.star(item, rows)?,
                    None => rows.open.push(Open::Flow(Flow::unknown())),
                }
                Ok(true)
            }
            Some(NodeEnum::AIndirection(indirection)) => {
                let last = indirection.indirection.last().and_then(|node| node.node.as_ref());
                if !matches!(last, Some(NodeEnum::AStar(_))) {
                    return Ok(false);
                }
                let flow = self.expr(value, scope)?;
                rows.open.push(Open::Flow(flow));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn values(&mut self, lists: &'a [Node], scope: &Scope<'_, 'a>) -> Answer<Derived<'a>> {
        let mut rows = Derived::default();
        for list in lists {
            let Some(NodeEnum::List(list)) = &list.node else {
                self.unknown_node();
                continue;
            };
            for (at, value) in list.items.iter().enumerate() {
                let flow = self.expr(value, scope)?;
                match rows.columns.get_mut(at) {
                    Some((_, column)) => column.add(&flow),
                    None => rows.columns.push((values_name(at), flow)),
                }
            }
        }
        Ok(rows)
    }

    fn set_operation(
        &mut self,
        select: &'a SelectStmt,
        scope: &Scope<'_, 'a>,
        recursive: Option<&Cte<'a>>,
    ) -> Answer<Derived<'a>> {
        let (Some(left), Some(right)) = (&select.larg, &select.rarg) else {
            self.unknown_node();
            return Ok(Derived::anything(Flow::unknown()));
        };
        let mut rows = self.select(left, scope)?;
        let stand_ins = match recursive {
            Some(cte) => self.begin_recursion(cte, &rows)?,
            None => Vec::new(),
        };
        let other = self.select(right, scope)?;
        // Whether a row of one side appears at all depends on the values of both.
        if !(select.all && select.op() == SetOperation::SetopUnion) {
            self.predicate_all(&rows)?;
            self.predicate_all(&other)?;
        }
        rows.relations.extend_from_slice(&other.relations);
        if rows.open.is_empty() && other.open.is_empty() {
            for (at, (name, flow)) in other.columns.into_iter().enumerate() {
                match rows.columns.get_mut(at) {
                    Some((_, column)) => column.add(&flow),
                    None => rows.columns.push((name, flow)),
                }
            }
        } else {
            // Columns correspond by position, which cannot be told.
            let all = self.all_of(&rows)?.with(&self.all_of(&other)?);
            rows.columns.clear();
            rows.open = vec![Open::Flow(all)];
        }
        self.end_recursion(&stand_ins, &mut rows)?;
        Ok(rows)
    }

    pub(super) fn predicate(&mut self, node: Option<&'a Node>, scope: &Scope<'_, 'a>) -> Answer<()> {
        if let Some(node) = node {
            let flow = self.expr(node, scope)?;
            self.facts.mark(&flow, Use::Predicate);
        }
        Ok(())
    }

    /// ORDER BY, LIMIT and OFFSET.
    fn order(&mut self, select: &'a SelectStmt, rows: &Derived<'a>, scope: &Scope<'_, 'a>) -> Answer<()> {
        for sort in &select.sort_clause {
            if let Some(NodeEnum::SortBy(sort)) = &sort.node {
                self.operator(&sort.use_op);
                if let Some(key) = &sort.node {
                    self.order_item(key, select, rows, scope)?;
                }
            } else {
                self.unknown_node();
            }
        }
        self.predicate(select.limit_count.as_deref(), scope)?;
        self.predicate(select.limit_offset.as_deref(), scope)
    }

    /// An item of ORDER BY or DISTINCT ON: a result column by name or number before anything else.
    fn order_item(
        &mut self,
        key: &'a Node,
        select: &'a SelectStmt,
        rows: &Derived<'a>,
        scope: &Scope<'_, 'a>,
    ) -> Answer<()> {
        if self.by_number(key, select, rows)? {
            return Ok(());
        }
        if let Some(name) = bare_name(key) {
            let mut found = false;
            for (_, flow) in rows.columns.iter().filter(|(column, _)| *column == name) {
                found = true;
                self.facts.mark(flow, Use::Predicate);
            }
            if found && rows.open.is_empty() {
                return Ok(());
            }
            if scope.items.is_empty() && !rows.open.is_empty() {
                return self.predicate_all(rows);
            }
        }
        self.predicate(Some(key), scope)
    }

    /// An item of GROUP BY: an input column, else a result column by name, or by number.
    fn group_item(
        &mut self,
        key: &'a Node,
        select: &'a SelectStmt,
        rows: &Derived<'a>,
        scope: &Scope<'_, 'a>,
    ) -> Answer<()> {
        if let Some(NodeEnum::GroupingSet(set)) = &key.node {
            return self.deeper(|this| {
                set.content.iter().try_for_each(|key| this.group_item(key, select, rows, scope))
            });
        }
        if let Some(NodeEnum::RowExpr(row)) = &key.node {
            return self.deeper(|this| {
                row.args.iter().try_for_each(|key| this.group_item(key, select, rows, scope))
            });
        }
        if self.by_number(key, select, rows)? {
            return Ok(());
        }
        if let Some(name) = bare_name(key) {
            let bare = scope.items.iter().filter(|item| item.bare);
            let input = bare.map(|item| Self::has_column(item, name)).max().unwrap_or(Has::No);
            let mut output = false;
            if input != Has::Yes {
                for (_, flow) in rows.columns.iter().filter(|(column, _)| *column == name) {
                    self.facts.mark(flow, Use::Predicate);
                    output = true;
                }
            }
            if output && input == Has::No {
                return Ok(());
            }
        }
        self.predicate(Some(key), scope)
    }

    /// `ORDER BY 2`
    fn by_number(&mut self, key: &'a Node, select: &'a SelectStmt, rows: &Derived<'a>) -> Answer<bool> {
        use pg_query::protobuf::a_const::Val;
        let Some(NodeEnum::AConst(constant)) = &key.node else { return Ok(false) };
        let Some(Val::Ival(number)) = &constant.val else { return Ok(false) };
        let stars = !rows.open.is_empty() || rows.columns.len() != select.target_list.len();
        let at = usize::try_from(number.ival).ok().and_then(|number| number.checked_sub(1));
        match at.and_then(|at| rows.columns.get(at)) {
            Some((_, flow)) if rows.open.is_empty() => self.facts.mark(flow, Use::Predicate),
            _ if stars => self.predicate_all(rows)?,
            _ => {}
        }
        Ok(true)
    }

    fn lock(&mut self, locking: &'a Node, items: &[Item<'a>]) {
        let Some(NodeEnum::LockingClause(locking)) = &locking.node else {
            return self.unknown_node();
        };
        if locking.strength() == LockClauseStrength::LcsNone {
            return;
        }
        // Taking row locks needs the right to change them.
        self.facts.raise(Class::Write);
        let named = |item: &Item<'_>| {
            locking.locked_rels.is_empty() && item.locked || locks(locking, item.name.unwrap_or_default())
        };
        for item in items.iter().filter(|item| named(item)) {
            match &item.columns {
                Columns::Base(base) => self.facts.strengthen(base.index, Access::Write),
                Columns::Derived(derived) => {
                    for relation in &derived.relations {
                        self.facts.strengthen(*relation, Access::Write);
                    }
                }
            }
        }
    }
}

fn item_relations(items: &[Item<'_>]) -> Vec<usize> {
    let mut relations = Vec::new();
    for item in items.iter().filter(|item| item.locked) {
        match &item.columns {
            Columns::Base(base) => relations.push(base.index),
            Columns::Derived(derived) => relations.extend_from_slice(&derived.relations),
        }
    }
    relations
}

fn locks(locking: &LockingClause, name: &str) -> bool {
    locking
        .locked_rels
        .iter()
        .any(|locked| matches!(&locked.node, Some(NodeEnum::RangeVar(range)) if range.relname == name))
}

/// The name, when an expression is nothing but one.
fn bare_name(node: &Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::ColumnRef(column)) => match column.fields.as_slice() {
            [only] => text(only),
            _ => None,
        },
        _ => None,
    }
}

/// `column1`, `column2` …
fn values_name(at: usize) -> &'static str {
    const NAMES: [&str; 16] = [
        "column1", "column2", "column3", "column4", "column5", "column6", "column7", "column8", "column9",
        "column10", "column11", "column12", "column13", "column14", "column15", "column16",
    ];
    NAMES.get(at).copied().unwrap_or("column17 or later")
}
