//! Requests that are made to be read differently by two servers: nothing but plain requests arrives, one for each that was decided.

use crate::support::{Ground, json};

/// Sends each raw request on a connection of its own and prints the statuses that come back.
const SEND: &str = r#"
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def send(raw):
    sock = socket.create_connection(("198.51.100.30", 8080), 5)
    sock.settimeout(2)
    got = b""
    try:
        sock.sendall(raw.encode("latin-1"))
        while piece := sock.recv(65536):
            got += piece
    except OSError:
        pass
    sock.close()
    return [line.split(b" ")[1].decode() for line in got.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
with ThreadPoolExecutor(16) as pool:
    print(json.dumps(list(pool.map(send, json.load(sys.stdin)))))
"#;

/// What must not arrive in any form.
const EVIL: &str = "smuggled";

fn raws() -> Vec<String> {
    let host = "Host: raw.example:8080\r\n";
    let evil = format!("GET /secret/{EVIL} HTTP/1.1\r\n{host}\r\n");
    let length = evil.len();
    let mut all = Vec::new();
    // Two framings at once, in either order and in disguise.
    for (first, second) in [
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 4"),
        ("Content-Length: 4", "Transfer-Encoding: xchunked"),
        ("Content-Length: 4", "Transfer-Encoding : chunked"),
        ("Content-Length: 4", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x"),
        ("Content-Length: 4", "Transfer-Encoding:\tchunked"),
        ("Content-Length: 4", "Transfer-Encoding: \x0bchunked"),
        ("Content-Length: 4", "Transfer-Encoding: chunked\r\n\x00X: y"),
        ("Content-Length: 4", " Transfer-Encoding: chunked"),
        ("Content-Length: 4", "X: y\r\n Transfer-Encoding: chunked"),
        ("Content-Length: 4", "Transfer_Encoding: chunked"),
        ("Content-Length: 4", "transfer-encoding: CHUNKED"),
        ("Content-Length: 4", "Transfer-Encoding: gzip, chunked"),
        ("Content-Length: 4", "Transfer-Encoding: identity"),
        ("Content-Length: 4", "Transfer-Encoding: chunked, identity"),
        ("Content-Length: 4", "Content-Encoding: chunked"),
        ("X: y", "Transfer-Encoding: identity, chunked"),
        ("X: y", "Transfer-Encoding: chunked, chunked"),
        ("X: y", "Transfer-Encoding: \"chunked\""),
    ] {
        all.push(format!("POST /echo HTTP/1.1\r\n{host}{first}\r\n{second}\r\n\r\n0\r\n\r\n{evil}"));
    }
    // Lengths that are none, or several.
    for length in [
        "Content-Length: 0\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 0",
        "Content-Length: 0, 5",
        "Content-Length: +0",
        "Content-Length: -1",
        "Content-Length: 0x0",
        "Content-Length: 1e1",
        "Content-Length: 00000000000000000000000000",
        "Content-Length: 18446744073709551616",
        "Content-Length:",
        "Content-Length: a",
        "Content-Length : 0",
        "Content_Length: 0",
        "Content-Length: 0\x00",
    ] {
        all.push(format!("POST /echo HTTP/1.1\r\n{host}{length}\r\n\r\n{evil}"));
    }
    // Chunks that are read differently.
    for chunks in [
        "0x0\r\n\r\n",
        "-1\r\n\r\n",
        "+0\r\n\r\n",
        " 0\r\n\r\n",
        "0 \r\n\r\n",
        "0;\n\r\n",
        "0\n\r\n",
        "5\r\nab",
        "ffffffffffffffff0\r\n\r\n",
        "1\r\nabc\r\n0\r\n\r\n",
        "0\r\nX: y\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "1\rX\r\na\r\n0\r\n\r\n",
    ] {
        all.push(format!("POST /echo HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n{chunks}{evil}"));
    }
    // Lines and targets.
    for line in [
        format!("GET http://raw.example:8080/secret/{EVIL} HTTP/1.1"),
        format!("GET http://other.example/secret/{EVIL} HTTP/1.1"),
        format!("GET  /secret/{EVIL} HTTP/1.1"),
        format!("GET /echo HTTP/1.1\r\nX: y\r\n\r\nGET /secret/{EVIL}"),
        format!("GET /secret/{EVIL}"),
        format!("GET /secret/{EVIL} HTTP/1.0"),
        format!("GET /secret/{EVIL} HTTP/2.0"),
        format!("GET\t/secret/{EVIL}\tHTTP/1.1"),
        format!("GET /secret/{EVIL}\0 HTTP/1.1"),
        format!("GET /x/..%2fsecret/{EVIL} HTTP/1.1"),
        format!("GET /x/../secret/{EVIL} HTTP/1.1"),
        format!("GET /x\\..\\secret\\{EVIL} HTTP/1.1"),
        format!("GET /%73ecret/{EVIL} HTTP/1.1"),
        format!("GET //secret/{EVIL} HTTP/1.1"),
        format!("GET /secret;x/{EVIL} HTTP/1.1"),
        format!("GET /%2573ecret/{EVIL} HTTP/1.1"),
        format!("CONNECT raw.example:8080/{EVIL} HTTP/1.1"),
        format!("TRACE /{EVIL} HTTP/1.1"),
        format!("get /secret/{EVIL} HTTP/1.1"),
    ] {
        all.push(format!("{line}\r\n{host}\r\n"));
    }
    // Whom it is for, and what it calls itself.
    for fields in [
        "Host: raw.example:8080\r\nHost: other.example",
        "Host: other.example",
        "Host: raw.example:8080@other.example",
        "Host: raw.example:8080, other.example",
        "Host: other.example\r\n Host: raw.example:8080",
        "X: y",
        "Host: raw.example:80",
    ] {
        all.push(format!("GET /{EVIL} HTTP/1.1\r\n{fields}\r\n\r\n"));
    }
    for fields in [
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk",
        "Upgrade: websocket",
    ] {
        all.push(format!("GET /{EVIL} HTTP/1.1\r\n{host}{fields}\r\n\r\n"));
    }
    all.push(format!(
        "POST /echo HTTP/1.1\r\n{host}Content-Length: {length}\r\nExpect: {EVIL}\r\n\r\n{evil}"
    ));
    all.push("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned());
    all
}

#[test]
fn nothing_is_smuggled() {
    let rules = crate::support::RULES.replace(
        "id: secrets, effect: deny, resources: [open]",
        "id: secrets, effect: deny, resources: [open, raw]",
    );
    let ground = Ground::with(&rules);
    let all = raws();
    assert!(all.len() >= 60, "{}", all.len());
    let input = serde_json::to_string(&all).expect("JSON");
    let out = ground.python(SEND, &[]).stdin(input).run().ok();
    let said = json(&out.stdout);
    let arrived = ground.web.raw();
    assert!(!arrived.contains(EVIL), "{arrived}");
    // What arrived is plain: one request for each answer that came from there.
    for line in arrived.split("\r\n") {
        let lower = line.to_ascii_lowercase();
        assert!(!line.starts_with(' ') && !line.contains(['\0', '\x0b']), "{line:?}");
        assert!(
            !lower.starts_with("transfer-encoding:") || lower == "transfer-encoding: chunked",
            "{line:?}"
        );
        assert!(!lower.starts_with("x-http-method") && !lower.starts_with("content_length"), "{line:?}");
    }
    let heads = arrived.matches(" HTTP/1.1\r\n").count();
    let hosts = arrived.to_ascii_lowercase().matches("\r\nhost: raw.example:8080\r\n").count();
    assert_eq!(heads, hosts, "each request has one Host: {arrived}");
    let answered: usize = said
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one.as_array().map_or(0, |list| list.iter().filter(|status| **status == "200").count()))
        .sum();
    assert!(answered <= heads, "{answered} answers, {heads} requests");
    // The gateway still serves.
    let out = ground.curl(&["http://raw.example:8080/echo"]).run().ok();
    assert!(out.stdout.ends_with("200"), "{out}");
}

#[test]
fn fields_by_which_servers_are_misled_do_not_arrive() {
    let ground = Ground::new();
    let fields = [
        "X-HTTP-Method-Override: DELETE",
        "X-Original-URL: /secret/x",
        "X-Rewrite-URL: /secret/x",
        "X-Forwarded-Host: other.example",
        "X-Forwarded-For: 127.0.0.1",
        "Forwarded: host=other.example",
        "Proxy-Authorization: Basic eDp5",
        "Connection: X-Kept",
        "X-Kept: 1",
        "Keep-Alive: 5",
    ];
    let mut words = vec!["--http1.1"];
    for field in &fields {
        words.extend(["-H", field]);
    }
    words.push("https://open.example/echo");
    let out = ground.curl(&words).run().ok();
    assert!(out.stdout.ends_with("200"), "{out}");
    let asked = ground.web.asked().remove(0);
    let mut names: Vec<_> = asked.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "host", "user-agent"], "{asked:?}");
}

