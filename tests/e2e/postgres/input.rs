//! Bad input: each is refused, nothing of it reaches the server, and the daemon lives.

use std::time::Duration;

use serde_json::json;
use tests::World;

use crate::support::{json, ran, wait_for};

/// Sends one thing and tells how the gateway answered, and that it ended the connection.
const THROW: &str = r#"
import socket, struct, sys, json, os
startup = lambda body: struct.pack("!II", len(body) + 8, 196608) + body
good = startup(b"user\0job\0database\0orders\0\0")
message = lambda kind, body: kind + struct.pack("!I", len(body) + 4) + body
query = lambda sql: message(b"Q", sql + b"\0")
before_login = {
    "http": b"GET / HTTP/1.1\r\nHost: db\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": b"\0" * 64,
    "ones": b"\xff" * 64,
    "noise": os.urandom(4096),
    "huge startup": struct.pack("!II", 0x7fffffff, 196608),
    "tiny startup": struct.pack("!I", 4),
    "negative startup": struct.pack("!i", -1) + b"x" * 16,
    "version 2": struct.pack("!II", 8, 131072),
    "no terminator": startup(b"user\0job\0database\0orders"),
    "no user": startup(b"database\0orders\0\0"),
    "replication": startup(b"user\0job\0database\0orders\0replication\0true\0\0"),
}
after_login = {
    "unknown kind": message(b"~", b"boo"),
    "huge query": b"Q" + struct.pack("!I", 0x7ffffff0),
    "negative query": b"Q" + struct.pack("!i", -5),
    "short length": b"Q" + struct.pack("!I", 3),
    "no zero": message(b"Q", b"SELECT 'marked'"),
    "bad utf8": query(b"SELECT 'marked \xff\xfe'"),
    "bind counts": message(b"B", b"\0\0" + struct.pack("!hh", 0, 32767)),
    "parse cut": message(b"P", b"name"),
    "function call": message(b"F", struct.pack("!ihhh", 1, 0, 0, 0)),
    "copy out of place": message(b"d", b"row\n"),
    "password late": message(b"p", b"hunter2\0"),
    "server message": message(b"D", b"\0\0"),
}
kind, name = sys.argv[1], sys.argv[2]
sock = socket.create_connection((os.environ["PGHOST"], 5432))
sock.settimeout(20)
if kind == "before":
    sock.sendall(before_login[name])
else:
    sock.sendall(good)
    seen = b""
    while not seen.endswith(b"Z\0\0\0\5I"):
        piece = sock.recv(65536)
        assert piece, seen
        seen += piece
    sock.sendall(after_login[name])
    sock.sendall(message(b"S", b"") + query(b"SELECT 'after'"))
answer, ended = b"", False
try:
    sock.shutdown(socket.SHUT_WR)
    while True:
        piece = sock.recv(65536)
        if not piece:
            ended = True
            break
        answer += piece
except TimeoutError:
    pass
except OSError:
    ended = True
print(json.dumps({"answer": answer.decode("latin1"), "ended": ended}))
"#;

#[test]
fn garbage_instead_of_a_login_is_refused() {
    let world = World::new();
    let python = world.python();
    for name in [
        "http",
        "ssh",
        "zeros",
        "ones",
        "noise",
        "huge startup",
        "tiny startup",
        "negative startup",
        "version 2",
        "no terminator",
        "no user",
        "replication",
    ] {
        let said = json(&world.job(&[python.as_str(), "-c", THROW, "before", name]).run().ok().stdout);
        assert_eq!(said["ended"], true, "{name}: {said}");
        assert!(
            !said["answer"].as_str().is_some_and(|answer| answer.contains("Z\0\0\0\u{5}I")),
            "{name}: {said}"
        );
    }
    assert_eq!(world.db.log().matches("connection authorized").count(), authorized_by_tests(&world));
    assert_eq!(world.psql("SELECT 'alive';").run().ok().text(), "alive");
}

