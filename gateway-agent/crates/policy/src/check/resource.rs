//! Resources.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;

use super::{check_name, check_unique, role};
use crate::{
    diagnostic::{Findings, Place},
    model::{ClientCertificate, Host, Login, PostgresUpstream, Resource, SecretRef, Tls, TlsMode, Upstream},
    pattern::Glob,
    raw::{RawKind, RawPolicy, RawResource, RawSecret, RawTls, RawTlsMode},
};

const POSTGRES_PORT: u16 = 5432;

pub(super) fn resources(raws: &[(usize, RawPolicy)], findings: &mut Findings) -> Vec<Arc<Resource>> {
    let mut seen = BTreeSet::new();
    let mut resources: Vec<Arc<Resource>> = Vec::new();
    for (source, raw) in raws {
        for (index, raw) in raw.resources.iter().enumerate() {
            let place = Place::new(*source, "resources", index);
            check_name("resource", &raw.name, &place.at("name"), findings);
            if !check_unique("resource", &raw.name, &place.at("name"), &mut seen, findings) {
                continue;
            }
            let resource = resource(raw, &place, findings);
            if let Some(other) = resources.iter().find(|other| collide(other, &resource)) {
                findings.add(
                    place.at("hosts"),
                    format!(
                        "resource `{}` and resource `{}` share a host, a port and a database",
                        raw.name, other.name
                    ),
                    "a connection must mean one resource: make hosts, ports or databases differ",
                );
            }
            resources.push(Arc::new(resource));
        }
    }
    resources
}

fn resource(raw: &RawResource, place: &Place, findings: &mut Findings) -> Resource {
    Resource {
        name: Arc::from(raw.name.as_str()),
        hosts: hosts(raw, &place.at("hosts"), findings),
        ports: ports(raw, &place.at("ports"), findings),
        outside_jobs: raw.outside_jobs,
        upstream: match raw.kind {
            RawKind::Postgres => Upstream::Postgres(postgres(raw, place, findings)),
        },
    }
}

fn postgres(raw: &RawResource, place: &Place, findings: &mut Findings) -> PostgresUpstream {
    PostgresUpstream {
        databases: databases(raw, &place.at("databases"), findings),
        login: Login {
            user: user(raw, &place.at("login").at("user"), findings),
            password: raw
                .login
                .password
                .as_ref()
                .map(|password| secret(password, &place.at("login").at("password"), findings)),
            certificate: certificate(raw, &place.at("login"), findings),
            roles: roles(raw, &place.at("login").at("roles"), findings),
        },
        credential: role::credential(raw, place, findings),
        tls: tls(&raw.tls, &place.at("tls"), findings),
        search_path: search_path(raw, &place.at("search_path"), findings),
    }
}

fn hosts(raw: &RawResource, place: &Place, findings: &mut Findings) -> Vec<Host> {
    if raw.hosts.is_empty() {
        findings.add(
            place.clone(),
            format!("resource `{}` has no hosts", raw.name),
            "name the addresses or names that jobs connect to",
        );
    }
    let mut hosts = Vec::new();
    for (index, text) in raw.hosts.iter().enumerate() {
        match host(text) {
            Ok(host) => hosts.push(host),
            Err((message, hint)) => findings.add(place.at(index), message, hint),
        }
    }
    hosts
}

fn host(text: &str) -> Result<Host, (String, String)> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Host::Net(IpNet::from(address.to_canonical())));
    }
    if let Ok(net) = text.parse::<IpNet>() {
        return match net == net.trunc() {
            true => Ok(Host::Net(net)),
            false => {
                Err((format!("`{text}` has bits set beyond its prefix"), format!("write `{}`", net.trunc())))
            }
        };
    }
    if !is_host_name(text) {
        return Err((
            format!("`{text}` is not an address, a network or a host name"),
            "for example 198.51.100.10, \"2001:db8::10\", 10.1.0.0/24 or db.internal; ports go to `ports`"
                .to_owned(),
        ));
    }
    Ok(Host::Name(text.to_ascii_lowercase()))
}

/// Whether it can be a host's name, without a last dot.
pub(super) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    let numeric = text.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
    text.len() <= 253 && !numeric && text.split('.').all(label)
}

fn ports(raw: &RawResource, place: &Place, findings: &mut Findings) -> Vec<u16> {
    for (index, port) in raw.ports.iter().enumerate() {
        if *port == 0 {
            findings.add(place.at(index), "port 0 is no port", "write the port that jobs connect to");
        }
    }
    match raw.ports.is_empty() {
        true => vec![POSTGRES_PORT],
        false => raw.ports.clone(),
    }
}

fn databases(raw: &RawResource, place: &Place, findings: &mut Findings) -> Vec<Glob> {
    if raw.databases.is_empty() {
        findings.add(
            place.clone(),
            format!("resource `{}` has no databases", raw.name),
            "name the databases that jobs may open, `\"*\"` for any",
        );
    }
    let mut globs = Vec::new();
    for (index, database) in raw.databases.iter().enumerate() {
        match Glob::new(database) {
            Ok(glob) => globs.push(glob),
            Err(bad) => findings.add(place.at(index), bad.message, bad.hint),
        }
    }
    globs
}

fn user(raw: &RawResource, place: &Place, findings: &mut Findings) -> String {
    if raw.login.user.is_empty() || raw.login.user.contains('\0') {
        findings.add(place.clone(), "the login has no user", "name the gateway's own role on the server");
    }
    raw.login.user.clone()
}

