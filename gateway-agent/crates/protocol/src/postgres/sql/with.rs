//! WITH: queries by name, recursive ones among them.

use std::{cell::RefCell, rc::Rc};

use pg_query::{
    Node, NodeEnum,
    protobuf::{CommonTableExpr, WithClause},
};

use super::{
    analyser::{Analyser, Answer},
    flow::Flow,
    scope::{Cte, CteState, Derived, Open, Scope, text},
};

impl<'a> Analyser<'a> {
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

    /// Lets the recursive term refer to the columns so far, by stand-ins.
    pub(super) fn begin_recursion(&mut self, cte: &Cte<'a>, base: &Derived<'a>) -> Answer<Vec<u32>> {
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
    pub(super) fn end_recursion(&mut self, stand_ins: &[u32], rows: &mut Derived<'a>) -> Answer<()> {
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
