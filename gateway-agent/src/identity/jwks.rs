//! An issuer's public keys: from a pinned file or by discovery over HTTPS, cached, rotating.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use jsonwebtoken::DecodingKey;
use policy::UnixTime;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::TokenError;
use crate::{
    config::{Algorithm, KeySource},
    https::Https,
};

/// Largest discovery document or key set read.
const MAX_BODY: usize = 512 * 1024;
/// Keys kept of one set.
const MAX_KEYS: usize = 100;
/// A set is fetched again after this many seconds, known keys or not.
const FRESH: u64 = 15 * 60;
/// Without the issuer, known keys are good this many seconds.
const STALE: u64 = 24 * 3600;
/// Unknown key ids cause at most one fetch in this many seconds.
const PAUSE: u64 = 10;

/// One issuer's keys.
pub(super) struct Keys {
    issuer: String,
    source: Source,
    cache: Mutex<Cache>,
}

enum Source {
    File(PathBuf),
    Https(Https),
}

#[derive(Default)]
struct Cache {
    keys: Arc<[Key]>,
    loaded: Option<UnixTime>,
    tried: Option<UnixTime>,
    /// Of the pinned file when it was read.
    stamp: Option<Stamp>,
}

#[derive(PartialEq)]
struct Stamp(u64, u64, Option<SystemTime>);

/// A usable public key.
#[derive(Clone)]
pub(super) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

impl Keys {
    pub(super) fn new(issuer: &str, source: &KeySource) -> Result<Self, TokenError> {
        let source = match source {
            KeySource::File(path) => Source::File(path.clone()),
            KeySource::Discovery { ca } => {
                Source::Https(Https::new(ca.as_deref()).map_err(TokenError::Keys)?)
            }
        };
        Ok(Self { issuer: issuer.to_owned(), source, cache: Mutex::default() })
    }

    /// The keys that may have signed: the named one, or, for a token that names none, the only one of its
    /// algorithm.
    pub(super) async fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        now: UnixTime,
    ) -> Result<Vec<Key>, TokenError> {
        let mut cache = self.cache.lock().await;
        self.freshen(&mut cache, false, now).await?;
        let mut found = pick(&cache.keys, id, algorithm);
        if found.is_empty() {
            self.freshen(&mut cache, true, now).await?;
            found = pick(&cache.keys, id, algorithm);
        }
        if found.is_empty() {
            return Err(TokenError::UnknownKey(shown(id)));
        }
        Ok(found)
    }

    /// `wanted`: a key was asked for that the cache does not have.
    async fn freshen(&self, cache: &mut Cache, wanted: bool, now: UnixTime) -> Result<(), TokenError> {
        match &self.source {
            Source::File(path) => from_file(path, cache),
            Source::Https(client) => {
                // A clock that was set back makes everything due.
                let since = |t: UnixTime| now.0.checked_sub(t.0).unwrap_or(STALE);
                let age = cache.loaded.map(since);
                let due = wanted || age.is_none_or(|a| a >= FRESH);
                let allowed = cache.tried.is_none_or(|t| since(t) >= PAUSE);
                if due && allowed {
                    cache.tried = Some(now);
                    match fetch(client, &self.issuer).await {
                        Ok(keys) => {
                            cache.keys = keys;
                            cache.loaded = Some(now);
                            return Ok(());
                        }
                        Err(error) => {
                            tracing::warn!(issuer = %self.issuer, %error, "keys could not be fetched");
                            if age.is_none_or(|a| a >= STALE) {
                                cache.keys = Arc::default();
                                return Err(TokenError::Keys(error));
                            }
                        }
                    }
                }
                match cache.loaded {
                    Some(t) if since(t) < STALE => Ok(()),
                    _ => Err(TokenError::Keys("the last attempt failed a moment ago; try again".into())),
                }
            }
        }
    }
}

fn pick(keys: &[Key], id: Option<&str>, algorithm: Algorithm) -> Vec<Key> {
    let of_algorithm = keys.iter().filter(|k| k.algorithm == algorithm);
    match id {
        Some(_) => of_algorithm.filter(|k| k.id.as_deref() == id).cloned().collect(),
        None => {
            let all: Vec<Key> = of_algorithm.cloned().collect();
            if all.len() == 1 { all } else { Vec::new() }
        }
    }
}

/// A key id for an error message: bounded and printable.
fn shown(id: Option<&str>) -> String {
    match id {
        Some(id) => id.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect(),
        None => "(none named)".into(),
    }
}

fn from_file(path: &Path, cache: &mut Cache) -> Result<(), TokenError> {
    use std::os::unix::fs::MetadataExt;
    let fail = |e: &dyn std::fmt::Display| TokenError::Keys(format!("{}: {e}", path.display()));
    let meta = std::fs::metadata(path).map_err(|e| fail(&e))?;
    let stamp = Stamp(meta.ino(), meta.len(), meta.modified().ok());
    if cache.stamp.as_ref() == Some(&stamp) {
        return Ok(());
    }
    if meta.len() > MAX_BODY as u64 {
        return Err(fail(&"larger than 512 KiB"));
    }
    let keys = parse(&std::fs::read(path).map_err(|e| fail(&e))?).map_err(|e| fail(&e))?;
    cache.keys = keys;
    cache.stamp = Some(stamp);
    Ok(())
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

async fn fetch(client: &Https, issuer: &str) -> Result<Arc<[Key]>, String> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let found: Discovery =
        serde_json::from_slice(&client.get(&url, MAX_BODY).await?).map_err(|e| format!("{url}: {e}"))?;
    if found.issuer != issuer {
        return Err(format!("{url} speaks for another issuer"));
    }
    parse(&client.get(&found.jwks_uri, MAX_BODY).await?)
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<serde_json::Value>,
}

/// RFC 7517. Members that this gateway has no use for are not read.
#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Keys of other kinds, sizes and uses are left out, as RFC 7517 section 5 wants.
fn parse(json: &[u8]) -> Result<Arc<[Key]>, String> {
    let set: RawSet = serde_json::from_slice(json).map_err(|e| format!("not a key set: {e}"))?;
    Ok(set
        .keys
        .into_iter()
        .filter_map(|k| serde_json::from_value::<RawKey>(k).ok())
        .filter_map(|k| usable(&k))
        .take(MAX_KEYS)
        .collect())
}

fn usable(raw: &RawKey) -> Option<Key> {
    let signs = raw.usage.as_deref().is_none_or(|u| u == "sig")
        && raw.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|o| o == "verify"));
    let (algorithm, decoding) = match (raw.kty.as_str(), raw.crv.as_deref()) {
        ("RSA", None) => {
            let n = raw.n.as_deref()?;
            // 2048 to 8192 bits, in base64.
            if !(341..=1366).contains(&n.len()) {
                return None;
            }
            (Algorithm::RS256, DecodingKey::from_rsa_components(n, raw.e.as_deref()?).ok()?)
        }
        ("EC", Some("P-256")) => {
            (Algorithm::ES256, DecodingKey::from_ec_components(raw.x.as_deref()?, raw.y.as_deref()?).ok()?)
        }
        ("OKP", Some("Ed25519")) => {
            (Algorithm::EdDSA, DecodingKey::from_ed_components(raw.x.as_deref()?).ok()?)
        }
        _ => return None,
    };
    let agrees = match raw.alg.as_deref() {
        None => true,
        Some("Ed25519") => algorithm == Algorithm::EdDSA,
        Some(named) => named == format!("{algorithm:?}"),
    };
    (signs && agrees).then(|| Key { id: raw.kid.clone(), algorithm, decoding })
}
