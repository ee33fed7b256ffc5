//! Objects in protobuf, turned into JSON.
//!
//! What is decided is that JSON, and it is what is sent, so it does not matter how the server would have read the original. Read is
//! what the table of Kubernetes' own kinds knows and nothing else: another field, another wire type or a field that is there twice is
//! refused, and the client is told that the same would be read as JSON.

mod special;
mod types;
mod wire;

#[cfg(test)]
mod tests;

use base64::Engine as _;
use serde_json::{Map, Value};

use self::{
    types::{Field, Message, Shape, Type, Types},
    wire::{Broken, Reader, Written},
};
use super::{Unreadable, json};

/// What a body begins with.
const MAGIC: &[u8] = b"k8s\0";
const CONTENT_TYPE: &[u8] = b"application/vnd.kubernetes.protobuf";
/// Deepest nesting. Pods have 12.
const DEPTH: u8 = 64;

/// Turns a body into JSON.
///
/// # Errors
/// When it is no object of a kind that is known, or has anything in it that is not.
pub(super) fn to_json(body: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let types = types::types().ok_or_else(|| refused("the gateway's table of types is broken"))?;
    let inside = body.strip_prefix(MAGIC).ok_or_else(|| refused("the body does not begin with `k8s`"))?;
    let (version, kind, raw) =
        envelope(inside).map_err(|broken| refused(&format!("the envelope {broken}")))?;
    let message = types.kind(version, kind).ok_or_else(|| {
        refused(&format!("the gateway does not know {:?} of {:?} in protobuf", short(kind), short(version)))
    })?;
    let mut object = Walk { types }.message(message, raw, 0)?;
    for (name, text) in [("apiVersion", version), ("kind", kind)] {
        put(&mut object, message, name, Value::from(text))?;
    }
    Ok(Value::Object(object).to_string().into_bytes())
}

/// `runtime.Unknown`: API version, kind, and the object.
fn envelope(bytes: &[u8]) -> Result<(&str, &str, &[u8]), Broken> {
    let [meta, raw, encoding, content_type] = wire::flat(bytes)?;
    let [version, kind] = wire::flat(wire::bytes(meta, 1)?)?;
    let text = |written, number| {
        std::str::from_utf8(wire::bytes(written, number)?).map_err(|_| Broken::Type(number))
    };
    if !wire::bytes(encoding, 3)?.is_empty() {
        return Err(Broken::Type(3));
    }
    let content_type = wire::bytes(content_type, 4)?;
    if !content_type.is_empty() && content_type != CONTENT_TYPE {
        return Err(Broken::Type(4));
    }
    Ok((text(version, 1)?, text(kind, 2)?, wire::bytes(raw, 2)?))
}

struct Walk {
    types: &'static Types,
}

impl Walk {
    fn message(&self, of: &Message, bytes: &[u8], depth: u8) -> Result<Map<String, Value>, Unreadable> {
        if depth >= DEPTH {
            return Err(refused(&format!("{} is nested too deep", of.name)));
        }
        let mut object = Map::new();
        let mut seen = Vec::new();
        let mut reader = Reader::new(bytes);
        while let Some((number, written)) = reader.field().map_err(|broken| of.broken(broken))? {
            let field = of.field(number).ok_or_else(|| of.broken(Broken::Unknown(number)))?;
            let again = seen.contains(&number);
            if !again {
                seen.push(number);
            }
            // A part that is there twice would be merged by some readers.
            if again && field.shape == Shape::One {
                return Err(of.broken(Broken::Twice(number)));
            }
            let Some(name) = field.name else {
                self.inline(of, field, written, depth, &mut object)?;
                continue;
            };
            match field.shape {
                Shape::One => {
                    let value = self.value(of, field, written, depth)?;
                    if let Some(value) = value.filter(|value| !field.omitted || !is_zero(value)) {
                        put(&mut object, of, name, value)?;
                    }
                }
                Shape::List => {
                    if !again {
                        put(&mut object, of, name, Value::Array(Vec::new()))?;
                    }
                    let Some(Value::Array(list)) = object.get_mut(name) else {
                        return Err(of.broken(Broken::Twice(number)));
                    };
                    match (field.of, written) {
                        (Type::Bool | Type::Int32 | Type::Int64, Written::Bytes(packed)) => {
                            let mut numbers = Reader::new(packed);
                            while let Some(one) = numbers.packed().map_err(|broken| of.broken(broken))? {
                                list.extend(self.value(of, field, Written::Varint(one), depth)?);
                            }
                        }
                        // An element that says nothing is one all the same.
                        _ => list.push(self.value(of, field, written, depth)?.unwrap_or_default()),
                    }
                }
                Shape::Map => {
                    if !again {
                        put(&mut object, of, name, Value::Object(Map::new()))?;
                    }
                    let Some(Value::Object(entries)) = object.get_mut(name) else {
                        return Err(of.broken(Broken::Twice(number)));
                    };
                    let (key, value) = self.entry(of, field, written, depth)?;
                    put(entries, of, &key, value)?;
                }
            }
        }
        Ok(object)
    }

