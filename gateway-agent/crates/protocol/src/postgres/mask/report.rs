//! Errors, notices and notifications: they quote values.

use std::sync::Arc;

use mask::Detectors;
use policy::{Obligations, OutputMasks};

use super::row::Rewriter;
use crate::postgres::message::{Malformed, Reader, cstr, frame, report};

/// What reports of this session must not carry. It only ever grows: the server may still speak of a value long
/// after the statement that touched it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Veil {
    /// Some column is masked: fields that quote values are dropped.
    pub(crate) masks: bool,
    pub(crate) detectors: Option<Arc<Detectors>>,
}

const WITHHELD: &[u8] = b"the message is withheld, since it could quote masked values";

impl Veil {
    /// A statement with these obligations is about to run.
    pub(crate) fn draw(&mut self, obligations: &Obligations) {
        self.masks |= obligations.columns.is_some() || !matches!(obligations.outputs, OutputMasks::None);
        if let Some(detectors) = &obligations.detectors
            && !self.detectors.as_ref().is_some_and(|known| Arc::ptr_eq(known, detectors))
        {
            self.detectors = Some(Arc::clone(detectors));
        }
    }

    pub(crate) fn lifted(&self) -> bool {
        !self.masks && self.detectors.is_none()
    }

    /// Appends an ErrorResponse or NoticeResponse with its telling fields dropped or rewritten. `inert`: the server is at
    /// a command that evaluates nothing.
    pub(crate) fn report(
        &self,
        rewriter: &mut Rewriter,
        tag: u8,
        body: &[u8],
        inert: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        // What says nothing of where it comes from may quote anything.
        let (mut quotes, mut names) = (true, false);
        let (mut data, mut wordy) = (false, false);
        // What is looked up while a statement runs (`secret::regclass`) has a name that comes from a value; what is
        // looked up in the statement's own text has a position there, or the statement has nothing but names. Functions
        // that it sets off say so in a context.
        let (mut looked_up, mut positioned, mut inside) = (false, false, false);
        let mut raised = false;
        report::fields(body, |letter, text| match letter {
            b'C' => {
                (quotes, names) = (!plain(text), text.starts_with(b"42"));
                data = text.starts_with(b"22");
                looked_up = may_be_looked_up(text);
            }
            b'P' => positioned = true,
            b'W' => inside = true,
            b'M' => wordy = text.iter().all(|byte| byte.is_ascii_alphabetic() || b" ,-".contains(byte)),
            b'F' => raised |= text == b"pl_exec.c",
            b'V' => raised |= text.starts_with(b"DEBUG") || text == b"LOG",
            _ => {}
        })?;
        // The server quotes values in its own messages about data: "division by zero" has none.
        let looked_up = looked_up && !positioned && (inside || !inert);
        let quotes = (quotes && !(data && wordy)) || looked_up;
        let names = names && !looked_up;
        let withhold = self.masks && (quotes || raised);
        let drop = self.masks && (!names || raised);
        let mut result = Ok(());
        frame(out, tag, |out| {
            result = report::fields(body, |letter, text| {
                let kept = match letter {
                    // Severity, code and the place in the server's source quote nothing.
                    b'S' | b'V' | b'C' | b'F' | b'L' | b'R' | b'P' => Some(text),
                    b'M' if withhold => Some(WITHHELD),
                    // Detail and hint, where they are not about syntax and names of objects.
                    b'D' | b'H' if drop => None,
                    b'W' | b'q' | b'p' if self.masks => None,
                    _ => match &self.detectors {
                        Some(detectors) => rewriter.text(detectors, text).or(Some(text)),
                        None => Some(text),
                    },
                };
                if let Some(text) = kept {
                    out.push(letter);
                    cstr(out, text);
                }
            });
            out.push(0);
        });
        result
    }

    /// Appends a NotificationResponse with its payload rewritten.
    pub(crate) fn notification(
        &self,
        rewriter: &mut Rewriter,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        let mut reader = Reader::new(body);
        let pid = reader.take(4)?;
        let channel = reader.cstr()?;
        let payload = reader.cstr()?;
        reader.end()?;
        frame(out, b'A', |out| {
            out.extend_from_slice(pid);
            cstr(out, channel);
            let hidden = self.detectors.as_ref().and_then(|detectors| rewriter.text(detectors, payload));
            cstr(out, hidden.unwrap_or(payload));
        });
        Ok(())
    }
}

/// Messages of this SQLSTATE name something that was not found, or a connection string, a file, a cursor.
fn may_be_looked_up(sqlstate: &[u8]) -> bool {
    let class = sqlstate.get(..2).unwrap_or_default();
    // Refused rights and names that are taken are those of objects that there are.
    let there =
        [&b"42501"[..], b"42710", b"42P03", b"42P04", b"42P05", b"42P06", b"42P07"].contains(&sqlstate);
    [b"08", b"34", b"3D", b"3F", b"42", b"58"].iter().any(|known| known.as_slice() == class) && !there
}

/// Messages of this SQLSTATE's class name objects, not values.
fn plain(sqlstate: &[u8]) -> bool {
    let class = sqlstate.get(..2).unwrap_or_default();
    // 00 success, 01 warning, 02 no data, 03 not yet complete, 08 connection, 0A not supported, 23 integrity
    // constraint (values are in DETAIL), 24 cursor state, 25 transaction state, 26 statement name, 28
    // authorization, 2B, 2D transaction termination, 34 cursor name, 3B savepoint, 3D, 3F names, 40 rollback, 42
    // syntax and access, 53 resources, 54 limits, 55 object state, 57 operator, 58 system.
    [
        b"00", b"01", b"02", b"03", b"08", b"0A", b"23", b"24", b"25", b"26", b"28", b"2B", b"2D", b"34",
        b"3B", b"3D", b"3F", b"40", b"42", b"53", b"54", b"55", b"57", b"58",
    ]
    .iter()
    .any(|known| known.as_slice() == class)
}
