//! Result rows as text: the text format of PostgreSQL's COPY. A row is a line, cells are separated by tabs,
//! `\N` is null, and backslash, tab, newline and carriage return inside a cell are escaped.

/// Appends one row.
pub fn push_row<'a>(to: &mut Vec<u8>, cells: impl IntoIterator<Item = Option<&'a [u8]>>) {
    for (i, cell) in cells.into_iter().enumerate() {
        if i > 0 {
            to.push(b'\t');
        }
        match cell {
            None => to.extend_from_slice(b"\\N"),
            Some(cell) => push_cell(to, cell),
        }
    }
    to.push(b'\n');
}

/// What cannot stand for itself.
fn is_special(byte: u8) -> bool {
    matches!(byte, b'\\' | b'\t' | b'\n' | b'\r')
}

fn push_cell(to: &mut Vec<u8>, cell: &[u8]) {
    // Most cells have none; looking at every byte without a way out early is what the compiler can do for many at once.
    if !cell.iter().fold(false, |any, byte| any | is_special(*byte)) {
        return to.extend_from_slice(cell);
    }
    for part in cell.split_inclusive(|byte| is_special(*byte)) {
        let Some((last, rest)) = part.split_last() else { continue };
        let escape = match last {
            b'\\' => b'\\',
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            _ => {
                to.extend_from_slice(part);
                continue;
            }
        };
        to.extend_from_slice(rest);
        to.extend_from_slice(&[b'\\', escape]);
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_cannot_pass_for_two_cells_or_rows_or_null() {
        let mut out = Vec::new();
        push_row(&mut out, [Some(&b"a\tb"[..]), None, Some(b"x\ny\r"), Some(b"\\N"), Some(b"")]);
        assert_eq!(out, b"a\\tb\t\\N\tx\\ny\\r\t\\\\N\t\n");
    }
}
