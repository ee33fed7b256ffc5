//! Cuts a stream of JSON documents into parts that can be judged by themselves.

use super::{ITEM_MAX, Withheld};

/// Members of a list or table whose elements are handed on one by one.
const LISTS: &[&[u8]] = &[b"\"items\"", b"\"rows\""];

/// A part of the stream. Together, in order, they are the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// A document, or the space between two.
    Whole(&'a [u8]),
    /// A list up to its elements, or from one list of elements to the next.
    Opening(&'a [u8]),
    /// One element, with what separates it from the one before.
    Element(&'a [u8]),
    /// A list from behind its elements to its end.
    Closing(&'a [u8]),
}

/// Looks for the ends of elements and documents, nothing else: what the parts hold is read by whoever takes them.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    held: Vec<u8>,
    /// Where in `held` the next part begins.
    begin: usize,
    /// Bytes of `held` that have been looked at.
    seen: usize,
    depth: usize,
    string: Option<Text>,
    /// At depth 1: the last string, as written, if nothing but a colon came since.
    name: Option<Vec<u8>>,
    colon: bool,
    /// The elements of a list of the outermost object are being read.
    in_list: bool,
    /// Such a list was found in this document.
    listed: bool,
}

#[derive(Debug)]
struct Text {
    escaped: bool,
    /// Where it begins in `held`.
    start: usize,
}

impl Splitter {
    pub(super) fn push(
        &mut self,
        piece: &[u8],
        mut take: impl FnMut(Part<'_>) -> Result<(), Withheld>,
    ) -> Result<(), Withheld> {
        self.held.extend_from_slice(piece);
        while let Some(byte) = self.next() {
            if self.byte(byte)? {
                self.hand_on(byte, &mut take)?;
            }
        }
        // A line's end behind an event belongs to that event: clients wait for it.
        let rest = self.held.get(self.begin..).unwrap_or_default();
        if self.depth == 0 && !rest.is_empty() && rest.iter().all(u8::is_ascii_whitespace) {
            take(Part::Whole(rest))?;
            self.begin = self.seen;
        }
        let over = std::mem::take(&mut self.begin);
        self.held.drain(..over);
        self.seen = self.seen.saturating_sub(over);
        if let Some(text) = &mut self.string {
            text.start = text.start.saturating_sub(over);
        }
        match self.held.len() > ITEM_MAX {
            true => Err(Withheld::Large),
            false => Ok(()),
        }
    }

    pub(super) fn finish(
        &mut self,
        mut take: impl FnMut(Part<'_>) -> Result<(), Withheld>,
    ) -> Result<(), Withheld> {
        if self.depth > 0 || self.string.is_some() {
            return Err(Withheld::Unfinished);
        }
        let rest = std::mem::take(&mut self.held);
        self.seen = 0;
        match rest.is_empty() {
            true => Ok(()),
            false => take(Part::Whole(&rest)),
        }
    }

    fn next(&mut self) -> Option<u8> {
        if let Some(text) = &self.string
            && !text.escaped
        {
            // Inside of a string only its end matters.
            let rest = self.held.get(self.seen..).unwrap_or_default();
            match memchr::memchr2(b'"', b'\\', rest) {
                Some(at) => self.seen = self.seen.saturating_add(at),
                None => {
                    self.seen = self.held.len();
                    return None;
                }
            }
        }
        let byte = self.held.get(self.seen).copied()?;
        self.seen = self.seen.saturating_add(1);
        Some(byte)
    }

    /// Looks at a byte. True: a part may end behind it.
    fn byte(&mut self, byte: u8) -> Result<bool, Withheld> {
        if let Some(text) = &mut self.string {
            match (text.escaped, byte) {
                (true, _) => text.escaped = false,
                (false, b'\\') => text.escaped = true,
                (false, b'"') => {
                    let written = self.held.get(text.start..self.seen).unwrap_or_default();
                    self.name = (self.depth == 1 && !self.colon).then(|| written.to_vec());
                    self.colon = false;
                    self.string = None;
                }
                _ => {}
            }
            return Ok(false);
        }
        match byte {
            b'"' => {
                self.string = Some(Text { escaped: false, start: self.seen.saturating_sub(1) });
                return Ok(false);
            }
            b' ' | b'\t' | b'\r' | b'\n' => return Ok(false),
            b':' => {
                self.colon = true;
                return Ok(false);
            }
            b'{' => self.depth = self.depth.saturating_add(1),
            b'[' => {
                let list = self.depth == 1
                    && self.colon
                    && self.name.as_deref().is_some_and(|name| LISTS.contains(&name));
                self.depth = self.depth.saturating_add(1);
                if list {
                    (self.in_list, self.name, self.colon) = (true, None, false);
                    return Ok(true);
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.checked_sub(1).ok_or(Withheld::Syntax)?;
                (self.name, self.colon) = (None, false);
                return Ok(self.depth == 0 || (self.in_list && self.depth <= 2));
            }
            _ => {}
        }
        (self.name, self.colon) = (None, false);
        Ok(false)
    }

    fn hand_on(
        &mut self,
        byte: u8,
        take: &mut impl FnMut(Part<'_>) -> Result<(), Withheld>,
    ) -> Result<(), Withheld> {
        let part = self.held.get(self.begin..self.seen).unwrap_or_default();
        match (byte, self.depth) {
            (b'[', _) => {
                self.listed = true;
                take(Part::Opening(part))?;
            }
            (_, 2) if self.in_list => take(Part::Element(part))?,
            // The list's own end stays with what follows it.
            (_, 1) if self.in_list => {
                self.in_list = false;
                return Ok(());
            }
            (_, 0) => {
                let closing = std::mem::take(&mut self.listed);
                self.in_list = false;
                take(if closing { Part::Closing(part) } else { Part::Whole(part) })?;
            }
            _ => return Ok(()),
        }
        self.begin = self.seen;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str, size: usize) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut parts = Vec::new();
        let mut take = |part: Part<'_>| {
            let (kind, bytes) = match part {
                Part::Whole(bytes) => ('W', bytes),
                Part::Opening(bytes) => ('O', bytes),
                Part::Element(bytes) => ('E', bytes),
                Part::Closing(bytes) => ('C', bytes),
            };
            let text = std::str::from_utf8(bytes).unwrap();
            if kind != 'W' {
                parts.push(format!("{kind}{text}"));
            } else if !text.trim().is_empty() {
                parts.push(format!("{kind}{}", text.trim()));
            }
            Ok(())
        };
        for piece in text.as_bytes().chunks(size) {
            splitter.push(piece, &mut take).unwrap();
        }
        splitter.finish(&mut take).unwrap();
        parts
    }

    #[test]
    fn lists_come_element_by_element() {
        let list = r#"{"kind":"L","metadata":{"items":[1]},"items":[{"a":"}"}, {"b":[{}]}],"x":"items"}"#;
        let wanted = [
            r#"O{"kind":"L","metadata":{"items":[1]},"items":["#,
            r#"E{"a":"}"}"#,
            r#"E, {"b":[{}]}"#,
            r#"C],"x":"items"}"#,
        ];
        for size in 1..list.len() {
            assert_eq!(parts(list, size), wanted, "{size}");
        }
        let events = "{\"type\":\"ADDED\",\"object\":{\"items\":[{}]}}\n{\"a\":\"\\\"}\"}\n";
        let wanted = ["W{\"type\":\"ADDED\",\"object\":{\"items\":[{}]}}", "W{\"a\":\"\\\"}\"}"];
        for size in 1..events.len() {
            assert_eq!(parts(events, size), wanted, "{size}");
        }
        assert_eq!(parts(r#"{"items":[]}"#, 3), [r#"O{"items":["#, "C]}"]);
        assert_eq!(parts(r#"{"items":null,"rows":[{}]}"#, 3), [r#"O{"items":null,"rows":["#, "E{}", "C]}"]);
        assert_eq!(parts(r#"{"a":"items","b":[{}]}"#, 3), [r#"W{"a":"items","b":[{}]}"#]);
    }

    #[test]
    fn an_event_comes_with_the_end_of_its_line() {
        let mut splitter = Splitter::default();
        let mut all = Vec::new();
        let take = |part: Part<'_>| {
            let Part::Whole(bytes) = part else { panic!("{part:?}") };
            all.extend_from_slice(bytes);
            Ok(())
        };
        splitter.push(b"{\"a\":1}\n", take).unwrap();
        assert_eq!(all, b"{\"a\":1}\n");
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut splitter = Splitter::default();
        let mut done = Ok(());
        for _ in 0..ITEM_MAX / 1024 + 2 {
            done = splitter.push(&[b'x'; 1024], |_| Ok(()));
        }
        assert_eq!(done, Err(Withheld::Large));
        assert_eq!(Splitter::default().push(b"]", |_| Ok(())), Err(Withheld::Syntax));
        let mut open = Splitter::default();
        open.push(b"{\"a\":", |_| Ok(())).unwrap();
        assert_eq!(open.finish(|_| Ok(())), Err(Withheld::Unfinished));
    }
}
