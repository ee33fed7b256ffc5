//! Commands of the session, maintenance, and COPY.

use pg_query::{
    Node, NodeEnum,
    protobuf::{
        CopyStmt, DiscardMode, DropBehavior, RangeVar, ReindexObjectType, TransactionStmtKind,
        VariableSetKind, VariableSetStmt, a_const::Val,
    },
};
use policy::{Access, Class};

use super::{
    analyser::{Analyser, Answer, Rows},
    dml::column_names,
    facts::Use,
    flow::Flow,
    scope::{Columns, Derived, Item, Open, Scope},
};

impl<'a> Analyser<'a> {
    /// Commands without rows.
    pub(super) fn utility(&mut self, node: &'a NodeEnum) -> Answer<&'static str> {
        Ok(match node {
            NodeEnum::TransactionStmt(of) => {
                self.transaction_modes(&of.options);
                let kind = match of.kind() {
                    TransactionStmtKind::TransStmtBegin => "begin",
                    TransactionStmtKind::TransStmtStart => "start_transaction",
                    TransactionStmtKind::TransStmtCommit => "commit",
                    TransactionStmtKind::TransStmtRollback => "rollback",
                    TransactionStmtKind::TransStmtSavepoint => "savepoint",
                    TransactionStmtKind::TransStmtRelease => "release_savepoint",
                    TransactionStmtKind::TransStmtRollbackTo => "rollback_to_savepoint",
                    TransactionStmtKind::TransStmtPrepare => "prepare_transaction",
                    TransactionStmtKind::TransStmtCommitPrepared => "commit_prepared",
                    TransactionStmtKind::TransStmtRollbackPrepared => "rollback_prepared",
                    TransactionStmtKind::Undefined => return Ok(self.unseen().0),
                };
                self.of(Class::Transaction, kind)
            }
            NodeEnum::ConstraintsSetStmt(_) => self.of(Class::Transaction, "set_constraints"),
            NodeEnum::VariableSetStmt(set) => self.set(set),
            NodeEnum::DiscardStmt(discard) => {
                let kind = match discard.target() {
                    DiscardMode::DiscardAll => {
                        self.facts.setting("all", None);
                        "discard_all"
                    }
                    DiscardMode::DiscardPlans => "discard_plans",
                    DiscardMode::DiscardSequences => "discard_sequences",
                    DiscardMode::DiscardTemp => "discard_temp",
                    DiscardMode::Undefined => return Ok(self.unseen().0),
                };
                self.of(Class::Session, kind)
            }
            NodeEnum::ListenStmt(_) => self.of(Class::Session, "listen"),
            NodeEnum::UnlistenStmt(_) => self.of(Class::Session, "unlisten"),
            // Other sessions act on it.
            NodeEnum::NotifyStmt(_) => self.of(Class::Write, "notify"),
            NodeEnum::DoStmt(block) => self.do_block(block)?,
            NodeEnum::LoadStmt(_) => {
                self.facts.opaque();
                self.of(Class::Code, "load")
            }
            NodeEnum::AlterSystemStmt(of) => {
                if let Some(set) = &of.setstmt {
                    self.set(set);
                }
                self.of(Class::Privilege, "alter_system")
            }
            NodeEnum::CheckPointStmt(_) => self.of(Class::Utility, "checkpoint"),
            NodeEnum::VacuumStmt(vacuum) => {
                self.maintained(vacuum.rels.iter().map(|node| match &node.node {
                    Some(NodeEnum::VacuumRelation(of)) => of.relation.as_ref(),
                    _ => None,
                }));
                self.of(Class::Utility, if vacuum.is_vacuumcmd { "vacuum" } else { "analyze" })
            }
            NodeEnum::ClusterStmt(cluster) => {
                self.maintained(cluster.relation.iter().map(Some));
                self.of(Class::Utility, "cluster")
            }
            NodeEnum::ReindexStmt(reindex) => {
                self.maintained(reindex.relation.iter().map(Some));
                let kind = match reindex.kind() {
                    ReindexObjectType::ReindexObjectIndex => "reindex_index",
                    ReindexObjectType::ReindexObjectTable => "reindex_table",
                    ReindexObjectType::ReindexObjectSchema => "reindex_schema",
                    ReindexObjectType::ReindexObjectSystem => "reindex_system",
                    ReindexObjectType::ReindexObjectDatabase => "reindex_database",
                    ReindexObjectType::Undefined => return Ok(self.unseen().0),
                };
                self.of(Class::Utility, kind)
            }
            NodeEnum::LockStmt(lock) => {
                self.ranges(&lock.relations, Access::Write);
                self.of(Class::Utility, "lock")
            }
            NodeEnum::TruncateStmt(truncate) => {
                self.ranges(&truncate.relations, Access::Write);
                self.cascade(truncate.behavior());
                self.of(Class::Write, "truncate")
            }
            NodeEnum::RefreshMatViewStmt(refresh) => {
                self.maintained(refresh.relation.iter().map(Some));
                self.of(Class::Write, "refresh_materialized_view")
            }
            _ => self.unseen().0,
        })
    }

    /// Relations of a list.
    pub(super) fn ranges(&mut self, nodes: &'a [Node], access: Access) {
        for node in nodes {
            match &node.node {
                Some(NodeEnum::RangeVar(range)) => {
                    self.relation(range, access);
                }
                _ => self.unknown_node(),
            }
        }
    }

    /// Relations of a maintenance command; none = all there are, which cannot be listed.
    fn maintained(&mut self, ranges: impl Iterator<Item = Option<&'a RangeVar>>) {
        let mut any = false;
        for range in ranges {
            match range {
                Some(range) => {
                    self.relation(range, Access::Write);
                    any = true;
                }
                None => self.unknown_node(),
            }
        }
        if !any {
            self.facts.opaque();
        }
    }

    /// CASCADE reaches relations that the statement does not name.
    pub(super) fn cascade(&mut self, behaviour: DropBehavior) {
        if behaviour == DropBehavior::DropCascade {
            self.facts.opaque();
        }
    }

    /// SET and RESET, also as part of other statements.
    pub(super) fn set(&mut self, set: &'a VariableSetStmt) -> &'static str {
        match set.kind() {
            VariableSetKind::VarSetValue => {
                let values: Option<Vec<String>> = set.args.iter().map(constant).collect();
                let value = values.filter(|values| !values.is_empty()).map(|values| values.join(", "));
                self.facts.setting(&set.name, value);
                self.of(Class::Session, "set")
            }
            VariableSetKind::VarSetDefault | VariableSetKind::VarSetCurrent => {
                self.facts.setting(&set.name, None);
                self.of(Class::Session, "set")
            }
            VariableSetKind::VarSetMulti => match set.name.as_str() {
                "TRANSACTION" => {
                    self.transaction_modes(&set.args);
                    self.of(Class::Transaction, "set_transaction")
                }
                "TRANSACTION SNAPSHOT" => self.of(Class::Transaction, "set_transaction"),
                "SESSION CHARACTERISTICS" => {
                    for (name, value) in modes(&set.args) {
                        self.facts.setting(&format!("default_{name}"), value);
                    }
                    self.of(Class::Session, "set_session_characteristics")
                }
                _ => self.unseen().0,
            },
            VariableSetKind::VarReset => {
                self.facts.setting(&set.name, None);
                self.of(Class::Session, "reset")
            }
            VariableSetKind::VarResetAll => {
                self.facts.setting("all", None);
                self.of(Class::Session, "reset_all")
            }
            VariableSetKind::Undefined => self.unseen().0,
        }
    }

    fn transaction_modes(&mut self, options: &'a [Node]) {
        for (name, value) in modes(options) {
            self.facts.setting(name, value);
        }
    }

    pub(super) fn copy(
        &mut self,
        copy: &'a CopyStmt,
        scope: &Scope<'_, 'a>,
    ) -> Answer<(&'static str, Rows<'a>)> {
        let kind = match (copy.is_from, copy.is_program, copy.filename.is_empty()) {
            (true, true, _) => "copy_from_program",
            (false, true, _) => "copy_to_program",
            (true, false, true) => "copy_from_stdin",
            (false, false, true) => "copy_to_stdout",
            (true, false, false) => "copy_from_file",
            (false, false, false) => "copy_to_file",
        };
        self.facts.raise(match (copy.is_from, copy.is_program || !copy.filename.is_empty()) {
            // Programs and files of the server.
            (_, true) => Class::Code,
            (true, false) => Class::Write,
            (false, false) => Class::Read,
        });
        let rows = match (&copy.query, &copy.relation) {
            (Some(query), _) => match &query.node {
                Some(query) => self.statement(query, scope)?.1,
                None => self.unseen().1,
            },
            (None, Some(relation)) => {
                let access = if copy.is_from { Access::Write } else { Access::Read };
                let base = self.relation(relation, access);
                let item = Item::new(Some(&relation.relname), Columns::Base(base));
                let mut rows = Derived::default();
                if copy.attlist.is_empty() {
                    self.star(&item, &mut rows)?;
                } else {
                    for name in column_names(&copy.attlist) {
                        let flow = self.column_of(&item, name)?;
                        rows.columns.push((name, flow));
                    }
                }
                if copy.is_from {
                    for id in self.all_of(&rows)?.ids() {
                        self.facts.written(*id);
                    }
                }
                let items = [item];
                self.predicate(copy.where_clause.as_deref(), &Scope::with_items(scope, &items))?;
                Rows::Known(rows)
            }
            (None, None) => self.unseen().1,
        };
        if copy.is_from {
            return Ok((kind, Rows::None));
        }
        if kind == "copy_to_stdout" {
            return Ok((kind, rows));
        }
        match rows {
            Rows::Known(rows) => {
                let all = self.all_of(&rows)?;
                self.facts.mark(&all, Use::Stored);
            }
            Rows::None => {}
            Rows::Unknown => self.facts.opaque(),
        }
        Ok((kind, Rows::None))
    }

    /// A relation as the only thing visible, for expressions of DDL.
    pub(super) fn defined(&mut self, range: &'a RangeVar, access: Access) -> Item<'a> {
        let base = self.relation(range, access);
        let mut item = Item::new(Some(&range.relname), Columns::Base(base));
        item.schema = base.schema;
        item
    }

    /// An item that has any column, none of which is in a table yet.
    pub(super) fn anything_named(name: Option<&'a str>) -> Item<'a> {
        let derived = Derived { open: vec![Open::Flow(Flow::none())], ..Derived::default() };
        super::resolve::derived_item(name, derived)
    }
}

/// `transaction_isolation`, `transaction_read_only`, `transaction_deferrable` and their values.
fn modes(options: &[Node]) -> impl Iterator<Item = (&str, Option<String>)> {
    options.iter().filter_map(|option| match &option.node {
        Some(NodeEnum::DefElem(option)) => {
            let value = option.arg.as_deref().and_then(constant).map(|value| {
                match (option.defname.as_str(), value.as_str()) {
                    // Booleans come as numbers.
                    ("transaction_read_only" | "transaction_deferrable", "0") => "off".to_owned(),
                    ("transaction_read_only" | "transaction_deferrable", "1") => "on".to_owned(),
                    _ => value,
                }
            });
            Some((option.defname.as_str(), value))
        }
        _ => None,
    })
}

/// A constant as SET takes it.
fn constant(node: &Node) -> Option<String> {
    match node.node.as_ref()? {
        NodeEnum::AConst(of) => Some(match of.val.as_ref()? {
            Val::Sval(of) => of.sval.clone(),
            Val::Fval(of) => of.fval.clone(),
            Val::Bsval(of) => of.bsval.clone(),
            Val::Ival(of) => of.ival.to_string(),
            Val::Boolval(of) => of.boolval.to_string(),
        }),
        NodeEnum::String(of) => Some(of.sval.clone()),
        NodeEnum::Integer(of) => Some(of.ival.to_string()),
        NodeEnum::Float(of) => Some(of.fval.clone()),
        NodeEnum::Boolean(of) => Some(of.boolval.to_string()),
        _ => None,
    }
}

/// Whether an option that is on by default is surely off.
pub(super) fn is_false(value: Option<&Node>) -> bool {
    value
        .and_then(constant)
        .is_some_and(|value| ["false", "off", "0"].iter().any(|off| value.eq_ignore_ascii_case(off)))
}
