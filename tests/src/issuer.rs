//! An OIDC issuer: keys, their public set, and tokens with any claims one likes, also wrong ones.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
        RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
    /// Not at all, and saying so.
    None,
}

/// An issuer with one key of each kind.
#[derive(Debug)]
pub struct Issuer {
    url: String,
    generation: u32,
    rsa: RsaKeyPair,
    ecdsa: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Issuer {
    /// # Errors
    /// When keys cannot be made.
    pub fn new(url: &str) -> Result<Self> {
        Self::generation(url, 1)
    }

    fn generation(url: &str, generation: u32) -> Result<Self> {
        let failed = |what| move |_| anyhow!("cannot make a {what} key");
        Ok(Self {
            url: url.to_owned(),
            generation,
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed("RSA"))?,
            ecdsa: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed("P-256"))?,
            ed25519: Ed25519KeyPair::generate().map_err(failed("Ed25519"))?,
        })
    }

    /// The same issuer with its next set of keys.
    ///
    /// # Errors
    /// When keys cannot be made.
    pub fn rotated(&self) -> Result<Self> {
        Self::generation(&self.url, self.generation + 1)
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    fn kid(&self, algorithm: Algorithm) -> String {
        format!("{algorithm:?}-{}", self.generation).to_lowercase()
    }

    /// The public keys.
    #[must_use]
    pub fn jwks(&self) -> Value {
        let rsa = self.rsa.public_key();
        // 0x04, then both coordinates.
        let point = self.ecdsa.public_key().as_ref();
        let (x, y) = (point.get(1..33).unwrap_or_default(), point.get(33..65).unwrap_or_default());
        json!({ "keys": [
            { "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid(Algorithm::Rs256),
              "n": encode(rsa.modulus().big_endian_without_leading_zero()),
              "e": encode(rsa.exponent().big_endian_without_leading_zero()) },
            { "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid(Algorithm::Es256),
              "x": encode(x), "y": encode(y) },
            { "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.kid(Algorithm::EdDsa),
              "x": encode(self.ed25519.public_key().as_ref()) },
        ]})
    }

    /// Writes the public keys to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_jwks(&self, path: &Path) -> Result<()> {
        fs::write(path, self.jwks().to_string()).with_context(|| format!("writing {}", path.display()))
    }

    /// A token for a subject, good for five minutes.
    pub fn token(&self, subject: &str, audience: &str) -> Token<'_> {
        let now = now();
        let mut claims = Map::new();
        for (name, value) in [
            ("iss", json!(self.url)),
            ("sub", json!(subject)),
            ("aud", json!(audience)),
            ("iat", json!(now)),
            ("nbf", json!(now)),
            ("exp", json!(now + 300)),
            ("jti", json!(random())),
        ] {
            claims.insert(name.to_owned(), value);
        }
        Token { issuer: self, algorithm: Algorithm::Es256, claims, kid: None }
    }

    /// The key for ES256, for a program that mints tokens on its own. Only for tests.
    ///
    /// # Errors
    /// When the key cannot be exported.
    pub fn export(&self) -> Result<Value> {
        let key = self.ecdsa.to_pkcs8v1().map_err(|_| anyhow!("the key cannot be exported"))?;
        Ok(json!({ "url": self.url, "generation": self.generation, "es256": encode(key.as_ref()) }))
    }

    /// The issuer that was exported; its other keys are new, so only ES256 tokens are worth something.
    ///
    /// # Errors
    /// When it is none.
    pub fn import(exported: &Value) -> Result<Self> {
        let url = exported["url"].as_str().context("no url")?;
        let generation = exported["generation"]
            .as_u64()
            .and_then(|number| number.try_into().ok())
            .context("no generation")?;
        let key = URL_SAFE_NO_PAD.decode(exported["es256"].as_str().context("no key")?)?;
        let mut issuer = Self::generation(url, generation)?;
        issuer.ecdsa = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key)
            .map_err(|_| anyhow!("no P-256 key"))?;
        Ok(issuer)
    }

    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>> {
        let random = SystemRandom::new();
        match algorithm {
            Algorithm::None => Ok(Vec::new()),
            Algorithm::EdDsa => Ok(self.ed25519.sign(message).as_ref().to_owned()),
            Algorithm::Es256 => {
                let signature = self.ecdsa.sign(&random, message).map_err(|_| anyhow!("signing failed"))?;
                Ok(signature.as_ref().to_owned())
            }
            Algorithm::Rs256 => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| anyhow!("signing failed"))?;
                Ok(signature)
            }
        }
    }
}

/// A token in the making.
#[derive(Debug, Clone)]
#[must_use]
pub struct Token<'a> {
    issuer: &'a Issuer,
    algorithm: Algorithm,
    claims: Map<String, Value>,
    kid: Option<String>,
}

impl Token<'_> {
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Expired by this many seconds.
    pub fn expired(self, seconds: u64) -> Self {
        let then = now() - seconds;
        self.claim("exp", then).claim("iat", then - 300).claim("nbf", then - 300)
    }

    /// Names a key that did not sign it.
    pub fn kid(mut self, kid: &str) -> Self {
        self.kid = Some(kid.to_owned());
        self
    }

    /// # Errors
    /// When signing fails.
    pub fn mint(self) -> Result<String> {
        let Self { issuer, algorithm, claims, kid } = self;
        let alg = match algorithm {
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
            Algorithm::None => "none",
        };
        let header = json!({ "typ": "JWT", "alg": alg, "kid": kid.unwrap_or_else(|| issuer.kid(algorithm)) });
        let message = format!("{}.{}", encode(header.to_string()), encode(Value::Object(claims).to_string()));
        let signature = issuer.sign(algorithm, message.as_bytes())?;
        Ok(format!("{message}.{}", encode(signature)))
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Unix time in seconds.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Something nobody guesses: for token ids and passwords.
#[must_use]
pub fn random() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok();
    encode(bytes)
}
