//! Content codings undone, a bounded piece at a time (RFC 9110 8.4.1, RFC 7932, RFC 8878).

use std::io::{self, Write};

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use zstd::stream::raw::{DParameter, Decoder as Zstd, Operation as _};

/// Output of one step, about.
const STEP: usize = 64 * 1024;
/// How much longer than what came the content may be, beyond [`FREE`]. gzip cannot exceed it by itself.
const RATIO: u64 = 1100;
/// Content that may come of however little.
const FREE: u64 = 1024 * 1024;
/// log2 of the largest window: 8 MiB (RFC 9659).
const WINDOW: u32 = 23;

/// Why a body cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCoding {
    #[error("the content coding `{0}` is not known here")]
    Unknown(String),
    #[error("the body is not what its content coding says")]
    Content,
    #[error("the body grows more than {RATIO} times when decoded")]
    Bomb,
    #[error("the body ends in the middle")]
    Unfinished,
}

/// Undoes one content coding.
pub struct Decoder {
    kind: Kind,
    taken: u64,
    given: u64,
    /// The coding has an end, and it was there.
    ended: bool,
}

enum Kind {
    Identity,
    Gzip(flate2::write::MultiGzDecoder<Vec<u8>>),
    /// Of which kind is known by its first byte.
    Deflate,
    Zlib(flate2::write::ZlibDecoder<Vec<u8>>),
    Raw(flate2::write::DeflateDecoder<Vec<u8>>),
    Brotli(Box<Brotli>),
    Zstd(Box<Zstd<'static>>),
}

type Brotli = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Decoder({} of {})", self.given, self.taken)
    }
}

impl Decoder {
    /// For the value of Content-Encoding; `None` and `identity` decode nothing.
    ///
    /// # Errors
    /// When the coding, or a second one, is not known.
    pub fn new(coding: Option<&str>) -> Result<Self, BadCoding> {
        let name = coding.unwrap_or("identity").trim().to_ascii_lowercase();
        let unknown = || BadCoding::Unknown(name.chars().take(40).collect());
        let kind = match name.as_str() {
            "" | "identity" => Kind::Identity,
            "gzip" | "x-gzip" => Kind::Gzip(flate2::write::MultiGzDecoder::new(Vec::new())),
            "deflate" => Kind::Deflate,
            "br" => Kind::Brotli(Box::new(BrotliState::new(
                StandardAlloc::default(),
                StandardAlloc::default(),
                StandardAlloc::default(),
            ))),
            "zstd" => {
                let mut decoder = Zstd::new().map_err(|_| unknown())?;
                decoder.set_parameter(DParameter::WindowLogMax(WINDOW)).map_err(|_| unknown())?;
                Kind::Zstd(Box::new(decoder))
            }
            _ => return Err(unknown()),
        };
        Ok(Self { kind, taken: 0, given: 0, ended: false })
    }

    /// Decodes nothing.
    pub fn is_identity(&self) -> bool {
        matches!(self.kind, Kind::Identity)
    }

    /// Takes from the front of `input` and appends content to `out`: about 64 KiB at most, and less when the input is used up. Call it
    /// again until the input is empty and nothing was appended.
    ///
    /// # Errors
    /// When the body is not what it says, or grows beyond all measure.
    pub fn step(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<(), BadCoding> {
        let (before, had) = (out.len(), input.len());
        if let (Kind::Deflate, Some(first)) = (&self.kind, input.first()) {
            // RFC 9110 says zlib; some servers send it bare. Deflate as zlib's method is 8 in the lower half.
            self.kind = match first & 0x0f {
                8 => Kind::Zlib(flate2::write::ZlibDecoder::new(Vec::new())),
                _ => Kind::Raw(flate2::write::DeflateDecoder::new(Vec::new())),
            };
        }
        match &mut self.kind {
            Kind::Identity => {
                out.extend_from_slice(input);
                *input = &[];
            }
            Kind::Deflate => {}
            Kind::Gzip(decoder) => {
                feed(decoder, input)?;
                out.append(decoder.get_mut());
            }
            Kind::Zlib(decoder) => {
                feed(decoder, input)?;
                out.append(decoder.get_mut());
            }
            Kind::Raw(decoder) => {
                feed(decoder, input)?;
                out.append(decoder.get_mut());
            }
            Kind::Brotli(state) => self.ended |= brotli(state, self.ended, input, out)?,
            Kind::Zstd(decoder) => {
                let mut room = vec![0; STEP];
                let status = decoder.run_on_buffers(input, &mut room).map_err(|_| BadCoding::Content)?;
                *input = input.get(status.bytes_read..).unwrap_or_default();
                out.extend_from_slice(room.get(..status.bytes_written).unwrap_or_default());
                // What remains is 0 at the end of a frame, behind which another may come.
                if status.bytes_read > 0 || status.bytes_written > 0 {
                    self.ended = status.remaining == 0;
                }
            }
        }
        let count = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        self.taken = self.taken.saturating_add(count(had.saturating_sub(input.len())));
        self.given = self.given.saturating_add(count(out.len().saturating_sub(before)));
        match self.given > FREE && self.given / RATIO > self.taken {
            true => Err(BadCoding::Bomb),
            false => Ok(()),
        }
    }

    /// The body is over: appends what is left.
    ///
    /// # Errors
    /// When it ended in the middle.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), BadCoding> {
        if self.taken == 0 {
            // A body without content, as of a response to HEAD.
            return Ok(());
        }
        let unfinished = |_| BadCoding::Unfinished;
        match &mut self.kind {
            Kind::Identity | Kind::Deflate => {}
            Kind::Gzip(decoder) => {
                decoder.try_finish().map_err(unfinished)?;
                out.append(decoder.get_mut());
            }
            Kind::Zlib(decoder) => {
                decoder.try_finish().map_err(unfinished)?;
                out.append(decoder.get_mut());
            }
            Kind::Raw(decoder) => {
                decoder.try_finish().map_err(unfinished)?;
                out.append(decoder.get_mut());
            }
            Kind::Brotli(_) | Kind::Zstd(_) if self.ended => {}
            Kind::Brotli(_) | Kind::Zstd(_) => return Err(BadCoding::Unfinished),
        }
        Ok(())
    }
}

/// One write: the decoder hands over what it has decoded and takes a part of the input.
fn feed(decoder: &mut impl Write, input: &mut &[u8]) -> Result<(), BadCoding> {
    let read = match decoder.write(input) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
        Err(_) => return Err(BadCoding::Content),
    };
    // What follows the end of the stream is nothing that anybody would read.
    if read == 0 && !input.is_empty() {
        return Err(BadCoding::Content);
    }
    *input = input.get(read..).unwrap_or_default();
    Ok(())
}

/// Whether the stream has ended.
fn brotli(state: &mut Brotli, ended: bool, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, BadCoding> {
    if ended {
        return if input.is_empty() { Ok(true) } else { Err(BadCoding::Content) };
    }
    let mut room = vec![0; STEP];
    let (mut left, mut read) = (input.len(), 0);
    let (mut space, mut written, mut total) = (room.len(), 0, 0);
    let result = BrotliDecompressStream(
        &mut left,
        &mut read,
        input,
        &mut space,
        &mut written,
        &mut room,
        &mut total,
        state,
    );
    *input = input.get(read..).unwrap_or_default();
    out.extend_from_slice(room.get(..written).unwrap_or_default());
    match result {
        BrotliResult::ResultSuccess => Ok(true),
        BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => Ok(false),
        BrotliResult::ResultFailure => Err(BadCoding::Content),
    }
}

#[cfg(test)]
mod tests;
