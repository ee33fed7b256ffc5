//! Bodies in PL/pgSQL: the SQL and the expressions inside, and what becomes of their values.
//!
//! libpg_query compiles a body as the server does and writes what it found as JSON. Every kind of node and every field is
//! matched by name: what is not known here makes the body one that cannot be seen through. Two things are not left to
//! it: `#option`, by which a body makes the compiler print, and the defaults of records, which it does not write out.

use pg_query::protobuf::{KeywordKind, ScanToken, Token};
use serde_json::{Map, Value};

use super::{guard, parse_plpgsql};

/// What a body holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) pieces: Vec<Piece>,
    /// Variables, whatever block they belong to.
    pub(super) variables: Vec<String>,
    /// Names of blocks and loops.
    pub(super) labels: Vec<String>,
    /// Commands that are no SQL.
    pub(super) commands: Vec<&'static str>,
    /// Something is kept of which nobody can tell where it comes from: a row of a cursor, the text of an error.
    pub(super) keeps_unseen: bool,
    /// It runs what it makes up.
    pub(super) dynamic: bool,
}

/// SQL inside a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) form: Form,
    pub(super) fate: Fate,
}

/// How a piece is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Statement,
    /// What may stand behind SELECT.
    Expression,
    /// `variable := expression`, where the variable's name has this many parts.
    Assignment(u8),
}

/// What becomes of the values that a piece makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// A variable takes them.
    Kept,
    /// They go into messages.
    Shown,
    /// They decide what runs next.
    Decides,
    /// The caller gets them.
    Returned,
    Dropped,
}

/// Reads the body of a function with this header, a `CREATE FUNCTION … AS`, or of a DO block. `None` when it cannot be
/// read.
pub(super) fn read(header: &str, source: &str, max_bytes: usize) -> Option<Body> {
    guard::check(source, max_bytes).ok()?;
    let tokens: Vec<ScanToken> = pg_query::scan(source)
        .ok()?
        .tokens
        .into_iter()
        .filter(|token| !matches!(token.token(), Token::SqlComment | Token::CComment))
        .collect();
    if tokens.first().is_none_or(|token| text_of(source, token).starts_with('#')) {
        return None;
    }
    let mut made = String::with_capacity(header.len().saturating_add(source.len()).saturating_add(16));
    made.push_str(header);
    quote(&mut made, source, '\'');
    let compiled = parse_plpgsql(&made)?;
    let [function] = compiled.as_array()?.as_slice() else { return None };
    let mut reader = Reader::default();
    reader.node(function)?;
    for piece in defaults(source, &tokens, &reader.records)? {
        reader.body.pieces.push(piece);
    }
    Some(reader.body)
}

/// Appends a value in quotes.
pub(super) fn quote(out: &mut String, value: &str, mark: char) {
    out.push(mark);
    for c in value.chars() {
        if c == mark {
            out.push(mark);
        }
        out.push(c);
    }
    out.push(mark);
}

#[derive(Default)]
struct Reader {
    body: Body,
    /// Records that the body declares.
    records: Vec<String>,
}

/// What a field of a node holds.
enum Field {
    /// Nothing that runs.
    Plain,
    Label,
    /// A node, or a list of them.
    Nodes,
    Value(Fate),
    /// Text that is put together while it runs.
    Dynamic,
}

impl Reader {
    /// One node, `{"kind": {…}}`. `None`: it is not known.
    fn node(&mut self, node: &Value) -> Option<()> {
        let node = node.as_object()?;
        let (kind, fields) = node.iter().next().filter(|_| node.len() == 1)?;
        let fields = fields.as_object()?;
        self.by_itself(kind, fields)?;
        for (name, value) in fields {
            match field(kind, name, fields)? {
                Field::Plain => {}
                Field::Label => self.body.labels.push(value.as_str()?.to_owned()),
                Field::Nodes => match value {
                    Value::Array(nodes) => nodes.iter().try_for_each(|node| self.node(node))?,
                    node => self.node(node)?,
                },
                Field::Value(fate) => match value {
                    Value::Array(all) => all.iter().try_for_each(|value| self.piece(value, fate))?,
                    value => self.piece(value, fate)?,
                },
                Field::Dynamic => self.body.dynamic = true,
            }
        }
        Some(())
    }

