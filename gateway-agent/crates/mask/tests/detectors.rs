//! What is found, what is left alone, and that nothing can break it.

use mask::{Detector, Detectors, Partial};
use proptest::prelude::*;

fn all() -> Detectors {
    let names: Vec<_> = Detector::ALL.iter().map(|detector| detector.name()).collect();
    Detectors::compile(&names).unwrap()
}

fn rewrite(detectors: &Detectors, cell: &str) -> String {
    let mut out = Vec::new();
    match detectors.rewrite(cell.as_bytes(), &mut out) {
        true => String::from_utf8(out).unwrap(),
        false => {
            assert_eq!(out.capacity(), 0, "nothing found, so nothing written");
            cell.to_owned()
        }
    }
}

#[test]
fn findings_are_replaced_in_place() {
    let detectors = all();
    for (cell, expected) in [
        ("write to jane.doe+x@mail.example.co.uk.", "write to [redacted:email]."),
        ("<a@b.co>,<c@d.org>", "<[redacted:email]>,<[redacted:email]>"),
        ("müller@exämple.de", "[redacted:email]"),
        ("paid 4111 1111 1111 1111 on 2024-01-02", "paid [redacted:card] on 2024-01-02"),
        ("2024-01-02 4111-1111-1111-1111", "2024-01-02 [redacted:card]"),
        ("amex 3782-822463-10005", "amex [redacted:card]"),
        ("DE89 3704 0044 0532 0130 00!", "[redacted:iban]!"),
        ("call +49 (30) 1234-5678 or (212) 555-0199", "call [redacted:phone] or [redacted:phone]"),
        ("+14155550123 4111111111111111", "[redacted:phone] [redacted:card]"),
        ("key=AKIAIOSFODNN7EXAMPLE;", "key=[redacted:aws_access_key];"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nrest",
            "[redacted:private_key]\nrest",
        ),
        ("a -----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl", "a [redacted:private_key]"),
    ] {
        assert_eq!(rewrite(&detectors, cell), expected);
    }
}

#[test]
fn partial_keeps_the_ends_of_a_finding() {
    let partial = Partial { keep_first: 0, keep_last: 4 };
    let detectors = Detectors::new(&[(Detector::Card, Some(partial))]);
    assert_eq!(rewrite(&detectors, "card 4111111111111111."), "card ****1111.");
    let stricter = Detectors::new(&[(Detector::Card, Some(partial)), (Detector::Card, None)]);
    assert_eq!(rewrite(&stricter, "card 4111111111111111."), "card [redacted:card].");
}

#[test]
fn check_digits_count() {
    let detectors = all();
    for cell in [
        "4111111111111112",
        "4111 1111 1111 1112",
        "DE89370400440532013001",
        "DE8937040044053201300",
        "XX89370400440532013000",
    ] {
        assert_eq!(rewrite(&detectors, cell), cell);
    }
}

#[test]
fn only_what_was_asked_for_is_found() {
    let detectors = Detectors::compile(&["iban"]).unwrap();
    assert_eq!(rewrite(&detectors, "a@b.co 4111111111111111"), "a@b.co 4111111111111111");
    assert_eq!(Detectors::compile(&["emial"]).unwrap_err().to_string(), "unknown detector `emial`");
    let none = Detectors::compile::<&str>(&[]).unwrap();
    assert_eq!(rewrite(&none, "a@b.co AKIAIOSFODNN7EXAMPLE"), "a@b.co AKIAIOSFODNN7EXAMPLE");
}

/// `label<TAB>text` lines; `-` labels a text in which nothing may be found.
const CORPUS: &str = include_str!("corpus.tsv");

#[test]
fn precision_and_recall_on_the_corpus() {
    let detectors = all();
    let (mut right, mut wrong, mut missed) = (0, Vec::new(), Vec::new());
    for line in CORPUS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (label, text) = line.split_once('\t').unwrap();
        let text = text.replace('|', "").replace("\\n", "\n");
        let found = detectors.find(text.as_bytes());
        let names: Vec<_> = found.iter().map(|hit| hit.detector.name()).collect();
        match label {
            "-" => wrong.extend(names.iter().map(|name| format!("{name} in {text:?}"))),
            _ if names.contains(&label) => right += 1,
            _ => missed.push(format!("{label} in {text:?}, found {names:?}")),
        }
    }
    let precision = f64::from(right) / (f64::from(right) + wrong.len() as f64);
    let recall = f64::from(right) / (f64::from(right) + missed.len() as f64);
    assert!(right >= 60, "the corpus shrank to {right} positives");
    assert!(precision >= 0.97, "precision {precision:.3}: {wrong:#?}");
    assert!(recall >= 0.97, "recall {recall:.3}: {missed:#?}");
}

/// A number of that length with a right check digit, by brute force over the last digit.
fn luhn_number(mut digits: Vec<u8>) -> String {
    for last in b'0'..=b'9' {
        *digits.last_mut().unwrap() = last;
        let sum: u32 = digits
            .iter()
            .rev()
            .enumerate()
            .map(|(i, d)| {
                let d = u32::from(d - b'0') * if i % 2 == 1 { 2 } else { 1 };
                d / 10 + d % 10
            })
            .sum();
        if sum.is_multiple_of(10) {
            break;
        }
    }
    String::from_utf8(digits).unwrap()
}

proptest! {
    #[test]
    fn any_bytes_are_safe_and_findings_are_in_order(cell: Vec<u8>) {
        let mut end = 0;
        for hit in all().find(&cell) {
            prop_assert!(hit.range.start >= end && hit.range.start < hit.range.end && hit.range.end <= cell.len());
            end = hit.range.end;
        }
    }

    #[test]
    fn near_misses_are_safe(cell in "[-+@. ()/0-9A-Za-zA-Zyé]{0,80}(eyJ|ghp_|AKIA|-----BEGIN |xoxb-)?[-_.A-Z0-9a-z]{0,60}") {
        let mut out = Vec::new();
        if all().rewrite(cell.as_bytes(), &mut out) {
            prop_assert!(std::str::from_utf8(&out).is_ok());
        }
    }

    #[test]
    fn every_visa_number_is_found_wherever_it_stands(
        body in "[0-9]{15}", head in "[a-z ,:]{0,9}[ ,:]", tail in "([ ,;.][a-z ]{0,9})?",
    ) {
        let number = luhn_number([b"4", body.as_bytes()].concat());
        let shown = rewrite(&all(), &format!("{head}{number}{tail}"));
        prop_assert!(!shown.contains(&number), "{shown}");
    }

    #[test]
    fn rewriting_leaves_nothing_to_find(cell in "[ a-z0-9@.+-]{0,60}") {
        let detectors = all();
        let once = rewrite(&detectors, &cell);
        prop_assert_eq!(rewrite(&detectors, &once), once);
    }
}

#[test]
fn what_is_not_looked_for_hides_nothing() {
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghij";
    let detectors = Detectors::compile(&["jwt"]).unwrap();
    assert_eq!(
        rewrite(&detectors, &format!("-----BEGIN RSA PRIVATE KEY----- {jwt}")),
        "-----BEGIN RSA PRIVATE KEY----- [redacted:jwt]"
    );
    let one = Detectors::compile(&["gcp_key"]).unwrap();
    let key = "AIzaSyA1234567890abcdefghijklmnopqrstuv";
    assert_eq!(rewrite(&one, &format!("{jwt} {key}")), format!("{jwt} [redacted:gcp_key]"));
}
