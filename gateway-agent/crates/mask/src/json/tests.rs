use super::*;

fn masks(paths: &[(&str, Transform)]) -> Arc<[(JsonPath, Transform)]> {
    paths.iter().map(|(path, transform)| (JsonPath::parse(path).unwrap(), *transform)).collect()
}

fn run(paths: &[(&str, Transform)], detectors: &[&str], pieces: &[&[u8]]) -> Result<String, BadJson> {
    let detectors = (!detectors.is_empty()).then(|| Arc::new(Detectors::compile(detectors).unwrap()));
    let mut stream = JsonStream::new(masks(paths), detectors);
    let mut out = Vec::new();
    for piece in pieces {
        stream.push(piece, &mut out)?;
    }
    stream.finish(&mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

/// However it is cut, the same comes out.
#[track_caller]
fn same(paths: &[(&str, Transform)], detectors: &[&str], text: &str, wanted: &str) {
    assert_eq!(run(paths, detectors, &[text.as_bytes()]).as_deref(), Ok(wanted));
    for size in [1, 2, 3, 7] {
        let pieces: Vec<_> = text.as_bytes().chunks(size).collect();
        assert_eq!(run(paths, detectors, &pieces).as_deref(), Ok(wanted), "in pieces of {size}");
    }
}

const R: Transform = Transform::Redact;
const N: Transform = Transform::Null;

#[test]
fn values_are_hidden_by_path_and_all_else_keeps_its_bytes() {
    let text = r#" { "items" : [ {"token":"a","x":1.50}, {"x":[true, "\/"],"token":{"deep":["s"]}} ],"token":"kept" }"#;
    let wanted = r#" { "items" : [ {"token":"[redacted]","x":1.50}, {"x":[true, "\/"],"token":"[redacted]"} ],"token":"kept" }"#;
    same(&[("$.items[*].token", R)], &[], text, wanted);
    same(&[("$.items[1]", N)], &[], r#"{"items":[1,2,3]}"#, r#"{"items":[1,null,3]}"#);
    same(
        &[("$..token", N)],
        &[],
        r#"{"a":{"token":[1]},"token":{"token":2},"b":[[{"token":3}]]}"#,
        r#"{"a":{"token":null},"token":null,"b":[[{"token":null}]]}"#,
    );
    same(
        &[("$['a b'].*", R)],
        &[],
        r#"{"a b":{"x":1,"y":{}},"c":{"x":1}}"#,
        r#"{"a b":{"x":"[redacted]","y":"[redacted]"},"c":{"x":1}}"#,
    );
    same(&[("$", R)], &[], r#"{"a":1} "b" "#, r#""[redacted]" "[redacted]" "#);
    same(&[("$.a", R), ("$.a", N)], &[], r#"{"a":1}"#, r#"{"a":null}"#);
    same(&[("$.a", R)], &[], "", "");
}

#[test]
fn names_are_compared_as_their_reader_has_them() {
    same(
        &[("$.token", R)],
        &[],
        r#"{"tok\u0065n":"s","t\u006Fken":"s","token ":1}"#,
        r#"{"tok\u0065n":"[redacted]","t\u006Fken":"[redacted]","token ":1}"#,
    );
    same(
        &[("$.token", R)],
        &[],
        r#"{"token":1,"token":2}"#,
        r#"{"token":"[redacted]","token":"[redacted]"}"#,
    );
}

#[test]
fn findings_in_strings_names_and_numbers_are_hidden_as_their_reader_sees_them() {
    let text = r#"{"m":"x jo\u0040mail.example","k\u0065y":"A\u004bIAIOSFODNN7EXAMPLE","n":4111111111111111,"same":"\u00e9\/"}"#;
    let wanted = r#"{"m":"x [redacted:email]","k\u0065y":"[redacted:aws_access_key]","n":"[redacted:card]","same":"\u00e9\/"}"#;
    same(&[], &["email", "aws_access_key", "card"], text, wanted);
    let block = r#"{"private_key":"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ\n-----END PRIVATE KEY-----\n"}"#;
    let shown = run(&[], &["private_key"], &[block.as_bytes()]).unwrap();
    assert_eq!(shown, r#"{"private_key":"[redacted:private_key]\n"}"#);
    same(&[], &["email"], r#"{"jo@mail.example":1}"#, r#"{"[redacted:email]":1}"#);
}

#[test]
fn long_strings_are_searched_without_being_held() {
    let filler = "lorem ipsum \\u00e9 \\n".repeat(20_000);
    let text = format!(r#"{{"a":"{filler} jo\u0040mail.example {filler}","b":1}}"#);
    let detectors = Arc::new(Detectors::compile(&["email"]).unwrap());
    let mut stream = JsonStream::new(masks(&[]), Some(detectors));
    let (mut out, mut held) = (Vec::new(), 0);
    for piece in text.as_bytes().chunks(1000) {
        stream.push(piece, &mut out).unwrap();
        held = held.max(stream.text.len());
    }
    stream.finish(&mut out).unwrap();
    let shown = String::from_utf8(out).unwrap();
    assert!(held <= STRING + 1000, "{held}");
    assert_eq!(stream.hidden(), 1);
    assert!(shown.contains("[redacted:email]") && !shown.contains("mail.example"));
    assert!(shown.ends_with(r#","b":1}"#));
    // Without detectors the bytes stay.
    assert_eq!(run(&[("$.b", N)], &[], &[text.as_bytes()]).unwrap(), text.replace("\"b\":1", "\"b\":null"));
}

#[test]
fn what_is_no_json_is_an_error() {
    for text in [
        "{",
        "[1,]",
        "{\"a\" 1}",
        "{a:1}",
        "]",
        "[}",
        "{]",
        "\"a",
        "{\"a\":}",
        "tru",
        "01",
        "1.",
        "-",
        "1e",
        "+1",
        "[1 2]",
        "{\"a\":1,}",
        "\"a\nb\"",
        "'a'",
        "<html>",
        "\"\\x\"",
        "\"\\u12\"",
        "[,1]",
        "\u{feff}{}",
        ",",
        "{\"a\":1 \"b\":2}",
    ] {
        run(&[("$.a", R)], &["email"], &[text.as_bytes()]).expect_err(text);
    }
    let deep = "[".repeat(200);
    assert_eq!(run(&[], &[], &[deep.as_bytes()]), Err(BadJson::Deep));
    let long = format!("{{\"{}\":1}}", "a".repeat(TOKEN + 1));
    assert_eq!(run(&[], &[], &[long.as_bytes()]), Err(BadJson::Long));
    assert_eq!(run(&[], &[], &["9".repeat(TOKEN + 1).as_bytes()]), Err(BadJson::Long));
}

#[test]
fn paths_are_read_or_refused() {
    for good in ["$", "$.a", "$.a.b[0][*]", "$..a", "$..*", "$..[*]", "$['a.b']", "$[\"a'b\"].c", "$.@type"] {
        assert_eq!(JsonPath::parse(good).unwrap().to_string(), good);
    }
    for bad in
        ["", "a", "$a", "$.", "$..", "$[", "$[a]", "$['a]", "$.a b", "$[-1]", "$[1:2]", "$[?(@.a)]", "$.a.."]
    {
        JsonPath::parse(bad).expect_err(bad);
    }
}
