//! What the data of COPY … TO STDOUT looks like.

use pg_query::{
    NodeEnum,
    protobuf::{CopyStmt, DefElem, RangeVar, SelectStmt, SetOperation},
};

use super::{
    Catalogue, Relation, RelationKind,
    scope::{text, texts},
};
use crate::postgres::{CopyData, CopyOptions, CopyText};

/// The data of statement `index` of `sql`, a COPY … TO STDOUT. `None` where any option is one that this version
/// does not read: masked data is then withheld.
pub(in crate::postgres) fn copy_data(sql: &str, index: usize, catalogue: &Catalogue) -> Option<CopyData> {
    let tree = super::parse(sql).ok()?;
    let node = tree.stmts.get(index)?.stmt.as_ref()?.node.as_ref()?;
    let NodeEnum::CopyStmt(copy) = node else { return None };
    let options = options(copy)?;
    let types = match (&copy.relation, copy.query.as_ref().and_then(|query| query.node.as_ref())) {
        (Some(relation), _) => of_table(copy, relation, catalogue),
        (None, Some(NodeEnum::SelectStmt(select))) => of_query(select, catalogue),
        _ => None,
    };
    Some(CopyData { options, types: types.unwrap_or_default() })
}

fn of_table(copy: &CopyStmt, range: &RangeVar, catalogue: &Catalogue) -> Option<Vec<Option<u32>>> {
    let table = table(range, catalogue)?;
    if copy.attlist.is_empty() {
        // What is generated is not copied.
        return Some(table.columns.iter().filter(|c| !c.generated).map(|c| c.type_oid).collect());
    }
    let names = texts(&copy.attlist).into_iter();
    Some(names.map(|name| table.column(name).and_then(|(_, column)| column.type_oid)).collect())
}

/// Of columns of one table that are named without anything around them.
fn of_query(select: &SelectStmt, catalogue: &Catalogue) -> Option<Vec<Option<u32>>> {
    if select.op() != SetOperation::SetopNone || select.with_clause.is_some() {
        return None;
    }
    let [from] = select.from_clause.as_slice() else { return None };
    let Some(NodeEnum::RangeVar(range)) = &from.node else { return None };
    let name = match &range.alias {
        Some(alias) if !alias.colnames.is_empty() => return None,
        Some(alias) => &alias.aliasname,
        None => &range.relname,
    };
    let table = table(range, catalogue)?;
    let mut types = Vec::new();
    for target in &select.target_list {
        let Some(NodeEnum::ResTarget(target)) = &target.node else { return None };
        let Some(NodeEnum::ColumnRef(of)) = target.val.as_ref().and_then(|value| value.node.as_ref()) else {
            types.push(None);
            continue;
        };
        let last = match of.fields.as_slice() {
            [last] => last,
            [first, last] if text(first) == Some(name.as_str()) => last,
            _ => return None,
        };
        match &last.node {
            Some(NodeEnum::AStar(_)) => types.extend(table.columns.iter().map(|column| column.type_oid)),
            _ => types.push(text(last).and_then(|name| table.column(name)?.1.type_oid)),
        }
    }
    Some(types)
}

fn table<'c>(range: &RangeVar, catalogue: &'c Catalogue) -> Option<&'c Relation> {
    let found = match range.schemaname.as_str() {
        "" => catalogue.resolve(&range.relname),
        schema => catalogue.relation(schema, &range.relname),
    };
    found.filter(|relation| relation.kind == RelationKind::Table)
}

fn options(copy: &CopyStmt) -> Option<CopyOptions> {
    let options = copy.options.iter().map(|option| match &option.node {
        Some(NodeEnum::DefElem(option)) => Some(&**option),
        _ => None,
    });
    let options: Vec<&DefElem> = options.collect::<Option<_>>()?;
    let format = match options.iter().find(|option| option.defname == "format") {
        Some(option) => word(option)?,
        None => "text".to_owned(),
    };
    let mut made = match format.as_str() {
        "text" => CopyOptions::text(),
        "csv" => CopyOptions::csv(),
        "binary" => return Some(CopyOptions::Binary),
        _ => return None,
    };
    let mut escaped = false;
    for option in options {
        match (&mut made, option.defname.as_str()) {
            (_, "format") => {}
            (
                CopyOptions::Text(text) | CopyOptions::Csv { text, .. },
                name @ ("delimiter" | "null" | "header"),
            ) => {
                set(text, name, option)?;
            }
            (CopyOptions::Csv { quote, escape, .. }, "quote") => {
                *quote = byte(option)?;
                if !escaped {
                    *escape = *quote;
                }
            }
            (CopyOptions::Csv { escape, .. }, "escape") => {
                *escape = byte(option)?;
                escaped = true;
            }
            // Quotes more fields than need it.
            (CopyOptions::Csv { .. }, "force_quote") => {}
            (_, "encoding") if is_utf8(&word(option)?) => {}
            _ => return None,
        }
    }
    Some(made)
}

