//! Statements and what is seen in them.

mod bodies;
mod clients;
mod hostile;
mod lineage;
mod nodes;
mod statements;

use policy::{Access, Class, Lineage, Named, Outputs, Statement};

use super::{Catalogue, Refused, Row, STACK, analyse};

/// Runs on a stack of the size that the analysis asks for.
fn on_big_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().unwrap()
}

fn offline(sql: &str) -> Result<Vec<Statement>, Refused> {
    analyse(sql, &Catalogue::empty(), 1 << 16)
}

/// `kind class OPAQUE relations functions() settings=value`: `!` marks a relation that is written, `#` one that
/// is defined.
fn brief(statement: &Statement) -> String {
    let class = match statement.class {
        Class::Transaction => "transaction",
        Class::Session => "session",
        Class::Read => "read",
        Class::Write => "write",
        Class::Utility => "utility",
        Class::Ddl => "ddl",
        Class::Privilege => "privilege",
        Class::Code => "code",
    };
    let mut words = vec![statement.kind.to_owned(), class.to_owned()];
    words.extend(statement.opaque.then(|| "OPAQUE".to_owned()));
    for relation in &statement.relations {
        let schema = relation.schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
        let mark = match relation.access {
            Access::Read => "",
            Access::Write => "!",
            Access::Define => "#",
        };
        words.push(format!("{schema}{}{mark}", relation.name));
    }
    words.extend(statement.functions.iter().map(|function| format!("{function}()")));
    for (name, value) in &statement.settings {
        words.push(format!("{name}={}", value.as_deref().unwrap_or("?")));
    }
    let named = |named: &Named| match named {
        Named::Prepared(name) => format!("prepared:{name}"),
        Named::Cursor(name) => format!("cursor:{name}"),
    };
    words.extend(statement.refers.iter().map(|name| format!("runs {}", named(name))));
    words.extend(statement.defines.iter().map(|name| format!("makes {}", named(name))));
    words.join(" ")
}

/// `[sources] [sources]`, one per result column; `?` = unknown.
fn outputs(statement: &Statement) -> String {
    match &statement.outputs {
        Outputs::None => "none".to_owned(),
        Outputs::Unknown => "unknown".to_owned(),
        Outputs::Columns(columns) => columns
            .iter()
            .map(|lineage| match lineage {
                Lineage::Unknown => "?".to_owned(),
                Lineage::Known(columns) => {
                    let mut names: Vec<String> = columns
                        .iter()
                        .map(|column| {
                            format!("{}.{}", column.relation.as_deref().unwrap_or("*"), column.name)
                        })
                        .collect();
                    names.sort();
                    format!("[{}]", names.join(" "))
                }
            })
            .collect::<Vec<_>>()
            .join(" "),
    }
}

/// `relation.column:ops`: `o`utput, `p`redicate, `s`tored, `w`ritten.
fn uses(statement: &Statement) -> String {
    let mut uses: Vec<String> = statement
        .columns
        .iter()
        .map(|usage| {
            let marks =
                [(usage.output, 'o'), (usage.predicate, 'p'), (usage.stored, 's'), (usage.written, 'w')];
            let marks: String = marks.iter().filter(|(used, _)| *used).map(|(_, mark)| mark).collect();
            let relation = usage.column.relation.as_deref().unwrap_or("*");
            format!("{relation}.{}:{marks}", usage.column.name)
        })
        .collect();
    uses.sort();
    uses.join(" ")
}

fn rows(rows: &[&[&str]]) -> Vec<Row> {
    rows.iter().map(|row| row.iter().map(|cell| Some((*cell).to_owned())).collect()).collect()
}

/// customers(id, name, email, ssn), orders(id, customer_id, total), t(a, b) whose b is generated from a, a view
/// v(id, mail) of customers, a partition orders_2024 of orders, functions, and an operator ### that calls one.
pub(super) fn catalogue() -> Catalogue {
    let relations = [
        ("1", "customers", "r", vec!["id", "name", "email", "ssn"]),
        ("2", "orders", "p", vec!["id", "customer_id", "total"]),
        ("3", "t", "r", vec!["a", "b"]),
        ("4", "v", "v", vec!["id", "mail"]),
        ("5", "orders_2024", "r", vec!["id", "customer_id", "total"]),
    ];
    let columns = relations.iter().flat_map(|(oid, _, _, columns)| {
        columns.iter().enumerate().map(|(at, name)| {
            let number = ["1", "2", "3", "4"][at];
            let kind = if ["id", "customer_id", "total", "a"].contains(name) { "23" } else { "25" };
            let generated = if *name == "b" { "true" } else { "false" };
            [*oid, number, *name, kind, generated].map(|cell| Some(cell.to_owned())).to_vec()
        })
    });
    let function = |name: &str, language: &str, set: &str, body: &str, arguments: &str| {
        ["public", name, language, "s", set, "false", body, arguments]
            .map(|cell| Some(cell.to_owned()))
            .to_vec()
    };
    let functions = vec![
        function("secret_of", "sql", "false", "SELECT ssn FROM customers WHERE id = $1", ""),
        function(
            "name_of",
            "sql",
            "false",
            "SELECT name FROM public.customers AS c WHERE c.id = customer",
            "customer",
        ),
        function("is_ssn", "sql", "false", "SELECT count(*) > 0 FROM customers WHERE ssn = guess", "guess"),
        function("rows_of", "sql", "true", "SELECT * FROM customers", ""),
        function("shout", "sql", "false", "SELECT upper($1)", ""),
        function("twice", "sql", "false", "SELECT shout(shout(a))", "a"),
        function("unseen", "plpgsql", "false", "", ""),
        function("keeper", "sql", "false", "INSERT INTO t SELECT 1, 2 RETURNING a", ""),
    ];
    Catalogue::build(&[
        relations
            .iter()
            .map(|(oid, name, kind, _)| {
                [*oid, "public", *name, *kind].map(|cell| Some(cell.to_owned())).to_vec()
            })
            .collect(),
        columns.collect(),
        rows(&[&["4", "1", "1", "false"], &["4", "1", "3", "false"]]),
        rows(&[&["5", "2"]]),
        rows(&[&["pg_catalog"], &["public"]]),
        Vec::new(),
        rows(&[&["4", " SELECT customers.id, customers.email AS mail FROM public.customers;"]]),
        functions,
        rows(&[&["###", "public", "secret_of"]]),
        Vec::new(),
        rows(&[&["3", "2", "1"]]),
    ])
    .unwrap()
}
