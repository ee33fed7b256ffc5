//! Header fields of SPDY/3.1: one zlib stream (RFC 1950) for all of them, with a dictionary that both sides know.

use miniz_oxide::inflate::{
    TINFLStatus,
    core::{DecompressorOxide, decompress, inflate_flags::TINFL_FLAG_HAS_MORE_INPUT},
};

use super::BadTunnel;

/// What the stream may refer back to before anything is in it (SPDY/3 2.6.10.1).
pub const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
/// Its Adler-32, by which the stream names it.
const CHECKSUM: [u8; 4] = [0xe3, 0xc6, 0xa7, 0xc2];
/// How far back deflate refers.
const WINDOW: usize = 32 * 1024;
/// Longest block, in bytes.
const BLOCK: usize = 16 * 1024;
/// Most fields of one.
const FIELDS: u32 = 64;

/// Reads the blocks of one side, one after another.
pub(super) struct Headers {
    state: Box<DecompressorOxide>,
    /// The last of what was read, around its end.
    window: Vec<u8>,
    at: usize,
    begun: bool,
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Headers").field("begun", &self.begun).finish_non_exhaustive()
    }
}

impl Default for Headers {
    fn default() -> Self {
        let mut window = vec![0; WINDOW];
        if let Some(start) = window.get_mut(..DICTIONARY.len()) {
            start.copy_from_slice(DICTIONARY);
        }
        Self { state: Box::default(), window, at: DICTIONARY.len(), begun: false }
    }
}

impl Headers {
    /// The fields of one block.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, BadTunnel> {
        let mut input = block;
        if !self.begun {
            self.begun = true;
            input = begin(block).ok_or(BadTunnel::Headers)?;
        }
        let mut plain = Vec::new();
        loop {
            let (status, read, written) =
                decompress(&mut self.state, input, &mut self.window, self.at, TINFL_FLAG_HAS_MORE_INPUT);
            let end = self.at.saturating_add(written);
            plain.extend_from_slice(self.window.get(self.at..end).ok_or(BadTunnel::Headers)?);
            self.at = end % WINDOW;
            input = input.get(read..).ok_or(BadTunnel::Headers)?;
            if plain.len() > BLOCK {
                return Err(BadTunnel::Long);
            }
            match status {
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput if input.is_empty() => {
                    return fields(&plain).ok_or(BadTunnel::Headers);
                }
                // The stream never ends, and nothing in it may be broken.
                _ => return Err(BadTunnel::Headers),
            }
        }
    }
}

/// The head of the stream, which names the dictionary; what comes behind it.
fn begin(block: &[u8]) -> Option<&[u8]> {
    let ([method, flags], rest) = block.split_first_chunk()?;
    let (named, rest) = rest.split_first_chunk()?;
    let deflate = method & 0x0f == 8 && method >> 4 <= 7;
    let checked = u16::from_be_bytes([*method, *flags]).is_multiple_of(31);
    (deflate && checked && flags & 0x20 != 0 && *named == CHECKSUM).then_some(rest)
}

/// Names in lower case, each once, and values of one part.
fn fields(plain: &[u8]) -> Option<Vec<(String, String)>> {
    let (count, mut rest) = number(plain)?;
    let mut fields: Vec<(String, String)> = Vec::new();
    for _ in 0..count.min(FIELDS.saturating_add(1)) {
        let (name, after) = text(rest)?;
        let (value, after) = text(after)?;
        rest = after;
        let plain = !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase() || byte == 0);
        if !plain || value.contains('\0') || fields.iter().any(|(known, _)| known == name) {
            return None;
        }
        fields.push((name.to_owned(), value.to_owned()));
    }
    (count <= FIELDS && rest.is_empty()).then_some(fields)
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = number(bytes)?;
    let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_one_that_streams_name() {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in DICTIONARY {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!((b << 16 | a).to_be_bytes(), CHECKSUM);
    }

    #[test]
    fn blocks_refer_to_the_dictionary_and_to_each_other() {
        // As zlib writes them (level 6, Z_SYNC_FLUSH): `port: 80`, `streamtype: data`, and the same again.
        let first = FIRST;
        let wanted = vec![("streamtype".to_owned(), "data".to_owned()), ("port".to_owned(), "80".to_owned())];
        let mut headers = Headers::default();
        assert_eq!(headers.read(first), Ok(wanted.clone()));
        assert_eq!(headers.read(SECOND), Ok(wanted));
        assert!(Headers::default().read(SECOND).is_err());
        assert!(headers.read(&[0xff; 20]).is_err());
    }

    const FIRST: &[u8] = &[
        0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2, 0x02, 0xe5, 0x0e, 0x70, 0x3a, 0x2b, 0x29, 0x4a, 0x4d, 0xcc, 0x45,
        0x2a, 0x4a, 0x12, 0x21, 0xa5, 0x72, 0x11, 0x28, 0x05, 0x33, 0x59, 0x18, 0x00, 0x00, 0x00, 0x00, 0xff,
        0xff,
    ];
    const SECOND: &[u8] = &[0x22, 0x56, 0x1d, 0x00, 0x00, 0x00, 0xff, 0xff];
}
