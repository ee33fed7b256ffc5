//! Masks over JSON that comes in pieces: values by their path, findings inside strings as their reader sees them.
//!
//! What is not touched keeps its bytes. What is no JSON is an error: nobody can tell what it shows.

mod path;
mod text;

use std::sync::Arc;

pub use path::{BadJsonPath, JsonPath};

use self::{path::States, text::Long};
use crate::{
    detect::Detectors,
    transform::{REDACTED, Transform},
};

/// Deepest nesting.
const DEPTH: usize = 128;
/// Longest name of a member, and longest number, in bytes as written.
const TOKEN: usize = 4 * 1024;
/// Strings up to this length keep their bytes when nothing is found in them; longer ones are written anew, piece by piece.
const STRING: usize = 64 * 1024;

/// Why a body is not passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadJson {
    #[error("it is no JSON")]
    Syntax,
    #[error("it is nested deeper than {DEPTH} levels")]
    Deep,
    #[error("a name or number in it is longer than {TOKEN} bytes")]
    Long,
    #[error("it ends in the middle")]
    Unfinished,
}

/// Hides values in a stream of JSON documents, wherever its pieces are cut.
#[derive(Debug)]
pub struct JsonStream {
    paths: Arc<[(JsonPath, Transform)]>,
    detectors: Option<Arc<Detectors>>,
    stack: Vec<Frame>,
    at: At,
    token: Token,
    /// The name, number or string that is being read, as written.
    text: Vec<u8>,
    /// A string that is too long to be held.
    long: Option<Long>,
    /// Depth at which a hidden value began.
    hiding: Option<usize>,
    /// What paths have matched up to the value that is being read.
    states: States,
    hidden: u64,
}

#[derive(Debug)]
struct Frame {
    object: bool,
    /// Elements before, in arrays.
    index: u64,
    states: States,
}

/// What comes next, outside of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Value,
    /// A value, or the end of an empty array.
    FirstValue,
    Name,
    /// A name, or the end of an empty object.
    FirstName,
    Colon,
    /// A comma or the end of the container.
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    None,
    Name {
        escaped: bool,
    },
    String {
        escaped: bool,
    },
    /// A number, true, false, null.
    Scalar,
}

impl JsonStream {
    /// `paths` and whether what they lead to becomes `"[redacted]"` or null; `detectors` for everything else.
    pub fn new(paths: Arc<[(JsonPath, Transform)]>, detectors: Option<Arc<Detectors>>) -> Self {
        let states = States::start(&paths);
        Self {
            paths,
            detectors,
            stack: Vec::new(),
            at: At::Value,
            token: Token::None,
            text: Vec::new(),
            long: None,
            hiding: None,
            states,
            hidden: 0,
        }
    }

    /// Values and findings that were hidden.
    pub fn hidden(&self) -> u64 {
        self.hidden
    }

