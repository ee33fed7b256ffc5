//! Types that write themselves in JSON in a way of their own (k8s.io/apimachinery, `pkg/apis/meta/v1` and `pkg/util/intstr`).

use serde_json::Value;

use super::wire::{self, Broken};

/// RFC 3339, in seconds or in microseconds. `None`: no time at all.
pub(super) fn time(bytes: &[u8], micros: bool) -> Result<Option<String>, Broken> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let [seconds, nanos] = wire::flat(bytes)?;
    let (seconds, nanos) = (wire::signed(seconds, 1)?, wire::signed(nanos, 2)?);
    if !(0..1_000_000_000).contains(&nanos) {
        return Err(Broken::Type(2));
    }
    let date = mask::date(seconds.div_euclid(86_400)).ok_or(Broken::Type(1))?;
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    // What is smaller is not written in JSON, and not read by the server.
    let fraction = if micros { format!(".{:06}", nanos / 1000) } else { String::new() };
    Ok(Some(format!("{date}T{hour:02}:{minute:02}:{second:02}{fraction}Z")))
}

/// As Go writes durations, in their smallest unit.
pub(super) fn duration(bytes: &[u8]) -> Result<String, Broken> {
    let [nanos] = wire::flat(bytes)?;
    Ok(format!("{}ns", wire::signed(nanos, 1)?))
}

pub(super) fn int_or_string(bytes: &[u8]) -> Result<Value, Broken> {
    let [kind, number, text] = wire::flat(bytes)?;
    let (number, text) = (wire::signed(number, 2)?, wire::bytes(text, 3)?);
    match wire::signed(kind, 1)? {
        0 => Ok(i32::try_from(number).map_err(|_| Broken::Type(2))?.into()),
        1 => Ok(std::str::from_utf8(text).map_err(|_| Broken::Type(3))?.into()),
        _ => Err(Broken::Type(1)),
    }
}

/// The only field of a message, which holds bytes.
pub(super) fn only(bytes: &[u8]) -> Result<&[u8], Broken> {
    let [raw] = wire::flat(bytes)?;
    wire::bytes(raw, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds since 1970 of the first and the last moment that has a year of four digits.
    const FIRST: i64 = -62_135_596_800;
    const LAST: i64 = 253_402_300_799;

    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        bytes.push(u8::try_from(value).unwrap());
        bytes
    }

    fn stamp(seconds: i64, nanos: u64) -> Vec<u8> {
        [&[0x08][..], &varint(seconds.cast_unsigned()), &[0x10], &varint(nanos)].concat()
    }

    #[test]
    fn times_are_written_as_the_server_writes_them() {
        for (seconds, nanos, wanted) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, 999_999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400, 1000, "2000-02-29T00:00:00.000001Z"),
            (1_795_304_096, 0, "2026-11-21T23:34:56.000000Z"),
            (-1, 0, "1969-12-31T23:59:59.000000Z"),
            (FIRST, 0, "0001-01-01T00:00:00.000000Z"),
            (LAST, 0, "9999-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(time(&stamp(seconds, nanos), true).unwrap().unwrap(), wanted);
            let short = format!("{}Z", wanted.split('.').next().unwrap());
            assert_eq!(time(&stamp(seconds, nanos), false).unwrap().unwrap(), short);
        }
        assert_eq!(time(b"", false), Ok(None));
        for bytes in [stamp(LAST + 1, 0), stamp(i64::MIN, 0), stamp(0, 1_000_000_000), vec![0x08, 0, 0x08, 0]]
        {
            assert!(time(&bytes, true).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_port_is_a_number_or_a_name() {
        assert_eq!(int_or_string(&[0x08, 0, 0x10, 80, 0x1a, 0]).unwrap(), 80);
        assert_eq!(int_or_string(&[0x08, 1, 0x10, 0, 0x1a, 2, b'o', b'k']).unwrap(), "ok");
        assert!(int_or_string(&[0x08, 2]).is_err());
        assert_eq!(duration(&[&[0x08][..], &varint((-5_i64).cast_unsigned())].concat()).unwrap(), "-5ns");
    }
}
