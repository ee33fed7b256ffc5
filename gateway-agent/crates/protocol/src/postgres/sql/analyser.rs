//! The state of reading one statement.

use pg_query::protobuf::{RangeVar, RawStmt};
use policy::{Access, Class, Outputs, Statement};

use super::{
    Catalogue, Refused,
    catalogue::argument,
    facts::{Facts, Use},
    flow::Flow,
    resolve::derived_item,
    scope::{Base, Derived, Scope},
};

pub(super) type Answer<T> = Result<T, Refused>;

/// Levels of expressions and subqueries. Some kilobytes of stack each.
const MAX_DEPTH: usize = 2000;

/// Steps, of which a plain statement takes dozens. Bounds statements whose meaning grows faster than their
/// text, such as stars over stars, to some hundreds of milliseconds.
const MAX_WORK: usize = 4_000_000;

/// How relations are named in what comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// As the catalogue resolves them.
    Resolved,
    AsWritten,
}

pub(super) struct Analyser<'a> {
    pub(super) catalogue: &'a Catalogue,
    names: Names,
    pub(super) facts: Facts,
    /// A SELECT had an INTO.
    pub(super) into: bool,
    /// The outermost statement has begun.
    pub(super) inside: bool,
    depth: usize,
    work: usize,
    /// How often something was met that may fail or take long, whatever it depends on.
    pub(super) risks: usize,
    /// In the body of a function: what stands for its arguments.
    pub(super) argument: Flow,
    /// How many bodies this one is inside of.
    pub(super) level: usize,
}

/// The rows that a statement returns.
pub(super) enum Rows<'a> {
    None,
    Known(Derived<'a>),
    Unknown,
}

impl<'a> Analyser<'a> {
    pub(super) fn new(catalogue: &'a Catalogue, names: Names) -> Self {
        Self {
            catalogue,
            names,
            facts: Facts::new(),
            into: false,
            inside: false,
            depth: 0,
            work: 0,
            risks: 0,
            argument: Flow::none(),
            level: 0,
        }
    }

    pub(super) fn run(self, raw: &'a RawStmt) -> Answer<Statement> {
        self.run_in(raw, &Scope::outermost())
    }

    /// A statement in the body of a function, whose arguments can be seen by number and by name.
    pub(super) fn run_body(
        mut self,
        raw: &'a RawStmt,
        name: &'a str,
        arguments: &'a [String],
    ) -> Answer<Statement> {
        let stands = argument();
        let id = self.facts.column(None, stands.relation.as_deref(), &stands.name);
        self.argument = Flow::one(id);
        let columns = arguments.iter().map(|argument| (argument.as_str(), Flow::one(id))).collect();
        let items = [derived_item(Some(name), Derived { columns, ..Derived::default() })];
        self.run_in(raw, &Scope::with_items(&Scope::outermost(), &items))
    }

    /// For text inside of this text, with what is left of its limits.
    pub(super) fn inner<'b>(&self) -> Analyser<'b>
    where
        'a: 'b,
    {
        Analyser {
            depth: self.depth,
            work: self.work,
            level: self.level.saturating_add(1),
            ..Analyser::new(self.catalogue, self.names)
        }
    }

    /// Adds what an inner one has found.
    pub(super) fn absorb(&mut self, inner: Analyser<'_>) {
        self.work = inner.work;
        self.facts.absorb(inner.facts);
    }

    fn run_in(mut self, raw: &'a RawStmt, scope: &Scope<'_, 'a>) -> Answer<Statement> {
        let (kind, rows) = match raw.stmt.as_ref().and_then(|node| node.node.as_ref()) {
            Some(node) => self.statement(node, scope)?,
            None => self.unseen(),
        };
        let outputs = self.outputs(rows)?;
        let Facts { class, opaque, stores_unseen, filters_unseen, fails_unseen, .. } = self.facts;
        let settings = std::mem::take(&mut self.facts.settings);
        let refers = self.facts.refers.take();
        let defines = self.facts.defines.take();
        let mut nested = std::mem::take(&mut self.facts.nested);
        nested.sort_unstable();
        nested.dedup();
        let (relations, columns, functions) = self.facts.into_lists();
        Ok(Statement {
            kind,
            nested,
            class,
            relations,
            columns,
            functions,
            opaque,
            stores_unseen,
            filters_unseen,
            fails_unseen,
            outputs,
            refers,
            defines,
            settings,
        })
    }

