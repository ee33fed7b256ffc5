//! Texts that differ only in numbers they compare with.
//!
//! Programs that do not use parameters send a new text with every key. Two texts of one shape get the same analysis,
//! so an answer to one may be used for the other. That holds because only such numbers are taken out that stand alone on
//! the right of a comparison or an assignment (`id = 5`), and that are of type `int4` whichever they are; not positions
//! (`ORDER BY 2`), arguments, types, or limits. It is for statements that read or change rows: see
//! [`shape_counts`]. When in doubt, a text has no shape.

/// Stands for a number. Texts that hold it have no shape.
const NUMBER: u8 = 1;

/// Up to this many digits always make an `int4`.
const DIGITS: usize = 9;

/// Statements of these kinds are analysed alike whatever the numbers are.
pub fn shape_counts(kinds: &[&str]) -> bool {
    !kinds.is_empty() && kinds.iter().all(|kind| matches!(*kind, "select" | "insert" | "update" | "delete"))
}

/// Puts the shape of `sql` into `shape`; false when it has none, or is its own.
pub fn shape(sql: &str, shape: &mut Vec<u8>) -> bool {
    shape.clear();
    let text = sql.as_bytes();
    // Backslashes change where some strings end.
    if memchr::memchr2(b'\\', NUMBER, text).is_some() {
        return false;
    }
    let mut rest = text;
    let mut compares = false;
    let mut numbers = false;
    while let Some(&first) = rest.first() {
        let length = match first {
            b' ' | b'\t' | b'\n' | b'\r' => {
                shape.push(first);
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            // A doubled quote ends one and begins the next: the same bytes.
            b'"' | b'\'' => match memchr::memchr(first, rest.get(1..).unwrap_or_default()) {
                Some(at) => at + 2,
                None => return false,
            },
            // `$1` is a parameter, everything else a string in dollars.
            b'$' => match run(rest.get(1..).unwrap_or_default(), |byte| byte.is_ascii_digit()) {
                0 => return false,
                digits => digits + 1,
            },
            b'0'..=b'9' => run(rest, |byte| word(byte) || byte == b'.'),
            _ if word(first) => run(rest, word),
            _ if operator(first) => run(rest, operator),
            _ => 1,
        };
        let (token, after) = rest.split_at_checked(length).unwrap_or((rest, b""));
        let value =
            compares && token.len() <= DIGITS && token.iter().all(u8::is_ascii_digit) && ends_operand(after);
        match value {
            true => shape.push(NUMBER),
            false => shape.extend_from_slice(token),
        }
        numbers |= value;
        if operator(first) && (token.windows(2).any(|pair| pair == b"--" || pair == b"/*")) {
            return false;
        }
        compares = matches!(token, b"=" | b"<" | b">" | b"<=" | b">=" | b"<>" | b"!=");
        rest = after;
    }
    numbers
}

/// Whether what follows leaves the number before it an operand of its own.
fn ends_operand(after: &[u8]) -> bool {
    let after = after.trim_ascii_start();
    match after.first() {
        None | Some(b';' | b')' | b',') => true,
        Some(_) => {
            let length = run(after, word);
            let next = after.get(..length).unwrap_or_default();
            [&b"and"[..], b"or", b"order", b"group", b"limit", b"returning", b"where", b"for"]
                .iter()
                .any(|keyword| next.eq_ignore_ascii_case(keyword))
        }
    }
}

fn run(text: &[u8], of: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|byte| !of(*byte)).unwrap_or(text.len())
}

/// What names, keywords and numbers are made of.
fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

fn operator(byte: u8) -> bool {
    matches!(
        byte,
        b'+' | b'-'
            | b'*'
            | b'/'
            | b'<'
            | b'>'
            | b'='
            | b'~'
            | b'!'
            | b'@'
            | b'#'
            | b'%'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
            | b':'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> Option<String> {
        let mut out = Vec::new();
        shape(sql, &mut out).then(|| String::from_utf8(out).unwrap().replace('\u{1}', "N"))
    }

    #[test]
    fn numbers_that_are_compared_with_are_taken_out() {
        for (sql, shape) in [
            ("SELECT a FROM t WHERE id = 123;", "SELECT a FROM t WHERE id = N;"),
            ("SELECT a FROM t WHERE id=5 and b<>6", "SELECT a FROM t WHERE id=N and b<>N"),
            ("UPDATE t SET a = 1, b = a + 2 WHERE id = 3", "UPDATE t SET a = N, b = a + 2 WHERE id = N"),
            (
                "SELECT 'x = 1', \"y = 2\" FROM t WHERE (id >= 3) ORDER BY 2",
                "SELECT 'x = 1', \"y = 2\" FROM t WHERE (id >= N) ORDER BY 2",
            ),
            ("SELECT 'it''s = 1' WHERE a = 1", "SELECT 'it''s = 1' WHERE a = N"),
            ("SELECT a1 FROM t2 WHERE a1 = $1 AND b = 7", "SELECT a1 FROM t2 WHERE a1 = $1 AND b = N"),
        ] {
            assert_eq!(of(sql).as_deref(), Some(shape), "{sql}");
        }
    }

    #[test]
    fn other_numbers_stay() {
        for sql in [
            "SELECT 1",
            "SELECT a FROM t ORDER BY 2",
            "SELECT a FROM t LIMIT 5",
            "SELECT f(5)",
            "SELECT f(a => 5)",
            "SELECT a FROM t WHERE id = 5::regclass",
            "SELECT a FROM t WHERE id = 5 + 6",
            "SELECT a FROM t WHERE id = -5",
            "SELECT a FROM t WHERE id = 1.5",
            "SELECT a FROM t WHERE id = 1234567890",
            "SELECT a FROM t WHERE id = 0x10",
            "SELECT a FROM t WHERE id = 5[1]",
            "SELECT a FROM t WHERE id @> 5",
            "SELECT a FROM t WHERE id = $1",
            "SELECT a FROM t WHERE id IN (1, 2)",
            "SELECT 'a = 5'",
        ] {
            assert_eq!(of(sql), None, "{sql}");
        }
    }

    #[test]
    fn texts_that_are_hard_to_cut_have_no_shape() {
        for sql in [
            "SELECT a FROM t WHERE id = 5 -- AND x = 6",
            "SELECT a FROM t WHERE /* x = 5 */ id = 5",
            "SELECT E'\\'' FROM t WHERE id = 5",
            "SELECT $$ x = 5 $$ FROM t WHERE id = 5",
            "SELECT $a$ x = 5 $a$ FROM t WHERE id = 5",
            "SELECT 'open FROM t WHERE id = 5",
            "SELECT '\u{1}' FROM t WHERE id = 5",
        ] {
            assert_eq!(of(sql), None, "{sql}");
        }
    }

    #[test]
    fn only_rows_are_read_or_changed() {
        assert!(shape_counts(&["select", "update"]));
        assert!(!shape_counts(&["select", "set"]));
        assert!(!shape_counts(&[]));
    }
}
