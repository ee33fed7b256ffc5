//! Checks the language's part for HTTP.

use std::{net::IpAddr, time::Duration};

use base64::Engine as _;
use mask::{JsonPath, Transform};

use super::{
    HttpUpstream, Inject, Pin, ServerName,
    matcher::{Bounds, HttpMask, HttpMatcher, Methods},
    pattern::PathTemplate,
    raw::{RawHttp, RawHttpLimits, RawInject},
};
use crate::{
    check::resource::{is_host_name, secret, tls},
    diagnostic::{Findings, Place},
    model::{Host, Tls, TlsMode},
    pattern::{BadPattern, Glob, bad},
    raw::{RawMask, RawResource, RawTlsMode, RuleEffect},
};

/// Methods that nobody is granted.
const NEVER: &[&str] = &["CONNECT", "TRACE", "TRACK"];
/// Header fields by which messages are framed and connections are kept: the gateway's own business.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn patterns<T>(
    texts: &[String],
    place: &Place,
    findings: &mut Findings,
    parse: impl Fn(&str) -> Result<T, BadPattern>,
) -> Vec<T> {
    let mut patterns = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match parse(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(bad) => findings.add(place.at(index), bad.message, bad.hint),
        }
    }
    patterns
}

/// The `http` part of a rule.
pub(crate) fn matcher(
    id: &str,
    effect: RuleEffect,
    raw: &RawHttp,
    place: &Place,
    findings: &mut Findings,
) -> HttpMatcher {
    let grants = effect != RuleEffect::Deny;
    if raw.hosts.as_ref().is_some_and(Vec::is_empty) {
        findings.add(
            place.at("hosts"),
            format!("rule `{id}` is for no host"),
            "name hosts, or drop the line",
        );
    }
    if raw.pass_through {
        alone(id, effect, raw, place, findings);
    } else if grants {
        if raw.methods.is_empty() {
            findings.add(
                place.clone(),
                format!("rule `{id}` names no methods"),
                "add `methods: [GET, HEAD]`, or `[\"*\"]` for any",
            );
        }
        if raw.paths.is_empty() {
            findings.add(
                place.clone(),
                format!("rule `{id}` names no paths"),
                "add `paths: [\"/repos/{owner}/{repo}/**\"]`, or `[\"/**\"]` for any",
            );
        }
    }
    let limits = limits(&raw.limits, &place.at("limits"), findings);
    if !grants && (limits != Bounds::default() || !raw.ambiguous.is_empty()) {
        findings.add(
            place.clone(),
            format!(
                "rule `{id}` denies, so there is nothing to limit, and it is about any reading of a path"
            ),
            "drop `limits` and `ambiguous` here, or write them into the rule that allows",
        );
    }
    let mut query = Vec::new();
    for (name, values) in &raw.query {
        if values.is_empty() {
            findings.add(
                place.at("query").at(name.as_str()),
                format!("parameter `{name}` has no values"),
                "name those that it may have, `\"*\"` for any",
            );
        }
        let values = patterns(values, &place.at("query").at(name.as_str()), findings, Glob::new);
        query.push((name.clone(), values));
    }
    HttpMatcher {
        hosts: raw.hosts.as_ref().map(|hosts| patterns(hosts, &place.at("hosts"), findings, server_name)),
        methods: methods(&raw.methods, &place.at("methods"), findings),
        paths: patterns(&raw.paths, &place.at("paths"), findings, PathTemplate::new),
        query,
        upgrade: patterns(&raw.upgrade, &place.at("upgrade"), findings, protocol),
        ambiguous: raw.ambiguous.clone(),
        pass_through: raw.pass_through,
        limits,
    }
}

/// What is not seen has no parts that a rule could name.
fn alone(id: &str, effect: RuleEffect, raw: &RawHttp, place: &Place, findings: &mut Findings) {
    let named = !raw.methods.is_empty()
        || !raw.paths.is_empty()
        || !raw.query.is_empty()
        || !raw.upgrade.is_empty()
        || !raw.ambiguous.is_empty()
        || raw.limits.request_bytes.is_some()
        || raw.limits.response_bytes.is_some();
    if named {
        findings.add(
            place.at("pass_through"),
            format!("rule `{id}` lets TLS through unseen, yet names requests"),
            "write `pass_through: true` with `hosts`, `limits: { duration, per_minute }` and nothing else",
        );
    }
    if effect == RuleEffect::Allow && raw.hosts.is_none() {
        findings.add(
            place.clone(),
            format!("rule `{id}` lets TLS through unseen and does not say to which hosts"),
            "add `hosts: [...]`",
        );
    }
    if effect == RuleEffect::Approve {
        findings.add(
            place.at("pass_through"),
            format!("rule `{id}` asks people about what nobody sees"),
            "write `effect: allow`, or end TLS and name requests",
        );
    }
}

