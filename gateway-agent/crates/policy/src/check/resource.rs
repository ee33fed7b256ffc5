//! Resources.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;

use super::{check_name, check_unique, kind, role};
use crate::{
    diagnostic::{Findings, Place},
    http::{self, HttpUpstream},
    kubernetes,
    model::{ClientCertificate, Host, Login, PostgresUpstream, Resource, SecretRef, Tls, TlsMode, Upstream},
    pattern::Glob,
    raw::{RawCertificate, RawKind, RawLogin, RawPolicy, RawResource, RawSecret, RawTls, RawTlsMode},
    ssh,
};

const POSTGRES_PORT: u16 = 5432;
const SSH_PORT: u16 = 22;
const KUBERNETES_PORT: u16 = 6443;
const HTTPS_PORT: u16 = 443;

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
                        "resource `{}` and resource `{}` share a host and a port{}",
                        raw.name,
                        other.name,
                        match (&resource.upstream, &other.upstream) {
                            (Upstream::Postgres(_), Upstream::Postgres(_)) => " and a database",
                            (Upstream::Https(_), Upstream::Https(_)) => " and a name",
                            _ => "",
                        }
                    ),
                    "a connection must mean one resource: make hosts, ports, databases or names differ",
                );
            }
            resources.push(Arc::new(resource));
        }
    }
    resources
}

fn resource(raw: &RawResource, place: &Place, findings: &mut Findings) -> Resource {
    kind::check(raw, place, findings);
    let (hosts, ports) = (hosts(raw, &place.at("hosts"), findings), ports(raw, &place.at("ports"), findings));
    Resource {
        name: Arc::from(raw.name.as_str()),
        outside_jobs: raw.outside_jobs,
        upstream: match raw.kind {
            RawKind::Postgres => Upstream::Postgres(postgres(raw, place, findings)),
            RawKind::Ssh => Upstream::Ssh(ssh::check::upstream(raw, place, findings)),
            RawKind::Https => Upstream::Https(http::check::upstream(raw, &hosts, &ports, place, findings)),
            RawKind::Kubernetes => {
                let http = http::check::upstream(raw, &hosts, &ports, place, findings);
                Upstream::Kubernetes(kubernetes::check::upstream(raw, http, place, findings))
            }
        },
        hosts,
        ports,
    }
}

