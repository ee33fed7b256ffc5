use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    super::testing::{ISSUER, NOW, SigningKey, claims, identity, write_jwks},
    *,
};
use crate::{
    config::KeySource,
    state::{SqliteStore, Store},
};

struct Bench {
    dir: tempfile::TempDir,
    key: SigningKey,
    verifier: Verifier,
    store: SqliteStore,
}

impl Bench {
    fn new(nonce: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("jwks.json");
        let key = SigningKey::new("k1", Algorithm::ES256);
        write_jwks(&file, &[&key]);
        let verifier = Verifier::new(&identity(KeySource::File(file), nonce)).unwrap();
        Self { dir, key, verifier, store: SqliteStore::in_memory() }
    }

    async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        self.verifier.verify(token, None, UnixTime(NOW), &self.store).await
    }

    /// Good claims with some changed; `null` removes one.
    async fn with(&self, changes: Value) -> Result<Claims, TokenError> {
        let mut c = claims("gw");
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => c.as_object_mut().unwrap().remove(name),
                v => c.as_object_mut().unwrap().insert(name.clone(), v.clone()),
            };
        }
        self.verify(&self.key.sign(&c)).await
    }
}

#[tokio::test]
async fn every_accepted_algorithm_works() {
    let b = Bench::new(false);
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let key = SigningKey::new("other", algorithm);
        write_jwks(&b.dir.path().join("jwks.json"), &[&b.key, &key]);
        let good = b.verify(&key.sign(&claims("gw"))).await.unwrap();
        assert_eq!(good.sub, "repo:acme/payments");
        assert_eq!(good.all["repository"], "acme/payments");
        assert!(good.all.get("jti").is_none() && good.all.get("exp").is_none());
    }
}

#[tokio::test]
async fn every_required_claim_is_required() {
    let b = Bench::new(false);
    for name in ["exp", "aud", "iss", "sub", "iat", "jti"] {
        let e = b.with(json!({ name: null })).await.unwrap_err();
        assert_eq!(e, TokenError::Missing(name));
    }
    assert!(b.with(json!({"nbf": null})).await.is_ok(), "nbf is optional");
}

#[tokio::test]
async fn times_are_checked_with_bounded_skew() {
    let b = Bench::new(false);
    assert_eq!(b.with(json!({"exp": NOW - 30})).await.unwrap_err(), TokenError::Expired(30));
    assert!(b.with(json!({"exp": NOW - 29, "iat": NOW - 60})).await.is_ok(), "within the skew");
    assert_eq!(b.with(json!({"nbf": NOW + 31})).await.unwrap_err(), TokenError::NotYet(31));
    assert_eq!(b.with(json!({"iat": NOW + 31})).await.unwrap_err(), TokenError::NotYet(31));
    assert!(b.with(json!({"nbf": NOW + 30, "iat": NOW + 30})).await.is_ok(), "within the skew");
    assert!(matches!(b.with(json!({"exp": NOW + 4000})).await.unwrap_err(), TokenError::Lifetime(_)));
    assert!(matches!(b.with(json!({"exp": NOW - 5, "iat": NOW - 5})).await, Err(TokenError::Malformed(_))));
    for odd in [json!("soon"), json!(-1), json!(1e300), json!([1]), json!(u64::MAX)] {
        let e = b.with(json!({ "exp": odd })).await.unwrap_err();
        assert!(matches!(e, TokenError::Malformed(_)), "{odd}: {e}");
    }
    assert!(b.with(json!({"exp": NOW as f64 + 60.5})).await.is_ok(), "dates may have fractions");
}

#[tokio::test]
async fn wrong_audience_and_wrong_issuer_are_refused() {
    let b = Bench::new(false);
    let e = b.with(json!({"aud": "other"})).await.unwrap_err();
    assert_eq!(e.code(), "wrong_audience");
    assert!(b.with(json!({"aud": ["x", "gw"]})).await.is_ok());
    for odd in [json!([]), json!(["gw:x", "GW"])] {
        assert_eq!(b.with(json!({ "aud": odd })).await.unwrap_err().code(), "wrong_audience");
    }
    for odd in [json!(["gw", 1]), json!({"gw": 1}), json!(7)] {
        assert_eq!(b.with(json!({ "aud": odd })).await.unwrap_err().code(), "malformed");
    }
    for iss in ["https://evil.example", "https://token.example/", "HTTPS://token.example", ""] {
        assert_eq!(b.with(json!({ "iss": iss })).await.unwrap_err().code(), "wrong_issuer", "{iss}");
    }
}

