//! One statement, seen the way rules look at it.

use std::fmt;

use crate::{
    action::{Access, Class, Column, ColumnUse, RelationUse, Statement},
    catalog, functions, kinds,
    rule::{Command, Matcher, Rule},
    settings,
};

/// Most things that one statement may need. Above this it is refused: names without a schema or relation
/// multiply, and looking at millions of combinations is not a fast answer.
const MAX_NEEDS: usize = 20_000;

/// A statement with what follows from it.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) statement: &'a Statement,
    search_path: &'a [String],
    commands: Vec<Command<'a>>,
}

/// One thing that some rule has to grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need<'a> {
    Command(Command<'a>),
    /// A relation is read.
    Read {
        schema: &'a str,
        name: &'a str,
    },
    /// A relation is changed or defined by this command.
    Act {
        schema: &'a str,
        name: &'a str,
        command: Command<'a>,
    },
    /// A column is read: of a relation that `by` changes, or that is only read.
    ReadColumn {
        schema: &'a str,
        relation: &'a str,
        name: &'a str,
        by: Option<Command<'a>>,
    },
    /// A column is assigned by this command.
    ActColumn {
        schema: &'a str,
        relation: &'a str,
        name: &'a str,
        command: Command<'a>,
    },
    /// This command may be the one that calls it; so too for settings and code.
    Function {
        name: &'a str,
        by: Command<'a>,
    },
    Setting {
        name: &'a str,
        by: Command<'a>,
    },
    Opaque {
        by: Command<'a>,
    },
    /// More than can be looked at.
    TooMuch,
}

impl Need<'_> {
    /// Whether it names something that rules name one by one; commands and what only computes are no such thing.
    pub(crate) fn is_object(&self) -> bool {
        match self {
            Self::Command(_) => false,
            Self::Function { name, .. } => !functions::is_safe(name),
            _ => true,
        }
    }
}

