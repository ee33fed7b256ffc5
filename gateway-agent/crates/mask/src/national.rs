//! National identification numbers, as they are written in running text, with their check digits.
//!
//! A candidate is a run of letters and digits, or groups of the lengths that people use with one kind of separator. Those
//! without a check digit (SSN, NINO) have to keep to the ranges that are issued, and an SSN to its separators.

use std::ops::Range;

use crate::{detect::Detector, recognise::before};

/// Recognisers of this kind, those with the strongest checks first: one number is one finding.
pub(crate) const DETECTORS: &[Detector] = &[
    Detector::ItCf,
    Detector::FrNir,
    Detector::DeSteuerId,
    Detector::PlPesel,
    Detector::EsDni,
    Detector::UkNino,
    Detector::UsSsn,
    Detector::NlBsn,
];

/// Fewest digits, and fewest bytes, of any of them.
pub(crate) const DIGITS: usize = 6;
pub(crate) const SHORTEST: usize = 9;

/// Longest number.
const LONGEST: usize = 16;

type Number<'a> = &'a [u8];
type Check = fn(Number<'_>) -> bool;

/// The groupings of a number, and what it has to be.
fn shapes(detector: Detector) -> (&'static [&'static [usize]], Check) {
    match detector {
        Detector::ItCf => (&[&[16], &[3, 3, 5, 5]], codice_fiscale),
        Detector::FrNir => (&[&[15], &[13, 2], &[1, 2, 2, 2, 3, 3, 2]], nir),
        Detector::DeSteuerId => (&[&[11], &[2, 3, 3, 3]], steuer_id),
        Detector::PlPesel => (&[&[11]], pesel),
        Detector::EsDni => (&[&[9], &[8, 1]], dni),
        Detector::UkNino => (&[&[9], &[2, 6, 1], &[2, 2, 2, 2, 1]], nino),
        Detector::UsSsn => (&[&[3, 2, 4]], ssn),
        Detector::NlBsn => (&[&[9], &[4, 2, 3], &[3, 3, 3]], bsn),
        _ => (&[], |_| false),
    }
}

/// Reports every number of the wanted kinds, in order.
pub(crate) fn find(cell: &[u8], wanted: &[Detector], mut hit: impl FnMut(Detector, Range<usize>)) {
    let mut from = 0;
    while let Some(start) = next_word(cell, from) {
        let end = word_end(cell, start);
        let found =
            wanted.iter().find_map(|detector| Some((*detector, number(cell, start, end, *detector)?)));
        from = end;
        if let Some((detector, end)) = found {
            from = end;
            hit(detector, start..end);
        }
    }
}

fn next_word(cell: &[u8], from: usize) -> Option<usize> {
    cell.get(from..)?.iter().position(u8::is_ascii_alphanumeric).map(|at| from + at)
}

fn word_end(cell: &[u8], start: usize) -> usize {
    let rest = cell.get(start..).unwrap_or_default();
    start + rest.iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(rest.len())
}

/// The end of the number that starts with the word.
fn number(cell: &[u8], start: usize, end: usize, detector: Detector) -> Option<usize> {
    let (groupings, check) = shapes(detector);
    let glued = |byte: u8| byte == b'_' || byte >= 0x80;
    if glued(before(cell, start)) {
        return None;
    }
    groupings.iter().find_map(|groups| {
        let (first, others) = groups.split_first()?;
        (end - start == *first).then_some(())?;
        let mut number = [0u8; LONGEST];
        let mut filled = 0;
        let mut take = |from: usize, to: usize| -> Option<()> {
            number.get_mut(filled..filled + (to - from))?.copy_from_slice(cell.get(from..to)?);
            filled += to - from;
            Some(())
        };
        take(start, end)?;
        let mut at = end;
        let separator = cell.get(end).copied().unwrap_or(0);
        for length in others {
            (matches!(separator, b' ' | b'-' | b'.') && cell.get(at) == Some(&separator)).then_some(())?;
            let from = at + 1;
            at = word_end(cell, from);
            (at - from == *length).then_some(())?;
            take(from, at)?;
        }
        // It does not go on: `1.2.3`, `12-34-56`.
        let next = cell.get(at).copied().unwrap_or(0);
        let goes_on = matches!(next, b'-' | b'.' | b',') && cell.get(at + 1).is_some_and(u8::is_ascii_digit);
        let came_in = matches!(before(cell, start), b'-' | b'.' | b',' | b'/' | b'+' | b'#' | b'$');
        (!glued(next) && !goes_on && !came_in).then_some(())?;
        let number = number.get(..filled)?;
        check(&number.to_ascii_uppercase()).then_some(at)
    })
}

