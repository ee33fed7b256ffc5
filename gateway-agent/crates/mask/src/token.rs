//! What the recognisers of tokens and keys take for a finding.
//!
//! Every one starts with a literal, and every literal has a byte that ordinary text seldom has: so look for
//! those, and then at the bytes around them.

use std::ops::Range;

use crate::{
    detect::Detector,
    recognise::{before, byte, run},
};

/// Fewest bytes of any finding.
pub(crate) const SHORTEST: usize = 15;

/// Recognisers of this kind.
pub(crate) const DETECTORS: &[Detector] = &[
    Detector::AwsAccessKey,
    Detector::GithubToken,
    Detector::SlackToken,
    Detector::StripeKey,
    Detector::GcpKey,
    Detector::PrivateKey,
    Detector::Jwt,
];

/// Recognisers of tokens that are on, and the marks to look for.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    wanted: Vec<Detector>,
    /// `_` and `-`, of all but these three.
    words: bool,
    jwt: bool,
    /// `z` and `I`.
    capitals: bool,
}

impl Tokens {
    pub(crate) fn new(wanted: Vec<Detector>) -> Self {
        let on = |detector: Detector| wanted.contains(&detector);
        let jwt = on(Detector::Jwt);
        let capitals = on(Detector::GcpKey) || on(Detector::AwsAccessKey);
        let apart = [Detector::Jwt, Detector::GcpKey, Detector::AwsAccessKey];
        let words = wanted.iter().any(|detector| !apart.contains(detector));
        Self { wanted, words, jwt, capitals }
    }

    /// Reports every token and key, not always in order.
    pub(crate) fn find(&self, cell: &[u8], mut hit: impl FnMut(Detector, Range<usize>)) {
        match (self.words, self.jwt) {
            (true, _) => self.at_marks(cell, memchr::memchr3_iter(b'_', b'-', b'J', cell), &mut hit),
            (false, true) => self.at_marks(cell, memchr::memchr_iter(b'J', cell), &mut hit),
            (false, false) => {}
        }
        if self.capitals {
            self.at_marks(cell, memchr::memchr2_iter(b'z', b'I', cell), &mut hit);
        }
    }

    /// What nobody looks for hides nothing: a token in a key block is found when key blocks are let be.
    fn at_marks(
        &self,
        cell: &[u8],
        marks: impl Iterator<Item = usize>,
        hit: &mut impl FnMut(Detector, Range<usize>),
    ) {
        let mut from = 0;
        for mark in marks {
            if mark >= from
                && let Some((detector, range)) = at_mark(cell, mark)
                && self.wanted.contains(&detector)
            {
                from = range.end;
                hit(detector, range);
            }
        }
    }
}

/// The finding whose literal has this mark.
fn at_mark(cell: &[u8], mark: usize) -> Option<(Detector, Range<usize>)> {
    let next = mark + 1;
    // Where a literal starts that ends with the mark.
    let ends = |literal: &[u8]| cell.get(..next)?.ends_with(literal).then(|| next - literal.len());
    match byte(cell, mark) {
        b'_' => match before(cell, mark) {
            b'p' | b'o' | b'u' | b's' | b'r' => {
                let start = [b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"]
                    .iter()
                    .find_map(|literal| ends(*literal))?;
                Some((Detector::GithubToken, github_token(cell, start, next)?))
            }
            b't' => match ends(b"github_pat_") {
                Some(start) => Some((Detector::GithubToken, github_token(cell, start, next)?)),
                None => {
                    stripe(cell, [b"sk_test_", b"rk_test_"].iter().find_map(|literal| ends(*literal))?, next)
                }
            },
            b'e' => stripe(cell, [b"sk_live_", b"rk_live_"].iter().find_map(|literal| ends(*literal))?, next),
            _ => None,
        },
        b'-' => match before(cell, mark) {
            b'-' => None,
            _ if byte(cell, next) == b'-' => {
                cell.get(mark..)?.starts_with(BEGIN).then_some(())?;
                Some((Detector::PrivateKey, private_key(cell, mark, mark + BEGIN.len())?))
            }
            b'p' if ends(b"xapp-").is_some() => {
                Some((Detector::SlackToken, slack_token(cell, ends(b"xapp-")?, next)?))
            }
            b'a' | b'b' | b'e' | b'o' | b'p' | b'r' | b's' => {
                let start = mark.checked_sub(4)?;
                cell.get(start..)?.starts_with(b"xox").then_some(())?;
                Some((Detector::SlackToken, slack_token(cell, start, next)?))
            }
            _ => None,
        },
        b'J' => Some((Detector::Jwt, jwt(cell, ends(b"eyJ")?)?)),
        b'z' => {
            let start = ends(b"AIz")?;
            (byte(cell, next) == b'a').then_some(())?;
            Some((Detector::GcpKey, gcp_key(cell, start, next + 1)?))
        }
        b'I' => {
            let start = ends(b"AKI").or_else(|| ends(b"ASI"))?;
            (byte(cell, next) == b'A').then_some(())?;
            Some((Detector::AwsAccessKey, aws_access_key(cell, start, next + 1)?))
        }
        _ => None,
    }
}

const BEGIN: &[u8] = b"-----BEGIN ";

fn stripe(cell: &[u8], start: usize, literal: usize) -> Option<(Detector, Range<usize>)> {
    Some((Detector::StripeKey, stripe_key(cell, start, literal)?))
}

fn aws_access_key(cell: &[u8], start: usize, literal: usize) -> Option<Range<usize>> {
    let end = run(cell, literal, |b| b.is_ascii_alphanumeric());
    let body = cell.get(literal..end)?;
    (free(cell, start)
        && body.len() == 16
        && body.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()))
    .then_some(start..end)
}

