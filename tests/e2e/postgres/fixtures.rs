//! The world without the agent: what the other tests stand on.

use std::process::Command;

use tests::{World, names::Name, postgres::Postgres, process, world};

#[test]
fn a_world_has_a_server_behind_a_wire_and_leaves_nothing() {
    let world = World::builder().without_agent().up();
    assert_eq!(world.db.ask("SELECT count(*) FROM customers"), "200");

    // Over the wire, with TLS and the password, as the gateway will.
    let psql = |user: &str| {
        let mut psql = world.host.command(world.db.program("psql"));
        psql.args(["-XAtc", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"]);
        psql.env("PGHOST", world::DATABASE).env("PGDATABASE", Postgres::DATABASE).env("PGUSER", user);
        psql.env("PGPASSWORD", world.password()).env("PGSSLMODE", "verify-full");
        psql.env("PGSSLROOTCERT", world.folder().join("db-ca.pem"));
        process::run(&mut psql).expect("psql")
    };
    assert_eq!(psql("gateway").ok().text(), "t");
    assert!(psql("nobody").failed().stderr.contains("password authentication failed"));
    assert!(world.db.log().contains("pg_backend_pid()"), "the server's log shows statements");

    let name = world.name().clone();
    let (folder, cgroup) = (world.folder().to_owned(), world.cgroup().to_owned());
    drop(world);
    assert!(!folder.exists() && !cgroup.exists());
    let spaces = process::output(Command::new("ip").args(["netns", "list"])).expect("ip");
    assert!(!spaces.contains(name.as_str()), "{spaces}");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(name.as_str()), "{mounts}");
}

#[test]
fn the_canary_counts_what_leaves_and_nothing_else() {
    let world = World::builder().without_agent().up();
    assert_eq!(world.canary().expect("a count"), 0);
    // To the database: not the canary's business.
    world
        .host
        .enter(|| std::net::TcpStream::connect((world::DATABASE, Postgres::PORT)).expect("a connection"))
        .expect("entered");
    assert_eq!(world.canary().expect("a count"), 0);
    for target in ["192.0.2.77", "2001:db8:77::1"] {
        let before = world.canary().expect("a count");
        let target: std::net::IpAddr = target.parse().expect("an address");
        world
            .host
            .enter(|| {
                let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = std::net::UdpSocket::bind(any).expect("a socket");
                socket.send_to(b"hello", (target, 9)).expect("sent");
            })
            .expect("entered");
        let after = process::wait_for("the packet", process::LIMIT, || {
            world.canary().ok().filter(|count| *count > before)
        });
        assert!(after.is_ok());
    }
}

#[test]
fn worlds_live_side_by_side() {
    let worlds: Vec<_> = std::thread::scope(|scope| {
        let making: Vec<_> = (0..3).map(|_| scope.spawn(|| World::builder().without_agent().up())).collect();
        making.into_iter().map(|thread| thread.join().expect("a world")).collect()
    });
    for world in &worlds {
        assert_eq!(world.db.ask("SELECT 1"), "1");
    }
    let names: std::collections::HashSet<Name> = worlds.iter().map(|world| world.name().clone()).collect();
    assert_eq!(names.len(), 3);
}

#[test]
fn a_panic_leaves_nothing_either() {
    let (tell, told) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let world = World::builder().without_agent().up();
        tell.send((world.folder().to_owned(), world.cgroup().to_owned())).expect("told");
        // Quietly: this one is expected.
        std::panic::resume_unwind(Box::new("a failing test"));
    })
    .join();
    assert!(panicked.is_err());
    let (folder, cgroup) = told.recv().expect("paths");
    assert!(!folder.exists() && !cgroup.exists());
}
