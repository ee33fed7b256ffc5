//! Reads documents, and writes them without what is to be hidden.

use policy::ShownSecrets;

use super::{
    Masks, Withheld, copies,
    says::{Says, survey},
    split::Part,
};
use crate::kubernetes::marker;

/// Deepest nesting.
const DEPTH: usize = 256;
/// In place of a message that may quote one.
const MESSAGE: &str = "the server refused it, in words that may quote a Secret: [redacted:secret]";

/// A reader that goes on from part to part.
#[derive(Debug)]
pub(super) struct Document {
    masks: Masks,
    /// Everything is about Secrets, whatever it calls itself.
    of_secrets: bool,
    /// How many documents are around this one.
    copies: u8,
    stack: Vec<Frame>,
    next: Next,
    /// The list that is being read has said what it is of.
    told: bool,
    hidden: u64,
}

/// What is known of a value that is being read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Scope {
    /// It belongs to a Secret.
    secret: bool,
    /// Everything in it is hidden.
    blank: Option<Blank>,
    /// It is a refusal whose message may quote a Secret.
    quotes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blank {
    /// Bytes, in Base64.
    Data,
    Text,
    Message,
}

#[derive(Debug)]
struct Frame {
    object: bool,
    scope: Scope,
    /// Of the member whose value comes next.
    member: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    ValueOrEnd,
    Name,
    NameOrEnd,
    Colon,
    CommaOrEnd,
}

impl Document {
    pub(super) fn new(masks: Masks, of_secrets: bool) -> Self {
        Self { masks, of_secrets, copies: 0, stack: Vec::new(), next: Next::Value, told: false, hidden: 0 }
    }

    pub(super) fn hidden(&self) -> u64 {
        self.hidden
    }

    /// A copy of a document inside of a string. `None`: it is no JSON.
    pub(super) fn copy(masks: &Masks, of_secrets: bool, copies: u8, text: &[u8]) -> Option<(Vec<u8>, u64)> {
        let mut document = Self { copies, ..Self::new(masks.clone(), of_secrets) };
        let mut out = Vec::with_capacity(text.len());
        document.show(Part::Whole(text), &mut out).ok()?;
        Some((out, document.hidden))
    }

    pub(super) fn show(&mut self, part: Part<'_>, out: &mut Vec<u8>) -> Result<(), Withheld> {
        let (text, whole) = match part {
            Part::Whole(text) => (text, true),
            Part::Opening(text) | Part::Element(text) => (text, false),
            Part::Closing(text) => (text, true),
        };
        // A list is read piece by piece: its kind may come behind its other members.
        let pieces = !matches!(part, Part::Whole(_));
        let begins = pieces && self.stack.is_empty();
        let asks = begins || (pieces && !self.told) || may_name_kinds(text);
        let said = (asks && self.masks.hide_secrets()).then(|| survey(text));
        let mut pass = Pass { text, at: 0, copied: 0, out, said, opened: 0, pieces };
        while pass.step(self)? {}
        pass.copy_up_to(text.len());
        match whole && !self.stack.is_empty() {
            true => Err(Withheld::Syntax),
            false => Ok(()),
        }
    }

    /// The scope of a value that begins here.
    fn scope(&self) -> Scope {
        match self.stack.last() {
            None => Scope { secret: self.of_secrets && self.masks.hide_secrets(), ..Scope::default() },
            Some(frame) if frame.object => frame.member,
            Some(frame) => frame.scope,
        }
    }
}

/// Whether an object may say that it is a Secret or a refusal: most say neither, and then nobody has to look for their kind.
fn may_name_kinds(text: &[u8]) -> bool {
    let names = [&b"Secret"[..], b"Status\"", b"secret\""];
    // Letters may be written as escapes.
    let escapes = [&b"\\u004"[..], b"\\u005", b"\\u006", b"\\u007"];
    names.iter().chain(&escapes).any(|name| memchr::memmem::find(text, name).is_some())
}

/// What an object is called, where it says so once.
#[derive(serde::Deserialize)]
struct Named<'t> {
    #[serde(borrow)]
    metadata: Metadata<'t>,
}

#[derive(serde::Deserialize)]
struct Metadata<'t> {
    #[serde(borrow)]
    name: std::borrow::Cow<'t, str>,
}

/// One part on its way through a document.
struct Pass<'t, 'o> {
    text: &'t [u8],
    at: usize,
    /// Up to where the text has been written.
    copied: usize,
    out: &'o mut Vec<u8>,
    /// What its objects say of themselves, one after another, if any may be a Secret.
    said: Option<Vec<Says>>,
    /// Objects that have been opened.
    opened: usize,
    pieces: bool,
}