/// What of a statement a restriction is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch<'a> {
    Command(Command<'a>),
    Relation(&'a RelationUse),
    Column(&'a Column),
    Function(&'a str),
    Setting(&'a str),
    Opaque,
}

impl<'a> Facts<'a> {
    pub(crate) fn new(statement: &'a Statement, search_path: &'a [String]) -> Self {
        let mut commands = Vec::new();
        let top = kinds::class_of(statement.kind).map_or(statement.class, |class| class.min(statement.class));
        add(&mut commands, Command { kind: Some(statement.kind), class: top });
        for kind in &statement.nested {
            // A command that this crate does not know could be anything.
            add(
                &mut commands,
                Command { kind: Some(kind), class: kinds::class_of(kind).unwrap_or(Class::Code) },
            );
        }
        if commands.iter().all(|command| command.class < statement.class) {
            add(&mut commands, Command { kind: None, class: statement.class });
        }
        Self { statement, search_path, commands }
    }

    pub(crate) fn commands(&self) -> &[Command<'a>] {
        &self.commands
    }

    /// Everything that rules have to grant for the statement to run.
    pub(crate) fn needs(&self) -> Vec<Need<'a>> {
        let mut needs: Vec<_> = self.commands.iter().map(|command| Need::Command(*command)).collect();
        let statement = self.statement;
        if statement.opaque {
            needs.extend(self.doing().map(|by| Need::Opaque { by }));
        }
        for relation in &statement.relations {
            for schema in self.schemas(relation.schema.as_deref(), &relation.name) {
                let name = relation.name.as_str();
                match relation.access {
                    Access::Read => needs.push(Need::Read { schema, name }),
                    Access::Write | Access::Define => {
                        needs.extend(self.acting().map(|command| Need::Act { schema, name, command }));
                    }
                }
            }
        }
        for used in &statement.columns {
            if !self.column_needs(used, &mut needs) || needs.len() > MAX_NEEDS {
                return vec![Need::TooMuch];
            }
        }
        for name in &statement.functions {
            needs.extend(self.doing().map(|by| Need::Function { name, by }));
        }
        for (name, value) in &statement.settings {
            if !settings::is_harmless(name, value.as_deref(), self.search_path) {
                needs.extend(self.doing().map(|by| Need::Setting { name, by }));
            }
        }
        if needs.len() > MAX_NEEDS { vec![Need::TooMuch] } else { needs }
    }

    /// Commands that can have changed or defined a relation. Which of several did is not told: all count.
    fn acting(&self) -> impl Iterator<Item = Command<'a>> {
        let none = !self.commands.iter().any(Command::acts);
        self.commands.iter().copied().filter(move |command| none || command.acts())
    }

    /// Commands that can have called a function, changed a setting or run code. Which of several did is not told:
    /// all count. One that only carries another does neither itself, and what raises a class is no command.
    fn doing(&self) -> impl Iterator<Item = Command<'a>> {
        let does = |command: &Command<'_>| command.kind.is_some_and(|kind| !kinds::CARRYING.contains(&kind));
        let none = !self.commands.iter().any(does);
        self.commands.iter().copied().filter(move |command| none || does(command))
    }

    /// The needs of one column, in every relation it may belong to. False = too many.
    fn column_needs(&self, used: &'a ColumnUse, needs: &mut Vec<Need<'a>>) -> bool {
        used.shown_through || self.column_needs_of(used, needs)
    }

    fn column_needs_of(&self, used: &'a ColumnUse, needs: &mut Vec<Need<'a>>) -> bool {
        let name = used.column.name.as_str();
        for (schema, relation, access) in self.owners(&used.column) {
            for schema in self.schemas(schema, relation) {
                if reads(used) && access == Access::Read {
                    needs.push(Need::ReadColumn { schema, relation, name, by: None });
                } else if reads(used) {
                    let by = self.acting().map(Some);
                    needs.extend(by.map(|by| Need::ReadColumn { schema, relation, name, by }));
                }
                if used.written {
                    needs.extend(self.acting().map(|command| Need::ActColumn {
                        schema,
                        relation,
                        name,
                        command,
                    }));
                }
            }
            if needs.len() > MAX_NEEDS {
                return false;
            }
        }
        true
    }

    /// The relations that a column may belong to, with the strongest use made of them.
    fn owners(&self, column: &'a Column) -> Vec<(Option<&'a str>, &'a str, Access)> {
        let relations = self.statement.relations.iter();
        match column.relation.as_deref() {
            None => relations.map(|r| (r.schema.as_deref(), r.name.as_str(), r.access)).collect(),
            Some(relation) => {
                let schema = column.schema.as_deref();
                let access = relations.filter(|r| r.name == relation && same(schema, r.schema.as_deref()));
                vec![(schema, relation, access.map(|r| r.access).max().unwrap_or(Access::Read))]
            }
        }
    }

    /// The schemas that an unqualified relation may be found in.
    fn schemas(&self, schema: Option<&'a str>, name: &str) -> Vec<&'a str> {
        if let Some(schema) = schema {
            return vec![schema];
        }
        let path = self.search_path.iter().map(String::as_str);
        if catalog::is_known(name) {
            vec!["pg_catalog"]
        } else if name.starts_with("pg_") {
            // May be the catalogue's, which is searched first; may be anyone's.
            std::iter::once("pg_catalog").chain(path).collect()
        } else {
            path.collect()
        }
    }

    /// Whether a rule grants this need.
    pub(crate) fn granted(&self, matcher: &Matcher, need: Need<'_>) -> bool {
        match need {
            Need::Command(command) => matcher.grants_command(command),
            Need::Opaque { by } => matcher.opaque && matcher.grants_command(by),
            Need::Read { schema, name } => {
                matcher.grants_reads()
                    && (has_relation(matcher, schema, name)
                        || has_column_of(matcher, schema, name)
                        || (matcher.catalog && catalog::is_readable(schema, name)))
            }
            Need::Act { schema, name, command } => {
                matcher.grants_command(command)
                    && (has_relation(matcher, schema, name)
                        || (by_column(command)
                            && self.lists_columns(schema, name)
                            && has_column_of(matcher, schema, name)))
            }
            Need::ReadColumn { schema, relation, name, by } => {
                let own = by.is_some_and(|command| grants_reading_back(matcher, command));
                (matcher.grants_reads() || own)
                    && (has_relation(matcher, schema, relation)
                        || matcher.columns.iter().any(|pattern| pattern.grants(schema, relation, name))
                        || (matcher.catalog
                            && matcher.grants_reads()
                            && catalog::is_readable(schema, relation)))
            }
            Need::ActColumn { schema, relation, name, command } => {
                matcher.grants_command(command)
                    && (has_relation(matcher, schema, relation)
                        || (by_column(command)
                            && matcher.columns.iter().any(|pattern| pattern.grants(schema, relation, name))))
            }
            Need::Function { name, by } => matcher.grants_command(by) && self.grants_function(matcher, name),
            Need::Setting { name, by } => {
                matcher.grants_command(by) && matcher.settings.iter().any(|glob| glob.matches(name))
            }
            Need::TooMuch => false,
        }
    }

    /// Whether for each command that could do something unseen there is a rule that lets it; a rule is asked with
    /// whether it names the command.
    pub(crate) fn each_command_by(&self, rules: &[&Rule], lets: impl Fn(&Matcher, bool) -> bool) -> bool {
        let by = |command, rule: &Rule| {
            rule.statements.as_ref().is_some_and(|matcher| lets(matcher, matcher.grants_command(command)))
        };
        self.doing().all(|command| rules.iter().any(|rule| by(command, rule)))
    }

    /// Whether a rule grants reading this column, wherever it may belong.
    pub(crate) fn grants_reading(&self, matcher: &Matcher, used: &'a ColumnUse) -> bool {
        let mut needs = Vec::new();
        self.column_needs_of(used, &mut needs)
            && needs
                .iter()
                .filter(|need| matches!(need, Need::ReadColumn { .. }))
                .all(|need| self.granted(matcher, *need))
    }

    /// A name without a schema may be the catalogue's own function, so no wildcard covers it.
    fn grants_function(&self, matcher: &Matcher, name: &str) -> bool {
        // Which settings it may change is judged by their names, like those of SET.
        let sets =
            matches!(name, "set_config" | "pg_catalog.set_config") && !self.statement.settings.is_empty();
        if functions::is_safe(name) || sets {
            return true;
        }
        matcher.functions.iter().any(|pattern| match name.split_once('.') {
            Some((_, rest)) if rest.contains('.') => false,
            Some((schema, name)) => pattern.grants(schema, name),
            // The server looks into pg_catalog first, without being told to.
            None => {
                let catalog = std::iter::once("pg_catalog");
                let mut places = self.search_path.iter().map(|schema| &**schema).chain(catalog);
                pattern.names(name) && places.any(|schema| pattern.grants(schema, name))
            }
        })
    }

    /// Whether the statement says which columns of this relation it assigns.
    fn lists_columns(&self, schema: &str, name: &str) -> bool {
        self.statement.columns.iter().any(|used| {
            used.written
                && used.column.relation.as_deref() == Some(name)
                && used.column.schema.as_deref().is_none_or(|found| found == schema)
        })
    }

    /// What of the statement a deny or approve rule is about; `None` = nothing.
    pub(crate) fn touched(&self, matcher: &Matcher) -> Option<Touch<'a>> {
        if self.statement.opaque {
            return Some(Touch::Opaque);
        }
        let command = self.commands.iter().copied().find(|command| matcher.may_mean_command(*command));
        if matcher.names_no_object() && !matcher.names_no_command() {
            let read = || self.statement.relations.iter().find(|relation| self.is_read(relation));
            return command
                .map(Touch::Command)
                .or_else(|| if matcher.may_mean_reads() { read().map(Touch::Relation) } else { None });
        }
        let relation = self.statement.relations.iter().find(|relation| {
            self.means(matcher, self.is_read(relation), relation.access != Access::Read)
                && matcher.relations.iter().any(|p| p.may_match(relation.schema.as_deref(), &relation.name))
        });
        let column = || {
            self.statement.columns.iter().find(|used| {
                let column = &used.column;
                self.means(matcher, reads(used), used.written)
                    && matcher.columns.iter().any(|pattern| {
                        pattern.may_match(column.schema.as_deref(), column.relation.as_deref(), &column.name)
                    })
            })
        };
        let function = || {
            self.statement.functions.iter().find(|name| {
                let (schema, name) =
                    name.rsplit_once('.').map_or((None, name.as_str()), |(s, n)| (Some(s), n));
                matcher.functions.iter().any(|pattern| pattern.may_match(schema, name))
            })
        };
        let setting = || {
            let changed = self.statement.settings.iter().map(|(name, _)| name.as_str());
            changed.into_iter().find(|name| matcher.settings.iter().any(|glob| glob.matches(name)))
        };
        relation
            .map(Touch::Relation)
            .or_else(|| column().map(|used| Touch::Column(&used.column)))
            .or_else(|| command.and_then(|_| function().map(|name| Touch::Function(name))))
            .or_else(|| command.and_then(|_| setting().map(Touch::Setting)))
    }

    /// Whether a restriction could mean what happens to an object that is read, or acted on.
    fn means(&self, matcher: &Matcher, read: bool, acted: bool) -> bool {
        let read = read
            && (matcher.may_mean_reads()
                || self
                    .commands
                    .iter()
                    .any(|command| command.is_about_what_it_reads() && matcher.may_mean_command(*command)));
        read || (acted && self.acting().any(|command| matcher.may_mean_command(command)))
    }

    /// Whether values of a relation are read, also where it is changed as well.
    fn is_read(&self, relation: &RelationUse) -> bool {
        relation.access == Access::Read
            || self.statement.columns.iter().any(|used| {
                reads(used)
                    && used.column.relation.as_deref().is_none_or(|name| {
                        name == relation.name
                            && same(used.column.schema.as_deref(), relation.schema.as_deref())
                    })
            })
    }
}

/// A column is read unless all that happens to it is that it is assigned.
fn reads(used: &ColumnUse) -> bool {
    used.output || used.predicate || used.stored || used.fails || !used.written
}

fn same(a: Option<&str>, b: Option<&str>) -> bool {
    a.is_none() || b.is_none() || a == b
}

fn add<'a>(commands: &mut Vec<Command<'a>>, command: Command<'a>) {
    if !commands.contains(&command) {
        commands.push(command);
    }
}