#[tokio::test]
async fn unsigned_and_weakly_signed_tokens_are_refused() {
    let b = Bench::new(false);
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let good = claims("gw");
    for alg in ["none", "None", "NONE"] {
        for signature in ["", "AAAA"] {
            let token = format!("{}.{}.{signature}", part(&json!({ "alg": alg })), part(&good));
            assert_eq!(b.verify(&token).await.unwrap_err(), TokenError::Unsigned);
        }
    }
    let hs = jsonwebtoken::encode(
        &jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256),
        &good,
        // The classic: the public key as an HMAC secret.
        &jsonwebtoken::EncodingKey::from_secret(b.key.jwk["x"].as_str().unwrap().as_bytes()),
    )
    .unwrap();
    assert_eq!(b.verify(&hs).await.unwrap_err(), TokenError::Algorithm("HS256".into()));
    for alg in ["ES384", "PS256", "RS512", "es256", ""] {
        let token = format!("{}.{}.AAAA", part(&json!({ "alg": alg })), part(&good));
        assert_eq!(b.verify(&token).await.unwrap_err().code(), "algorithm", "{alg}");
    }
}

#[tokio::test]
async fn signatures_by_other_keys_are_refused() {
    let b = Bench::new(false);
    let same_name = SigningKey::new("k1", Algorithm::ES256);
    assert_eq!(b.verify(&same_name.sign(&claims("gw"))).await.unwrap_err(), TokenError::Signature);
    let unknown = SigningKey::new("k2", Algorithm::ES256);
    assert_eq!(
        b.verify(&unknown.sign(&claims("gw"))).await.unwrap_err(),
        TokenError::UnknownKey("k2".into())
    );
    // The name of a key of another kind does not make it usable.
    let other_kind = SigningKey::new("k1", Algorithm::EdDSA);
    assert_eq!(b.verify(&other_kind.sign(&claims("gw"))).await.unwrap_err().code(), "unknown_key");

    let token = b.key.sign(&claims("gw"));
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    parts[1] = URL_SAFE_NO_PAD.encode(claims("gw").to_string());
    assert_eq!(b.verify(&parts.join(".")).await.unwrap_err(), TokenError::Signature, "claims swapped");
}

#[tokio::test]
async fn a_token_without_kid_needs_an_unambiguous_key() {
    let b = Bench::new(false);
    assert!(b.verify(&b.key.sign_without_kid(&claims("gw"))).await.is_ok());
    let second = SigningKey::new("k2", Algorithm::ES256);
    write_jwks(&b.dir.path().join("jwks.json"), &[&b.key, &second]);
    assert_eq!(b.verify(&b.key.sign_without_kid(&claims("gw"))).await.unwrap_err().code(), "unknown_key");
}

#[tokio::test]
async fn keys_in_the_header_and_critical_extensions_are_not_believed() {
    let b = Bench::new(false);
    let evil = SigningKey::new("k1", Algorithm::ES256);
    let mut header = jsonwebtoken::Header::new(evil.algorithm);
    header.kid = Some("k1".into());
    header.jku = Some("https://evil.example/keys".into());
    header.jwk = serde_json::from_value(evil.jwk.clone()).ok();
    assert!(header.jwk.is_some());
    let signed = evil.sign(&claims("gw"));
    let signature = signed.rsplit('.').next().unwrap();
    let head = URL_SAFE_NO_PAD.encode(serde_json::to_string(&header).unwrap());
    let body = URL_SAFE_NO_PAD.encode(claims("gw").to_string());
    assert_eq!(b.verify(&format!("{head}.{body}.{signature}")).await.unwrap_err(), TokenError::Signature);

    let head = URL_SAFE_NO_PAD.encode(json!({"alg": "ES256", "crit": ["x"], "x": 1}).to_string());
    assert_eq!(b.verify(&format!("{head}.{body}.AAAA")).await.unwrap_err().code(), "malformed");
}

#[tokio::test]
async fn malformed_tokens_are_refused_and_not_repeated() {
    let b = Bench::new(false);
    let good = b.key.sign(&claims("gw"));
    let deep = URL_SAFE_NO_PAD.encode("[".repeat(9000));
    for bad in [
        "".to_owned(),
        "secretsecret".to_owned(),
        "a.b".to_owned(),
        "..".to_owned(),
        "a.b.c.d".to_owned(),
        format!("{good}.x"),
        good.replace('.', ".="),
        format!("{}.{}.", &good.split('.').next().unwrap(), good.split('.').nth(1).unwrap()),
        format!("{}.{deep}.x", good.split('.').next().unwrap()),
        "x".repeat(20_000),
        "\u{0}\u{ff}..".to_owned(),
    ] {
        let e = b.verify(&bad).await.unwrap_err();
        assert_eq!(e.code(), "malformed", "{bad:.40}: {e}");
        assert!(bad.len() < 8 || !e.to_string().contains(&bad));
    }
}

