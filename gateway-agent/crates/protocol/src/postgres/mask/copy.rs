//! COPY … TO STDOUT data, rewritten.
//!
//! The server sends one row per CopyData message; data of which that is not true is malformed, and ends the
//! session. COPY names neither types nor origins: masks count by position, and types are known of a table's own columns
//! only. Others are text; in the binary format, what has to be hidden of them becomes NULL.

use std::sync::Arc;

use mask::{Detectors, Key, Masked, Transform};
use policy::{Obligations, OutputMasks, Recording};

use super::{
    kind::Kind,
    row::{Found, Rewriter, Row, value},
};
use crate::postgres::{
    CopyData, CopyOptions, CopyText,
    message::{Malformed, Reader},
};

/// A running COPY to the job.
#[derive(Debug)]
pub(crate) struct CopyOut {
    options: CopyOptions,
    /// One per column, as all of these.
    masks: Vec<Option<Transform>>,
    kinds: Vec<Kind>,
    detectors: Option<Arc<Detectors>>,
    pub(crate) record: bool,
    /// No data came yet: what comes first may be, or begin with, a header.
    first: bool,
    cell: Vec<u8>,
    masked: Vec<u8>,
}

/// Nothing in the obligations needs to look at the data of a COPY.
pub(crate) fn untouched(obligations: &Obligations) -> bool {
    matches!(obligations.outputs, OutputMasks::None)
        && obligations.detectors.is_none()
        && obligations.record != Recording::Results
}

impl CopyOut {
    /// From the body of the CopyOutResponse. `None` when masks or detectors apply and the format is not known, or is not what
    /// the server says: then nothing of the data may be shown.
    pub(crate) fn new(obligations: &Obligations, data: Option<&CopyData>, body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let binary = reader.u8().ok()? != 0;
        let columns = reader.i16_list().ok()?.len();
        // What the server sends is not what was read of the statement where their numbers differ.
        let types = data.map(|data| data.types.as_slice()).filter(|types| types.len() == columns);
        let type_of = |at: usize| types.and_then(|types| types.get(at).copied().flatten());
        let masks = match &obligations.outputs {
            OutputMasks::None => vec![None; columns],
            OutputMasks::Columns(masks) if masks.len() == columns => masks
                .iter()
                .enumerate()
                .map(|(at, mask)| mask.map(|mask| mask.transform(type_of(at).is_some())))
                .collect(),
            OutputMasks::Columns(_) | OutputMasks::Unknown => vec![Some(Transform::Redact); columns],
        };
        let looked_at = obligations.detectors.is_some() || masks.iter().any(Option::is_some);
        let options = match data.map(|data| &data.options) {
            Some(options) if binary == matches!(options, CopyOptions::Binary) => options.clone(),
            _ if looked_at => return None,
            _ => CopyOptions::Binary,
        };
        Some(Self {
            options,
            masks,
            kinds: (0..columns)
                .map(|at| match (type_of(at), binary) {
                    (Some(type_oid), _) => Kind::of(type_oid, binary),
                    (None, true) => Kind::Container,
                    (None, false) => Kind::Text,
                })
                .collect(),
            detectors: obligations.detectors.clone(),
            record: obligations.record == Recording::Results,
            first: true,
            cell: Vec::new(),
            masked: Vec::new(),
        })
    }