fn postgres(raw: &RawResource, place: &Place, findings: &mut Findings) -> PostgresUpstream {
    PostgresUpstream {
        databases: databases(raw, &place.at("databases"), findings),
        login: raw.login.as_ref().map_or_else(no_login, |login| Login {
            user: user(login, &place.at("login").at("user"), findings),
            password: login
                .password
                .as_ref()
                .map(|password| secret(password, &place.at("login").at("password"), findings)),
            certificate: certificate(raw, login, &place.at("login"), findings),
            roles: roles(login, &place.at("login").at("roles"), findings),
        }),
        credential: role::credential(raw, place, findings),
        tls: match &raw.tls {
            Some(raw) => tls(raw, &place.at("tls"), findings),
            // Said to be missing already: the policy does not load.
            None => Tls { mode: TlsMode::VerifyFull, server_name: None, ca: None },
        },
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
pub(crate) fn is_host_name(text: &str) -> bool {
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
        true => vec![match raw.kind {
            RawKind::Postgres => POSTGRES_PORT,
            RawKind::Ssh => SSH_PORT,
            RawKind::Https => HTTPS_PORT,
            RawKind::Kubernetes => KUBERNETES_PORT,
        }],
        false => raw.ports.clone(),
    }
}

fn databases(raw: &RawResource, place: &Place, findings: &mut Findings) -> Vec<Glob> {
    let databases = raw.databases.as_deref().unwrap_or_default();
    if raw.databases.is_some() && databases.is_empty() {
        findings.add(
            place.clone(),
            format!("resource `{}` has no databases", raw.name),
            "name the databases that jobs may open, `\"*\"` for any",
        );
    }
    let mut globs = Vec::new();
    for (index, database) in databases.iter().enumerate() {
        match Glob::new(database) {
            Ok(glob) => globs.push(glob),
            Err(bad) => findings.add(place.at(index), bad.message, bad.hint),
        }
    }
    globs
}

/// Said to be missing already: the policy does not load.
fn no_login() -> Login {
    Login { user: String::new(), password: None, certificate: None, roles: Vec::new() }
}

fn user(raw: &RawLogin, place: &Place, findings: &mut Findings) -> String {
    let user = raw.user.clone().unwrap_or_default();
    if raw.user.is_some() && (user.is_empty() || user.contains('\0')) {
        findings.add(place.clone(), "the login has no user", "name the gateway's own role on the server");
    }
    user
}

/// A login name of an SSH host.
pub(crate) fn user_name(name: &str, place: &Place, findings: &mut Findings) {
    if name.is_empty()
        || name.starts_with('-')
        || name.chars().any(|c| c.is_control() || c.is_whitespace() || c == '*')
    {
        findings.add(
            place.clone(),
            format!("{name:?} is not a login name"),
            "write it as the host knows it, without wildcards",
        );
    }
}

fn certificate(
    raw: &RawResource,
    login: &RawLogin,
    place: &Place,
    findings: &mut Findings,
) -> Option<ClientCertificate> {
    let Some(certificate) = &login.certificate else {
        if login.password.is_none() {
            findings.add(
                place.clone(),
                format!("resource `{}` has nothing to log in with", raw.name),
                "add `password: {file: /path}` or `certificate: {chain: /path, key: /path}`",
            );
        }
        return None;
    };
    let place = place.at("certificate");
    if raw.tls.as_ref().is_some_and(|tls| tls.mode == RawTlsMode::Disable) {
        findings.add(
            place.clone(),
            "a client certificate is shown in the TLS handshake, and TLS is disabled",
            "write `mode: verify-full`, or log in by a password",
        );
    }
    Some(client_certificate(certificate, &place, findings))
}

pub(crate) fn client_certificate(
    raw: &RawCertificate,
    place: &Place,
    findings: &mut Findings,
) -> ClientCertificate {
    ClientCertificate {
        chain: absolute(&raw.chain, &place.at("chain"), findings),
        key: absolute(&raw.key, &place.at("key"), findings),
    }
}

fn roles(raw: &RawLogin, place: &Place, findings: &mut Findings) -> Vec<Glob> {
    let mut globs = Vec::new();
    for (index, role) in raw.roles.iter().flatten().enumerate() {
        match Glob::new(role) {
            Ok(glob) => globs.push(glob),
            Err(bad) => findings.add(place.at(index), bad.message, bad.hint),
        }
    }
    globs
}

pub(crate) fn secret(raw: &RawSecret, place: &Place, findings: &mut Findings) -> SecretRef {
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
                "a secret is kept in exactly one place",
                "write one of {file: /path}, {env: NAME}, {credential: name}; secrets themselves never go here",
            );
            SecretRef::Credential(String::new())
        }
    }
}

pub(crate) fn tls(raw: &RawTls, place: &Place, findings: &mut Findings) -> Tls {
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

pub(crate) fn absolute(text: &str, place: &Place, findings: &mut Findings) -> PathBuf {
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
        .map(|schema| match (schema.as_str(), &raw.login) {
            ("$user", Some(login)) => login.user.clone().unwrap_or_default(),
            _ => schema.clone(),
        })
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
        (Upstream::Https(a), Upstream::Https(b)) => same_name(a, b),
        // Nothing tells them apart before somebody has answered.
        _ => true,
    };
    hosts && same && a.ports.iter().any(|port| b.ports.contains(port))
}

/// Whether some name could be both; without names they are called by their address.
fn same_name(a: &HttpUpstream, b: &HttpUpstream) -> bool {
    (a.names.is_empty() && b.names.is_empty())
        || a.names.iter().any(|a| b.names.iter().any(|b| a.overlaps(b)))
}
