//! What an approval is good for: one hash over everything that was shown.

use std::sync::Arc;

/// Everything a yes is bound to. Two bindings are the same approval only when every field is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub statement: String,
    /// Values as sent; `None` = NULL.
    pub params: Vec<Option<Vec<u8>>>,
    /// Cgroup id of the job.
    pub job: u64,
    pub resource: Arc<str>,
    pub policy_version: Arc<str>,
}

impl Binding {
    /// blake3 over all fields, each with its length, so that no two bindings share an encoding.
    pub fn hash(&self) -> blake3::Hash {
        let mut h = blake3::Hasher::new_derive_key("gateway approval binding v1");
        let mut field = |bytes: &[u8]| {
            h.update(&(bytes.len() as u64).to_le_bytes());
            h.update(bytes);
        };
        field(self.statement.as_bytes());
        field(&(self.params.len() as u64).to_le_bytes());
        for param in &self.params {
            match param {
                Some(value) => {
                    field(&[1]);
                    field(value);
                }
                None => field(&[0]),
            }
        }
        field(&self.job.to_le_bytes());
        field(self.resource.as_bytes());
        field(self.policy_version.as_bytes());
        h.finalize()
    }

    /// Parameters for a human: text as it is, anything else in hex, with the integer that it may be.
    pub fn params_for_display(&self) -> Vec<Option<String>> {
        let show = |value: &Vec<u8>| match std::str::from_utf8(value) {
            Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => text.to_owned(),
            _ => match integer(value) {
                Some(number) => format!("\\x{} (integer {number})", hex::encode(value)),
                None => format!("\\x{}", hex::encode(value)),
            },
        };
        self.params.iter().map(|p| p.as_ref().map(show)).collect()
    }
}

/// A value as PostgreSQL's binary int2, int4 or int8, network order.
fn integer(value: &[u8]) -> Option<i64> {
    match *value {
        [a, b] => Some(i16::from_be_bytes([a, b]).into()),
        [a, b, c, d] => Some(i32::from_be_bytes([a, b, c, d]).into()),
        _ => value.try_into().ok().map(i64::from_be_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding() -> Binding {
        Binding {
            statement: "DELETE FROM t WHERE id = $1".into(),
            params: vec![Some(b"1".to_vec()), None],
            job: 7,
            resource: "orders".into(),
            policy_version: "v1".into(),
        }
    }

    #[test]
    fn every_field_changes_the_hash() {
        let base = binding().hash();
        let changes: [fn(&mut Binding); 8] = [
            |b| b.statement.push(' '),
            |b| b.params[0] = Some(b"2".to_vec()),
            |b| b.params[1] = Some(Vec::new()),
            |b| b.params.truncate(1),
            |b| b.params.swap(0, 1),
            |b| b.job = 8,
            |b| b.resource = "other".into(),
            |b| b.policy_version = "v2".into(),
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut b = binding();
            change(&mut b);
            assert_ne!(b.hash(), base, "change {i}");
        }
        assert_eq!(binding().hash(), base);
    }

    #[test]
    fn binary_parameters_are_shown_in_hex() {
        let mut b = binding();
        b.params = vec![Some(vec![0, 0, 0, 1]), Some("é\n".into()), None, Some(b"\x1b[2J".to_vec())];
        assert_eq!(
            b.params_for_display(),
            [
                Some("\\x00000001 (integer 1)".into()),
                Some("é\n".into()),
                None,
                Some("\\x1b5b324a (integer 458961482)".into())
            ]
        );
    }
}
