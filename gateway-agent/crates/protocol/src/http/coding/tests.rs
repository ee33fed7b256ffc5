use super::*;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn raw(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// "hello" ten times, by `brotli`.
fn brotli_hello() -> Vec<u8> {
    // A stored meta-block: window 16, one uncompressed block of 50 bytes, then the empty last one.
    let text = b"hello".repeat(10);
    let mut bits = Bits::default();
    bits.put(0, 1); // WBITS 16
    bits.put(0, 1); // not last
    bits.put(0, 2); // MNIBBLES 4
    bits.put(49, 16); // MLEN - 1
    bits.put(1, 1); // uncompressed
    bits.align();
    bits.bytes.extend_from_slice(&text);
    bits.bytes.push(3); // last and empty
    bits.bytes
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        for bit in 0..count {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= (((value >> bit) & 1) as u8) << (self.used % 8);
            self.used += 1;
        }
    }

    fn align(&mut self) {
        self.used = 0;
    }
}

fn decode(coding: &str, body: &[u8], size: usize) -> Result<Vec<u8>, BadCoding> {
    let mut decoder = Decoder::new(Some(coding))?;
    let mut all = Vec::new();
    for piece in body.chunks(size) {
        let mut input = piece;
        loop {
            let before = all.len();
            decoder.step(&mut input, &mut all)?;
            assert!(
                all.len() - before <= 2 * STEP || decoder.is_identity(),
                "{coding}: one step gave too much"
            );
            if input.is_empty() && all.len() == before {
                break;
            }
        }
    }
    decoder.finish(&mut all)?;
    Ok(all)
}

#[test]
fn every_coding_is_undone_however_it_is_cut() {
    let text: Vec<u8> = (0..300_000_u32).flat_map(|n| (n % 1000).to_string().into_bytes()).collect();
    let two = [gzip(&text[..1000]), gzip(&text[1000..])].concat();
    for (coding, body) in [
        ("gzip", gzip(&text)),
        ("x-gzip", two),
        ("deflate", zlib(&text)),
        ("deflate", raw(&text)),
        ("zstd", zstd::encode_all(text.as_slice(), 3).unwrap()),
        ("identity", text.clone()),
    ] {
        for size in [1, 777, 1 << 20] {
            assert!(decode(coding, &body, size).unwrap() == text, "{coding} in pieces of {size}");
        }
        if coding != "identity" {
            decode(coding, &body[..body.len() - 1], 777).expect_err(coding);
            decode(coding, b"this is no such body, whatever it is", 777).expect_err(coding);
        }
    }
    for size in [1, 1000] {
        assert_eq!(decode("br", &brotli_hello(), size).unwrap(), b"hello".repeat(10));
    }
    decode("br", &brotli_hello()[..20], 7).unwrap_err();
    decode("br", &[brotli_hello(), vec![1]].concat(), 7).unwrap_err();
    assert_eq!(decode("gzip", b"", 1).unwrap(), b"");
}

#[test]
fn what_is_not_known_or_grows_beyond_measure_is_refused() {
    for unknown in ["compress", "gzip, gzip", "aes128gcm", "x"] {
        assert!(matches!(Decoder::new(Some(unknown)), Err(BadCoding::Unknown(_))), "{unknown}");
    }
    let bomb = zstd::encode_all(vec![0; 64 << 20].as_slice(), 3).unwrap();
    assert_eq!(decode("zstd", &bomb, 4096), Err(BadCoding::Bomb));
    // gzip's own limit is below it.
    assert_eq!(decode("gzip", &gzip(&vec![0; 8 << 20]), 4096).unwrap().len(), 8 << 20);
}
