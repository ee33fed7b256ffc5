//! Recordings in other forms.

use std::io::{self, Read, Write};

use serde::Serialize;

use crate::{
    event::{Event, Header},
    fault::ReadError,
    reader::{Ending, Item, Reader},
};

/// Why an export stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("writing failed: {0}")]
    Write(#[from] io::Error),
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Session(&'a Header),
    End(Ending),
}

#[derive(Serialize)]
struct Timed<'a> {
    /// Nanoseconds since the session began.
    at_ns: u64,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// One JSON object a line: the session, each event with its time, and how the file ends.
pub fn to_json_lines<R: Read>(reader: &mut Reader<R>, mut to: impl Write) -> Result<Ending, ExportError> {
    if let Some(header) = reader.header() {
        line(&mut to, &Line::Session(header))?;
    }
    while let Some(item) = reader.next_item()? {
        if let Item::Event { at_ns, event } = item {
            line(&mut to, &Timed { at_ns, event: &event })?;
        }
    }
    let ending = reader.ending().unwrap_or(Ending::Unsealed { offset: reader.offset(), partial: 0 });
    line(&mut to, &Line::End(ending))?;
    Ok(ending)
}

fn line(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *to, value)?;
    to.write_all(b"\n")
}
