//! What a job may ask a resolver, and what the answers are worth.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{World, nameserver::Nameserver, sample, world};

use crate::{
    namespaces::Container,
    support::{REDACTED, wait_for, wait_for_audit},
};

/// Where the gateway asks.
const UPSTREAM: &str = "198.51.100.20:53";

/// Asks one resolver for one name as bytes on a socket, and prints what came back.
/// Arguments: resolver, name, type, then any of: tcp, sendto, plain.
const ASK: &str = r#"
import json, socket, struct, sys
resolver, name, kind, how = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".") if part)
opt = b"" if "plain" in how else b"\0" + struct.pack(">HHIH", 41, 1232, 0, 0)
query = struct.pack(">HHHHHH", 4660, 256, 1, 0, 0, 1 if opt else 0) + labels + b"\0" + struct.pack(">HH", kind, 1) + opt
family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
said = {}
try:
    if "tcp" in how:
        sock = socket.create_connection((resolver, 53), 5)
        sock.sendall(struct.pack(">H", len(query)) + query)
        reader = sock.makefile("rb")
        answer = reader.read(struct.unpack(">H", reader.read(2))[0])
        said["peer"] = sock.getpeername()[0]
    else:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.settimeout(5)
        if "sendto" in how:
            sock.sendto(query, (resolver, 53))
            answer, peer = sock.recvfrom(4096)
            said["peer"] = peer[0]
        else:
            sock.connect((resolver, 53))
            sock.send(query)
            answer = sock.recv(4096)
            said["peer"] = sock.getpeername()[0]
    identity, flags, _, answers = struct.unpack(">HHHH", answer[:8])
    said.update(id=identity, code=flags & 15, answers=answers, text=answer.decode("latin-1"))
except OSError as error:
    said["error"] = error.strerror or str(error)
print(json.dumps(said))
"#;

const A: &str = "1";
const TXT: &str = "16";
const ANY: &str = "255";
const REFUSED: u64 = 5;

const RULES: &str = r#"
dns:
  limits: { name_bytes: 60, labels: 5, per_second: 30, names_per_minute: 20 }
  rules:
    - { id: packages, effect: allow, subjects: [agents], names: ["*.packages.example"] }
    - { id: not-this, effect: deny, names: [bad.packages.example], reason: it is bad }
"#;

fn world() -> (World, Nameserver) {
    world_with(&format!("{}{RULES}", sample::POLICY))
}

fn world_with(policy: &str) -> (World, Nameserver) {
    let mut world =
        World::builder().policy(policy).configure("/dns/upstreams", vec![UPSTREAM]).without_agent().up();
    let nameserver =
        Nameserver::start(&world.far, UPSTREAM.parse().expect("an address")).expect("a name server");
    nameserver.set("a.packages.example", 60, &[world::CANARY, world::CANARY_V6]);
    nameserver.set_text("a.packages.example", "some text");
    world.agent.start().expect("the agent");
    (world, nameserver)
}

#[track_caller]
fn ask(world: &World, words: &[&str]) -> Value {
    let python = world.python();
    let words = [&[python.as_str(), "-c", ASK][..], words].concat();
    crate::support::json(&world.job(&words).run().ok().stdout)
}

#[test]
fn a_name_that_policy_allows_resolves_by_any_resolver_and_opens_nothing() {
    let (world, nameserver) = world();
    for how in [&[][..], &["sendto"], &["tcp"], &["plain"]] {
        // Whatever resolver it asks, it is the gateway that answers, and it looks like that resolver.
        for resolver in [world::CANARY, world::CANARY_V6, "127.0.0.53", "192.0.2.53"] {
            let said = ask(&world, &[&[resolver, "a.packages.example", A][..], how].concat());
            assert_eq!(
                (&said["code"], &said["answers"]),
                (&0.into(), &1.into()),
                "{resolver} {how:?}: {said}"
            );
            assert_eq!((&said["peer"], &said["id"]), (&resolver.into(), &4660.into()), "{resolver} {how:?}");
        }
    }
    let allowed = wait_for_audit(&world, "resolved", |line| line["verdict"] == "allow");
    assert_eq!(
        (&allowed["name"], &allowed["type"]),
        (&"a.packages.example".into(), &"A".into()),
        "{allowed}"
    );
    assert_eq!((&allowed["rules"][0], &allowed["addresses"][0]), (&"packages".into(), &world::CANARY.into()));
    assert_eq!(allowed["subject"], "payments-agent");

    // The address that it was told is as closed as before, also to DNS over TLS.
    let script = r#"
import socket, sys
found = sorted({entry[4][0] for entry in socket.getaddrinfo("a.packages.example", 443)})
print(found)
for address in found:
    for port in (443, 853, 5432):
        try:
            socket.create_connection((address, port), 5)
            print("reached", address, port)
        except OSError as refused:
            assert refused.errno == 1, refused
"#;
    let out = world.job(&[&world.python(), "-c", script]).run().ok();
    assert_eq!(out.text(), format!("['{}', '{}']", world::CANARY_V6, world::CANARY));
    // Whoever reads the log sees the name behind the address.
    wait_for_audit(&world, "kernel_denied", |line| line["name"] == "a.packages.example");
    assert_eq!(world.canary().expect("a count"), 0);
    assert!(nameserver.asked("a.packages.example") >= 2);
    assert!(
        world.agent.metric("gateway_dns_questions_total", &["result=\"allowed\""]).expect("metrics") >= 16.0
    );
}