    /// What a node means besides its fields.
    fn by_itself(&mut self, kind: &str, fields: &Map<String, Value>) -> Option<()> {
        match kind {
            "PLpgSQL_var" | "PLpgSQL_rec" => {
                let name = fields.get("refname")?.as_str()?;
                self.body.variables.push(name.to_owned());
                // Parameters stand on no line.
                if kind == "PLpgSQL_rec" && fields.contains_key("lineno") {
                    self.records.push(name.to_owned());
                }
            }
            "PLpgSQL_stmt_commit" => self.body.commands.push("commit"),
            "PLpgSQL_stmt_rollback" => self.body.commands.push("rollback"),
            // A cursor may have any name, and with it be one that was declared elsewhere.
            "PLpgSQL_stmt_fetch" if !fields.contains_key("is_move") => self.body.keeps_unseen = true,
            "PLpgSQL_diag_item" => {
                let told = fields.get("kind")?.as_str()?;
                self.body.keeps_unseen |=
                    !matches!(told, "ROW_COUNT" | "RETURNED_SQLSTATE" | "PG_CONTEXT" | "PG_ROUTINE_OID");
            }
            _ => {}
        }
        Some(())
    }

    fn piece(&mut self, value: &Value, fate: Fate) -> Option<()> {
        let expression =
            value.as_object().filter(|node| node.len() == 1)?.get("PLpgSQL_expr")?.as_object()?;
        let form = match expression.get("parseMode")?.as_u64()? {
            0 => Form::Statement,
            2 => Form::Expression,
            3 => Form::Assignment(1),
            4 => Form::Assignment(2),
            5 => Form::Assignment(3),
            _ => return None,
        };
        let known = expression.keys().all(|key| matches!(key.as_str(), "query" | "parseMode"));
        let text = expression.get("query").filter(|_| known)?.as_str()?.to_owned();
        self.body.pieces.push(Piece { text, form, fate });
        Some(())
    }
}

/// What a field holds; `None` for one that is not known.
fn field(kind: &str, name: &str, of: &Map<String, Value>) -> Option<Field> {
    use Fate::{Decides, Dropped, Kept, Returned, Shown};
    let kind = kind.strip_prefix("PLpgSQL_")?;
    let kind = kind.strip_prefix("stmt_").unwrap_or(kind);
    Some(match (kind, name) {
        (_, "lineno") => Field::Plain,
        (_, "label") => Field::Label,
        ("function", "datums" | "action")
        | ("block" | "loop" | "while" | "fori" | "fors" | "forc" | "foreach_a", "body")
        | ("block", "exceptions")
        | ("exception_block", "exc_list")
        | ("exception", "action")
        | ("if", "then_body" | "elsif_list" | "else_body")
        | ("if_elsif" | "case_when", "stmts")
        | ("case", "case_when_list" | "else_stmts")
        | ("raise", "options")
        | ("getdiag", "diag_items") => Field::Nodes,
        ("var", "default_val" | "cursor_explicit_expr")
        | ("assign" | "foreach_a", "expr")
        | ("fors", "query")
        | ("forc" | "open", "argquery")
        | ("open", "query") => Field::Value(Kept),
        ("execsql", "sqlstmt") => Field::Value(if of.contains_key("into") { Kept } else { Dropped }),
        ("call", "expr") => Field::Value(if of.contains_key("target") { Kept } else { Dropped }),
        ("perform", "expr") => Field::Value(Dropped),
        ("if" | "if_elsif" | "while" | "exit" | "assert", "cond")
        | ("case", "t_expr")
        | ("case_when" | "fetch", "expr")
        | ("fori", "lower" | "upper" | "step") => Field::Value(Decides),
        ("return" | "return_next", "expr") | ("return_query", "query") => Field::Value(Returned),
        ("raise", "params") | ("raise_option", "expr") | ("assert", "message") => Field::Value(Shown),
        ("dynexecute" | "dynfors", _) | ("open" | "return_query", "dynquery" | "params") => Field::Dynamic,
        ("function", "new_varno" | "old_varno")
        | (
            "var",
            "refname" | "datatype" | "isconst" | "notnull" | "cursor_explicit_argrow" | "cursor_options",
        )
        | ("rec", "refname" | "dno")
        | ("row", "refname" | "fields")
        | ("recfield", "fieldname" | "recparentno")
        | ("exception", "conditions")
        | ("assign", "varno")
        | ("case", "t_varno" | "have_else")
        | ("fori", "var" | "reverse")
        | ("fors", "var")
        | ("forc", "var" | "curvar")
        | ("foreach_a", "varno" | "slice")
        | ("exit", "is_exit")
        | ("raise", "elog_level" | "condname" | "message")
        | ("raise_option", "opt_type")
        | ("execsql", "into" | "strict" | "target")
        | ("diag_item", "kind" | "target")
        | ("getdiag", "is_stacked")
        | ("open", "curvar" | "cursor_options")
        | ("fetch", "target" | "curvar" | "direction" | "how_many" | "is_move" | "returns_multiple_rows")
        | ("close", "curvar")
        | ("call", "is_call" | "target")
        | ("commit" | "rollback", "chain") => Field::Plain,
        _ => return None,
    })
}

