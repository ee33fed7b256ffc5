//! Code inside statements: DO, and the bodies of functions and procedures in SQL and PL/pgSQL.
//!
//! A body means what its statements mean together. Values that reach a variable or a message are taken as stored, so a
//! masked column gets into neither; variables therefore hold nothing masked. What parameters, the rows of triggers and
//! the texts of errors hold nobody can tell here, since others call the function, or nobody does. Other languages, code
//! that runs text of its own making, and what cannot be read stay opaque.

use std::rc::Rc;

use pg_query::{
    Node, NodeEnum, ParserOptions,
    protobuf::{CreateFunctionStmt, DefElem, DoStmt, FunctionParameterMode, ParseResult},
};
use policy::Class;

use super::{
    analyser::{Analyser, Answer, Rows},
    facts::Use,
    flow::Flow,
    guard, parse_as,
    plpgsql::{self, Body, Fate, Form},
    resolve::derived_item,
    scope::{Columns, Derived, Item, Scope, text, texts},
};

/// Bodies inside of bodies.
const MAX_LEVELS: usize = 4;

/// Longest body, in bytes. The text that it stands in has a limit of its own.
const LONGEST: usize = 1 << 20;

/// The server's limit on arguments.
const MAX_PARAMETERS: usize = 100;

/// What a trigger function is told besides rows.
const OF_TRIGGERS: [(&str, &str); 10] = [
    ("tg_name", "text"),
    ("tg_when", "text"),
    ("tg_level", "text"),
    ("tg_op", "text"),
    ("tg_relid", "oid"),
    ("tg_relname", "text"),
    ("tg_table_name", "text"),
    ("tg_table_schema", "text"),
    ("tg_nargs", "int4"),
    ("tg_argv", "text[]"),
];

/// What names in a body stand for besides columns.
#[derive(Default)]
struct Names {
    /// What the body itself fills.
    variables: Vec<String>,
    /// What others fill.
    unseen: Vec<String>,
    /// By which variables can be qualified: the function's name, and those of blocks.
    labels: Vec<String>,
    /// `$1` is a parameter.
    numbered: bool,
    /// What it returns is stored in a row.
    trigger: bool,
}

impl<'a> Analyser<'a> {
    pub(super) fn do_block(&mut self, block: &'a DoStmt) -> Answer<&'static str> {
        let options = block.args.iter().filter_map(option);
        let (mut language, mut source) = ("plpgsql", None);
        for option in options {
            match option.defname.as_str() {
                "language" => language = word(option).unwrap_or_default(),
                "as" => source = word(option),
                _ => self.facts.opaque(),
            }
        }
        match (language, source) {
            ("plpgsql", Some(source)) => self.procedural(&["DO "], source, Names::default())?,
            _ => self.facts.opaque(),
        }
        Ok(self.of(Class::Code, "do"))
    }

    pub(super) fn create_function(
        &mut self,
        create: &'a CreateFunctionStmt,
        scope: &Scope<'_, 'a>,
    ) -> Answer<&'static str> {
        self.facts.raise(Class::Code);
        self.parts(&create.parameters, scope)?;
        let (mut language, mut sources) = ("sql", Vec::new());
        for option in &create.options {
            let Some(option) = self::option(option) else {
                self.facts.opaque();
                continue;
            };
            match option.defname.as_str() {
                "language" => language = word(option).unwrap_or_default(),
                "as" => match option.arg.as_ref().and_then(|arg| arg.node.as_ref()) {
                    Some(NodeEnum::List(list)) => sources = texts(&list.items),
                    _ => self.facts.opaque(),
                },
                "set" => match option.arg.as_ref().and_then(|arg| arg.node.as_ref()) {
                    Some(NodeEnum::VariableSetStmt(set)) => {
                        self.set(set);
                    }
                    _ => self.facts.opaque(),
                },
                "volatility" | "strict" | "cost" | "rows" | "parallel" => {}
                // It runs with its owner's rights, and who owns it may change.
                "security" if is_no(option) => {}
                _ => self.facts.opaque(),
            }
        }
        let names = names(create);
        match (language, sources.as_slice(), create.sql_body.as_deref()) {
            ("sql", [], Some(body)) => self.standard_body(body, &names, create, scope)?,
            ("sql", [source], None) => self.sql_body(source, &names)?,
            ("plpgsql", [source], None) if create.parameters.len() <= MAX_PARAMETERS => {
                let headers = [header(create, "record"), header(create, "pg_catalog.text")];
                self.procedural(&headers.each_ref().map(String::as_str), source, names)?;
            }
            _ => self.facts.opaque(),
        }
        Ok(if create.is_procedure { "create_procedure" } else { "create_function" })
    }

