//! Who is measured, and on which address.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use tests::{
    World,
    postgres::Postgres,
    process::{Running, wait_for, which},
    world::{DATABASE, DATABASE_V6, UNDECLARED},
};

use super::{lane::Lane, usage};

/// One way to the server.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    /// Without TLS, and with TLS on every leg that the proxy has.
    pub(super) plain: String,
    pub(super) tls: Option<String>,
    /// By another resource, where answers are searched.
    pub(super) searched: Option<String>,
    /// Whose CPU is counted.
    pub(super) pid: Option<u32>,
    pub(super) lane: Lane,
    #[expect(dead_code, reason = "runs until it is dropped")]
    process: Option<Running>,
}

/// Without TLS, and with it.
const PLAIN: &str = "sslmode=disable gssencmode=disable";
const TLS: &str = "sslmode=require gssencmode=disable";

fn at(host: &str, port: u16, rest: &str) -> String {
    format!("host={host} port={port} dbname={} user={} {rest}", Postgres::DATABASE, Postgres::ROLE)
}

impl Contender {
    /// CPU seconds so far.
    pub(super) fn cpu(&self) -> Result<f64> {
        self.pid.map_or(Ok(0.0), usage::cpu)
    }
}

/// The agent of a world, reached from a job.
pub(super) fn gateway(name: &'static str, world: &World) -> Result<Contender> {
    Ok(Contender {
        name,
        plain: at(DATABASE, Postgres::PORT, PLAIN),
        tls: Some(at(UNDECLARED, Postgres::PORT, TLS)),
        searched: Some(at(DATABASE_V6, Postgres::PORT, PLAIN)),
        pid: world.agent.pid(),
        lane: inside(world)?,
        process: None,
    })
}

