//! What has been found out about one statement so far.

use std::collections::HashMap;

use policy::{Access, Class, Column, ColumnUse, Lineage, Named, RelationUse};

use super::flow::Flow;

/// What a value is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Output,
    Predicate,
    Stored,
    /// The statement may fail, or take longer, because of it.
    Failure,
}

#[derive(Debug)]
pub(super) struct Facts {
    pub(super) class: Class,
    pub(super) opaque: bool,
    pub(super) stores_unseen: bool,
    pub(super) filters_unseen: bool,
    pub(super) fails_unseen: bool,
    pub(super) settings: Vec<(String, Option<String>)>,
    pub(super) refers: Option<Named>,
    pub(super) defines: Option<Named>,
    /// Kinds of the statements inside the outermost one.
    pub(super) nested: Vec<&'static str>,
    relations: Vec<RelationUse>,
    relation_index: Index,
    columns: Vec<Entry>,
    column_index: Index,
    functions: Vec<String>,
    function_index: Index,
}

#[derive(Debug)]
struct Entry {
    /// `None` for a stand-in whose sources are not known yet.
    column: Option<Column>,
    /// The text refers to it; others came along with a row and may never have been used.
    named: bool,
    output: bool,
    predicate: bool,
    stored: bool,
    fails: bool,
    written: bool,
    /// Came along with a column that shows it.
    through: bool,
}

impl Facts {
    pub(super) fn new() -> Self {
        Self {
            class: Class::Transaction,
            opaque: false,
            stores_unseen: false,
            filters_unseen: false,
            fails_unseen: false,
            settings: Vec::new(),
            refers: None,
            defines: None,
            nested: Vec::new(),
            relations: Vec::new(),
            relation_index: Index::default(),
            columns: Vec::new(),
            column_index: Index::default(),
            functions: Vec::new(),
            function_index: Index::default(),
        }
    }

    pub(super) fn raise(&mut self, class: Class) {
        self.class = self.class.max(class);
    }

    /// Something inside cannot be seen.
    pub(super) fn opaque(&mut self) {
        self.opaque = true;
    }

    pub(super) fn relation(&mut self, schema: Option<&str>, name: &str, access: Access) -> usize {
        let key = || format!("{}\0{name}", schema.unwrap_or("\0"));
        let known = self.relation_index.find(&self.relations, key, |relation| {
            relation.name == name && relation.schema.as_deref() == schema
        });
        if let Some(at) = known {
            self.strengthen(at, access);
            return at;
        }
        let at = self.relations.len();
        self.relations.push(RelationUse { schema: schema.map(str::to_owned), name: name.to_owned(), access });
        self.relation_index.added(&self.relations, |relation| {
            format!("{}\0{}", relation.schema.as_deref().unwrap_or("\0"), relation.name)
        });
        at
    }

    pub(super) fn strengthen(&mut self, relation: usize, access: Access) {
        if let Some(relation) = self.relations.get_mut(relation) {
            relation.access = relation.access.max(access);
        }
    }

    pub(super) fn column(&mut self, schema: Option<&str>, relation: Option<&str>, name: &str) -> u32 {
        let (id, _) = self.find_or_add(schema, relation, name);
        if let Some(entry) = self.columns.get_mut(at(id)) {
            entry.through = false;
        }
        id
    }

    /// A column that another one shows without the statement naming either it or its relation.
    pub(super) fn shown_through(&mut self, schema: Option<&str>, relation: Option<&str>, name: &str) -> u32 {
        let (id, new) = self.find_or_add(schema, relation, name);
        if let Some(entry) = self.columns.get_mut(at(id)).filter(|_| new) {
            entry.through = true;
        }
        id
    }

    fn find_or_add(&mut self, schema: Option<&str>, relation: Option<&str>, name: &str) -> (u32, bool) {
        let key = || column_key(schema, relation, name);
        let known = self.column_index.find(&self.columns, key, |entry| {
            entry.column.as_ref().is_some_and(|column| {
                column.name == name
                    && column.relation.as_deref() == relation
                    && column.schema.as_deref() == schema
            })
        });
        match known {
            Some(at) => (id(at), false),
            None => {
                let column = Column {
                    schema: schema.map(str::to_owned),
                    relation: relation.map(str::to_owned),
                    name: name.to_owned(),
                };
                (self.entry(Some(column)), true)
            }
        }
    }

    /// A column whose sources will be told later, by [`Self::settle`].
    pub(super) fn stand_in(&mut self) -> u32 {
        self.entry(None)
    }

    fn entry(&mut self, column: Option<Column>) -> u32 {
        let at = self.columns.len();
        self.columns.push(Entry {
            column,
            named: false,
            output: false,
            predicate: false,
            stored: false,
            fails: false,
            written: false,
            through: false,
        });
        self.column_index.added(&self.columns, |entry| {
            entry.column.as_ref().map_or_else(String::new, |column| {
                column_key(column.schema.as_deref(), column.relation.as_deref(), &column.name)
            })
        });
        id(at)
    }

    /// Passes on to `sources` what the stand-in was used for.
    pub(super) fn settle(&mut self, stand_in: u32, sources: &Flow) {
        let Some(entry) = self.columns.get(at(stand_in)) else { return };
        let uses = [
            (entry.output, Use::Output),
            (entry.predicate, Use::Predicate),
            (entry.stored, Use::Stored),
            (entry.fails, Use::Failure),
        ];
        for (used, usage) in uses {
            if used {
                self.mark(sources, usage);
            }
        }
    }

