//! `xtask kubernetes-types`: the table by which the gateway reads Kubernetes' own objects in protobuf.
//!
//! Debian packages the Go sources of k8s.io/api. What is on the wire stands in each package's `generated.proto`; what a field is
//! called in JSON, and whether it stands there at all when it is zero, in the tags of the Go structs. Fields are joined by their
//! number. Numbers are never used again for something else, so the table holds what any of the releases knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{host::Host, setup};

/// Where it is kept, and what says how it is read.
const TABLE: &str = "gateway-agent/crates/protocol/src/kubernetes/protobuf/types.txt";
/// What is written in a way of its own: the message, and its name in the table.
const SPECIAL: &[(&str, &str)] = &[
    ("k8s.io.apimachinery.pkg.apis.meta.v1.Time", "time"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime", "microTime"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.Duration", "duration"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1", "json"),
    ("k8s.io.apimachinery.pkg.api.resource.Quantity", "quantity"),
    ("k8s.io.apimachinery.pkg.util.intstr.IntOrString", "intOrString"),
    ("k8s.io.apimachinery.pkg.runtime.RawExtension", "json"),
];
const META: &str = "meta.v1";

/// A message, by the numbers of its fields.
#[derive(Debug, Default)]
struct Message {
    /// It may be what a body is.
    kind: bool,
    /// In JSON it is the list that is its only field.
    list: bool,
    fields: BTreeMap<u32, Field>,
}

#[derive(Debug)]
struct Field {
    /// Empty: its members stand among those of the message.
    name: String,
    /// `[]`, `{}` or nothing.
    shape: &'static str,
    /// A scalar, or a message with its package.
    of: String,
    /// Left out of JSON when it is zero.
    omitted: bool,
}

/// Messages by package and name, and the API version of each package.
#[derive(Debug, Default)]
struct Types {
    messages: BTreeMap<(String, String), Message>,
    versions: BTreeMap<String, String>,
}

pub(crate) fn run(host: &Host) -> Result<()> {
    let mut types = Types::default();
    let sources = setup::kubernetes_types(host)?;
    for source in &sources {
        for proto in protos(&source.folder)? {
            types.read(&proto).with_context(|| format!("reading {}", proto.display()))?;
        }
    }
    let versions: Vec<&str> = sources.iter().map(|source| source.version.as_str()).collect();
    let text = types.table(&versions.join(" and "))?;
    let path = host.root.join(TABLE);
    fs::write(&path, &text).with_context(|| format!("writing {}", path.display()))?;
    println!("{}: {} lines, {} bytes", path.display(), text.lines().count(), text.len());
    Ok(())
}

/// The descriptions of the packages that are called by API servers' clients.
fn protos(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![folder.join("apimachinery/pkg/apis/meta/v1/generated.proto")];
    for group in fs::read_dir(folder.join("api"))?.flatten() {
        // What the server asks of webhooks is no body of a request to it.
        if ["admission", "imagepolicy", "testdata"].iter().any(|other| group.file_name() == *other) {
            continue;
        }
        let versions = fs::read_dir(group.path()).into_iter().flatten().flatten();
        found.extend(
            versions.map(|version| version.path().join("generated.proto")).filter(|path| path.is_file()),
        );
    }
    found.sort();
    Ok(found)
}

/// `core.v1`.
fn short(package: &str) -> &str {
    let package = package.strip_prefix("k8s.io.api.").unwrap_or(package);
    package.strip_prefix("k8s.io.apimachinery.pkg.apis.").unwrap_or(package)
}

impl Types {
    fn read(&mut self, proto: &Path) -> Result<()> {
        let folder = proto.parent().context("a file in a folder")?;
        let go = Go::read(folder)?;
        let text = fs::read_to_string(proto)?;
        let full = text.lines().find_map(|line| line.strip_prefix("package ")?.strip_suffix(';'));
        let full = full.context("it names no package")?;
        let package = short(full).to_owned();
        let version = package.rsplit('.').next().unwrap_or_default();
        let group = go.group.as_deref().context("the package names no group")?;
        let api = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        self.versions.insert(package.clone(), api);
        let mut current: Option<String> = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("message ").and_then(|line| line.strip_suffix(" {")) {
                let known = go.structs.get(name);
                let special = SPECIAL.iter().any(|(of, _)| *of == format!("{full}.{name}"));
                // What has no struct of its own is part of no kind, or the table is not made.
                if special || (known.is_none() && !go.lists.contains(name)) {
                    current = None;
                    continue;
                }
                current = Some(name.to_owned());
                let message = self.messages.entry((package.clone(), name.to_owned())).or_default();
                let wanted = if package == META { name == "DeleteOptions" } else { !name.ends_with("List") };
                message.kind |= wanted && known.is_some_and(|of| of.typed);
                message.list = go.lists.contains(name);
            } else if line == "}" {
                current = None;
            } else if let Some(name) = &current
                && line.starts_with("  ")
                && !line.trim_start().starts_with("//")
                && !line.trim().is_empty()
            {
                let (number, field) = field(line.trim(), full, go.structs.get(name))
                    .with_context(|| format!("`{}` of {name}", line.trim()))?;
                let message = self.messages.entry((package.clone(), name.clone())).or_default();
                if let Some(field) = field {
                    message.fields.insert(number, field);
                }
            }
        }
        Ok(())
    }

    /// What can be reached from the kinds, package by package.
    fn table(&self, source: &str) -> Result<String> {
        let mut wanted = BTreeSet::new();
        let mut next: Vec<_> =
            self.messages.iter().filter(|(_, of)| of.kind).map(|(name, _)| name.clone()).collect();
        while let Some(name) = next.pop() {
            let message =
                self.messages.get(&name).with_context(|| format!("there is no {}.{}", name.0, name.1))?;
            let inner = message.fields.values().filter_map(|field| field.of.rsplit_once('.'));
            next.extend(inner.map(|(package, name)| (package.to_owned(), name.to_owned())));
            if !wanted.insert(name) {
                next.retain(|name| !wanted.contains(name));
            }
        }
        let mut text = format!(
            "# The kinds of k8s.io/api {source} in protobuf, written by `cargo xtask kubernetes-types`.\n"
        );
        let mut package = "";
        for name in &wanted {
            let message = &self.messages[name];
            if package != name.0 {
                package = &name.0;
                let _ = writeln!(text, "@ {package} {}", self.versions[package]);
            }
            let mark = match (message.kind, message.list) {
                (true, _) => " !",
                (false, true) => " []",
                (false, false) => "",
            };
            let _ = writeln!(text, "{}{mark}", name.1);
            for (number, field) in &message.fields {
                let called = if field.name.is_empty() { "." } else { &field.name };
                let local = field.of.strip_prefix(package).filter(|rest| rest.starts_with('.'));
                let of = local.unwrap_or(&field.of);
                let zero = if field.omitted { "?" } else { "" };
                let _ = writeln!(text, " {number} {called} {}{of}{zero}", field.shape);
            }
        }
        Ok(text)
    }
}