fn digit(byte: u8) -> Option<u32> {
    byte.is_ascii_digit().then(|| u32::from(byte - b'0'))
}

fn digits(number: &[u8]) -> Option<Vec<u32>> {
    number.iter().map(|byte| digit(*byte)).collect()
}

fn value(number: &[u8]) -> Option<u64> {
    std::str::from_utf8(number).ok()?.parse().ok()
}

fn weighed(digits: &[u32], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(digit, weight)| digit * weight).sum()
}

/// Area, group and serial as the SSA gives them out.
fn ssn(number: Number<'_>) -> bool {
    let part = |from: usize, to: usize| number.get(from..to).and_then(value);
    let (Some(area), Some(group), Some(serial)) = (part(0, 3), part(3, 5), part(5, 9)) else { return false };
    number.iter().all(u8::is_ascii_digit)
        && (1..900).contains(&area)
        && area != 666
        && group != 0
        && serial != 0
        // Printed in advertisements and leaflets.
        && !matches!((area, group, serial), (78, 5, 1120) | (219, 9, 9999) | (123, 45, 6789))
}

/// Prefixes that HMRC uses, six digits, a suffix.
fn nino(number: Number<'_>) -> bool {
    let [first, second, body @ .., suffix] = number else { return false };
    let prefix = [*first, *second];
    first.is_ascii_uppercase()
        && second.is_ascii_uppercase()
        && !b"DFIQUV".contains(first)
        && !b"DFIOQUV".contains(second)
        && ![b"BG", b"GB", b"KN", b"NK", b"NT", b"TN", b"ZZ"].contains(&&prefix)
        && body.iter().all(u8::is_ascii_digit)
        && (b'A'..=b'D').contains(suffix)
}

