//! What the wire allows and no ordinary client of today sends: spoken byte by byte, inside jobs.

use serde_json::json;
use tests::{World, postgres, sample};

use crate::support::json;

/// Packets, and reading them.
const WIRE: &str = r#"
import json, os, select, socket, ssl, struct, threading
place = (os.environ["PGHOST"], 5432)
def packet(code, body=b""):
    return struct.pack("!II", 8 + len(body), code) + body
def startup(minor, **parameters):
    body = b"".join(k.encode() + b"\0" + v.encode() + b"\0" for k, v in parameters.items()) + b"\0"
    return packet(3 << 16 | minor, body)
def message(tag, body=b""):
    return tag + struct.pack("!I", 4 + len(body)) + body
def exactly(sock, count):
    got = b""
    while len(got) < count:
        part = sock.recv(count - len(got))
        if not part:
            raise EOFError
        got += part
    return got
def read(sock):
    tag, length = struct.unpack("!cI", exactly(sock, 5))
    return tag.decode(), exactly(sock, length - 4)
def until(sock, last):
    got = []
    while not got or got[-1][0] not in last:
        got.append(read(sock))
    return got
def code(body):
    return [f[1:].decode() for f in body.split(b"\0") if f[:1] == b"C"][0]
def context(alpn):
    made = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    made.set_alpn_protocols(alpn)
    return made
def dial():
    sock = socket.create_connection(place)
    sock.settimeout(30)
    return sock
said = {}
"#;

fn speak(world: &World, script: &str) -> serde_json::Value {
    let script = format!("{WIRE}{script}\nprint(json.dumps(said))\n");
    json(&world.job(&[&world.python(), "-c", &script]).run().ok().stdout)
}

#[test]
fn direct_tls_protocol_3_2_and_long_cancel_keys() {
    let world = World::new();
    let said = speak(
        &world,
        r#"
with context(["postgresql"]).wrap_socket(dial(), server_hostname=place[0]) as db:
    said["alpn"] = db.selected_alpn_protocol()
    db.sendall(startup(9, user="job", database="orders", **{"_pq_.future": "1"}))
    answers = until(db, "Z")
    tags = [tag for tag, _ in answers]
    body = dict(answers)["v"]
    said["negotiated"] = [*struct.unpack("!HHI", body[:8]), body[8:].decode()]
    key = dict(answers)["K"]
    said["key"] = len(key)
    db.sendall(message(b"Q", b"SELECT pg_backend_pid()\0"))
    rows = [body for tag, body in until(db, "Z") if tag == "D"]
    said["own pid"] = int(rows[0][6:]) == struct.unpack("!I", key[:4])[0]
    # The cancel request comes on a connection of its own, and again until it meets the statement.
    done = threading.Event()
    def cancel(wrong):
        with context([]).wrap_socket((lambda s: (s.sendall(packet(80877103)), s.recv(1), s)[2])(dial()), server_hostname=place[0]) as other:
            secret = bytes(len(key) - 4) if wrong else key[4:]
            other.sendall(packet(80877102, key[:4] + secret))
            try:
                other.recv(1)
            except (ssl.SSLError, ConnectionError):
                pass
    db.sendall(message(b"Q", b"SELECT pg_sleep(1.5)\0"))
    cancel(True)
    said["wrong key"] = [tag for tag, _ in until(db, "Z")]
    db.sendall(message(b"Q", b"SELECT pg_sleep(60)\0"))
    while not select.select([db], [], [], 0.3)[0]:
        cancel(False)
    said["cancelled"] = [code(body) for tag, body in until(db, "Z") if tag == "E"]
    db.sendall(message(b"X"))
"#,
    );
    assert_eq!(
        said,
        json!({
            "alpn": "postgresql", "negotiated": [3, 2, 1, "_pq_.future\0"], "key": 36, "own pid": true,
            "wrong key": ["T", "D", "C", "Z"], "cancelled": ["57014"],
        })
    );
}

#[test]
fn gss_is_declined_tls_goes_on_and_bytes_before_it_do_not() {
    let world = World::new();
    let said = speak(
        &world,
        r#"
sock = dial()
sock.sendall(packet(80877104))
said["gss"] = sock.recv(1).decode()
sock.sendall(packet(80877103))
said["tls"] = sock.recv(1).decode()
with context([]).wrap_socket(sock, server_hostname=place[0]) as db:
    db.sendall(startup(0, user="job", database="orders"))
    said["in"] = until(db, "Z")[-1][1].decode()
# Bytes that came before the handshake would be taken for protected ones.
sock = dial()
sock.sendall(packet(80877103) + startup(0, user="job", database="orders"))
said["stuffed"] = sock.recv(1).decode()
sock = dial()
sock.sendall(startup(0, user="job", database="orders", replication="true"))
said["replication"] = [code(body) for tag, body in until(sock, "E")]
sock = dial()
sock.sendall(startup(0, user="job", database="orders", replication="database"))
said["logical"] = [code(body) for tag, body in until(sock, "E")]
sock = dial()
sock.sendall(packet(2 << 16, b"user\0job\0\0"))
try:
    said["protocol 2"] = sock.recv(1).decode()
except ConnectionError:
    said["protocol 2"] = ""
"#,
    );
    assert_eq!(
        said,
        json!({
            "gss": "N", "tls": "S", "in": "I", "stuffed": "E", "replication": ["42501"], "logical": ["42501"],
            "protocol 2": "",
        })
    );
}

