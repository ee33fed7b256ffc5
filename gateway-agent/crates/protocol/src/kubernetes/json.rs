//! JSON that has one meaning: no member twice, nothing behind the end, nothing too deep.

use std::fmt;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Unreadable;

/// Reads a document.
///
/// # Errors
/// When it is no JSON, or a member is in it twice: readers differ in which of them counts. Nesting beyond 128 levels is refused.
pub(super) fn read(text: &[u8]) -> Result<Value, Unreadable> {
    let text = std::str::from_utf8(text).map_err(|_| Unreadable::bad("the body is no UTF-8"))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let Strict(value) = de::Deserialize::deserialize(&mut deserializer)
        .map_err(|error: serde_json::Error| Unreadable::bad(&format!("the body cannot be read: {error}")))?;
    deserializer.end().map_err(|_| Unreadable::bad("the body goes on behind its end"))?;
    Ok(value)
}

struct Strict(Value);

impl<'de> de::Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("no number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let Strict(value) = map.next_value()?;
            if object.insert(name.clone(), value).is_some() {
                return Err(de::Error::custom(format!("the member `{name}` is there twice")));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_two_meanings_is_refused() {
        assert_eq!(read(br#" {"a":[1,-2,2.5,true,null,"x"]} "#).unwrap()["a"][5], "x");
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":[{"a":{},"a":{}}]}"#,
            r#"{"a":1}{"b":2}"#,
            r#"{"a":1},"#,
            "{'a':1}",
            r#"{"a":1,}"#,
            r#"{"a":NaN}"#,
            "",
            "kind: Pod",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
        assert!(read(b"{\"a\":\"\xff\"}").is_err());
        assert!(read(&[b"[".repeat(2000), b"]".repeat(2000)].concat()).is_err());
    }
}
