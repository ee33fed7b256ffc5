//! Masks that come back: an object that was read with its secrets masked, and is written as it was read, would store the masks.

use base64::Engine as _;
use serde_json::Value;

use super::Unreadable;

/// What every mask in an answer begins with; the name of what was found and `]` follow.
const BEGIN: &str = "[redacted:";
/// What a member of a Secret is shown as.
pub(super) const SECRET: &str = "[redacted:secret]";
/// The same where bytes are written in Base64.
pub(super) const SECRET_BASE64: &str = "W3JlZGFjdGVkOnNlY3JldF0=";
/// How often Base64 is undone inside of itself.
const LAYERS: u8 = 3;

/// Refuses a body that has a mask of ours in it, plain or in Base64.
///
/// # Errors
/// When it has one.
pub(super) fn check(value: &Value) -> Result<(), Unreadable> {
    let found = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => has(text.as_bytes(), LAYERS),
        Value::Array(list) => return list.iter().try_for_each(check),
        Value::Object(members) => {
            let named = members.keys().any(|name| has(name.as_bytes(), 0));
            match named {
                true => true,
                false => return members.values().try_for_each(check),
            }
        }
    };
    match found {
        false => Ok(()),
        true => Err(Unreadable {
            code: 422,
            what:
                "the body holds a value that the gateway has masked (`[redacted:…]`): it would be stored in \
                   place of what it hides"
                    .to_owned(),
            hint: "leave those members out (a patch of the others), or write their real values",
        }),
    }
}

fn has(text: &[u8], layers: u8) -> bool {
    if is_in(text) {
        return true;
    }
    if layers == 0 || text.len() < 12 {
        return false;
    }
    let Ok(text) = std::str::from_utf8(text) else { return false };
    // Bytes in Base64, whatever stands around them: each word by itself.
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_');
    let joined: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    joined.split(|c: char| !letter(c)).filter(|word| word.len() >= 12).any(|word| {
        (0..4).any(|shift| decoded(word, shift).is_some_and(|inner| has(&inner, layers.saturating_sub(1))))
    })
}

fn is_in(text: &[u8]) -> bool {
    memchr::memmem::find_iter(text, BEGIN.as_bytes()).any(|at| {
        let rest = text.get(at.saturating_add(BEGIN.len())..).unwrap_or_default();
        let name =
            rest.iter().take_while(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'0'..=b'9'));
        let length = name.count();
        length > 0 && rest.get(length) == Some(&b']')
    })
}

/// What a word means from its `shift`th letter on; a mask may have been cut out of something longer.
fn decoded(word: &str, shift: usize) -> Option<Vec<u8>> {
    let rest = word.get(shift..)?;
    let whole = rest.len().checked_sub(rest.len() % 4)?;
    let tail = if rest.len() % 4 == 1 { whole } else { rest.len() };
    let text: String = rest
        .get(..tail)?
        .chars()
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            c => c,
        })
        .collect();
    let engine = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    engine.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use serde_json::json;

    use super::*;

    #[test]
    fn masks_are_known_in_every_dress() {
        assert_eq!(STANDARD.encode(SECRET), SECRET_BASE64);
        let twice = STANDARD.encode(SECRET_BASE64);
        let mut lines = STANDARD.encode(format!("{}{SECRET}", "x".repeat(100)));
        lines.insert(76, '\n');
        for text in [
            SECRET.to_owned(),
            "[redacted:jwt]".to_owned(),
            format!("password={SECRET}\n"),
            SECRET_BASE64.to_owned(),
            SECRET_BASE64.trim_end_matches('=').to_owned(),
            URL_SAFE_NO_PAD.encode(SECRET),
            STANDARD.encode(format!("x{SECRET}")),
            STANDARD.encode(format!("xy{SECRET}")),
            STANDARD.encode(format!("{{\"auths\":\"{SECRET_BASE64}\"}}")),
            twice,
            lines,
            format!("data:;base64,{SECRET_BASE64}"),
        ] {
            assert!(check(&json!({ "data": { "a": text } })).is_err(), "{text}");
            assert!(check(&json!([[text]])).is_err(), "{text}");
        }
        assert!(check(&json!({ SECRET: 1 })).is_err());
        for text in [
            "[redacted]",
            "redacted:secret",
            "[redacted:]",
            "[Redacted:x]",
            "c29tZXRoaW5nIGVsc2U=",
            "plain words",
        ] {
            assert!(check(&json!({ "data": { "a": text } })).is_ok(), "{text}");
        }
    }
}
