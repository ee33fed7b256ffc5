use policy::Ambiguity::*;

use super::*;

fn came() -> Came<'static> {
    Came { scheme: Scheme::Https, name: Some("api.example"), port: 443 }
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(http::HeaderName::try_from(*name).unwrap(), http::HeaderValue::from_str(value).unwrap());
    }
    map
}

fn h1(target: &str, pairs: &[(&str, &str)]) -> Result<HttpRequest, BadRequest> {
    read(came(), "GET", &target.parse().unwrap(), Version::HTTP_11, &headers(pairs))
}

#[test]
fn plain_paths_have_one_reading() {
    for (raw, segments) in [
        ("/", &[][..]),
        ("/a", &["a"]),
        ("/a/", &["a"]),
        ("/a/b.c/d-e_f~g", &["a", "b.c", "d-e_f~g"]),
        ("/a%20b/%C3%A9", &["a b", "é"]),
        ("/@scope/name", &["@scope", "name"]),
        ("/...", &["..."]),
        ("/100%25", &["100%"]),
    ] {
        let path = path(raw).unwrap();
        assert_eq!(path.segments, segments, "{raw}");
        assert!(path.ambiguous.is_empty() && path.readings.is_empty(), "{raw}: {path:?}");
    }
}

#[test]
fn whatever_servers_differ_about_is_named_and_read_in_every_way() {
    for (raw, ways, reading) in [
        ("/a%2Fb", &[EncodedSlash][..], &["a", "b"][..]),
        ("/a%2fb", &[EncodedSlash], &["a", "b"]),
        ("/a/../b", &[DotSegment], &["b"]),
        ("/a/%2e%2E/b", &[DotSegment], &["b"]),
        ("/a/.%2e/b", &[DotSegment], &["b"]),
        ("/a/./b", &[DotSegment], &["a", "b"]),
        ("/a/..", &[DotSegment], &[]),
        ("/a%2f..%2fb", &[EncodedSlash, DotSegment], &["b"]),
        ("/x/..%2fadmin", &[EncodedSlash, DotSegment], &["admin"]),
        ("/%252e%252e/b", &[DoubleEncoding], &["b"]),
        ("/a%252fb", &[DoubleEncoding], &["a", "b"]),
        ("/a%25252fb", &[DoubleEncoding], &["a", "b"]),
        ("/a%5cb", &[Backslash], &["a", "b"]),
        ("/a\\b", &[Backslash], &["a", "b"]),
        ("/a/..\\..\\b", &[DotSegment, Backslash], &["b"]),
        ("//a", &[EmptySegment], &["a"]),
        ("/a//b", &[EmptySegment], &["a", "b"]),
        ("/a//", &[EmptySegment], &["a"]),
        ("/a;x=1/b", &[Parameter], &["a", "b"]),
        ("/a/..;/b", &[DotSegment, Parameter], &["b"]),
        ("/a%3b/b", &[Parameter], &["a", "b"]),
        ("/a%00.png", &[Control], &["a"]),
        ("/a%0d%0ab", &[Control], &["a\r\nb"]),
        ("/a%ff", &[NotUtf8], &["a\u{fffd}"]),
        ("/a%c0%ae", &[NotUtf8], &["a\u{fffd}\u{fffd}"]),
    ] {
        let path = path(raw).unwrap();
        assert_eq!(path.ambiguous, ways, "{raw}");
        let mut all = std::iter::once(&path.segments).chain(&path.readings);
        assert!(all.any(|one| one == reading), "{raw}: {path:?}");
    }
}