/// Each entry is a request of HTTP/2: pairs of a header block, written literally, and a body. Prints the status or what ended it.
const SEND_H2: &str = r#"
import json, socket, ssl, struct, sys
from concurrent.futures import ThreadPoolExecutor
def integer(value, prefix):
    most = (1 << prefix) - 1
    if value < most:
        return bytes([value])
    out, value = bytes([most]), value - most
    while value >= 128:
        out, value = out + bytes([value % 128 + 128]), value // 128
    return out + bytes([value])
def field(name, value):
    name, value = name.encode("latin-1"), value.encode("latin-1")
    return b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value
def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload
def send(request):
    fields, body = request
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    sock = context.wrap_socket(socket.create_connection(("198.51.100.30", 8443), 5), server_hostname="raw.example")
    sock.settimeout(2)
    block = b"".join(field(*pair) for pair in fields)
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4 | (0 if body else 1), 1, block)
    if body:
        sent += frame(0, 1, 1, body.encode("latin-1"))
    got, said = b"", "nothing"
    try:
        sock.sendall(sent)
        while True:
            while len(got) >= 9:
                length = int.from_bytes(got[:3], "big")
                if len(got) < 9 + length:
                    break
                kind, payload, got = got[3], got[9:9 + length], got[9 + length:]
                if kind == 1:
                    return "answered " + {0x88: "200", 0x8c: "400", 0x8d: "404"}.get(payload[0], payload[:12].hex())
                if kind == 3:
                    return "reset"
                if kind == 7:
                    said = "goaway"
            piece = sock.recv(65536)
            if not piece:
                return said
            got += piece
    except OSError:
        return said
