//! The marker values, and what of them may never be seen.

use std::{collections::BTreeMap, sync::LazyLock};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};

const TEXT: &str = "Zx7Qv9Kj3Wp5Tn8Ry";
const PIN: i32 = 918_273_645;
const BIG: i64 = 8_675_309_867_530_986;
const AMOUNT: &str = "73519.84620357";
const DATE: &str = "1957-03-21";
/// Days from 2000-01-01 to the date.
const DAYS: i32 = -15_626;
const RATIO: f64 = 0.736_451_928_375_5;
const UUID: &str = "5ca1ab1e-0dad-4bad-8f00-c0ffee513467";
const INET: &str = "198.18.77.233";

/// How much of a text may be seen: one byte less than this.
const PIECE: usize = 5;

/// Puts the values into SQL.
pub(super) fn fill(sql: &str) -> String {
    [
        ("@text@", TEXT),
        ("@pin@", &PIN.to_string()),
        ("@big@", &BIG.to_string()),
        ("@amount@", AMOUNT),
        ("@date@", DATE),
        ("@ratio@", &RATIO.to_string()),
        ("@uuid@", UUID),
        ("@inet@", INET),
    ]
    .iter()
    .fold(sql.to_owned(), |sql, (name, value)| sql.replace(name, value))
}

/// The first piece of a marker in some bytes, letters in either case.
pub(super) fn find(bytes: &[u8]) -> Option<String> {
    let lower = bytes.to_ascii_lowercase();
    let at = |(needle, what): (&Vec<u8>, &String)| {
        let place = lower.windows(needle.len()).position(|window| window == needle)?;
        let around = &bytes[place.saturating_sub(30)..bytes.len().min(place + 40)];
        Some(format!("{what}, near {:?}", String::from_utf8_lossy(around)))
    };
    NEEDLES.iter().find_map(at)
}

static NEEDLES: LazyLock<BTreeMap<Vec<u8>, String>> = LazyLock::new(|| {
    let mut needles = BTreeMap::new();
    let mut add = |bytes: &[u8], what: &str| {
        needles.insert(bytes.to_ascii_lowercase(), what.to_owned());
    };
    let text = TEXT.as_bytes();
    let backwards: Vec<u8> = text.iter().rev().copied().collect();
    for (text, way) in [(text, "as it is"), (&backwards, "backwards")] {
        for piece in text.windows(PIECE) {
            add(piece, &format!("the text, {way}"));
            add(hex(piece).as_bytes(), &format!("the text in hex, {way}"));
        }
        for skipped in 0..3 {
            let encoded = STANDARD.encode(&text[skipped..]);
            for piece in encoded.trim_end_matches('=').as_bytes().windows(7) {
                add(piece, "the text in base64");
            }
        }
    }
    for n in 1..=3 {
        let value = format!("{n}{TEXT}{n}");
        for hashed in [value.as_str(), TEXT] {
            add(
                hex(digest::digest(&digest::SHA256, hashed.as_bytes()).as_ref()).as_bytes(),
                "a SHA-256 of it",
            );
            let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, hashed.as_bytes());
            add(hex(sha1.as_ref()).as_bytes(), "a SHA-1 of it");
        }
    }
    add(MD5.as_bytes(), "its MD5");
    for (number, digits) in [(PIN.to_string(), 6), (BIG.to_string(), 7), (AMOUNT.to_owned(), 7)] {
        for piece in number.as_bytes().windows(digits) {
            add(piece, "a number");
        }
    }
    add(&RATIO.to_string().as_bytes()[..8], "the ratio");
    add(&PIN.to_be_bytes(), "a number in binary");
    add(&f64::from(PIN).to_be_bytes()[..5], "a number in binary");
    add(&BIG.to_be_bytes()[2..], "a number in binary");
    add(&RATIO.to_be_bytes(), "a number in binary");
    add(hex(&PIN.to_be_bytes()).as_bytes(), "a number in hex");
    // numeric in binary: groups of four digits.
    for pair in [[3519u16, 8462], [1827, 3645], [3098, 6753]] {
        add(&[pair[0].to_be_bytes(), pair[1].to_be_bytes()].concat(), "a numeric in binary");
    }
    add(DATE.as_bytes(), "the date");
    add(b"03/21/1957", "the date");
    add(&DAYS.to_be_bytes(), "the date in binary");
    let micros = (i64::from(DAYS) * 86_400 + 11 * 3600 + 22 * 60 + 33) * 1_000_000;
    add(&micros.to_be_bytes(), "the time in binary");
    add(UUID.as_bytes(), "the uuid");
    let plain = UUID.replace('-', "");
    let bytes: Vec<u8> =
        (0..16).map(|at| u8::from_str_radix(&plain[2 * at..2 * at + 2], 16).expect("hex")).collect();
    for piece in bytes.windows(6) {
        add(piece, "the uuid in binary");
    }
    add(INET.as_bytes(), "the address");
    add(&[198, 18, 77, 233], "the address in binary");
    needles
});

/// Of the text alone.
const MD5: &str = "0077f3aeca2b7adeba8bfcd7cba15791";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_gives_a_marker_away_is_found() {
    let encoded = STANDARD.encode(format!("1{TEXT}1"));
    for (shown, is) in [
        (TEXT.to_lowercase(), true),
        (format!("..{}..", &TEXT[4..10]), true),
        (encoded, true),
        (hex(TEXT.as_bytes()).to_uppercase(), true),
        (AMOUNT.to_owned(), true),
        ("[redacted] SELECT 1 owner-1 visible".to_owned(), false),
    ] {
        assert_eq!(find(shown.as_bytes()).is_some(), is, "{shown}");
    }
    assert!(find(&PIN.to_be_bytes()).is_some());
}