fn by_column(command: Command<'_>) -> bool {
    command.kind.is_some_and(|kind| kinds::BY_COLUMN.contains(&kind))
}

/// Whether a rule that grants changing a relation grants reading what is there: an UPDATE with RETURNING
/// does; a rule for nothing but `insert` means a relation that is only added to.
fn grants_reading_back(matcher: &Matcher, command: Command<'_>) -> bool {
    let appends = command.kind.is_some_and(|kind| kinds::APPENDING.contains(&kind));
    match appends {
        true => matcher.classes.contains(&command.class),
        false => matcher.grants_command(command),
    }
}

fn has_relation(matcher: &Matcher, schema: &str, name: &str) -> bool {
    matcher.relations.iter().any(|pattern| pattern.grants(schema, name))
}

fn has_column_of(matcher: &Matcher, schema: &str, name: &str) -> bool {
    matcher.columns.iter().any(|pattern| pattern.relation.grants(schema, name))
}

impl fmt::Display for Need<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => match command.kind {
                Some(kind) => write!(f, "{kind}"),
                None => write!(f, "something of class {}", class_name(command.class)),
            },
            Self::Read { schema, name } => write!(f, "reading {schema}.{name}"),
            Self::Act { schema, name, command } => write!(f, "{} on {schema}.{name}", command.name()),
            Self::ReadColumn { schema, relation, name, by: None } => {
                write!(f, "reading {schema}.{relation}.{name}")
            }
            Self::ReadColumn { schema, relation, name, by: Some(command) } => {
                write!(f, "reading {schema}.{relation}.{name} back in {}", command.name())
            }
            Self::ActColumn { schema, relation, name, command } => {
                write!(f, "{} on {schema}.{relation}.{name}", command.name())
            }
            Self::Function { name, by } => write!(f, "calling {name}() in {}", by.name()),
            Self::Setting { name, by } => write!(f, "changing the setting {name} in {}", by.name()),
            Self::Opaque { by } => write!(f, "code that cannot be seen through in {}", by.name()),
            Self::TooMuch => f.write_str("a statement with this many names"),
        }
    }
}

impl fmt::Display for Touch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => f.write_str(command.name()),
            Self::Relation(RelationUse { schema: Some(schema), name, .. }) => write!(f, "{schema}.{name}"),
            Self::Relation(RelationUse { name, .. }) => f.write_str(name),
            Self::Column(column) => write_column(f, column),
            Self::Function(name) => write!(f, "{name}()"),
            Self::Setting(name) => write!(f, "setting {name}"),
            Self::Opaque => f.write_str("code that cannot be seen through"),
        }
    }
}

/// A column as messages show it.
pub(crate) fn write_column(f: &mut impl fmt::Write, column: &Column) -> fmt::Result {
    if let Some(schema) = &column.schema {
        write!(f, "{schema}.")?;
    }
    if let Some(relation) = &column.relation {
        write!(f, "{relation}.")?;
    }
    f.write_str(&column.name)
}

pub(crate) fn class_name(class: Class) -> &'static str {
    match class {
        Class::Transaction => "transaction",
        Class::Session => "session",
        Class::Read => "read",
        Class::Write => "write",
        Class::Utility => "utility",
        Class::Ddl => "ddl",
        Class::Privilege => "privilege",
        Class::Code => "code",
    }
}
