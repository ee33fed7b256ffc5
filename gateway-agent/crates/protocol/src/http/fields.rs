//! Header fields: which break HTTP, which end at the gateway, and what is left of the others.

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
};

use super::BadRequest;

/// Methods that are never relayed: a tunnel, and what would show the job what the gateway adds.
const METHODS: &[&str] = &["CONNECT", "TRACE", "TRACK"];
/// Fields that are about one connection (RFC 9110 7.6.1).
const HOP: &[&str] = &[
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];
/// Fields by which some servers take a request for another one than it is, or for somebody else's.
const DISGUISES: &[&str] = &[
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// Looks at a request's fields as they came, before anything is taken from them. `Some`: what the connection is to become.
///
/// # Errors
/// When they break HTTP, or frame the message in a way that is read differently elsewhere.
pub fn check(method: &str, version: Version, headers: &HeaderMap) -> Result<Option<String>, BadRequest> {
    if METHODS.iter().any(|known| known.eq_ignore_ascii_case(method))
        || !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
    {
        return Err(BadRequest::Method(method.chars().take(20).collect()));
    }
    let h2 = match version {
        Version::HTTP_11 => false,
        Version::HTTP_2 => true,
        _ => return Err(BadRequest::Version),
    };
    if h2 {
        // RFC 9113 8.2.2; hyper refuses most of them itself.
        let about_connection = [CONNECTION, TRANSFER_ENCODING, UPGRADE]
            .into_iter()
            .chain(["keep-alive", "proxy-connection", "http2-settings"].map(HeaderName::from_static));
        for name in about_connection {
            if headers.contains_key(&name) {
                return Err(BadRequest::Field(name.as_str().to_owned()));
            }
        }
        if headers.get_all(TE).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
            return Err(BadRequest::Field(TE.as_str().to_owned()));
        }
    }
    for name in headers.keys() {
        // Read as a `-` by some (CGI, WSGI), and then as another field.
        if name.as_str().contains('_') && hyphenated(name.as_str()) {
            return Err(BadRequest::Field(name.as_str().to_owned()));
        }
    }
    framing(headers)?;
    let mut expected = headers.get_all(EXPECT).iter();
    if expected.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(BadRequest::Expect);
    }
    upgrade(headers)
}

/// With hyphens it would be a field that means something here.
fn hyphenated(name: &str) -> bool {
    let name = name.replace('_', "-");
    let framing = ["content-length", "host", "expect", "trailer", "authorization", "cookie"];
    HOP.contains(&name.as_str()) || DISGUISES.contains(&name.as_str()) || framing.contains(&name.as_str())
}

fn framing(headers: &HeaderMap) -> Result<(), BadRequest> {
    let lengths: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
    let digits = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        !bytes.is_empty() && bytes.len() <= 19 && bytes.iter().all(u8::is_ascii_digit)
    };
    match lengths.as_slice() {
        [] => {}
        [one] if digits(one) => {}
        [_] => return Err(BadRequest::ContentLength),
        _ => return Err(BadRequest::Twice("Content-Length")),
    }
    let codings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().collect();
    match codings.as_slice() {
        [] => Ok(()),
        [_] if !lengths.is_empty() => Err(BadRequest::Framing),
        [one] if one.as_bytes() == b"chunked" => Ok(()),
        [_] => Err(BadRequest::TransferEncoding),
        _ => Err(BadRequest::Twice("Transfer-Encoding")),
    }
}

fn upgrade(headers: &HeaderMap) -> Result<Option<String>, BadRequest> {
    let listed = options(headers).any(|option| option == "upgrade");
    let mut wanted = headers.get_all(UPGRADE).iter();
    match (listed, wanted.next(), wanted.next()) {
        (_, None, _) => Ok(None),
        (_, Some(_), Some(_)) => Err(BadRequest::Twice("Upgrade")),
        (true, Some(one), None) => {
            let text = one.to_str().map_err(|_| BadRequest::Field("upgrade".to_owned()))?;
            let token = |c: char| c.is_ascii_alphanumeric() || "-./".contains(c);
            match !text.is_empty() && text.chars().all(token) && !text.eq_ignore_ascii_case("h2c") {
                true => Ok(Some(text.to_ascii_lowercase())),
                // A list of protocols, or HTTP/2 in clear text, by which what follows would be unseen.
                false => Err(BadRequest::Field("upgrade".to_owned())),
            }
        }
        // Said to whoever is next on the way: nobody.
        (false, Some(_), None) => Err(BadRequest::Field("upgrade".to_owned())),
    }
}

/// Names in Connection, lower case.
fn options(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|option| option.trim().to_ascii_lowercase())
}

/// Takes away what is about the connection that the message came by, and its framing.
fn end_to_end(headers: &mut HeaderMap) {
    let listed: Vec<_> = options(headers).collect();
    for name in listed.iter().map(String::as_str).chain(HOP.iter().copied()) {
        headers.remove(name);
    }
}

