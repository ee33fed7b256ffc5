//! Finds secrets and personal data inside text.

use std::{fmt, ops::Range};

use aho_corasick::{AhoCorasick, Input};

use crate::{recognise, transform::Partial};

/// A named recogniser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Detector {
    /// `name@domain.tld`.
    Email,
    /// Payment card number: issuer range, length, Luhn check digit.
    Card,
    /// International bank account number: country length, mod-97 check digits.
    Iban,
    /// Telephone number in international or North American notation; bare digit runs are left alone.
    Phone,
    /// AWS access key id.
    AwsAccessKey,
    /// GitHub token, classic or fine-grained.
    GithubToken,
    /// Slack bot, user, app or refresh token.
    SlackToken,
    /// Stripe secret or restricted key.
    StripeKey,
    /// Google API key.
    GcpKey,
    /// PEM or OpenPGP private key block.
    PrivateKey,
    /// JSON Web Token, signed or encrypted.
    Jwt,
}

impl Detector {
    /// Every recogniser.
    pub const ALL: &'static [Self] = &[
        Self::Email,
        Self::Card,
        Self::Iban,
        Self::Phone,
        Self::AwsAccessKey,
        Self::GithubToken,
        Self::SlackToken,
        Self::StripeKey,
        Self::GcpKey,
        Self::PrivateKey,
        Self::Jwt,
    ];

    /// The name used in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Card => "card",
            Self::Iban => "iban",
            Self::Phone => "phone",
            Self::AwsAccessKey => "aws_access_key",
            Self::GithubToken => "github_token",
            Self::SlackToken => "slack_token",
            Self::StripeKey => "stripe_key",
            Self::GcpKey => "gcp_key",
            Self::PrivateKey => "private_key",
            Self::Jwt => "jwt",
        }
    }

    /// The recogniser of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|detector| detector.name() == name)
    }

    /// Texts that every hit of a secret recogniser starts with; empty where there is none.
    fn literals(self) -> &'static [&'static str] {
        match self {
            Self::Email | Self::Card | Self::Iban | Self::Phone => &[],
            Self::AwsAccessKey => &["AKIA", "ASIA"],
            Self::GithubToken => &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"],
            Self::SlackToken => {
                &["xoxa-", "xoxb-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-", "xoxe.", "xapp-"]
            }
            Self::StripeKey => &["sk_live_", "sk_test_", "rk_live_", "rk_test_"],
            Self::GcpKey => &["AIza"],
            Self::PrivateKey => &["-----BEGIN "],
            Self::Jwt => &["eyJ"],
        }
    }

    /// The range of a hit that starts with a literal of this recogniser at `start`.
    fn at_literal(self, cell: &[u8], start: usize, literal: usize) -> Option<Range<usize>> {
        match self {
            Self::Email | Self::Card | Self::Iban | Self::Phone => None,
            Self::AwsAccessKey => recognise::aws_access_key(cell, start, literal),
            Self::GithubToken => recognise::github_token(cell, start, literal),
            Self::SlackToken => recognise::slack_token(cell, start, literal),
            Self::StripeKey => recognise::stripe_key(cell, start, literal),
            Self::GcpKey => recognise::gcp_key(cell, start, literal),
            Self::PrivateKey => recognise::private_key(cell, start, literal),
            Self::Jwt => recognise::jwt(cell, start),
        }
    }
}

impl fmt::Display for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A detector name that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown detector `{0}`")]
pub struct UnknownDetector(pub String);

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub detector: Detector,
    /// Bytes of the cell.
    pub range: Range<usize>,
}

/// A compiled set of recognisers.
pub struct Detectors {
    /// Per recogniser, in the order of [`Detector::ALL`]: `None` = off; else how its findings are shown.
    show: Vec<(Detector, Show)>,
    numeric: Numeric,
    email: bool,
    /// Finds the literals of all secret recognisers at once; `None` when none is on.
    literals: Option<(AhoCorasick, Vec<Detector>)>,
}

/// How a finding is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    /// As the recogniser's name in brackets.
    Label,
    Partial(Partial),
}

#[derive(Debug, Clone, Copy, Default)]
struct Numeric {
    card: bool,
    iban: bool,
    phone: bool,
    /// Fewest digits in a cell that any of them could match.
    digits: usize,
}

impl Detectors {
    /// Recognisers by name; their findings are replaced by the name in brackets.
    pub fn compile<S: AsRef<str>>(names: &[S]) -> Result<Self, UnknownDetector> {
        let mut parts = Vec::with_capacity(names.len());
        for name in names {
            let name = name.as_ref();
            parts.push((Detector::named(name).ok_or_else(|| UnknownDetector(name.to_owned()))?, None));
        }
        Ok(Self::new(&parts))
    }