#[test]
fn what_policy_does_not_allow_is_refused_by_name_and_never_asked_for() {
    let (world, nameserver) = world();
    for (name, kind, rule) in [
        ("secret-data.tunnel.example", A, "builtin:default-deny"),
        ("packages.example", A, "builtin:default-deny"),
        ("bad.packages.example", A, "not-this"),
        ("a.packages.example", TXT, "builtin:dns-type"),
        ("a.packages.example", ANY, "builtin:dns-type"),
        ("a.packages.example", "252", "builtin:dns-type"),
    ] {
        let started = Instant::now();
        for how in [&[][..], &["tcp"]] {
            let said = ask(&world, &[&[world::CANARY, name, kind][..], how].concat());
            assert_eq!(said["code"], REFUSED, "{name} {kind}: {said}");
            assert!(said["text"].as_str().expect("text").contains(&format!("rule {rule}")), "{said}");
        }
        assert!(started.elapsed() < Duration::from_secs(20));
        wait_for_audit(&world, "resolved", |line| {
            line["verdict"] == "deny" && line["name"] == name && line["rules"][0] == rule
        });
    }
    assert_eq!(
        (nameserver.asked("tunnel"), nameserver.asked("bad."), nameserver.asked("packages")),
        (0, 0, 0)
    );
    assert_eq!(world.canary().expect("a count"), 0);
    // Refused in the client's own words, at once.
    let out = world.job(&["getent", "hosts", "secret-data.tunnel.example"]).run().failed();
    assert!(out.took < Duration::from_secs(5), "{out}");
    assert!(
        world.agent.metric("gateway_dns_questions_total", &["result=\"refused\""]).expect("metrics") >= 12.0
    );
    assert!(world.agent.metric("gateway_decisions_total", &["rule=\"not-this\""]).expect("metrics") >= 2.0);
}

