//! JSON patches (RFC 6902), as far as their effect can be told from their text.

use serde_json::{Map, Value};

use super::Unreadable;

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operation<'a> {
    kind: Kind,
    /// Reference tokens of the path, unescaped.
    path: Vec<String>,
    value: &'a Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Write,
    Remove,
    /// `move` and `copy`.
    Move,
    Test,
}

pub(super) fn read(value: &Value) -> Result<Vec<Operation<'_>>, Unreadable> {
    let Value::Array(list) = value else {
        return Err(Unreadable::bad("a JSON patch is a list of operations"));
    };
    list.iter().map(operation).collect()
}

fn operation(value: &Value) -> Result<Operation<'_>, Unreadable> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let kind = match text("op") {
        Some("add" | "replace") => Kind::Write,
        Some("remove") => Kind::Remove,
        Some("move" | "copy") => Kind::Move,
        Some("test") => Kind::Test,
        _ => return Err(Unreadable::bad("an operation that JSON patches do not have")),
    };
    let path = text("path").ok_or_else(|| Unreadable::bad("an operation of a JSON patch without a path"))?;
    let path = match path.strip_prefix('/') {
        Some(rest) => rest.split('/').map(unescape).collect(),
        None if path.is_empty() => Vec::new(),
        None => return Err(Unreadable::bad("a path of a JSON patch that does not begin with a slash")),
    };
    Ok(Operation { kind, path, value: value.get("value").unwrap_or(&Value::Null) })
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

impl Operation<'_> {
    /// `.spec.replicas`.
    pub(super) fn path(&self) -> String {
        self.path.iter().fold(String::new(), |path, token| format!("{path}.{token}"))
    }

    /// The path, escaped.
    pub(super) fn pointer(&self) -> String {
        let escape = |token: &String| token.replace('~', "~0").replace('/', "~1");
        self.path.iter().fold(String::new(), |path, token| format!("{path}/{}", escape(token)))
    }

    /// What it writes or tests.
    pub(super) fn asked(&self) -> Option<&Value> {
        (self.kind == Kind::Write).then_some(self.value)
    }

    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Write => "write",
            Kind::Remove => "remove",
            Kind::Move => "move or copy to here",
            Kind::Test => "test",
        }
    }

    /// It shows, moves or compares what is stored.
    pub(super) fn reads(&self) -> bool {
        matches!(self.kind, Kind::Move | Kind::Test)
    }

    pub(super) fn moves(&self) -> bool {
        self.kind == Kind::Move
    }

    /// What it writes, where it writes it: the value inside of objects and lists that have nothing else.
    pub(super) fn written(&self) -> Value {
        if self.kind != Kind::Write {
            return Value::Null;
        }
        self.path.iter().rev().fold(self.value.clone(), |inner, token| {
            let index =
                token == "-" || (!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit()));
            match index {
                true => Value::Array(vec![inner]),
                false => Value::Object(Map::from_iter([(token.clone(), inner)])),
            }
        })
    }
}
