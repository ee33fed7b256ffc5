//! What objects say of themselves, before they are shown: their kind may stand behind what it is about.

use super::document::{decode, end_of_string};

/// Reasons of a refusal whose message quotes no object.
const PLAIN_REASONS: &[&[u8]] = &[
    b"NotFound",
    b"AlreadyExists",
    b"Forbidden",
    b"Unauthorized",
    b"Conflict",
    b"Expired",
    b"Gone",
    b"Timeout",
    b"TooManyRequests",
    b"ServiceUnavailable",
    b"MethodNotAllowed",
    b"NotAcceptable",
    b"UnsupportedMediaType",
];

/// What an object says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Says {
    /// It says of what kind it is.
    pub(super) kind: bool,
    pub(super) secret: bool,
    pub(super) refusal: bool,
    /// A reason whose message quotes nothing.
    pub(super) plain: bool,
}

/// The names that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Kind,
    Reason,
    Other,
}

/// An object or array that is being read.
struct Open {
    /// Which object; none: an array.
    object: Option<usize>,
    /// Of the member that is being read; with `named`, its colon is behind it.
    name: Option<Name>,
    named: bool,
}

/// All objects that begin in a text, in the order of their braces: what they say in this text. It may begin and end inside of others.
pub(super) fn survey(text: &[u8]) -> Vec<Says> {
    let mut all = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0_usize;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                let begin = at.saturating_add(1);
                let Some(end) = end_of_string(text, begin) else { break };
                at = end;
                if let Some(Open { object: Some(object), name, named }) = open.last_mut()
                    && let Some(says) = all.get_mut(*object)
                {
                    let word = text.get(begin..end).unwrap_or_default();
                    match (*name, *named) {
                        (Some(name), true) => hear(says, name, word),
                        _ => *name = Some(name_of(word)),
                    }
                }
            }
            b':' => {
                if let Some(open) = open.last_mut() {
                    open.named = true;
                }
            }
            b',' => {
                if let Some(open) = open.last_mut() {
                    (open.name, open.named) = (None, false);
                }
            }
            b'{' => {
                open.push(Open { object: Some(all.len()), name: None, named: false });
                all.push(Says::default());
            }
            b'[' => open.push(Open { object: None, name: None, named: false }),
            b'}' | b']' => drop(open.pop()),
            _ => {}
        }
        at = at.saturating_add(1);
    }
    all
}

fn name_of(written: &[u8]) -> Name {
    let name = decode(written);
    match () {
        () if name.eq_ignore_ascii_case(b"kind") => Name::Kind,
        () if name.eq_ignore_ascii_case(b"reason") => Name::Reason,
        () => Name::Other,
    }
}

fn hear(says: &mut Says, name: Name, written: &[u8]) {
    match name {
        Name::Kind => {
            let word = decode(written);
            says.kind = true;
            says.secret |= word.eq_ignore_ascii_case(b"Secret") || word.eq_ignore_ascii_case(b"SecretList");
            says.refusal |= word.eq_ignore_ascii_case(b"Status");
        }
        Name::Reason => says.plain = PLAIN_REASONS.contains(&&*decode(written)),
        Name::Other => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_object_says_its_own_wherever_its_kind_stands() {
        let text = br#"],"a":[{"data":{"kind":"x"},"kind":"Secret"}],"b":{"list":["kind","Secret"],"\u006bind":"secretlist"},"c":{"reason":"NotFound","kind":"Status"},"d":{"kind":"Pod","e":{"#;
        let says = |kind, secret, refusal, plain| Says { kind, secret, refusal, plain };
        assert_eq!(
            survey(text),
            [
                says(true, true, false, false),
                says(true, false, false, false),
                says(true, true, false, false),
                says(true, false, true, true),
                says(true, false, false, false),
                says(false, false, false, false),
            ]
        );
    }

    #[test]
    fn what_is_cut_off_says_what_it_has_said() {
        assert_eq!(
            survey(br#"{"kind":"Secret","a":"b"#),
            [Says { kind: true, secret: true, ..Says::default() }]
        );
        assert_eq!(survey(br#"{"kind":"Secr"#), [Says::default()]);
        assert_eq!(survey(br#"}}]"{""#), []);
    }
}
