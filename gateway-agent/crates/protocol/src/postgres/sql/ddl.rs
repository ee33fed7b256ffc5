//! Definitions of relations and what belongs to them.

use pg_query::{
    Node, NodeEnum,
    protobuf::{
        AlterTableCmd, AlterTableStmt, AlterTableType, CommentStmt, CreateStmt, DropStmt, IndexStmt,
        ObjectType, RangeVar, RenameStmt, RuleStmt, TypeName,
    },
};
use policy::{Access, Class};

use super::{
    analyser::{Analyser, Answer, Rows},
    facts::Use,
    flow::Flow,
    kinds::object_kind,
    scope::{Base, Columns, Derived, Item, Scope, text, texts},
};

impl<'a> Analyser<'a> {
    pub(super) fn relation_ddl(&mut self, node: &'a NodeEnum, scope: &Scope<'_, 'a>) -> Answer<&'static str> {
        self.facts.raise(Class::Ddl);
        match node {
            NodeEnum::CreateStmt(create) => self.create_table(create, scope).map(|()| "create_table"),
            NodeEnum::CreateForeignTableStmt(create) => {
                if let Some(table) = &create.base_stmt {
                    self.create_table(table, scope)?;
                }
                self.parts(&create.options, scope)?;
                Ok("create_foreign_table")
            }
            NodeEnum::AlterTableStmt(alter) => self.alter_table(alter, scope),
            NodeEnum::AlterTableMoveAllStmt(_) => {
                self.facts.opaque();
                Ok("alter_table_all")
            }
            NodeEnum::IndexStmt(index) => self.create_index(index, scope),
            NodeEnum::ViewStmt(view) => {
                self.define(view.view.as_ref());
                match view.query.as_ref().and_then(|query| query.node.as_ref()) {
                    Some(query) => {
                        if let Rows::Known(rows) = self.statement(query, scope)?.1 {
                            let all = self.all_of(&rows)?;
                            self.facts.mark(&all, Use::Stored);
                        }
                    }
                    None => self.unknown_node(),
                }
                self.parts(&view.options, scope)?;
                Ok("create_view")
            }
            NodeEnum::CreateSeqStmt(create) => {
                self.define(create.sequence.as_ref());
                self.parts(&create.options, scope)?;
                Ok("create_sequence")
            }
            NodeEnum::AlterSeqStmt(alter) => {
                self.define(alter.sequence.as_ref());
                self.parts(&alter.options, scope)?;
                Ok("alter_sequence")
            }
            NodeEnum::CreateSchemaStmt(create) => {
                if create.authrole.is_some() {
                    self.facts.raise(Class::Privilege);
                }
                self.parts(&create.schema_elts, scope)?;
                Ok("create_schema")
            }
            NodeEnum::CreateStatsStmt(create) => {
                let mut items = Vec::new();
                for relation in &create.relations {
                    self.from(relation, scope, &mut items)?;
                }
                self.parts(&create.exprs, &Scope::with_items(scope, &items))?;
                Ok("create_statistics")
            }
            NodeEnum::AlterStatsStmt(_) => Ok("alter_statistics"),
            NodeEnum::RuleStmt(rule) => self.create_rule(rule, scope),
            NodeEnum::CreateTrigStmt(create) => {
                self.handler(&create.funcname);
                if let Some(relation) = &create.relation {
                    // The function is given whole rows, to do with as it likes.
                    let base = self.relation(relation, Access::Define);
                    self.moved(&base)?;
                    let items = self.old_and_new(relation);
                    self.predicate(create.when_clause.as_deref(), &Scope::with_items(scope, &items))?;
                }
                if let Some(relation) = &create.constrrel {
                    self.relation(relation, Access::Read);
                }
                Ok("create_trigger")
            }
            NodeEnum::CreatePublicationStmt(create) => {
                self.publication(&create.pubobjects, create.for_all_tables, scope)?;
                Ok("create_publication")
            }
            NodeEnum::AlterPublicationStmt(alter) => {
                self.publication(&alter.pubobjects, alter.for_all_tables, scope)?;
                Ok("alter_publication")
            }
            NodeEnum::DropStmt(drop) => Ok(self.drop_objects(drop)),
            NodeEnum::RenameStmt(rename) => self.rename_object(rename),
            NodeEnum::AlterObjectSchemaStmt(alter) => {
                if let Some(relation) = &alter.relation {
                    let base = self.relation(relation, Access::Define);
                    self.moved(&base)?;
                }
                Ok(object_kind!("alter", alter.object_type()))
            }
            NodeEnum::AlterObjectDependsStmt(alter) => {
                self.define(alter.relation.as_ref());
                Ok(object_kind!("alter", alter.object_type()))
            }
            NodeEnum::CommentStmt(comment) => Ok(self.comment(comment)),
            NodeEnum::CompositeTypeStmt(create) => {
                self.parts(&create.coldeflist, scope)?;
                Ok("create_type")
            }
            NodeEnum::ImportForeignSchemaStmt(_) => {
                self.facts.opaque();
                Ok("import_foreign_schema")
            }
            _ => Ok(self.unseen().0),
        }
    }

    fn define(&mut self, relation: Option<&'a RangeVar>) {
        if let Some(relation) = relation {
            self.relation(relation, Access::Define);
        }
    }

    fn create_table(&mut self, create: &'a CreateStmt, scope: &Scope<'_, 'a>) -> Answer<()> {
        self.define(create.relation.as_ref());
        for parent in &create.inh_relations {
            self.part(parent, scope)?;
        }
        let items =
            [Self::anything_named(create.relation.as_ref().map(|relation| relation.relname.as_str()))];
        let inner = Scope::with_items(scope, &items);
        self.parts(&create.table_elts, &inner)?;
        self.parts(&create.constraints, &inner)?;
        self.parts(&create.options, &inner)?;
        if let Some(spec) = &create.partspec {
            self.parts(&spec.part_params, &inner)?;
        }
        if let Some(bound) = &create.partbound {
            self.parts(&bound.listdatums, &inner)?;
            self.parts(&bound.lowerdatums, &inner)?;
            self.parts(&bound.upperdatums, &inner)?;
        }
        Ok(())
    }

    fn alter_table(&mut self, alter: &'a AlterTableStmt, scope: &Scope<'_, 'a>) -> Answer<&'static str> {
        let items = match &alter.relation {
            // The type's name, not a relation's.
            Some(relation) if alter.objtype() == ObjectType::ObjectType => {
                [Self::anything_named(Some(&relation.relname))]
            }
            Some(relation) => [self.defined(relation, Access::Define)],
            None => [Self::anything_named(None)],
        };
        let [item] = &items;
        let base = match &item.columns {
            Columns::Base(base) => Some(*base),
            Columns::Derived(_) => None,
        };
        let inner = Scope::with_items(scope, &items);
        for command in &alter.cmds {
            match &command.node {
                Some(NodeEnum::AlterTableCmd(command)) => {
                    self.alter_table_command(command, base.as_ref(), &inner)?;
                }
                _ => self.unknown_node(),
            }
        }
        Ok(object_kind!("alter", alter.objtype()))
    }

    fn alter_table_command(
        &mut self,
        command: &'a AlterTableCmd,
        base: Option<&Base<'a>>,
        scope: &Scope<'_, 'a>,
    ) -> Answer<()> {
        match command.subtype() {
            AlterTableType::AtColumnDefault
            | AlterTableType::AtDropNotNull
            | AlterTableType::AtSetNotNull
            | AlterTableType::AtSetExpression
            | AlterTableType::AtDropExpression
            | AlterTableType::AtSetStatistics
            | AlterTableType::AtSetOptions
            | AlterTableType::AtResetOptions
            | AlterTableType::AtSetStorage
            | AlterTableType::AtSetCompression
            | AlterTableType::AtDropColumn
            | AlterTableType::AtAlterColumnType
            | AlterTableType::AtAlterColumnGenericOptions
            | AlterTableType::AtAddIdentity
            | AlterTableType::AtSetIdentity
            | AlterTableType::AtDropIdentity
                if !command.name.is_empty() =>
            {
                self.written_column(base, &command.name);
            }
            AlterTableType::AtAddInherit
            | AlterTableType::AtDropInherit
            | AlterTableType::AtAttachPartition
            | AlterTableType::AtDetachPartition => {
                // The one shows the rows of the other from now on, or no longer.
                if let Some(base) = base {
                    self.moved(base)?;
                }
                let other = match command.def.as_ref().and_then(|def| def.node.as_ref()) {
                    Some(NodeEnum::RangeVar(range)) => Some(range),
                    Some(NodeEnum::PartitionCmd(partition)) => partition.name.as_ref(),
                    _ => None,
                };
                if let Some(range) = other {
                    let other = self.relation(range, Access::Define);
                    self.moved(&other)?;
                }
            }
            AlterTableType::AtChangeOwner
            | AlterTableType::AtEnableRowSecurity
            | AlterTableType::AtDisableRowSecurity
            | AlterTableType::AtForceRowSecurity
            | AlterTableType::AtNoForceRowSecurity => self.facts.raise(Class::Privilege),
            AlterTableType::Undefined => self.unknown_node(),
            _ => {}
        }
        self.cascade(command.behavior());
        self.opt_part(command.def.as_deref(), scope)
    }

    fn create_index(&mut self, index: &'a IndexStmt, scope: &Scope<'_, 'a>) -> Answer<&'static str> {
        if let Some(relation) = &index.relation {
            let items = [self.defined(relation, Access::Define)];
            let inner = Scope::with_items(scope, &items);
            self.parts(&index.index_params, &inner)?;
            self.parts(&index.index_including_params, &inner)?;
            self.parts(&index.options, &inner)?;
            self.value(index.where_clause.as_deref(), Use::Predicate, &inner)?;
        }
        Ok("create_index")
    }

    /// The rows that triggers and rules see.
    fn old_and_new(&mut self, relation: &'a RangeVar) -> [Item<'a>; 2] {
        let mut old = self.defined(relation, Access::Define);
        old.schema = Some("");
        old.bare = false;
        let mut new = old.clone();
        old.name = Some("old");
        new.name = Some("new");
        [old, new]
    }

    fn create_rule(&mut self, rule: &'a RuleStmt, scope: &Scope<'_, 'a>) -> Answer<&'static str> {
        if let Some(relation) = &rule.relation {
            let items = self.old_and_new(relation);
            let inner = Scope::with_items(scope, &items);
            self.predicate(rule.where_clause.as_deref(), &inner)?;
            for action in &rule.actions {
                let Some(action) = &action.node else { continue };
                if let Rows::Known(rows) = self.statement(action, &inner)?.1 {
                    let all = self.all_of(&rows)?;
                    self.facts.mark(&all, Use::Stored);
                }
            }
        }
        Ok("create_rule")
    }

    fn publication(&mut self, objects: &'a [Node], all: bool, scope: &Scope<'_, 'a>) -> Answer<()> {
        if all {
            self.facts.opaque();
        }
        for object in objects {
            let Some(NodeEnum::PublicationObjSpec(object)) = &object.node else {
                self.unknown_node();
                continue;
            };
            // Else all tables of a schema.
            let Some(table) = &object.pubtable else {
                self.facts.opaque();
                continue;
            };
            if let Some(relation) = &table.relation {
                let items = [self.defined(relation, Access::Read)];
                self.predicate(table.where_clause.as_deref(), &Scope::with_items(scope, &items))?;
            }
        }
        Ok(())
    }

    fn drop_objects(&mut self, drop: &'a DropStmt) -> &'static str {
        let kind = drop.remove_type();
        for object in &drop.objects {
            let parts = object_name(object);
            match kind {
                ObjectType::ObjectTable
                | ObjectType::ObjectView
                | ObjectType::ObjectMatview
                | ObjectType::ObjectForeignTable
                | ObjectType::ObjectSequence
                | ObjectType::ObjectIndex => {
                    self.relation_of_parts(&parts, Access::Define);
                }
                ObjectType::ObjectTrigger | ObjectType::ObjectRule | ObjectType::ObjectPolicy => {
                    if let Some((_, relation)) = parts.split_last() {
                        self.relation_of_parts(relation, Access::Define);
                    }
                }
                _ => {}
            }
        }
        if kind == ObjectType::ObjectPolicy {
            self.facts.raise(Class::Privilege);
        }
        if kind == ObjectType::ObjectSchema || kind == ObjectType::ObjectExtension {
            // With whatever is in them.
            self.facts.opaque();
        }
        self.cascade(drop.behavior());
        object_kind!("drop", kind)
    }

    /// A relation gets another name, or values get into another one's rows or to a function: masks, which go by name, would
    /// stay behind.
    fn moved(&mut self, base: &Base<'a>) -> Answer<()> {
        let mut all = Derived::default();
        self.star(&Item::new(None, Columns::Base(*base)), &mut all)?;
        let flow = self.all_of(&all)?;
        self.facts.mark(&flow, Use::Stored);
        Ok(())
    }

    fn rename_object(&mut self, rename: &'a RenameStmt) -> Answer<&'static str> {
        let kind = rename.rename_type();
        if let Some(relation) = &rename.relation {
            // A composite type of the name may be no relation of anybody's, but it is named like one.
            let base = self.relation(relation, Access::Define);
            match kind {
                ObjectType::ObjectColumn => {
                    self.written_column(Some(&base), &rename.subname);
                    let flow = self.base_column(&base, &rename.subname)?;
                    self.facts.mark(&flow, Use::Stored);
                }
                ObjectType::ObjectTable
                | ObjectType::ObjectView
                | ObjectType::ObjectMatview
                | ObjectType::ObjectForeignTable => self.moved(&base)?,
                _ => {}
            }
        }
        if kind == ObjectType::ObjectSchema {
            // With whatever is in it.
            let all = Flow::one(self.facts.shown_through(Some(&rename.subname), None, "*"));
            self.facts.mark(&all, Use::Stored);
        }
        match kind {
            ObjectType::ObjectRole => self.facts.raise(Class::Privilege),
            ObjectType::ObjectPolicy => self.facts.raise(Class::Privilege),
            _ => {}
        }
        self.cascade(rename.behavior());
        Ok(object_kind!("alter", kind))
    }

    fn comment(&mut self, comment: &'a CommentStmt) -> &'static str {
        if let Some(object) = &comment.object {
            let parts = object_name(object);
            self.described(comment.objtype(), &parts);
        }
        "comment"
    }

    /// The relation that COMMENT or SECURITY LABEL speaks of.
    pub(super) fn described(&mut self, kind: ObjectType, parts: &[&'a str]) {
        let relation = match kind {
            ObjectType::ObjectTable
            | ObjectType::ObjectView
            | ObjectType::ObjectMatview
            | ObjectType::ObjectForeignTable
            | ObjectType::ObjectSequence
            | ObjectType::ObjectIndex => parts,
            ObjectType::ObjectColumn
            | ObjectType::ObjectTrigger
            | ObjectType::ObjectRule
            | ObjectType::ObjectPolicy
            | ObjectType::ObjectTabconstraint => parts.split_last().map_or(parts, |(_, relation)| relation),
            _ => return,
        };
        self.relation_of_parts(relation, Access::Define);
    }

    /// A row of a type under definition, for the checks of a domain.
    pub(super) fn of_domain(&self) -> [Item<'a>; 1] {
        [super::resolve::derived_item(None, Derived::column("value", Flow::none()))]
    }
}

/// The parts of the name of an object.
pub(super) fn object_name(node: &Node) -> Vec<&str> {
    match &node.node {
        Some(NodeEnum::List(list)) => list.items.iter().filter_map(part_of_name).collect(),
        Some(NodeEnum::TypeName(TypeName { names, .. })) => texts(names),
        Some(NodeEnum::ObjectWithArgs(object)) => texts(&object.objname),
        _ => text(node).into_iter().collect(),
    }
}

fn part_of_name(node: &Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::TypeName(name)) => name.names.last().and_then(text),
        _ => text(node),
    }
}