/// One line of a message. `None`: it is not in JSON.
fn field(line: &str, package: &str, of: Option<&Struct>) -> Result<(u32, Option<Field>)> {
    let (rest, number) =
        line.strip_suffix(';').and_then(|line| line.rsplit_once(" = ")).context("no field")?;
    let number: u32 = number.parse().context("no number")?;
    let (kind, name) = rest.rsplit_once(' ').context("no name")?;
    let (shape, kind) = if let Some(kind) = kind.strip_prefix("optional ") {
        ("", kind)
    } else if let Some(kind) = kind.strip_prefix("repeated ") {
        ("[]", kind)
    } else if let Some(kind) = kind.strip_prefix("map<string,").and_then(|kind| kind.strip_suffix('>')) {
        ("{}", kind.trim())
    } else {
        bail!("neither optional nor repeated nor a map");
    };
    let scalar = ["string", "bytes", "bool", "int32", "int64", "double"].contains(&kind);
    let kind = match kind.strip_prefix('.') {
        _ if scalar => kind.to_owned(),
        Some(full) => full.to_owned(),
        None => format!("{package}.{kind}"),
    };
    let kind = match SPECIAL.iter().find(|(of, _)| *of == kind) {
        Some((_, special)) => (*special).to_owned(),
        None => short(&kind).to_owned(),
    };
    let Some(of) = of else {
        // A list that has a type of its own.
        ensure!(name == "items" && shape == "[]", "no struct is known");
        return Ok((number, Some(Field { name: name.to_owned(), shape, of: kind, omitted: false })));
    };
    let tag = of.fields.get(&number).context("the struct has no such field")?;
    let called = tag.json.split(',').next().unwrap_or_default();
    if called == "-" {
        return Ok((number, None));
    }
    let options: Vec<&str> = tag.json.split(',').skip(1).collect();
    ensure!(!called.is_empty() || options.contains(&"inline"), "it has no name in JSON");
    let omitted =
        shape.is_empty() && scalar && kind != "bytes" && !tag.pointer && options.contains(&"omitempty");
    Ok((number, Some(Field { name: called.to_owned(), shape, of: kind, omitted })))
}