#[tokio::test]
async fn a_token_is_good_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let b = Bench::new(false);
    let token = b.key.sign(&claims("gw"));
    let first = SqliteStore::open(&dir.path().join("s")).unwrap();
    b.verifier.verify(&token, None, UnixTime(NOW), &first).await.unwrap();
    let again = b.verifier.verify(&token, None, UnixTime(NOW), &first).await.unwrap_err();
    assert_eq!(again, TokenError::Replayed);
    drop(first);
    let reopened = SqliteStore::open(&dir.path().join("s")).unwrap();
    // Sweeping within the tolerated time must not forget it.
    reopened.forget_tokens(UnixTime(NOW + 600 + 30)).unwrap();
    let again = b.verifier.verify(&token, None, UnixTime(NOW), &reopened).await.unwrap_err();
    assert_eq!(again, TokenError::Replayed);
}

#[tokio::test]
async fn the_nonce_has_to_be_in_the_audience() {
    let b = Bench::new(true);
    let verify = async |aud: &str, nonce: Option<&str>| {
        let token = b.key.sign(&claims(aud));
        b.verifier.verify(&token, nonce, UnixTime(NOW), &b.store).await
    };
    assert!(verify("gw:n1", Some("n1")).await.is_ok());
    assert_eq!(verify("gw:n1", None).await.unwrap_err(), TokenError::Nonce);
    for aud in ["gw", "gw:", "gw:n2", "n1"] {
        assert_eq!(verify(aud, Some("n1")).await.unwrap_err().code(), "wrong_audience", "{aud}");
    }
    assert_eq!(b.verifier.audiences("n9"), [(ISSUER.to_owned(), "gw:n9".to_owned())]);
}

#[tokio::test]
async fn a_pinned_file_is_read_again_when_it_changes() {
    let b = Bench::new(false);
    let file = b.dir.path().join("jwks.json");
    let next = SigningKey::new("k2", Algorithm::EdDSA);
    assert!(b.verify(&next.sign(&claims("gw"))).await.is_err());
    write_jwks(&file, &[&next]);
    assert!(b.verify(&next.sign(&claims("gw"))).await.is_ok());
    assert_eq!(b.verify(&b.key.sign(&claims("gw"))).await.unwrap_err().code(), "unknown_key", "rotated out");
    std::fs::write(&file, "not json at all").unwrap();
    assert_eq!(b.verify(&next.sign(&claims("gw"))).await.unwrap_err().code(), "keys_unavailable");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(b.verify(&next.sign(&claims("gw"))).await.unwrap_err().code(), "keys_unavailable");
}

#[tokio::test]
async fn unusable_keys_of_a_set_are_left_out() {
    let b = Bench::new(false);
    let mut encryption = SigningKey::new("k1", Algorithm::ES256);
    let token = encryption.sign(&claims("gw"));
    for (member, value) in [
        ("use", json!("enc")),
        ("key_ops", json!(["sign"])),
        ("alg", json!("ES384")),
        ("crv", json!("P-521")),
    ] {
        let good = encryption.jwk[member].clone();
        encryption.jwk[member] = value;
        write_jwks(&b.dir.path().join("jwks.json"), &[&encryption]);
        assert_eq!(b.verify(&token).await.unwrap_err().code(), "unknown_key", "{member}");
        encryption.jwk[member] = good;
    }
}

mod over_https {
    //! Discovery against a TLS server of our own.