#[test]
fn what_is_no_path_is_refused() {
    for (raw, why) in [
        ("", BadRequest::Form),
        ("*", BadRequest::Form),
        ("a", BadRequest::Form),
        ("/%", BadRequest::Escape),
        ("/%2", BadRequest::Escape),
        ("/%zz", BadRequest::Escape),
        ("/%u0041", BadRequest::Escape),
        ("/a b", BadRequest::Character),
        ("/é", BadRequest::Character),
        ("/a#b", BadRequest::Character),
        ("/a\u{7f}", BadRequest::Character),
    ] {
        assert_eq!(path(raw), Err(why), "{raw}");
    }
    assert!(matches!(path(&format!("/{}", "a".repeat(TARGET))), Err(BadRequest::TargetLong(_))));
}

#[test]
fn the_host_is_the_connections_own() {
    for good in ["api.example", "API.Example", "api.example.", "api.example:443"] {
        assert_eq!(h1("/", &[("host", good)]).unwrap().host, "api.example", "{good}");
    }
    for other in ["other.example", "api.example:80", "xapi.example", "example"] {
        assert!(matches!(h1("/", &[("host", other)]), Err(BadRequest::Misdirected { .. })), "{other}");
    }
    for wrong in [
        "",
        "api.example:",
        "api.example:x",
        "user@api.example",
        "api.example/x",
        "api..example",
        "api.example:443:443",
        "a b",
        "[::1",
        "[x]",
        "[::1]x",
        "api.example:0",
        "api.example:99999",
        "-",
        "api.example,api.example",
        "%61pi.example",
    ] {
        let refused = h1("/", &[("host", wrong)]).expect_err(wrong);
        assert!(matches!(refused, BadRequest::Host | BadRequest::Misdirected { .. }), "{wrong}: {refused}");
    }
    assert_eq!(h1("/", &[]), Err(BadRequest::HostCount));
    assert_eq!(h1("/", &[("host", "api.example"), ("host", "api.example")]), Err(BadRequest::HostCount));
    let v6 = Came { scheme: Scheme::Http, name: None, port: 8080 };
    let all = headers(&[("host", "[2001:DB8::1]:8080")]);
    let read = read(v6, "GET", &"/".parse().unwrap(), Version::HTTP_11, &all).unwrap();
    assert_eq!((read.host.as_str(), read.authority().as_str()), ("2001:db8::1", "[2001:db8::1]:8080"));
}

#[test]
fn targets_are_in_origin_form() {
    let host = &[("host", "api.example")][..];
    for target in ["https://api.example/", "http://api.example/x", "//api.example/x"] {
        match target.parse::<Uri>() {
            Ok(uri) => {
                let read = read(came(), "GET", &uri, Version::HTTP_11, &headers(host));
                let refused =
                    read.as_ref().is_err() || read.is_ok_and(|read| !read.path.ambiguous.is_empty());
                assert!(refused, "{target}");
            }
            Err(_) => assert!(target.starts_with("//")),
        }
    }
    let h2 = |target: &str, pairs: &[(&str, &str)]| {
        read(came(), "GET", &target.parse().unwrap(), Version::HTTP_2, &headers(pairs))
    };
    assert_eq!(h2("https://api.example/x?y", &[]).unwrap().line(), "GET https://api.example/x?y");
    assert_eq!(h2("https://api.example/x", &[("host", "api.example")]).unwrap().host, "api.example");
    assert_eq!(h2("https://api.example/x", &[("host", "b.example")]), Err(BadRequest::HostAuthority));
    assert_eq!(h2("/x", &[]), Err(BadRequest::HostCount));
    assert!(matches!(h2("https://b.example/x", &[]), Err(BadRequest::Misdirected { .. })));
}

#[test]
fn queries_are_decoded_and_keep_their_order() {
    let pairs = |raw: &str| query(raw).unwrap();
    assert_eq!(
        pairs("a=1&b=%26+x&a=2;c"),
        [
            ("a".into(), "1".into()),
            ("b".into(), "& x".into()),
            ("a".into(), "2".into()),
            ("c".into(), String::new())
        ]
    );
    assert_eq!(query("a=%"), Err(BadRequest::Escape));
    assert_eq!(query("a=é"), Err(BadRequest::Character));
}
