//! Signed checkpoints.

use serde::Serialize;

use crate::{
    fault::What,
    frame::{Cursor, FIELDS},
    key::{PublicKey, SigningKey},
};

const CONTEXT: &[u8; 31] = b"gateway recording checkpoint 1\0";
const SIGNED: usize = 65;
/// A checkpoint's body.
pub(crate) const LEN: usize = SIGNED + 64;

/// Vouches for every frame before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    pub purpose: Purpose,
    /// Frame number of the checkpoint.
    pub sequence: u64,
    /// Where its frame begins and ends in the file.
    pub offset: u64,
    pub end: u64,
    /// Records in the frames before it.
    pub records: u64,
    /// Frame number of the checkpoint before.
    pub signed: u64,
    /// When it was made: nanoseconds since 1970, and since the session began.
    pub at_unix_ns: u64,
    pub at_ns: u64,
    /// Bytes of an incomplete frame that recovery cut off.
    pub dropped: u64,
}

/// Why a checkpoint was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The recording begins.
    Open,
    /// Enough was written, or enough time went by.
    Interval,
    /// The session ended and the file is complete.
    Seal,
    /// The agent died; a later one closed the file. Frames after the checkpoint before this one were found,
    /// whole and chained, but nothing vouches for nobody having cut or added some in between.
    Recovered,
}

impl Purpose {
    fn code(self) -> u8 {
        match self {
            Purpose::Open => 1,
            Purpose::Interval => 2,
            Purpose::Seal => 3,
            Purpose::Recovered => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Purpose::Open, Purpose::Interval, Purpose::Seal, Purpose::Recovered]
            .into_iter()
            .find(|purpose| purpose.code() == code)
    }

    /// Nothing may follow.
    pub fn ends(self) -> bool {
        matches!(self, Purpose::Seal | Purpose::Recovered)
    }
}

/// What the body of a checkpoint says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) purpose: Purpose,
    pub(crate) records: u64,
    pub(crate) signed: u64,
    pub(crate) at_unix_ns: u64,
    pub(crate) dropped: u64,
}

impl Body {
    /// `None` when the library fails to sign.
    pub(crate) fn sign(&self, fields: &[u8; FIELDS], key: &SigningKey) -> Option<[u8; LEN]> {
        let mut body = Vec::with_capacity(LEN);
        body.push(self.purpose.code());
        for number in [self.records, self.signed, self.at_unix_ns, self.dropped] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.extend_from_slice(&key.public().0);
        let signature = key.sign(&message(fields, &body))?;
        body.extend_from_slice(&signature);
        body.try_into().ok()
    }

    /// Checks the signature too when a key is given.
    pub(crate) fn open(body: &[u8], fields: &[u8; FIELDS], key: Option<&PublicKey>) -> Result<Self, What> {
        let (signed, signature) = body.split_at_checked(SIGNED).ok_or(What::Checkpoint)?;
        let mut cursor = Cursor(signed);
        let mut parse = || {
            Some((
                cursor.u8()?,
                [cursor.u64()?, cursor.u64()?, cursor.u64()?, cursor.u64()?],
                cursor.array()?,
            ))
        };
        let (code, [records, before, at_unix_ns, dropped], public) = parse().ok_or(What::Checkpoint)?;
        if let Some(key) = key {
            if public != key.0 {
                return Err(What::OtherKey(PublicKey(public)));
            }
            if !key.accepts(&message(fields, signed), signature) {
                return Err(What::Signature);
            }
        }
        let purpose = Purpose::from_code(code).ok_or(What::Checkpoint)?;
        Ok(Self { purpose, records, signed: before, at_unix_ns, dropped })
    }
}

fn message(fields: &[u8; FIELDS], body: &[u8]) -> Vec<u8> {
    [&CONTEXT[..], fields, body].concat()
}
