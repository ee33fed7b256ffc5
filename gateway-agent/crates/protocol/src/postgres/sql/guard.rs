//! What is refused before a parser sees it.
//!
//! Two shapes of text are cheap to send and dear to parse. Deep nesting becomes recursion: in libpg_query's
//! encoder, in the decoder of its tree, in sqlparser, in dropping either tree. And `SET (a, b) = (…)` puts the
//! same source below every column in the parse tree, which the encoder then writes out once a column: nested,
//! a kilobyte of text becomes gigabytes of tree. Both are bounded here from the tokens, with the server's own
//! lexer, in linear time and without recursion.

use pg_query::protobuf::{ScanToken, Token};

use super::Refused;

/// Upper bound on levels of the parse tree. Frames of the deepest recursion stay below 40 MiB.
const MAX_LEVELS: usize = 4000;

/// Upper bound on tokens after multi-column assignments have been written out.
const MAX_COPIES: usize = 1 << 20;

/// Statements shorter than this cannot nest deeper than [`MAX_LEVELS`]: every level takes a byte.
const SHORT: usize = MAX_LEVELS;

pub(super) fn check(sql: &str, max_bytes: usize) -> Result<(), Refused> {
    if sql.len() > max_bytes {
        return Err(Refused::new(
            format!("the statement has {} bytes, more than the limit of {max_bytes}", sql.len()),
            "send large values as parameters or by COPY, and long scripts in pieces",
        ));
    }
    if memchr::memchr(0, sql.as_bytes()).is_some() {
        return Err(Refused::new(
            "the statement contains a NUL byte",
            "remove it: PostgreSQL has no such text",
        ));
    }
    if sql.len() < SHORT && !may_assign_many(sql.as_bytes()) {
        return Ok(());
    }
    let tokens = pg_query::scan(sql)
        .map_err(|error| Refused::new(format!("not valid SQL: {error}"), "check quotes and comments"))?
        .tokens;
    if levels(&tokens) > MAX_LEVELS {
        return Err(Refused::too_complex("it nests too deeply"));
    }
    if copies(&tokens).is_none_or(|copies| copies > MAX_COPIES) {
        return Err(Refused::too_complex("its multi-column assignments repeat too much"));
    }
    Ok(())
}

