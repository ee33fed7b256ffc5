//! OpenSSH's own regression tests, as Debian packs them: past the gateway, and in a job through it. What counts is that both runs
//! come out alike, script by script.
//!
//! The scripts start their servers themselves and reach them at 127.0.0.1. They stay as they are, but for the places that `prepare.sh`
//! changes: servers run outside of the job, with the configuration that the scripts write, and clients inside, against a resource that is
//! declared at 127.0.0.1. Each way has a world of its own, so that both can run at once.

mod choice;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

pub use self::choice::{LEFT_OUT, chosen};
use crate::{
    World,
    agent::JOB_UID,
    process::{self, Running},
};

/// One script.
const LIMIT: Duration = Duration::from_secs(900);

/// Everything is let through and recorded; `@KEYS@` are the host's.
const POLICY: &str = r#"version: 1
subjects:
  - { name: regression, issuer: https://token.example, claims: { repository: acme/payments } }
resources:
  - name: host
    kind: ssh
    hosts: [127.0.0.1, localhost]
    ports: [4242, 4300]
    host_keys: [@KEYS@]
    users: ["*"]
    login: { user: nobody, key: { file: @DIR@/secrets/gateway } }
rules:
  - { id: connect, effect: allow, subjects: [regression], resources: [host], connect: true, record: results }
  - id: everything
    effect: allow
    subjects: [regression]
    resources: [host]
    ssh:
      commands: [{ program: "*", arguments: ["**"] }, { program: "/**", arguments: ["**"] }]
      files: [{ operations: [read, list, write, remove, rename, setstat, symlink], paths: ["/**"] }]
      forward: { to: ["*:*"], sockets: ["/**"], listen: ["*:*"], listen_sockets: ["/**"] }
      env: ["*"]
      opaque: true
      pty: true
    record: results
"#;

/// How a script ended, and what it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub passed: bool,
    pub printed: String,
}

/// A way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Direct,
    Gateway,
}

/// A world with the servers in it.
#[derive(Debug)]
pub struct Ground {
    servers: Running,
    folder: PathBuf,
    way: Way,
    world: World,
}