    /// `BEGIN ATOMIC … END` or `RETURN …`, which the parser has read already.
    fn standard_body(
        &mut self,
        body: &'a Node,
        names: &Names,
        create: &'a CreateFunctionStmt,
        scope: &Scope<'_, 'a>,
    ) -> Answer<()> {
        let parameters = create.parameters.iter().filter_map(parameter_name);
        let named = parameters.map(|name| (name, Flow::unknown())).collect();
        let columns = Derived { columns: named, ..Derived::default() };
        let label = create.funcname.last().and_then(text);
        let items = [derived_item(label, columns)];
        let outer = std::mem::replace(&mut self.argument, argument(names));
        self.standard_statements(body, &Scope::with_items(scope, &items))?;
        self.argument = outer;
        Ok(())
    }

    fn standard_statements(&mut self, node: &'a Node, scope: &Scope<'_, 'a>) -> Answer<()> {
        match &node.node {
            Some(NodeEnum::List(list)) => self
                .deeper(|this| list.items.iter().try_for_each(|node| this.standard_statements(node, scope))),
            Some(statement) => {
                let rows = self.statement(statement, scope)?.1;
                let flow = self.of_rows(rows)?;
                self.facts.mark(&flow, Use::Output);
                Ok(())
            }
            None => {
                self.unknown_node();
                Ok(())
            }
        }
    }

    fn of_rows(&mut self, rows: Rows<'a>) -> Answer<Flow> {
        match rows {
            Rows::None => Ok(Flow::none()),
            Rows::Unknown => Ok(Flow::unknown()),
            Rows::Known(rows) => self.all_of(&rows),
        }
    }

    /// A body in SQL, as text.
    fn sql_body(&mut self, source: &str, names: &Names) -> Answer<()> {
        let Some(tree) = self.read_piece(source, ParserOptions::DEFAULT) else { return Ok(()) };
        self.piece(&tree, Fate::Returned, names, &items(names))
    }

    /// A body in PL/pgSQL, read under the first of these headers that suits it.
    fn procedural(&mut self, headers: &[&str], source: &str, mut names: Names) -> Answer<()> {
        if self.level >= MAX_LEVELS {
            self.facts.opaque();
            return Ok(());
        }
        let mut bodies = headers.iter().filter_map(|header| plpgsql::read(header, source, LONGEST));
        let Some(body) = bodies.next() else {
            self.facts.opaque();
            return Ok(());
        };
        let Body { pieces, variables, labels, commands, keeps_unseen, dynamic } = body;
        if dynamic {
            self.facts.opaque();
        }
        self.facts.stores_unseen |= keeps_unseen;
        self.facts.nested.extend(commands);
        // The text of an error may quote any value.
        names.unseen.push("sqlerrm".to_owned());
        names.variables.extend(variables.into_iter().filter(|name| !names.unseen.contains(name)));
        names.labels.extend(labels);
        let items = items(&names);
        for piece in pieces {
            let options = match piece.form {
                Form::Statement => ParserOptions::DEFAULT,
                Form::Expression => ParserOptions::PLPGSQL_EXPR,
                Form::Assignment(1) => ParserOptions::PLPGSQL_ASSIGN1,
                Form::Assignment(2) => ParserOptions::PLPGSQL_ASSIGN2,
                Form::Assignment(_) => ParserOptions::PLPGSQL_ASSIGN3,
            };
            if let Some(tree) = self.read_piece(&piece.text, options) {
                self.piece(&tree, piece.fate, &names, &items)?;
            }
        }
        Ok(())
    }

    /// Parses text inside of text. What cannot be read is opaque: the server may read it, later, or in another version.
    fn read_piece(&mut self, source: &str, options: ParserOptions) -> Option<ParseResult> {
        let tree = guard::check(source, LONGEST).ok().and_then(|()| parse_as(source, options).ok());
        if tree.is_none() || self.level >= MAX_LEVELS {
            self.facts.opaque();
            return None;
        }
        tree
    }

