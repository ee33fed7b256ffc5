//! What the data of COPY … TO STDOUT looks like.

use pg_query::{NodeEnum, protobuf::DefElem};

use crate::postgres::{CopyOptions, CopyText};

/// The format of statement `index` of `sql`, a COPY … TO STDOUT. `None` where any option is one that this version
/// does not read: masked data is then withheld.
pub(in crate::postgres) fn copy_options(sql: &str, index: usize) -> Option<CopyOptions> {
    let tree = super::parse(sql).ok()?;
    let node = tree.stmts.get(index)?.stmt.as_ref()?.node.as_ref()?;
    let NodeEnum::CopyStmt(copy) = node else { return None };
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
    fn what_it_does_not_read_is_unknown() {
        assert_eq!(copy_options("COPY t TO STDOUT (ENCODING 'latin1')", 0), None);
        assert_eq!(copy_options("COPY t TO STDOUT (FORMAT whatever)", 0), None);
        assert_eq!(copy_options("SELECT 1", 0), None);
        assert_eq!(copy_options("COPY t TO STDOUT", 3), None);
    }
}
