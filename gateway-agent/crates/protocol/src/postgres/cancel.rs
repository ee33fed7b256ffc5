//! Cancel keys: the pair that lets another connection cancel what this one runs.

/// What the gateway gives a client to cancel by. Protocol 3.0 clients get the first four bytes of `secret`.
#[derive(Clone, Copy)]
pub struct BackendKey {
    /// Shown where the server names no process of its own: any number.
    pub pid: u32,
    /// Unguessable.
    pub secret: [u8; 32],
}

/// A cancel key as it is on the wire: BackendKeyData, CancelRequest.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    pub pid: u32,
    /// 4 bytes in protocol 3.0, up to 256 in 3.2.
    pub secret: Vec<u8>,
}

impl CancelKey {
    /// Longest secret that protocol 3.2 allows.
    pub const MAX_SECRET: usize = 256;
    const CODE: u32 = 80_877_102;

    /// The CancelRequest packet that cancels by this key, to be sent on a new connection of its own.
    pub fn request(&self) -> Vec<u8> {
        let secret = self.secret.get(..self.secret.len().min(Self::MAX_SECRET)).unwrap_or_default();
        let length = u32::try_from(12 + secret.len()).unwrap_or(u32::MAX);
        let mut packet = Vec::with_capacity(12 + secret.len());
        packet.extend_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(&Self::CODE.to_be_bytes());
        packet.extend_from_slice(&self.pid.to_be_bytes());
        packet.extend_from_slice(secret);
        packet
    }

    /// Whether both are the same key, in time that does not tell how much of the secret was right.
    pub fn matches(&self, other: &Self) -> bool {
        let different =
            self.secret.iter().zip(&other.secret).fold(0u8, |seen, (left, right)| seen | (left ^ right));
        self.pid == other.pid && self.secret.len() == other.secret.len() && different == 0
    }
}

/// A key is a secret: only the process id shows.
impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CancelKey({})", self.pid)
    }
}

impl std::fmt::Debug for BackendKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BackendKey({})", self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_bytes() {
        let key = CancelKey { pid: 0x0102_0304, secret: vec![9, 8, 7, 6] };
        assert_eq!(key.request(), b"\0\0\0\x10\x04\xd2\x16\x2e\x01\x02\x03\x04\x09\x08\x07\x06");
    }

    #[test]
    fn keys_match_only_when_everything_is_equal() {
        let key = CancelKey { pid: 1, secret: vec![1, 2, 3, 4] };
        assert!(key.matches(&key.clone()));
        assert!(!key.matches(&CancelKey { pid: 2, ..key.clone() }));
        assert!(!key.matches(&CancelKey { secret: vec![1, 2, 3], ..key.clone() }));
        assert!(!key.matches(&CancelKey { secret: vec![1, 2, 3, 5], ..key.clone() }));
        assert!(!key.matches(&CancelKey { secret: Vec::new(), ..key }));
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = CancelKey { pid: 7, secret: b"hunter2!".to_vec() };
        assert_eq!(format!("{key:?}"), "CancelKey(7)");
    }
}