impl Ground {
    /// # Errors
    /// When it cannot be made.
    pub fn new(way: Way) -> Result<Self> {
        let mut world = World::builder()
            .without_agent()
            // Tunnels that end at the job's side are used there.
            .configure("/kernel/allow", json!([{ "net": "127.0.0.1/32", "port": 0, "protocol": "tcp" }]))
            .start()?;
        let folder = world.folder().join("regress");
        fs::create_dir(&folder)?;
        let prepare = Running::capturing(
            Command::new("sh")
                .args(["-c", include_str!("prepare.sh"), "prepare"])
                .arg(&folder)
                .arg(JOB_UID.to_string()),
            Some(b""),
        )?;
        let prepared = prepare.finish(Duration::from_secs(120))?;
        ensure!(prepared.success(), "{prepared}");
        let mut command = world.host.command("unshare");
        command
            .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "sh", "-c"])
            .args([include_str!("serve.sh"), "serve"])
            .arg(&folder);
        let servers = Running::logging(&mut command, &world.folder().join("servers.log"))?;
        if way == Way::Gateway {
            world.write_policy(&POLICY.replace("@KEYS@", &pins(&folder)?))?;
            let key = world.folder().join("secrets/gateway");
            process::must(Command::new("install").args(["-m", "600"]).arg(folder.join("gateway")).arg(&key))?;
            world.agent.start()?;
        }
        fs::remove_file(folder.join("gateway"))?;
        Ok(Self { servers, folder, way, world })
    }

    /// Runs one script to its end.
    ///
    /// # Errors
    /// When it cannot be started, or its servers are gone.
    pub fn run(&mut self, script: &str) -> Result<Ending> {
        ensure!(self.servers.alive(), "the servers ended: {}", self.log());
        let folder = self.folder.display().to_string();
        let line = format!(
            "cd {folder} && export PATH=/usr/bin:/bin TEST_SHELL=sh BUILDDIR={folder} TEST_SSH_UNSAFE_PERMISSIONS=1 \
             TEST_SSH_SSH={folder}/ssh TEST_SSH_SSHD={folder}/sshd TEST_SSH_SFTPSERVER=/usr/lib/openssh/sftp-server \
             TEST_SSH_SSHPKCS11HELPER=/nonexistent TEST_SSH_PLINK=plink TEST_SSH_PUTTYGEN=puttygen HOME={folder} && \
             exec sh test-exec.sh {folder} {folder}/{script}.sh < /dev/zero 2>&1"
        );
        let mut command = match self.way {
            Way::Direct => {
                let mut command = self.world.host.command("unshare");
                let id = JOB_UID.to_string();
                command
                    .args(["--pid", "--fork", "--kill-child", "setpriv", "--reuid", &id, "--regid", &id])
                    .args(["--clear-groups", "sh", "-c", &line]);
                command
            }
            Way::Gateway => {
                let token = self.world.token().mint()?;
                let line = format!("export REGRESS_GATEWAY=yes; {line}");
                self.world.job_as(&token, &["sh", "-c", &line])?.into_command()
            }
        };
        let ended = Running::capturing(&mut command, Some(b""))?.finish(LIMIT);
        let (passed, printed) = match ended {
            Ok(out) => (out.success(), out.stdout + &out.stderr),
            Err(late) => (false, format!("{late:#}\n")),
        };
        Ok(Ending { passed, printed: printed.replace(&folder, "FOLDER") })
    }

    /// How many sessions there were.
    ///
    /// # Errors
    /// When the audit log cannot be read.
    pub fn sessions(&self) -> Result<usize> {
        Ok(self.world.agent.audit()?.iter().filter(|line| line["event"] == "session_opened").count())
    }

    /// What the last script's client and server logged, and the gateway, for whoever looks for the reason of a failure.
    #[must_use]
    pub fn log(&self) -> String {
        let of = |name: &str| {
            let text = fs::read_to_string(self.folder.join(name)).unwrap_or_default();
            format!("--- {name}\n{text}\n")
        };
        let logs: String =
            ["failed-regress.log", "failed-ssh.log", "failed-sshd.log", "../servers.log"].map(of).concat();
        for name in ["failed-regress.log", "failed-ssh.log", "failed-sshd.log"] {
            // Whatever comes next has its own.
            fs::remove_file(self.folder.join(name)).ok();
        }
        logs + &self.world.agent.log()
    }
}

/// The host's keys, but for the kinds that the gateway does not use.
fn pins(folder: &Path) -> Result<String> {
    let mut pins = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".pub") && (name.starts_with("ssh-ed25519") || name.starts_with("ecdsa")) {
            let text = fs::read_to_string(folder.join(&name))?;
            let mut words = text.split(' ');
            let (kind, key) = (words.next().context("a kind")?, words.next().context("a key")?);
            pins.push(format!("\"{kind} {key}\""));
        }
    }
    ensure!(!pins.is_empty(), "no host keys in {}", folder.display());
    Ok(pins.join(", "))
}

/// What both ways made of the scripts.
///
/// # Errors
/// When a run does not come to its end.
pub fn compare(
    scripts: &[&str],
    logs: &Path,
) -> Result<(BTreeMap<String, Ending>, BTreeMap<String, Ending>)> {
    let run = |way: Way| -> Result<BTreeMap<String, Ending>> {
        let mut ground = Ground::new(way)?;
        let mut endings = BTreeMap::new();
        for script in scripts {
            let ending = ground.run(script)?;
            eprintln!("   {way:?} {script}: {}", if ending.passed { "passed" } else { "failed" });
            let log = ground.log();
            if !ending.passed {
                fs::write(logs.join(format!("{script}.{way:?}.log").to_lowercase()), log)?;
            }
            endings.insert((*script).to_owned(), ending);
        }
        if way == Way::Gateway && ground.sessions()? < scripts.len() {
            bail!(
                "{} scripts, and only {} sessions went through the gateway",
                scripts.len(),
                ground.sessions()?
            );
        }
        Ok(endings)
    };
    std::thread::scope(|scope| {
        let gateway = scope.spawn(|| run(Way::Gateway));
        let direct = run(Way::Direct)?;
        let gateway =
            gateway.join().map_err(|_| anyhow::anyhow!("the run through the gateway panicked"))??;
        Ok((direct, gateway))
    })
}
