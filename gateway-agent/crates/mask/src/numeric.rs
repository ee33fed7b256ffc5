//! PostgreSQL's numeric in binary: groups of four digits around a point (`numeric.c`).

/// Groups on either side of the point at most; more is not for masking.
const MOST: i16 = 64;

/// `-123.45` and the like, not NaN nor infinite.
pub(crate) fn is_plain(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let mut points = 0;
    let fine = digits.bytes().all(|b| {
        points += usize::from(b == b'.');
        b.is_ascii_digit() || b == b'.'
    });
    fine && points <= 1 && digits.bytes().any(|b| b.is_ascii_digit())
}

/// As text; `None` for what is no plain number.
pub(crate) fn decode(cell: &[u8]) -> Option<String> {
    let (head, groups) = cell.split_first_chunk::<8>()?;
    let [c0, c1, w0, w1, s0, s1, d0, d1] = *head;
    let count = usize::from(u16::from_be_bytes([c0, c1]));
    let weight = i16::from_be_bytes([w0, w1]);
    let scale = u16::from_be_bytes([d0, d1]);
    let negative = match u16::from_be_bytes([s0, s1]) {
        0 => false,
        0x4000 => true,
        _ => return None,
    };
    (groups.len() == 2 * count && (-MOST..MOST).contains(&weight) && scale <= 256).then_some(())?;
    let group = |at: i32| -> Option<u16> {
        let at = usize::try_from(i32::from(weight) - at).ok();
        let bytes = at.and_then(|at| groups.get(2 * at..2 * at + 2));
        match bytes {
            None => Some(0),
            Some(bytes) => Some(u16::from_be_bytes(bytes.try_into().ok()?)).filter(|group| *group < 10_000),
        }
    };
    let mut whole = String::new();
    for at in (0..=i32::from(weight)).rev() {
        whole.push_str(&format!("{:04}", group(at)?));
    }
    let whole = whole.trim_start_matches('0');
    let mut fraction = String::new();
    let mut at = -1;
    while fraction.len() < usize::from(scale) {
        fraction.push_str(&format!("{:04}", group(at)?));
        at -= 1;
    }
    fraction.truncate(usize::from(scale));
    let sign = if negative { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

/// Appends the number; `None` for what is no plain one, or too long.
pub(crate) fn encode(text: &str, out: &mut Vec<u8>) -> Option<()> {
    is_plain(text).then_some(())?;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (0x4000u16, digits),
        None => (0, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let padded = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
    let mut groups = Vec::new();
    for group in [whole.as_bytes(), padded.as_bytes()].concat().chunks(4) {
        groups.push(std::str::from_utf8(group).ok()?.parse::<u16>().ok()?);
    }
    let mut weight = i16::try_from(whole.len() / 4).ok()? - 1;
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    while groups.last() == Some(&0) {
        groups.pop();
    }
    weight = if groups.is_empty() { 0 } else { weight - i16::try_from(leading).ok()? };
    (-MOST..MOST).contains(&weight).then_some(())?;
    let sign = if groups.is_empty() { 0 } else { sign };
    out.extend_from_slice(&u16::try_from(groups.len()).ok()?.to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&u16::try_from(fraction.len()).ok()?.to_be_bytes());
    groups.iter().for_each(|group| out.extend_from_slice(&group.to_be_bytes()));
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binary(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        encode(text, &mut out).unwrap();
        out
    }

    #[test]
    fn as_the_server_writes_it() {
        // SELECT numeric_send(73519.84620357), numeric_send(-0.5), numeric_send(0)
        assert_eq!(binary("73519.84620357"), [0, 4, 0, 1, 0, 0, 0, 8, 0, 7, 13, 191, 33, 14, 1, 101]);
        assert_eq!(binary("-0.5"), [0, 1, 255, 255, 64, 0, 0, 1, 19, 136]);
        assert_eq!(binary("0"), [0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decode(&[0, 0, 0, 0, 192, 0, 0, 0]), None, "NaN");
    }

    proptest! {
        #[test]
        fn both_ways(whole in "0|[1-9][0-9]{0,30}", fraction in "(\\.[0-9]{1,20})?", minus: bool) {
            let text = format!("{whole}{fraction}");
            let zero = !text.bytes().any(|b| matches!(b, b'1'..=b'9'));
            let text = if minus && !zero { format!("-{text}") } else { text };
            prop_assert_eq!(decode(&binary(&text)), Some(text));
        }

        #[test]
        fn anything_is_safe(cell: Vec<u8>) {
            decode(&cell);
        }
    }
}
