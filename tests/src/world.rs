//! The world itself. See the crate's documentation for its shape.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    agent::Agent,
    cgroup,
    issuer::{self, Issuer, Token},
    job::Job,
    names::{self, Name},
    netns::{End, Netns, connect},
    pki::Authority,
    postgres::{self, Postgres},
    process, sample,
};

/// The address of the database.
pub const DATABASE: &str = "198.51.100.10";
pub const DATABASE_V6: &str = "2001:db8:51::10";
/// An address in the far namespace where nothing is declared.
pub const UNDECLARED: &str = "198.51.100.20";
/// An address that only the canary has, and one of the many behind it.
pub const CANARY: &str = "203.0.113.20";
pub const CANARY_V6: &str = "2001:db8:ca::20";
/// Where a provider may listen.
pub const PROVIDER: &str = "198.51.100.30:8443";
/// What the gateway's password upstream begins with; the rest is random.
pub const MARKER: &str = "marker-password-";

/// What to make.
#[derive(Debug)]
#[must_use]
pub struct Builder {
    policy: String,
    approval_expires: String,
    configure: Vec<(String, Value)>,
    postgres: postgres::Options,
    agent: bool,
    prefix: Vec<String>,
    program: Option<PathBuf>,
    issuer: Option<Issuer>,
}

/// A running world.
///
/// Fields are dropped in order: who uses something goes before what it uses.
#[derive(Debug)]
pub struct World {
    pub agent: Agent,
    pub db: Postgres,
    pub issuer: Issuer,
    /// The authority of the servers in the far namespace.
    pub authority: Authority,
    pub host: Netns,
    pub far: Netns,
    canary: Netns,
    cgroup: PathBuf,
    folder: PathBuf,
    password: String,
    tokens: AtomicU32,
    owned: Owned,
}

#[derive(Debug)]
struct Owned {
    name: Name,
    keep: bool,
}

impl Drop for Owned {
    fn drop(&mut self) {
        if !self.keep {
            self.name.remove();
        }
    }
}

impl World {
    /// What to change before [`Builder::start`].
    pub fn builder() -> Builder {
        Builder {
            policy: sample::POLICY.to_owned(),
            approval_expires: "1m".to_owned(),
            configure: Vec::new(),
            postgres: postgres::Options::default(),
            agent: true,
            prefix: Vec::new(),
            program: None,
            issuer: None,
        }
    }