    /// A statement that this version does not know.
    pub(super) fn unseen(&mut self) -> (&'static str, Rows<'a>) {
        self.unknown_node();
        ("unknown", Rows::Unknown)
    }

    /// Part of a statement that this version does not know.
    pub(super) fn unknown_node(&mut self) {
        self.facts.opaque();
        self.facts.raise(Class::Code);
    }

    fn outputs(&mut self, rows: Rows<'a>) -> Answer<Outputs> {
        Ok(match rows {
            Rows::None => Outputs::None,
            Rows::Unknown => Outputs::Unknown,
            Rows::Known(derived) => {
                let all = self.all_of(&derived)?;
                self.facts.mark(&all, Use::Output);
                if derived.open.is_empty() {
                    let columns = derived.columns.iter();
                    Outputs::Columns(columns.map(|(_, flow)| self.facts.lineage(flow)).collect())
                } else {
                    Outputs::Unknown
                }
            }
        })
    }

    /// Counts steps of work.
    pub(super) fn spend(&mut self, steps: usize) -> Answer<()> {
        self.work = self.work.saturating_add(steps);
        if self.work > MAX_WORK {
            return Err(Refused::too_complex("it refers to too many columns too often"));
        }
        Ok(())
    }

    /// Something whose success or time depends on these values.
    pub(super) fn may_fail(&mut self, on: &Flow) {
        self.risks = self.risks.saturating_add(1);
        self.facts.mark(on, Use::Failure);
    }

    /// A part in which values decide what is evaluated at all: where something in it may fail, they decide that.
    pub(super) fn conditional(&mut self, read: impl FnOnce(&mut Self) -> Answer<Flow>) -> Answer<Flow> {
        let before = self.risks;
        let flow = read(self)?;
        if self.risks > before {
            self.facts.mark(&flow, Use::Failure);
        }
        Ok(flow)
    }

    /// Runs `read` one level deeper.
    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Answer<T>) -> Answer<T> {
        self.depth = self.depth.saturating_add(1);
        if self.depth > MAX_DEPTH {
            return Err(Refused::too_complex("it nests too deeply"));
        }
        let result = read(self);
        self.depth = self.depth.saturating_sub(1);
        result
    }

    /// Notes a use of a real relation.
    pub(super) fn relation(&mut self, range: &'a RangeVar, access: Access) -> Base<'a> {
        let schema = (!range.schemaname.is_empty()).then_some(range.schemaname.as_str());
        self.named_relation(schema, &range.relname, access)
    }

    pub(super) fn named_relation(
        &mut self,
        schema: Option<&'a str>,
        name: &'a str,
        access: Access,
    ) -> Base<'a> {
        let known = match schema {
            Some(schema) => self.catalogue.relation(schema, name),
            None => self.catalogue.resolve(name),
        };
        let schema = match self.names {
            Names::AsWritten => schema,
            Names::Resolved => schema.or_else(|| known.map(|relation| &*relation.schema)).or_else(|| {
                // System relations are found before any other of the name, and nobody else may use the prefix
                // for a schema; a table of the name elsewhere would have been in the catalogue.
                name.starts_with("pg_").then_some("pg_catalog")
            }),
        };
        let index = self.facts.relation(schema, name, access);
        Base { index, schema, name, known, renamed: &[] }
    }

    /// A relation named by the parts of its name: `[table]`, `[schema, table]`, `[database, schema, table]`.
    pub(super) fn relation_of_parts(&mut self, parts: &[&'a str], access: Access) -> Option<Base<'a>> {
        let (name, before) = parts.split_last()?;
        Some(self.named_relation(before.last().copied(), name, access))
    }
}
