//! Certificates in a Java keystore, in the format of its own (JKS, version 2) that every Java since the first reads, also without its
//! password: there is nothing secret in it.

use std::time::SystemTime;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::pki_types::CertificateDer;

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
/// An entry that is trusted, not a key.
const TRUSTED: u32 = 2;
/// What everybody's keystore has: it keeps nobody out, the digest at the end is made with it.
pub const PASSWORD: &str = "changeit";
/// Goes into the digest behind the password, as the format has it.
const WHITENER: &[u8] = b"Mighty Aphrodite";

/// A keystore of certificates that are trusted.
pub(super) fn write(certificates: &[CertificateDer<'_>], now: SystemTime) -> Vec<u8> {
    let millis = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let millis = u64::try_from(millis).unwrap_or_default().to_be_bytes();
    let mut out = Vec::new();
    for number in [MAGIC, VERSION, length(certificates.len())] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    for (index, certificate) in certificates.iter().enumerate() {
        out.extend_from_slice(&TRUSTED.to_be_bytes());
        text(&format!("root-{index}"), &mut out);
        out.extend_from_slice(&millis);
        text("X.509", &mut out);
        out.extend_from_slice(&length(certificate.len()).to_be_bytes());
        out.extend_from_slice(certificate);
    }
    let mut hashed: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    hashed.extend_from_slice(WHITENER);
    hashed.extend_from_slice(&out);
    out.extend_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, &hashed).as_ref());
    out
}

fn length(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

/// Java's own UTF-8, of ASCII.
fn text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
