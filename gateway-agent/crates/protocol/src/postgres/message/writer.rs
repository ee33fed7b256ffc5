//! Messages into a buffer.

/// Appends one message whose body `write` appends.
pub fn frame(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    counted(out, write);
}

/// Appends a length, which counts itself, and the body that `write` appends.
pub(crate) fn counted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    // What is written here was read from, or is no longer than, messages with a length of their own.
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    patch(out, at, length);
}

/// Appends a length, which does not count itself, and the data.
pub(crate) fn counted_apart(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(data);
}

/// Overwrites four bytes that were left open at `at`.
pub(crate) fn patch(out: &mut [u8], at: usize, value: u32) {
    if let Some(slot) = out.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *slot = value.to_be_bytes();
    }
}

/// Appends text and a NUL. A NUL inside the text would end it early, so it is left out.
pub fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    if memchr::memchr(0, text).is_none() {
        out.extend_from_slice(text);
    } else {
        out.extend(text.iter().filter(|byte| **byte != 0));
    }
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_counts_itself() {
        let mut out = Vec::new();
        frame(&mut out, b'Q', |out| cstr(out, b"SELECT 1"));
        assert_eq!(out, b"Q\0\0\0\x0dSELECT 1\0");
        out.clear();
        frame(&mut out, b'S', |_| {});
        assert_eq!(out, b"S\0\0\0\x04");
    }

    #[test]
    fn text_cannot_end_early() {
        let mut out = Vec::new();
        cstr(&mut out, b"a\0b");
        assert_eq!(out, b"ab\0");
    }
}