/// What these records begin with: `name type := expression;`, behind DECLARE or another declaration. Assignments look
/// alike and are read twice. `None` where names cannot be compared.
fn defaults(source: &str, tokens: &[ScanToken], records: &[String]) -> Option<Vec<Piece>> {
    let mut found = Vec::new();
    // The server cuts longer names.
    if records.is_empty() {
        return Some(found);
    }
    if records.iter().any(|record| record.len() >= 63) {
        return None;
    }
    let mut rest = tokens;
    while let [before, name, after @ ..] = rest {
        rest = rest.get(1..)?;
        if !matches!(before.token(), Token::Declare | Token::Ascii59) {
            continue;
        }
        if !records.contains(&folded(source, name)?) {
            continue;
        }
        let declaration = after.split(|token| token.token() == Token::Ascii59).next()?;
        let is =
            |token: &ScanToken| matches!(token.token(), Token::ColonEquals | Token::Ascii61 | Token::Default);
        if let Some(at) = declaration.iter().position(is) {
            let value = declaration.get(at.checked_add(1)?..)?;
            let (first, last) = (value.first()?, value.last()?);
            let range = usize::try_from(first.start).ok()?..usize::try_from(last.end).ok()?;
            let text = source.get(range)?.to_owned();
            found.push(Piece { text, form: Form::Expression, fate: Fate::Kept });
        }
    }
    Some(found)
}

/// The name that a token stands for, as the server folds it.
fn folded(source: &str, token: &ScanToken) -> Option<String> {
    let text = text_of(source, token);
    match token.token() {
        Token::Uident => None,
        _ => match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(quoted) => Some(quoted.replace("\"\"", "\"")),
            None if token.token() == Token::Ident || token.keyword_kind() != KeywordKind::NoKeyword => {
                Some(text.to_ascii_lowercase())
            }
            None => Some(text.to_owned()),
        },
    }
}

