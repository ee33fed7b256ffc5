//! INSERT, UPDATE, DELETE and MERGE.

use std::rc::Rc;

use pg_query::{
    Node, NodeEnum,
    protobuf::{
        CmdType, DeleteStmt, InsertStmt, MergeStmt, MergeWhenClause, OnConflictAction, OnConflictClause,
        RangeVar, ReturningClause, ReturningOptionKind, UpdateStmt,
    },
};
use policy::{Access, Class};

use super::{
    analyser::{Analyser, Answer, Rows},
    facts::Use,
    flow::Flow,
    kinds::{expression_nodes, never_parsed, part_nodes, statement_nodes},
    resolve::derived_item,
    scope::{Assigned, Base, Columns, Derived, Item, Scope, text},
};

impl<'a> Analyser<'a> {
    /// The rows of a statement that changes rows, as it stands in WITH.
    pub(super) fn changing_query(
        &mut self,
        node: &'a NodeEnum,
        scope: &Scope<'_, 'a>,
    ) -> Answer<Derived<'a>> {
        let rows = match node {
            NodeEnum::InsertStmt(insert) => {
                self.facts.nested.push("insert");
                self.insert(insert, scope)?
            }
            NodeEnum::UpdateStmt(update) => {
                self.facts.nested.push("update");
                self.update(update, scope)?
            }
            NodeEnum::DeleteStmt(delete) => {
                self.facts.nested.push("delete");
                self.delete(delete, scope)?
            }
            NodeEnum::MergeStmt(merge) => {
                self.facts.nested.push("merge");
                self.merge_into(merge, scope)?
            }
            #[expect(unreachable_patterns, reason = "the group also has the statements above")]
            statement_nodes!() | expression_nodes!() | part_nodes!() | never_parsed!() => {
                self.unknown_node();
                Rows::Unknown
            }
        };
        Ok(match rows {
            Rows::None => Derived::default(),
            Rows::Known(rows) => rows,
            Rows::Unknown => Derived::anything(Flow::unknown()),
        })
    }

    /// The target of a change: always a real relation, whatever WITH calls its queries.
    fn target(&mut self, range: Option<&'a RangeVar>) -> (Option<Base<'a>>, Item<'a>) {
        let Some(range) = range else {
            self.unknown_node();
            return (None, derived_item(None, Derived::anything(Flow::unknown())));
        };
        let base = self.relation(range, Access::Write);
        if base.name == "pg_settings" && matches!(base.schema, None | Some("pg_catalog")) {
            // Its rules change settings.
            self.facts.opaque();
        }
        let mut item = Item::new(Some(&range.relname), Columns::Base(base));
        item.schema = base.schema;
        if let Some(alias) = &range.alias {
            item.name = Some(&alias.aliasname);
            item.schema = Some("");
        }
        (Some(base), item)
    }

    pub(super) fn written_column(&mut self, base: Option<&Base<'a>>, name: &'a str) {
        if let Some(base) = base {
            let id = self.facts.column(base.schema, Some(base.name), name);
            self.facts.written(id);
        }
    }

    pub(super) fn insert(&mut self, insert: &'a InsertStmt, outer: &Scope<'_, 'a>) -> Answer<Rows<'a>> {
        self.facts.raise(Class::Write);
        let ctes = self.with(insert.with_clause.as_ref(), outer)?;
        let scope = Scope { parent: Some(outer), items: &[], ctes: &ctes };
        let (base, mut item) = self.target(insert.relation.as_ref());
        let source = match &insert.select_stmt {
            Some(query) => self.subquery(query, &scope)?,
            None => Derived::default(),
        };
        let stored = self.all_of(&source)?;
        self.facts.mark(&stored, Use::Stored);
        let mut assigned = Assigned::default();
        let names = self.insert_columns(base.as_ref(), &insert.cols, &source);
        match names {
            Some(names) if source.open.is_empty() => {
                for (at, name) in names.iter().enumerate() {
                    self.written_column(base.as_ref(), name);
                    let flow = source.columns.get(at).map_or_else(Flow::none, |(_, flow)| flow.clone());
                    assigned.columns.push((name, flow));
                }
            }
            Some(names) => {
                for name in names {
                    self.written_column(base.as_ref(), name);
                }
                assigned.any = stored.clone();
            }
            None => {
                self.written_column(base.as_ref(), "*");
                assigned.any = stored.clone();
            }
        }
        if let Some(conflict) = &insert.on_conflict_clause {
            self.on_conflict(conflict, base.as_ref(), &item, &stored, &scope, &mut assigned)?;
        }
        item.assigned = Some(Rc::new(assigned));
        self.returning(insert.returning_clause.as_ref(), vec![item], 0, &scope)
    }

    /// The columns that an INSERT fills, in order, if they can be told.
    fn insert_columns(
        &mut self,
        base: Option<&Base<'a>>,
        listed: &'a [Node],
        source: &Derived<'a>,
    ) -> Option<Vec<&'a str>> {
        if !listed.is_empty() {
            return Some(
                listed
                    .iter()
                    .filter_map(|node| match &node.node {
                        Some(NodeEnum::ResTarget(target)) => Some(target.name.as_str()),
                        _ => None,
                    })
                    .collect(),
            );
        }
        let known = base?.known?;
        let all = known.columns.iter().map(|column| &*column.name);
        Some(if source.open.is_empty() && !source.columns.is_empty() {
            all.take(source.columns.len()).collect()
        } else {
            all.collect()
        })
    }

    fn on_conflict(
        &mut self,
        conflict: &'a OnConflictClause,
        base: Option<&Base<'a>>,
        target: &Item<'a>,
        stored: &Flow,
        scope: &Scope<'_, 'a>,
        assigned: &mut Assigned<'a>,
    ) -> Answer<()> {
        let mut excluded = derived_item(Some("excluded"), Derived::anything(stored.clone()));
        excluded.bare = false;
        let items = [target.clone(), excluded];
        let inner = Scope { parent: scope.parent, items: &items, ctes: scope.ctes };
        if let Some(infer) = &conflict.infer {
            // Whether there is a conflict tells whether the value is there.
            for element in &infer.index_elems {
                self.index_element(element, &inner, Use::Predicate)?;
            }
            self.predicate(infer.where_clause.as_deref(), &inner)?;
        }
        if conflict.action() != OnConflictAction::OnconflictNothing {
            self.facts.nested.push("update");
        }
        self.assignments(&conflict.target_list, base, &inner, assigned)?;
        self.predicate(conflict.where_clause.as_deref(), &inner)
    }

    /// `SET column = value, …`
    fn assignments(
        &mut self,
        targets: &'a [Node],
        base: Option<&Base<'a>>,
        scope: &Scope<'_, 'a>,
        assigned: &mut Assigned<'a>,
    ) -> Answer<()> {
        for target in targets {
            let Some(NodeEnum::ResTarget(target)) = &target.node else {
                self.unknown_node();
                continue;
            };
            self.written_column(base, &target.name);
            let mut flow = self.opt(target.val.as_deref(), scope)?;
            for step in &target.indirection {
                if let Some(NodeEnum::AIndices(_)) = &step.node {
                    flow.add(&self.expr(step, scope)?);
                }
            }
            self.facts.mark(&flow, Use::Stored);
            assigned.columns.push((&target.name, flow));
        }
        Ok(())
    }

    pub(super) fn update(&mut self, update: &'a UpdateStmt, outer: &Scope<'_, 'a>) -> Answer<Rows<'a>> {
        self.facts.raise(Class::Write);
        let ctes = self.with(update.with_clause.as_ref(), outer)?;
        let scope = Scope { parent: Some(outer), items: &[], ctes: &ctes };
        let (base, item) = self.target(update.relation.as_ref());
        let mut items = vec![item];
        self.other_items(&update.from_clause, &scope, &mut items)?;
        let inner = Scope { parent: Some(outer), items: &items, ctes: &ctes };
        self.predicate(update.where_clause.as_deref(), &inner)?;
        let mut assigned = Assigned::default();
        self.assignments(&update.target_list, base.as_ref(), &inner, &mut assigned)?;
        if let Some(target) = items.first_mut() {
            target.assigned = Some(Rc::new(assigned));
        }
        self.returning(update.returning_clause.as_ref(), items, 0, &scope)
    }

    pub(super) fn delete(&mut self, delete: &'a DeleteStmt, outer: &Scope<'_, 'a>) -> Answer<Rows<'a>> {
        self.facts.raise(Class::Write);
        let ctes = self.with(delete.with_clause.as_ref(), outer)?;
        let scope = Scope { parent: Some(outer), items: &[], ctes: &ctes };
        let (_, item) = self.target(delete.relation.as_ref());
        let mut items = vec![item];
        self.other_items(&delete.using_clause, &scope, &mut items)?;
        let inner = Scope { parent: Some(outer), items: &items, ctes: &ctes };
        self.predicate(delete.where_clause.as_deref(), &inner)?;
        self.returning(delete.returning_clause.as_ref(), items, 0, &scope)
    }

    /// FROM and USING: their subqueries do not see the target.
    fn other_items(
        &mut self,
        nodes: &'a [Node],
        scope: &Scope<'_, 'a>,
        items: &mut Vec<Item<'a>>,
    ) -> Answer<()> {
        let mut others = Vec::new();
        for node in nodes {
            self.from(node, scope, &mut others)?;
        }
        items.append(&mut others);
        Ok(())
    }

    pub(super) fn merge_into(&mut self, merge: &'a MergeStmt, outer: &Scope<'_, 'a>) -> Answer<Rows<'a>> {
        self.facts.raise(Class::Write);
        let ctes = self.with(merge.with_clause.as_ref(), outer)?;
        let scope = Scope { parent: Some(outer), items: &[], ctes: &ctes };
        let (base, item) = self.target(merge.relation.as_ref());
        // In RETURNING, `*` has the columns of the source first.
        let mut items = Vec::new();
        if let Some(source) = &merge.source_relation {
            self.from(source, &scope, &mut items)?;
        }
        let at = items.len();
        items.push(item);
        let inner = Scope { parent: Some(outer), items: &items, ctes: &ctes };
        self.predicate(merge.join_condition.as_deref(), &inner)?;
        let mut assigned = Assigned::default();
        for clause in &merge.merge_when_clauses {
            match &clause.node {
                Some(NodeEnum::MergeWhenClause(clause)) => {
                    self.merge_when(clause, base.as_ref(), &inner, &mut assigned)?;
                }
                _ => self.unknown_node(),
            }
        }
        if let Some(target) = items.get_mut(at) {
            target.assigned = Some(Rc::new(assigned));
        }
        self.returning(merge.returning_clause.as_ref(), items, at, &scope)
    }

    fn merge_when(
        &mut self,
        clause: &'a MergeWhenClause,
        base: Option<&Base<'a>>,
        scope: &Scope<'_, 'a>,
        assigned: &mut Assigned<'a>,
    ) -> Answer<()> {
        self.predicate(clause.condition.as_deref(), scope)?;
        match clause.command_type() {
            CmdType::CmdInsert => self.facts.nested.push("insert"),
            CmdType::CmdUpdate => self.facts.nested.push("update"),
            CmdType::CmdDelete => self.facts.nested.push("delete"),
            CmdType::CmdNothing => {}
            CmdType::Undefined
            | CmdType::CmdUnknown
            | CmdType::CmdSelect
            | CmdType::CmdMerge
            | CmdType::CmdUtility => self.unknown_node(),
        }
        if clause.values.is_empty() {
            return self.assignments(&clause.target_list, base, scope, assigned);
        }
        let none = Derived::default();
        let names = self.insert_columns(base, &clause.target_list, &none).unwrap_or_default();
        if names.is_empty() {
            self.written_column(base, "*");
        }
        for (at, value) in clause.values.iter().enumerate() {
            let flow = self.expr(value, scope)?;
            self.facts.mark(&flow, Use::Stored);
            match names.get(at) {
                Some(name) => {
                    self.written_column(base, name);
                    assigned.columns.push((name, flow));
                }
                None => assigned.any.add(&flow),
            }
        }
        Ok(())
    }

    /// RETURNING; `target` is the place of the changed relation in `items`.
    fn returning(
        &mut self,
        returning: Option<&'a ReturningClause>,
        mut items: Vec<Item<'a>>,
        target: usize,
        scope: &Scope<'_, 'a>,
    ) -> Answer<Rows<'a>> {
        let Some(returning) = returning else { return Ok(Rows::None) };
        if let Some(changed) = items.get(target).cloned() {
            let mut names = [
                (ReturningOptionKind::ReturningOptionOld, "old"),
                (ReturningOptionKind::ReturningOptionNew, "new"),
            ];
            for option in &returning.options {
                match &option.node {
                    Some(NodeEnum::ReturningOption(option)) => {
                        for (kind, name) in &mut names {
                            if *kind == option.option() {
                                *name = &option.value;
                            }
                        }
                    }
                    _ => self.unknown_node(),
                }
            }
            for (_, name) in names {
                // A relation of that name in the statement comes first.
                if items.iter().all(|item| item.name != Some(name)) {
                    let mut item = changed.clone();
                    item.name = Some(name);
                    item.schema = Some("");
                    item.bare = false;
                    items.push(item);
                }
            }
        }
        let inner = Scope { parent: scope.parent, items: &items, ctes: scope.ctes };
        self.targets(&returning.exprs, &inner).map(Rows::Known)
    }

    /// A column or expression of an index or of ON CONFLICT.
    pub(super) fn index_element(&mut self, node: &'a Node, scope: &Scope<'_, 'a>, usage: Use) -> Answer<()> {
        let Some(NodeEnum::IndexElem(element)) = &node.node else {
            self.unknown_node();
            return Ok(());
        };
        let flow = if element.name.is_empty() {
            self.opt(element.expr.as_deref(), scope)?
        } else {
            self.unqualified(&element.name, scope)?
        };
        self.facts.mark(&flow, usage);
        for option in &element.opclassopts {
            if let Some(NodeEnum::DefElem(option)) = &option.node {
                self.opt(option.arg.as_deref(), scope)?;
            }
        }
        Ok(())
    }
}

/// The names in a list of columns.
pub(super) fn column_names(nodes: &[Node]) -> impl Iterator<Item = &str> {
    nodes.iter().filter_map(text)
}
