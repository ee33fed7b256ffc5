//! Precision and recall of every recogniser on a corpus that this file makes: the same one each time, of made-up values
//! with right check digits in sentences, and of things that look alike. The check digits are computed here a second
//! time, in the plainest way.

use std::collections::BTreeMap;

use mask::{Detector, Detectors};

/// Values of each kind.
const EACH: u64 = 300;

/// Numbers drawn by a seed (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % bound
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }

    fn from(&mut self, alphabet: &str, length: u64) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..length).map(|_| letters[self.below(letters.len() as u64) as usize]).collect()
    }

    fn digits(&mut self, length: u64) -> String {
        self.from("0123456789", length)
    }
}

const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

fn numbers(text: &str) -> Vec<u64> {
    text.chars().map(|c| u64::from(c.to_digit(10).unwrap())).collect()
}

/// A value of the kind.
fn value(detector: Detector, dice: &mut Dice) -> String {
    match detector {
        Detector::Email => {
            let (name, host) = (dice.from(LOWER, 7), dice.from(LOWER, 6));
            let top = dice.one(&["com", "example", "co.uk", "museum", "de"]);
            format!("{name}.{}@{host}.{top}", dice.from(LOWER, 3))
        }
        Detector::Card => {
            let start = dice.one(&["4", "51", "55", "2221", "6011"]);
            let body = format!("{start}{}", dice.digits(15 - start.len() as u64));
            let sum: u64 = numbers(&body)
                .iter()
                .rev()
                .enumerate()
                .map(|(at, digit)| if at % 2 == 0 { digit * 2 / 10 + digit * 2 % 10 } else { *digit })
                .sum();
            let number = format!("{body}{}", (10 - sum % 10) % 10);
            let parts: Vec<&str> = (0..4).map(|at| &number[4 * at..4 * at + 4]).collect();
            parts.join(dice.one(&["", " ", "-"]))
        }
        Detector::Iban => {
            let body = dice.digits(18);
            // DE is 13 14; the check digits count as 00.
            let rest =
                format!("{body}131400").bytes().fold(0, |rest, b| (rest * 10 + u64::from(b - b'0')) % 97);
            format!("DE{:02}{body}", 98 - rest)
        }
        Detector::Phone => match dice.below(2) {
            0 => format!("+{}{} {} {}", 1 + dice.below(9), dice.digits(1), dice.digits(3), dice.digits(6)),
            _ => format!(
                "({}{}) {}{}-{}",
                2 + dice.below(8),
                dice.digits(2),
                2 + dice.below(8),
                dice.digits(2),
                dice.digits(4)
            ),
        },
        Detector::AwsAccessKey => {
            format!("{}IA{}", dice.one(&["AK", "AS"]), dice.from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16))
        }
        Detector::GithubToken => format!("gh{}_{}", dice.one(&["p", "o", "s"]), dice.from(ALNUM, 36)),
        Detector::SlackToken => {
            format!("xox{}-{}-{}", dice.one(&["b", "p"]), dice.digits(11), dice.from(ALNUM, 24))
        }
        Detector::StripeKey => {
            format!("{}k_{}_{}", dice.one(&["s", "r"]), dice.one(&["live", "test"]), dice.from(ALNUM, 24))
        }
        Detector::GcpKey => format!("AIza{}", dice.from(ALNUM, 35)),
        Detector::PrivateKey => {
            let kind = dice.one(&["", "RSA ", "EC ", "OPENSSH "]);
            format!(
                "-----BEGIN {kind}PRIVATE KEY-----\n{}\n-----END {kind}PRIVATE KEY-----",
                dice.from(ALNUM, 60)
            )
        }
        Detector::Jwt => {
            format!("eyJ{}.eyJ{}.{}", dice.from(ALNUM, 30), dice.from(ALNUM, 60), dice.from(ALNUM, 43))
        }
        Detector::UsSsn => {
            let area = loop {
                let area = 1 + dice.below(898);
                if area != 666 {
                    break area;
                }
            };
            format!("{area:03}-{:02}-{:04}", 1 + dice.below(99), 1 + dice.below(9999))
        }
        Detector::UkNino => {
            let prefix = dice.one(&["AB", "CE", "JG", "PX", "SR", "WK"]);
            let (a, b, c, end) = (dice.digits(2), dice.digits(2), dice.digits(2), dice.from("ABCD", 1));
            let gap = dice.one(&["", " "]);
            [prefix, &a, &b, &c, &end].join(gap)
        }
        Detector::DeSteuerId => loop {
            let body = format!("{}{}", 1 + dice.below(9), dice.digits(9));
            let mut counts = [0; 10];
            numbers(&body).iter().for_each(|digit| counts[*digit as usize] += 1);
            counts.sort_unstable();
            if counts[9] > 3 || counts[9] < 2 || counts[8] > 1 {
                continue;
            }
            let mut product = 10;
            for digit in numbers(&body) {
                let sum = match (digit + product) % 10 {
                    0 => 10,
                    sum => sum,
                };
                product = sum * 2 % 11;
            }
            break format!("{body}{}", if product == 1 { 0 } else { 11 - product });
        },
        Detector::FrNir => {
            let body = format!(
                "{}{}{:02}{:02}{}{}",
                1 + dice.below(2),
                dice.digits(2),
                1 + dice.below(12),
                1 + dice.below(95),
                dice.digits(3),
                dice.digits(3)
            );
            let key = 97 - body.parse::<u64>().unwrap() % 97;
            match dice.below(2) {
                0 => format!("{body}{key:02}"),
                _ => format!(
                    "{} {} {} {} {} {} {key:02}",
                    &body[..1],
                    &body[1..3],
                    &body[3..5],
                    &body[5..7],
                    &body[7..10],
                    &body[10..]
                ),
            }
        }
        Detector::NlBsn => loop {
            let body = dice.digits(8);
            let sum: u64 = numbers(&body)
                .iter()
                .zip([9, 8, 7, 6, 5, 4, 3, 2])
                .map(|(digit, weight)| digit * weight)
                .sum();
            if sum % 11 < 10 && sum > 0 {
                break format!("{body}{}", sum % 11);
            }
        },
        Detector::EsDni => {
            let (prefix, body) = match dice.below(2) {
                0 => (String::new(), dice.digits(8)),
                _ => (dice.from("XYZ", 1), dice.digits(7)),
            };
            let first = match prefix.as_str() {
                "Y" => "1",
                "Z" => "2",
                "X" => "0",
                _ => "",
            };
            let rest = format!("{first}{body}").parse::<usize>().unwrap() % 23;
            format!("{prefix}{body}{}", "TRWAGMYFPDXBNJZSQVHLCKE".chars().nth(rest).unwrap())
        }
        Detector::ItCf => {
            let body = format!(
                "{}{:02}{}{:02}{}{:03}",
                dice.from(UPPER, 6),
                dice.below(100),
                dice.from("ABCDEHLMPRST", 1),
                1 + dice.below(31),
                dice.from(UPPER, 1),
                dice.below(1000)
            );
            let odd = |c: char| -> u64 {
                let table = [
                    1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24,
                    23,
                ];
                table[c.to_digit(10).map_or_else(|| c as usize - 'A' as usize, |digit| digit as usize)]
            };
            let even = |c: char| u64::from(c.to_digit(10).unwrap_or_else(|| c as u32 - 'A' as u32));
            let sum: u64 =
                body.chars().enumerate().map(|(at, c)| if at % 2 == 0 { odd(c) } else { even(c) }).sum();
            format!("{body}{}", UPPER.chars().nth((sum % 26) as usize).unwrap())
        }
        Detector::PlPesel => {
            let body = format!(
                "{:02}{:02}{:02}{}",
                dice.below(100),
                1 + dice.below(12) + 20 * dice.below(2),
                1 + dice.below(28),
                dice.digits(4)
            );
            let weights = [1, 3, 7, 9, 1, 3, 7, 9, 1, 3];
            let sum: u64 = numbers(&body).iter().zip(weights).map(|(digit, weight)| digit * weight).sum();
            format!("{body}{}", (10 - sum % 10) % 10)
        }
        Detector::HighEntropy => dice.from(ALNUM, 24 + 16 * (dice.0 % 2)),
    }
}