/// Whether a closing parenthesis is followed by an equals sign, or by a comment that may hide one.
fn may_assign_many(sql: &[u8]) -> bool {
    memchr::memchr_iter(b')', sql).any(|at| {
        let rest = sql.get(at.saturating_add(1)..).unwrap_or_default();
        let next = rest.iter().find(|byte| !byte.is_ascii_whitespace() && **byte != 0x0b);
        matches!(next, Some(b'=' | b'/' | b'-'))
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opener {
    Paren,
    Case,
}

/// One open parenthesis, bracket or CASE.
#[derive(Clone, Copy)]
struct Level {
    opener: Opener,
    /// Tokens since the last separator that lists are flat across.
    segment: usize,
    /// Deepest thing inside the segment.
    inner: usize,
    /// Deepest finished segment.
    deepest: usize,
    /// Set operations, which nest one level each and which commas do not separate.
    unions: usize,
}

impl Level {
    const fn new(opener: Opener) -> Self {
        Self { opener, segment: 0, inner: 0, deepest: 0, unions: 0 }
    }

    fn end_segment(&mut self) {
        self.deepest = self.deepest.max(self.segment.saturating_add(self.inner));
        self.segment = 0;
        self.inner = 0;
    }

    fn depth(mut self) -> usize {
        self.end_segment();
        self.deepest.saturating_add(self.unions).saturating_add(1)
    }
}

/// Upper bound on the depth of the tree: no token nests anything by more than one level, AND, OR and lists are
/// flat, and set operations nest once each.
fn levels(tokens: &[ScanToken]) -> usize {
    let mut stack: Vec<Level> = Vec::new();
    let mut top = Level::new(Opener::Paren);
    let mut deepest = 0;
    for token in tokens {
        let kind = token.token();
        top.segment = top.segment.saturating_add(1);
        match kind {
            Token::Ascii40 | Token::Ascii91 => stack.push(replace(&mut top, Opener::Paren)),
            Token::Case => stack.push(replace(&mut top, Opener::Case)),
            Token::Ascii41 | Token::Ascii93 if top.opener == Opener::Paren => close(&mut stack, &mut top),
            Token::EndP if top.opener == Opener::Case => close(&mut stack, &mut top),
            Token::Ascii44 | Token::And | Token::Or | Token::When => top.end_segment(),
            Token::Union | Token::Intersect | Token::Except => {
                top.end_segment();
                top.unions = top.unions.saturating_add(1);
            }
            Token::Ascii59 if stack.is_empty() => {
                deepest = deepest.max(top.depth());
                top = Level::new(Opener::Paren);
            }
            _ => {}
        }
    }
    while !stack.is_empty() {
        close(&mut stack, &mut top);
    }
    deepest.max(top.depth())
}

fn replace(top: &mut Level, opener: Opener) -> Level {
    std::mem::replace(top, Level::new(opener))
}

fn close(stack: &mut Vec<Level>, top: &mut Level) {
    let depth = top.depth();
    if let Some(mut outer) = stack.pop() {
        outer.inner = outer.inner.max(depth);
        *top = outer;
    }
}

/// Upper bound on tokens once every `(a, b, …) = source` that may be an assignment has its source written out
/// once per column, taking all of them as nested. `None` = beyond counting.
fn copies(tokens: &[ScanToken]) -> Option<usize> {
    let mut copies = tokens.len().max(1);
    // Columns in each open parenthesis, and whether what stands before it allows an assignment.
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut closed: Option<(usize, bool)> = None;
    let mut before = Token::Nul;
    for token in tokens.iter().map(ScanToken::token) {
        if matches!(token, Token::SqlComment | Token::CComment) {
            continue;
        }
        match token {
            Token::Ascii40 => open.push((1, matches!(before, Token::Set | Token::Ascii44))),
            Token::Ascii44 => {
                if let Some((columns, _)) = open.last_mut() {
                    *columns = columns.saturating_add(1);
                }
            }
            Token::Ascii61 => {
                if let Some((columns, true)) = closed {
                    copies = copies.checked_mul(columns)?;
                }
            }
            _ => {}
        }
        closed = if token == Token::Ascii41 { open.pop() } else { None };
        before = token;
    }
    Some(copies)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(sql: &str) -> Vec<ScanToken> {
        pg_query::scan(sql).unwrap().tokens
    }

    #[test]
    fn flat_text_is_shallow_however_long() {
        let list = format!("SELECT {}", vec!["1"; 20_000].join(", "));
        assert!(levels(&tokens(&list)) < 20);
        let ors = format!("SELECT 1 WHERE {}", vec!["a = 1"; 10_000].join(" OR "));
        assert!(levels(&tokens(&ors)) < 20);
        let values = format!("INSERT INTO t VALUES {}", vec!["(1, -2, 'x' || 'y')"; 3_000].join(", "));
        assert!(levels(&tokens(&values)) < 30);
        let arms = format!("SELECT CASE {} END", vec!["WHEN a = 1 THEN 2"; 3_000].join(" "));
        assert!(levels(&tokens(&arms)) < 30);
        let statements = vec!["SELECT 1"; 9_000].join(";");
        assert!(levels(&tokens(&statements)) < 20);
    }

    #[test]
    fn nested_text_is_deep() {
        for (open, close, times) in [
            ("(", ")", 9_000),
            ("1+", "", 9_000),
            ("CASE WHEN true AND ", " THEN 1 END", 1_500),
            ("- ", "", 9_000),
        ] {
            let sql = format!("SELECT {}1{}", open.repeat(times), close.repeat(times));
            assert!(levels(&tokens(&sql)) >= times, "{open}");
        }
        let unions = vec!["SELECT 1, 2"; 5_000].join(" UNION ALL ");
        assert!(levels(&tokens(&unions)) >= 4_999);
        let tail = format!("SELECT (((1){})){}", "+1".repeat(2_000), "+1".repeat(2_000));
        assert!(levels(&tokens(&tail)) >= 4_000);
    }

    #[test]
    fn nested_assignments_multiply() {
        let mut sql = "SELECT 1, 2".to_owned();
        for _ in 0..30 {
            sql = format!("WITH y AS (UPDATE t SET (a, b) = ({sql}) RETURNING 1) SELECT 1, 2");
        }
        assert!(copies(&tokens(&sql)).is_none_or(|copies| copies > MAX_COPIES));
        assert!(check(&sql, 1 << 16).is_err());
        let keys = format!("SELECT 1 WHERE {}", vec!["(a, b) = (1, 2)"; 200].join(" OR "));
        assert!(check(&keys, 1 << 16).is_ok());
        assert!(check("UPDATE t SET (a, b, c) = (SELECT 1, 2, 3), (d, e) = (1, 2)", 1 << 16).is_ok());
    }

    #[test]
    fn length_and_nul() {
        assert!(check("SELECT 1", 7).unwrap_err().reason.contains("8 bytes"));
        assert!(check("SELECT 1\0; DROP TABLE t", 100).unwrap_err().reason.contains("NUL"));
    }
}
