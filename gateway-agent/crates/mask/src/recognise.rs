//! What the recognisers of addresses and numbers take for a finding.
//!
//! Shapes alone match too much in tables full of numbers, so everything that has check digits is checked.
//! Every function is linear in the cell: a finding is skipped as a whole, and a failed attempt has looked at
//! a bounded stretch or at one that no other attempt looks at again.

use std::ops::Range;

use crate::detect::Detector;

/// Fewest bytes of any finding: `a@b.co`.
pub(crate) const SHORTEST: usize = 6;
/// How many ASCII digits there are. Arithmetic without branches over a small array: the compiler makes vector
/// instructions of it.
pub(crate) fn digits(cell: &[u8]) -> usize {
    const LANES: usize = 32;
    let (chunks, rest) = cell.as_chunks::<LANES>();
    let mut total = rest.iter().filter(|byte| byte.is_ascii_digit()).count();
    // Counts are bytes: no lane may see more chunks than fit.
    for chunks in chunks.chunks(usize::from(u8::MAX)) {
        let mut counts = [0u8; LANES];
        for chunk in chunks {
            for (count, byte) in counts.iter_mut().zip(chunk) {
                *count += u8::from(byte.is_ascii_digit());
            }
        }
        total += counts.iter().copied().map(usize::from).sum::<usize>();
    }
    total
}

/// Recognisers of numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    card: bool,
    iban: bool,
    phone: bool,
    /// Fewest digits in a cell that any of them could match.
    pub(crate) digits: usize,
    /// Fewest bytes.
    pub(crate) shortest: usize,
}

impl Numbers {
    pub(crate) fn new(card: bool, iban: bool, phone: bool) -> Self {
        let fewest = |card_has: usize, iban_has: usize, phone_has: usize| {
            let each = [(card, card_has), (iban, iban_has), (phone, phone_has)];
            each.iter().filter(|(on, _)| *on).map(|(_, has)| *has).min().unwrap_or(usize::MAX)
        };
        Self { card, iban, phone, digits: fewest(13, 6, 8), shortest: fewest(13, 15, 9) }
    }

    /// Tries the first run of digits of each word, a run of letters and digits: cards and phone numbers begin with one, IBANs
    /// two letters before one.
    pub(crate) fn find(self, cell: &[u8], mut hit: impl FnMut(Detector, Range<usize>)) {
        let mut from = 0;
        while let Some(start) = next_digit(cell, from) {
            let found = match before(cell, start).is_ascii_alphanumeric() {
                true if self.iban => iban(cell, start).map(|range| (Detector::Iban, range)),
                true => None,
                false => self.number(cell, start),
            };
            from = match found {
                Some((detector, range)) => {
                    let end = range.end.max(start + 1);
                    hit(detector, range);
                    end
                }
                None => run(cell, start, |b| b.is_ascii_alphanumeric()),
            };
        }
    }

    /// A card or phone number whose first digits are at `start`.
    fn number(self, cell: &[u8], start: usize) -> Option<(Detector, Range<usize>)> {
        let end = run(cell, start, |b| b.is_ascii_digit());
        let card = || if self.card { card(cell, start, end) } else { None };
        let phone = || if self.phone { phone(cell, start, end) } else { None };
        let card = card().map(|range| (Detector::Card, range));
        card.or_else(|| phone().map(|range| (Detector::Phone, range)))
    }
}

fn next_digit(cell: &[u8], from: usize) -> Option<usize> {
    cell.get(from..)?.iter().position(|b| b.is_ascii_digit()).map(|at| from + at)
}

pub(crate) fn byte(cell: &[u8], at: usize) -> u8 {
    cell.get(at).copied().unwrap_or(0)
}

pub(crate) fn before(cell: &[u8], at: usize) -> u8 {
    at.checked_sub(1).map_or(0, |at| byte(cell, at))
}

/// End of the run of accepted bytes that starts at `from`.
pub(crate) fn run(cell: &[u8], from: usize, accept: impl Fn(u8) -> bool) -> usize {
    let rest = cell.get(from..).unwrap_or_default();
    from + rest.iter().position(|b| !accept(*b)).unwrap_or(rest.len())
}

/// The address around the `@` at `at`, not reaching back before `from`.
pub(crate) fn email(cell: &[u8], at: usize, from: usize) -> Option<Range<usize>> {
    // Bytes above 0x7f belong to internationalised addresses.
    let local = |b: u8| b.is_ascii_alphanumeric() || b >= 0x80 || b"._%+-'".contains(&b);
    let head = cell.get(from..at)?;
    let mut start = at - head.iter().rev().take_while(|b| local(**b)).count();
    while start < at && b".'-".contains(&byte(cell, start)) {
        start += 1;
    }
    if start == at || before(cell, at) == b'.' {
        return None;
    }
    let mut end = run(cell, at + 1, |b| b.is_ascii_alphanumeric() || b >= 0x80 || b == b'-' || b == b'.');
    while end > at + 1 && b".-".contains(&before(cell, end)) {
        end -= 1;
    }
    let domain = cell.get(at + 1..end)?;
    let mut labels = domain.rsplit(|b| *b == b'.');
    let top = labels.next()?;
    let top_ok = top.len() >= 2
        && (top.iter().all(|b| b.is_ascii_alphabetic() || *b >= 0x80) || top.starts_with(b"xn--"));
    let mut rest = 0;
    for label in labels {
        if label.is_empty() {
            return None;
        }
        rest += 1;
    }
    (top_ok && rest > 0).then_some(start..end)
}

