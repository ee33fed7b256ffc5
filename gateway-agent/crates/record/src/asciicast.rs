//! One channel of a recording as asciicast v2, which terminals' players show.
//!
//! <https://docs.asciinema.org/manual/asciicast/v2/>

use std::io::{self, Read, Write};

use serde_json::{Value, json};

use crate::{
    event::{Event, Stream},
    export::ExportError,
    fault::ReadError,
    reader::{Item, Reader},
};

/// What players assume of a channel that had no terminal.
const COLUMNS: u64 = 80;
const ROWS: u64 = 24;

/// Why there is no cast.
#[derive(Debug, thiserror::Error)]
pub enum CastError {
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("the recording has no channel {0}")]
    NoChannel(u64),
}

impl From<io::Error> for CastError {
    fn from(error: io::Error) -> Self {
        Self::Export(error.into())
    }
}

impl From<ReadError> for CastError {
    fn from(error: ReadError) -> Self {
        Self::Export(error.into())
    }
}

/// The channels of a recording: number, and what they carried.
pub fn channels<R: Read>(reader: &mut Reader<R>) -> Result<Vec<(u64, String)>, ReadError> {
    let mut found = Vec::new();
    while let Some(item) = reader.next_item()? {
        if let Item::Event { event: Event::Channel { channel, what, .. }, .. } = item {
            found.push((channel, what.into_owned()));
        }
    }
    Ok(found)
}

/// Writes what a channel showed, with its timing; `input`: also what was typed. Text that is not UTF-8 is shown with the
/// replacement character.
pub fn to_asciicast<R: Read>(
    reader: &mut Reader<R>,
    wanted: u64,
    input: bool,
    mut to: impl Write,
) -> Result<(), CastError> {
    let started = reader.header().map_or(0, |header| header.started_unix_ns);
    let mut cast =
        Cast { begun: None, size: (COLUMNS, ROWS), term: String::new(), tails: Default::default() };
    let mut title = None;
    while let Some(item) = reader.next_item()? {
        let Item::Event { at_ns, event } = item else { continue };
        match event {
            // Comes before everything that the channel carries, and after the size of its terminal.
            Event::Channel { channel, what, .. } if channel == wanted => {
                title = Some(what.clone().into_owned());
                cast.begin(at_ns, started, &what, &mut to)?;
            }
            Event::Terminal { channel, columns, rows, term } if channel == wanted => match cast.begun {
                None => {
                    cast.size = (or(columns, COLUMNS), or(rows, ROWS));
                    cast.term = term.into_owned();
                }
                Some(_) => cast.event(at_ns, "r", &format!("{columns}x{rows}"), &mut to)?,
            },
            Event::Data { channel, stream, data }
                if channel == wanted && (stream != Stream::Input || input) =>
            {
                cast.data(at_ns, stream, &data, &mut to)?;
            }
            _ => {}
        }
    }
    match title {
        None => Err(CastError::NoChannel(wanted)),
        Some(_) => {
            cast.rest(&mut to)?;
            Ok(to.flush()?)
        }
    }
}

struct Cast {
    /// When the channel began, in the session's time.
    begun: Option<u64>,
    size: (u64, u64),
    term: String,
    /// The beginning of a character whose end comes with the stream's next bytes, and when it came.
    tails: [(u64, Vec<u8>); 3],
}

impl Cast {
    fn begin(&mut self, at_ns: u64, started: u64, title: &str, to: &mut impl Write) -> io::Result<()> {
        self.begun = Some(at_ns);
        let (width, height) = self.size;
        let mut header = json!({
            "version": 2,
            "width": width,
            "height": height,
            "timestamp": started.saturating_add(at_ns) / 1_000_000_000,
            "title": title,
        });
        if let (false, Value::Object(fields)) = (self.term.is_empty(), &mut header) {
            fields.insert("env".into(), json!({ "TERM": self.term }));
        }
        writeln!(to, "{header}")
    }

    fn data(&mut self, at_ns: u64, stream: Stream, data: &[u8], to: &mut impl Write) -> io::Result<()> {
        let (code, slot) = match stream {
            Stream::Input => ("i", 0),
            Stream::Output => ("o", 1),
            Stream::Error => ("o", 2),
        };
        let Some((_, tail)) = self.tails.get_mut(slot) else { return Ok(()) };
        let mut bytes = std::mem::take(tail);
        bytes.extend_from_slice(data);
        let whole = bytes.len().saturating_sub(unfinished(&bytes));
        let rest = bytes.split_off(whole);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some(kept) = self.tails.get_mut(slot) {
            *kept = (at_ns, rest);
        }
        match text.is_empty() {
            true => Ok(()),
            false => self.event(at_ns, code, &text, to),
        }
    }

    /// Characters that never ended.
    fn rest(&mut self, to: &mut impl Write) -> io::Result<()> {
        for (slot, code) in ["i", "o", "o"].into_iter().enumerate() {
            let Some((at_ns, tail)) = self.tails.get_mut(slot).map(std::mem::take) else { continue };
            if !tail.is_empty() {
                self.event(at_ns, code, &String::from_utf8_lossy(&tail), to)?;
            }
        }
        Ok(())
    }

    fn event(&self, at_ns: u64, code: &str, text: &str, to: &mut impl Write) -> io::Result<()> {
        let at = at_ns.saturating_sub(self.begun.unwrap_or(at_ns));
        let (seconds, micros) = (at / 1_000_000_000, at / 1000 % 1_000_000);
        writeln!(to, "[{seconds}.{micros:06}, {}, {}]", json!(code), json!(text))
    }
}

/// How many bytes at the end are the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(_) => 0,
        Err(error) => {
            // Anything wrong before the end is replaced; only an end that may still become a character is kept.
            let last = bytes.iter().rev().take(3).position(|byte| byte & 0xc0 != 0x80);
            let from = last.map(|back| bytes.len().saturating_sub(back).saturating_sub(1));
            let tail = from.and_then(|from| bytes.get(from..)).unwrap_or_default();
            match (error.error_len(), std::str::from_utf8(tail)) {
                (None, _) => bytes.len().saturating_sub(error.valid_up_to()),
                (Some(_), Err(tail_error)) if tail_error.error_len().is_none() => tail.len(),
                _ => 0,
            }
        }
    }
}

fn or(value: u64, instead: u64) -> u64 {
    if value == 0 { instead } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_in_two_pieces_is_kept_together() {
        let euro = "€".as_bytes();
        assert_eq!(unfinished(b"abc"), 0);
        assert_eq!(unfinished(&euro[..1]), 1);
        assert_eq!(unfinished(&euro[..2]), 2);
        assert_eq!(unfinished(euro), 0);
        // What cannot become a character is not waited for.
        assert_eq!(unfinished(b"\xff"), 0);
        assert_eq!(unfinished(b"\xffab"), 0);
        assert_eq!(unfinished(&[b"\xff", &euro[..2]].concat()), 2);
    }
}