/// Something in which nothing of the kind is.
fn harmless(dice: &mut Dice) -> String {
    let (year, month, day) = (2000 + dice.below(30), 1 + dice.below(12), 1 + dice.below(28));
    match dice.below(22) {
        0 => format!("order {} of {year}-{month:02}-{day:02}", dice.digits(6)),
        1 => format!("{year}-{month:02}-{day:02}T{:02}:11:22.{}Z", dice.below(24), dice.digits(6)),
        2 => format!(
            "{}-{}-{}-{}-{}",
            dice.from("0123456789abcdef", 8),
            dice.from("0123456789abcdef", 4),
            dice.from("0123456789abcdef", 4),
            dice.from("0123456789abcdef", 4),
            dice.from("0123456789abcdef", 12)
        ),
        3 => format!("commit {}", dice.from("0123456789abcdef", 40)),
        4 => format!("{}.{} EUR, {} pieces", dice.digits(5), dice.digits(2), dice.digits(3)),
        5 => format!(
            "10.{}.{}.{} port {}",
            dice.below(256),
            dice.below(256),
            dice.below(256),
            dice.below(65536)
        ),
        6 => format!(
            "version {}.{}.{}-{}",
            dice.below(20),
            dice.below(30),
            dice.below(40),
            dice.from(LOWER, 4)
        ),
        7 => format!("epoch {}", 1_600_000_000 + dice.below(200_000_000)),
        8 => format!("ean {}", dice.digits(13)),
        9 => format!("{}_{}", dice.from(LOWER, 9), dice.digits(4)),
        10 => format!("/srv/{}/{}/{}.log", dice.from(LOWER, 8), dice.from(LOWER, 9), dice.digits(3)),
        11 => format!("ratio 0.{} of {}", dice.digits(12), dice.digits(2)),
        12 => format!("id={} ref={}", dice.digits(7), dice.digits(8)),
        13 => format!("row {} took {} ms", dice.digits(9), dice.digits(2)),
        14 => format!("account {}", dice.digits(10)),
        15 => format!("tracking {}{}", dice.from(UPPER, 2), dice.digits(9)),
        16 => format!("{} {}", dice.digits(11), dice.from(LOWER, 6)),
        17 => "the quick brown fox jumps over the lazy dog, and goes home @ night".to_owned(),
        18 => format!("SELECT * FROM {} WHERE id = {}", dice.from(LOWER, 6), dice.digits(5)),
        19 => format!(
            "https://{}.example/{}?page={}",
            dice.from(LOWER, 6),
            dice.from(LOWER, 12),
            dice.digits(2)
        ),
        20 => format!("camelCaseIdentifierNumber{}ForTheThing", dice.digits(2)),
        _ => format!("{}/{}/{year} {}-{}", day, month, dice.digits(3), dice.digits(3)),
    }
}

