//! What the wire allows and no ordinary client of today sends: spoken byte by byte, inside jobs.

use serde_json::json;
use tests::{
    World, postgres,
    process::{self, Running},
    sample,
    world::DATABASE,
};

use crate::support::{REDACTED, json, put_in_force, wait_for};

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

/// What a name means is what the server has by it, whatever failed to replace it.
#[test]
fn a_statement_that_outlives_its_successor_stays_masked() {
    let world = World::new();
    let said = speak(
        &world,
        r#"
db = dial()
db.sendall(startup(0, user="job", database="orders"))
until(db, "Z")
def parse(name, sql): return message(b"P", name + b"\0" + sql + b"\0\0\0")
def bind(portal, name): return message(b"B", portal + b"\0" + name + b"\0\0\0\0\0\0\0")
def execute(portal): return message(b"E", portal + b"\0" + struct.pack("!I", 0))
sync = message(b"S")
db.sendall(parse(b"s", b"SELECT upper(email) FROM customers WHERE id = 1") + sync)
until(db, "Z")
db.sendall(parse(b"s", b"SELECT 'open'") + sync + bind(b"", b"s") + execute(b"") + sync)
said["taken"] = [code(body) for tag, body in until(db, "Z") if tag == "E"]
said["row"] = [body[6:].decode() for tag, body in until(db, "Z") if tag == "D"]
"#,
    );
    assert_eq!(said, json!({ "taken": ["42P05"], "row": [REDACTED] }));
}

/// Large objects by function calls, as libpq's and psql's own commands use them.
#[test]
fn large_objects_go_where_a_rule_lets_them() {
    // Without rules that ask or deny, and without masks: code that cannot be seen through touches every one of them.
    let (head, _) = sample::POLICY.split_once("  - id: delete-order").expect("its rule");
    let world = World::builder().policy(head).up();
    let file = world.folder().join("large");
    std::fs::write(&file, vec![7u8; 300_000]).expect("a file");
    let import = format!("\\lo_import {}\n", file.display());
    let refused = world.psql(&import).run().failed();
    assert!(refused.stderr.contains("default-deny") && refused.stderr.contains("lo_creat"), "{refused}");
    assert_eq!(world.db.ask("SELECT count(*) FROM pg_largeobject_metadata"), "0");
    let objects = "  - id: objects\n    effect: allow\n    subjects: [agents]\n    resources: [orders]\n    statements: \
         { classes: [read, write, utility, ddl, code], opaque: true, functions: [pg_catalog.lo_creat, pg_catalog.lo_create, \
         pg_catalog.lo_open, pg_catalog.lo_close, pg_catalog.loread, pg_catalog.lowrite, pg_catalog.lo_unlink] }\n";
    put_in_force(&world, &format!("{head}{objects}"));
    // Into the job's own folder: standard output is a pipe of somebody else's, which a job may write but not open.
    let script = format!(
        "{import}\\lo_export :LASTOID /tmp/back\n\\! cmp {} /tmp/back && echo same\n\\lo_unlink :LASTOID\n",
        file.display()
    );
    let out = world.psql(&script).run().ok();
    assert!(out.text().ends_with("same"), "{out}");
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
    wait_for("the new policy", || {
        let out = world.psql("SELECT 1").run();
        out.stderr.contains("the gateway could not log in").then_some(())
    });
}

/// Ends TLS on either side, with a certificate of the right name by the right authority, and passes on what is said.
const MIDDLE: &str = r#"
import socket, ssl, sys, threading
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(sys.argv[2], sys.argv[3])
client = ssl._create_unverified_context()
def relay(a, b):
    try:
        while part := a.recv(65536):
            b.sendall(part)
    except OSError:
        pass
    for end in (a, b):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
def serve(near):
    near.recv(8)
    near.sendall(b"S")
    near = server.wrap_socket(near, server_side=True)
    far = socket.create_connection((sys.argv[1], 5432))
    far.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
    far.recv(1)
    far = client.wrap_socket(far)
    threading.Thread(target=relay, args=(near, far), daemon=True).start()
    relay(far, near)
listener = socket.create_server((sys.argv[1], 6432))
print("up", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// SCRAM-SHA-256-PLUS: who stands between gateway and server does not get in, even with a certificate that is trusted.
#[test]
fn the_login_upstream_is_bound_to_the_server_s_own_certificate() {
    let policy = sample::POLICY.replacen("ports: [5432]", "ports: [5432, 6432]", 1);
    let world = World::builder().policy(&policy).up();
    let identity = world.authority.server(&["db.internal"]).expect("a certificate");
    let (certificate, key) = (world.folder().join("middle.pem"), world.folder().join("middle.key"));
    std::fs::write(&certificate, identity.certificate).expect("written");
    std::fs::write(&key, identity.key).expect("written");
    let mut middle = world.far.command("python3");
    middle.args(["-c", MIDDLE, DATABASE]).args([&certificate, &key]);
    let log = world.folder().join("middle.log");
    let _middle = Running::logging(&mut middle, &log).expect("it runs");
    wait_for("it to listen", || {
        std::fs::read_to_string(&log).is_ok_and(|said| said.contains("up")).then_some(())
    });
    // It does pass a login on that is bound to nothing.
    let direct = |binding: &str| {
        let place = format!(
            "host={DATABASE} port=6432 user=gateway dbname=orders sslmode=require channel_binding={binding}"
        );
        let mut psql = world.host.command("psql");
        psql.args(["-XAt", &place, "-c", "SELECT 'in'"]).env("PGPASSWORD", world.password());
        process::run(&mut psql).expect("psql")
    };
    assert_eq!(direct("disable").ok().text(), "in");
    let broken = "SCRAM channel binding check failed";
    let refused = direct("require").failed();
    assert!(refused.stderr.contains(broken), "{refused}");

    assert_eq!(world.psql("SELECT 'in'").run().ok().text(), "in");
    let before = world.db.log().matches(broken).count();
    let refused = world.job(&["psql", "-XAt", "-p", "6432", "-c", "SELECT 'in'"]).run().failed();
    assert!(!refused.stdout.contains("in"), "{refused}");
    assert!(world.db.log().matches(broken).count() > before, "the server noticed: {refused}");
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
