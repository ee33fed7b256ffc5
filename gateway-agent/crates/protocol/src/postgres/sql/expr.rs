//! Expressions: what a value derives from, and what is used on the way.

use pg_query::{
    Node, NodeEnum,
    protobuf::{
        AIndirection, JsonAggConstructor, JsonBehavior, JsonFuncExpr, JsonValueExpr, SortBy, SubLink,
        SubLinkType, WindowDef, XmlExpr,
    },
};

use super::{
    analyser::{Analyser, Answer},
    facts::Use,
    flow::Flow,
    kinds::{never_parsed, part_nodes, statement_nodes},
    scope::{Scope, text, texts},
    total,
};

impl<'a> Analyser<'a> {
    pub(super) fn expr(&mut self, node: &'a Node, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        let Some(node) = &node.node else { return Ok(Flow::none()) };
        let flow = self.deeper(|this| this.expr_of(node, scope))?;
        self.spend(flow.len().saturating_add(1))?;
        Ok(flow)
    }

    pub(super) fn opt(&mut self, node: Option<&'a Node>, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        node.map_or(Ok(Flow::none()), |node| self.expr(node, scope))
    }

    pub(super) fn exprs(&mut self, nodes: &'a [Node], scope: &Scope<'_, 'a>) -> Answer<Flow> {
        let mut flow = Flow::none();
        for node in nodes {
            flow.add(&self.expr(node, scope)?);
        }
        Ok(flow)
    }

