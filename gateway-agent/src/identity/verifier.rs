//! Judges tokens.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use policy::UnixTime;
use serde::Deserialize;

use super::{Claims, TokenError, claims::Times, jwks::Keys};
use crate::{
    config::{self, Algorithm},
    state::Store,
};

/// Longest token read, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// Tokens of the configured issuers, and of no other.
pub struct Verifier {
    skew: u64,
    issuers: Vec<Issuer>,
}

struct Issuer {
    config: config::Issuer,
    keys: Keys,
}

/// RFC 7515 section 4. `jku`, `jwk` and `x5u` are not read: keys come from the configuration alone.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Named {
    iss: Option<serde_json::Value>,
}

impl Verifier {
    /// Fetches nothing yet; a CA file that cannot be read is an error here.
    pub fn new(config: &config::Identity) -> Result<Self, TokenError> {
        crate::tls::install_providers();
        let issuers = config
            .issuers
            .iter()
            .map(|i| Ok(Issuer { config: i.clone(), keys: Keys::new(&i.issuer, &i.keys)? }))
            .collect::<Result<_, TokenError>>()?;
        Ok(Self { skew: config.skew.as_secs(), issuers })
    }

    /// The audience that a token must carry, by issuer, for an enrolment with this nonce.
    pub fn audiences(&self, nonce: &str) -> Vec<(String, String)> {
        self.issuers.iter().map(|i| (i.config.issuer.clone(), i.audience(Some(nonce)))).collect()
    }

    /// Checks everything about a token and spends its `jti`. `nonce`: of this enrolment, already known to be
    /// this caller's.
    ///
    /// May wait for the issuer's keys, at most some 20 seconds.
    pub async fn verify(
        &self,
        token: &str,
        nonce: Option<&str>,
        now: UnixTime,
        store: &dyn Store,
    ) -> Result<Claims, TokenError> {
        let claims = self.check(token.trim(), nonce, now).await?;
        // One second more than any clock in the tolerated range could still accept it.
        let until = UnixTime(claims.expires.0.saturating_add(self.skew).saturating_add(1));
        match store.use_token(&claims.issuer, &claims.jti, until) {
            Ok(true) => Ok(claims),
            Ok(false) => Err(TokenError::Replayed),
            Err(e) => Err(TokenError::State(e.to_string())),
        }
    }

    async fn check(&self, token: &str, nonce: Option<&str>, now: UnixTime) -> Result<Claims, TokenError> {
        let (header, named) = read(token)?;
        let algorithm = match header.alg.as_str() {
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            "EdDSA" => Algorithm::EdDSA,
            none if none.eq_ignore_ascii_case("none") => return Err(TokenError::Unsigned),
            other => return Err(TokenError::Algorithm(other.chars().take(16).collect())),
        };
        if header.crit.is_some() {
            return Err(TokenError::Malformed("it has critical extensions that are not known here"));
        }
        let iss = match named.iss {
            Some(serde_json::Value::String(iss)) => iss,
            Some(_) => return Err(TokenError::Malformed("iss is not text")),
            None => return Err(TokenError::Missing("iss")),
        };
        let issuer = self
            .issuers
            .iter()
            .find(|i| i.config.issuer == iss)
            .ok_or_else(|| TokenError::Issuer(iss.chars().take(200).collect()))?;
        if !issuer.config.algorithms.contains(&algorithm) {
            return Err(TokenError::Algorithm(header.alg));
        }
        if issuer.config.nonce && nonce.is_none() {
            return Err(TokenError::Nonce);
        }
        let keys = issuer.keys.find(header.kid.as_deref(), algorithm, now).await?;
        let mut value = Err(TokenError::Signature);
        for key in keys {
            value = signed(token, &key.decoding, algorithm);
            if value != Err(TokenError::Signature) {
                break;
            }
        }
        let times = Times { now, skew: self.skew, max_lifetime: issuer.config.max_lifetime.as_secs() };
        Claims::check(value?, &issuer.config.issuer, &issuer.audience(nonce), &times)
    }
}

impl Issuer {
    fn audience(&self, nonce: Option<&str>) -> String {
        match nonce {
            Some(nonce) if self.config.nonce => format!("{}:{nonce}", self.config.audience),
            _ => self.config.audience.clone(),
        }
    }
}

/// Header and issuer, not yet believed.
fn read(token: &str) -> Result<(Header, Named), TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::Malformed("longer than 16 KiB"));
    }
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed("not three parts"));
    };
    let decode = |part: &str, what| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed(what));
    let header: Header = serde_json::from_slice(&decode(header, "the header is not base64url")?)
        .map_err(|_| TokenError::Malformed("the header is not a JWS header"))?;
    if signature.is_empty() && !header.alg.eq_ignore_ascii_case("none") {
        return Err(TokenError::Malformed("the signature is empty"));
    }
    let named = serde_json::from_slice(&decode(claims, "the claims are not base64url")?)
        .map_err(|_| TokenError::Malformed("the claims are not JSON"))?;
    Ok((header, named))
}

/// The claims, if `key` made the signature. Times and names are this crate's to check, not the library's,
/// which accepts tokens that lack them.
fn signed(
    token: &str,
    key: &jsonwebtoken::DecodingKey,
    algorithm: Algorithm,
) -> Result<serde_json::Value, TokenError> {
    let algorithm = match algorithm {
        Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
    };
    let mut validation = jsonwebtoken::Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    match jsonwebtoken::decode(token, key, &validation) {
        Ok(data) => Ok(data.claims),
        Err(e) => Err(match e.kind() {
            jsonwebtoken::errors::ErrorKind::Json(_) => TokenError::Malformed("a claim has the wrong type"),
            _ => TokenError::Signature,
        }),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