    /// Adds what the statements of a tree do to what is known of this one.
    fn piece(&mut self, tree: &ParseResult, fate: Fate, names: &Names, items: &[Item<'_>]) -> Answer<()> {
        let last = tree.stmts.len().saturating_sub(1);
        for (at, raw) in tree.stmts.iter().enumerate() {
            let Some(node) = raw.stmt.as_ref().and_then(|node| node.node.as_ref()) else {
                self.unknown_node();
                continue;
            };
            // Of several, as in a body in SQL, the last one's rows are the result.
            let fate = if at == last { fate } else { Fate::Dropped };
            let mut inner = self.inner();
            inner.argument = argument(names);
            let flow = inner.value_of(node, &Scope::with_items(&Scope::outermost(), items))?;
            inner.facts.mark(&flow, Use::Output);
            match fate {
                Fate::Kept | Fate::Shown => inner.facts.mark(&flow, Use::Stored),
                Fate::Returned if names.trigger => inner.facts.mark(&flow, Use::Stored),
                Fate::Decides => {
                    inner.facts.mark(&flow, Use::Predicate);
                    inner.facts.mark(&flow, Use::Failure);
                }
                Fate::Returned | Fate::Dropped => {}
            }
            self.absorb(inner);
        }
        Ok(())
    }

    /// What a statement, an expression or an assignment returns.
    fn value_of(&mut self, node: &'a NodeEnum, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        match node {
            NodeEnum::PlassignStmt(assign) => {
                let mut flow = self.exprs_in(&assign.indirection, scope)?;
                match &assign.val {
                    Some(select) => {
                        let rows = self.select(select, scope)?;
                        flow.add(&self.all_of(&rows)?);
                    }
                    None => self.unknown_node(),
                }
                Ok(flow)
            }
            statement => {
                let (kind, rows) = self.statement(statement, scope)?;
                // Reading is seen by what is read; an expression alone is no command.
                if kind != "select" || !self.facts.reads_nothing() {
                    self.facts.nested.push(kind);
                }
                self.of_rows(rows)
            }
        }
    }

    /// Subscripts of what is assigned to.
    fn exprs_in(&mut self, steps: &'a [Node], scope: &Scope<'_, 'a>) -> Answer<Flow> {
        let mut flow = Flow::none();
        for step in steps {
            if let Some(NodeEnum::AIndices(_)) = &step.node {
                flow.add(&self.expr(step, scope)?);
            }
        }
        Ok(flow)
    }
}

fn argument(names: &Names) -> Flow {
    if names.numbered { Flow::unknown() } else { Flow::none() }
}

/// What can be seen from every statement of a body.
fn items(names: &Names) -> Vec<Item<'_>> {
    let variables = names.variables.iter().map(|name| (name.as_str(), Flow::none()));
    let all: Vec<_> =
        variables.chain(names.unseen.iter().map(|name| (name.as_str(), Flow::unknown()))).collect();
    let derived = Rc::new(Derived { columns: all.clone(), ..Derived::default() });
    let mut items = vec![Item::new(None, Columns::Derived(Rc::clone(&derived)))];
    // Fields of rows and records.
    items.extend(all.into_iter().map(|(name, flow)| derived_item(Some(name), Derived::anything(flow))));
    items.extend(
        names.labels.iter().map(|label| Item::new(Some(label), Columns::Derived(Rc::clone(&derived)))),
    );
    for item in items.iter_mut().skip(1) {
        item.bare = false;
    }
    items
}

fn names(create: &CreateFunctionStmt) -> Names {
    let mut names = Names {
        unseen: create.parameters.iter().filter_map(parameter_name).map(str::to_owned).collect(),
        labels: create.funcname.last().and_then(text).map(str::to_owned).into_iter().collect(),
        numbered: !create.parameters.is_empty(),
        ..Names::default()
    };
    // Positional ones can be written out as well.
    names.unseen.extend((1..=create.parameters.len()).map(|at| format!("${at}")));
    if is_trigger(create) {
        names.unseen.extend(["new".to_owned(), "old".to_owned()]);
        names.trigger = true;
    }
    names
}