/// Connections that the fixtures made themselves.
fn authorized_by_tests(world: &World) -> usize {
    world.db.log().matches("connection authorized: user=postgres").count()
}

#[test]
fn malformed_messages_end_the_session_and_reach_nobody() {
    let world = World::new();
    let python = world.python();
    for name in [
        "unknown kind",
        "huge query",
        "negative query",
        "short length",
        "no zero",
        "bad utf8",
        "bind counts",
        "parse cut",
        "function call",
        "copy out of place",
        "password late",
        "server message",
    ] {
        let said = json(&world.job(&[python.as_str(), "-c", THROW, "after", name]).run().ok().stdout);
        assert_eq!(said["ended"], true, "{name}: {said}");
    }
    assert_eq!(ran(&world, "marked"), 0);
    assert_eq!(world.psql("SELECT 'alive';").run().ok().text(), "alive");
    wait_for("the sessions to be gone", || {
        (world.agent.metric("gateway_sessions_active", &[]).ok()? == 0.0).then_some(())
    });
}

#[test]
fn half_a_message_then_silence_is_ended() {
    let world = World::builder()
        .configure("/sessions/login_timeout", "1s")
        .configure("/sessions/idle_timeout", "2s")
        .up();
    let script = r#"
import socket, struct, sys, json, os
said = {}
for name, bytes in (("nothing", b""), ("half a startup", struct.pack("!II", 40, 196608) + b"user"), ("half a handshake", struct.pack("!II", 8, 80877103) + b"\x16\x03")):
    sock = socket.create_connection((os.environ["PGHOST"], 5432))
    sock.settimeout(20)
    sock.sendall(bytes)
    try:
        while sock.recv(4096):
            pass
        said[name] = "ended"
    except ConnectionError:
        said[name] = "ended"
    except TimeoutError:
        said[name] = "still open"
print(json.dumps(said))
"#;
    let said = json(&world.job(&[world.python().as_str(), "-c", script]).run().ok().stdout);
    assert_eq!(said, json!({ "nothing": "ended", "half a startup": "ended", "half a handshake": "ended" }));
    assert_eq!(world.psql("SELECT 'alive';").run().ok().text(), "alive");
}

#[test]
fn a_statement_that_is_too_long_or_too_deep_is_refused_and_the_session_goes_on() {
    let world = World::new();
    let script = r#"
import psycopg, json
said = {}
with psycopg.connect(autocommit=True) as db:
    for name, sql in (
        ("long", "SELECT '" + "x" * 200_000 + "'"),
        ("deep", "SELECT " + "(" * 20_000 + "1" + ")" * 20_000),
        ("joins", "SELECT 1 FROM orders" + " JOIN orders" * 4000),
        ("minus", "SELECT " + "- " * 30_000 + "1"),
        ("nothing", "SELECT FROM WHERE"),
    ):
        try:
            db.execute(sql)
            said[name] = "ran"
        except psycopg.Error as refused:
            said[name] = refused.sqlstate
        assert db.execute("SELECT 1").fetchone() == (1,)
print(json.dumps(said))
"#;
    let said = json(&world.job(&[world.python().as_str(), "-c", script]).run().ok().stdout);
    for name in ["long", "deep", "joins", "minus", "nothing"] {
        assert_ne!(said[name], "ran", "{name}: {said}");
    }
    assert_eq!(ran(&world, "JOIN orders JOIN"), 0);
}

