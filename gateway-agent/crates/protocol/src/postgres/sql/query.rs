//! SELECT, VALUES, set operations and WITH.

use std::{cell::RefCell, rc::Rc};

use pg_query::{
    Node, NodeEnum,
    protobuf::{
        CommonTableExpr, IntoClause, LockClauseStrength, LockingClause, SelectStmt, SetOperation, WithClause,
    },
};
use policy::{Access, Class};

use super::{
    Refused,
    analyser::{Analyser, Answer},
    facts::Use,
    flow::Flow,
    naming::column_name,
    scope::{Columns, Cte, CteState, Derived, Item, Open, Scope, text},
};

/// The server's limit on result columns.
const MAX_COLUMNS: usize = 1664;

impl<'a> Analyser<'a> {
    pub(super) fn select(&mut self, select: &'a SelectStmt, outer: &Scope<'_, 'a>) -> Answer<Derived<'a>> {
        self.select_as(select, outer, None)
    }

    fn select_as(
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
            self.into_table(into, &rows)?;
        }
        Ok(rows)
    }

    fn into_table(&mut self, into: &'a IntoClause, rows: &Derived<'a>) -> Answer<()> {
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
            if self.star_target(value, scope, &mut rows)? {
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
                match super::resolve::find_item(before, scope) {
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

    /// Lets the recursive term refer to the columns so far, by stand-ins.
    fn begin_recursion(&mut self, cte: &Cte<'a>, base: &Derived<'a>) -> Answer<Vec<u32>> {
        let mut so_far = base.clone();
        let mut stand_ins = Vec::with_capacity(base.columns.len());
        for (_, flow) in &mut so_far.columns {
            let stand_in = self.facts.stand_in();
            flow.insert(stand_in);
            stand_ins.push(stand_in);
        }
        if !so_far.open.is_empty() {
            so_far.open.push(Open::Flow(Flow::unknown()));
        }
        self.rename(&mut so_far, &cte.node.aliascolnames)?;
        *cte.state.borrow_mut() = CteState::Running(Some(Rc::new(so_far)));
        Ok(stand_ins)
    }

    /// Replaces stand-ins by what their columns turned out to derive from.
    fn end_recursion(&mut self, stand_ins: &[u32], rows: &mut Derived<'a>) -> Answer<()> {
        if stand_ins.is_empty() {
            return Ok(());
        }
        let anything = self.all_of(rows)?;
        // Column i derives from column j's sources whenever it refers to j's stand-in.
        let mut sources: Vec<Flow> = stand_ins
            .iter()
            .enumerate()
            .map(|(at, _)| rows.columns.get(at).map_or(&anything, |(_, flow)| flow).clone())
            .collect();
        loop {
            let mut changed = false;
            for at in 0..sources.len() {
                let Some(mut flow) = sources.get(at).cloned() else { continue };
                let before = flow.clone();
                for (stand_in, source) in stand_ins.iter().zip(&sources) {
                    self.spend(1)?;
                    if before.ids().binary_search(stand_in).is_ok() {
                        self.spend(source.len())?;
                        flow.add(source);
                    }
                }
                if flow != before {
                    changed = true;
                    if let Some(slot) = sources.get_mut(at) {
                        *slot = flow;
                    }
                }
            }
            if !changed {
                break;
            }
        }
        for (stand_in, source) in stand_ins.iter().zip(&sources) {
            self.facts.settle(*stand_in, source);
        }
        for ((_, column), source) in rows.columns.iter_mut().zip(&sources) {
            *column = source.clone();
        }
        if rows.columns.is_empty() {
            let all = sources.iter().fold(self.all_of(rows)?, |all, source| all.with(source));
            rows.open = vec![Open::Flow(all)];
        }
        Ok(())
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
            // Both readings when it is not certain which the server takes.
            for (_, flow) in rows.columns.iter().filter(|(column, _)| *column == name) {
                self.facts.mark(flow, Use::Predicate);
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

    /// Reads the queries of a WITH.
    pub(super) fn with(
        &mut self,
        with: Option<&'a WithClause>,
        outer: &Scope<'_, 'a>,
    ) -> Answer<Vec<Cte<'a>>> {
        let Some(with) = with else { return Ok(Vec::new()) };
        let mut ctes = Vec::with_capacity(with.ctes.len());
        for cte in &with.ctes {
            match &cte.node {
                Some(NodeEnum::CommonTableExpr(node)) => {
                    ctes.push(Cte { node, recursive: with.recursive, state: RefCell::new(CteState::Pending) })
                }
                _ => self.unknown_node(),
            }
        }
        for (at, cte) in ctes.iter().enumerate() {
            // RECURSIVE also lets a query refer to later ones; without it, only to earlier ones.
            let visible = if with.recursive { ctes.as_slice() } else { ctes.get(..at).unwrap_or_default() };
            let scope = Scope { parent: Some(outer), items: &[], ctes: visible };
            self.cte_rows(cte, &scope)?;
        }
        Ok(ctes)
    }

    /// The rows of a query of WITH, if a name without schema means one.
    pub(super) fn find_cte(&mut self, name: &str, scope: &Scope<'_, 'a>) -> Answer<Option<Rc<Derived<'a>>>> {
        for level in scope.levels() {
            if let Some(cte) = level.ctes.iter().find(|cte| cte.node.ctename == name) {
                let of_with = Scope { parent: level.parent, items: &[], ctes: level.ctes };
                return self.cte_rows(cte, &of_with).map(Some);
            }
        }
        Ok(None)
    }

    /// Renames the first columns.
    pub(super) fn rename(&mut self, rows: &mut Derived<'a>, names: &'a [Node]) -> Answer<()> {
        if names.is_empty() {
            return Ok(());
        }
        if rows.open.is_empty() {
            for ((column, _), name) in rows.columns.iter_mut().zip(names.iter().filter_map(text)) {
                *column = name;
            }
        } else {
            // Which column gets which name cannot be told.
            let all = self.all_of(rows)?;
            rows.columns.clear();
            rows.open = vec![Open::Flow(all)];
        }
        Ok(())
    }

    fn cte_rows(&mut self, cte: &Cte<'a>, scope: &Scope<'_, 'a>) -> Answer<Rc<Derived<'a>>> {
        let state = cte.state.borrow().clone();
        match state {
            CteState::Done(rows) | CteState::Running(Some(rows)) => return Ok(rows),
            CteState::Running(None) => return Ok(Rc::new(Derived::anything(Flow::unknown()))),
            CteState::Pending => {}
        }
        *cte.state.borrow_mut() = CteState::Running(None);
        let mut rows = match cte.node.ctequery.as_ref().and_then(|query| query.node.as_ref()) {
            Some(NodeEnum::SelectStmt(select)) => {
                self.select_as(select, scope, cte.recursive.then_some(cte))?
            }
            Some(other) => self.deeper(|this| this.changing_query(other, scope))?,
            None => Derived::anything(Flow::unknown()),
        };
        self.rename(&mut rows, &cte.node.aliascolnames)?;
        search_and_cycle(cte.node, &mut rows);
        let rows = Rc::new(rows);
        *cte.state.borrow_mut() = CteState::Done(Rc::clone(&rows));
        Ok(rows)
    }
}

/// The columns that SEARCH and CYCLE add.
fn search_and_cycle<'a>(cte: &'a CommonTableExpr, rows: &mut Derived<'a>) {
    let of = |names: &[Node], rows: &Derived<'a>| {
        let mut flow = Flow::none();
        for (name, column) in &rows.columns {
            if names.iter().any(|of| text(of) == Some(name)) {
                flow.add(column);
            }
        }
        flow
    };
    if let Some(search) = &cte.search_clause {
        let flow = of(&search.search_col_list, rows);
        rows.columns.push((&search.search_seq_column, flow));
    }
    if let Some(cycle) = &cte.cycle_clause {
        let flow = of(&cycle.cycle_col_list, rows);
        rows.columns.push((&cycle.cycle_mark_column, flow.clone()));
        rows.columns.push((&cycle.cycle_path_column, flow));
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
