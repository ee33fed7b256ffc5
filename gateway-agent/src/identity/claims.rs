//! The claims of a token whose signature has been checked.

use policy::UnixTime;
use serde_json::Value;

use super::TokenError;

/// Claims that a subject can be made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    pub issuer: String,
    pub sub: String,
    pub audience: Vec<String>,
    pub expires: UnixTime,
    pub issued: UnixTime,
    pub jti: String,
    /// All claims but those about the token itself (exp, nbf, iat, jti).
    pub all: Value,
}

/// What the clock and the issuer's entry say about times.
pub(super) struct Times {
    pub(super) now: UnixTime,
    pub(super) skew: u64,
    pub(super) max_lifetime: u64,
}

/// Longest accepted string claim that this module reads.
const MAX_TEXT: usize = 2048;

impl Claims {
    /// Every required claim must be there and hold. `audience` is the one to look for.
    pub(super) fn check(
        value: Value,
        issuer: &str,
        audience: &str,
        times: &Times,
    ) -> Result<Self, TokenError> {
        let Value::Object(map) = value else { return Err(TokenError::Malformed("claims are not an object")) };
        let text = |name: &'static str| match map.get(name) {
            Some(Value::String(s)) if s.len() <= MAX_TEXT && !s.is_empty() => Ok(s.clone()),
            Some(Value::String(_)) => Err(TokenError::Malformed("a text claim is empty or too long")),
            Some(_) => Err(TokenError::Malformed("a text claim is not text")),
            None => Err(TokenError::Missing(name)),
        };
        let iss = text("iss")?;
        if iss != issuer {
            return Err(TokenError::Issuer(iss));
        }
        let found = match map.get("aud") {
            None => return Err(TokenError::Missing("aud")),
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(many)) => many
                .iter()
                .map(|v| v.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
                .ok_or(TokenError::Malformed("aud is not text"))?,
            Some(_) => return Err(TokenError::Malformed("aud is not text")),
        };
        if !found.iter().any(|a| a == audience) {
            let mut found = format!("{found:?}");
            found
                .truncate((0..=200.min(found.len())).rev().find(|i| found.is_char_boundary(*i)).unwrap_or(0));
            return Err(TokenError::Audience { found, wanted: audience.to_owned() });
        }
        let expires = date(&map, "exp")?.ok_or(TokenError::Missing("exp"))?;
        let issued = date(&map, "iat")?.ok_or(TokenError::Missing("iat"))?;
        let not_before = date(&map, "nbf")?.unwrap_or(issued).max(issued);
        let now = times.now.0;
        if expires.saturating_add(times.skew) <= now {
            return Err(TokenError::Expired(now.saturating_sub(expires)));
        }
        if not_before > now.saturating_add(times.skew) {
            return Err(TokenError::NotYet(not_before.saturating_sub(now)));
        }
        if expires <= issued {
            return Err(TokenError::Malformed("exp is not after iat"));
        }
        if expires - issued > times.max_lifetime {
            return Err(TokenError::Lifetime(expires - issued));
        }
        let (sub, jti) = (text("sub")?, text("jti")?);
        let mut all = map;
        for about_the_token in ["exp", "nbf", "iat", "jti"] {
            all.remove(about_the_token);
        }
        Ok(Self {
            issuer: iss,
            sub,
            audience: found,
            expires: UnixTime(expires),
            issued: UnixTime(issued),
            jti,
            all: Value::Object(all),
        })
    }
}

/// A NumericDate (RFC 7519, 2), which may have a fraction.
fn date(map: &serde_json::Map<String, Value>, name: &str) -> Result<Option<u64>, TokenError> {
    // Year 9999; beyond it arithmetic on dates is a trick.
    const MAX: u64 = 253_402_300_799;
    let Some(value) = map.get(name) else { return Ok(None) };
    let whole = value.as_u64().or_else(|| {
        let f = value.as_f64()?;
        // In range, so the cast only drops the fraction.
        (f >= 0.0 && f <= MAX as f64).then_some(f as u64)
    });
    match whole {
        Some(n) if n <= MAX => Ok(Some(n)),
        _ => Err(TokenError::Malformed("a date is not a number of seconds")),
    }
}