fn text_of<'s>(source: &'s str, token: &ScanToken) -> &'s str {
    let at = |place: i32| usize::try_from(place).unwrap_or(usize::MAX);
    source.get(at(token.start)..at(token.end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &str = "DO ";

    fn pieces(source: &str) -> Vec<String> {
        let body = read(BLOCK, source, 1 << 16).unwrap_or_else(|| panic!("{source}"));
        body.pieces.iter().map(|piece| format!("{:?} {}", piece.fate, piece.text)).collect()
    }

    #[test]
    fn every_statement_gives_what_it_holds() {
        for (statement, expected) in [
            ("v := e1", "Kept v := e1"),
            ("r.a = e1", "Kept r.a = e1"),
            ("v[e1] := e2", "Kept v[e1] := e2"),
            (
                "IF e1 THEN PERFORM e2; ELSIF e3 THEN v := e4; ELSE ASSERT e5, e6; END IF",
                "Decides e1|Dropped SELECT e2|Decides e3|Kept v := e4|Decides e5|Shown e6",
            ),
            ("CASE WHEN e1 THEN v := e2; ELSE v := e3; END CASE", "Decides e1|Kept v := e2|Kept v := e3"),
            ("LOOP EXIT WHEN e1; CONTINUE WHEN e2; END LOOP", "Decides e1|Decides e2"),
            ("WHILE e1 LOOP v := e2; END LOOP", "Decides e1|Kept v := e2"),
            (
                "FOR i IN REVERSE e1..e2 BY e3 LOOP v := e4; END LOOP",
                "Decides e1|Decides e2|Decides e3|Kept v := e4",
            ),
            ("FOR r IN SELECT e1 LOOP v := e2; END LOOP", "Kept SELECT e1|Kept v := e2"),
            ("FOR r IN c(e1) LOOP v := e2; END LOOP", "Kept e1|Kept v := e2"),
            ("FOREACH v IN ARRAY e1 LOOP NULL; END LOOP", "Kept e1"),
            ("RAISE NOTICE '% %', e1, e2 USING HINT = e3", "Shown e1|Shown e2|Shown e3"),
            ("SELECT e1 INTO STRICT v FROM t", "Kept SELECT e1               FROM t"),
            ("DELETE FROM t WHERE e1", "Dropped DELETE FROM t WHERE e1"),
            ("INSERT INTO t VALUES (e1) RETURNING e2 INTO v", "Kept INSERT INTO t VALUES (e1) RETURNING e2"),
            ("OPEN k FOR SELECT e1; OPEN c(e2)", "Kept SELECT e1|Kept e2"),
            ("MOVE FORWARD e1 FROM k; CLOSE k", "Decides e1"),
            ("CALL p(e1)", "Dropped CALL p(e1)"),
            ("CALL p(e1, v)", "Dropped CALL p(e1, v)"),
            ("BEGIN v := e1; EXCEPTION WHEN division_by_zero THEN v := e2; END", "Kept v := e1|Kept v := e2"),
            ("RETURN", ""),
        ] {
            let source = format!(
                "DECLARE v text := d1; r record DEFAULT d2; k refcursor; c CURSOR (n int) FOR SELECT d3; \
                 BEGIN {statement}; END"
            );
            let mut seen = pieces(&source);
            seen.sort();
            let mut wanted: Vec<_> = ["Kept d1", "Kept d2", "Kept SELECT d3"].map(str::to_owned).to_vec();
            wanted.extend(expected.split('|').filter(|piece| !piece.is_empty()).map(str::to_owned));
            if statement.starts_with("r.a") {
                // An assignment to a field is none to the record.
                assert_eq!(seen.len(), wanted.len(), "{seen:?}");
            }
            wanted.sort();
            let squeezed = |all: Vec<String>| -> Vec<String> {
                all.iter().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
            };
            assert_eq!(squeezed(seen), squeezed(wanted), "{statement}");
        }
    }

    #[test]
    fn what_is_made_up_or_comes_from_elsewhere_is_marked() {
        let of = |statement: &str| {
            let source = format!("DECLARE v text; k refcursor; BEGIN {statement}; END");
            let body = read(BLOCK, &source, 1 << 16).unwrap_or_else(|| panic!("{statement}"));
            (body.dynamic, body.keeps_unseen)
        };
        for dynamic in [
            "EXECUTE 'x'",
            "EXECUTE 'x' INTO v USING 1",
            "FOR v IN EXECUTE 'x' LOOP END LOOP",
            "OPEN k FOR EXECUTE 'x'",
        ] {
            assert_eq!(of(dynamic), (true, false), "{dynamic}");
        }
        for unseen in [
            "FETCH k INTO v",
            "GET STACKED DIAGNOSTICS v = MESSAGE_TEXT",
            "GET STACKED DIAGNOSTICS v = PG_EXCEPTION_DETAIL",
        ] {
            assert_eq!(of(unseen), (false, true), "{unseen}");
        }
        for plain in [
            "GET DIAGNOSTICS v = ROW_COUNT",
            "MOVE k",
            "NULL",
            "GET STACKED DIAGNOSTICS v = RETURNED_SQLSTATE",
        ] {
            assert_eq!(of(plain), (false, false), "{plain}");
        }
    }

    #[test]
    fn defaults_of_records_are_found_however_written() {
        for declaration in [
            "r record := (SELECT d)",
            "r public.t = (SELECT d)",
            "\"r\" record DEFAULT (SELECT d)",
            "R CONSTANT record NOT NULL := (SELECT d)",
            "a int; r/**/record -- x\n:= (SELECT d)",
            "declare r mood := (SELECT d)",
        ] {
            let source = format!("DECLARE {declaration}; BEGIN NULL; END");
            assert_eq!(pieces(&source), ["Kept (SELECT d)"], "{declaration}");
        }
        let nested = "BEGIN DECLARE r record := (SELECT d); BEGIN NULL; END; END";
        assert_eq!(pieces(nested), ["Kept (SELECT d)"]);
    }

    #[test]
    fn what_is_not_read() {
        let long = "r".repeat(70);
        for source in [
            "",
            "BEGIN",
            "#option dump\nBEGIN END",
            "/* */ #variable_conflict use_variable\nBEGIN END",
            "DECLARE U&\"r\" record := (SELECT d); x record; BEGIN END",
            &format!("DECLARE {long} record := (SELECT d); BEGIN END"),
            "BEGIN x := 1; END",
            "BEGIN SELECT 1\0; END",
        ] {
            assert_eq!(read(BLOCK, source, 1 << 16), None, "{source}");
        }
        let deep = format!("BEGIN {}NULL; {}END", "IF a THEN ".repeat(200), "END IF; ".repeat(200));
        assert_eq!(read(BLOCK, &deep, 1 << 16), None);
        assert_eq!(read(BLOCK, "BEGIN END", 5), None);
    }
}
