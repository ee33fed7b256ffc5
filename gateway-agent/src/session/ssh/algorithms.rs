//! What is negotiated on either leg: nothing weak, nothing compressed, strict key exchange.

use std::borrow::Cow;

use russh::{
    Limits, Preferred, SshId, cipher, compression, kex,
    keys::{Algorithm, EcdsaCurve},
    mac,
};

use crate::config::Sessions;

const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::DH_G16_SHA512,
    kex::DH_G18_SHA512,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

const KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];

/// Clients of jobs prefer ChaCha20 where they find it; AES has the processor's help.
const JOB_CIPHERS: &[cipher::Name] =
    &[cipher::AES_256_GCM, cipher::AES_256_CTR, cipher::AES_192_CTR, cipher::AES_128_CTR];

const UPSTREAM_CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM, mac::HMAC_SHA256, mac::HMAC_SHA512];

const COMPRESSION: &[compression::Name] = &[compression::NONE];

/// Says nothing about versions.
pub(super) fn identification() -> SshId {
    SshId::Standard(Cow::Borrowed("SSH-2.0-gateway"))
}

/// When keys are changed.
pub(super) fn limits(of: &Sessions) -> Limits {
    Limits::new(of.ssh_rekey_bytes, of.ssh_rekey_bytes, of.ssh_rekey_after)
}

/// With this cipher a man in the middle can drop the first messages unseen (Terrapin, CVE-2023-48795), unless key exchange is strict on
/// both sides. Of the others that this holds for, CBC, none is spoken here.
pub(super) fn needs_strictness(cipher: &cipher::Name) -> bool {
    *cipher == cipher::CHACHA20_POLY1305
}

pub(super) fn towards_jobs() -> Preferred {
    Preferred { cipher: Cow::Borrowed(JOB_CIPHERS), ..towards_hosts(false) }
}

/// `authorities`: host certificates can be checked, and are asked for.
pub(super) fn towards_hosts(authorities: bool) -> Preferred {
    Preferred {
        kex: Cow::Borrowed(KEX),
        key: Cow::Borrowed(KEYS),
        host_key_certificates: Cow::Borrowed(if authorities { KEYS } else { &[] }),
        cipher: Cow::Borrowed(UPSTREAM_CIPHERS),
        mac: Cow::Borrowed(MACS),
        compression: Cow::Borrowed(COMPRESSION),
    }
}
