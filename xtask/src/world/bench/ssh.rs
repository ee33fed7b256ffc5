//! `cargo xtask bench ssh`: OpenSSH's clients, rsync and git through the gateway, beside the same clients directly.
//!
//! Files are sparse on either side: what is measured is the way in between, not disks. The direct connection is measured as clients make
//! it by default, and with the cipher that the gateway takes.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result};
use tests::{World, process::must, sshd::Sshd, world::DATABASE as HOST};

use super::{
    Arguments,
    lane::Lane,
    report::{self, Measured, Series},
    usage,
};

/// Who the direct client runs as: ssh wants a name for its user.
const NOBODY: u32 = 65_534;
/// Commands of one batch.
const COMMANDS: usize = 10;

const POLICY: &str = r#"version: 1
subjects:
  - { name: payments-agent, issuer: https://token.example, claims: { repository: acme/payments } }
resources:
  - name: web
    kind: ssh
    hosts: [198.51.100.10]
    users: ["*"]
    host_keys: ["@HOST_KEY@"]
    login: { user: deploy, key: { file: @DIR@/secrets/ssh } }
rules:
  - { id: connect, effect: allow, subjects: [payments-agent], resources: [web], connect: true, record: results }
  - id: work
    effect: allow
    subjects: [payments-agent]
    resources: [web]
    ssh:
      users: [work, whole]
      commands: [{ program: "true", arguments: [] }]
      files:
        - { operations: [read, list, write, remove, setstat], paths: ["~/**"] }
        - { operations: [read, write], paths: ["~/**"], by: [rsync, git] }
      env: [GIT_PROTOCOL]
    record: statements
  # Contents as well.
  - id: whole
    effect: allow
    subjects: [payments-agent]
    resources: [web]
    ssh: { users: [whole], files: [{ operations: [read, write], paths: ["~/**"] }] }
    record: results
"#;

/// One way to the host.
struct Way {
    name: &'static str,
    /// Options of ssh, scp and sftp.
    options: String,
    /// Whom to ask for; direct clients know one user.
    user: Option<&'static str>,
    folder: String,
    pid: Option<u32>,
    lane: Lane,
    /// Removed at the end.
    made: Option<PathBuf>,
}

impl Drop for Way {
    fn drop(&mut self) {
        if let Some(made) = &self.made {
            // What is left is in a folder of a name of its own.
            let _ = fs::remove_dir_all(made);
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
enum Case {
    /// By SFTP (`-s`) or legacy scp (`-O`), as this user.
    Get(&'static str, &'static str),
    Put(&'static str, &'static str),
    Rsync,
    Exec,
    Multiplexed,
    Clone,
}

const CASES: &[(&str, Case)] = &[
    ("sftp get", Case::Get("-s", "work")),
    ("sftp put", Case::Put("-s", "work")),
    ("sftp get, contents recorded", Case::Get("-s", "whole")),
    ("scp get", Case::Get("-O", "work")),
    ("scp put", Case::Put("-O", "work")),
    ("rsync, many files", Case::Rsync),
    ("ssh host true", Case::Exec),
    ("ssh host true, multiplexed", Case::Multiplexed),
    ("git clone", Case::Clone),
];

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let (megabytes, files) = (arguments.megabytes, arguments.files);
    eprintln!("starting OpenSSH's server and the gateway");
    let mut builder = World::builder();
    if let Some(agent) = &arguments.agent {
        builder = builder.program(agent);
    }
    let mut world = builder
        .without_agent()
        .configure("/sessions/workers", 1)
        .configure("/sessions/max_per_job", 1000)
        .start()?;
    let sshd = Sshd::start(&world.folder().join("ssh"), &world.far, HOST, &["LogLevel INFO"])?;
    fill(&sshd, megabytes, files)?;
    let secret = world.folder().join("secrets/ssh");
    fs::copy(sshd.key("login"), &secret)?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    world.write_policy(&POLICY.replace("@HOST_KEY@", &sshd.public_key("host_ed25519")))?;
    world.agent.start()?;
    let mut ways = [
        direct(&world, &sshd, "direct", "")?,
        gateway(&world)?,
        direct(&world, &sshd, "direct, AES", "-c aes256-gcm@openssh.com")?,
    ];
    for way in &mut ways {
        let folder = way.folder.clone();
        way.lane.run(&format!("mkdir -p {folder}"))?;
        way.lane.run(&format!("truncate -s {megabytes}M {folder}/big"))?;
    }
    let rounds = if arguments.quick { 1 } else { arguments.rounds };
    let mut all = Vec::new();
    let section = format!("{megabytes} MiB, {files} files");
    report::heading(&section);
    for (name, case) in CASES {
        if arguments.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let mut series: Vec<(String, Series)> =
            ways.iter().map(|way| (way.name.to_owned(), Series::default())).collect();
        for round in 0..=rounds {
            for (way, (_, series)) in ways.iter_mut().zip(&mut series) {
                let (rate, cpu, operations) =
                    case.run(way, megabytes, files).with_context(|| format!("{}: {name}", way.name))?;
                // The first round fills caches.
                if round > 0 {
                    series.values.push(rate);
                    series.cpu += cpu;
                    series.operations += operations;
                }
            }
        }
        let measured = Measured { section: section.clone(), case: (*name).to_owned(), contenders: series };
        measured.print();
        all.push(measured);
    }
    let target =
        std::env::var_os("GATEWAY_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    report::write(&target.join("bench/ssh.json"), &all, &[])
}

impl Case {
    /// Runs once: batches a second, CPU seconds of the gateway, and operations that they were for (MiB, files, commands).
    fn run(self, way: &mut Way, megabytes: u32, files: u32) -> Result<(f64, f64, f64)> {
        let (folder, options) = (way.folder.clone(), way.options.clone());
        let at = |user: &str| format!("{}@{HOST}", way.user.unwrap_or(user));
        let ssh = format!("ssh {options}");
        let (before, command, operations) = match self {
            Self::Get(protocol, user) => (
                None,
                format!("scp -q {protocol} {options} {}:big /dev/null", at(user)),
                f64::from(megabytes),
            ),
            Self::Put(protocol, user) => (
                None,
                format!("scp -q {protocol} {options} {folder}/big {}:up", at(user)),
                f64::from(megabytes),
            ),
            Self::Rsync => (
                Some(format!("rm -rf {folder}/many")),
                format!("rsync -r -e '{ssh}' {}:many/ {folder}/many", at("work")),
                f64::from(files),
            ),
            Self::Exec => {
                let each = format!("{ssh} {} true || exit 1", at("work"));
                (None, repeated(&each), COMMANDS as f64)
            }
            Self::Multiplexed => {
                let each = format!("{ssh} -o ControlPath={folder}/mux {} true || exit 1", at("work"));
                let begin = format!(
                    "{ssh} -o ControlMaster=auto -o ControlPath={folder}/mux -o ControlPersist=5 {} true",
                    at("work")
                );
                (Some(begin), repeated(&each), COMMANDS as f64)
            }
            Self::Clone => (
                Some(format!("rm -rf {folder}/work")),
                format!("env GIT_SSH_COMMAND='{ssh}' git clone -q {}:repo.git {folder}/work", at("work")),
                1.0,
            ),
        };
        if let Some(before) = before {
            way.lane.run(&before)?;
        }
        let cpu = |pid: Option<u32>| pid.map_or(Ok(0.0), usage::cpu);
        let (began, used) = (Instant::now(), cpu(way.pid)?);
        way.lane.run(&command)?;
        Ok((1.0 / began.elapsed().as_secs_f64(), cpu(way.pid)? - used, operations))
    }
}

fn repeated(command: &str) -> String {
    format!("sh -c \"for n in $(seq -s ' ' {COMMANDS}); do {command}; done\"")
}

/// What is there to be fetched.
fn fill(sshd: &Sshd, megabytes: u32, files: u32) -> Result<()> {
    let home = sshd.home();
    fs::File::create(home.join("big"))?.set_len(u64::from(megabytes) << 20)?;
    let many = home.join("many");
    for number in 0..files {
        let folder = many.join(format!("{:03}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&folder)?;
        }
        fs::write(folder.join(number.to_string()), format!("{number}\n").repeat(100))?;
    }
    let tree = home.join("tree");
    must(Command::new("cp").arg("-r").arg(&many).arg(&tree))?;
    let git = |words: &[&str]| must(Command::new("git").arg("-C").arg(&tree).args(words));
    git(&["init", "-q"])?;
    git(&["add", "."])?;
    git(&["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "all"])?;
    must(Command::new("git").args(["clone", "-q", "--bare"]).arg(&tree).arg(home.join("repo.git")))?;
    fs::remove_dir_all(&tree)?;
    must(Command::new("chown").arg("-R").arg(format!("--reference={}", home.display())).arg(&home))
}

/// The client as it is, with the key that only the gateway should have.
fn direct(world: &World, sshd: &Sshd, name: &'static str, cipher: &str) -> Result<Way> {
    let folder = own_folder(world, &name.replace([',', ' '], ""), NOBODY)?;
    fs::copy(sshd.key("login"), folder.join("key"))?;
    fs::write(folder.join("hosts"), format!("{HOST} {}\n", sshd.public_key("host_ed25519")))?;
    fs::set_permissions(folder.join("key"), fs::Permissions::from_mode(0o600))?;
    chown(folder.join("key"), Some(NOBODY), Some(NOBODY))?;
    let mut command = world.host.command("setpriv");
    command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]).args([
        "--clear-groups",
        "sh",
        "-s",
    ]);
    command.env("HOME", "/nonexistent").current_dir("/");
    let at = folder.display();
    Ok(Way {
        name,
        options: format!(
            "-F none -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile={at}/hosts -o IdentityFile={at}/key {cipher}"
        ),
        user: Some(Sshd::USER),
        folder: folder.display().to_string(),
        pid: None,
        lane: Lane::start(command)?,
        made: Some(folder),
    })
}

/// The same client in a job.
fn gateway(world: &World) -> Result<Way> {
    let mut command = super::contender::job(world)?;
    command.env("HOME", "/nonexistent").current_dir("/");
    Ok(Way {
        name: "gateway",
        options: "-F none -o BatchMode=yes -o StrictHostKeyChecking=yes".to_owned(),
        user: None,
        folder: "/tmp/bench".to_owned(),
        pid: world.agent.pid(),
        lane: Lane::start(command)?,
        made: None,
    })
}

/// On memory, as the job's is.
fn own_folder(world: &World, name: &str, owner: u32) -> Result<PathBuf> {
    let folder = Path::new("/dev/shm").join(format!(
        "{}-{name}",
        world.folder().file_name().context("a world without a name")?.to_string_lossy()
    ));
    fs::create_dir_all(&folder)?;
    chown(&folder, Some(owner), Some(owner))?;
    Ok(folder)
}