with ThreadPoolExecutor(8) as pool:
    print(json.dumps(list(pool.map(send, json.load(sys.stdin)))))
"#;

fn h2_requests() -> Vec<(Vec<(String, String)>, String)> {
    let usual =
        [(":method", "GET"), (":scheme", "https"), (":authority", "raw.example:8443"), (":path", "/echo")];
    let evil_line = format!("GET /secret/{EVIL} HTTP/1.1\r\nHost: raw.example:8443\r\n\r\n");
    let with = |changed: &[(&str, &str)], more: &[(&str, &str)], body: &str| {
        let mut fields: Vec<(String, String)> = usual
            .iter()
            .map(|(name, value)| {
                let new = changed.iter().find(|(of, _)| of == name).map_or(*value, |(_, new)| new);
                ((*name).to_owned(), new.to_owned())
            })
            .collect();
        fields.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        (fields, body.to_owned())
    };
    let injected = format!("/echo HTTP/1.1\r\nHost: raw.example:8443\r\n\r\nGET /secret/{EVIL}");
    let post = [(":method", "POST")];
    vec![
        with(&[(":path", &injected)], &[], ""),
        with(&[(":path", &format!("/echo {EVIL}"))], &[], ""),
        with(&[(":path", &format!("/secret/{EVIL}\0"))], &[], ""),
        with(&[(":path", "*")], &[], ""),
        with(&[(":path", "")], &[], ""),
        with(&[(":path", &format!("https://other.example/{EVIL}"))], &[], ""),
        with(&[(":path", &format!("/x/..%2fsecret/{EVIL}"))], &[], ""),
        with(&[(":path", &format!("//secret/{EVIL}"))], &[], ""),
        with(&[(":method", &format!("GET /secret/{EVIL} HTTP/1.1\r\nX:"))], &[], ""),
        with(&[(":method", "CONNECT")], &[(":protocol", "websocket")], ""),
        with(&[(":authority", "other.example")], &[], ""),
        with(&[(":authority", "raw.example:8443@other.example")], &[], ""),
        with(&[(":authority", "raw.example:8443\r\nX: y")], &[], ""),
        with(&[], &[("host", "other.example")], ""),
        with(&[], &[("x", &format!("y\r\n\r\n{evil_line}"))], ""),
        with(&[], &[("x", "y\r\nTransfer-Encoding: chunked")], ""),
        with(&[], &[("x\r\ny", "z")], ""),
        with(&[], &[("x: y\r\nz", "w")], ""),
        with(&[], &[("X-Upper", "y")], ""),
        with(&[], &[("", "y")], ""),
        with(&[], &[("x y", "z")], ""),
        with(&[], &[("transfer-encoding", "chunked")], ""),
        with(&[], &[("connection", "close, x")], ""),
        with(&[], &[("upgrade", "websocket"), ("connection", "upgrade")], ""),
        with(&[], &[("te", "gzip")], ""),
        with(&[], &[("proxy-connection", "keep-alive")], ""),
        with(&[], &[(":path", &format!("/secret/{EVIL}"))], ""),
        with(&[], &[(":unknown", "x")], ""),
        with(&post, &[("content-length", "0")], &evil_line),
        with(&post, &[("content-length", "5")], &evil_line),
        with(&post, &[("content-length", "5"), ("content-length", "6")], "hello"),
        with(&post, &[("transfer-encoding", "chunked")], &format!("0\r\n\r\n{evil_line}")),
        with(&post, &[("content-length", "x")], &evil_line),
        with(&post, &[("expect", EVIL)], &evil_line),
    ]
}