    /// The usual world.
    ///
    /// # Panics
    /// When it cannot be made. For tests.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        Self::builder().up()
    }

    #[must_use]
    pub fn name(&self) -> &Name {
        &self.owned.name
    }

    /// Its folder: everything that is written to disk is below.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its subtree of cgroups: the attach root.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// One more namespace, such as a container has, with a wire of its own to the canary and a way out through
    /// it. `number`: the third part of its network, 0 to 255.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn space(&self, part: &str, number: u8) -> Result<Netns> {
        let space = Netns::make(format!("{}-{part}", self.name().as_str()))?;
        let (near, far) = (format!("192.0.{number}.1/24"), format!("192.0.{number}.20/24"));
        let device = format!("box{number}");
        connect(
            End { space: &space, device: "eth0", addresses: &[&near] },
            End { space: &self.canary, device: &device, addresses: &[&far] },
        )?;
        space.ip(&["route", "add", "default", "via", far.trim_end_matches("/24")])?;
        Ok(space)
    }

    /// A command that will run in this namespace and cgroup, as root, past `exec`; with what psql needs to know.
    #[must_use]
    pub fn inside(&self, space: &Netns, cgroup: &Path, words: &[&str]) -> std::process::Command {
        let mut command = space.command("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(cgroup).args(words);
        self.describe(&mut command);
        command.env("PGCONNECT_TIMEOUT", "5");
        command
    }

    fn describe(&self, command: &mut std::process::Command) {
        for (name, value) in [
            ("PGHOST", DATABASE),
            ("PGPORT", "5432"),
            ("PGDATABASE", Postgres::DATABASE),
            // Whoever the job says it is: the gateway logs in on its own account.
            ("PGUSER", "job"),
            ("PGPASSWORD", "placeholder"),
            ("PGSSLMODE", "verify-full"),
            ("PGAPPNAME", "job"),
            ("PSQLRC", "/dev/null"),
            ("PSQL_PAGER", ""),
        ] {
            command.env(name, value);
        }
        command.env("PGSSLROOTCERT", self.agent.job_ca());
    }

    /// The password that no job may ever see.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// A token of the usual subject.
    pub fn token(&self) -> Token<'_> {
        self.issuer
            .token("repo:acme/payments:ref:refs/heads/main", "gateway-agent")
            .claim("repository", "acme/payments")
            .claim("ref", "refs/heads/main")
    }

    /// A job of the usual subject, with a fresh token.
    ///
    /// # Panics
    /// When the token cannot be written. For tests.
    #[track_caller]
    pub fn job<S: AsRef<str>>(&self, words: &[S]) -> Job {
        match self.token().mint().and_then(|token| self.job_as(&token, words)) {
            Ok(job) => job,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// A job with this token.
    ///
    /// # Errors
    /// When the token cannot be written.
    pub fn job_as<S: AsRef<str>>(&self, token: &str, words: &[S]) -> Result<Job> {
        let file = self.token_file(token)?;
        let path = file.to_str().context("a folder whose name is not UTF-8")?;
        let mut command = self.agent.command(&["exec", "--token-file", path, "--"]);
        command.args(words.iter().map(AsRef::as_ref));
        self.describe(&mut command);
        Ok(Job::new(command, file))
    }

    /// A job that runs SQL through psql, unaligned and without headings; the first error ends it.
    ///
    /// # Panics
    /// When the token cannot be written. For tests.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> Job {
        self.job(&[
            "psql",
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
            "--file=-",
        ])
        .stdin(sql)
    }

    /// A test client of this workspace, where a job can run it.
    ///
    /// # Panics
    /// When it has not been built. For tests.
    #[must_use]
    #[track_caller]
    pub fn program(&self, name: &str) -> String {
        let path = self.folder.join("programs").join(name);
        assert!(
            path.is_file(),
            "{name} is not built: `cargo xtask build`, or run this by `cargo xtask test`"
        );
        path.display().to_string()
    }

    /// The Python with the drivers, where a job can run it.
    ///
    /// # Panics
    /// When there is none. For tests.
    #[must_use]
    #[track_caller]
    pub fn python(&self) -> String {
        let path = self.folder.join("venv/bin/python");
        assert!(path.exists(), "no Python with the drivers: `cargo xtask setup` makes it");
        path.display().to_string()
    }

    /// A folder of tools that setup made, where a job can use it; `None` when setup did not make it.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<String> {
        let path = self.folder.join("tools").join(name);
        path.exists().then(|| path.display().to_string())
    }

    /// Writes a token where only its reader finds it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn token_file(&self, token: &str) -> Result<PathBuf> {
        let path = self.folder.join(format!("tokens/{}", self.tokens.fetch_add(1, Ordering::Relaxed)));
        fs::write(&path, token)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// Makes pgbench's tables, as the role that the gateway logs in as.
    ///
    /// # Errors
    /// When it cannot.
    pub fn pgbench_tables(&self, scale: u32) -> Result<()> {
        let mut pgbench = self.db.client("pgbench", Postgres::DATABASE);
        pgbench.env("PGUSER", Postgres::ROLE).args([
            "--initialize",
            "--quiet",
            "--scale",
            &scale.to_string(),
        ]);
        process::must(&mut pgbench)
    }

    /// A shell command that prints a token of the usual subject for the audience it is asked for:
    /// for `--token-command`.
    ///
    /// # Errors
    /// When its keys cannot be written.
    pub fn mint_command(&self) -> Result<String> {
        self.write_mint_keys()?;
        let keys = self.folder.join("issuer.json");
        Ok(format!("{} {}", crate::program("mint-token")?.display(), keys.display()))
    }

    /// Gives the issuer's present keys to [`World::mint_command`].
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_mint_keys(&self) -> Result<()> {
        let path = self.folder.join("issuer.json");
        fs::write(&path, self.issuer.export()?.to_string())?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?)
    }

    /// Puts another policy in place, as an editor would: at once, by a rename.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_policy(&self, text: &str) -> Result<()> {
        let path = self.folder.join("policy.yaml");
        let fresh = path.with_extension("new");
        fs::write(&fresh, fill(text, &self.folder, "1m"))?;
        Ok(fs::rename(fresh, path)?)
    }

    /// The policy in place.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn policy(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join("policy.yaml"))?)
    }

    /// How many IP packets reached the canary.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn canary(&self) -> Result<u64> {
        let v4 = self.canary.proc_net("snmp")?;
        // A line of names, then a line of numbers.
        let mut lines = v4.lines().filter_map(|line| line.strip_prefix("Ip: "));
        let (names, numbers) = (lines.next().context("no Ip line")?, lines.next().context("no Ip numbers")?);
        let received = names.split(' ').zip(numbers.split(' ')).find(|(name, _)| *name == "InReceives");
        let v4: u64 = received.context("no InReceives")?.1.parse()?;
        let v6 = self.canary.proc_net("snmp6")?;
        let counter = |wanted: &str| {
            let line = v6.lines().find(|line| line.split_whitespace().next() == Some(wanted))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        // Multicast is the kernel talking to itself about neighbours.
        let v6 =
            counter("Ip6InReceives").context("no Ip6InReceives")? - counter("Ip6InMcastPkts").unwrap_or(0);
        Ok(v4 + v6)
    }

    /// Leaves everything running, also after this process. Returns the name under which
    /// [`Name::remove`] finds it all; [`names::clean`] does that for every world kept.
    ///
    /// # Errors
    /// When the kernel refuses the mark that it is kept.
    pub fn keep(mut self) -> Result<Name> {
        self.owned.name.mark_kept()?;
        self.owned.keep = true;
        let name = self.owned.name.clone();
        std::mem::forget(self);
        Ok(name)
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// Another policy than [`sample::POLICY`]; `@DIR@` stands for the world's folder.
    pub fn policy(mut self, text: &str) -> Self {
        text.clone_into(&mut self.policy);
        self
    }

    /// How long approvals wait.
    pub fn approval_expires(mut self, after: &str) -> Self {
        after.clone_into(&mut self.approval_expires);
        self
    }

    /// Sets one value of the agent's configuration, by JSON pointer: `/sessions/workers`. `@DIR@`
    /// stands for the world's folder.
    pub fn configure(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        self.configure.push((pointer.to_owned(), value.into()));
        self
    }

    pub fn postgres(mut self, options: postgres::Options) -> Self {
        self.postgres = options;
        self
    }

    /// Runs the agent under these words.
    pub fn prefix(mut self, words: &[&str]) -> Self {
        self.prefix = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Another agent than the one built beside the tests.
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// Everything but the agent: start it yourself.
    pub fn without_agent(mut self) -> Self {
        self.agent = false;
        self
    }

    /// Another issuer than `https://token.example`.
    pub fn issuer(mut self, issuer: Issuer) -> Self {
        self.issuer = Some(issuer);
        self
    }

    /// Makes it.
    ///
    /// # Panics
    /// When it cannot be made. For tests.
    #[must_use]
    #[track_caller]
    pub fn up(self) -> World {
        match self.start() {
            Ok(world) => world,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// Makes it.
    ///
    /// # Errors
    /// When a part of it cannot be made; what was made is removed again.
    pub fn start(self) -> Result<World> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "this needs root: it makes network namespaces and cgroups"
        );
        names::sweep();
        let owned = Owned { name: Name::new()?, keep: false };
        let name = owned.name.as_str();
        let folder = owned.name.folder();
        for made in ["", "tokens", "secrets"] {
            fs::create_dir_all(folder.join(made))?;
        }
        // The server's user passes through; nobody lists.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
        let cgroup = cgroup::mount()?.join(name);
        cgroup::make(&cgroup)?;
        let [host, far, canary] = wires(name)?;

        let password = format!("{MARKER}{}", issuer::random());
        let authority = Authority::new("Test servers")?;
        authority.write(&folder.join("db-ca.pem"))?;
        fs::write(folder.join("secrets/orders"), &password)?;
        fs::set_permissions(folder.join("secrets/orders"), fs::Permissions::from_mode(0o600))?;
        // For policies that log in by certificate.
        let client = authority.server(&[Postgres::ROLE])?;
        for (name, text) in [("client.pem", &client.certificate), ("client.key", &client.key)] {
            fs::write(folder.join("secrets").join(name), text)?;
            fs::set_permissions(folder.join("secrets").join(name), fs::Permissions::from_mode(0o600))?;
        }
        // Another server than the installed one, and the clients of yet another.
        for (variable, below) in [("GATEWAY_POSTGRES", "server"), ("GATEWAY_LIBPQ", "libpq")] {
            if let Some(root) = env::var_os(variable) {
                bind(Path::new(&root), &folder.join(below))?;
            }
        }
        let mut options = self.postgres;
        if folder.join("server").is_dir() {
            options.programs = postgres::newest(&folder.join("server/usr/lib/postgresql"));
        }
        let addresses = [DATABASE, DATABASE_V6];
        let db = Postgres::start(&folder.join("pg"), &far, &addresses, &authority, &password, &options)?;

        let issuer = self.issuer.map_or_else(|| Issuer::new("https://token.example"), Ok)?;
        issuer.write_jwks(&folder.join("jwks.json"))?;
        fs::write(folder.join("policy.yaml"), fill(&self.policy, &folder, &self.approval_expires))?;
        let mut config = Agent::config(&folder, &cgroup);
        for (pointer, value) in self.configure {
            set(&mut config, &pointer, value)?;
        }
        let config = fill(&serde_json::to_string_pretty(&config)?, &folder, &self.approval_expires);
        bind(&crate::programs()?, &folder.join("programs"))?;
        if let Ok(venv) = crate::venv() {
            bind(&venv, &folder.join("venv"))?;
        }
        for tool in ["node", "sqlx"] {
            let made = crate::target()?.join("tools").join(tool);
            if made.is_dir() {
                bind(&made, &folder.join("tools").join(tool))?;
            }
        }
        let mut agent = Agent::new(&folder, &cgroup, &host)?;
        fs::write(agent.config_file(), config)?;
        if let Some(program) = self.program {
            agent.set_program(program);
        }
        agent.set_prefix(&self.prefix.iter().map(String::as_str).collect::<Vec<_>>());
        if self.agent {
            agent.start()?;
        }
        let tokens = AtomicU32::new(0);
        Ok(World { agent, db, issuer, authority, host, far, canary, cgroup, folder, password, tokens, owned })
    }
}

/// Shows a folder to the jobs: they are nobody, and the workspace may be where nobody gets to.
fn bind(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    rustix::mount::mount_bind(from, to)
        .with_context(|| format!("binding {} to {}", from.display(), to.display()))
}

/// Makes the three namespaces and connects them.
fn wires(name: &str) -> Result<[Netns; 3]> {
    let [host, far, canary] = ["host", "far", "canary"].map(|part| Netns::make(format!("{name}-{part}")));
    let (host, far, canary) = (host?, far?, canary?);
    connect(
        End { space: &host, device: "up0", addresses: &["198.51.100.1/24", "2001:db8:51::1/64"] },
        End {
            space: &far,
            device: "down0",
            addresses: &[
                "198.51.100.10/24",
                "198.51.100.20/24",
                "198.51.100.30/24",
                "2001:db8:51::10/64",
                "2001:db8:51::20/64",
            ],
        },
    )?;
    connect(
        End { space: &host, device: "out0", addresses: &["203.0.113.1/24", "2001:db8:ca::1/64"] },
        End { space: &canary, device: "in0", addresses: &["203.0.113.20/24", "2001:db8:ca::20/64"] },
    )?;
    host.ip(&["route", "add", "default", "via", CANARY])?;
    host.ip(&["-6", "route", "add", "default", "via", CANARY_V6])?;
    Ok([host, far, canary])
}

fn fill(policy: &str, folder: &Path, expires: &str) -> String {
    policy.replace("@DIR@", &folder.display().to_string()).replace("@EXPIRES@", expires)
}

/// Sets a value by JSON pointer, making objects on the way.
fn set(config: &mut Value, pointer: &str, value: Value) -> Result<()> {
    let mut place = config;
    for step in pointer.split('/').skip(1) {
        place = match place {
            Value::Array(items) => {
                let index: usize = step.parse().with_context(|| format!("{step} in {pointer}"))?;
                items.get_mut(index).with_context(|| format!("no item {step} in {pointer}"))?
            }
            Value::Object(fields) => fields.entry(step).or_insert(Value::Null),
            other => {
                *other = Value::Object(serde_json::Map::new());
                &mut other[step]
            }
        };
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pointer_sets_what_is_there_and_what_is_not() {
        let mut config = json!({ "a": { "b": 1 }, "list": [{ "x": 1 }] });
        set(&mut config, "/a/b", json!(2)).expect("set");
        set(&mut config, "/list/0/x", json!(3)).expect("set");
        set(&mut config, "/new/deep", json!("here")).expect("set");
        assert_eq!(config, json!({ "a": { "b": 2 }, "list": [{ "x": 3 }], "new": { "deep": "here" } }));
    }
}
