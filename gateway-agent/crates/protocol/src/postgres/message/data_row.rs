//! DataRow: `D`, count, then length and bytes of each cell.

use super::Reader;

/// The cells of a DataRow body; `None` is NULL. Stops where the body is malformed.
pub fn cells(body: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut reader = Reader::new(body);
    let count = reader.u16().unwrap_or(0);
    (0..count).map_while(move |_| reader.value().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_in_order() {
        let body = b"\0\x03\0\0\0\x01a\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(cells(body).collect::<Vec<_>>(), [Some(&b"a"[..]), None, Some(&b""[..])]);
        assert_eq!(cells(b"\0\x02\0\0\0\x01a\0\0\0\x09b").count(), 1);
        assert_eq!(cells(b"").count(), 0);
    }
}
