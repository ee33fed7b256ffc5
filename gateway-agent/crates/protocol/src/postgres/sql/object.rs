//! Definitions of other objects, and privileges.

use pg_query::{
    Node, NodeEnum,
    protobuf::{GrantStmt, GrantTargetType, ObjectType, RoleStmtType},
};
use policy::{Access, Class};

use super::{
    analyser::{Analyser, Answer},
    body::is_no,
    ddl::object_name,
    dml::column_names,
    kinds::object_kind,
    scope::Scope,
};

impl<'a> Analyser<'a> {
    pub(super) fn object_ddl(&mut self, node: &'a NodeEnum, scope: &Scope<'_, 'a>) -> Answer<&'static str> {
        self.facts.raise(Class::Ddl);
        Ok(match node {
            NodeEnum::CreateFunctionStmt(create) => self.create_function(create, scope)?,
            NodeEnum::AlterFunctionStmt(alter) => {
                self.function_options(&alter.actions);
                self.of(Class::Code, object_kind!("alter", alter.objtype()))
            }
            NodeEnum::CreateEventTrigStmt(create) => {
                self.handler(&create.funcname);
                self.of(Class::Code, "create_event_trigger")
            }
            NodeEnum::AlterEventTrigStmt(_) => "alter_event_trigger",
            NodeEnum::CreatePlangStmt(create) => {
                self.handler(&create.plhandler);
                self.handler(&create.plinline);
                self.handler(&create.plvalidator);
                self.hidden_code("create_language")
            }
            NodeEnum::CreateExtensionStmt(_) => self.hidden_code("create_extension"),
            NodeEnum::AlterExtensionStmt(_) => self.hidden_code("alter_extension"),
            NodeEnum::AlterExtensionContentsStmt(alter) => {
                if let Some(object) = &alter.object {
                    self.described(alter.objtype(), &object_name(object));
                }
                "alter_extension"
            }
            NodeEnum::CreateFdwStmt(create) => {
                self.object_functions(&create.func_options);
                self.of(Class::Code, "create_foreign_data_wrapper")
            }
            NodeEnum::AlterFdwStmt(alter) => {
                self.object_functions(&alter.func_options);
                self.of(Class::Code, "alter_foreign_data_wrapper")
            }
            // Both make the server connect elsewhere.
            NodeEnum::CreateForeignServerStmt(_) => self.of(Class::Privilege, "create_server"),
            NodeEnum::AlterForeignServerStmt(_) => self.of(Class::Privilege, "alter_server"),
            NodeEnum::CreateSubscriptionStmt(_) => {
                self.facts.opaque();
                self.of(Class::Privilege, "create_subscription")
            }
            NodeEnum::AlterSubscriptionStmt(_) => {
                self.facts.opaque();
                self.of(Class::Privilege, "alter_subscription")
            }
            NodeEnum::DropSubscriptionStmt(_) => self.of(Class::Privilege, "drop_subscription"),
            NodeEnum::CreateAmStmt(create) => {
                self.handler(&create.handler_name);
                self.of(Class::Code, "create_access_method")
            }
            NodeEnum::CreateCastStmt(create) => {
                self.object_function(create.func.as_ref());
                "create_cast"
            }
            NodeEnum::CreateConversionStmt(create) => {
                self.handler(&create.func_name);
                "create_conversion"
            }
            NodeEnum::CreateTransformStmt(create) => {
                self.object_function(create.fromsql.as_ref());
                self.object_function(create.tosql.as_ref());
                "create_transform"
            }
            NodeEnum::CreateOpClassStmt(create) => {
                self.object_functions(&create.items);
                "create_operator_class"
            }
            NodeEnum::CreateOpFamilyStmt(_) => "create_operator_family",
            NodeEnum::AlterOpFamilyStmt(alter) => {
                self.object_functions(&alter.items);
                "alter_operator_family"
            }
            NodeEnum::AlterOperatorStmt(alter) => {
                self.object_functions(&alter.options);
                "alter_operator"
            }
            NodeEnum::DefineStmt(define) => {
                self.object_functions(&define.definition);
                object_kind!("create", define.kind())
            }
            NodeEnum::CreateDomainStmt(create) => {
                let items = self.of_domain();
                self.parts(&create.constraints, &Scope::with_items(scope, &items))?;
                "create_domain"
            }
            NodeEnum::AlterDomainStmt(alter) => {
                let items = self.of_domain();
                self.opt_part(alter.def.as_deref(), &Scope::with_items(scope, &items))?;
                self.cascade(alter.behavior());
                "alter_domain"
            }
            NodeEnum::CreateEnumStmt(_) => "create_type",
            NodeEnum::CreateRangeStmt(create) => {
                self.object_functions(&create.params);
                "create_type"
            }
            NodeEnum::AlterEnumStmt(_) => "alter_type",
            NodeEnum::AlterTypeStmt(alter) => {
                self.object_functions(&alter.options);
                "alter_type"
            }
            NodeEnum::AlterCollationStmt(_) => "alter_collation",
            NodeEnum::AlterTsconfigurationStmt(_) => "alter_text_search_configuration",
            NodeEnum::AlterTsdictionaryStmt(_) => "alter_text_search_dictionary",
            NodeEnum::CreatedbStmt(_) => "create_database",
            NodeEnum::AlterDatabaseStmt(_) => "alter_database",
            NodeEnum::AlterDatabaseSetStmt(alter) => {
                if let Some(set) = &alter.setstmt {
                    self.set(set);
                }
                self.of(Class::Privilege, "alter_database")
            }
            NodeEnum::AlterDatabaseRefreshCollStmt(_) => "alter_database",
            NodeEnum::DropdbStmt(_) => {
                self.facts.opaque();
                "drop_database"
            }
            NodeEnum::CreateTableSpaceStmt(_) => self.of(Class::Privilege, "create_tablespace"),
            NodeEnum::AlterTableSpaceOptionsStmt(_) => "alter_tablespace",
            NodeEnum::DropTableSpaceStmt(_) => "drop_tablespace",
            _ => self.unseen().0,
        })
    }

    /// `ALTER FUNCTION … SET`, `… SECURITY DEFINER`
    fn function_options(&mut self, actions: &'a [Node]) {
        for action in actions {
            let Some(NodeEnum::DefElem(action)) = &action.node else { continue };
            match action.arg.as_ref().and_then(|arg| arg.node.as_ref()) {
                Some(NodeEnum::VariableSetStmt(set)) => {
                    self.set(set);
                }
                // It runs with its owner's rights, and who owns it may change.
                _ if action.defname == "security" && !is_no(action) => self.facts.opaque(),
                _ => {}
            }
        }
    }

    pub(super) fn privilege(&mut self, node: &'a NodeEnum, scope: &Scope<'_, 'a>) -> Answer<&'static str> {
        self.facts.raise(Class::Privilege);
        Ok(match node {
            NodeEnum::GrantStmt(grant) => {
                self.grant(grant);
                if grant.is_grant { "grant" } else { "revoke" }
            }
            NodeEnum::GrantRoleStmt(grant) => {
                if grant.is_grant {
                    "grant_role"
                } else {
                    "revoke_role"
                }
            }
            NodeEnum::AlterDefaultPrivilegesStmt(_) => {
                self.facts.opaque();
                "alter_default_privileges"
            }
            NodeEnum::CreateRoleStmt(create) => match create.stmt_type() {
                RoleStmtType::RolestmtUser => "create_user",
                RoleStmtType::RolestmtGroup => "create_group",
                RoleStmtType::RolestmtRole | RoleStmtType::Undefined => "create_role",
            },
            NodeEnum::AlterRoleStmt(_) => "alter_role",
            NodeEnum::AlterRoleSetStmt(alter) => {
                if let Some(set) = &alter.setstmt {
                    self.set(set);
                }
                "alter_role"
            }
            NodeEnum::DropRoleStmt(_) => "drop_role",
            NodeEnum::DropOwnedStmt(_) => {
                self.facts.opaque();
                "drop_owned"
            }
            NodeEnum::ReassignOwnedStmt(_) => {
                self.facts.opaque();
                "reassign_owned"
            }
            NodeEnum::AlterOwnerStmt(alter) => {
                if let Some(relation) = &alter.relation {
                    self.relation(relation, Access::Define);
                }
                object_kind!("alter", alter.object_type())
            }
            NodeEnum::CreatePolicyStmt(create) => {
                if let Some(relation) = &create.table {
                    let items = [self.defined(relation, Access::Define)];
                    let inner = Scope::with_items(scope, &items);
                    self.predicate(create.qual.as_deref(), &inner)?;
                    self.predicate(create.with_check.as_deref(), &inner)?;
                }
                "create_policy"
            }
            NodeEnum::AlterPolicyStmt(alter) => {
                if let Some(relation) = &alter.table {
                    let items = [self.defined(relation, Access::Define)];
                    let inner = Scope::with_items(scope, &items);
                    self.predicate(alter.qual.as_deref(), &inner)?;
                    self.predicate(alter.with_check.as_deref(), &inner)?;
                }
                "alter_policy"
            }
            NodeEnum::SecLabelStmt(label) => {
                if let Some(object) = &label.object {
                    self.described(label.objtype(), &object_name(object));
                }
                "security_label"
            }
            NodeEnum::CreateUserMappingStmt(_) => "create_user_mapping",
            NodeEnum::AlterUserMappingStmt(_) => "alter_user_mapping",
            NodeEnum::DropUserMappingStmt(_) => "drop_user_mapping",
            _ => self.unseen().0,
        })
    }

    fn grant(&mut self, grant: &'a GrantStmt) {
        if grant.targtype() != GrantTargetType::AclTargetObject {
            // Whatever is in a schema.
            self.facts.opaque();
            return;
        }
        if matches!(grant.objtype(), ObjectType::ObjectTable | ObjectType::ObjectSequence) {
            self.ranges(&grant.objects, Access::Define);
            for privilege in &grant.privileges {
                let Some(NodeEnum::AccessPriv(privilege)) = &privilege.node else { continue };
                for name in column_names(&privilege.cols) {
                    for object in &grant.objects {
                        if let Some(NodeEnum::RangeVar(range)) = &object.node {
                            let base = self.relation(range, Access::Define);
                            self.written_column(Some(&base), name);
                        }
                    }
                }
            }
        }
    }
}