fn methods(names: &[String], place: &Place, findings: &mut Findings) -> Methods {
    if names.is_empty() || names.iter().any(|name| name == "*") {
        return Methods::Any;
    }
    for (index, name) in names.iter().enumerate() {
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '-');
        if !plain {
            findings.add(
                place.at(index),
                format!("{name:?} is no method"),
                "for example GET; methods are upper case, and `\"*\"` is any",
            );
        } else if NEVER.contains(&name.as_str()) {
            findings.add(
                place.at(index),
                format!("`{name}` is never relayed"),
                "CONNECT opens tunnels and TRACE shows what the gateway adds: leave it out",
            );
        }
    }
    Methods::Only(names.to_vec())
}

fn protocol(text: &str) -> Result<String, BadPattern> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-./".contains(c);
    if text.is_empty() || !text.chars().all(plain) {
        return bad(format!("{text:?} is no protocol"), "for example websocket");
    }
    if text.eq_ignore_ascii_case("h2c") {
        return bad("`h2c` would end what is seen of a connection", "HTTP/2 is spoken over TLS");
    }
    Ok(text.to_ascii_lowercase())
}

/// A name that jobs may call a resource by: an exact one, an address, or `*.` in front of at least two labels.
fn server_name(text: &str) -> Result<ServerName, BadPattern> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(ServerName::Exact(address.to_canonical().to_string()));
    }
    if let Some(below) = text.strip_prefix("*.") {
        return match is_host_name(below) && below.contains('.') {
            true => Ok(ServerName::Below(format!(".{}", below.to_ascii_lowercase()))),
            false => bad(format!("`{text}` reaches too far"), "name at least two labels: `*.pages.example`"),
        };
    }
    match is_host_name(text) {
        true => Ok(ServerName::Exact(text.to_ascii_lowercase())),
        false => bad(format!("`{text}` is no host name"), "for example api.example, or `*.pages.example`"),
    }
}

fn limits(raw: &RawHttpLimits, place: &Place, findings: &mut Findings) -> Bounds {
    let duration = raw.duration.as_ref().and_then(|text| match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() => Some(time),
        _ => {
            findings.add(place.at("duration"), "not a length of time", "for example 30s, 10m or 1h");
            None::<Duration>
        }
    });
    let zero = [
        ("request_bytes", raw.request_bytes == Some(0)),
        ("response_bytes", raw.response_bytes == Some(0)),
        ("per_minute", raw.per_minute == Some(0)),
    ];
    for (name, _) in zero.iter().filter(|(name, zero)| *zero && *name != "request_bytes") {
        findings.add(place.at(*name), "a limit of 0", "leave the limit out for none, or write a deny rule");
    }
    Bounds {
        request_bytes: raw.request_bytes,
        response_bytes: raw.response_bytes,
        duration,
        per_minute: raw.per_minute,
    }
}

