//! Which statement it is, and of which class.

use pg_query::{
    NodeEnum,
    protobuf::{CreateTableAsStmt, ExplainStmt, ObjectType, PrepareStmt},
};
use policy::{Access, Class, Named};

use super::{
    analyser::{Analyser, Answer, Rows},
    facts::Use,
    flow::Flow,
    kinds::{expression_nodes, never_parsed, part_nodes},
    scope::{Derived, Scope},
};

type Kind<'a> = Answer<(&'static str, Rows<'a>)>;

impl<'a> Analyser<'a> {
    /// Reads a statement: its kind and the rows it returns.
    pub(super) fn statement(&mut self, node: &'a NodeEnum, scope: &Scope<'_, 'a>) -> Kind<'a> {
        let outermost = !std::mem::replace(&mut self.inside, true);
        let read = self.deeper(|this| this.statement_kind(node, scope))?;
        if !outermost {
            self.facts.nested.push(read.0);
        }
        Ok(read)
    }

    fn statement_kind(&mut self, node: &'a NodeEnum, scope: &Scope<'_, 'a>) -> Kind<'a> {
        match node {
            NodeEnum::SelectStmt(select) => {
                let outer = std::mem::replace(&mut self.into, false);
                let rows = self.select(select, scope)?;
                let into = std::mem::replace(&mut self.into, outer);
                Ok(match (into, select.values_lists.is_empty()) {
                    (true, _) => ("select_into", Rows::None),
                    (false, true) => ("select", Rows::Known(rows)),
                    (false, false) => ("values", Rows::Known(rows)),
                })
            }
            NodeEnum::InsertStmt(insert) => Ok(("insert", self.insert(insert, scope)?)),
            NodeEnum::UpdateStmt(update) => Ok(("update", self.update(update, scope)?)),
            NodeEnum::DeleteStmt(delete) => Ok(("delete", self.delete(delete, scope)?)),
            NodeEnum::MergeStmt(merge) => Ok(("merge", self.merge_into(merge, scope)?)),
            NodeEnum::ReturnStmt(of) => {
                // The body of an SQL function.
                let flow = self.opt(of.returnval.as_deref(), scope)?;
                Ok(("return", Rows::Known(Derived::column("", flow))))
            }

            NodeEnum::ExplainStmt(explain) => self.explain(explain, scope),
            NodeEnum::PrepareStmt(prepare) => self.prepare(prepare, scope),
            NodeEnum::ExecuteStmt(execute) => {
                self.facts.raise(Class::Session);
                self.facts.refers = Some(Named::Prepared(execute.name.clone()));
                self.exprs(&execute.params, scope)?;
                Ok(("execute", Rows::Unknown))
            }
            NodeEnum::DeallocateStmt(of) => Ok((
                self.of(Class::Session, if of.isall { "deallocate_all" } else { "deallocate" }),
                Rows::None,
            )),
            NodeEnum::DeclareCursorStmt(declare) => {
                self.facts.raise(Class::Session);
                let rows = match declare.query.as_ref().and_then(|query| query.node.as_ref()) {
                    Some(query) => self.statement(query, scope)?.1,
                    None => self.unseen().1,
                };
                self.facts.defines = Some(Named::Cursor(declare.portalname.clone()));
                Ok(("declare", rows))
            }
            NodeEnum::FetchStmt(fetch) => {
                self.facts.raise(Class::Session);
                self.facts.refers = Some(Named::Cursor(fetch.portalname.clone()));
                Ok(if fetch.ismove { ("move", Rows::None) } else { ("fetch", Rows::Unknown) })
            }
            NodeEnum::ClosePortalStmt(_) => Ok((self.of(Class::Session, "close"), Rows::None)),
            NodeEnum::CreateTableAsStmt(create) => self.create_table_as(create, scope),
            NodeEnum::CopyStmt(copy) => self.copy(copy, scope),
            NodeEnum::CallStmt(call) => {
                self.facts.raise(Class::Code);
                if let Some(call) = &call.funccall {
                    self.call(call, scope)?;
                }
                Ok(("call", Rows::Unknown))
            }
            NodeEnum::VariableShowStmt(show) => {
                self.facts.raise(Class::Session);
                let columns: &[&'static str] =
                    if show.name == "all" { &["name", "setting", "description"] } else { &["setting"] };
                let columns = columns.iter().map(|name| (*name, Flow::none())).collect();
                Ok(("show", Rows::Known(Derived { columns, ..Derived::default() })))
            }

            NodeEnum::TransactionStmt(_)
            | NodeEnum::ConstraintsSetStmt(_)
            | NodeEnum::VariableSetStmt(_)
            | NodeEnum::DiscardStmt(_)
            | NodeEnum::ListenStmt(_)
            | NodeEnum::UnlistenStmt(_)
            | NodeEnum::NotifyStmt(_)
            | NodeEnum::DoStmt(_)
            | NodeEnum::LoadStmt(_)
            | NodeEnum::CheckPointStmt(_)
            | NodeEnum::VacuumStmt(_)
            | NodeEnum::ClusterStmt(_)
            | NodeEnum::ReindexStmt(_)
            | NodeEnum::LockStmt(_)
            | NodeEnum::TruncateStmt(_)
            | NodeEnum::RefreshMatViewStmt(_)
            | NodeEnum::AlterSystemStmt(_) => Ok((self.utility(node)?, Rows::None)),

            NodeEnum::GrantStmt(_)
            | NodeEnum::GrantRoleStmt(_)
            | NodeEnum::AlterDefaultPrivilegesStmt(_)
            | NodeEnum::CreateRoleStmt(_)
            | NodeEnum::AlterRoleStmt(_)
            | NodeEnum::AlterRoleSetStmt(_)
            | NodeEnum::DropRoleStmt(_)
            | NodeEnum::DropOwnedStmt(_)
            | NodeEnum::ReassignOwnedStmt(_)
            | NodeEnum::AlterOwnerStmt(_)
            | NodeEnum::CreatePolicyStmt(_)
            | NodeEnum::AlterPolicyStmt(_)
            | NodeEnum::SecLabelStmt(_)
            | NodeEnum::CreateUserMappingStmt(_)
            | NodeEnum::AlterUserMappingStmt(_)
            | NodeEnum::DropUserMappingStmt(_) => Ok((self.privilege(node, scope)?, Rows::None)),

            NodeEnum::CreateStmt(_)
            | NodeEnum::CreateForeignTableStmt(_)
            | NodeEnum::AlterTableStmt(_)
            | NodeEnum::AlterTableMoveAllStmt(_)
            | NodeEnum::IndexStmt(_)
            | NodeEnum::ViewStmt(_)
            | NodeEnum::CreateSeqStmt(_)
            | NodeEnum::AlterSeqStmt(_)
            | NodeEnum::CreateSchemaStmt(_)
            | NodeEnum::CreateStatsStmt(_)
            | NodeEnum::AlterStatsStmt(_)
            | NodeEnum::RuleStmt(_)
            | NodeEnum::CreateTrigStmt(_)
            | NodeEnum::CreatePublicationStmt(_)
            | NodeEnum::AlterPublicationStmt(_)
            | NodeEnum::DropStmt(_)
            | NodeEnum::RenameStmt(_)
            | NodeEnum::AlterObjectSchemaStmt(_)
            | NodeEnum::AlterObjectDependsStmt(_)
            | NodeEnum::CommentStmt(_)
            | NodeEnum::CompositeTypeStmt(_)
            | NodeEnum::ImportForeignSchemaStmt(_) => Ok((self.relation_ddl(node, scope)?, Rows::None)),

            NodeEnum::CreateFunctionStmt(_)
            | NodeEnum::AlterFunctionStmt(_)
            | NodeEnum::CreateEventTrigStmt(_)
            | NodeEnum::AlterEventTrigStmt(_)
            | NodeEnum::CreatePlangStmt(_)
            | NodeEnum::CreateExtensionStmt(_)
            | NodeEnum::AlterExtensionStmt(_)
            | NodeEnum::AlterExtensionContentsStmt(_)
            | NodeEnum::CreateFdwStmt(_)
            | NodeEnum::AlterFdwStmt(_)
            | NodeEnum::CreateForeignServerStmt(_)
            | NodeEnum::AlterForeignServerStmt(_)
            | NodeEnum::CreateAmStmt(_)
            | NodeEnum::CreateCastStmt(_)
            | NodeEnum::CreateConversionStmt(_)
            | NodeEnum::CreateTransformStmt(_)
            | NodeEnum::CreateOpClassStmt(_)
            | NodeEnum::CreateOpFamilyStmt(_)
            | NodeEnum::AlterOpFamilyStmt(_)
            | NodeEnum::AlterOperatorStmt(_)
            | NodeEnum::DefineStmt(_)
            | NodeEnum::CreateDomainStmt(_)
            | NodeEnum::AlterDomainStmt(_)
            | NodeEnum::CreateEnumStmt(_)
            | NodeEnum::AlterEnumStmt(_)
            | NodeEnum::CreateRangeStmt(_)
            | NodeEnum::AlterTypeStmt(_)
            | NodeEnum::AlterCollationStmt(_)
            | NodeEnum::AlterTsconfigurationStmt(_)
            | NodeEnum::AlterTsdictionaryStmt(_)
            | NodeEnum::CreatedbStmt(_)
            | NodeEnum::AlterDatabaseStmt(_)
            | NodeEnum::AlterDatabaseSetStmt(_)
            | NodeEnum::AlterDatabaseRefreshCollStmt(_)
            | NodeEnum::DropdbStmt(_)
            | NodeEnum::CreateTableSpaceStmt(_)
            | NodeEnum::AlterTableSpaceOptionsStmt(_)
            | NodeEnum::DropTableSpaceStmt(_)
            | NodeEnum::CreateSubscriptionStmt(_)
            | NodeEnum::AlterSubscriptionStmt(_)
            | NodeEnum::DropSubscriptionStmt(_) => Ok((self.object_ddl(node, scope)?, Rows::None)),

            expression_nodes!() | part_nodes!() | never_parsed!() => Ok(self.unseen()),
        }
    }

    /// A kind, with its class.
    pub(super) fn of(&mut self, class: Class, kind: &'static str) -> &'static str {
        self.facts.raise(class);
        kind
    }

    fn explain(&mut self, explain: &'a ExplainStmt, scope: &Scope<'_, 'a>) -> Kind<'a> {
        let before = self.facts.class;
        let rows = match explain.query.as_ref().and_then(|query| query.node.as_ref()) {
            Some(query) => self.statement(query, scope)?.1,
            None => self.unseen().1,
        };
        drop(rows);
        let analyse = explain.options.iter().any(|option| match &option.node {
            Some(NodeEnum::DefElem(option)) => {
                option.defname == "analyze" && !super::utility::is_false(option.arg.as_deref())
            }
            _ => true,
        });
        if !analyse {
            // Planned, not run.
            self.facts.class = before;
        }
        self.facts.raise(Class::Read);
        let plan = Rows::Known(Derived::column("QUERY PLAN", Flow::none()));
        Ok((if analyse { "explain_analyze" } else { "explain" }, plan))
    }

    /// The rows are those that EXECUTE will return.
    fn prepare(&mut self, prepare: &'a PrepareStmt, scope: &Scope<'_, 'a>) -> Kind<'a> {
        self.facts.raise(Class::Session);
        let rows = match prepare.query.as_ref().and_then(|query| query.node.as_ref()) {
            Some(query) => self.statement(query, scope)?.1,
            None => self.unseen().1,
        };
        self.facts.defines = Some(Named::Prepared(prepare.name.clone()));
        Ok(("prepare", rows))
    }

    fn create_table_as(&mut self, create: &'a CreateTableAsStmt, scope: &Scope<'_, 'a>) -> Kind<'a> {
        self.facts.raise(Class::Ddl);
        if let Some(relation) = create.into.as_ref().and_then(|into| into.rel.as_ref()) {
            self.relation(relation, Access::Define);
        }
        match create.query.as_ref().and_then(|query| query.node.as_ref()) {
            Some(query) => {
                let stored = match self.statement(query, scope)?.1 {
                    Rows::Known(rows) => self.all_of(&rows)?,
                    Rows::None => Flow::none(),
                    // Of EXECUTE: what the prepared statement returns.
                    Rows::Unknown => Flow::unknown(),
                };
                self.facts.mark(&stored, Use::Stored);
            }
            None => self.unknown_node(),
        }
        Ok((
            match create.objtype() {
                ObjectType::ObjectMatview => "create_materialized_view",
                _ => "create_table_as",
            },
            Rows::None,
        ))
    }
}