    /// Takes the next piece and appends what can be shown to `out`.
    ///
    /// # Errors
    /// When it is no JSON; nothing more is to be shown then.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BadJson> {
        let mut rest = piece;
        while let Some((byte, after)) = rest.split_first() {
            match self.token {
                Token::None => {
                    self.outside(*byte, out)?;
                    rest = after;
                }
                Token::Scalar if is_scalar(*byte) => {
                    if self.text.len() >= TOKEN {
                        return Err(BadJson::Long);
                    }
                    self.text.push(*byte);
                    rest = after;
                }
                // The byte behind it is looked at again.
                Token::Scalar => self.end_scalar(out)?,
                Token::Name { escaped } | Token::String { escaped } => {
                    rest = self.inside(escaped, rest, out)?;
                }
            }
        }
        Ok(())
    }

    /// The body is over.
    ///
    /// # Errors
    /// When it ends in the middle of a document.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), BadJson> {
        if self.token == Token::Scalar {
            self.end_scalar(out)?;
        }
        match self.token == Token::None && self.stack.is_empty() && self.at == At::Value {
            true => Ok(()),
            false => Err(BadJson::Unfinished),
        }
    }

    fn outside(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), BadJson> {
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            self.show(&[byte], out);
            return Ok(());
        }
        match (self.at, byte) {
            (At::Value | At::FirstValue, b'{' | b'[') => {
                self.begin(out);
                self.show(&[byte], out);
                if self.stack.len() >= DEPTH {
                    return Err(BadJson::Deep);
                }
                let object = byte == b'{';
                self.stack.push(Frame { object, index: 0, states: self.states.clone() });
                self.at = if object { At::FirstName } else { At::FirstValue };
                self.next_element();
                Ok(())
            }
            (At::Value | At::FirstValue, b'"') => {
                self.begin(out);
                self.token = Token::String { escaped: false };
                Ok(())
            }
            (At::Value | At::FirstValue, byte) if is_scalar(byte) => {
                self.begin(out);
                self.token = Token::Scalar;
                self.text.push(byte);
                Ok(())
            }
            (At::Name | At::FirstName, b'"') => {
                self.token = Token::Name { escaped: false };
                Ok(())
            }
            (At::Colon, b':') => {
                self.show(b":", out);
                self.at = At::Value;
                Ok(())
            }
            (At::After, b',') => {
                self.show(b",", out);
                let frame = self.stack.last_mut().ok_or(BadJson::Syntax)?;
                frame.index = frame.index.saturating_add(1);
                self.at = if frame.object { At::Name } else { At::Value };
                self.next_element();
                Ok(())
            }
            (At::After | At::FirstName | At::FirstValue, b'}' | b']') => {
                let frame = self.stack.pop().ok_or(BadJson::Syntax)?;
                let empty = if frame.object { At::FirstName } else { At::FirstValue };
                if frame.object != (byte == b'}') || (self.at != At::After && self.at != empty) {
                    return Err(BadJson::Syntax);
                }
                self.show(&[byte], out);
                self.ended();
                Ok(())
            }
            _ => Err(BadJson::Syntax),
        }
    }

    /// In arrays the path of the next value is known before it begins.
    fn next_element(&mut self) {
        if let Some(frame) = self.stack.last()
            && !frame.object
        {
            self.states = frame.states.element(&self.paths, frame.index);
        }
    }

    /// A value begins: from here on it is hidden when a path leads to it.
    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.hiding.is_some() {
            return;
        }
        let found = self.states.found(&self.paths).map(|(_, transform)| *transform);
        if let Some(transform) = found.reduce(Transform::stronger) {
            match transform {
                Transform::Null => out.extend_from_slice(b"null"),
                _ => {
                    out.push(b'"');
                    out.extend_from_slice(REDACTED.as_bytes());
                    out.push(b'"');
                }
            }
            self.hidden = self.hidden.saturating_add(1);
            self.hiding = Some(self.stack.len());
        }
    }

    /// A value has ended.
    fn ended(&mut self) {
        if self.hiding == Some(self.stack.len()) {
            self.hiding = None;
        }
        self.at = match self.stack.last() {
            Some(_) => At::After,
            None => {
                self.states = States::start(&self.paths);
                At::Value
            }
        };
    }

    fn end_scalar(&mut self, out: &mut Vec<u8>) -> Result<(), BadJson> {
        let text = std::mem::take(&mut self.text);
        self.token = Token::None;
        let known = matches!(text.as_slice(), b"true" | b"false" | b"null");
        if !known && !text::is_number(&text) {
            return Err(BadJson::Syntax);
        }
        if self.hiding.is_none() {
            let mut shown = Vec::new();
            match &self.detectors {
                // A number that is shown in part is none any more.
                Some(detectors) if !known && detectors.rewrite(&text, &mut shown) => {
                    self.hidden = self.hidden.saturating_add(1);
                    text::quote(&shown, out);
                }
                _ => out.extend_from_slice(&text),
            }
        }
        self.ended();
        Ok(())
    }

    /// In a name or a string: what is left of the piece.
    fn inside<'p>(&mut self, escaped: bool, piece: &'p [u8], out: &mut Vec<u8>) -> Result<&'p [u8], BadJson> {
        let set = |token: &mut Token, to: bool| match token {
            Token::Name { escaped } | Token::String { escaped } => *escaped = to,
            Token::None | Token::Scalar => {}
        };
        if escaped {
            let (byte, rest) = piece.split_at_checked(1).unwrap_or((piece, &[]));
            self.collect(byte, out)?;
            set(&mut self.token, false);
            return Ok(rest);
        }
        let Some(at) = memchr::memchr2(b'"', b'\\', piece) else {
            self.collect(piece, out)?;
            return Ok(&[]);
        };
        let (before, rest) = piece.split_at_checked(at).unwrap_or((piece, &[]));
        self.collect(before, out)?;
        let (mark, rest) = rest.split_at_checked(1).unwrap_or((rest, &[]));
        if mark == b"\\" {
            self.collect(mark, out)?;
            set(&mut self.token, true);
            return Ok(rest);
        }
        match self.token {
            Token::Name { .. } => self.end_name(out)?,
            _ => self.end_string(out)?,
        }
        Ok(rest)
    }

    fn collect(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), BadJson> {
        if bytes.iter().any(|byte| *byte < 0x20) {
            return Err(BadJson::Syntax);
        }
        let name = matches!(self.token, Token::Name { .. });
        if self.hiding.is_some() && !name {
            return Ok(());
        }
        self.text.extend_from_slice(bytes);
        if name {
            return if self.text.len() > TOKEN { Err(BadJson::Long) } else { Ok(()) };
        }
        if self.text.len() > STRING {
            self.spill(out)?;
        }
        Ok(())
    }

    /// Shows what it can of a long string.
    fn spill(&mut self, out: &mut Vec<u8>) -> Result<(), BadJson> {
        let Some(detectors) = &self.detectors else {
            if self.long.is_none() {
                self.long = Some(Long::Plain);
                out.push(b'"');
            }
            out.append(&mut self.text);
            return Ok(());
        };
        let long = self.long.get_or_insert_with(|| {
            out.push(b'"');
            Long::searched(Arc::clone(detectors))
        });
        long.push(&mut self.text, out)
    }

    fn end_name(&mut self, out: &mut Vec<u8>) -> Result<(), BadJson> {
        let text = std::mem::take(&mut self.text);
        self.token = Token::None;
        let name = text::decode(&text)?;
        if self.hiding.is_none() {
            self.quoted(&text, &name, out);
            if let Some(frame) = self.stack.last() {
                self.states = frame.states.member(&self.paths, &name);
            }
        }
        self.at = At::Colon;
        Ok(())
    }

    fn end_string(&mut self, out: &mut Vec<u8>) -> Result<(), BadJson> {
        let mut text = std::mem::take(&mut self.text);
        self.token = Token::None;
        match self.long.take() {
            Some(mut long) => {
                self.hidden = self.hidden.saturating_add(long.end(&mut text, out)?);
                out.push(b'"');
            }
            None if self.hiding.is_some() => {}
            None => {
                let value = text::decode(&text)?;
                self.quoted(&text, &value, out);
            }
        }
        text.clear();
        self.text = text;
        self.ended();
        Ok(())
    }

    /// Shows a string: as written, unless something is found in its value.
    fn quoted(&mut self, written: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let mut shown = Vec::new();
        match &self.detectors {
            Some(detectors) if detectors.rewrite(value, &mut shown) => {
                self.hidden = self.hidden.saturating_add(1);
                text::quote(&shown, out);
            }
            _ => {
                out.push(b'"');
                out.extend_from_slice(written);
                out.push(b'"');
            }
        }
    }

    fn show(&self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.hiding.is_none() {
            out.extend_from_slice(bytes);
        }
    }
}

fn is_scalar(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'+' | b'.')
}

#[cfg(test)]
mod tests;
