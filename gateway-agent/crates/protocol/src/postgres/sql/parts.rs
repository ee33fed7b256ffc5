//! Parts of definitions: columns, constraints, options, partitions, and the expressions in them.

use pg_query::{
    Node, NodeEnum,
    protobuf::{ColumnDef, Constraint, DefElem, ObjectWithArgs, TypeName},
};
use policy::{Access, Class};

use super::{
    analyser::{Analyser, Answer},
    facts::Use,
    kinds::{expression_nodes, never_parsed, statement_nodes},
    scope::{Scope, texts},
};

/// Options of CREATE and ALTER whose value is a function.
const FUNCTION_OPTIONS: &[&str] = &[
    "analyze",
    "canonical",
    "combinefunc",
    "deserialfunc",
    "end",
    "finalfunc",
    "function",
    "gettoken",
    "handler",
    "headline",
    "init",
    "input",
    "join",
    "lexize",
    "lextypes",
    "mfinalfunc",
    "minvfunc",
    "msfunc",
    "output",
    "procedure",
    "receive",
    "restrict",
    "send",
    "serialfunc",
    "sfunc",
    "sfunc1",
    "sfunc2",
    "start",
    "subscript",
    "subtype_diff",
    "typmod_in",
    "typmod_out",
    "validator",
];

impl<'a> Analyser<'a> {
    pub(super) fn parts(&mut self, nodes: &'a [Node], scope: &Scope<'_, 'a>) -> Answer<()> {
        nodes.iter().try_for_each(|node| self.part(node, scope))
    }

    pub(super) fn opt_part(&mut self, node: Option<&'a Node>, scope: &Scope<'_, 'a>) -> Answer<()> {
        node.map_or(Ok(()), |node| self.part(node, scope))
    }

    pub(super) fn part(&mut self, node: &'a Node, scope: &Scope<'_, 'a>) -> Answer<()> {
        let Some(node) = &node.node else { return Ok(()) };
        self.spend(1)?;
        self.deeper(|this| this.part_kind(node, scope))
    }

    fn part_kind(&mut self, node: &'a NodeEnum, scope: &Scope<'_, 'a>) -> Answer<()> {
        match node {
            NodeEnum::ColumnDef(column) => self.column_def(column, scope),
            NodeEnum::Constraint(constraint) => self.constraint(constraint, scope),
            NodeEnum::DefElem(option) => self.option(option, scope),
            NodeEnum::List(list) => self.parts(&list.items, scope),
            NodeEnum::IndexElem(element) => {
                if !element.name.is_empty() {
                    self.unqualified(&element.name, scope)?;
                }
                self.value(element.expr.as_deref(), Use::Stored, scope)?;
                self.parts(&element.opclassopts, scope)
            }
            NodeEnum::StatsElem(element) => {
                if !element.name.is_empty() {
                    self.unqualified(&element.name, scope)?;
                }
                self.value(element.expr.as_deref(), Use::Stored, scope)
            }
            NodeEnum::TableLikeClause(like) => {
                if let Some(relation) = &like.relation {
                    self.relation(relation, Access::Read);
                }
                Ok(())
            }
            NodeEnum::RangeVar(range) => {
                self.relation(range, Access::Read);
                Ok(())
            }
            NodeEnum::PartitionSpec(spec) => self.parts(&spec.part_params, scope),
            NodeEnum::PartitionElem(element) => {
                if !element.name.is_empty() {
                    self.unqualified(&element.name, scope)?;
                }
                self.value(element.expr.as_deref(), Use::Predicate, scope)
            }
            NodeEnum::PartitionBoundSpec(bound) => {
                self.parts(&bound.listdatums, scope)?;
                self.parts(&bound.lowerdatums, scope)?;
                self.parts(&bound.upperdatums, scope)
            }
            NodeEnum::PartitionRangeDatum(datum) => self.value(datum.value.as_deref(), Use::Stored, scope),
            NodeEnum::PartitionCmd(command) => {
                if let Some(relation) = &command.name {
                    self.relation(relation, Access::Define);
                }
                match &command.bound {
                    Some(bound) => {
                        self.parts(&bound.listdatums, scope)?;
                        self.parts(&bound.lowerdatums, scope)?;
                        self.parts(&bound.upperdatums, scope)
                    }
                    None => Ok(()),
                }
            }
            NodeEnum::FunctionParameter(parameter) => {
                self.value(parameter.defexpr.as_deref(), Use::Stored, scope)
            }
            NodeEnum::ObjectWithArgs(_)
            | NodeEnum::AccessPriv(_)
            | NodeEnum::Alias(_)
            | NodeEnum::AtalterConstraint(_)
            | NodeEnum::BitString(_)
            | NodeEnum::Boolean(_)
            | NodeEnum::CreateOpClassItem(_)
            | NodeEnum::Float(_)
            | NodeEnum::IntList(_)
            | NodeEnum::Integer(_)
            | NodeEnum::ReplicaIdentityStmt(_)
            | NodeEnum::RoleSpec(_)
            | NodeEnum::String(_)
            | NodeEnum::TriggerTransition(_)
            | NodeEnum::TypeName(_) => Ok(()),
            #[expect(unreachable_patterns, reason = "lists are values too, and handled above")]
            expression_nodes!() => {
                let flow = self.deeper(|this| this.expr_of(node, scope))?;
                self.facts.mark(&flow, Use::Stored);
                Ok(())
            }
            statement_nodes!() => self.statement(node, scope).map(drop),
            // Handled where they stand, and found nowhere else.
            NodeEnum::AlterTableCmd(_)
            | NodeEnum::CommonTableExpr(_)
            | NodeEnum::CtecycleClause(_)
            | NodeEnum::CtesearchClause(_)
            | NodeEnum::GroupingSet(_)
            | NodeEnum::InferClause(_)
            | NodeEnum::IntoClause(_)
            | NodeEnum::JoinExpr(_)
            | NodeEnum::JsonFormat(_)
            | NodeEnum::JsonOutput(_)
            | NodeEnum::JsonTable(_)
            | NodeEnum::JsonTableColumn(_)
            | NodeEnum::JsonTablePathSpec(_)
            | NodeEnum::LockingClause(_)
            | NodeEnum::MergeWhenClause(_)
            | NodeEnum::OnConflictClause(_)
            | NodeEnum::PlassignStmt(_)
            | NodeEnum::PublicationObjSpec(_)
            | NodeEnum::PublicationTable(_)
            | NodeEnum::RangeFunction(_)
            | NodeEnum::RangeSubselect(_)
            | NodeEnum::RangeTableFunc(_)
            | NodeEnum::RangeTableFuncCol(_)
            | NodeEnum::RangeTableSample(_)
            | NodeEnum::RawStmt(_)
            | NodeEnum::ReturningClause(_)
            | NodeEnum::ReturningOption(_)
            | NodeEnum::VacuumRelation(_)
            | NodeEnum::WindowDef(_)
            | NodeEnum::WithClause(_)
            | never_parsed!() => {
                self.unknown_node();
                Ok(())
            }
        }
    }