    pub(super) fn mark(&mut self, flow: &Flow, usage: Use) {
        if flow.unknown {
            match usage {
                Use::Output => {}
                Use::Predicate => self.filters_unseen = true,
                Use::Stored => self.stores_unseen = true,
                Use::Failure => self.fails_unseen = true,
            }
        }
        for column in flow.ids() {
            if let Some(entry) = self.columns.get_mut(at(*column)) {
                match usage {
                    Use::Output => entry.output = true,
                    Use::Predicate => entry.predicate = true,
                    Use::Stored => entry.stored = true,
                    Use::Failure => entry.fails = true,
                }
            }
        }
    }

    pub(super) fn named(&mut self, flow: &Flow) {
        for column in flow.ids() {
            if let Some(entry) = self.columns.get_mut(at(*column)) {
                entry.named = true;
            }
        }
    }

    pub(super) fn written(&mut self, column: u32) {
        if let Some(entry) = self.columns.get_mut(at(column)) {
            entry.written = true;
        }
    }

    pub(super) fn function(&mut self, name: String) {
        let known = self.function_index.find(&self.functions, || name.clone(), |function| *function == name);
        if known.is_none() {
            self.functions.push(name);
            self.function_index.added(&self.functions, Clone::clone);
        }
    }

    pub(super) fn setting(&mut self, name: &str, value: Option<String>) {
        self.settings.push((name.to_lowercase(), value));
    }

    /// No relation is named.
    pub(super) fn reads_nothing(&self) -> bool {
        self.relations.is_empty()
    }

    /// Adds what a statement inside of this one does. What it makes or runs by name is lost with it.
    pub(super) fn absorb(&mut self, inner: Self) {
        self.raise(inner.class);
        self.opaque |= inner.opaque || inner.refers.is_some() || inner.defines.is_some();
        self.stores_unseen |= inner.stores_unseen;
        self.filters_unseen |= inner.filters_unseen;
        self.fails_unseen |= inner.fails_unseen;
        self.settings.extend(inner.settings);
        self.nested.extend(inner.nested);
        for relation in inner.relations {
            self.relation(relation.schema.as_deref(), &relation.name, relation.access);
        }
        for function in inner.functions {
            self.function(function);
        }
        for entry in inner.columns {
            let Some(column) = entry.column else { continue };
            let (schema, relation) = (column.schema.as_deref(), column.relation.as_deref());
            let id = match entry.through {
                true => self.shown_through(schema, relation, &column.name),
                false => self.column(schema, relation, &column.name),
            };
            if let Some(own) = self.columns.get_mut(at(id)) {
                own.named |= entry.named;
                own.output |= entry.output;
                own.predicate |= entry.predicate;
                own.stored |= entry.stored;
                own.fails |= entry.fails;
                own.written |= entry.written;
            }
        }
    }

    pub(super) fn lineage(&self, flow: &Flow) -> Lineage {
        if flow.unknown {
            return Lineage::Unknown;
        }
        let columns = flow.ids().iter().filter_map(|id| self.columns.get(at(*id)));
        Lineage::Known(columns.filter_map(|entry| entry.column.clone()).collect())
    }

    pub(super) fn into_lists(self) -> (Vec<RelationUse>, Vec<ColumnUse>, Vec<String>) {
        let used = |entry: &Entry| {
            entry.named || entry.output || entry.predicate || entry.stored || entry.fails || entry.written
        };
        let columns = self.columns.into_iter().filter(used).filter_map(|entry| {
            Some(ColumnUse {
                column: entry.column?,
                output: entry.output,
                predicate: entry.predicate,
                stored: entry.stored,
                fails: entry.fails,
                written: entry.written,
                shown_through: entry.through,
            })
        });
        (self.relations, columns.collect(), self.functions)
    }
}

fn column_key(schema: Option<&str>, relation: Option<&str>, name: &str) -> String {
    format!("{}\0{}\0{name}", schema.unwrap_or("\0"), relation.unwrap_or("\0"))
}

fn id(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn at(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

/// Finds entries of a list: by looking through it while it is short, by a map once it is long, so that a
/// statement of thousands of names does not cost the square of them.
#[derive(Debug, Default)]
struct Index {
    map: Option<HashMap<String, usize>>,
}

const SHORT: usize = 32;

impl Index {
    fn find<T>(
        &self,
        list: &[T],
        key: impl FnOnce() -> String,
        matches: impl Fn(&T) -> bool,
    ) -> Option<usize> {
        match &self.map {
            Some(map) => map.get(&key()).copied(),
            None => list.iter().position(matches),
        }
    }

    /// To be called after each push.
    fn added<T>(&mut self, list: &[T], key: impl Fn(&T) -> String) {
        let Some(last) = list.len().checked_sub(1) else { return };
        match &mut self.map {
            Some(map) => {
                if let Some(entry) = list.last() {
                    map.insert(key(entry), last);
                }
            }
            None if last >= SHORT => {
                self.map = Some(list.iter().map(key).enumerate().map(|(at, key)| (key, at)).collect());
            }
            None => {}
        }
    }
}
