//! Which fields belong to which kind of resource. The one list that both the check and the schema go by.

use serde_json::{Value, json};

use crate::{
    diagnostic::{Findings, Place},
    model::ResourceKind::{self, Https, Kubernetes, Postgres, Ssh},
    raw::{RawKind, RawLogin, RawResource},
};

struct Field {
    name: &'static str,
    /// Kinds that have it, and whether it has to be there.
    kinds: &'static [(ResourceKind, bool)],
}

const MUST: bool = true;
const MAY: bool = false;

const RESOURCE: &[Field] = &[
    Field { name: "databases", kinds: &[(Postgres, MUST)] },
    Field { name: "login", kinds: &[(Postgres, MUST), (Ssh, MUST), (Kubernetes, MUST)] },
    Field { name: "credential", kinds: &[(Postgres, MAY)] },
    Field { name: "role", kinds: &[(Postgres, MAY)] },
    Field { name: "tls", kinds: &[(Postgres, MUST), (Https, MAY), (Kubernetes, MAY)] },
    Field { name: "search_path", kinds: &[(Postgres, MAY)] },
    Field { name: "host_keys", kinds: &[(Ssh, MAY)] },
    Field { name: "host_ca", kinds: &[(Ssh, MAY)] },
    Field { name: "users", kinds: &[(Ssh, MUST)] },
    Field { name: "names", kinds: &[(Https, MAY), (Kubernetes, MAY)] },
    Field { name: "http_ports", kinds: &[(Https, MAY)] },
    Field { name: "inject", kinds: &[(Https, MAY)] },
    Field { name: "strip", kinds: &[(Https, MAY)] },
    Field { name: "impersonate", kinds: &[(Kubernetes, MAY)] },
];

const LOGIN: &[Field] = &[
    Field { name: "user", kinds: &[(Postgres, MUST), (Ssh, MAY)] },
    Field { name: "password", kinds: &[(Postgres, MAY), (Ssh, MAY)] },
    Field { name: "certificate", kinds: &[(Postgres, MAY), (Kubernetes, MAY)] },
    Field { name: "roles", kinds: &[(Postgres, MAY)] },
    Field { name: "key", kinds: &[(Ssh, MAY)] },
    Field { name: "user_certificate", kinds: &[(Ssh, MAY)] },
    Field { name: "users", kinds: &[(Ssh, MAY)] },
    Field { name: "token", kinds: &[(Kubernetes, MAY)] },
    Field { name: "exec", kinds: &[(Kubernetes, MAY)] },
    Field { name: "service_account", kinds: &[(Kubernetes, MAY)] },
];

pub(super) fn of(raw: RawKind) -> ResourceKind {
    match raw {
        RawKind::Postgres => Postgres,
        RawKind::Ssh => Ssh,
        RawKind::Https => Https,
        RawKind::Kubernetes => Kubernetes,
    }
}

/// Complains about fields of another kind, and about those that are missing.
pub(super) fn check(raw: &RawResource, place: &Place, findings: &mut Findings) {
    let kind = of(raw.kind);
    fields("a resource", RESOURCE, kind, place, findings, |name| match name {
        "databases" => raw.databases.is_some(),
        "login" => raw.login.is_some(),
        "credential" => raw.credential.is_some(),
        "role" => raw.role.is_some(),
        "tls" => raw.tls.is_some(),
        "search_path" => raw.search_path.is_some(),
        "host_keys" => raw.host_keys.is_some(),
        "host_ca" => raw.host_ca.is_some(),
        "users" => raw.users.is_some(),
        "names" => raw.names.is_some(),
        "http_ports" => raw.http_ports.is_some(),
        "impersonate" => raw.impersonate.is_some(),
        "inject" => raw.inject.is_some(),
        "strip" => raw.strip.is_some(),
        _ => false,
    });
    if let Some(tls) = &raw.tls
        && tls.pins.is_some()
        && !matches!(kind, Https | Kubernetes)
    {
        findings.add(
            place.at("tls").at("pins"),
            format!("the TLS of a resource of kind {kind} has no `pins`"),
            "drop the line",
        );
    }
    if let Some(login) = &raw.login {
        in_login(login, kind, &place.at("login"), findings);
    }
}

fn in_login(raw: &RawLogin, kind: ResourceKind, place: &Place, findings: &mut Findings) {
    fields("the login of a resource", LOGIN, kind, place, findings, |name| match name {
        "user" => raw.user.is_some(),
        "password" => raw.password.is_some(),
        "certificate" => raw.certificate.is_some(),
        "roles" => raw.roles.is_some(),
        "key" => raw.key.is_some(),
        "user_certificate" => raw.user_certificate.is_some(),
        "users" => raw.users.is_some(),
        "token" => raw.token.is_some(),
        "exec" => raw.exec.is_some(),
        "service_account" => raw.service_account.is_some(),
        _ => false,
    });
}

fn fields(
    what: &str,
    fields: &[Field],
    kind: ResourceKind,
    place: &Place,
    findings: &mut Findings,
    is_there: impl Fn(&str) -> bool,
) {
    for field in fields {
        let here = field.kinds.iter().find(|(of, _)| *of == kind);
        match (here, is_there(field.name)) {
            (None, true) => {
                let known: Vec<_> = fields
                    .iter()
                    .filter(|field| field.kinds.iter().any(|(of, _)| *of == kind))
                    .map(|field| format!("`{}`", field.name))
                    .collect();
                findings.add(
                    place.at(field.name),
                    format!("{what} of kind {kind} has no `{}`", field.name),
                    format!("known here: {}", known.join(", ")),
                );
            }
            (Some((_, true)), false) => findings.add(
                place.clone(),
                format!("missing field `{}`: {what} of kind {kind} has one", field.name),
                format!("add `{}:` here", field.name),
            ),
            _ => {}
        }
    }
}

/// The same for the schema.
pub(crate) fn conditions(schema: &mut schemars::Schema) {
    let one = |kind: ResourceKind| {
        let (wrong, must) = split(RESOURCE, kind);
        let (wrong_of_login, must_of_login) = split(LOGIN, kind);
        let mut properties = wrong;
        properties
            .insert("login".to_owned(), json!({ "properties": wrong_of_login, "required": must_of_login }));
        json!({
            "if": { "properties": { "kind": { "const": kind.name() } } },
            "then": { "properties": properties, "required": must },
        })
    };
    schema
        .insert("allOf".to_owned(), Value::Array(vec![one(Postgres), one(Ssh), one(Https), one(Kubernetes)]));
}

/// Fields that the kind does not have, each with `false`, and those that it has to have.
fn split(fields: &[Field], kind: ResourceKind) -> (serde_json::Map<String, Value>, Vec<&'static str>) {
    let of = |field: &Field| field.kinds.iter().find(|(of, _)| *of == kind).map(|(_, must)| *must);
    let wrong = fields
        .iter()
        .filter(|field| of(field).is_none())
        .map(|field| (field.name.to_owned(), Value::Bool(false)))
        .collect();
    (wrong, fields.iter().filter(|field| of(field) == Some(true)).map(|field| field.name).collect())
}