    /// An expression of a definition.
    pub(super) fn value(&mut self, node: Option<&'a Node>, usage: Use, scope: &Scope<'_, 'a>) -> Answer<()> {
        let flow = self.opt(node, scope)?;
        self.facts.mark(&flow, usage);
        Ok(())
    }

    fn column_def(&mut self, column: &'a ColumnDef, scope: &Scope<'_, 'a>) -> Answer<()> {
        self.value(column.raw_default.as_deref(), Use::Stored, scope)?;
        self.value(column.cooked_default.as_deref(), Use::Stored, scope)?;
        self.parts(&column.constraints, scope)?;
        self.parts(&column.fdwoptions, scope)
    }

    fn constraint(&mut self, constraint: &'a Constraint, scope: &Scope<'_, 'a>) -> Answer<()> {
        self.value(constraint.raw_expr.as_deref(), Use::Stored, scope)?;
        self.value(constraint.where_clause.as_deref(), Use::Predicate, scope)?;
        // Whether a foreign key holds tells which values are there, on either side.
        for name in texts(&constraint.fk_attrs) {
            let flow = self.unqualified(name, scope)?;
            self.facts.mark(&flow, Use::Predicate);
        }
        if let Some(relation) = &constraint.pktable {
            let base = self.relation(relation, Access::Read);
            for name in texts(&constraint.pk_attrs) {
                let flow = self.base_column(&base, name)?;
                self.facts.mark(&flow, Use::Predicate);
            }
        }
        // Elements and their operators.
        for exclusion in &constraint.exclusions {
            if let Some(NodeEnum::List(pair)) = &exclusion.node
                && let Some(element) = pair.items.first()
            {
                self.index_element(element, scope, Use::Predicate)?;
            }
        }
        self.parts(&constraint.exclusions, scope)?;
        self.parts(&constraint.options, scope)
    }

    /// `name = value`: values are constants, names, and now and then an expression.
    fn option(&mut self, option: &'a DefElem, scope: &Scope<'_, 'a>) -> Answer<()> {
        match option.defname.as_str() {
            // Of a sequence.
            "owned_by" => {
                if let Some(NodeEnum::List(list)) = option.arg.as_ref().and_then(|arg| arg.node.as_ref()) {
                    let parts = texts(&list.items);
                    if let Some((_, relation)) = parts.split_last() {
                        self.relation_of_parts(relation, Access::Read);
                    }
                }
                Ok(())
            }
            _ => self.opt_part(option.arg.as_deref(), scope),
        }
    }

    /// Functions that an object is made of: calling the object calls them.
    pub(super) fn object_functions(&mut self, nodes: &'a [Node]) {
        for node in nodes {
            match &node.node {
                Some(NodeEnum::DefElem(option)) if FUNCTION_OPTIONS.contains(&option.defname.as_str()) => {
                    if let Some(arg) = &option.arg {
                        self.object_functions(std::slice::from_ref(arg));
                    }
                }
                Some(NodeEnum::TypeName(name)) => self.named_function(name),
                Some(NodeEnum::List(list)) => {
                    let parts = texts(&list.items);
                    if parts.is_empty() {
                        continue;
                    }
                    self.function_name(&parts);
                }
                Some(NodeEnum::ObjectWithArgs(object)) => self.object_function(Some(object)),
                Some(NodeEnum::CreateOpClassItem(item)) => self.object_function(item.name.as_ref()),
                _ => {}
            }
        }
    }

    fn named_function(&mut self, name: &'a TypeName) {
        let parts = texts(&name.names);
        if !parts.is_empty() {
            self.function_name(&parts);
        }
    }

    pub(super) fn object_function(&mut self, object: Option<&'a ObjectWithArgs>) {
        if let Some(object) = object {
            self.function_name(&texts(&object.objname));
        }
    }

    /// A function named by its parts, as of a trigger or a handler.
    pub(super) fn handler(&mut self, name: &'a [Node]) {
        if !name.is_empty() {
            self.function_name(&texts(name));
        }
    }

    /// Code of another language, or in text.
    pub(super) fn hidden_code(&mut self, kind: &'static str) -> &'static str {
        self.facts.opaque();
        self.of(Class::Code, kind)
    }
}
