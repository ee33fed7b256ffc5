//! Output: JSON for programs, tables and sentences for people.

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets};
use policy::UnixTime;
use serde::Serialize;

/// Pretty JSON on standard output.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// One line on standard output.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Bytes as they are, at once.
pub(super) fn bytes(data: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(data)?;
    Ok(out.flush()?)
}

/// A table, or `empty` when there are no rows.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>, empty: &str) -> anyhow::Result<()> {
    if rows.is_empty() {
        return line(empty);
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    line(&table.to_string())
}

/// Key and value, one a line, keys aligned.
pub(super) fn pairs(pairs: &[(&str, String)]) -> anyhow::Result<()> {
    let width = pairs.iter().map(|(k, _)| k.len()).max().unwrap_or(0);
    for (key, value) in pairs {
        let indent = format!("\n{:width$}  ", "");
        line(&format!("{key:width$}  {}", printable(value).replace('\n', &indent)))?;
    }
    Ok(())
}

/// What others wrote, without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => c,
            '\t' => ' ',
            c if c.is_control() || is_bidi(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Marks that reorder what is read: an approver must see statements as they run.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}')
}

/// `3m 5s ago`.
pub(super) fn ago(t: UnixTime) -> String {
    let seconds = now().saturating_sub(t.0);
    format!("{} ago", humantime::format_duration(std::time::Duration::from_secs(seconds)))
}

/// `in 3m 5s`, or `over`.
pub(super) fn left(t: UnixTime) -> String {
    match t.0.saturating_sub(now()) {
        0 => "over".into(),
        seconds => format!("in {}", humantime::format_duration(std::time::Duration::from_secs(seconds))),
    }
}

fn now() -> u64 {
    crate::identity::Clock::now(&crate::identity::SystemClock).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_control_and_reordering_marks_are_not_printed() {
        assert_eq!(printable("a\x1b[2Jb\r\u{202e}c\n\td"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\n d");
    }
}
