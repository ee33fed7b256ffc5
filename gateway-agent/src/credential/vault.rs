//! Vault's SSH secrets engine, which signs user certificates (`POST /v1/MOUNT/sign/ROLE`).
//!
//! What it answers counts only if it is what was asked for: our key, these principals, these options, no longer than that. Whether the
//! host trusts the authority is the host's affair.

use policy::{UnixTime, Vault, VaultLogin};
use russh::keys::{
    Certificate,
    ssh_key::{Algorithm, PublicKey, certificate::CertType},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::{CredentialError, read, ssh::Wanted};
use crate::https::Https;

/// Largest answer read.
const MAX_BODY: usize = 64 * 1024;
/// How much of Vault's own words an error repeats, in characters.
const MAX_WORDS: usize = 300;
/// Vault lets certificates begin and end a little otherwise than asked.
const LEEWAY: u64 = 60;

const TOKEN: &str = "X-Vault-Token";

/// Whether what the gateway logs in to Vault with is there.
pub(super) fn probe(of: &Vault) -> Result<(), CredentialError> {
    match &of.login {
        VaultLogin::Token(secret) | VaultLogin::Jwt { token: secret, .. } => read(secret).map(drop),
    }
}

/// # Errors
/// For the operator: why there is no certificate. No secret is in it.
pub(super) async fn sign(
    of: &Vault,
    key: &PublicKey,
    wanted: &Wanted,
    now: UnixTime,
) -> Result<Certificate, String> {
    let https = Https::new(of.ca.as_deref())?;
    let (token, lent) = match &of.login {
        VaultLogin::Token(secret) => (read(secret).map_err(|error| error.to_string())?, false),
        VaultLogin::Jwt { mount, role, token } => (log_in(&https, of, mount, role, token).await?, true),
    };
    let signed = ask_to_sign(&https, of, &token, key, wanted).await;
    if lent {
        // It ends by itself as well.
        if let Err(why) = call(&https, of, Some(&token), "auth/token/revoke-self", &json!({})).await {
            tracing::debug!(address = %of.address, %why, "Vault's token was not given back");
        }
    }
    let certificate = signed?;
    checked(&certificate, of, key, wanted, now)?;
    Ok(certificate)
}

#[derive(Deserialize)]
struct LoggedIn {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
}

async fn log_in(
    https: &Https,
    of: &Vault,
    mount: &str,
    role: &str,
    token: &policy::SecretRef,
) -> Result<SecretString, String> {
    let jwt = read(token).map_err(|error| error.to_string())?;
    let body = json!({ "role": role, "jwt": jwt.expose_secret() });
    let answer = call(https, of, None, &format!("auth/{mount}/login"), &body).await?;
    let answer: LoggedIn =
        serde_json::from_slice(&answer).map_err(|_| "its login answers without a token".to_owned())?;
    Ok(SecretString::from(answer.auth.client_token))
}

#[derive(Deserialize)]
struct Signed {
    data: SignedKey,
}

#[derive(Deserialize)]
struct SignedKey {
    signed_key: String,
}

async fn ask_to_sign(
    https: &Https,
    of: &Vault,
    token: &SecretString,
    key: &PublicKey,
    wanted: &Wanted,
) -> Result<Certificate, String> {
    let public = key.to_openssh().map_err(|error| error.to_string())?;
    let mut body = json!({
        "public_key": public,
        "cert_type": "user",
        "valid_principals": wanted.principals.join(","),
        "ttl": format!("{}s", wanted.valid_for),
        "critical_options": wanted.critical_options,
        "extensions": wanted.extensions,
    });
    if let (true, Some(fields)) = (of.key_id, body.as_object_mut()) {
        fields.insert("key_id".to_owned(), wanted.key_id.as_str().into());
    }
    let answer = call(https, of, Some(token), &format!("{}/sign/{}", of.mount, of.role), &body).await?;
    let answer: Signed =
        serde_json::from_slice(&answer).map_err(|_| "it answers without a certificate".to_owned())?;
    Certificate::from_openssh(answer.data.signed_key.trim())
        .map_err(|error| format!("what it answers is no certificate: {error}"))
}

/// One call of its HTTP API.
async fn call(
    https: &Https,
    of: &Vault,
    token: Option<&SecretString>,
    path: &str,
    body: &serde_json::Value,
) -> Result<Vec<u8>, String> {
    let mut fields = vec![("X-Vault-Request", "true")];
    fields.extend(token.map(|token| (TOKEN, token.expose_secret())));
    fields.extend(of.namespace.as_deref().map(|namespace| ("X-Vault-Namespace", namespace)));
    let answer = https.post(&format!("{}/v1/{path}", of.address), &fields, body, MAX_BODY).await?;
    match answer.status {
        200..=299 => Ok(answer.body),
        status => Err(format!("{path}: status {status}{}", words(&answer.body))),
    }
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

/// What it says of an error, fit for a log.
fn words(body: &[u8]) -> String {
    let said = serde_json::from_slice::<Errors>(body).map(|said| said.errors.join("; ")).unwrap_or_default();
    let fit = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect::<String>();
    if fit.is_empty() { fit } else { format!(": {fit}") }
}

/// It is what was asked for.
fn checked(
    made: &Certificate,
    of: &Vault,
    key: &PublicKey,
    wanted: &Wanted,
    now: UnixTime,
) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("its certificate {what}"));
    if made.cert_type() != CertType::User {
        return wrong("is none for a user");
    }
    if made.public_key() != key.key_data() {
        return wrong("is for another key");
    }
    // Without principals it would be good for anybody, where the host does not say otherwise.
    let mut principals: Vec<_> = made.valid_principals().iter().collect();
    let mut asked: Vec<_> = wanted.principals.iter().collect();
    principals.sort();
    asked.sort();
    if principals != asked {
        return wrong("names other principals");
    }
    if made.valid_after() > now.0.saturating_add(LEEWAY) || made.valid_before() <= now.0 {
        return wrong("is not good now");
    }
    if made.valid_before() > now.0.saturating_add(wanted.valid_for).saturating_add(LEEWAY) {
        return wrong("is good for longer than policy says");
    }
    if of.key_id && made.key_id() != wanted.key_id {
        return wrong("has another key id");
    }
    if !same(made.critical_options(), &wanted.critical_options) {
        return wrong("has other critical options; the role's own defaults belong into the policy");
    }
    if !same(made.extensions(), &wanted.extensions) {
        return wrong(
            "has other extensions; the role has to allow permit-pty and permit-port-forwarding, and add none",
        );
    }
    // RSA is not spoken here.
    let verifiable = !matches!(made.signature_key().algorithm(), Algorithm::Rsa { .. } | Algorithm::Dsa);
    if verifiable && made.verify_signature().is_err() {
        return wrong("has a bad signature");
    }
    Ok(())
}

