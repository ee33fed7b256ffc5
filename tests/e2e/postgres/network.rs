//! Where a job's packets go, and where they do not: with the gateway up, dead, and back.

use std::time::{Duration, Instant};

use tests::{World, process::LIMIT, world};

use crate::support::{ran, wait_for, wait_for_audit};

/// Dials in the ways that programs do; prints what came of it.
const DIAL: &str = r#"
import socket, sys, json, time
host, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
started = time.monotonic()
try:
    if kind == "tcp":
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(10)
        sock.connect((host, port))
    elif kind == "udp":
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.sendto(b"hello", (host, port))
    elif kind == "raw":
        sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    elif kind == "packet":
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    said = "reached"
except OSError as refused:
    said = refused.strerror
print(json.dumps({"said": said, "took": time.monotonic() - started}))
"#;

#[track_caller]
fn dial(world: &World, host: &str, port: u16, kind: &str) -> (String, Duration) {
    let out = world.job(&[&world.python(), "-c", DIAL, host, &port.to_string(), kind]).run().ok();
    let said = crate::support::json(&out.stdout);
    let took = said["took"].as_f64().expect("a time");
    (said["said"].as_str().expect("words").to_owned(), Duration::from_secs_f64(took))
}

#[test]
fn undeclared_destinations_are_refused_at_once_and_nothing_leaves() {
    let world = World::new();
    for (host, port, kind) in [
        (world::CANARY, 5432, "tcp"),
        (world::CANARY, 443, "tcp"),
        (world::CANARY_V6, 5432, "tcp"),
        ("192.0.2.1", 80, "tcp"),
        ("2001:db8:dead::1", 80, "tcp"),
        (world::CANARY, 123, "udp"),
        (world::CANARY_V6, 123, "udp"),
        (world::CANARY, 853, "tcp"),
        (world::CANARY_V6, 443, "udp"),
        // The server's machine, but not the declared port; a neighbour of it.
        (world::DATABASE, 22, "tcp"),
        (world::UNDECLARED, 5432, "tcp"),
        ("0.0.0.0", 0, "raw"),
        ("0.0.0.0", 0, "packet"),
    ] {
        let (said, took) = dial(&world, host, port, kind);
        assert_ne!(said, "reached", "{kind} to {host}:{port}");
        assert!(took < Duration::from_secs(2), "{kind} to {host}:{port} took {took:?}");
    }
    assert_eq!(world.canary().expect("a count"), 0);
    assert!(world.agent.metric("gateway_kernel_denials_total", &[]).expect("metrics") >= 1.0);
    wait_for_audit(&world, "kernel_denied", |_| true);
}

#[test]
fn straight_to_the_database_is_through_the_gateway_all_the_same() {
    let world = World::new();
    // With the server's real user and a wrong password: it is the gateway that answers.
    let out = world
        .job(&[
            "env",
            "PGUSER=gateway",
            "PGPASSWORD=wrong",
            "PGSSLMODE=disable",
            "psql",
            "-XAtc",
            "SELECT current_user, inet_server_addr()",
        ])
        .run();
    let out = if out.success() {
        out
    } else {
        world.psql("SELECT current_user;").env("PGUSER", "gateway").env("PGPASSWORD", "wrong").run().ok()
    };
    assert!(out.stdout.starts_with("gateway"), "{out}");
    // The client believes to speak to whom it dialled.
    let script = r#"
import socket, sys
sock = socket.create_connection((sys.argv[1], 5432))
print(sock.getpeername()[0], sock.getpeername()[1])
"#;
    let out = world.job(&[&world.python(), "-c", script, world::DATABASE]).run().ok();
    assert_eq!(out.text(), format!("{} 5432", world::DATABASE));
    // Whatever reached the server came from the gateway's own login.
    let log = world.db.log();
    assert!(!log.contains("password authentication failed"), "{log}");
}

#[test]
fn another_database_or_none_is_refused_by_policy() {
    let world = World::new();
    for database in ["postgres", "template1", "nonsense"] {
        let out = world.psql("SELECT 1;").env("PGDATABASE", database).run().failed();
        assert!(!out.stderr.contains("does not exist"), "the server was not asked: {out}");
    }
    assert!(!world.db.log().contains("gateway@postgres"));
}