/// What a resource that is called by HTTP has. `hosts` and `ports` are checked already.
pub(crate) fn upstream(
    raw: &RawResource,
    hosts: &[Host],
    ports: &[u16],
    place: &Place,
    findings: &mut Findings,
) -> HttpUpstream {
    let mut names: Vec<ServerName> = hosts
        .iter()
        .filter_map(|host| match host {
            Host::Name(name) => Some(ServerName::Exact(name.clone())),
            Host::Net(_) => None,
        })
        .collect();
    let further = raw.names.as_deref().unwrap_or_default();
    names.extend(patterns(further, &place.at("names"), findings, server_name));
    if !further.is_empty() && hosts.iter().all(|host| matches!(host, Host::Name(_))) {
        findings.add(
            place.at("names"),
            format!("resource `{}` does not say at which addresses its other names are", raw.name),
            "add their addresses or networks to `hosts`: what a job resolves opens nothing",
        );
    }
    let plain_ports = raw.http_ports.clone().unwrap_or_default();
    for (index, port) in plain_ports.iter().enumerate() {
        if !ports.contains(port) {
            findings.add(
                place.at("http_ports").at(index),
                format!("port {port} is not one of the resource's ports"),
                "add it to `ports` as well",
            );
        }
    }
    let inject: Vec<_> = raw
        .inject
        .iter()
        .flatten()
        .enumerate()
        .map(|(index, raw)| injected(raw, &place.at("inject").at(index), findings))
        .collect();
    if !inject.is_empty() && !plain_ports.is_empty() {
        findings.add(
            place.at("http_ports"),
            format!("resource `{}` would send its secrets in clear text", raw.name),
            "give the plain ports a resource of their own, without `inject`",
        );
    }
    let strip = patterns(raw.strip.as_deref().unwrap_or_default(), &place.at("strip"), findings, header_name);
    HttpUpstream {
        names,
        plain_ports,
        tls: match &raw.tls {
            Some(raw) => {
                if raw.mode == RawTlsMode::Disable {
                    findings.add(
                        place.at("tls").at("mode"),
                        "TLS cannot be disabled for a whole resource",
                        "name the ports without TLS under `http_ports`",
                    );
                }
                tls(raw, &place.at("tls"), findings)
            }
            None => Tls { mode: TlsMode::VerifyFull, server_name: None, ca: None },
        },
        pins: raw.tls.as_ref().map_or_else(Vec::new, |raw| {
            patterns(raw.pins.as_deref().unwrap_or_default(), &place.at("tls").at("pins"), findings, pin)
        }),
        inject,
        strip,
    }
}

fn injected(raw: &RawInject, place: &Place, findings: &mut Findings) -> Inject {
    let header = header_name(&raw.header).unwrap_or_else(|bad| {
        findings.add(place.at("header"), bad.message, bad.hint);
        String::new()
    });
    let visible = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if !visible(&raw.prefix) {
        findings.add(place.at("prefix"), "not visible ASCII", "for example \"Bearer \"");
    }
    if let Some(user) = &raw.basic_user {
        if !visible(user) || user.contains(':') {
            findings.add(
                place.at("basic_user"),
                "a user without colons in visible ASCII",
                "for example `token`",
            );
        }
        if !raw.prefix.is_empty() {
            findings.add(place.at("prefix"), "`basic_user` brings its own prefix", "drop it");
        }
    }
    Inject {
        header,
        prefix: raw.prefix.clone(),
        value: secret(&raw.value, &place.at("value"), findings),
        basic_user: raw.basic_user.clone(),
    }
}

fn header_name(text: &str) -> Result<String, BadPattern> {
    let name = text.to_ascii_lowercase();
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(token) {
        return bad(format!("{text:?} is no header field"), "for example Authorization");
    }
    if FRAMING.contains(&name.as_str()) {
        return bad(format!("`{text}` frames messages, which the gateway does itself"), "leave it out");
    }
    Ok(name)
}

fn pin(text: &str) -> Result<Pin, BadPattern> {
    let key = text
        .strip_prefix("sha256//")
        .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok())
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    match key {
        Some(key) => Ok(Pin(key)),
        None => bad(
            format!("`{text}` is no pin"),
            "the SHA-256 of the public key as `sha256//BASE64`, as curl's --pinnedpubkey has it",
        ),
    }
}

/// The part of a mask that is about responses; `None` = it is about something else.
pub(crate) fn mask(
    raw: &RawMask,
    detectors: Vec<(mask::Detector, Option<mask::Partial>)>,
    place: &Place,
    findings: &mut Findings,
) -> Option<HttpMask> {
    if raw.json.is_empty() && raw.paths.is_empty() {
        return None;
    }
    if !raw.columns.is_empty() || !raw.files.is_empty() {
        findings.add(
            place.clone(),
            format!("mask `{}` is about responses of HTTP and about something else", raw.id),
            "write `json` and `paths` into a mask of their own",
        );
    }
    if !raw.json.is_empty() && !matches!(raw.transform, Transform::Redact | Transform::Null) {
        findings.add(
            place.at("transform"),
            format!("mask `{}`: values of JSON are redacted or null", raw.id),
            "write `redact` or `null`",
        );
    }
    let json = patterns(&raw.json, &place.at("json"), findings, |text| {
        JsonPath::parse(text).map_err(|wrong| BadPattern {
            message: wrong.to_string(),
            hint: "for example $.items[*].token or $..password".to_owned(),
        })
    });
    Some(HttpMask {
        paths: patterns(&raw.paths, &place.at("paths"), findings, PathTemplate::new),
        json: json.into_iter().map(|path| (path, raw.transform)).collect(),
        detectors,
    })
}
