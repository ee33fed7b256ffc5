//! What Kubernetes' own kinds are made of: `types.txt`, which `cargo xtask kubernetes-types` writes.
//!
//! ```text
//! @ core.v1 v1                      a package, and the API version of its kinds
//! Volume                            a message; ` !` behind it: a kind; ` []`: in JSON the list that is its only field
//!  1 name string?                   number, name in JSON, type; `?`: left out of JSON when it is zero
//!  2 . .VolumeSource                a message of the package, whose members stand among its own
//!  3 items []core.v1.KeyToPath      a list, of messages of another package
//!  4 data {}bytes                   a map
//! ```

use std::{collections::HashMap, sync::LazyLock};

const TABLE: &str = include_str!("types.txt");

/// The table. `None`: it is broken, which a test would have seen.
pub(super) fn types() -> Option<&'static Types> {
    static TYPES: LazyLock<Option<Types>> = LazyLock::new(|| Types::read(TABLE));
    TYPES.as_ref()
}

/// Messages, and which of them a body can be.
#[derive(Debug)]
pub(super) struct Types {
    messages: Vec<Message>,
    /// By API version and kind.
    kinds: HashMap<(&'static str, &'static str), usize>,
}

#[derive(Debug)]
pub(super) struct Message {
    /// `core.v1.Volume`.
    pub(super) name: String,
    /// In JSON it is the list that is its only field.
    pub(super) list: bool,
    fields: Vec<Field>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u64,
    /// `None`: its members stand among those of the message.
    pub(super) name: Option<&'static str>,
    pub(super) shape: Shape,
    pub(super) of: Type,
    /// Left out of JSON when it is zero.
    pub(super) omitted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    List,
    Map,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Bytes,
    Bool,
    Int32,
    Int64,
    Double,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    /// JSON as it is written.
    Json,
    Message(usize),
}

impl Types {
    /// A body of this kind.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Option<&Message> {
        // Options of a delete are of every version of every group.
        let version = if kind == "DeleteOptions" { "meta.k8s.io/v1" } else { api_version };
        let found = self.kinds.iter().find(|((of, name), _)| *of == version && *name == kind);
        found.and_then(|(_, index)| self.message(*index))
    }

    pub(super) fn message(&self, index: usize) -> Option<&Message> {
        self.messages.get(index)
    }

    /// What can be a body: API version and kind.
    #[cfg(test)]
    pub(super) fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.kinds.keys().copied()
    }

    fn read(text: &'static str) -> Option<Self> {
        let lines = || text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let mut indices = HashMap::new();
        let (mut messages, mut kinds) = (Vec::new(), HashMap::new());
        let (mut package, mut version) = ("", "");
        for line in lines() {
            if let Some(rest) = line.strip_prefix("@ ") {
                (package, version) = rest.split_once(' ')?;
            } else if !line.starts_with(' ') {
                let (name, mark) = line.split_once(' ').unwrap_or((line, ""));
                let index = messages.len();
                if mark == "!" {
                    kinds.insert((version, name), index);
                }
                let name = format!("{package}.{name}");
                if indices.insert(name.clone(), index).is_some() {
                    return None;
                }
                messages.push(Message { name, list: mark == "[]", fields: Vec::new() });
            }
        }
        let mut current: Option<&mut Message> = None;
        let mut all = messages.iter_mut();
        for line in lines() {
            if let Some(rest) = line.strip_prefix("@ ") {
                package = rest.split_once(' ')?.0;
            } else if let Some(line) = line.strip_prefix(' ') {
                current.as_mut()?.fields.push(Field::read(line, package, &indices)?);
            } else {
                current = all.next();
            }
        }
        Some(Self { messages, kinds })
    }
}

impl Message {
    pub(super) fn field(&self, number: u64) -> Option<&Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

impl Field {
    fn read(line: &'static str, package: &str, messages: &HashMap<String, usize>) -> Option<Self> {
        let mut words = line.split(' ');
        let (number, name, of) = (words.next()?, words.next()?, words.next()?);
        let (shape, of) = match (of.strip_prefix("[]"), of.strip_prefix("{}")) {
            (Some(of), _) => (Shape::List, of),
            (_, Some(of)) => (Shape::Map, of),
            (None, None) => (Shape::One, of),
        };
        let (of, omitted) = of.strip_suffix('?').map_or((of, false), |of| (of, true));
        let of = match of {
            "string" => Type::Text,
            "bytes" => Type::Bytes,
            "bool" => Type::Bool,
            "int32" => Type::Int32,
            "int64" => Type::Int64,
            "double" => Type::Double,
            "time" => Type::Time,
            "microTime" => Type::MicroTime,
            "duration" => Type::Duration,
            "quantity" => Type::Quantity,
            "intOrString" => Type::IntOrString,
            "json" => Type::Json,
            local if local.starts_with('.') => {
                Type::Message(messages.get(&format!("{package}{local}")).copied()?)
            }
            name => Type::Message(messages.get(name).copied()?),
        };
        let name = (name != ".").then_some(name);
        // Only a single message has members of its own.
        let sound = name.is_some() || (shape == Shape::One && matches!(of, Type::Message(_)));
        (sound && words.next().is_none()).then_some(Self {
            number: number.parse().ok()?,
            name,
            shape,
            of,
            omitted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_to_its_last_field() {
        let types = types().expect("a table that can be read");
        let lines = |begin: fn(&str) -> bool| TABLE.lines().filter(|line| begin(line)).count();
        let fields: usize = types.messages.iter().map(|message| message.fields.len()).sum();
        assert_eq!(fields, lines(|line| line.starts_with(' ')));
        assert_eq!(types.messages.len(), lines(|line| line.starts_with(|c: char| c.is_ascii_uppercase())));
        for message in &types.messages {
            assert!(!message.list || message.fields.len() == 1, "{}", message.name);
            for field in &message.fields {
                assert_eq!(
                    message.field(field.number).map(|of| of.name),
                    Some(field.name),
                    "{}",
                    message.name
                );
            }
        }
        for (version, kind) in [
            ("v1", "Pod"),
            ("v1", "Secret"),
            ("v1", "Binding"),
            ("apps/v1", "Deployment"),
            ("autoscaling/v1", "Scale"),
            ("policy/v1", "Eviction"),
            ("authentication.k8s.io/v1", "TokenRequest"),
            ("authorization.k8s.io/v1", "SelfSubjectAccessReview"),
            ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
            ("apps/v1", "DeleteOptions"),
        ] {
            assert!(types.kind(version, kind).is_some(), "{version} {kind}");
        }
        assert!(types.kind("v1", "Volume").is_none() && types.kind("v1", "PodList").is_none());
        assert!(types.kinds().count() > 100);
    }

    #[test]
    fn a_table_that_makes_no_sense_is_none() {
        for text in [
            "@ a.v1 v1\nA !\n 1 x nothing",
            "@ a.v1 v1\nA !\n 1 x",
            "@ a.v1 v1\nA !\n x x string",
            "@ a.v1 v1\nA !\n 1 . string",
            "@ a.v1 v1\nA !\n 1 . []a.v1.A",
            "@ a.v1 v1\nA\nA",
            " 1 x string",
        ] {
            assert!(Types::read(text).is_none(), "{text}");
        }
    }
}