fn certificate(raw: &RawResource, place: &Place, findings: &mut Findings) -> Option<ClientCertificate> {
    let Some(certificate) = &raw.login.certificate else {
        if raw.login.password.is_none() {
            findings.add(
                place.clone(),
                format!("resource `{}` has nothing to log in with", raw.name),
                "add `password: {file: /path}` or `certificate: {chain: /path, key: /path}`",
            );
        }
        return None;
    };
    let place = place.at("certificate");
    if matches!(raw.tls.mode, RawTlsMode::Disable) {
        findings.add(
            place.clone(),
            "a client certificate is shown in the TLS handshake, and TLS is disabled",
            "write `mode: verify-full`, or log in by a password",
        );
    }
    Some(ClientCertificate {
        chain: absolute(&certificate.chain, &place.at("chain"), findings),
        key: absolute(&certificate.key, &place.at("key"), findings),
    })
}

fn roles(raw: &RawResource, place: &Place, findings: &mut Findings) -> Vec<Glob> {
    let mut globs = Vec::new();
    for (index, role) in raw.login.roles.iter().enumerate() {
        match Glob::new(role) {
            Ok(glob) => globs.push(glob),
            Err(bad) => findings.add(place.at(index), bad.message, bad.hint),
        }
    }
    globs
}

fn secret(raw: &RawSecret, place: &Place, findings: &mut Findings) -> SecretRef {
    match (&raw.file, &raw.env, &raw.credential) {
        (Some(file), None, None) => SecretRef::File(absolute(file, &place.at("file"), findings)),
        (None, Some(env), None) => {
            if env.is_empty() || env.contains(['=', '\0']) {
                findings.add(
                    place.at("env"),
                    format!("{env:?} is not the name of a variable"),
                    "for example ORDERS_PASSWORD",
                );
            }
            SecretRef::Env(env.clone())
        }
        (None, None, Some(credential)) => {
            if credential.is_empty() || credential.contains('/') || credential.starts_with('.') {
                findings.add(
                    place.at("credential"),
                    format!("{credential:?} is not the name of a credential"),
                    "the name in the unit's LoadCredential=",
                );
            }
            SecretRef::Credential(credential.clone())
        }
        _ => {
            findings.add(
                place.clone(),
                "a password is kept in exactly one place",
                "write one of {file: /path}, {env: NAME}, {credential: name}; passwords themselves never go here",
            );
            SecretRef::Credential(String::new())
        }
    }
}

fn tls(raw: &RawTls, place: &Place, findings: &mut Findings) -> Tls {
    let mode = match raw.mode {
        RawTlsMode::VerifyFull => TlsMode::VerifyFull,
        RawTlsMode::VerifyCa => TlsMode::VerifyCa,
        RawTlsMode::Disable => TlsMode::Disable,
    };
    if mode == TlsMode::Disable && (raw.server_name.is_some() || raw.ca.is_some()) {
        findings.add(
            place.at("mode"),
            "TLS is disabled, yet it says what to verify",
            "write `mode: verify-full`, or drop server_name and ca",
        );
    }
    if let Some(name) = &raw.server_name
        && host(name).is_err()
    {
        findings.add(
            place.at("server_name"),
            format!("`{name}` is not a server name"),
            "the name in the server's certificate",
        );
    }
    Tls {
        mode,
        server_name: raw.server_name.clone(),
        ca: raw.ca.as_ref().map(|ca| absolute(ca, &place.at("ca"), findings)),
    }
}

fn absolute(text: &str, place: &Place, findings: &mut Findings) -> PathBuf {
    let path = Path::new(text);
    if !path.is_absolute() {
        findings.add(
            place.clone(),
            format!("`{text}` is not an absolute path"),
            "the agent has no folder of its own to start from",
        );
    }
    path.to_owned()
}

fn search_path(raw: &RawResource, place: &Place, findings: &mut Findings) -> Vec<String> {
    let Some(path) = &raw.search_path else { return vec!["public".to_owned()] };
    if path.is_empty() {
        findings.add(
            place.clone(),
            "an empty search_path",
            "name the schemas, or drop the line: `public` is the default",
        );
    }
    for (index, schema) in path.iter().enumerate() {
        let odd = schema.is_empty() || schema.contains(['"', ',', '\'', '\0']);
        if odd && schema != "$user" {
            findings.add(
                place.at(index),
                format!("{schema:?} is not the name of a schema"),
                "one plain name an entry, without quotes",
            );
        } else if schema.starts_with("pg_") {
            findings.add(
                place.at(index),
                format!("`{schema}` does not belong in search_path"),
                "pg_catalog is searched first anyway",
            );
        }
    }
    // The server reads "$user" as the role that is logged in: the gateway's own.
    path.iter()
        .map(|schema| if schema == "$user" { raw.login.user.clone() } else { schema.clone() })
        .collect()
}

/// Whether one connection could mean both.
fn collide(a: &Resource, b: &Resource) -> bool {
    let hosts = a.hosts.iter().any(|a| {
        b.hosts.iter().any(|b| match (a, b) {
            (Host::Net(a), Host::Net(b)) => a.contains(b) || b.contains(a),
            (a, b) => a == b,
        })
    });
    let same = match (&a.upstream, &b.upstream) {
        (Upstream::Postgres(a), Upstream::Postgres(b)) => {
            a.databases.iter().any(|a| b.databases.iter().any(|b| a.overlaps(b)))
        }
        // Nothing tells them apart before somebody has answered.
        _ => true,
    };
    hosts && same && a.ports.iter().any(|port| b.ports.contains(port))
}
