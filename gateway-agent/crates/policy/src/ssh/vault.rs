//! Checks what a policy says of Vault.

use core::net::Ipv6Addr;

use super::{
    model::{Vault, VaultLogin},
    raw::RawVault,
};
use crate::{
    check::resource::{absolute, secret},
    diagnostic::{Findings, Place},
    model::SecretRef,
};

pub(super) fn vault(raw: &RawVault, place: &Place, findings: &mut Findings) -> Vault {
    let address = raw.address.strip_suffix('/').unwrap_or(&raw.address);
    if !is_origin(address) {
        findings.add(
            place.at("address"),
            format!("`{}` is not the address of a server that speaks TLS", raw.address),
            "for example https://vault.internal:8200, without a path",
        );
    }
    let mut name = |text: Option<&str>, default: &str, field: &str, nested: bool| {
        let text = text.unwrap_or(default);
        let fine = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty() && !part.starts_with('.') && part.chars().all(known)
        };
        let parts: Vec<_> = text.split('/').collect();
        if !parts.iter().all(|part| fine(part)) || (parts.len() > 1 && !nested) {
            findings.add(
                place.at(field),
                format!("`{text}` is not a name that Vault has"),
                "letters, digits, `-`, `_` and `.`, without a slash at either end",
            );
        }
        text.to_owned()
    };
    let mount = name(raw.mount.as_deref(), "ssh", "mount", true);
    let role = name(Some(&raw.role), "", "role", false);
    let namespace = raw.namespace.as_deref().map(|text| name(Some(text), "", "namespace", true));
    let by_jwt = raw.jwt.as_ref().map(|jwt| {
        (name(jwt.mount.as_deref(), "jwt", "jwt", true), name(Some(&jwt.role), "", "jwt", false), &jwt.token)
    });
    let login = match (&raw.token, by_jwt) {
        (Some(token), None) => VaultLogin::Token(secret(token, &place.at("token"), findings)),
        (None, Some((mount, role, token))) => {
            VaultLogin::Jwt { mount, role, token: secret(token, &place.at("jwt").at("token"), findings) }
        }
        _ => {
            findings.add(
                place.clone(),
                "the gateway logs in to Vault by exactly one of `token` and `jwt`",
                "for example `token: {file: /etc/gateway/secrets/vault_token}`",
            );
            VaultLogin::Token(SecretRef::Credential(String::new()))
        }
    };
    Vault {
        address: address.to_owned(),
        ca: raw.ca.as_ref().map(|path| absolute(path, &place.at("ca"), findings)),
        namespace,
        mount,
        role,
        login,
        key_id: raw.key_id,
    }
}

/// `https://`, a name or address, and perhaps a port.
fn is_origin(address: &str) -> bool {
    let Some(authority) = address.strip_prefix("https://") else { return false };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host_is = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')),
    };
    host_is && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}