impl<'t> Pass<'t, '_> {
    fn copy_up_to(&mut self, end: usize) {
        self.out.extend_from_slice(self.text.get(self.copied..end).unwrap_or_default());
        self.copied = end;
    }

    /// Writes something in place of what was written from `start` to here.
    fn replace(&mut self, start: usize, with: &[u8]) {
        self.copy_up_to(start);
        self.out.extend_from_slice(with);
        self.copied = self.at;
    }

    /// Reads one token. False: the part is over.
    fn step(&mut self, document: &mut Document) -> Result<bool, Withheld> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
        self.at = self.at.saturating_add(blanks);
        let Some(byte) = self.text.get(self.at).copied() else { return Ok(false) };
        let start = self.at;
        match (document.next, byte) {
            (Next::Value | Next::ValueOrEnd, b'{' | b'[') => {
                self.at = start.saturating_add(1);
                self.open(document, byte == b'{')?;
            }
            (Next::Value | Next::ValueOrEnd, b'"') => {
                let written = self.string()?;
                self.value(document, start, written);
                document.next = after(document);
            }
            (Next::Value | Next::ValueOrEnd, b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                self.scalar()?;
                if document.scope().blank.is_some() {
                    self.replace(start, b"null");
                }
                document.next = after(document);
            }
            (Next::Name | Next::NameOrEnd, b'"') => {
                let written = self.string()?;
                self.name(document, start, written);
                document.next = Next::Colon;
            }
            (Next::Colon, b':') => {
                self.at = start.saturating_add(1);
                document.next = Next::Value;
            }
            (Next::CommaOrEnd, b',') => {
                self.at = start.saturating_add(1);
                let object = document.stack.last().ok_or(Withheld::Syntax)?.object;
                document.next = if object { Next::Name } else { Next::Value };
            }
            (Next::CommaOrEnd | Next::NameOrEnd | Next::ValueOrEnd, b'}' | b']') => {
                let frame = document.stack.pop().ok_or(Withheld::Syntax)?;
                let empty = if frame.object { Next::NameOrEnd } else { Next::ValueOrEnd };
                if frame.object != (byte == b'}')
                    || !(document.next == Next::CommaOrEnd || document.next == empty)
                {
                    return Err(Withheld::Syntax);
                }
                self.at = start.saturating_add(1);
                document.next = after(document);
            }
            _ => return Err(Withheld::Syntax),
        }
        Ok(true)
    }

    fn open(&mut self, document: &mut Document, object: bool) -> Result<(), Withheld> {
        if document.stack.len() >= DEPTH {
            return Err(Withheld::Syntax);
        }
        let mut scope = document.scope();
        let depth = document.stack.len();
        // A list that says only behind its elements what it is of, and an element that does not say so itself.
        let untold = self.pieces && depth == 2 && !document.told;
        if object {
            let says = self.said.as_ref().and_then(|said| said.get(self.opened)).copied();
            self.opened = self.opened.saturating_add(1);
            if let Some(says) = says
                && scope.blank.is_none()
            {
                if depth == 0 {
                    document.told = says.kind;
                }
                scope.secret |= says.secret || (untold && !says.kind);
                scope.quotes |= scope.secret && says.refusal && !says.plain;
            }
        }
        // A Secret that may be seen, whatever it stands among. What a string holds is nobody's but the string's.
        if object && scope.secret && scope.blank.is_none() && document.copies == 0 {
            scope.secret = !self.is_shown(&document.masks);
        }
        document.stack.push(Frame { object, scope, member: scope });
        document.next = if object { Next::NameOrEnd } else { Next::ValueOrEnd };
        Ok(())
    }

    /// Whether the object whose brace has just been read is called as a Secret is that may be seen.
    fn is_shown(&self, masks: &Masks) -> bool {
        let ShownSecrets::Named(_) = masks.shown else { return false };
        let text = self.text.get(self.at.saturating_sub(1)..).unwrap_or_default();
        let mut objects = serde_json::Deserializer::from_slice(text).into_iter::<Named<'_>>();
        matches!(objects.next(), Some(Ok(named)) if masks.shown.has(&named.metadata.name))
    }

    /// The name of a member: what its value is follows from it.
    fn name(&mut self, document: &mut Document, start: usize, written: &'t [u8]) {
        let name = decode(written);
        let outermost = self.pieces && document.stack.len() == 1 && document.masks.hide_secrets();
        let mut shown = Vec::new();
        if document.masks.detectors.rewrite(&name, &mut shown) {
            document.hidden = document.hidden.saturating_add(1);
            self.replace(start, &quote(&shown));
        }
        let Some(frame) = document.stack.last_mut() else { return };
        let mut scope = frame.scope;
        if scope.blank.is_none() && (scope.secret || outermost) {
            if name.eq_ignore_ascii_case(b"data") {
                scope.blank = Some(Blank::Data);
            } else if name.eq_ignore_ascii_case(b"stringData") {
                scope.blank = Some(Blank::Text);
            }
        }
        if scope.quotes && name.eq_ignore_ascii_case(b"message") {
            scope.blank = Some(Blank::Message);
        }
        frame.member = scope;
    }

    /// A string that is a value.
    fn value(&mut self, document: &mut Document, start: usize, written: &'t [u8]) {
        let scope = document.scope();
        if let Some(blank) = scope.blank {
            let mask = match blank {
                Blank::Data => marker::SECRET_BASE64,
                Blank::Text => marker::SECRET,
                Blank::Message => MESSAGE,
            };
            document.hidden = document.hidden.saturating_add(1);
            self.replace(start, &quote(mask.as_bytes()));
            return;
        }
        let value = decode(written);
        if let Some((shown, hidden)) = copies::hide(&document.masks, scope.secret, document.copies, &value) {
            document.hidden = document.hidden.saturating_add(hidden);
            self.replace(start, &quote(&shown));
        }
    }

    /// Reads a string and returns what is between its quotes.
    fn string(&mut self) -> Result<&'t [u8], Withheld> {
        let begin = self.at.saturating_add(1);
        let end = end_of_string(self.text, begin).ok_or(Withheld::Syntax)?;
        let written = self.text.get(begin..end).unwrap_or_default();
        // Without a way out early the compiler looks at many at once.
        if written.iter().fold(false, |any, byte| any | (*byte < 0x20)) {
            return Err(Withheld::Syntax);
        }
        self.at = end.saturating_add(1);
        Ok(written)
    }

    fn scalar(&mut self) -> Result<(), Withheld> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = scalar_length(rest);
        let text = rest.get(..length).unwrap_or_default();
        let known = matches!(text, b"true" | b"false" | b"null");
        let number = text.iter().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte));
        if !known && !number {
            return Err(Withheld::Syntax);
        }
        self.at = self.at.saturating_add(length);
        Ok(())
    }
}

