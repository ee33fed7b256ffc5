//! DataRow cells, rewritten.

use mask::{Detectors, Key, Masked};

use super::{
    kind::Kind,
    plan::{Cell, Plan},
};
use crate::postgres::message::{Malformed, Reader};

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    /// It may be relayed as it is; nothing was appended.
    Same,
    /// Its replacement was appended; as many cells differ.
    Changed(u64),
}

/// Buffers that rewriting uses again and again.
#[derive(Debug, Default)]
pub(crate) struct Rewriter {
    plain: Vec<u8>,
    hidden: Vec<u8>,
}

impl Rewriter {
    /// Appends the body of a masked DataRow to `out`, if anything in it has to change.
    pub(crate) fn row(
        &mut self,
        plan: &Plan,
        key: &Key,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Row, Malformed> {
        let start = out.len();
        let mut reader = Reader::new(body);
        let count = usize::from(reader.u16()?);
        let mut changed = 0;
        // Up to here the input is copied or need not be.
        let mut copied = 0;
        for at in 0..count {
            let begin = body.len() - reader.rest().len();
            let cell = reader.value()?;
            let plan_cell = plan.cell(at, count).ok_or(Malformed)?;
            let Some(cell) = cell else { continue };
            let replacement = match plan_cell {
                Cell::Pass => continue,
                Cell::Null => None,
                Cell::Mask(transform, kind) => self.mask(transform, kind, key, cell),
                Cell::Detect(kind) => match self.detect(plan.detectors.as_deref(), kind, cell) {
                    Found::Nothing => continue,
                    Found::Text => Some(self.hidden.as_slice()),
                    Found::Null => None,
                },
            };
            out.extend_from_slice(body.get(copied..begin).ok_or(Malformed)?);
            value(out, replacement);
            copied = body.len() - reader.rest().len();
            changed += 1;
        }
        reader.end()?;
        if changed == 0 {
            out.truncate(start);
            return Ok(Row::Same);
        }
        out.extend_from_slice(body.get(copied..).ok_or(Malformed)?);
        Ok(Row::Changed(changed))
    }

    /// The replacement of a cell; `None` is NULL.
    pub(crate) fn mask(
        &mut self,
        transform: mask::Transform,
        kind: Kind,
        key: &Key,
        cell: &[u8],
    ) -> Option<&[u8]> {
        self.hidden.clear();
        match kind {
            Kind::Text => match transform.apply(key, cell, &mut self.hidden) {
                Masked::Text => Some(&self.hidden),
                Masked::Null => None,
            },
            Kind::Json | Kind::Jsonb => {
                let text = if kind == Kind::Jsonb { cell.get(1..).unwrap_or_default() } else { cell };
                self.plain.clear();
                match transform.apply(key, unquoted(text), &mut self.plain) {
                    Masked::Null => return None,
                    Masked::Text => {}
                }
                if kind == Kind::Jsonb {
                    self.hidden.push(JSONB_VERSION);
                }
                json_string(&self.plain, &mut self.hidden);
                Some(&self.hidden)
            }
            Kind::Typed(of, format) => match transform.apply_typed(key, of, format, cell, &mut self.hidden) {
                Masked::Text => Some(&self.hidden),
                Masked::Null => None,
            },
            Kind::Container | Kind::Opaque => None,
        }
    }

    /// What the last call put in a value's place.
    pub(crate) fn hidden(&self) -> &[u8] {
        &self.hidden
    }

    /// What detectors make of a cell; for [`Found::Text`] the replacement is in `hidden`.
    pub(crate) fn detect(&mut self, detectors: Option<&Detectors>, kind: Kind, cell: &[u8]) -> Found {
        let Some(detectors) = detectors else { return Found::Nothing };
        self.hidden.clear();
        match kind {
            Kind::Opaque | Kind::Typed(..) => Found::Nothing,
            Kind::Text => match detectors.rewrite(cell, &mut self.hidden) {
                true => Found::Text,
                false => Found::Nothing,
            },
            Kind::Container => match detectors.rewrite(cell, &mut self.hidden) {
                true => Found::Null,
                false => Found::Nothing,
            },
            Kind::Json | Kind::Jsonb => {
                let text = if kind == Kind::Jsonb { cell.get(1..).unwrap_or_default() } else { cell };
                self.plain.clear();
                if !detectors.rewrite(text, &mut self.plain) {
                    return Found::Nothing;
                }
                if kind == Kind::Jsonb {
                    self.hidden.push(JSONB_VERSION);
                }
                match serde_json::from_slice::<serde::de::IgnoredAny>(&self.plain) {
                    Ok(_) => self.hidden.extend_from_slice(&self.plain),
                    Err(_) => json_string(&self.plain, &mut self.hidden),
                }
                Found::Text
            }
        }
    }

    /// What detectors make of free text: the replacement, if they find anything.
    pub(crate) fn text(&mut self, detectors: &Detectors, text: &[u8]) -> Option<&[u8]> {
        self.hidden.clear();
        detectors.rewrite(text, &mut self.hidden).then_some(&self.hidden)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Text,
    Null,
}

const JSONB_VERSION: u8 = 1;

/// Appends a length and the bytes, or the length that means NULL.
pub(crate) fn value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => out.extend_from_slice(&(-1i32).to_be_bytes()),
        Some(bytes) => {
            // Replacements are a little longer than messages whose length fits 31 bits.
            out.extend_from_slice(&i32::try_from(bytes.len()).unwrap_or(i32::MAX).to_be_bytes());
            out.extend_from_slice(bytes);
        }
    }
}

/// The inside of a JSON string, so that a partial mask shows the value's ends and not its quotes.
fn unquoted(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(json)
}

/// Appends text as a JSON string.
fn json_string(text: &[u8], out: &mut Vec<u8>) {
    // Writing a string to a Vec does not fail.
    let _ = serde_json::to_writer(&mut *out, &String::from_utf8_lossy(text));
}