    use std::{
        collections::HashMap,
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Server {
        issuer: String,
        ca: std::path::PathBuf,
        pages: Arc<Mutex<HashMap<String, String>>>,
        hits: Arc<AtomicUsize>,
        _dir: tempfile::TempDir,
    }

    /// Serves `pages`; a page that begins with `HTTP/` is sent as it is.
    async fn server() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let authority = crate::tls::Authority::open(dir.path()).unwrap();
        let ca = dir.path().join("ca.pem");
        let config = authority
            .job_acceptor(
                &crate::tls::Names { dns: vec!["localhost".into()], ips: Vec::new() },
                crate::tls::HTTP_1,
            )
            .unwrap();
        let mut config = (*config).clone();
        config.alpn_protocols.clear();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let pages: Arc<Mutex<HashMap<String, String>>> = Arc::default();
        let hits = Arc::new(AtomicUsize::new(0));
        let (served, counted) = (pages.clone(), hits.clone());
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = tls.read_u8().await else { break };
                    request.push(byte);
                }
                counted.fetch_add(1, Ordering::Relaxed);
                let text = String::from_utf8_lossy(&request).into_owned();
                let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                let page = served.lock().unwrap().get(&path).cloned();
                let answer = match page {
                    Some(raw) if raw.starts_with("HTTP/") => raw,
                    Some(body) => {
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                    }
                    None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into(),
                };
                // The client may have had enough and gone.
                let _ = tls.write_all(answer.as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        });
        Server { issuer, ca, pages, hits, _dir: dir }
    }

    impl Server {
        fn keys(&self, keys: &[&SigningKey]) {
            let set = json!({ "keys": keys.iter().map(|k| k.jwk.clone()).collect::<Vec<_>>() });
            let found = json!({ "issuer": self.issuer, "jwks_uri": format!("{}/keys", self.issuer) });
            let mut pages = self.pages.lock().unwrap();
            pages.insert("/.well-known/openid-configuration".into(), found.to_string());
            pages.insert("/keys".into(), set.to_string());
        }

        fn verifier(&self, ca: bool) -> Verifier {
            let ca = ca.then(|| self.ca.clone());
            let mut config = identity(KeySource::Discovery { ca }, false);
            config.issuers[0].issuer = self.issuer.clone();
            config.issuers[0].max_lifetime = std::time::Duration::from_secs(200_000);
            Verifier::new(&config).unwrap()
        }

        fn token(&self, key: &SigningKey) -> String {
            let mut c = claims("gw");
            c["iss"] = self.issuer.clone().into();
            // Long enough to be good whenever the test looks at it.
            c["exp"] = (NOW + 100_000).into();
            key.sign(&c)
        }
    }

    async fn verify(v: &Verifier, token: &str) -> Result<Claims, TokenError> {
        verify_at(v, token, 0).await
    }

    async fn verify_at(v: &Verifier, token: &str, later: u64) -> Result<Claims, TokenError> {
        v.verify(token, None, UnixTime(NOW + later), &SqliteStore::in_memory()).await
    }

    #[tokio::test]
    async fn keys_are_found_cached_and_rotated() {
        let s = server().await;
        let (old, new) = (SigningKey::new("old", Algorithm::ES256), SigningKey::new("new", Algorithm::EdDSA));
        s.keys(&[&old]);
        let v = s.verifier(true);
        for _ in 0..3 {
            verify(&v, &s.token(&old)).await.unwrap();
        }
        assert_eq!(s.hits.load(Ordering::Relaxed), 2, "one discovery, one key set");

        s.keys(&[&old, &new]);
        assert_eq!(
            verify(&v, &s.token(&new)).await.unwrap_err().code(),
            "unknown_key",
            "too soon to ask again"
        );
        assert_eq!(s.hits.load(Ordering::Relaxed), 2, "garbage cannot make us ask");
        verify_at(&v, &s.token(&new), 11).await.unwrap();
        assert_eq!(s.hits.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn a_known_key_outlives_an_issuer_that_is_down() {
        let s = server().await;
        let key = SigningKey::new("k", Algorithm::ES256);
        s.keys(&[&key]);
        let v = s.verifier(true);
        verify(&v, &s.token(&key)).await.unwrap();
        s.pages.lock().unwrap().clear();
        verify_at(&v, &s.token(&key), 3600).await.unwrap();
        let e = verify_at(&v, &s.token(&key), 25 * 3600).await.unwrap_err();
        assert_eq!(e.code(), "keys_unavailable");
    }

    #[tokio::test]
    async fn an_untrusted_server_is_not_believed() {
        let s = server().await;
        let key = SigningKey::new("k", Algorithm::ES256);
        s.keys(&[&key]);
        let other = tempfile::tempdir().unwrap();
        crate::tls::Authority::open(other.path()).unwrap();
        let mut config = identity(KeySource::Discovery { ca: Some(other.path().join("ca.pem")) }, false);
        config.issuers[0].issuer = s.issuer.clone();
        let v = Verifier::new(&config).unwrap();
        assert_eq!(verify(&v, &s.token(&key)).await.unwrap_err().code(), "keys_unavailable");
        assert_eq!(s.hits.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn bad_answers_are_refused() {
        let key = SigningKey::new("k", Algorithm::ES256);
        let discovery = "/.well-known/openid-configuration";
        let plain_http = r#"{"issuer":"ISS","jwks_uri":"http://localhost:1/keys"}"#;
        for (path, page) in [
            (discovery, r#"{"issuer":"https://other.example","jwks_uri":"ISS/keys"}"#.to_owned()),
            (discovery, plain_http.to_owned()),
            (discovery, "<html>".to_owned()),
            (
                discovery,
                "HTTP/1.1 302 Found\r\nlocation: https://127.0.0.1/x\r\ncontent-length: 0\r\n\r\n".to_owned(),
            ),
            (discovery, "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_owned()),
            ("/keys", format!("HTTP/1.1 200 OK\r\n\r\n{}", "[".repeat(600_000))),
            ("/keys", "{}".to_owned()),
        ] {
            let s = server().await;
            s.keys(&[&key]);
            s.pages.lock().unwrap().insert(path.into(), page.replace("ISS", &s.issuer));
            let e = verify(&s.verifier(true), &s.token(&key)).await.unwrap_err();
            assert_eq!(e.code(), "keys_unavailable", "{page:.80}");
        }
    }
}
