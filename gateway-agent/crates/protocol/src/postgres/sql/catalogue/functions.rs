//! Functions, operators and casts that are not the server's own.

use std::{collections::HashMap, sync::Arc};

use super::{CatalogueError, Names, Row, Rows, Summary};

/// What is known about what a function returns.
#[derive(Debug, Clone, Default)]
pub(in super::super) enum Nature {
    /// Nothing but its arguments, computed in C and declared immutable: only a superuser makes such functions.
    Pure,
    /// What its body says.
    Body(Summary),
    #[default]
    Unseen,
}

/// A function, or several of one name.
#[derive(Debug, Clone)]
pub(in super::super) struct Known<'a> {
    pub(in super::super) natures: Vec<&'a Nature>,
    /// One of them returns any number of rows.
    pub(in super::super) set: bool,
    /// One of them can change things: it is neither stable nor immutable, and its body cannot be seen.
    pub(in super::super) keeps: bool,
}

/// Schema and name.
type Named = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct Functions {
    by_name: HashMap<Arc<str>, Vec<Function>>,
    operators: HashMap<Arc<str>, Vec<Named>>,
    casts: HashMap<Arc<str>, Vec<Named>>,
}

#[derive(Debug)]
pub(super) struct Function {
    schema: Arc<str>,
    set: bool,
    volatile: bool,
    nature: Nature,
}

/// A function in SQL.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) name: Arc<str>,
    /// Among those of its name.
    pub(super) at: usize,
    pub(super) sql: String,
    pub(super) arguments: Vec<String>,
}

impl Functions {
    /// Returns the bodies that can be understood by reading them.
    pub(super) fn read(
        &mut self,
        names: &mut Names,
        functions: &[Row],
        operators: &[Row],
        casts: &[Row],
    ) -> Result<Vec<Body>, CatalogueError> {
        let mut bodies = Vec::new();
        for row in Rows::of(8, functions) {
            let (schema, name) =
                (names.get(row.text(0, "schema")?), names.get(row.text(1, "function name")?));
            let (language, volatility) = (row.text(2, "language")?, row.text(3, "volatility")?);
            let set = row.flag(4, "mark of a set")?;
            let settings = row.flag(5, "mark of settings")?;
            let of_name = self.by_name.entry(Arc::clone(&name)).or_default();
            let pure = matches!(language, "c" | "internal") && volatility == "i" && !settings;
            if language == "sql" && !settings {
                let arguments = row.text(7, "names of arguments")?.lines().map(str::to_owned);
                bodies.push(Body {
                    name,
                    at: of_name.len(),
                    sql: row.text(6, "body")?.to_owned(),
                    arguments: arguments.filter(|argument| !argument.is_empty()).collect(),
                });
            }
            let nature = if pure { Nature::Pure } else { Nature::Unseen };
            of_name.push(Function { schema, set, volatile: volatility == "v", nature });
        }
        for (query, rows, map) in [(9, operators, &mut self.operators), (10, casts, &mut self.casts)] {
            for row in Rows::of(query, rows) {
                let function = (names.get(row.text(1, "schema")?), names.get(row.text(2, "function name")?));
                map.entry(names.get(row.text(0, "name")?)).or_default().push(function);
            }
        }
        Ok(bodies)
    }

    pub(super) fn understood(&mut self, name: &str, at: usize, summary: Summary) {
        if let Some(function) = self.by_name.get_mut(name).and_then(|all| all.get_mut(at)) {
            function.nature = Nature::Body(summary);
        }
    }

    pub(super) fn called(&self, parts: &[&str], search_path: &[Arc<str>]) -> Option<Known<'_>> {
        let (name, before) = parts.split_last()?;
        let all = self.by_name.get(*name)?.iter();
        Known::of(all.filter(|function| match before.last() {
            Some(schema) => *function.schema == **schema,
            None => search_path.contains(&function.schema),
        }))
    }

    pub(super) fn operator(&self, name: &str) -> Option<Known<'_>> {
        self.behind(self.operators.get(name)?)
    }

    pub(super) fn cast(&self, name: &str) -> Option<Known<'_>> {
        self.behind(self.casts.get(name)?)
    }

    /// A function of the server's own is no news.
    fn behind(&self, functions: &[(Arc<str>, Arc<str>)]) -> Option<Known<'_>> {
        let all = functions.iter().filter_map(|(schema, name)| Some((schema, self.by_name.get(name)?)));
        Known::of(all.flat_map(|(schema, all)| all.iter().filter(move |function| function.schema == *schema)))
    }
}

impl<'a> Known<'a> {
    fn of(functions: impl Iterator<Item = &'a Function>) -> Option<Self> {
        let mut known = Self { natures: Vec::new(), set: false, keeps: false };
        for function in functions {
            known.natures.push(&function.nature);
            known.set |= function.set;
            known.keeps |= function.volatile && matches!(function.nature, Nature::Unseen);
        }
        (!known.natures.is_empty()).then_some(known)
    }
}