fn github_token(cell: &[u8], start: usize, literal: usize) -> Option<Range<usize>> {
    let end = run(cell, literal, |b| b.is_ascii_alphanumeric() || b == b'_');
    (free(cell, start) && end - literal >= 36).then_some(start..end)
}

fn slack_token(cell: &[u8], start: usize, literal: usize) -> Option<Range<usize>> {
    let end = run(cell, literal, |b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    (free(cell, start) && end - literal >= 10).then_some(start..end)
}

fn stripe_key(cell: &[u8], start: usize, literal: usize) -> Option<Range<usize>> {
    let end = run(cell, literal, |b| b.is_ascii_alphanumeric());
    (free(cell, start) && end - literal >= 16).then_some(start..end)
}

fn gcp_key(cell: &[u8], start: usize, literal: usize) -> Option<Range<usize>> {
    let end = run(cell, literal, |b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    (free(cell, start) && end - literal == 35).then_some(start..end)
}

/// From the first dash of BEGIN to the last of END, or to the end of the cell when that is missing.
fn private_key(cell: &[u8], start: usize, literal: usize) -> Option<Range<usize>> {
    let head = cell.get(literal..cell.len().min(literal + 64))?;
    let label = head.get(..memchr::memmem::find(head, b"-----")?)?;
    memchr::memmem::find(label, b"PRIVATE KEY")?;
    let rest = cell.get(literal..)?;
    let end = memchr::memmem::find(rest, b"-----END ").and_then(|at| {
        let from = literal + at + b"-----END ".len();
        memchr::memmem::find(cell.get(from..)?, b"-----").map(|close| from + close + 5)
    });
    Some(start..end.unwrap_or(cell.len()))
}

/// Three segments of which the first two are JSON objects, or the five of an encrypted token.
fn jwt(cell: &[u8], start: usize) -> Option<Range<usize>> {
    const SHORTEST: usize = 10;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if token(before(cell, start)) {
        return None;
    }
    let mut ends = [0usize; 5];
    let mut segments = 0;
    let mut at = start;
    for slot in &mut ends {
        at = run(cell, at, token);
        *slot = at;
        segments += 1;
        if byte(cell, at) != b'.' {
            break;
        }
        at += 1;
    }
    let [header, payload, signature, _, last] = ends;
    if header - start < SHORTEST || segments < 3 {
        return None;
    }
    if segments == 5 {
        return Some(start..last);
    }
    let payload_text = cell.get(header + 1..payload)?;
    (payload_text.len() >= SHORTEST && payload_text.starts_with(b"eyJ")).then_some(start..signature)
}

/// Whether a token may start here.
fn free(cell: &[u8], start: usize) -> bool {
    !before(cell, start).is_ascii_alphanumeric()
}