#[test]
fn nothing_is_smuggled_on_the_way_from_http_2_to_1() {
    let rules = crate::support::RULES.replace(
        "id: secrets, effect: deny, resources: [open]",
        "id: secrets, effect: deny, resources: [open, raw]",
    );
    let ground = Ground::with(&rules);
    let all = h2_requests();
    assert!(all.len() >= 30, "{}", all.len());
    let out = ground.python(SEND_H2, &[]).stdin(serde_json::to_string(&all).expect("JSON")).run().ok();
    let arrived = ground.web.raw();
    assert!(!arrived.contains(EVIL), "{arrived}\n{out}");
    assert_eq!(arrived.matches("GET /secret").count(), 0, "{arrived}");
    for line in arrived.split("\r\n") {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        assert!(
            !["transfer-encoding", "connection", "upgrade", "te"].contains(&name.as_str()),
            "{line:?} of {arrived}"
        );
    }
    // The same by the same means, without tricks.
    let plain =
        [(":method", "GET"), (":scheme", "https"), (":authority", "raw.example:8443"), (":path", "/echo")];
    let input = serde_json::to_string(&[(plain, "")]).expect("JSON");
    let out = ground.python(SEND_H2, &[]).stdin(input).run().ok();
    assert_eq!(json(&out.stdout)[0], "answered 200", "{out}");
}