/// What of a request's fields goes to the server: without those about the connection, without disguises, without `strip` (lower
/// case). Host, framing and what the gateway sets are the caller's.
pub fn request(headers: &mut HeaderMap, strip: &[String]) {
    let trailers = headers.get_all(TE).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|text| text.split(',').any(|one| one.trim().eq_ignore_ascii_case("trailers")))
    });
    end_to_end(headers);
    for name in DISGUISES.iter().copied().chain(["host", "expect", "content-length"]) {
        headers.remove(name);
    }
    for name in strip {
        headers.remove(name.as_str());
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// What of a response's fields goes to the job. `masked`: its body is another than the server's.
pub fn response(headers: &mut HeaderMap, masked: bool) {
    end_to_end(headers);
    // Other ways to the same host, which the job does not have.
    headers.remove("alt-svc");
    if masked {
        for name in [
            "accept-ranges",
            "content-encoding",
            "content-length",
            "content-md5",
            "content-digest",
            "digest",
            "etag",
            "repr-digest",
            "signature",
            "signature-input",
        ] {
            headers.remove(name);
        }
    }
}

/// What of a message's trailers is passed on: nothing that frames, routes or identifies (RFC 9110 6.5.1).
pub fn trailers(headers: &mut HeaderMap) {
    end_to_end(headers);
    for name in [
        CONTENT_LENGTH.as_str(),
        TRAILER.as_str(),
        PROXY_AUTHORIZATION.as_str(),
        PROXY_AUTHENTICATE.as_str(),
        "host",
        "authorization",
        "cookie",
        "set-cookie",
        "content-encoding",
        "content-type",
        "content-range",
        "expect",
        "range",
        "te",
    ] {
        headers.remove(name);
    }
    for name in DISGUISES {
        headers.remove(*name);
    }
}

/// Takes away what makes a response partial or unreadable, where it has to be read as a whole.
pub fn readable(headers: &mut HeaderMap) {
    for name in ["range", "if-range", "a-im"] {
        headers.remove(name);
    }
    headers.insert(http::header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate, br, zstd"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn framing_that_is_read_differently_is_refused() {
        let h1 = |pairs: &[(&'static str, &str)]| check("POST", Version::HTTP_11, &headers(pairs));
        assert_eq!(h1(&[("content-length", "5")]), Ok(None));
        assert_eq!(h1(&[("transfer-encoding", "chunked")]), Ok(None));
        for wrong in ["", "+5", "-1", "0x5", "5, 5", "5 ", "99999999999999999999", "5;"] {
            h1(&[("content-length", wrong)]).expect_err(wrong);
        }
        for wrong in [
            "Chunked",
            "gzip, chunked",
            "chunked, chunked",
            "identity",
            "xchunked",
            "chunked;x=1",
            "\tchunked",
        ] {
            if HeaderValue::from_str(wrong).is_ok() {
                h1(&[("transfer-encoding", wrong)]).expect_err(wrong);
            }
        }
        assert_eq!(
            h1(&[("content-length", "5"), ("transfer-encoding", "chunked")]),
            Err(BadRequest::Framing)
        );
        assert_eq!(
            h1(&[("content-length", "5"), ("content-length", "5")]),
            Err(BadRequest::Twice("Content-Length"))
        );
        h1(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]).unwrap_err();
        h1(&[("content_length", "5")]).unwrap_err();
        h1(&[("transfer_encoding", "chunked")]).unwrap_err();
        assert_eq!(h1(&[("expect", "200-ok")]), Err(BadRequest::Expect));
    }

    #[test]
    fn what_h2_forbids_is_refused_there() {
        let h2 = |pairs: &[(&'static str, &str)]| check("GET", Version::HTTP_2, &headers(pairs));
        for (name, value) in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("keep-alive", "x"),
            ("proxy-connection", "x"),
            ("te", "gzip"),
        ] {
            h2(&[(name, value)]).expect_err(name);
        }
        assert_eq!(h2(&[("te", "trailers")]), Ok(None));
    }

    #[test]
    fn methods_that_open_or_show_more_are_refused() {
        for method in ["CONNECT", "TRACE", "TRACK", "get", "Get", "G=T"] {
            assert!(
                matches!(check(method, Version::HTTP_11, &HeaderMap::new()), Err(BadRequest::Method(_))),
                "{method}"
            );
        }
        check("GET", Version::HTTP_10, &HeaderMap::new()).unwrap_err();
    }

    #[test]
    fn upgrades_are_one_protocol_that_the_connection_names() {
        let of = |pairs: &[(&'static str, &str)]| check("GET", Version::HTTP_11, &headers(pairs));
        assert_eq!(
            of(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]),
            Ok(Some("websocket".into()))
        );
        assert_eq!(of(&[("connection", "upgrade")]), Ok(None));
        of(&[("upgrade", "websocket")]).unwrap_err();
        of(&[("connection", "upgrade"), ("upgrade", "h2c")]).unwrap_err();
        of(&[("connection", "upgrade"), ("upgrade", "websocket, h2c")]).unwrap_err();
    }

    #[test]
    fn what_is_about_the_connection_ends_here() {
        let mut all = headers(&[
            ("connection", "X-Own, close"),
            ("x-own", "1"),
            ("keep-alive", "1"),
            ("te", "gzip, trailers"),
            ("x-forwarded-host", "admin"),
            ("x-original-url", "/admin"),
            ("x-http-method-override", "DELETE"),
            ("proxy-authorization", "x"),
            ("expect", "100-continue"),
            ("content-length", "5"),
            ("x-secret", "1"),
            ("accept", "*/*"),
        ]);
        request(&mut all, &["x-secret".into()]);
        let mut left: Vec<_> = all.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "te"]);
        assert_eq!(all.get(TE).unwrap(), "trailers");
        let mut back =
            headers(&[("transfer-encoding", "chunked"), ("alt-svc", "h3"), ("etag", "x"), ("vary", "y")]);
        response(&mut back, true);
        assert_eq!(back.len(), 1);
    }
}
