//! An issuer made at run time, and a host that only remembers, for the tests of this crate.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use policy::{Denial, UnixTime};
use serde_json::{Value, json};

use super::{Clock, Host, Job, JobEnd};
use crate::config::{self, Algorithm, KeySource};

pub(crate) const ISSUER: &str = "https://token.example";
pub(crate) const NOW: u64 = 1_800_000_000;

/// A clock that tests move.
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(NOW)))
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        UnixTime(self.0.load(Ordering::Relaxed))
    }
}

/// One signing key and its public half.
pub(crate) struct SigningKey {
    pub(crate) id: String,
    pub(crate) algorithm: jsonwebtoken::Algorithm,
    encoding: EncodingKey,
    pub(crate) jwk: Value,
}

impl SigningKey {
    pub(crate) fn new(id: &str, algorithm: Algorithm) -> Self {
        crate::tls::install_providers();
        let b64 = |b: &[u8]| URL_SAFE_NO_PAD.encode(b);
        let make = |a| rcgen::KeyPair::generate_for(a).unwrap();
        let (algorithm, encoding, jwk) = match algorithm {
            Algorithm::ES256 => {
                let pair = make(&rcgen::PKCS_ECDSA_P256_SHA256);
                let (x, y) = pair.public_key_raw()[1..].split_at(32);
                let jwk = json!({"kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y)});
                (
                    jsonwebtoken::Algorithm::ES256,
                    EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()),
                    jwk,
                )
            }
            Algorithm::EdDSA => {
                let pair = make(&rcgen::PKCS_ED25519);
                let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key_raw())});
                (
                    jsonwebtoken::Algorithm::EdDSA,
                    EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()),
                    jwk,
                )
            }
            Algorithm::RS256 => {
                let pair = make(&rcgen::PKCS_RSA_SHA256);
                let public = pair.public_key_raw();
                let (n, e) = rsa_parts(public);
                let jwk = json!({"kty": "RSA", "n": b64(&n), "e": b64(&e)});
                (
                    jsonwebtoken::Algorithm::RS256,
                    EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()),
                    jwk,
                )
            }
        };
        let mut jwk = jwk;
        jwk["kid"] = id.into();
        jwk["use"] = "sig".into();
        Self { id: id.to_owned(), algorithm, encoding: encoding.unwrap(), jwk }
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &self.encoding).unwrap()
    }

    pub(crate) fn sign_without_kid(&self, claims: &Value) -> String {
        jsonwebtoken::encode(&Header::new(self.algorithm), claims, &self.encoding).unwrap()
    }
}

/// Modulus and exponent of a PKCS#1 public key.
fn rsa_parts(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    use x509_parser::prelude::FromDer;
    let (_, key) = x509_parser::public_key::RSAPublicKey::from_der(der).unwrap();
    let strip = |n: &[u8]| n.iter().copied().skip_while(|b| *b == 0).collect();
    (strip(key.modulus), strip(key.exponent))
}

/// Good claims for audience `aud`, with an id of their own.
pub(crate) fn claims(aud: &str) -> Value {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    json!({
        "iss": ISSUER,
        "sub": "repo:acme/payments",
        "aud": aud,
        "exp": NOW + 600,
        "iat": NOW - 5,
        "nbf": NOW - 5,
        "jti": format!("jti-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        "repository": "acme/payments",
        "ref": "refs/heads/main",
    })
}

pub(crate) fn write_jwks(path: &Path, keys: &[&SigningKey]) {
    let set = json!({ "keys": keys.iter().map(|k| k.jwk.clone()).collect::<Vec<_>>() });
    // Renamed into place, so that inode and time differ from the last one.
    let new = path.with_extension("new");
    std::fs::write(&new, set.to_string()).unwrap();
    std::fs::rename(new, path).unwrap();
}

pub(crate) fn identity(keys: KeySource, nonce: bool) -> config::Identity {
    config::Identity {
        skew: std::time::Duration::from_secs(30),
        issuers: vec![config::Issuer {
            issuer: ISSUER.into(),
            audience: "gw".into(),
            nonce,
            keys,
            algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
            max_lifetime: std::time::Duration::from_secs(3600),
        }],
    }
}

/// Remembers what it was told. `subject` is what policy says.
pub(crate) struct TestHost {
    pub(crate) subject: Mutex<Option<&'static str>>,
    pub(crate) confined: Mutex<Vec<u64>>,
    pub(crate) ended: Mutex<Vec<(u64, JobEnd)>>,
    pub(crate) fails: Mutex<bool>,
}

impl TestHost {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            subject: Mutex::new(Some("payments-agent")),
            confined: Mutex::default(),
            ended: Mutex::default(),
            fails: Mutex::default(),
        })
    }
}

impl Host for TestHost {
    fn subject(&self, _issuer: &str, _claims: &Value) -> Result<Arc<str>, Denial> {
        let none = || Denial { reason: "no subject matches".into(), hint: "add one".into() };
        self.subject.lock().unwrap().map(Arc::from).ok_or_else(none)
    }

    fn confine(&self, cgroup_id: u64, _dir: &Path) -> Result<(), String> {
        if *self.fails.lock().unwrap() {
            return Err("map full".into());
        }
        let mut confined = self.confined.lock().unwrap();
        confined.retain(|c| *c != cgroup_id);
        confined.push(cgroup_id);
        Ok(())
    }

    fn forget(&self, cgroup_id: u64) {
        self.confined.lock().unwrap().retain(|c| *c != cgroup_id);
    }

    fn ended(&self, job: &Job, why: JobEnd) {
        self.ended.lock().unwrap().push((job.cgroup_id, why));
    }
}

/// A directory that looks like a cgroup with a process in it.
pub(crate) fn plain_cgroup(root: &Path, name: &str) -> PathBuf {
    let dir = root.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
    dir
}
