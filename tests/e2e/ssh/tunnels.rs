//! No tunnel leads anywhere: what is behind the host hears nothing.

use std::{
    net::TcpListener,
    os::unix::net::UnixListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{Ground, HOST, pinned, policy, wait_for, wait_for_audit};

/// Listeners that only the host can reach, and how many came.
struct Canary {
    port: u16,
    path: String,
    heard: Arc<AtomicUsize>,
}

impl Canary {
    fn new(ground: &Ground) -> Self {
        let heard = Arc::new(AtomicUsize::new(0));
        let path = ground.sshd.home().join("canary.sock");
        let tcp = ground
            .world
            .far
            .enter(|| TcpListener::bind("127.0.0.1:0").expect("a listener"))
            .expect("the host's namespace");
        let unix = UnixListener::bind(&path).expect("a socket");
        let port = tcp.local_addr().expect("an address").port();
        let count = Arc::clone(&heard);
        std::thread::spawn(move || {
            tcp.incoming().for_each(|_| {
                count.fetch_add(1, Ordering::SeqCst);
            })
        });
        let count = Arc::clone(&heard);
        std::thread::spawn(move || {
            unix.incoming().for_each(|_| {
                count.fetch_add(1, Ordering::SeqCst);
            })
        });
        Self { port, path: path.display().to_string(), heard }
    }

    #[track_caller]
    fn heard_nothing(&self) {
        assert_eq!(self.heard.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn connections_through_the_host_are_refused_with_the_rule() {
    let ground = Ground::new();
    let canary = Canary::new(&ground);
    // The canary works: the host itself reaches it.
    let own = ground
        .world
        .far
        .enter(|| std::net::TcpStream::connect(("127.0.0.1", canary.port)).is_ok())
        .expect("the host's namespace");
    assert!(own);
    wait_for("the canary", || (canary.heard.swap(0, Ordering::SeqCst) == 1).then_some(()));

    let out = ground.ssh(&["-W", &format!("127.0.0.1:{}", canary.port), HOST]).run().failed();
    assert!(out.stderr.contains("denied by policy rule builtin:default-deny"), "{out}");
    let jump = format!("{HOST}:22");
    let out = ground
        .ssh(&["-o", "ConnectTimeout=5", "-J", &jump, "-p", &canary.port.to_string(), "127.0.0.1", "true"])
        .run()
        .failed();
    assert!(out.stderr.contains("denied by policy rule"), "{out}");
    let script = "import asyncio, asyncssh, sys\nasync def main():\n  async with asyncssh.connect(sys.argv[1], known_hosts='/etc/ssh/ssh_known_hosts') as c:\n    \
                  try:\n      await c.open_unix_connection(sys.argv[2])\n    except asyncssh.ChannelOpenError as e:\n      print(e.reason)\nasyncio.run(main())";
    let out = ground.job(&[&ground.world.python(), "-c", script, HOST, &canary.path]).run().ok();
    assert!(out.stdout.contains("denied by policy rule"), "{out}");
    for kind in ["ssh_direct_tcpip", "ssh_direct_streamlocal"] {
        let line = wait_for_audit(&ground.world, "decision", |line| line["statement_kind"] == kind);
        assert_eq!(line["verdict"], "deny", "{line}");
    }
    canary.heard_nothing();
}

#[test]
fn a_tunnel_that_a_rule_names_is_carried_and_no_other() {
    let rules = crate::support::RULES.replace(
        "      pty: true\n      env",
        "      forward: { to: [\"127.0.0.1:*\"] }\n      pty: true\n      env",
    );
    let ground = Ground::with(&rules, &[], &[]);
    let canary = Canary::new(&ground);
    let _ = ground.ssh(&["-W", &format!("127.0.0.1:{}", canary.port), HOST]).run();
    wait_for("the canary", || (canary.heard.load(Ordering::SeqCst) == 1).then_some(()));
    let out = ground.ssh(&["-W", &format!("127.0.0.2:{}", canary.port), HOST]).run().failed();
    assert!(out.stderr.contains("denied by policy rule"), "{out}");
    let line =
        wait_for_audit(&ground.world, "completed", |line| line["statement_kind"] == "ssh_direct_tcpip");
    assert_eq!(line["verdict"], "allow", "{line}");
    assert_eq!(canary.heard.load(Ordering::SeqCst), 1);
}

#[test]
fn listeners_at_the_host_are_refused() {
    let ground = Ground::new();
    for to in ["18022:127.0.0.1:1", "/tmp/gateway-forwarded.sock:127.0.0.1:1"] {
        let out = ground.ssh(&["-o", "ExitOnForwardFailure=yes", "-R", to, HOST, "echo up"]).run().failed();
        assert!(out.stderr.contains("remote port forwarding failed"), "{to}: {out}");
        assert!(!out.stdout.contains("up"), "{to}: {out}");
    }
    for kind in ["ssh_tcpip_forward", "ssh_streamlocal_forward"] {
        let line = wait_for_audit(&ground.world, "decision", |line| line["statement_kind"] == kind);
        assert_eq!((&line["verdict"], &line["rules"][0]), (&"deny".into(), &"builtin:default-deny".into()));
    }
    let listens = ground
        .world
        .far
        .enter(|| std::net::TcpStream::connect("127.0.0.1:18022").is_ok())
        .expect("the host's namespace");
    assert!(!listens);
}

/// What comes back from a connection to the host itself.
fn answered(ground: &Ground, port: u16) -> Option<String> {
    let read = ground.world.far.enter(|| {
        let mut tcp = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        tcp.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let mut said = String::new();
        std::io::Read::read_to_string(&mut tcp, &mut said).ok()?;
        Some(said)
    });
    read.ok().flatten()
}

#[test]
fn listeners_that_a_rule_names_are_carried_until_it_is_taken_back() {
    let rules = crate::support::RULES.replace(
        "      pty: true\n      env",
        "      forward: { listen: [\"localhost:*\"], listen_sockets: [\"/**\"] }\n      pty: true\n      env",
    );
    let ground = Ground::with(&rules, &[], &[]);
    let socket = ground.sshd.home().join("forwarded.sock");
    let serve = "import socket\ns = socket.socket(socket.AF_UNIX); s.bind('/tmp/local.sock'); s.listen()\nwhile True:\n  c, _ = s.accept(); c.sendall(b'from the job' * 100000); c.close()";
    // The job cannot reach its own loopback by TCP; what its client connects to is a socket.
    let script = format!(
        "python3 -c \"{serve}\" & while [ ! -S /tmp/local.sock ]; do sleep 0.1; done; export S=/tmp/mux\n\
         ssh -o BatchMode=yes -o ControlMaster=yes -o ControlPath=$S -N -f {HOST}\n\
         port=$(ssh -o ControlPath=$S -O forward -R 0:/tmp/local.sock {HOST}); echo port $port\n\
         ssh -o ControlPath=$S -O forward -R {socket}:/tmp/local.sock {HOST} && echo socket\n\
         ssh -o ControlPath=$S -O forward -R 127.0.0.9:18022:/tmp/local.sock {HOST} || echo refused\n\
         read line; ssh -o ControlPath=$S -O cancel -R 0:/tmp/local.sock {HOST} && echo cancelled; read line; kill %1",
        socket = socket.display()
    );
    let mut job = ground.job(&["bash", "-c", &script]).open().expect("a job");
    let opened = wait_for_audit(&ground.world, "decision", |line| {
        line["statement_kind"] == "ssh_tcpip_forward" && line["verdict"] == "deny"
    });
    assert_eq!(opened["rules"][0], "builtin:default-deny", "{opened}");
    let ports = wait_for("the host's listener", || {
        let log = ground.sshd.log();
        let ports: Vec<u16> = log
            .lines()
            .filter_map(|line| line.split_once("Allocated listen port ")?.1.trim().parse().ok())
            .collect();
        (!ports.is_empty()).then_some(ports)
    });
    let port = ports[0];
    let all = "from the job".repeat(100_000);
    assert!(answered(&ground, port).is_some_and(|said| said == all));
    let mut unix = wait_for("the socket", || std::os::unix::net::UnixStream::connect(&socket).ok());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut unix, &mut said).expect("an answer");
    assert!(said == all, "{} bytes", said.len());
    let carried = wait_for_audit(&ground.world, "completed", |line| {
        line["statement_kind"] == "ssh_tcpip_forward" && line["bytes_in"] == all.len()
    });
    assert_eq!(
        (&carried["verdict"], &carried["rules"][0]),
        (&"allow".into(), &"commands".into()),
        "{carried}"
    );
    // Taken back by the client.
    job.write(b"\n").expect("standard input");
    wait_for("the listener to end", || answered(&ground, port).is_none().then_some(()));
    // And the other one by policy.
    ground.world.write_policy(&policy(&pinned(&ground.sshd), crate::support::RULES)).expect("written");
    wait_for_audit(&ground.world, "completed", |line| {
        line["statement_kind"] == "ssh_streamlocal_forward"
            && line["outcome"] == "the policy no longer allows it"
    });
    let mut unix = std::os::unix::net::UnixStream::connect(&socket);
    let open = unix.as_mut().is_ok_and(|unix| {
        let mut said = String::new();
        std::io::Read::read_to_string(unix, &mut said).is_ok() && !said.is_empty()
    });
    assert!(!open);
    job.write(b"\n").expect("standard input");
    let out = job.finish(tests::process::LIMIT).expect("an end");
    assert!(out.stdout.contains(&format!("port {port}\n")), "{out}");
    for word in ["socket\n", "refused\n", "cancelled\n"] {
        assert!(out.stdout.contains(word), "{out}");
    }
}

#[test]
fn agents_and_displays_are_not_forwarded() {
    let ground = Ground::new();
    let script = format!(
        "eval $(ssh-agent) >/dev/null; export DISPLAY=:9; ssh -o BatchMode=yes -A -Y {HOST} 'echo agent=$SSH_AUTH_SOCK display=$DISPLAY'; \
         status=$?; kill $SSH_AGENT_PID; exit $status"
    );
    let out = ground.job(&["bash", "-c", &script]).run().ok();
    assert_eq!(out.text(), "agent= display=", "{out}");
    assert!(out.stderr.contains("agent forwarding") || out.stderr.contains("denied by policy rule"), "{out}");
    for kind in ["ssh_agent_forwarding", "ssh_x11"] {
        let line = wait_for_audit(&ground.world, "decision", |line| line["statement_kind"] == kind);
        assert_eq!((&line["verdict"], &line["rules"][0]), (&"deny".into(), &"builtin:default-deny".into()));
    }
}

#[test]
fn the_job_has_no_other_way_to_the_host() {
    let ground = Ground::new();
    // Not its address at another port, and nothing behind it.
    let out = ground.ssh(&["-o", "ConnectTimeout=5", "-p", "2222", HOST, "true"]).run().failed();
    assert!(out.stderr.contains("Operation not permitted"), "{out}");
    assert_eq!(ground.sshd.ran(), [""; 0]);
}

#[test]
fn another_protocol_is_closed_at_once() {
    let ground = Ground::new();
    for hello in ["GET / HTTP/1.1\\r\\n\\r\\n", "\\x16\\x03\\x01\\x02\\x00", "SSH", "SSH-1.5-old\\r\\n"] {
        let script =
            format!("exec 3<>/dev/tcp/{HOST}/22; printf '{hello}' >&3; timeout 20 cat <&3 | head -c 200");
        let out = ground.job(&["bash", "-c", &script]).limit(Duration::from_secs(40)).run();
        assert!(out.stdout.starts_with("SSH-2.0-gateway"), "{hello}: {out}");
        assert!(!out.stdout.contains("OpenSSH"), "{hello}: {out}");
    }
    assert!(!ground.sshd.log().contains("Connection from"), "{}", ground.sshd.log());
    let refused =
        ground.world.agent.metric("gateway_flows_total", &["result=\"protocol\""]).expect("metrics");
    assert!(refused >= 2.0, "{refused}");
}
