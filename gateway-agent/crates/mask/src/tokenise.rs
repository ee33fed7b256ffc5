//! Values that look like others of their kind: format-preserving encryption (FF1, NIST SP 800-38G).
//!
//! Digits become other digits and letters other letters of their case; everything else of ASCII stays where it is, so that
//! a card number still has its spaces and an address its `@`. Equal values stay equal, and different ones different
//! wherever there is room for that: at least a million values, as the standard wants. Shorter runs of digits or letters
//! are replaced by what a keyed function draws for the whole value.

use aes::Aes256;
use aws_lc_rs::hmac;
use fpe::ff1::{FF1, FlexibleNumeralString};

/// Longest value that is encrypted as one, in digits or letters; the work grows with the square of it.
const LONGEST: usize = 256;

/// Ciphers for the alphabets, and the function that draws.
pub(crate) struct Tokeniser {
    digits: FF1<Aes256>,
    letters: FF1<Aes256>,
    nibbles: FF1<Aes256>,
    draw: hmac::Key,
}

impl Tokeniser {
    /// `None` for no key that [`hmac::Key`] would give.
    pub(crate) fn new(key: &hmac::Key) -> Option<Self> {
        let derive = |label: &str| hmac::sign(key, label.as_bytes());
        let cipher = |label: &str, radix| FF1::<Aes256>::new(derive(label).as_ref(), radix).ok();
        Some(Self {
            digits: cipher("tokenise digits", 10)?,
            letters: cipher("tokenise letters", 26)?,
            nibbles: cipher("tokenise nibbles", 16)?,
            draw: hmac::Key::new(hmac::HMAC_SHA256, derive("tokenise short").as_ref()),
        })
    }

    /// Appends the token of a text; false, and nothing, when it is too long or not UTF-8.
    pub(crate) fn text(&self, cell: &[u8], out: &mut Vec<u8>) -> bool {
        let Ok(text) = std::str::from_utf8(cell) else { return false };
        let digits: Vec<u16> =
            cell.iter().filter(|b| b.is_ascii_digit()).map(|b| u16::from(b - b'0')).collect();
        let letters: Vec<u16> = cell
            .iter()
            .filter(|b| b.is_ascii_alphabetic())
            .map(|b| u16::from(b.to_ascii_lowercase() - b'a'))
            .collect();
        if digits.len() > LONGEST || letters.len() > LONGEST {
            return false;
        }
        let digits = self.run(&self.digits, 10, 6, digits, cell);
        let letters = self.run(&self.letters, 26, 5, letters, cell);
        let (mut digits, mut letters) = (digits.into_iter(), letters.into_iter());
        for char in text.chars() {
            let byte = match char {
                '0'..='9' => digits.next().map(|d| b'0' + d),
                'a'..='z' => letters.next().map(|l| b'a' + l),
                'A'..='Z' => letters.next().map(|l| b'A' + l),
                other if other.is_ascii() => u8::try_from(other).ok(),
                // Other alphabets are not told apart, and what is in them is not shown.
                _ => Some(b'*'),
            };
            out.push(byte.unwrap_or(b'*'));
        }
        true
    }

    /// The token of an integer's digits: as many digits, the first not 0 unless it is the only one.
    pub(crate) fn integer(&self, digits: &str) -> Option<String> {
        let mut token = digits.to_owned();
        // A token out of range is encrypted once more, until one is in it: still one to one.
        for _ in 0..64 {
            let mut out = Vec::new();
            self.text(token.as_bytes(), &mut out).then_some(())?;
            token = String::from_utf8(out).ok()?;
            if digits.len() == 1 || !token.starts_with('0') {
                return Some(token);
            }
        }
        None
    }

    /// Of a UUID's bytes.
    pub(crate) fn uuid(&self, bytes: [u8; 16]) -> Option<[u8; 16]> {
        let nibbles: Vec<u16> = bytes.iter().flat_map(|b| [u16::from(b >> 4), u16::from(b & 15)]).collect();
        let token = self.run(&self.nibbles, 16, 5, nibbles, &bytes);
        let mut out = [0; 16];
        for (byte, pair) in out.iter_mut().zip(token.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = (high << 4) | low;
        }
        Some(out)
    }

    /// As many bytes, drawn for these.
    pub(crate) fn bytes(&self, cell: &[u8], out: &mut Vec<u8>) {
        self.drawn(cell, "bytes").take(cell.len()).for_each(|byte| out.push(byte));
    }

    fn run(&self, cipher: &FF1<Aes256>, radix: u8, fewest: usize, run: Vec<u16>, cell: &[u8]) -> Vec<u8> {
        if run.len() >= fewest
            && let Ok(token) = cipher.encrypt(&[], &FlexibleNumeralString::from(run.clone()))
        {
            return Vec::from(token)
                .into_iter()
                .filter_map(|symbol: u16| u8::try_from(symbol).ok())
                .collect();
        }
        let label = if radix == 10 { "digits" } else { "letters" };
        // A byte above the last whole multiple of the radix would favour some symbols.
        let fair = u8::MAX - u8::MAX % radix;
        self.drawn(cell, label).filter(|byte| *byte < fair).map(|byte| byte % radix).take(run.len()).collect()
    }

    /// An endless row of bytes that depend on key, cell and label.
    fn drawn(&self, cell: &[u8], label: &str) -> impl Iterator<Item = u8> {
        let seed = hmac::sign(&self.draw, &[label.as_bytes(), b"\0", cell].concat());
        let key = hmac::Key::new(hmac::HMAC_SHA256, seed.as_ref());
        (0u64..).flat_map(move |block| hmac::sign(&key, &block.to_be_bytes()).as_ref().to_vec())
    }
}
