//! Detectors over output that comes in pieces.

use std::sync::Arc;

use crate::detect::Detectors;

/// Longest end of the output that is held back because more may make it a finding.
pub const HELD: usize = 16 * 1024;
/// Of a longer run without a gap, this much is held back for what comes.
const TAIL: usize = 4 * 1024;
/// The blocks that span lines begin and end with these.
const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";

/// Hides what [`Detectors`] find in a stream, wherever its pieces are cut.
///
/// Holds back the end of what it was given while a finding could still begin there and go on: at most [`HELD`] bytes, and
/// nothing once a line is over. Whoever shows a terminal calls [`release`](Self::release) when nothing has come for a while, or the
/// echo of what is typed would wait for the next word; a secret that comes in pieces with such a pause between is not found.
#[derive(Debug)]
pub struct Stream {
    detectors: Arc<Detectors>,
    held: Vec<u8>,
    hidden: u64,
}

impl Stream {
    pub fn new(detectors: Arc<Detectors>) -> Self {
        Self { detectors, held: Vec::new(), hidden: 0 }
    }

    /// Takes the next piece and appends what can be shown to `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(piece);
        let cut = cut(&self.held);
        self.show(cut, out);
    }

    /// Shows everything: the stream is over, or has paused.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        self.show(self.held.len(), out);
    }

    /// Something is held back.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Findings that were hidden.
    pub fn hidden(&self) -> u64 {
        self.hidden
    }

    fn show(&mut self, cut: usize, out: &mut Vec<u8>) {
        let mut cut = cut.min(self.held.len());
        if cut == 0 {
            return;
        }
        // What is found across the cut is left for later, unless everything is to be shown now.
        let found = self.detectors.find(&self.held);
        if cut < self.held.len()
            && let Some(across) = found.iter().find(|hit| hit.range.start < cut && cut < hit.range.end)
        {
            cut = if across.range.start > 0 || self.held.len() < HELD {
                across.range.start
            } else {
                across.range.end
            };
        }
        if cut == 0 {
            return;
        }
        let now = self.held.get(..cut).unwrap_or_default();
        self.hidden = self.hidden.saturating_add(
            u64::try_from(found.iter().filter(|hit| hit.range.end <= cut).count()).unwrap_or(u64::MAX),
        );
        if !self.detectors.rewrite(now, out) {
            out.extend_from_slice(now);
        }
        self.held.drain(..cut);
    }
}

/// Up to where nothing that comes can make a difference.
fn cut(held: &[u8]) -> usize {
    let cut = match open_block(held) {
        Some(begin) => begin,
        None => held.len().saturating_sub(run(held)),
    };
    match held.len().saturating_sub(cut) > HELD {
        true => held.len().saturating_sub(TAIL),
        false => cut,
    }
}

/// Where a block begins that has no end yet.
fn open_block(held: &[u8]) -> Option<usize> {
    let begin = memchr::memmem::rfind(held, BEGIN)?;
    let rest = held.get(begin..).unwrap_or_default();
    match memchr::memmem::find(rest, END) {
        None => Some(begin),
        // The end has a line of its own.
        Some(end) => (!rest.get(end..).unwrap_or_default().contains(&b'\n')).then_some(begin),
    }
}

/// Bytes at the end that what comes may make part of a finding: the last word, and words before it as long as they may be
/// groups of one number.
fn run(held: &[u8]) -> usize {
    let ends = |byte: &u8| {
        matches!(byte, b'\n' | b'\r' | b'\t' | 0 | 0x07 | 0x1b | b'"' | b'`' | b'<' | b'>' | b'|')
    };
    let line = held.iter().rposition(ends).map_or(0, |at| at.saturating_add(1));
    let mut rest = held.get(line..).unwrap_or_default();
    let mut length = 0_usize;
    let mut last = true;
    loop {
        let word = rest.iter().rposition(|byte| *byte == b' ').map_or(0, |at| at.saturating_add(1));
        let (before, now) = rest.split_at_checked(word).unwrap_or_default();
        // A word without a digit is no group of a number: what came before it is over.
        if !last && !now.iter().any(u8::is_ascii_digit) {
            // The gap after it is not part of anything either.
            return length.saturating_sub(1);
        }
        length = length.saturating_add(now.len());
        match before.split_last() {
            Some((_, earlier)) => {
                rest = earlier;
                length = length.saturating_add(1);
            }
            None => return length,
        }
        last = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(names: &[&str]) -> Stream {
        Stream::new(Arc::new(Detectors::compile(names).unwrap()))
    }

    /// What is shown after each piece, and at the end.
    fn shown(stream: &mut Stream, pieces: &[&[u8]]) -> Vec<String> {
        let mut all = Vec::new();
        for piece in pieces {
            let mut out = Vec::new();
            stream.push(piece, &mut out);
            all.push(String::from_utf8(out).unwrap());
        }
        let mut out = Vec::new();
        stream.release(&mut out);
        all.push(String::from_utf8(out).unwrap());
        all
    }

    const TEXT: &str = "key AKIAIOSFODNN7EXAMPLE, card 4111 1111 1111 1111.\nmail: jo@mail.example (DE44 5001 0517 5407 3249 31)\n\
        -----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\nAAAABAAAAMwAAAAtzc2gtZW\n-----END OPENSSH PRIVATE KEY-----\nrest\n";

    #[test]
    fn wherever_it_is_cut_the_same_is_hidden() {
        let names = ["aws_access_key", "card", "email", "iban", "private_key"];
        let mut whole = Vec::new();
        assert!(Detectors::compile(&names).unwrap().rewrite(TEXT.as_bytes(), &mut whole));
        let whole = String::from_utf8(whole).unwrap();
        assert_eq!(whole.matches("[redacted:").count(), 5, "{whole}");
        for at in 0..TEXT.len() {
            let (a, b) = TEXT.as_bytes().split_at(at);
            assert_eq!(shown(&mut stream(&names), &[a, b]).concat(), whole, "cut at {at}");
        }
        for size in 1..40 {
            let pieces: Vec<_> = TEXT.as_bytes().chunks(size).collect();
            let mut stream = stream(&names);
            assert_eq!(shown(&mut stream, &pieces).concat(), whole, "pieces of {size}");
            assert_eq!(stream.hidden(), 5);
        }
    }

    #[test]
    fn only_what_may_still_become_something_waits() {
        let mut stream = stream(&["card", "email"]);
        assert_eq!(
            shown(&mut stream, &[b"jo@host:~$ ", b"ls -l", b"\n", b"total 8 files ", b"4111 ", b"apples\n"]),
            ["jo@host:~$ ", "ls ", "-l\n", "total 8 files ", "", "4111 apples\n", ""]
        );
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let mut stream = stream(&["private_key", "jwt"]);
        let mut out = Vec::new();
        stream.push(b"-----BEGIN PRIVATE KEY-----\n", &mut out);
        let mut held = 0;
        for _ in 0..10_000 {
            stream.push(b"QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\n", &mut out);
            held = held.max(stream.held.len());
        }
        for _ in 0..10_000 {
            stream.push(b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", &mut out);
            held = held.max(stream.held.len());
        }
        assert!(held <= HELD + 100, "{held}");
    }
}