fn same<V: AsRef<str>>(
    made: &std::collections::BTreeMap<String, String>,
    wanted: &std::collections::BTreeMap<&'static str, V>,
) -> bool {
    let made = made.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    made.eq(wanted.iter().map(|(name, value)| (*name, value.as_ref())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use policy::SecretRef;
    use russh::keys::{PrivateKey, ssh_key::certificate::Builder};

    use super::*;
    use crate::ssh::fresh_key;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn of() -> Vault {
        Vault {
            address: "https://vault.internal:8200".into(),
            ca: None,
            namespace: None,
            mount: "ssh".into(),
            role: "ci".into(),
            login: VaultLogin::Token(SecretRef::Env("unused".into())),
            key_id: true,
        }
    }

    fn wanted() -> Wanted {
        Wanted {
            principals: vec!["deploy".into()],
            key_id: "gateway job 7".into(),
            valid_for: 300,
            critical_options: BTreeMap::from([("source-address", "198.51.100.1/32".to_owned())]),
            extensions: BTreeMap::from([("permit-pty", "")]),
        }
    }

    /// A certificate as asked for, but for what is changed.
    fn made(key: &PrivateKey, authority: &PrivateKey, change: impl FnOnce(&mut Made)) -> Certificate {
        let mut of = Made {
            kind: CertType::User,
            principals: vec!["deploy"],
            after: NOW.0 - 30,
            before: NOW.0 + 300,
            key_id: "gateway job 7",
            options: vec![("source-address", "198.51.100.1/32")],
            extensions: vec!["permit-pty"],
        };
        change(&mut of);
        let public = key.public_key().key_data().clone();
        let mut builder = Builder::new([7; 32], public, of.after, of.before).unwrap();
        builder.cert_type(of.kind).unwrap().key_id(of.key_id).unwrap();
        if of.principals.is_empty() {
            builder.all_principals_valid().unwrap();
        }
        for principal in of.principals {
            builder.valid_principal(principal).unwrap();
        }
        for (name, value) in of.options {
            builder.critical_option(name, value).unwrap();
        }
        for name in of.extensions {
            builder.extension(name, "").unwrap();
        }
        builder.sign(authority).unwrap()
    }

    struct Made {
        kind: CertType,
        principals: Vec<&'static str>,
        after: u64,
        before: u64,
        key_id: &'static str,
        options: Vec<(&'static str, &'static str)>,
        extensions: Vec<&'static str>,
    }

    #[test]
    fn only_what_was_asked_for_counts() {
        let (key, other, authority) = (fresh_key().unwrap(), fresh_key().unwrap(), fresh_key().unwrap());
        let check = |certificate: &Certificate| checked(certificate, &of(), key.public_key(), &wanted(), NOW);
        check(&made(&key, &authority, |_| ())).unwrap();
        let refused: [(&str, Certificate); 11] = [
            ("for another key", made(&other, &authority, |_| ())),
            ("none for a user", made(&key, &authority, |of| of.kind = CertType::Host)),
            ("other principals", made(&key, &authority, |of| of.principals = vec!["root"])),
            ("other principals", made(&key, &authority, |of| of.principals.push("root"))),
            ("other principals", made(&key, &authority, |of| of.principals.clear())),
            ("not good now", made(&key, &authority, |of| of.before = NOW.0)),
            ("not good now", made(&key, &authority, |of| of.after = NOW.0 + 200)),
            ("for longer", made(&key, &authority, |of| of.before = NOW.0 + 3600)),
            ("another key id", made(&key, &authority, |of| of.key_id = "root")),
            ("other critical options", made(&key, &authority, |of| of.options.clear())),
            ("other extensions", made(&key, &authority, |of| of.extensions.push("permit-agent-forwarding"))),
        ];
        for (why, certificate) in refused {
            let said = check(&certificate).unwrap_err();
            assert!(said.contains(why), "{why}: {said}");
        }
        // A signature that is none of the authority's.
        let good = made(&key, &authority, |_| ()).to_bytes().unwrap();
        let mut bad = good.clone();
        let last = bad.len() - 1;
        bad[last] ^= 1;
        let bad = Certificate::from_bytes(&bad);
        assert!(bad.is_err() || check(&bad.unwrap()).unwrap_err().contains("signature"));
    }

    #[test]
    fn errors_of_vault_are_told_in_one_line() {
        assert_eq!(words(br#"{"errors":["no\nsuch","role"]}"#), ": no such; role");
        assert_eq!(words(b"<html>"), "");
        let long = format!(r#"{{"errors":["{}"]}}"#, "x".repeat(5000));
        assert_eq!(words(long.as_bytes()).len(), MAX_WORDS + 2);
    }
}