fn set(text: &mut CopyText, name: &str, option: &DefElem) -> Option<()> {
    match name {
        "delimiter" => text.delimiter = byte(option)?,
        "null" => text.null = word(option)?.into_bytes(),
        _ => {
            text.header = match &option.arg {
                None => true,
                Some(_) => match word(option)?.to_ascii_lowercase().as_str() {
                    "true" | "on" | "1" => true,
                    "false" | "off" | "0" => false,
                    _ => return None,
                },
            };
        }
    }
    Some(())
}

fn word(option: &DefElem) -> Option<String> {
    match option.arg.as_ref()?.node.as_ref()? {
        NodeEnum::String(word) => Some(word.sval.clone()),
        NodeEnum::Boolean(value) => Some(value.boolval.to_string()),
        NodeEnum::Integer(value) => Some(value.ival.to_string()),
        _ => None,
    }
}

fn byte(option: &DefElem) -> Option<u8> {
    match word(option)?.as_bytes() {
        [byte] => Some(*byte),
        _ => None,
    }
}

fn is_utf8(encoding: &str) -> bool {
    matches!(encoding.to_ascii_lowercase().as_str(), "utf8" | "utf-8" | "unicode")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy_options(sql: &str, index: usize) -> Option<CopyOptions> {
        copy_data(sql, index, &Catalogue::empty()).map(|data| data.options)
    }

    #[test]
    fn reads_what_masking_needs() {
        assert_eq!(copy_options("COPY t TO STDOUT", 0), Some(CopyOptions::text()));
        assert_eq!(copy_options("SELECT 1; COPY t TO STDOUT (FORMAT csv)", 1), Some(CopyOptions::csv()));
        assert_eq!(copy_options("COPY t TO STDOUT WITH BINARY", 0), Some(CopyOptions::Binary));
        let Some(CopyOptions::Csv { text, quote, escape }) =
            copy_options("COPY t TO STDOUT WITH CSV HEADER DELIMITER ';' QUOTE '|' NULL 'nil'", 0)
        else {
            panic!("csv");
        };
        assert_eq!((text.delimiter, text.header, text.null.as_slice()), (b';', true, b"nil".as_slice()));
        assert_eq!((quote, escape), (b'|', b'|'));
    }

    #[test]
    fn types_of_columns_that_are_tables_own() {
        let catalogue = super::super::tests::catalogue();
        let types = |sql: &str| copy_data(sql, 0, &catalogue).unwrap().types;
        let (int, text) = (Some(23), Some(25));
        assert_eq!(types("COPY customers TO STDOUT"), [int, text, text, text]);
        assert_eq!(types("COPY public.customers (ssn, id, nope) TO STDOUT"), [text, int, None]);
        // b is generated from a.
        assert_eq!(types("COPY t TO STDOUT"), [int]);
        assert_eq!(types("COPY (SELECT * FROM t) TO STDOUT"), [int, text]);
        assert_eq!(
            types("COPY (SELECT c.ssn, upper(name), id AS n FROM customers c WHERE id > 1) TO STDOUT"),
            [text, None, int]
        );
        for unseen in [
            "COPY v TO STDOUT",
            "COPY (SELECT mail FROM v) TO STDOUT",
            "COPY (SELECT id FROM customers UNION SELECT a FROM t) TO STDOUT",
            "COPY (WITH customers AS (SELECT 1 AS id) SELECT id FROM customers) TO STDOUT",
            "COPY (SELECT id FROM customers AS x(id)) TO STDOUT",
            "COPY (SELECT customers.id FROM customers, t) TO STDOUT",
            "COPY (VALUES (1)) TO STDOUT",
            "COPY unknown TO STDOUT",
        ] {
            assert_eq!(types(unseen), [], "{unseen}");
        }
    }

    #[test]
    fn what_it_does_not_read_is_unknown() {
        assert_eq!(copy_options("COPY t TO STDOUT (ENCODING 'latin1')", 0), None);
        assert_eq!(copy_options("COPY t TO STDOUT (FORMAT whatever)", 0), None);
        assert_eq!(copy_options("SELECT 1", 0), None);
        assert_eq!(copy_options("COPY t TO STDOUT", 3), None);
    }
}