/// Everyone there is. Whoever is not installed is left out, and said so.
pub(super) fn all(world: &World) -> Result<Vec<Contender>> {
    let own = format!("password={}", world.password());
    let (plain, tls) = (PLAIN, TLS);
    let mut found = vec![
        Contender {
            name: "direct",
            plain: at(DATABASE, Postgres::PORT, &format!("{plain} {own}")),
            tls: Some(at(DATABASE, Postgres::PORT, &format!("{tls} {own}"))),
            searched: None,
            pid: None,
            lane: beside(world)?,
            process: None,
        },
        gateway("gateway", world)?,
    ];
    let folder = world.folder().join("bench");
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    found.push(Contender {
        name: "no TLS",
        plain: String::new(),
        tls: Some(at(DATABASE, Postgres::PORT, &format!("{plain} {own}"))),
        searched: None,
        pid: None,
        lane: beside(world)?,
        process: None,
    });
    if let Some(program) = which("pgbouncer") {
        let config = pgbouncer(world, &folder)?;
        let mut command = world.host.command("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program).arg(config);
        let process = started(world, &mut command, &folder, 6432)?;
        found.push(Contender {
            name: "pgbouncer",
            plain: at("127.0.0.1", 6432, plain),
            tls: None,
            searched: None,
            pid: Some(process.pid()),
            lane: beside(world)?,
            process: Some(process),
        });
        // TLS towards the server is a setting of the whole process.
        let config = folder.join("pgbouncer-tls.ini");
        let mut command = world.host.command("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.arg(which("pgbouncer").context("pgbouncer")?).arg(config);
        let process = started(world, &mut command, &folder, 6433)?;
        found.push(Contender {
            name: PGBOUNCER_TLS,
            plain: String::new(),
            tls: Some(at("127.0.0.1", 6433, tls)),
            searched: None,
            pid: Some(process.pid()),
            lane: beside(world)?,
            process: Some(process),
        });
    } else {
        eprintln!("pgbouncer is not installed and is left out");
    }
    if let Some(program) = which("haproxy") {
        let config = folder.join("haproxy.cfg");
        fs::write(&config, haproxy())?;
        let mut command = world.host.command(program);
        command.args(["-db", "-f"]).arg(config);
        let process = started(world, &mut command, &folder, 6434)?;
        found.push(Contender {
            name: "haproxy",
            plain: at("127.0.0.1", 6434, &format!("{plain} {own}")),
            tls: None,
            searched: None,
            pid: Some(process.pid()),
            lane: beside(world)?,
            process: Some(process),
        });
    } else {
        eprintln!("haproxy is not installed and is left out");
    }
    let mut command = world.host.command(tests::program("tokio-relay")?);
    command.args(["127.0.0.1:6435", &format!("{DATABASE}:{}", Postgres::PORT)]);
    let process = started(world, &mut command, &folder, 6435)?;
    found.push(Contender {
        name: "relay",
        plain: at("127.0.0.1", 6435, &format!("{plain} {own}")),
        tls: None,
        searched: None,
        pid: Some(process.pid()),
        lane: beside(world)?,
        process: Some(process),
    });
    Ok(found)
}

/// Only in the section about TLS.
pub(super) const PGBOUNCER_TLS: &str = "pgbouncer+tls";

/// In a job: everything it connects to goes through the gateway.
pub(super) fn inside(world: &World) -> Result<Lane> {
    let mut command = job(world)?;
    clean(&mut command);
    Lane::start(command)
}

/// A shell that is a job for as long as it takes: tokens are made when they are needed.
pub(super) fn job(world: &World) -> Result<Command> {
    let mint = world.mint_command()?;
    Ok(world.agent.command(&["exec", "--token-command", &mint, "--", "sh", "-s"]))
}

/// In the same namespace, as the same user, outside of the tree of cgroups that the gateway guards.
pub(super) fn beside(world: &World) -> Result<Lane> {
    let mut command = world.host.command("setpriv");
    let id = tests::agent::JOB_UID;
    command.args([format!("--reuid={id}"), format!("--regid={id}")]).args(["--clear-groups", "sh", "-s"]);
    clean(&mut command);
    Lane::start(command)
}

/// The connection string says it all.
fn clean(command: &mut Command) {
    for name in
        ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSSLMODE", "PGSSLROOTCERT", "PGAPPNAME"]
    {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent").current_dir("/");
}

fn started(world: &World, command: &mut Command, folder: &Path, port: u16) -> Result<Running> {
    let process = Running::logging(command, &folder.join(format!("{port}.log")))?;
    wait_for(&format!("port {port}"), Duration::from_secs(10), || {
        world.host.enter(|| std::net::TcpStream::connect(("127.0.0.1", port)).ok()).ok().flatten()
    })?;
    Ok(process)
}

fn pgbouncer(world: &World, folder: &Path) -> Result<std::path::PathBuf> {
    let identity = world.authority.server(&["db.internal", "127.0.0.1"])?;
    for (name, text) in [("proxy.crt", &identity.certificate), ("proxy.key", &identity.key)] {
        fs::write(folder.join(name), text)?;
        world.db.give(&folder.join(name))?;
    }
    let common = format!(
        "[databases]\n{db} = host={DATABASE} port={port} dbname={db} user={user} password={password}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nunix_socket_dir =\nauth_type = any\npool_mode = session\n\
         max_client_conn = 500\ndefault_pool_size = 100\nlog_connections = 0\nlog_disconnections = 0\nlog_stats = 0\n\
         ignore_startup_parameters = extra_float_digits\n",
        db = Postgres::DATABASE,
        port = Postgres::PORT,
        user = Postgres::ROLE,
        password = world.password(),
    );
    let files = folder.display();
    for (name, text) in [
        ("pgbouncer.ini", format!("{common}listen_port = 6432\n")),
        (
            "pgbouncer-tls.ini",
            format!(
                "{common}listen_port = 6433\nclient_tls_sslmode = require\nclient_tls_cert_file = {files}/proxy.crt\n\
                 client_tls_key_file = {files}/proxy.key\nserver_tls_sslmode = require\n"
            ),
        ),
    ] {
        let path = folder.join(name);
        fs::write(&path, text)?;
        world.db.give(&path)?;
    }
    Ok(folder.join("pgbouncer.ini"))
}

fn haproxy() -> String {
    format!(
        "global\n    nbthread 1\n    maxconn 1000\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n    option tcp-smart-connect\n\
         listen postgres\n    bind 127.0.0.1:6434\n    server db {DATABASE}:{port}\n",
        port = Postgres::PORT,
    )
}