#[test]
fn without_enrolment_there_is_no_service() {
    let world = World::new();
    // A process that sits in the tree but is nobody's job.
    let cgroup = world.cgroup().join("gateway-jobs/stray");
    tests::cgroup::make(&cgroup).expect("a cgroup");
    let mut command = world.host.command("sh");
    command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec psql -XAtc 'SELECT 1'"]).arg(&cgroup);
    command
        .env("PGHOST", world::DATABASE)
        .env("PGUSER", "gateway")
        .env("PGDATABASE", "orders")
        .env("PGPASSWORD", world.password());
    let out = tests::process::run(&mut command).expect("psql").failed();
    assert!(!out.stdout.contains('1'), "{out}");
    assert_eq!(ran(&world, "SELECT 1"), 0);
}

#[test]
fn a_killed_gateway_stops_the_traffic_and_its_successor_serves_the_same_job() {
    let mut world = World::new();
    world.pgbench_tables(1).expect("tables");
    // One job for the whole story: load, loss, and a new connection once the gateway is back.
    let script = "pgbench -n -S -c 4 -T 600 >/dev/null 2>&1; echo stopped; read again; \
                  until psql -XAtc \"SELECT 'served'\" 2>/dev/null; do sleep 0.2; done; \
                  python3 -c 1 2>/dev/null; echo end";
    let mut job = world.job(&["sh", "-c", script]).open().expect("a job");
    let statements = |world: &World| ran(world, "pgbench_accounts");
    wait_for("the load", || (statements(&world) > 200).then_some(()));
    let before = world.canary().expect("a count");
    let jobs = world.agent.json(&["jobs"]).expect("jobs");
    world.agent.kill();
    let killed = Instant::now();

    // The load ends by itself: its connections are gone.
    wait_for("the load to notice", || {
        (world.db.ask("SELECT count(*) FROM pg_stat_activity WHERE usename = 'gateway'") == "0").then_some(())
    });
    assert!(killed.elapsed() < Duration::from_secs(10));
    // Nobody gets anywhere now, straight or otherwise.
    let procs = std::fs::read_to_string(cgroup_of(&world).join("cgroup.procs")).expect("the job lives");
    assert!(!procs.is_empty());
    let reached = statements(&world);
    for host in [world::DATABASE, world::CANARY, world::DATABASE_V6] {
        let out = inside(&world, &["psql", "-XAtc", "SELECT 1"], host);
        assert!(!out.success(), "{host}: {out}");
    }
    assert_eq!(statements(&world), reached);
    assert_eq!(world.canary().expect("a count"), before);

    world.agent.start().expect("the agent again");
    assert_eq!(
        world.agent.json(&["jobs"]).expect("jobs").as_array().map(Vec::len),
        jobs.as_array().map(Vec::len),
        "the job is still known"
    );
    job.write(b"again\n").expect("the job listens");
    let out = job.finish(LIMIT).expect("an end").ok();
    assert!(out.stdout.contains("stopped") && out.stdout.contains("served"), "{out}");
    assert_eq!(world.canary().expect("a count"), before);
}

/// The cgroup of the only job.
fn cgroup_of(world: &World) -> std::path::PathBuf {
    let jobs = std::fs::read_dir(world.cgroup().join("gateway-jobs")).expect("jobs");
    let mut dirs = jobs.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    dirs.next().expect("a job")
}

/// Runs something more inside the only job, past the agent.
fn inside(world: &World, words: &[&str], host: &str) -> tests::process::Output {
    let mut command = world.host.command("sh");
    command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(cgroup_of(world)).args(words);
    command
        .env("PGHOST", host)
        .env("PGUSER", "gateway")
        .env("PGDATABASE", "orders")
        .env("PGPASSWORD", world.password());
    command.env("PGCONNECT_TIMEOUT", "3");
    tests::process::run(&mut command).expect("it ran")
}

#[test]
fn a_stopped_gateway_detaches_nothing_and_uninstall_does() {
    let mut world = World::new();
    let _out = world.psql("SELECT 1;").run().ok();
    let status = world.agent.stop().expect("it ends");
    assert!(status.success(), "{status}: {}", world.agent.log());
    let cgroup = world.cgroup().join("gateway-jobs/late");
    tests::cgroup::make(&cgroup).expect("a cgroup");
    let straight = || {
        let mut command = world.host.command("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec psql -XAtc 'SELECT 1'"]).arg(&cgroup);
        command.env("PGHOST", world::DATABASE).env("PGUSER", "gateway").env("PGDATABASE", "orders");
        command.env("PGPASSWORD", world.password()).env("PGCONNECT_TIMEOUT", "3");
        tests::process::run(&mut command).expect("psql")
    };
    let _out = straight().failed();
    let _out = world.agent.cli(&["uninstall", "--yes"]).expect("uninstalled").ok();
    assert_eq!(straight().ok().text(), "1", "nothing is attached any more");
}