fn after(document: &Document) -> Next {
    if document.stack.is_empty() { Next::Value } else { Next::CommaOrEnd }
}

fn scalar_length(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)).count()
}

/// Where the string that begins at `from` ends: at its quote.
pub(super) fn end_of_string(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let found = at.checked_add(memchr::memchr2(b'"', b'\\', text.get(at..)?)?)?;
        match text.get(found)? {
            b'"' => return Some(found),
            _ => at = found.checked_add(2)?,
        }
    }
}

/// The value of a string: what stands between its quotes, without escapes. What is no escape stays as it is written.
pub(super) fn decode(written: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if memchr::memchr(b'\\', written).is_none() {
        return written.into();
    }
    let mut value = Vec::with_capacity(written.len());
    let mut rest = written;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        value.extend_from_slice(rest.get(..at).unwrap_or_default());
        let escape = rest.get(at..).unwrap_or_default();
        let (plain, length) = match escape.get(1) {
            Some(b'n') => (b'\n', 2),
            Some(b't') => (b'\t', 2),
            Some(b'r') => (b'\r', 2),
            Some(b'b') => (8, 2),
            Some(b'f') => (12, 2),
            Some(b'u') => {
                let (letter, length) = unicode(escape);
                value.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                rest = escape.get(length..).unwrap_or_default();
                continue;
            }
            Some(other) => (*other, 2),
            None => (b'\\', 1),
        };
        value.push(plain);
        rest = escape.get(length..).unwrap_or_default();
    }
    value.extend_from_slice(rest);
    value.into()
}

/// `\uXXXX`, or two of them for one character, and their length.
fn unicode(escape: &[u8]) -> (char, usize) {
    let unit = |text: Option<&[u8]>| {
        let digits = text.and_then(|digits| std::str::from_utf8(digits).ok())?;
        u32::from_str_radix(digits, 16).ok()
    };
    let lost = char::REPLACEMENT_CHARACTER;
    let Some(high) = unit(escape.get(2..6)) else { return (lost, 2) };
    if let Some(letter) = char::from_u32(high) {
        return (letter, 6);
    }
    let low = escape.get(6..8).filter(|mark| *mark == b"\\u").and_then(|_| unit(escape.get(8..12)));
    match low {
        Some(low @ 0xdc00..=0xdfff) if (0xd800..=0xdbff).contains(&high) => {
            let code = 0x1_0000_u32
                .saturating_add((high.saturating_sub(0xd800)) << 10)
                .saturating_add(low.saturating_sub(0xdc00));
            (char::from_u32(code).unwrap_or(lost), 12)
        }
        _ => (lost, 6),
    }
}

/// A value as a string.
fn quote(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len().saturating_add(2));
    out.push(b'"');
    for byte in value {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
    out
}