/// What the Go files of one package say.
#[derive(Debug, Default)]
struct Go {
    /// Of the API group; empty for the core one.
    group: Option<String>,
    structs: BTreeMap<String, Struct>,
    /// Types that are lists.
    lists: BTreeSet<String>,
    /// Types that are those of another version of the group: version and name.
    others: BTreeMap<String, (String, String)>,
}

#[derive(Debug, Default)]
struct Struct {
    /// It says of itself what kind it is.
    typed: bool,
    fields: BTreeMap<u32, Tag>,
}

#[derive(Debug)]
struct Tag {
    json: String,
    pointer: bool,
}

impl Go {
    fn read(folder: &Path) -> Result<Self> {
        let mut go = Self::default();
        for entry in fs::read_dir(folder)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let made = name.ends_with("_test.go") || name.contains("generated") || name.starts_with("zz_");
            if name.ends_with(".go") && !made {
                go.file(&fs::read_to_string(entry.path())?);
            }
        }
        for (name, (version, of)) in std::mem::take(&mut go.others) {
            let mut other = Self::read(&folder.with_file_name(version))?;
            go.structs.insert(name, other.structs.remove(&of).with_context(|| format!("there is no {of}"))?);
        }
        Ok(go)
    }

    fn file(&mut self, text: &str) {
        let mut current: Option<Struct> = None;
        let mut name = String::new();
        for line in text.lines() {
            if let Some(group) = line.strip_prefix("const GroupName = ") {
                self.group = Some(group.trim().trim_matches('"').to_owned());
            } else if let Some(of) =
                line.strip_prefix("type ").and_then(|line| line.strip_suffix(" struct {"))
            {
                of.clone_into(&mut name);
                current = Some(Struct::default());
            } else if let Some((of, rest)) = line.strip_prefix("type ").and_then(|line| line.split_once(' '))
            {
                if rest.starts_with("[]") {
                    self.lists.insert(of.to_owned());
                } else if rest == "struct{}" {
                    self.structs.insert(of.to_owned(), Struct::default());
                } else if let Some((version, other)) = rest.split_once('.')
                    && version.starts_with('v')
                {
                    self.others.insert(of.to_owned(), (version.to_owned(), other.to_owned()));
                }
            } else if line == "}" {
                if let Some(done) = current.take() {
                    self.structs.insert(std::mem::take(&mut name), done);
                }
            } else if let Some(of) = &mut current {
                of.line(line.trim());
            }
        }
    }
}

impl Struct {
    fn line(&mut self, line: &str) {
        if line.starts_with("//") {
            return;
        }
        let Some((code, tags)) = line.split_once('`') else { return };
        let tag = |name: &str| {
            let from = tags.find(&format!("{name}:\""))?.checked_add(name.len() + 2)?;
            tags.get(from..)?.split('"').next().map(str::to_owned)
        };
        let words: Vec<&str> = code.split_whitespace().collect();
        let json = tag("json");
        let embedded = words.first().is_some_and(|first| first.rsplit('.').next() == Some("TypeMeta"));
        self.typed |= words.len() == 1 && embedded && json.as_deref() == Some(",inline");
        let number = tag("protobuf").and_then(|tag| tag.split(',').nth(1)?.parse().ok());
        if let (Some(json), Some(number)) = (json, number) {
            let pointer = words.last().is_some_and(|kind| kind.starts_with('*'));
            self.fields.insert(number, Tag { json, pointer });
        }
    }
}
