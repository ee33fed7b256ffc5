//! What strings hold: copies of objects, as annotations and ConfigMaps have them, and whatever detectors find.

use super::{Masks, document::Document};
use crate::kubernetes::marker;

/// How many documents may be inside of each other.
const COPIES: u8 = 3;

/// The string without what is to be hidden, and how much that was. `None`: it stays as it is.
pub(super) fn hide(masks: &Masks, secret: bool, copies: u8, value: &[u8]) -> Option<(Vec<u8>, u64)> {
    if masks.hide_secrets() && (secret || names_secret(value)) {
        let text = value.trim_ascii();
        if matches!(text.first(), Some(b'{' | b'[')) {
            let copy = match copies < COPIES {
                true => Document::copy(masks, secret, copies.saturating_add(1), value),
                false => None,
            };
            return match copy {
                Some((_, 0)) => None,
                Some(hidden) => Some(hidden),
                None => all(),
            };
        }
        if is_manifest(text) {
            return all();
        }
    }
    let mut shown = Vec::new();
    masks.detectors.rewrite(value, &mut shown).then_some((shown, 1))
}

fn all() -> Option<(Vec<u8>, u64)> {
    Some((marker::SECRET.as_bytes().to_vec(), 1))
}

fn names_secret(value: &[u8]) -> bool {
    memchr::memmem::find(value, b"Secret").is_some() || memchr::memmem::find(value, b"\\u00").is_some()
}

/// YAML that describes a Secret: it is not read, so all of it is hidden.
fn is_manifest(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| {
        let line = line.trim_ascii().trim_ascii_start();
        let line = line.strip_prefix(b"- ").unwrap_or(line).trim_ascii();
        let line: Vec<u8> =
            line.iter().copied().filter(|byte| !matches!(byte, b'"' | b'\'' | b' ')).collect();
        line == b"kind:Secret" || line.starts_with(b"kind:Secret#") || line == b"kind:SecretList"
    })
}