/// A card number: one run of digits, or groups as printed on cards with one kind of separator.
fn card(cell: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    const GROUPS: &[&[usize]] = &[&[4, 4, 4, 4, 3], &[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4], &[4, 4, 4, 1]];
    if before(cell, start).is_ascii_alphabetic() {
        return None;
    }
    match end - start {
        13..=19 => {
            let whole = !byte(cell, end).is_ascii_alphabetic() && is_card(cell.get(start..end)?);
            whole.then_some(start..end)
        }
        // All groupings go on with four digits; most dates end here.
        4 if matches!(byte(cell, end), b' ' | b'-')
            && cell.get(end + 1..end + 5)?.iter().all(u8::is_ascii_digit) =>
        {
            GROUPS.iter().find_map(|groups| grouped_card(cell, start, groups)).map(|end| start..end)
        }
        _ => None,
    }
}

fn grouped_card(cell: &[u8], start: usize, groups: &[usize]) -> Option<usize> {
    let separator = byte(cell, start + 4);
    let mut number = [0u8; 19];
    let mut filled = 0;
    let mut at = start;
    for (index, length) in groups.iter().enumerate() {
        if index > 0 {
            if byte(cell, at) != separator {
                return None;
            }
            at += 1;
        }
        let end = run(cell, at, |b| b.is_ascii_digit());
        if end - at != *length {
            return None;
        }
        number.get_mut(filled..filled + length)?.copy_from_slice(cell.get(at..end)?);
        filled += length;
        at = end;
    }
    (!byte(cell, at).is_ascii_alphabetic() && is_card(number.get(..filled)?)).then_some(at)
}

/// Issuer range, the lengths in use there, and the Luhn check digit.
fn is_card(number: &[u8]) -> bool {
    let prefix = |n: usize| {
        number.iter().take(n).fold(0u32, |value, digit| value * 10 + u32::from(digit.wrapping_sub(b'0')))
    };
    let length = number.len();
    let issued = match (prefix(2), prefix(3), prefix(4)) {
        (40..=49, ..) => matches!(length, 13 | 16 | 19),
        (51..=55, ..) | (_, _, 2221..=2720) => length == 16,
        (34 | 37, ..) => length == 15,
        (36, ..) | (_, 300..=305, _) | (38 | 39, ..) => (14..=19).contains(&length),
        (65, ..) | (_, 644..=649, _) | (_, _, 6011) | (62, ..) => (16..=19).contains(&length),
        (_, _, 3528..=3589) => (16..=19).contains(&length),
        (50 | 56..=58 | 60 | 61 | 63 | 67..=69, ..) => (13..=19).contains(&length),
        _ => false,
    };
    issued && luhn(number)
}

