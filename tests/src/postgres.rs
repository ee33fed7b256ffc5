//! A real PostgreSQL in the far namespace: TLS on, SCRAM, every statement in its log.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    netns::Netns,
    pki::Authority,
    process::{self, Output, Running, must, wait_for},
    sample,
};

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    server: Running,
    folder: PathBuf,
    programs: PathBuf,
    user: User,
}

/// Who runs it: PostgreSQL refuses to run as root.
#[derive(Debug, Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

/// What differs from test to test.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lines for postgresql.conf.
    pub settings: Vec<String>,
    /// Do not log statements: for measuring.
    pub quiet: bool,
    /// How clients prove who they are, in the words of pg_hba.conf; SCRAM by default.
    pub method: &'static str,
    /// Programs of another server than the installed one.
    pub programs: Option<PathBuf>,
}

impl Postgres {
    /// The role that the gateway logs in as.
    pub const ROLE: &str = "gateway";
    /// The database with the sample data.
    pub const DATABASE: &str = "orders";
    pub const PORT: u16 = 5432;

    /// Makes a cluster with the sample data in a folder, and starts it in a namespace, listening
    /// on these addresses.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, or does not start; its log is in the error.
    pub fn start(
        folder: &Path,
        space: &Netns,
        addresses: &[&str],
        ca: &Authority,
        password: &str,
        options: &Options,
    ) -> Result<Self> {
        let programs = options.programs.clone().map_or_else(programs, Ok)?;
        let user = User::find("postgres")?;
        fs::create_dir_all(folder)?;
        user.give(folder, 0o755)?;
        let data = folder.join("data");
        cluster(&programs, user, &data)?;

        let identity = ca.server(&["db.internal", addresses.first().copied().unwrap_or("localhost")])?;
        for (name, text) in [("server.crt", &identity.certificate), ("server.key", &identity.key)] {
            fs::write(data.join(name), text)?;
            user.give(&data.join(name), 0o600)?;
        }
        let logging =
            if options.quiet { "log_statement = none" } else { "log_statement = all\nlog_connections = on" };
        let settings = format!(
            "listen_addresses = '{}'\nport = {}\nunix_socket_directories = '{}'\nssl = on\nssl_ca_file = 'ca.pem'\n\
             password_encryption = scram-sha-256\nmax_connections = 400\nfsync = off\nsynchronous_commit = off\n\
             full_page_writes = off\nshared_buffers = 128MB\ntimezone = UTC\nlog_timezone = UTC\n\
             log_line_prefix = '%m [%p] %q%u@%d/%a '\n{logging}\n{}\n",
            addresses.join(","),
            Self::PORT,
            folder.display(),
            options.settings.join("\n"),
        );
        append(&data.join("postgresql.conf"), &settings)?;
        // The tests themselves come in by the socket in a folder nobody else knows.
        fs::write(data.join("ca.pem"), ca.pem())?;
        user.give(&data.join("ca.pem"), 0o600)?;
        let method = match options.method {
            "" => "scram-sha-256",
            // A line of another kind of connection: none is left for those without TLS.
            "cert" => "cert\nhostnossl all all all reject",
            method => method,
        };
        let host = if options.method == "cert" { "hostssl" } else { "host" };
        fs::write(
            data.join("pg_hba.conf"),
            format!(
                "local all all trust\n{host} all all all {method}\n{host} replication all all {method}\n"
            ),
        )?;

        let mut command = space.command("setpriv");
        command
            .args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)])
            .arg("--clear-groups")
            .arg(programs.join("postgres"))
            .arg("-D")
            .arg(&data)
            .current_dir("/");
        let server = Running::logging(&mut command, &folder.join("server.log"))?;
        let mut postgres = Self { server, folder: folder.to_owned(), programs, user };
        postgres.wait_until_ready()?;
        postgres.admin("postgres", &sample::roles(password))?;
        postgres.admin(Self::DATABASE, sample::DATA)?;
        Ok(postgres)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let ready = wait_for("PostgreSQL to start", Duration::from_secs(30), || {
            let asked = process::run(&mut self.client("pg_isready", "postgres"));
            if asked.is_ok_and(|out| out.success()) {
                return Some(true);
            }
            (!self.server.alive()).then_some(false)
        });
        match ready {
            Ok(true) => Ok(()),
            _ => bail!("PostgreSQL does not start:\n{}", self.log()),
        }
    }

    /// A client program of the superuser, by the socket: past the gateway.
    #[must_use]
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .env("PGHOST", &self.folder)
            .env("PGPORT", Self::PORT.to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", database)
            .env_remove("PGPASSWORD");
        command
    }

    /// Runs SQL as the superuser and returns unaligned rows.
    ///
    /// # Errors
    /// When a statement fails.
    pub fn admin(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = self.client("psql", database);
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
            "--file=-",
        ]);
        let out: Output = Running::capturing(&mut psql, Some(sql.as_bytes()))?.finish(process::LIMIT)?;
        if !out.success() {
            bail!("{out}");
        }
        Ok(out.stdout.trim_end().to_owned())
    }

    /// Asks the sample database as the superuser.
    ///
    /// # Panics
    /// When it fails. For tests.
    #[track_caller]
    pub fn ask(&self, sql: &str) -> String {
        match self.admin(Self::DATABASE, sql) {
            Ok(answer) => answer,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// Everything the server logged: every statement that reached it.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
    }

    /// A folder that the server's user owns.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// pgbench, psql and their like.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Gives a file to the server's user.
    ///
    /// # Errors
    /// When it cannot.
    pub fn give(&self, path: &Path) -> Result<()> {
        self.user.give(path, 0o600)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its children end with it only when it ends itself.
        self.server.signal(rustix::process::Signal::QUIT);
        self.server.wait(Duration::from_secs(5)).ok();
    }
}