/// ISO 7064 MOD 11,10; of the first ten digits exactly one comes twice or three times.
fn steuer_id(number: Number<'_>) -> bool {
    let Some(digits) = digits(number) else { return false };
    let Some((check, body)) = digits.split_last() else { return false };
    let count = |wanted: u32| body.iter().filter(|digit| **digit == wanted).count();
    let several: Vec<_> = (0..10).map(count).filter(|count| *count > 1).collect();
    let product = body.iter().fold(10, |product, digit| {
        let sum = (digit + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    body.first() != Some(&0) && matches!(several.as_slice(), [2 | 3]) && (11 - product) % 10 == *check
}

/// Sex, year, month, department, and 97 minus the rest as the key.
fn nir(number: Number<'_>) -> bool {
    let mut number = number.to_vec();
    // Corsica.
    let (offset, corsican) = match number.get(5..7) {
        Some(b"2A") => (1_000_000, true),
        Some(b"2B") => (2_000_000, true),
        _ => (0, false),
    };
    if corsican && let Some(letter) = number.get_mut(6) {
        *letter = b'0';
    }
    let part = |from: usize, to: usize| number.get(from..to).and_then(value);
    let (Some(body), Some(key), Some(month)) = (part(0, 13), part(13, 15), part(3, 5)) else { return false };
    number.iter().all(u8::is_ascii_digit)
        && matches!(number.first(), Some(b'1' | b'2' | b'3' | b'4' | b'7' | b'8'))
        && matches!(month, 1..=12 | 20..=42 | 50..=99)
        && body.checked_sub(offset).is_some_and(|body| 97 - body % 97 == key)
}

/// The eleven-test.
fn bsn(number: Number<'_>) -> bool {
    let Some(digits) = digits(number) else { return false };
    let Some((last, body)) = digits.split_last() else { return false };
    let sum = weighed(body, &[9, 8, 7, 6, 5, 4, 3, 2]);
    sum > 0 && sum % 11 == *last && digits.windows(2).any(|pair| pair.first() != pair.last())
}

/// Eight digits, or X, Y, Z and seven, and a letter by the remainder of 23.
fn dni(number: Number<'_>) -> bool {
    let Some((letter, body)) = number.split_last() else { return false };
    let mut body = body.to_vec();
    if let Some(first) = body.first_mut() {
        *first = match *first {
            b'X' => b'0',
            b'Y' => b'1',
            b'Z' => b'2',
            other => other,
        };
    }
    let rest = body.iter().all(u8::is_ascii_digit).then(|| value(&body)).flatten().map(|value| value % 23);
    let letters = b"TRWAGMYFPDXBNJZSQVHLCKE";
    rest.and_then(|rest| letters.get(usize::try_from(rest).ok()?)) == Some(letter)
}

/// Letters of the name, a day, a place, and a check letter over odd and even places.
fn codice_fiscale(number: Number<'_>) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    // Digits may be written as letters, to tell namesakes apart.
    let shape = number.iter().enumerate().all(|(at, byte)| match at {
        0..=5 | 8 | 11 | 15 => byte.is_ascii_uppercase(),
        _ => byte.is_ascii_digit() || b"LMNPQRSTUV".contains(byte),
    });
    let Some((check, body)) = number.split_last() else { return false };
    let sum: Option<u32> = body
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            let plain = match byte {
                b'0'..=b'9' => u32::from(byte - b'0'),
                b'A'..=b'Z' => u32::from(byte - b'A'),
                _ => return None,
            };
            // Places count from 1.
            if at % 2 == 0 { ODD.get(usize::try_from(plain).ok()?).copied() } else { Some(plain) }
        })
        .sum();
    let month = number.get(8).is_some_and(|month| b"ABCDEHLMPRST".contains(month));
    shape && month && sum.is_some_and(|sum| sum % 26 == u32::from(check.wrapping_sub(b'A')))
}

/// Date of birth with the century in the month, and weights 1, 3, 7, 9.
fn pesel(number: Number<'_>) -> bool {
    let Some(digits) = digits(number) else { return false };
    let Some((check, body)) = digits.split_last() else { return false };
    let sum = weighed(body, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]);
    let part = |from: usize, to: usize| number.get(from..to).and_then(value).unwrap_or(0);
    let (month, day) = (part(2, 4), part(4, 6));
    matches!(month % 20, 1..=12) && (1..=31).contains(&day) && (10 - sum % 10) % 10 == *check
}

/// Tokens that look drawn at random: 20 bytes or more of letters of both cases and digits, of which no one is frequent.
pub(crate) fn entropy(cell: &[u8], mut hit: impl FnMut(Range<usize>)) {
    const FEWEST: usize = 20;
    /// Bits for each byte, times 100; English text in base64 has fewer, random base64 of 24 bytes about 430.
    const BITS: u32 = 370;
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"+/_-".contains(b);
    let mut from = 0;
    while let Some(start) = cell.get(from..).and_then(|rest| rest.iter().position(token)).map(|at| from + at)
    {
        let rest = cell.get(start..).unwrap_or_default();
        let end = start + rest.iter().position(|b| !token(b)).unwrap_or(rest.len());
        from = end;
        let Some(word) = cell.get(start..end).filter(|word| word.len() >= FEWEST) else { continue };
        let has = |is: fn(&u8) -> bool| word.iter().any(is);
        let mixed = has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit);
        // Paths and names in words: random letters change their kind every few bytes.
        let kind = |b: u8| (b.is_ascii_lowercase(), b.is_ascii_uppercase(), b.is_ascii_digit());
        let changes = word.windows(2).filter(|pair| matches!(pair, [a, b] if kind(*a) != kind(*b))).count();
        // `eyJ` begins JSON in base64, which is no more drawn than the JSON.
        if mixed && changes * 100 >= word.len() * 42 && !word.starts_with(b"eyJ") && bits(word) >= BITS {
            hit(start..end);
        }
    }
}

/// Shannon's entropy in hundredths of bits.
fn bits(word: &[u8]) -> u32 {
    let mut counts = [0u32; 256];
    for byte in word {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let total = f64::from(u32::try_from(word.len()).unwrap_or(u32::MAX));
    let sum: f64 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / total;
            -share * share.log2()
        })
        .sum();
    // At most 8 bits.
    format!("{:.0}", sum * 100.0).parse().unwrap_or(0)
}