fn luhn(number: &[u8]) -> bool {
    let sum: u32 = number
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| {
            let value = u32::from(digit.wrapping_sub(b'0'));
            match index % 2 {
                0 => value,
                _ if value > 4 => 2 * value - 9,
                _ => 2 * value,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Lengths by country, from the SWIFT IBAN registry.
const IBAN_LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

/// An IBAN, compact or in groups of four, with its check digits at `digits`.
fn iban(cell: &[u8], digits: usize) -> Option<Range<usize>> {
    let start = digits.checked_sub(2)?;
    let letters = byte(cell, start).is_ascii_alphabetic() && byte(cell, start + 1).is_ascii_alphabetic();
    if !letters || before(cell, start).is_ascii_alphanumeric() || !byte(cell, start + 3).is_ascii_digit() {
        return None;
    }
    let country = [byte(cell, start).to_ascii_uppercase(), byte(cell, start + 1).to_ascii_uppercase()];
    let (_, length) = IBAN_LENGTHS.iter().find(|(known, _)| **known == country)?;
    let mut text = [0u8; 34];
    let mut filled = 0;
    let mut at = start;
    while filled < *length {
        let mut next = byte(cell, at);
        if matches!(next, b' ' | b'-') && filled % 4 == 0 && filled > 0 {
            at += 1;
            next = byte(cell, at);
        }
        if !next.is_ascii_alphanumeric() {
            return None;
        }
        *text.get_mut(filled)? = next.to_ascii_uppercase();
        filled += 1;
        at += 1;
    }
    if byte(cell, at).is_ascii_alphanumeric() {
        return None;
    }
    let (head, body) = text.get(..filled)?.split_at_checked(4)?;
    let remainder = body.iter().chain(head).fold(0u32, |value, b| match b {
        b'0'..=b'9' => (value * 10 + u32::from(b - b'0')) % 97,
        _ => (value * 100 + u32::from(b.wrapping_sub(b'A')) + 10) % 97,
    });
    (remainder == 1).then_some(start..at)
}

/// `+` and 8 to 15 digits (E.164), or a North American number with its usual separators.
fn phone(cell: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    let first = before(cell, start);
    if first == b'+' {
        let plus = start - 1;
        let free = !before(cell, plus).is_ascii_alphanumeric();
        return if free { international(cell, plus).map(|end| plus..end) } else { None };
    }
    (end - start == 3 && !first.is_ascii_alphanumeric()).then(|| american(cell, start)).flatten()
}

fn international(cell: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    if !matches!(byte(cell, at), b'1'..=b'9') {
        return None;
    }
    let (mut count, mut end, mut gap) = (0, None, 0);
    // At most two separators in a row: `+49 (30) 1234`. The last whole group that still fits is the end.
    while count < 16 && gap <= 2 {
        match byte(cell, at) {
            b'0'..=b'9' => {
                count += 1;
                gap = 0;
                if (8..=15).contains(&count) && !byte(cell, at + 1).is_ascii_alphanumeric() {
                    end = Some(at + 1);
                }
            }
            b' ' | b'-' | b'.' | b'(' | b')' | b'/' => gap += 1,
            _ => break,
        }
        at += 1;
    }
    end
}

fn american(cell: &[u8], start: usize) -> Option<Range<usize>> {
    let group = |at: usize, length: usize| {
        let end = run(cell, at, |b| b.is_ascii_digit());
        (end - at == length).then_some(end)
    };
    // An exchange or area code never starts with 0 or 1: this tells numbers from dates and versions.
    let code = |at: usize| matches!(byte(cell, at), b'2'..=b'9').then(|| group(at, 3)).flatten();
    let area = code(start)?;
    let (from, exchange) = match (before(cell, start), byte(cell, area)) {
        (b'(', b')') => (start - 1, area + 1 + usize::from(byte(cell, area + 1) == b' ')),
        (_, b'-' | b'.') => (start, area + 1),
        _ => return None,
    };
    let line = code(exchange)?;
    if !matches!(byte(cell, line), b'-' | b'.' | b' ') {
        return None;
    }
    let end = group(line + 1, 4)?;
    let after = byte(cell, end);
    let runs_on =
        after.is_ascii_alphanumeric() || (b"-.".contains(&after) && byte(cell, end + 1).is_ascii_digit());
    let runs_in =
        b"-.".contains(&before(cell, from)) && before(cell, from.saturating_sub(1)).is_ascii_digit();
    (!runs_on && !runs_in).then_some(from..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What [`Numbers::find`] is quicker than: every run of digits, and each recogniser.
    fn plainly(numbers: Numbers, cell: &[u8]) -> Vec<(Detector, Range<usize>)> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(start) = next_digit(cell, from) {
            let end = run(cell, start, |b| b.is_ascii_digit());
            let iban = iban(cell, start).filter(|_| numbers.iban).map(|range| (Detector::Iban, range));
            let card = card(cell, start, end).filter(|_| numbers.card).map(|range| (Detector::Card, range));
            let phone =
                phone(cell, start, end).filter(|_| numbers.phone).map(|range| (Detector::Phone, range));
            from = end;
            if let Some((detector, range)) = iban.or(card).or(phone) {
                from = end.max(range.end);
                found.push((detector, range));
            }
        }
        found
    }

    /// Pieces of numbers and of what stands around them.
    const PIECES: &[&str] = &[
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "NO9386011117947",
        "GB82WEST12345698765432",
        "4111111111111111",
        "4111 1111 1111 1111",
        "3782-822463-10005",
        "+49 (30) 1234-5678",
        "(212) 555-0199",
        "212-555-0199",
        "+14155550123",
        "4",
        "41",
        "411",
        "x",
        "DE",
        "de8",
        "é",
        " ",
        "-",
        ".",
        "+",
        "(",
        ")",
        "_",
        "2024-01-02",
        "c4ca4238a0b923820dcc509a6f75849b",
        "1a2b",
        "00",
    ];

    proptest! {
        #[test]
        fn numbers_are_found_as_by_looking_everywhere(
            pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..8),
            bytes in proptest::collection::vec(proptest::sample::select(b"0123456789 -.+()DEdeNOx\xc3".to_vec()), 0..60),
            on in any::<[bool; 3]>(),
        ) {
            let numbers = Numbers::new(on[0], on[1], on[2]);
            for cell in [pieces.concat().into_bytes(), bytes] {
                let mut found = Vec::new();
                numbers.find(&cell, |detector, range| found.push((detector, range)));
                prop_assert_eq!(found, plainly(numbers, &cell), "{}", String::from_utf8_lossy(&cell));
            }
        }

        #[test]
        fn every_digit_is_counted(cell: Vec<u8>, more in 0usize..20_000) {
            let mut cell = cell;
            cell.extend(std::iter::repeat_n(b'7', more));
            prop_assert_eq!(digits(&cell), cell.iter().filter(|b| b.is_ascii_digit()).count());
        }
    }
}