impl User {
    fn find(name: &str) -> Result<Self> {
        let users = fs::read_to_string("/etc/passwd")?;
        let user = users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&name));
        let field = |index: usize| user.as_ref()?.get(index)?.parse().ok();
        match (field(2), field(3)) {
            (Some(uid), Some(gid)) => Ok(Self { uid, gid }),
            _ => bail!("there is no user {name}: `cargo xtask setup` installs PostgreSQL, which makes it"),
        }
    }

    fn give(self, path: &Path, mode: u32) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("giving away {}", path.display()))?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
    }
}

/// The newest PostgreSQL's programs.
///
/// # Errors
/// When there is none.
pub fn programs() -> Result<PathBuf> {
    newest(Path::new("/usr/lib/postgresql"))
        .context("no PostgreSQL server is installed: `cargo xtask setup` does it")
}

/// The newest of several servers' programs.
#[must_use]
pub fn newest(servers: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(servers).into_iter().flatten().flatten();
    let versions = versions.filter_map(|entry| {
        let number: u32 = entry.file_name().to_string_lossy().parse().ok()?;
        let programs = entry.path().join("bin");
        programs.join("initdb").exists().then_some((number, programs))
    });
    versions.max_by_key(|(number, _)| *number).map(|(_, programs)| programs)
}

/// A fresh cluster. `initdb` takes seconds, so its result is kept in the target folder and copied.
fn cluster(programs: &Path, user: User, data: &Path) -> Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let version =
        programs.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let template = crate::target()?.join(format!("tools/postgresql-{version}-cluster"));
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if !template.join("PG_VERSION").exists() {
        let mut initdb = Command::new("setpriv");
        initdb
            .args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)])
            .arg("--clear-groups")
            .arg(programs.join("initdb"))
            .args([
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--username=postgres",
                "--auth=trust",
                "-D",
            ])
            .arg(data)
            .current_dir("/");
        must(&mut initdb)?;
        let made = template.with_extension(std::process::id().to_string());
        if let Some(parent) = template.parent() {
            fs::create_dir_all(parent)?;
        }
        must(Command::new("cp").args(["-a", "--reflink=auto"]).args([data, &made]))?;
        // Another process may have been quicker; either one will do.
        if fs::rename(&made, &template).is_err() {
            fs::remove_dir_all(&made).ok();
        }
        return Ok(());
    }
    drop(guard);
    must(Command::new("cp").args(["-a", "--reflink=auto"]).args([&template, data]))
}

fn append(path: &Path, text: &str) -> Result<()> {
    let mut all = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    all.push_str(text);
    fs::write(path, all).with_context(|| format!("writing {}", path.display()))
}