    /// Appends the masked payload of a CopyData message to `out`, if anything in it has to change.
    pub(crate) fn data(
        &mut self,
        rewriter: &mut Rewriter,
        key: &Key,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Row, Malformed> {
        let first = std::mem::replace(&mut self.first, false);
        if self.detectors.is_none() && self.masks.iter().all(Option::is_none) {
            return Ok(Row::Same);
        }
        let start = out.len();
        let options = std::mem::replace(&mut self.options, CopyOptions::Binary);
        let changed = match &options {
            CopyOptions::Text(text) | CopyOptions::Csv { text, .. } if text.header && first => Ok(0),
            CopyOptions::Text(text) => self.text(rewriter, key, text, data, out),
            CopyOptions::Csv { text, quote, escape } => {
                self.csv(rewriter, key, Csv { text, quote: *quote, escape: *escape }, data, out)
            }
            CopyOptions::Binary => self.binary(rewriter, key, first, data, out),
        };
        self.options = options;
        match changed? {
            0 => {
                out.truncate(start);
                Ok(Row::Same)
            }
            changed => Ok(Row::Changed(changed)),
        }
    }

    /// Whether the values of a column matter at all.
    fn looks_at(&self, at: usize) -> bool {
        self.detectors.is_some() || !matches!(self.masks.get(at), Some(None))
    }

    /// What takes the place of the value in `self.cell`, if anything: in `self.masked`, or NULL.
    fn replace(&mut self, rewriter: &mut Rewriter, key: &Key, at: usize) -> Option<Masked> {
        let found = self.hide(rewriter, key, at, &self.cell)?;
        self.masked.clear();
        self.masked.extend_from_slice(found.unwrap_or_default());
        Some(if found.is_some() { Masked::Text } else { Masked::Null })
    }

    /// What takes the place of a value: something, or NULL.
    fn hide<'r>(
        &self,
        rewriter: &'r mut Rewriter,
        key: &Key,
        at: usize,
        cell: &[u8],
    ) -> Option<Option<&'r [u8]>> {
        // A column too many ends the session at the end of its row.
        let kind = self.kinds.get(at).copied().unwrap_or(Kind::Container);
        match self.masks.get(at) {
            Some(None) => match rewriter.detect(self.detectors.as_deref(), kind, cell) {
                Found::Nothing => None,
                Found::Text => Some(Some(rewriter.hidden())),
                Found::Null => Some(None),
            },
            Some(Some(transform)) => Some(rewriter.mask(*transform, kind, key, cell)),
            None => Some(None),
        }
    }

    fn text(
        &mut self,
        rewriter: &mut Rewriter,
        key: &Key,
        format: &CopyText,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<u64, Malformed> {
        let mut rest = Some(data.strip_suffix(b"\n").ok_or(Malformed)?);
        let (mut at, mut changed) = (0, 0);
        while let Some(line) = rest {
            let (field, tail) = text_field(line, format.delimiter)?;
            rest = tail;
            if at > 0 {
                out.push(format.delimiter);
            }
            let mut replaced = None;
            if self.looks_at(at) && field != format.null {
                self.cell.clear();
                text_decode(field, &mut self.cell);
                replaced = self.replace(rewriter, key, at);
            }
            match replaced {
                None => out.extend_from_slice(field),
                Some(Masked::Null) => out.extend_from_slice(&format.null),
                Some(Masked::Text) => text_encode(&self.masked, format.delimiter, out),
            }
            changed += u64::from(replaced.is_some());
            at += 1;
        }
        self.complete(at, data)?;
        out.push(b'\n');
        Ok(changed)
    }

    fn csv(
        &mut self,
        rewriter: &mut Rewriter,
        key: &Key,
        format: Csv<'_>,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<u64, Malformed> {
        let mut rest = Some(data.strip_suffix(b"\n").ok_or(Malformed)?);
        let (mut at, mut changed) = (0, 0);
        while let Some(line) = rest {
            self.cell.clear();
            let (field, quoted, tail) = format.field(line, &mut self.cell)?;
            rest = tail;
            if at > 0 {
                out.push(format.text.delimiter);
            }
            let null = !quoted && field == format.text.null;
            let replaced = if null { None } else { self.replace(rewriter, key, at) };
            match replaced {
                None => out.extend_from_slice(field),
                Some(Masked::Null) => out.extend_from_slice(&format.text.null),
                Some(Masked::Text) => format.encode(&self.masked, quoted, out),
            }
            changed += u64::from(replaced.is_some());
            at += 1;
        }
        self.complete(at, data)?;
        out.push(b'\n');
        Ok(changed)
    }

    /// A line has as many fields as there are columns; that of a table without columns is empty.
    fn complete(&self, fields: usize, line: &[u8]) -> Result<(), Malformed> {
        let empty = self.masks.is_empty() && line == b"\n";
        if fields == self.masks.len() || empty { Ok(()) } else { Err(Malformed) }
    }

    fn binary(
        &mut self,
        rewriter: &mut Rewriter,
        key: &Key,
        first: bool,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<u64, Malformed> {
        let mut reader = Reader::new(data);
        if first {
            if reader.take(11)? != b"PGCOPY\n\xff\r\n\0" {
                return Err(Malformed);
            }
            // Flags: bit 16 would put an oid before each row; no server since 12 writes it.
            if reader.u32()? != 0 {
                return Err(Malformed);
            }
            let extension = reader.u32()?;
            reader.take(usize::try_from(extension).map_err(|_| Malformed)?)?;
            if reader.rest().is_empty() {
                return Ok(0);
            }
        }
        let count = reader.i16()?;
        if count == -1 {
            reader.end()?;
            return Ok(0);
        }
        if usize::try_from(count) != Ok(self.masks.len()) {
            return Err(Malformed);
        }
        out.extend_from_slice(data.get(..data.len() - reader.rest().len()).ok_or(Malformed)?);
        let mut changed = 0;
        for at in 0..self.masks.len() {
            let cell = reader.value()?;
            match cell.and_then(|cell| self.hide(rewriter, key, at, cell)) {
                None => value(out, cell),
                Some(hidden) => {
                    value(out, hidden);
                    changed += 1;
                }
            }
        }
        reader.end()?;
        Ok(changed)
    }
}

/// The first field of a line, still escaped, and what follows its delimiter.
fn text_field(line: &[u8], delimiter: u8) -> Result<(&[u8], Option<&[u8]>), Malformed> {
    let mut from = 0;
    loop {
        let rest = line.get(from..).ok_or(Malformed)?;
        let Some(at) = memchr::memchr3(delimiter, b'\\', b'\n', rest) else { return Ok((line, None)) };
        let at = from + at;
        match line.get(at) {
            Some(b'\\') => from = at + 2,
            // A line feed inside a value is written as `\n`.
            Some(b'\n') => return Err(Malformed),
            _ => return Ok((line.get(..at).ok_or(Malformed)?, line.get(at + 1..))),
        }
    }
}

/// Appends the value of an escaped field.
fn text_decode(mut field: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = memchr::memchr(b'\\', field) {
        out.extend_from_slice(field.get(..at).unwrap_or_default());
        out.push(match field.get(at + 1) {
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 11,
            Some(other) => *other,
            None => b'\\',
        });
        field = field.get(at + 2..).unwrap_or_default();
    }
    out.extend_from_slice(field);
}

/// Appends a value in escaped form.
fn text_encode(value: &[u8], delimiter: u8, out: &mut Vec<u8>) {
    for byte in value {
        let letter = match byte {
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            11 => b'v',
            b'\\' => b'\\',
            other if *other == delimiter => delimiter,
            other => {
                out.push(*other);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', letter]);
    }
}

/// The CSV format.
#[derive(Debug, Clone, Copy)]
struct Csv<'a> {
    text: &'a CopyText,
    quote: u8,
    escape: u8,
}

impl Csv<'_> {
    /// The first field of a line as it is written, whether it is quoted, and what follows its delimiter; its
    /// value is appended to `value`.
    #[expect(clippy::type_complexity, reason = "three parts of one line, used once")]
    fn field<'l>(
        self,
        line: &'l [u8],
        value: &mut Vec<u8>,
    ) -> Result<(&'l [u8], bool, Option<&'l [u8]>), Malformed> {
        if line.first() != Some(&self.quote) {
            let end = memchr::memchr(self.text.delimiter, line).unwrap_or(line.len());
            let field = line.get(..end).ok_or(Malformed)?;
            // The server quotes what holds these.
            if memchr::memchr3(self.quote, b'\n', b'\r', field).is_some() {
                return Err(Malformed);
            }
            value.extend_from_slice(field);
            return Ok((field, false, line.get(end + 1..)));
        }
        let mut at = 1;
        loop {
            let byte = *line.get(at).ok_or(Malformed)?;
            let next = line.get(at + 1).copied();
            if byte == self.escape && next.is_some_and(|next| next == self.quote || next == self.escape) {
                value.extend(next);
                at += 2;
            } else if byte == self.quote {
                break;
            } else {
                value.push(byte);
                at += 1;
            }
        }
        match line.get(at + 1) {
            Some(byte) if *byte != self.text.delimiter => Err(Malformed),
            _ => Ok((line.get(..=at).ok_or(Malformed)?, true, line.get(at + 2..))),
        }
    }

    /// Appends a value, quoted where it has to be.
    fn encode(self, value: &[u8], quoted: bool, out: &mut Vec<u8>) {
        let special =
            |byte: &u8| [self.text.delimiter, self.quote, self.escape, b'\n', b'\r', b'\\'].contains(byte);
        if !quoted && value != self.text.null && !value.iter().any(special) {
            out.extend_from_slice(value);
            return;
        }
        out.push(self.quote);
        for byte in value {
            if *byte == self.quote || *byte == self.escape {
                out.push(self.escape);
            }
            out.push(*byte);
        }
        out.push(self.quote);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new(&b"0123456789abcdef".to_vec().into()).unwrap()
    }

    fn obligations(masks: &[Option<Transform>]) -> Obligations {
        let masks = masks.iter().map(|mask| mask.map(policy::OutputMask::new)).collect();
        Obligations { outputs: OutputMasks::Columns(masks), ..Obligations::default() }
    }

    /// A CopyOutResponse body for as many columns.
    fn response(binary: bool, columns: u8) -> Vec<u8> {
        let mut body = vec![u8::from(binary), 0, columns];
        body.extend((0..columns).flat_map(|_| [0, u8::from(binary)]));
        body
    }

    /// What the job gets of one message.
    fn masked(options: CopyOptions, masks: &[Option<Transform>], data: &[u8]) -> Result<Vec<u8>, Malformed> {
        let binary = options == CopyOptions::Binary;
        let columns = u8::try_from(masks.len()).unwrap();
        let mut copy =
            CopyOut::new(&obligations(masks), Some(&options.into()), &response(binary, columns)).unwrap();
        let mut out = Vec::new();
        match copy.data(&mut Rewriter::default(), &key(), data, &mut out)? {
            Row::Same => Ok(data.to_vec()),
            Row::Changed(_) => Ok(out),
        }
    }

    const REDACT: Option<Transform> = Some(Transform::Redact);
    const NULL: Option<Transform> = Some(Transform::Null);

    #[test]
    fn text_rows() {
        let masks = [None, REDACT, None];
        assert_eq!(masked(CopyOptions::text(), &masks, b"1\ta@b\tx\n").unwrap(), b"1\t[redacted]\tx\n");
        assert_eq!(masked(CopyOptions::text(), &masks, b"1\t\\N\tx\n").unwrap(), b"1\t\\N\tx\n");
        assert_eq!(masked(CopyOptions::text(), &masks, b"1\ta\\tb\\\\\tx\n").unwrap(), b"1\t[redacted]\tx\n");
        assert_eq!(masked(CopyOptions::text(), &[NULL], b"secret\n").unwrap(), b"\\N\n");
    }

    #[test]
    fn text_rows_must_be_whole() {
        let masks = [None, REDACT];
        for wrong in [&b"1\ta"[..], b"1\n", b"1\t2\t3\n", b"1\ta\n2\tb\n", b"", b"\n"] {
            assert!(masked(CopyOptions::text(), &masks, wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn text_delimiter_may_be_escaped() {
        let options = CopyOptions::Text(CopyText { delimiter: b'|', null: b"NULL".to_vec(), header: false });
        assert_eq!(masked(options.clone(), &[None, REDACT], b"a\\|b|c\n").unwrap(), b"a\\|b|[redacted]\n");
        assert_eq!(masked(options.clone(), &[None, NULL], b"a|c\n").unwrap(), b"a|NULL\n");
        assert_eq!(masked(options, &[NULL, REDACT], b"NULL|NULL\n").unwrap(), b"NULL|NULL\n");
    }

    #[test]
    fn text_escapes_survive() {
        let mut plain = Vec::new();
        text_decode(b"a\\tb\\nc\\\\d\\be\\,", &mut plain);
        assert_eq!(plain, b"a\tb\nc\\d\x08e,");
        let mut escaped = Vec::new();
        text_encode(&plain, b',', &mut escaped);
        assert_eq!(escaped, b"a\\tb\\nc\\\\d\\be\\,");
    }

    #[test]
    fn csv_rows() {
        let masks = [None, REDACT, None];
        assert_eq!(masked(CopyOptions::csv(), &masks, b"1,a@b,x\n").unwrap(), b"1,[redacted],x\n");
        assert_eq!(
            masked(CopyOptions::csv(), &masks, b"1,\"a,\"\"b\nc\",\"x,y\"\n").unwrap(),
            b"1,\"[redacted]\",\"x,y\"\n"
        );
        assert_eq!(masked(CopyOptions::csv(), &masks, b"1,,x\n").unwrap(), b"1,,x\n");
        assert_eq!(masked(CopyOptions::csv(), &masks, b"1,\"\",x\n").unwrap(), b"1,\"[redacted]\",x\n");
        assert_eq!(masked(CopyOptions::csv(), &[NULL, None], b"1,2\n").unwrap(), b",2\n");
        for wrong in [&b"1,2,3"[..], b"1,2\n", b"1,\"2,3\n", b"1,\"2\"x,3\n", b"1,2,3\n4,5,6\n"] {
            assert!(masked(CopyOptions::csv(), &masks, wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn csv_escape_of_its_own() {
        let options = CopyOptions::Csv {
            text: CopyText { delimiter: b';', null: b"-".to_vec(), header: true },
            quote: b'\'',
            escape: b'\\',
        };
        let body = response(false, 2);
        let mut copy = CopyOut::new(&obligations(&[None, REDACT]), Some(&options.into()), &body).unwrap();
        let (mut rewriter, mut out) = (Rewriter::default(), Vec::new());
        assert_eq!(copy.data(&mut rewriter, &key(), b"id;email\n", &mut out), Ok(Row::Same));
        assert_eq!(copy.data(&mut rewriter, &key(), b"'a\\'b';c\n", &mut out), Ok(Row::Changed(1)));
        assert_eq!(out, b"'a\\'b';[redacted]\n");
    }

    #[test]
    fn binary_cells_become_null() {
        let head = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
        let row = b"\0\x02\0\0\0\x01a\0\0\0\x01b";
        let hidden = b"\0\x02\0\0\0\x01a\xff\xff\xff\xff";
        let first = [&head[..], row].concat();
        let masks = [None, REDACT];
        assert_eq!(masked(CopyOptions::Binary, &masks, &first).unwrap(), [&head[..], hidden].concat());
        let trailer = [&head[..], b"\xff\xff"].concat();
        assert_eq!(masked(CopyOptions::Binary, &masks, &trailer).unwrap(), trailer);
        assert!(masked(CopyOptions::Binary, &masks, row).is_err());
    }

    /// A row of one cell, as the job gets it.
    fn typed(options: CopyOptions, type_oid: u32, mask: Transform, data: &[u8]) -> Vec<u8> {
        let binary = options == CopyOptions::Binary;
        let data_of = CopyData { options, types: vec![Some(type_oid)] };
        let mut copy =
            CopyOut::new(&obligations(&[Some(mask)]), Some(&data_of), &response(binary, 1)).unwrap();
        copy.first = false;
        let mut out = Vec::new();
        assert_eq!(copy.data(&mut Rewriter::default(), &key(), data, &mut out), Ok(Row::Changed(1)));
        out
    }

    #[test]
    fn columns_of_tables_keep_their_type() {
        let binary = |type_oid, mask, cell: &[u8]| {
            let length = u32::try_from(cell.len()).unwrap().to_be_bytes();
            let row = typed(CopyOptions::Binary, type_oid, mask, &[b"\0\x01", &length[..], cell].concat());
            row[2..].to_vec()
        };
        assert_eq!(binary(25, Transform::Redact, b"a@b"), b"\0\0\0\x0a[redacted]");
        assert_eq!(binary(3802, Transform::Redact, b"\x01{}"), b"\0\0\0\x0d\x01\"[redacted]\"");
        assert_eq!(binary(16, Transform::Redact, b"\x01"), b"\xff\xff\xff\xff");
        // As the same column's in a result: a number stays one, and the same one.
        let mut token = Vec::new();
        let of = Transform::Tokenise.apply_typed(
            &key(),
            mask::Type::Int4,
            mask::Format::Binary,
            &[0, 0, 0, 7],
            &mut token,
        );
        assert_eq!((of, token.len()), (Masked::Text, 4));
        assert_eq!(binary(23, Transform::Tokenise, &[0, 0, 0, 7]), [&[0, 0, 0, 4], &token[..]].concat());
        let last = Transform::Partial(mask::Partial { keep_first: 0, keep_last: 2 });
        assert_eq!(typed(CopyOptions::text(), 25, last, b"4111222233334444\n"), b"****44\n");
    }

    #[test]
    fn unknown_formats_show_nothing() {
        assert!(CopyOut::new(&obligations(&[REDACT]), None, &response(false, 1)).is_none());
        let binary = CopyOptions::Binary.into();
        assert!(CopyOut::new(&obligations(&[REDACT]), Some(&binary), &response(false, 1)).is_none());
        assert!(CopyOut::new(&obligations(&[None]), None, &response(false, 1)).is_some());
    }

    #[test]
    fn lineage_that_does_not_fit_masks_everything() {
        let options = CopyOptions::text();
        let mut copy =
            CopyOut::new(&obligations(&[None]), Some(&options.into()), &response(false, 2)).unwrap();
        let mut out = Vec::new();
        copy.data(&mut Rewriter::default(), &key(), b"a\tb\n", &mut out).unwrap();
        assert_eq!(out, b"[redacted]\t[redacted]\n");
    }
}
