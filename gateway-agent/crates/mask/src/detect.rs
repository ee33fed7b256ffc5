//! Finds secrets and personal data inside text.

use std::{fmt, ops::Range};

use crate::{
    national,
    recognise::{self, Numbers},
    token::{self, Tokens},
    transform::Partial,
};

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
    /// US social security number, with its separators.
    UsSsn,
    /// UK national insurance number.
    UkNino,
    /// German tax identification number: which digits repeat, and a check digit.
    DeSteuerId,
    /// French social security number: month of birth, and a key of two digits.
    FrNir,
    /// Dutch citizen service number: the eleven-test, which one in eleven numbers of nine digits passes.
    NlBsn,
    /// Spanish identity number of a citizen or foreigner: a check letter.
    EsDni,
    /// Italian fiscal code: a check letter.
    ItCf,
    /// Polish identification number: date of birth, and a check digit.
    PlPesel,
    /// A long token that looks drawn at random: letters of both cases and digits.
    HighEntropy,
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
        Self::UsSsn,
        Self::UkNino,
        Self::DeSteuerId,
        Self::FrNir,
        Self::NlBsn,
        Self::EsDni,
        Self::ItCf,
        Self::PlPesel,
        Self::HighEntropy,
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
            Self::UsSsn => "us_ssn",
            Self::UkNino => "uk_nino",
            Self::DeSteuerId => "de_steuer_id",
            Self::FrNir => "fr_nir",
            Self::NlBsn => "nl_bsn",
            Self::EsDni => "es_dni",
            Self::ItCf => "it_cf",
            Self::PlPesel => "pl_pesel",
            Self::HighEntropy => "high_entropy",
        }
    }

    /// The recogniser of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|detector| detector.name() == name)
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
    /// Recognisers that are on and how their findings are shown, in the order of [`Detector::ALL`].
    show: Vec<(Detector, Show)>,
    email: bool,
    numbers: Numbers,
    tokens: Tokens,
    /// Recognisers of national numbers that are on, in the order in which they are tried.
    national: Vec<Detector>,
    entropy: bool,
}

/// How a finding is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    /// As the recogniser's name in brackets.
    Label,
    Partial(Partial),
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
        let numbers = Numbers::new(on(Detector::Card), on(Detector::Iban), on(Detector::Phone));
        let tokens =
            show.iter().map(|(detector, _)| *detector).filter(|d| token::DETECTORS.contains(d)).collect();
        let national = national::DETECTORS.iter().copied().filter(|detector| on(*detector)).collect();
        let (email, entropy) = (on(Detector::Email), on(Detector::HighEntropy));
        Self { show, email, numbers, tokens: Tokens::new(tokens), national, entropy }
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
        if self.email {
            let mut from = 0;
            for at in memchr::memchr_iter(b'@', cell) {
                if let Some(range) = recognise::email(cell, at, from) {
                    from = range.end;
                    found.push(Found { detector: Detector::Email, range });
                }
            }
        }
        // Most cells hold few digits, and counting them is far cheaper than looking at what they spell.
        if cell.len() >= self.numbers.shortest && recognise::digits(cell) >= self.numbers.digits {
            self.numbers.find(cell, |detector, range| found.push(Found { detector, range }));
        }
        if !self.national.is_empty()
            && cell.len() >= national::SHORTEST
            && recognise::digits(cell) >= national::DIGITS
        {
            national::find(cell, &self.national, |detector, range| found.push(Found { detector, range }));
        }
        if cell.len() >= token::SHORTEST {
            self.tokens.find(cell, |detector, range| found.push(Found { detector, range }));
        }
        // Last: what is the same finding goes by its more telling name.
        if self.entropy {
            let detector = Detector::HighEntropy;
            national::entropy(cell, |range| found.push(Found { detector, range }));
        }
        found
    }
}

impl fmt::Debug for Detectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