    pub(super) fn expr_of(&mut self, node: &'a NodeEnum, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        match node {
            // In the body of a function: one of its arguments.
            NodeEnum::ParamRef(_) => Ok(self.argument.clone()),
            NodeEnum::AConst(_)
            | NodeEnum::SqlvalueFunction(_)
            | NodeEnum::SetToDefault(_)
            | NodeEnum::CurrentOfExpr(_)
            | NodeEnum::MergeSupportFunc(_) => Ok(Flow::none()),
            NodeEnum::ColumnRef(column) => self.column_ref(column, scope),
            NodeEnum::AExpr(_) => self.operators(node, scope),
            NodeEnum::BoolExpr(of) => self.conditional(|this| this.exprs(&of.args, scope)),
            NodeEnum::FuncCall(call) => self.call(call, scope),
            NodeEnum::TypeCast(of) => {
                let flow = self.opt(of.arg.as_deref(), scope)?;
                let name = of.type_name.as_ref().and_then(|name| name.names.last()).and_then(text);
                if !name.is_some_and(total::cast) {
                    self.may_fail(&flow);
                }
                match name.and_then(|name| self.catalogue.cast(name)) {
                    Some(known) => Ok(self.returned(&known, flow.clone(), false)?.with(&flow)),
                    None => Ok(flow),
                }
            }
            NodeEnum::CollateClause(of) => self.opt(of.arg.as_deref(), scope),
            NodeEnum::NullTest(of) => self.opt(of.arg.as_deref(), scope),
            NodeEnum::BooleanTest(of) => self.opt(of.arg.as_deref(), scope),
            NodeEnum::NamedArgExpr(of) => self.opt(of.arg.as_deref(), scope),
            NodeEnum::MultiAssignRef(of) => self.opt(of.source.as_deref(), scope),
            NodeEnum::ResTarget(of) => self.opt(of.val.as_deref(), scope),
            NodeEnum::CaseExpr(of) => self.conditional(|this| {
                let mut flow = this.opt(of.arg.as_deref(), scope)?;
                flow.add(&this.exprs(&of.args, scope)?);
                if of.arg.is_some() {
                    flow = this.equated(flow)?;
                }
                flow.add(&this.opt(of.defresult.as_deref(), scope)?);
                Ok(flow)
            }),
            NodeEnum::CaseWhen(of) => {
                let flow = self.opt(of.expr.as_deref(), scope)?;
                Ok(flow.with(&self.opt(of.result.as_deref(), scope)?))
            }
            NodeEnum::CoalesceExpr(of) => self.conditional(|this| this.exprs(&of.args, scope)),
            NodeEnum::MinMaxExpr(of) => self.exprs(&of.args, scope),
            NodeEnum::RowExpr(of) => self.exprs(&of.args, scope),
            NodeEnum::AArrayExpr(of) => self.exprs(&of.elements, scope),
            NodeEnum::List(of) => self.exprs(&of.items, scope),
            NodeEnum::AIndirection(of) => self.indirection(of, scope),
            NodeEnum::AIndices(of) => {
                let flow = self.opt(of.lidx.as_deref(), scope)?;
                Ok(flow.with(&self.opt(of.uidx.as_deref(), scope)?))
            }
            NodeEnum::AStar(_) => self.whole_level(scope),
            NodeEnum::SubLink(link) => self.sub_link(link, scope),
            NodeEnum::GroupingFunc(of) => {
                // Says which columns are grouped, not what is in them.
                self.exprs(&of.args, scope)?;
                Ok(Flow::none())
            }
            NodeEnum::SortBy(sort) => self.sort_key(sort, scope),
            NodeEnum::XmlExpr(of) => self.xml(of, scope),
            NodeEnum::XmlSerialize(of) => {
                let flow = self.opt(of.expr.as_deref(), scope)?;
                self.may_fail(&flow);
                Ok(flow)
            }
            NodeEnum::JsonArgument(_)
            | NodeEnum::JsonArrayAgg(_)
            | NodeEnum::JsonArrayConstructor(_)
            | NodeEnum::JsonArrayQueryConstructor(_)
            | NodeEnum::JsonAggConstructor(_)
            | NodeEnum::JsonBehavior(_)
            | NodeEnum::JsonFuncExpr(_)
            | NodeEnum::JsonIsPredicate(_)
            | NodeEnum::JsonKeyValue(_)
            | NodeEnum::JsonObjectAgg(_)
            | NodeEnum::JsonObjectConstructor(_)
            | NodeEnum::JsonParseExpr(_)
            | NodeEnum::JsonScalarExpr(_)
            | NodeEnum::JsonSerializeExpr(_)
            | NodeEnum::JsonValueExpr(_) => self.json(node, scope),
            // Constants and names where the grammar has a list of either.
            NodeEnum::Integer(_)
            | NodeEnum::Float(_)
            | NodeEnum::Boolean(_)
            | NodeEnum::String(_)
            | NodeEnum::BitString(_)
            | NodeEnum::IntList(_)
            | NodeEnum::TypeName(_) => Ok(Flow::none()),
            #[expect(unreachable_patterns, reason = "the group also has the constants above")]
            statement_nodes!() | part_nodes!() | never_parsed!() => {
                self.unknown_node();
                Ok(Flow::unknown())
            }
        }
    }

    /// A chain of operators, without recursion along its left side.
    fn operators(&mut self, node: &'a NodeEnum, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        let mut flow = Flow::none();
        let mut own = Vec::new();
        // The operands of operators that may fail: everything from the outermost of them on.
        let mut risked: Option<Flow> = None;
        let mut next = Some(node);
        while let Some(node) = next {
            let operand = match node {
                NodeEnum::AExpr(of) => {
                    self.spend(1)?;
                    self.operator(&of.name);
                    self.operators_in(&of.name, &mut own);
                    if !is_total(&of.name) {
                        risked.get_or_insert_with(Flow::none);
                    }
                    next = of.lexpr.as_ref().and_then(|left| left.node.as_ref());
                    self.opt(of.rexpr.as_deref(), scope)?
                }
                leftmost => {
                    next = None;
                    self.deeper(|this| this.expr_of(leftmost, scope))?
                }
            };
            if let Some(risked) = &mut risked {
                risked.add(&operand);
            }
            flow.add(&operand);
        }
        if let Some(risked) = risked {
            self.may_fail(&risked);
        }
        self.applied(&own, flow)
    }

    /// Notes an operator that is not the server's own.
    fn operators_in(&self, name: &'a [Node], own: &mut Vec<&'a str>) {
        let parts = texts(name);
        let Some(last) = parts.last().filter(|_| parts.first() != Some(&"pg_catalog")) else { return };
        // What the grammar writes as a word stands for these.
        let meant: &[&str] = if last.ends_with("BETWEEN") || last.ends_with("SYMMETRIC") {
            &["<=", ">=", "<", ">"]
        } else {
            &[last]
        };
        own.extend(meant.iter().filter(|name| self.catalogue.operator(name).is_some()));
    }

    /// What such operators make of their operands.
    fn applied(&mut self, own: &[&str], operands: Flow) -> Answer<Flow> {
        let mut flow = operands.clone();
        for name in own {
            if let Some(known) = self.catalogue.operator(name) {
                // Extensions give their own types the operators that everybody has.
                flow.add(&self.returned(&known, operands.clone(), total::operator(name))?);
            }
        }
        Ok(flow)
    }

    /// An operator written with a schema calls whatever that schema says.
    pub(super) fn operator(&mut self, name: &[Node]) {
        if name.len() > 1 {
            let parts = texts(name);
            if parts.first() != Some(&"pg_catalog") {
                self.function_name(&parts);
            }
        }
    }

    fn indirection(&mut self, of: &'a AIndirection, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        let Some(arg) = of.arg.as_deref() else { return Ok(Flow::none()) };
        if let Some(field) = of.indirection.first().and_then(text)
            && let Some(flow) = self.field_of(arg, field, scope)?
        {
            return Ok(flow);
        }
        let mut flow = self.expr(arg, scope)?;
        for step in &of.indirection {
            if let Some(NodeEnum::AIndices(_)) = &step.node {
                flow.add(&self.expr(step, scope)?);
            }
        }
        Ok(flow)
    }

    fn sub_link(&mut self, link: &'a SubLink, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        self.operator(&link.oper_name);
        let mut own = Vec::new();
        self.operators_in(&link.oper_name, &mut own);
        let mut flow = self.opt(link.testexpr.as_deref(), scope)?;
        let is_in = link.oper_name.is_empty() && link.testexpr.is_some();
        let Some(query) = &link.subselect else { return Ok(flow) };
        let rows = self.subquery(query, scope)?;
        let values = self.all_of(&rows)?;
        if link.sub_link_type() != SubLinkType::ExistsSublink {
            flow.add(&values);
        }
        // How long it takes, and whether it finds more than one row, is up to its rows.
        self.may_fail(&Flow::none());
        if !link.oper_name.is_empty() && !is_total(&link.oper_name) {
            self.may_fail(&flow);
        }
        if is_in {
            flow = self.equated(flow)?;
        }
        self.applied(&own, flow)
    }

    /// `CASE x WHEN y` and `x IN (…)` say `=` without writing it.
    fn equated(&mut self, operands: Flow) -> Answer<Flow> {
        match self.catalogue.operator("=") {
            Some(_) => self.applied(&["="], operands),
            None => Ok(operands),
        }
    }

    pub(super) fn sort_key(&mut self, sort: &'a SortBy, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        self.operator(&sort.use_op);
        self.opt(sort.node.as_deref(), scope)
    }

    /// A window: everything in it decides about rows.
    pub(super) fn window(&mut self, window: &'a WindowDef, scope: &Scope<'_, 'a>) -> Answer<()> {
        let mut flow = self.exprs(&window.partition_clause, scope)?;
        flow.add(&self.exprs(&window.order_clause, scope)?);
        flow.add(&self.opt(window.start_offset.as_deref(), scope)?);
        flow.add(&self.opt(window.end_offset.as_deref(), scope)?);
        self.facts.mark(&flow, Use::Predicate);
        Ok(())
    }

    pub(super) fn window_node(&mut self, node: &'a Node, scope: &Scope<'_, 'a>) -> Answer<()> {
        match &node.node {
            Some(NodeEnum::WindowDef(window)) => self.window(window, scope),
            _ => {
                self.unknown_node();
                Ok(())
            }
        }
    }

    fn xml(&mut self, of: &'a XmlExpr, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        let flow = self.exprs(&of.named_args, scope)?;
        let flow = flow.with(&self.exprs(&of.args, scope)?);
        self.may_fail(&flow);
        Ok(flow)
    }

    fn json(&mut self, node: &'a NodeEnum, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        match node {
            NodeEnum::JsonArgument(of) => self.json_value(of.val.as_deref(), scope),
            NodeEnum::JsonValueExpr(of) => self.json_value(Some(of), scope),
            NodeEnum::JsonBehavior(of) => self.json_behaviour(Some(of), scope),
            NodeEnum::JsonFuncExpr(of) => self.json_function(of, scope),
            NodeEnum::JsonIsPredicate(of) => self.opt(of.expr.as_deref(), scope),
            NodeEnum::JsonKeyValue(of) => {
                let flow = self.opt(of.key.as_deref(), scope)?;
                // It may not be NULL, nor stand twice.
                self.may_fail(&flow);
                Ok(flow.with(&self.json_value(of.value.as_deref(), scope)?))
            }
            NodeEnum::JsonParseExpr(of) => {
                let flow = self.json_value(of.expr.as_deref(), scope)?;
                self.may_fail(&flow);
                Ok(flow)
            }
            NodeEnum::JsonScalarExpr(of) => self.opt(of.expr.as_deref(), scope),
            NodeEnum::JsonSerializeExpr(of) => self.json_value(of.expr.as_deref(), scope),
            NodeEnum::JsonObjectConstructor(of) => self.exprs(&of.exprs, scope),
            NodeEnum::JsonArrayConstructor(of) => self.exprs(&of.exprs, scope),
            NodeEnum::JsonArrayQueryConstructor(of) => {
                let Some(query) = &of.query else { return Ok(Flow::none()) };
                let rows = self.subquery(query, scope)?;
                self.all_of(&rows)
            }
            NodeEnum::JsonAggConstructor(of) => self.json_aggregate(Some(of), scope),
            NodeEnum::JsonObjectAgg(of) => {
                let mut flow = self.json_aggregate(of.constructor.as_deref(), scope)?;
                if let Some(pair) = &of.arg {
                    flow.add(&self.opt(pair.key.as_deref(), scope)?);
                    self.may_fail(&flow);
                    flow.add(&self.json_value(pair.value.as_deref(), scope)?);
                }
                Ok(flow)
            }
            NodeEnum::JsonArrayAgg(of) => {
                let flow = self.json_aggregate(of.constructor.as_deref(), scope)?;
                Ok(flow.with(&self.json_value(of.arg.as_deref(), scope)?))
            }
            _ => {
                self.unknown_node();
                Ok(Flow::unknown())
            }
        }
    }

    pub(super) fn json_value(
        &mut self,
        of: Option<&'a JsonValueExpr>,
        scope: &Scope<'_, 'a>,
    ) -> Answer<Flow> {
        let Some(of) = of else { return Ok(Flow::none()) };
        let flow = self.opt(of.raw_expr.as_deref(), scope)?;
        Ok(flow.with(&self.opt(of.formatted_expr.as_deref(), scope)?))
    }

    pub(super) fn json_behaviour(
        &mut self,
        of: Option<&'a JsonBehavior>,
        scope: &Scope<'_, 'a>,
    ) -> Answer<Flow> {
        self.opt(of.and_then(|of| of.expr.as_deref()), scope)
    }

    fn json_function(&mut self, of: &'a JsonFuncExpr, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        let mut flow = self.json_value(of.context_item.as_deref(), scope)?;
        flow.add(&self.opt(of.pathspec.as_deref(), scope)?);
        flow.add(&self.exprs(&of.passing, scope)?);
        flow.add(&self.json_behaviour(of.on_empty.as_deref(), scope)?);
        flow.add(&self.json_behaviour(of.on_error.as_deref(), scope)?);
        self.may_fail(&flow);
        Ok(flow)
    }

    fn json_aggregate(&mut self, of: Option<&'a JsonAggConstructor>, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        if let Some(of) = of {
            self.predicate(of.agg_filter.as_deref(), scope)?;
            let order = self.exprs(&of.agg_order, scope)?;
            self.facts.mark(&order, Use::Predicate);
            if let Some(window) = &of.over {
                self.window(window, scope)?;
            }
        }
        Ok(Flow::none())
    }
}

/// Whether an operator, written like this, is the server's own and never fails.
fn is_total(name: &[Node]) -> bool {
    matches!(texts(name).as_slice(), [name] | ["pg_catalog", name] if total::operator(name))
}