#[test]
fn a_pipeline_with_an_error_in_the_middle_and_portals_that_suspend() {
    let world = World::new();
    let said = speak(
        &world,
        r#"
db = dial()
db.sendall(startup(0, user="job", database="orders"))
until(db, "Z")
def parse(name, sql): return message(b"P", name + b"\0" + sql + b"\0\0\0")
def bind(portal, name): return message(b"B", portal + b"\0" + name + b"\0\0\0\0\0\0\0")
def execute(portal, rows=0): return message(b"E", portal + b"\0" + struct.pack("!I", rows))
sync, flush = message(b"S"), message(b"H")
def tags(got): return "".join(tag for tag, _ in got)
db.sendall(parse(b"", b"SELECT 1") + bind(b"", b"") + execute(b"") + parse(b"", b"SELECT 1/0") + bind(b"", b"") + execute(b"")
    + parse(b"", b"SELECT 2") + bind(b"", b"") + execute(b"") + sync + parse(b"", b"SELECT 3") + bind(b"", b"") + execute(b"") + sync)
said["server error"] = [tags(until(db, "Z")), tags(until(db, "Z"))]
db.sendall(parse(b"", b"SELECT 1") + bind(b"", b"") + execute(b"") + parse(b"", b"DROP TABLE orders") + bind(b"", b"") + execute(b"")
    + sync + parse(b"", b"SELECT 3") + bind(b"", b"") + execute(b"") + sync)
said["denied"] = [tags(until(db, "Z")), tags(until(db, "Z"))]
db.sendall(message(b"Q", b"BEGIN\0"))
until(db, "Z")
db.sendall(parse(b"s", b"SELECT id FROM orders ORDER BY id") + bind(b"p", b"s") + execute(b"p", 3) + execute(b"p", 2) + flush)
said["suspended"] = [tags(until(db, "s")), tags(until(db, "s"))]
db.sendall(execute(b"p", 100000) + message(b"C", b"Pp\0") + execute(b"p", 1) + sync)
got = until(db, "Z")
said["rest"] = [tags(got).replace("D" * 995, "D*"), [code(body) for tag, body in got if tag == "E"], got[-1][1].decode()]
db.sendall(message(b"Q", b"ROLLBACK\0"))
until(db, "Z")
# A function called without SQL needs a rule for the function.
db.sendall(message(b"F", struct.pack("!IHHHIIH", 957, 1, 1, 1, 4, 0x60000, 1)))
got = until(db, "Z")
said["function"] = [tags(got), [code(body) for tag, body in got if tag == "E"]]
db.sendall(message(b"F", struct.pack("!IHHHIIH", 2079, 1, 1, 1, 4, 1, 1)))
got = until(db, "Z")
said["unknown function"] = [tags(got), [code(body) for tag, body in got if tag == "E"]]
"#,
    );
    assert_eq!(
        said,
        json!({
            "server error": ["12DC1EZ", "12DCZ"], "denied": ["12DCEZ", "12DCZ"], "suspended": ["12DDDs", "DDs"],
            "rest": ["D*C3EZ", ["34000"], "E"], "function": ["EZ", ["42501"]], "unknown function": ["EZ", ["42501"]],
        })
    );
    assert_eq!(world.db.ask("SELECT count(*) FROM pg_largeobject_metadata"), "0");
}

#[test]
fn a_client_certificate_logs_in_upstream() {
    let certificate = "certificate: { chain: @DIR@/secrets/client.pem, key: @DIR@/secrets/client.key }";
    let policy = sample::POLICY.replacen("password: { file: @DIR@/secrets/orders }", certificate, 1);
    let world = World::builder()
        .policy(&policy)
        .postgres(postgres::Options { method: "cert", ..postgres::Options::default() })
        .up();
    let out = world.psql("SELECT 'in by certificate as ' || current_user").run().ok();
    assert_eq!(out.text(), "in by certificate as gateway");
    // Without it the server lets nobody in, and the client learns no more than that.
    world.write_policy(sample::POLICY).expect("a policy");
    world.agent.hang_up();
    crate::support::wait_for("the new policy", || {
        let out = world.psql("SELECT 1").run();
        out.stderr.contains("the gateway could not log in").then_some(())
    });
}

#[test]
fn every_way_of_logging_in_upstream() {
    for (method, encryption) in [
        ("md5", "md5"),
        ("password", "scram-sha-256"),
        ("scram-sha-256", "scram-sha-256"),
        ("trust", "scram-sha-256"),
    ] {
        let world = World::builder()
            .postgres(postgres::Options {
                method,
                settings: vec![format!("password_encryption = '{encryption}'")],
                ..postgres::Options::default()
            })
            .up();
        let out = world.psql(&format!("SELECT 'in by {method}'")).run().ok();
        assert_eq!(out.text(), format!("in by {method}"));
    }
}