    /// A message whose members stand among those of the one around it.
    fn inline(
        &self,
        of: &Message,
        field: &Field,
        written: Written<'_>,
        depth: u8,
        object: &mut Map<String, Value>,
    ) -> Result<(), Unreadable> {
        let Some(Value::Object(members)) = self.value(of, field, written, depth)? else {
            return Err(of.broken(Broken::Type(field.number)));
        };
        members.into_iter().try_for_each(|(name, value)| put(object, of, &name, value))
    }

    fn entry(
        &self,
        of: &Message,
        field: &Field,
        written: Written<'_>,
        depth: u8,
    ) -> Result<(String, Value), Unreadable> {
        let broken = |broken| of.broken(broken);
        let entry = wire::bytes(Some(written), field.number).map_err(broken)?;
        let [key, value] = wire::flat(entry).map_err(broken)?;
        let key = key.ok_or_else(|| of.broken(Broken::Short))?;
        let key = wire::bytes(Some(key), field.number).map_err(broken)?;
        let key = std::str::from_utf8(key).map_err(|_| of.broken(Broken::Type(field.number)))?;
        let value = match (value, field.of) {
            (Some(value), _) => self.value(of, field, value, depth)?.unwrap_or_default(),
            // Go leaves out what is empty.
            (None, Type::Text | Type::Bytes) => Value::from(""),
            (None, _) => return Err(of.broken(Broken::Short)),
        };
        Ok((key.to_owned(), value))
    }

    /// One value. `None`: one that JSON does not show.
    fn value(
        &self,
        of: &Message,
        field: &Field,
        written: Written<'_>,
        depth: u8,
    ) -> Result<Option<Value>, Unreadable> {
        let broken = |broken| of.broken(broken);
        let wrong = || of.broken(Broken::Type(field.number));
        let value = match (field.of, written) {
            (Type::Text, Written::Bytes(bytes)) => text(bytes).ok_or_else(wrong)?,
            (Type::Bytes, Written::Bytes(bytes)) => {
                base64::engine::general_purpose::STANDARD.encode(bytes).into()
            }
            (Type::Bool, Written::Varint(value @ (0 | 1))) => (value == 1).into(),
            (Type::Int32, Written::Varint(value)) => {
                i32::try_from(value.cast_signed()).map_err(|_| wrong())?.into()
            }
            (Type::Int64, Written::Varint(value)) => value.cast_signed().into(),
            (Type::Double, Written::Fixed64(bits)) => {
                serde_json::Number::from_f64(f64::from_bits(bits)).ok_or_else(wrong)?.into()
            }
            (Type::Time, Written::Bytes(bytes)) => {
                return Ok(special::time(bytes, false).map_err(broken)?.map(Value::from));
            }
            (Type::MicroTime, Written::Bytes(bytes)) => {
                return Ok(special::time(bytes, true).map_err(broken)?.map(Value::from));
            }
            (Type::Duration, Written::Bytes(bytes)) => special::duration(bytes).map_err(broken)?.into(),
            (Type::Quantity, Written::Bytes(bytes)) => {
                text(special::only(bytes).map_err(broken)?).ok_or_else(wrong)?
            }
            (Type::IntOrString, Written::Bytes(bytes)) => special::int_or_string(bytes).map_err(broken)?,
            (Type::Json, Written::Bytes(bytes)) => match special::only(bytes).map_err(broken)? {
                [] => return Ok(None),
                raw if raw.starts_with(MAGIC) => {
                    return Err(refused(&format!("{} holds an object in protobuf", of.name)));
                }
                raw => json::read(raw)?,
            },
            (Type::Message(index), Written::Bytes(bytes)) => {
                let inner = self.types.message(index).ok_or_else(wrong)?;
                let members = self.message(inner, bytes, depth.saturating_add(1))?;
                match inner.list {
                    true => {
                        members.into_iter().next().map_or_else(|| Value::Array(Vec::new()), |(_, list)| list)
                    }
                    false => Value::Object(members),
                }
            }
            _ => return Err(wrong()),
        };
        Ok(Some(value))
    }
}

impl Message {
    fn broken(&self, broken: Broken) -> Unreadable {
        refused(&format!("{} {broken}", self.name))
    }
}

fn put(object: &mut Map<String, Value>, of: &Message, name: &str, value: Value) -> Result<(), Unreadable> {
    match object.insert(name.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err(refused(&format!("{} has the member {:?} twice", of.name, short(name)))),
    }
}

fn text(bytes: &[u8]) -> Option<Value> {
    std::str::from_utf8(bytes).ok().map(Value::from)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// As much of what a client sent as an error has room for.
fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

fn refused(what: &str) -> Unreadable {
    Unreadable {
        code: 415,
        what: format!("the body in protobuf is not understood: {what}"),
        hint: "send it as JSON (Content-Type: application/json), of which every kind and member is read",
    }
}