    /// Recognisers and, where given, the ends of their findings that stay readable. Of several entries for
    /// one recogniser, the one that shows least counts.
    pub fn new(parts: &[(Detector, Option<Partial>)]) -> Self {
        let mut show: Vec<(Detector, Show)> = Vec::new();
        for (detector, keep) in parts {
            let new = keep.map_or(Show::Label, Show::Partial);
            match show.iter_mut().find(|(known, _)| known == detector) {
                None => show.push((*detector, new)),
                Some((_, known)) => {
                    *known = match (*known, new) {
                        (Show::Partial(a), Show::Partial(b)) => Show::Partial(a.stronger(b)),
                        _ => Show::Label,
                    }
                }
            }
        }
        show.sort_by_key(|(detector, _)| *detector);
        let on = |wanted: Detector| show.iter().any(|(detector, _)| *detector == wanted);
        let digits = [
            (Detector::Card, recognise::CARD_DIGITS),
            (Detector::Iban, recognise::IBAN_DIGITS),
            (Detector::Phone, recognise::PHONE_DIGITS),
        ];
        let numeric = Numeric {
            card: on(Detector::Card),
            iban: on(Detector::Iban),
            phone: on(Detector::Phone),
            digits: digits.iter().filter(|(d, _)| on(*d)).map(|(_, n)| *n).min().unwrap_or(usize::MAX),
        };
        let mut owners = Vec::new();
        let mut texts = Vec::new();
        for (detector, _) in &show {
            for literal in detector.literals() {
                owners.push(*detector);
                texts.push(*literal);
            }
        }
        // Building fails only beyond limits that this fixed list never comes near.
        let literals = match texts.is_empty() {
            true => None,
            false => AhoCorasick::new(&texts).ok().map(|automaton| (automaton, owners)),
        };
        let email = on(Detector::Email);
        Self { show, numeric, email, literals }
    }

    /// The recognisers that are on.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.show.iter().map(|(detector, _)| detector.name())
    }

    /// Everything found in the cell, by position; overlapping findings are one, named for the first.
    pub fn find(&self, cell: &[u8]) -> Vec<Found> {
        let mut found = self.scan(cell);
        if found.len() < 2 {
            return found;
        }
        found.sort_by_key(|hit| (hit.range.start, std::cmp::Reverse(hit.range.end)));
        let mut merged: Vec<Found> = Vec::with_capacity(found.len());
        for hit in found {
            match merged.last_mut() {
                Some(last) if hit.range.start < last.range.end => {
                    last.range.end = last.range.end.max(hit.range.end);
                }
                _ => merged.push(hit),
            }
        }
        merged
    }

    /// Appends the cell to `out` with every finding hidden, and returns true; or finds nothing, appends
    /// nothing, allocates nothing, and returns false.
    pub fn rewrite(&self, cell: &[u8], out: &mut Vec<u8>) -> bool {
        let found = self.find(cell);
        if found.is_empty() {
            return false;
        }
        let mut done = 0;
        for Found { detector, range } in found {
            out.extend_from_slice(cell.get(done..range.start).unwrap_or_default());
            match self.show.iter().find(|(known, _)| *known == detector) {
                Some((_, Show::Partial(partial))) => {
                    partial.apply(cell.get(range.clone()).unwrap_or_default(), out);
                }
                _ => {
                    out.extend_from_slice(b"[redacted:");
                    out.extend_from_slice(detector.name().as_bytes());
                    out.push(b']');
                }
            }
            done = range.end;
        }
        out.extend_from_slice(cell.get(done..).unwrap_or_default());
        true
    }

    fn scan(&self, cell: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        if cell.len() < recognise::SHORTEST {
            return found;
        }
        let mut hit = |detector, range| found.push(Found { detector, range });
        if self.email {
            let mut from = 0;
            for at in memchr::memchr_iter(b'@', cell) {
                if let Some(range) = recognise::email(cell, at, from) {
                    from = range.end;
                    hit(Detector::Email, range);
                }
            }
        }
        // Most cells hold few digits, and counting them is far cheaper than looking for what they spell.
        if self.numeric.digits != usize::MAX && recognise::digits(cell) >= self.numeric.digits {
            if self.numeric.card {
                recognise::cards(cell, |range| hit(Detector::Card, range));
            }
            if self.numeric.iban {
                recognise::ibans(cell, |range| hit(Detector::Iban, range));
            }
            if self.numeric.phone {
                recognise::phones(cell, |range| hit(Detector::Phone, range));
            }
        }
        if cell.len() >= recognise::SHORTEST_SECRET
            && let Some((automaton, owners)) = &self.literals
        {
            let mut from = 0;
            while let Some(at) = automaton.find(Input::new(cell).range(from..)) {
                let owner = owners.get(at.pattern().as_usize());
                let range = owner.and_then(|owner| owner.at_literal(cell, at.start(), at.end()));
                from = range.as_ref().map_or(at.start() + 1, |range| range.end);
                if let (Some(owner), Some(range)) = (owner, range) {
                    hit(*owner, range);
                }
            }
        }
        found
    }
}

impl fmt::Debug for Detectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