#[test]
fn a_client_that_never_reads_costs_itself() {
    let world = World::new();
    let script = r#"
import socket, struct, os, sys, time
body = b"user\0job\0database\0orders\0\0"
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
sock.connect((os.environ["PGHOST"], 5432))
sock.sendall(struct.pack("!II", len(body) + 8, 196608) + body)
seen = b""
while not seen.endswith(b"Z\0\0\0\5I"):
    seen += sock.recv(65536)
sql = b"SELECT a.id, b.name FROM orders a, customers b, customers c\0"
sock.sendall(b"Q" + struct.pack("!I", len(sql) + 4) + sql)
print("asked", flush=True)
sys.stdin.read()
"#;
    let mut job = world.job(&[world.python().as_str(), "-c", script]).open().expect("a job");
    wait_for("the question", || (ran(&world, "customers b, customers c") == 1).then_some(()));
    // 40 million rows are on their way to somebody who does not take them; others are served meanwhile.
    for _ in 0..5 {
        assert_eq!(world.psql("SELECT 'served';").run().ok().text(), "served");
    }
    let memory = world.agent.memory().expect("the agent's memory");
    assert!(memory < 512 << 20, "{memory} bytes");
    job.close_stdin();
    drop(job);
    wait_for("the statement to end upstream", || {
        let left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'gateway' AND state = 'active'";
        (world.db.ask(left) == "0").then_some(())
    });
}

#[test]
fn a_thousand_idle_connections_are_carried() {
    let world = World::builder()
        .configure("/sessions/max_per_job", 1200)
        .postgres(tests::postgres::Options {
            settings: vec!["max_connections = 1100".into(), "shared_buffers = 32MB".into()],
            quiet: true,
            ..tests::postgres::Options::default()
        })
        .up();
    let script = r#"
import socket, struct, os, sys, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)) if resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 4096 else None
body = b"user\0job\0database\0orders\0\0"
start = struct.pack("!II", len(body) + 8, 196608) + body
socks = []
for _ in range(1000):
    sock = socket.create_connection((os.environ["PGHOST"], 5432))
    sock.sendall(start)
    socks.append(sock)
for sock in socks:
    seen = b""
    while not seen.endswith(b"Z\0\0\0\5I"):
        piece = sock.recv(65536)
        assert piece, seen
        seen += piece
print("open", flush=True)
sys.stdin.readline()
sql = b"SELECT 1\0"
for sock in socks[::100]:
    sock.sendall(b"Q" + struct.pack("!I", len(sql) + 4) + sql)
    seen = b""
    while not seen.endswith(b"Z\0\0\0\5I"):
        seen += sock.recv(65536)
print("answered", flush=True)
"#;
    let mut job = world.job(&[world.python().as_str(), "-c", script]).open().expect("a job");
    wait_for("a thousand sessions", || {
        assert!(job.alive(), "the job ended early");
        (world.agent.metric("gateway_sessions_active", &[]).ok()? >= 1000.0).then_some(())
    });
    assert_eq!(world.psql("SELECT 'served';").run().ok().text(), "served");
    let memory = world.agent.memory().expect("the agent's memory");
    assert!(memory < 512 << 20, "{memory} bytes for a thousand idle sessions");
    job.write(b"go\n").expect("written");
    let out = job.finish(Duration::from_secs(60)).expect("an end").ok();
    assert!(out.stdout.contains("answered"), "{out}");
}

#[test]
fn one_job_cannot_take_every_session() {
    let world = World::builder().configure("/sessions/max_per_job", 10).up();
    let script = r#"
import socket, struct, os, json
body = b"user\0job\0database\0orders\0\0"
start = struct.pack("!II", len(body) + 8, 196608) + body
socks, served = [], 0
for _ in range(40):
    try:
        sock = socket.create_connection((os.environ["PGHOST"], 5432))
        sock.settimeout(10)
        sock.sendall(start)
        seen = b""
        while not seen.endswith(b"Z\0\0\0\5I"):
            piece = sock.recv(65536)
            if not piece:
                raise ConnectionError
            seen += piece
        served += 1
        socks.append(sock)
    except OSError:
        pass
print(json.dumps({"served": served}))
"#;
    let said = json(&world.job(&[world.python().as_str(), "-c", script]).run().ok().stdout);
    assert_eq!(said, json!({ "served": 10 }));
    assert_eq!(world.psql("SELECT 'another job';").run().ok().text(), "another job");
}