#[derive(Default)]
struct Measured {
    right: u64,
    missed: u64,
    wrong: u64,
}

/// What is asked of a recogniser: precision and recall. Check digits of one place let one in ten numbers of the right
/// length through, and a fifth of what looks alike here has the right length.
fn asked(detector: Detector) -> (f64, f64) {
    match detector {
        Detector::NlBsn => (0.75, 0.99),
        Detector::DeSteuerId | Detector::PlPesel => (0.85, 0.99),
        Detector::HighEntropy => (0.95, 0.90),
        _ => (0.98, 0.98),
    }
}

#[test]
fn precision_and_recall_of_each_recogniser() {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let harmless: Vec<String> = (0..8 * EACH).map(|_| harmless(&mut dice)).collect();
    let mut measured: BTreeMap<&str, Measured> = BTreeMap::new();
    let mut failures = Vec::new();
    for detector in Detector::ALL {
        // Alone: whatever it finds is its own.
        let alone = Detectors::compile(&[detector.name()]).unwrap();
        let entry = measured.entry(detector.name()).or_default();
        for _ in 0..EACH {
            let value = value(*detector, &mut dice);
            let text = match dice.below(5) {
                0 => value.clone(),
                1 => format!("see {value}, please"),
                2 => format!("{{\"field\": \"{value}\"}}"),
                3 => format!("a;{value};b"),
                _ => format!("value: {value}."),
            };
            let found = alone.find(text.as_bytes());
            let start = text.find(&value).unwrap();
            match found.iter().any(|hit| hit.range.start <= start && hit.range.end >= start + value.len()) {
                true => entry.right += 1,
                false => {
                    entry.missed += 1;
                    if entry.missed <= 3 {
                        failures.push(format!("{detector} missed in {text:?}"));
                    }
                }
            }
        }
        for text in &harmless {
            if !alone.find(text.as_bytes()).is_empty() {
                entry.wrong += 1;
                if entry.wrong <= 3 {
                    failures.push(format!("{detector} found in {text:?}"));
                }
            }
        }
        let precision = entry.right as f64 / (entry.right + entry.wrong) as f64;
        let recall = entry.right as f64 / (entry.right + entry.missed) as f64;
        println!("{:16} precision {precision:.3} recall {recall:.3}", detector.name());
        let (least_precision, least_recall) = asked(*detector);
        if precision < least_precision || recall < least_recall {
            failures.push(format!(
                "{detector}: precision {precision:.3}, recall {recall:.3}: BELOW what is asked"
            ));
        }
    }
    assert!(!failures.iter().any(|failure| failure.contains("BELOW")), "{failures:#?}");
}