/// The function without its body: parameters and result of its shape. `others`: the type that stands for those that
/// only the database knows.
fn header(create: &CreateFunctionStmt, others: &'static str) -> String {
    let kind = if create.is_procedure { "PROCEDURE" } else { "FUNCTION" };
    let mut header = format!("CREATE {kind} ");
    plpgsql::quote(&mut header, create.funcname.last().and_then(text).unwrap_or_default(), '"');
    let (mut parameters, mut table, mut outs) = (Vec::new(), Vec::new(), Vec::new());
    for node in &create.parameters {
        let Some(NodeEnum::FunctionParameter(parameter)) = &node.node else { continue };
        let of = parameter.arg_type.as_ref().map_or(others, |of| stand_in(of, others));
        let mut written = String::new();
        let mode = match parameter.mode() {
            FunctionParameterMode::FuncParamTable => "",
            FunctionParameterMode::FuncParamOut => "OUT ",
            FunctionParameterMode::FuncParamInout => "INOUT ",
            _ => "IN ",
        };
        written.push_str(mode);
        if !parameter.name.is_empty() {
            plpgsql::quote(&mut written, &parameter.name, '"');
            written.push(' ');
        }
        written.push_str(of);
        match parameter.mode() {
            FunctionParameterMode::FuncParamTable => table.push(written),
            FunctionParameterMode::FuncParamOut | FunctionParameterMode::FuncParamInout => {
                outs.push(of);
                parameters.push(written);
            }
            _ => parameters.push(written),
        }
    }
    let result = create.return_type.as_ref();
    let set = if result.is_some_and(|result| result.setof) { "SETOF " } else { "" };
    let result = match (result.and_then(|result| result.names.last()).and_then(text), outs.as_slice()) {
        _ if create.is_procedure => String::new(),
        (Some("trigger"), _) => {
            parameters = vec!["new record".to_owned(), "old record".to_owned()];
            parameters.extend(OF_TRIGGERS.iter().map(|(name, of)| format!("{name} {of}")));
            "RETURNS record".to_owned()
        }
        (Some("event_trigger"), _) => {
            parameters = vec!["tg_event text".to_owned(), "tg_tag text".to_owned()];
            "RETURNS void".to_owned()
        }
        _ if !table.is_empty() => format!("RETURNS TABLE ({})", table.join(", ")),
        (_, []) => {
            let of = create.return_type.as_ref().map_or("void", |of| stand_in(of, others));
            format!("RETURNS {set}{of}")
        }
        (_, [one]) => format!("RETURNS {set}{one}"),
        (_, _) => format!("RETURNS {set}record"),
    };
    format!("{header} ({}) {result} LANGUAGE plpgsql AS ", parameters.join(", "))
}

/// A type that the compiler knows and treats alike.
fn stand_in(of: &pg_query::protobuf::TypeName, others: &'static str) -> &'static str {
    let names = texts(&of.names);
    let Some((name, before)) = names.split_last() else { return others };
    if of.pct_type {
        return "pg_catalog.text";
    }
    if !of.array_bounds.is_empty() {
        return "pg_catalog.text[]";
    }
    match *name {
        "void" => "pg_catalog.void",
        "record" => "pg_catalog.record",
        "refcursor" => "pg_catalog.refcursor",
        _ if before == ["pg_catalog"] || COMMON.contains(name) => "pg_catalog.text",
        _ => others,
    }
}

/// Types that are mostly written without their schema.
const COMMON: [&str; 26] = [
    "anyelement",
    "bytea",
    "cidr",
    "citext",
    "date",
    "float4",
    "float8",
    "hstore",
    "inet",
    "int2",
    "int4",
    "int8",
    "json",
    "jsonb",
    "money",
    "name",
    "numeric",
    "oid",
    "regclass",
    "text",
    "timestamptz",
    "tsvector",
    "uuid",
    "varchar",
    "xml",
    "tsquery",
];

fn is_trigger(create: &CreateFunctionStmt) -> bool {
    let result = create.return_type.as_ref().and_then(|result| result.names.last());
    matches!(result.and_then(text), Some("trigger"))
}

fn parameter_name(node: &Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::FunctionParameter(parameter)) => {
            Some(parameter.name.as_str()).filter(|name| !name.is_empty())
        }
        _ => None,
    }
}

fn option(node: &Node) -> Option<&DefElem> {
    match &node.node {
        Some(NodeEnum::DefElem(option)) => Some(option),
        _ => None,
    }
}

fn word(option: &DefElem) -> Option<&str> {
    option.arg.as_deref().and_then(text)
}

pub(super) fn is_no(option: &DefElem) -> bool {
    matches!(
        option.arg.as_ref().and_then(|arg| arg.node.as_ref()),
        Some(NodeEnum::Boolean(value)) if !value.boolval
    )
}