#[test]
fn a_tunnel_through_allowed_names_is_narrow() {
    let (world, nameserver) = world();
    let long = format!("{}.packages.example", "x".repeat(50));
    for name in [long.as_str(), "a.b.c.d.packages.example"] {
        let said = ask(&world, &[world::CANARY, name, A]);
        assert_eq!(said["code"], REFUSED, "{said}");
        assert!(said["text"].as_str().expect("text").contains("builtin:dns-limit"), "{said}");
    }
    assert_eq!(nameserver.asked(""), 0);
    // One job asks for many names, then for one name often.
    let script = r#"
import json, socket, struct, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(3)
sock.connect((sys.argv[1], 53))
def query(number, name):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack(">HHHHHH", number, 256, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
def code():
    return struct.unpack(">HH", sock.recv(4096)[:4])[1] & 15
names, often = [], []
for number in range(25):
    sock.send(query(number, "n%d.packages.example" % number))
    names.append(code())
for number in range(200):
    sock.send(query(number, "n1.packages.example"))
try:
    while len(often) < 200:
        often.append(code())
except TimeoutError:
    pass
print(json.dumps([names, often]))
"#;
    let out = world.job(&[&world.python(), "-c", script, world::CANARY]).run().ok();
    let said = crate::support::json(&out.stdout);
    let refused = |codes: &Value| {
        codes.as_array().expect("codes").iter().filter(|code| code.as_u64() == Some(REFUSED)).count()
    };
    assert!(refused(&said[0]) >= 5, "names in a minute: {said}");
    assert!(refused(&said[1]) >= 100, "questions a second: {said}");
    let beyond = (20..25).map(|number| nameserver.asked(&format!("n{number}.packages")));
    assert_eq!(beyond.sum::<usize>(), 0, "the world was asked for twenty names");
    wait_for_audit(&world, "resolved", |line| line["rules"][0] == "builtin:dns-limit");
    assert!(
        world.agent.metric("gateway_dns_questions_total", &["result=\"limited\""]).expect("metrics") >= 107.0
    );
}

#[test]
fn a_resource_by_name_is_followed_and_its_name_comes_with_it() {
    let policy =
        sample::POLICY.replace("hosts: [198.51.100.10, \"2001:db8:51::10\"]", "hosts: [db.internal]");
    assert_ne!(policy, sample::POLICY);
    let (world, nameserver) = world_with(&policy);
    let psql =
        || world.psql("SELECT email FROM public.customers WHERE id = 1;").env("PGHOST", "db.internal").run();
    // Nobody has it yet.
    let _out = psql().failed();
    // It moves to an address where no server is, then to the server.
    nameserver.set("db.internal", 1, &[world::UNDECLARED]);
    let found = |address: &str| {
        let out = world.job(&["getent", "ahostsv4", "db.internal"]).run();
        out.success() && out.stdout.contains(address)
    };
    wait_for("the first address", || found(world::UNDECLARED).then_some(()));
    let out = psql().failed();
    assert!(!out.stderr.contains("could not translate"), "{out}");
    nameserver.set("db.internal", 1, &[world::DATABASE]);
    wait_for("the second address", || found(world::DATABASE).then_some(()));
    assert_eq!(psql().ok().text(), REDACTED);
    // Who still has the old address is still sent to the gateway, and nowhere else.
    let out = world.psql("SELECT 1;").env("PGHOST", world::UNDECLARED).run().failed();
    assert!(!out.stderr.contains("not permitted"), "{out}");
    // A session goes on although its address is no longer the name's.
    let mut open = world.job(&["psql", "-XAtq", "-h", "db.internal"]).open().expect("a session");
    open.write(b"SELECT 'first';\n").expect("it listens");
    wait_for("the session", || {
        let sessions = world.agent.json(&["sessions"]).ok()?;
        (sessions.as_array()?.len() == 1).then_some(())
    });
    nameserver.set("db.internal", 1, &[world::UNDECLARED]);
    wait_for("the third address", || found(world::UNDECLARED).then_some(()));
    open.write(b"SELECT 'second';\n").expect("it listens");
    let out = open.finish(tests::process::LIMIT).expect("an end").ok();
    assert_eq!(out.text(), "first\nsecond");
    wait_for_audit(&world, "resolved", |line| line["name"] == "db.internal" && line["rules"][0] == "connect");
    assert_eq!(world.canary().expect("a count"), 0);
}

#[test]
fn without_the_gateway_nobody_answers() {
    let (mut world, nameserver) = world();
    let container = Container::start(&world);
    let _out = container.enrol(&world, &["--container", crate::namespaces::ID]).ok();
    let ask = |world: &World, how: &[&str]| {
        let words = [&["python3", "-c", ASK, world::CANARY, "a.packages.example", A][..], how].concat();
        crate::support::json(&container.run(world, &words).ok().stdout)
    };
    for how in [&[][..], &["sendto"], &["tcp"]] {
        assert_eq!(ask(&world, how)["code"], 0, "in a namespace of its own: {how:?}");
    }
    world.agent.kill();
    let asked = nameserver.asked("");
    for how in [&[][..], &["sendto"], &["tcp"]] {
        let said = ask(&world, how);
        let error = said["error"].as_str().unwrap_or_default();
        assert!(["Operation not permitted", "Connection refused", "timed out"].contains(&error), "{said}");
    }
    assert_eq!(nameserver.asked(""), asked);
    assert_eq!(world.canary().expect("a count"), 0);
}

#[test]
fn nonsense_is_dropped_and_counted() {
    let (world, _nameserver) = world();
    let script = r#"
import os, socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("203.0.113.20", 53))
for length in (0, 1, 11, 12, 13, 100, 4096, 4097, 9000):
    sock.send(b"\xff" * length)
    sock.send(os.urandom(length))
stream = socket.create_connection(("203.0.113.20", 53))
stream.sendall(b"\xff\xff")
assert stream.recv(100) == b""
"#;
    let _out = world.job(&[&world.python(), "-c", script]).run().ok();
    wait_for("the count", || {
        let count = world.agent.metric("gateway_dns_questions_total", &["result=\"malformed\""]).ok()?;
        (count >= 10.0).then_some(())
    });
    assert_eq!(ask(&world, &[world::CANARY, "a.packages.example", A])["code"], 0, "it still answers");
    assert_eq!(world.canary().expect("a count"), 0);
}
