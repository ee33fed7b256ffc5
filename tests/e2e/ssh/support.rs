//! A world with an SSH host in it.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use serde_json::Value;
use tests::{
    World,
    job::Job,
    process::{self, Running},
    sshd::Sshd,
};

/// Where the host is.
pub(crate) const HOST: &str = "198.51.100.10";
/// A card number and a key that detectors find.
pub(crate) const CARD: &str = "4111 1111 1111 1111";
pub(crate) const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

/// What the gateway shows to Vault.
pub(crate) const VAULT_TOKEN: &str = "hvs.token-of-the-gateway";
pub(crate) const VAULT_JWT: &str = "eyJ.jwt-of-the-gateway";

/// Where a second one is.
pub(crate) const SECOND: &str = "198.51.100.20";

/// A world, and an SSH host in it. Fields are dropped in order.
pub(crate) struct Ground {
    pub(crate) world: World,
    pub(crate) sshd: Sshd,
    /// A resource `db`, at [`SECOND`].
    pub(crate) second: Option<Sshd>,
}

/// What policy says about the host: some programs with any arguments, shells by approval.
pub(crate) const RULES: &str = r#"
  - { id: connect, effect: allow, subjects: [payments-agent], resources: [web], connect: true }
  - id: commands
    effect: allow
    subjects: [payments-agent]
    resources: [web]
    ssh:
      commands:
        - { program: id, arguments: ["**"] }
        - { program: cat, arguments: ["**"] }
        - { program: wc, arguments: ["**"] }
        - { program: kill, arguments: ["**"] }
        - { program: seq, arguments: ["**"] }
        - { program: printf, arguments: ["**"] }
        - { program: echo, arguments: ["**"] }
        - { program: sleep, arguments: ["**"] }
        - { program: head, arguments: ["**"] }
        - { program: "yes", arguments: ["**"] }
        - { program: grep, arguments: ["**"] }
        - { program: tail, arguments: ["**"] }
      opaque: true
      pty: true
      env: [LANG, "LC_*", c]
    record: results
  - id: shell
    effect: approve
    subjects: [payments-agent]
    resources: [web]
    ssh: { shell: true, pty: true }
    record: results
    approval: { quorum: 1, approvers: [root], expires_after: 30s }
masks:
  - { id: found, resources: [web], detectors: [card, aws_access_key], transform: redact }
"#;

/// Files below the account's home, but for one folder.
pub(crate) const FILES: &str = r#"
  - { id: connect, effect: allow, subjects: [payments-agent], resources: [web], connect: true, record: results }
  - id: files
    effect: allow
    subjects: [payments-agent]
    resources: [web]
    ssh:
      files:
        - { operations: [read, list, write, remove, rename, setstat, symlink], paths: ["~/**"] }
        - { operations: [read, write, remove], paths: ["~/**"], by: [rsync, git] }
      env: [LANG, "LC_*", GIT_PROTOCOL]
    record: statements
  - id: drop
    effect: allow
    subjects: [payments-agent]
    resources: [web]
    ssh:
      files: [{ operations: [write], paths: ["~/drop/**"] }]
      quarantine: true
    record: statements
  - id: secrets
    effect: deny
    resources: [web]
    ssh: { files: [{ operations: [read, list, write, remove, rename, setstat, symlink], paths: ["~/secret/**"] }] }
    reason: secrets stay on the host
masks:
  - { id: found, resources: [web], detectors: [card, aws_access_key], transform: redact }
"#;

/// Whatever clients do that bring programs of their own.
pub(crate) const ANYTHING: &str = r#"
  - { id: connect, effect: allow, subjects: [payments-agent], resources: [web], connect: true, record: results }
  - id: anything
    effect: allow
    subjects: [payments-agent]
    resources: [web]
    ssh:
      commands: [{ program: "*", arguments: ["**"] }, { program: "/**", arguments: ["**"] }]
      files: [{ operations: [read, list, write, remove, rename, setstat, symlink], paths: ["/**"] }]
      env: ["*"]
      opaque: true
      pty: true
    record: statements
"#;

impl Ground {
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self::with(RULES, &[], &[])
    }

    /// With other rules, lines for sshd, and settings of the agent.
    #[track_caller]
    pub(crate) fn with(rules: &str, settings: &[&str], configure: &[(&str, Value)]) -> Self {
        match Self::make(rules, settings, configure, &|sshd| pinned(sshd), false) {
            Ok(ground) => ground,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// With a second host.
    #[track_caller]
    pub(crate) fn two(rules: &str) -> Self {
        match Self::make(rules, &[], &[], &|sshd| pinned(sshd), true) {
            Ok(ground) => ground,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// With other ways to know the host and to log in to it.
    #[track_caller]
    pub(crate) fn knowing(settings: &[&str], how: &dyn Fn(&Sshd) -> String) -> Self {
        match Self::make(RULES, settings, &[], how, false) {
            Ok(ground) => ground,
            Err(error) => panic!("{error:#}"),
        }
    }

    fn make(
        rules: &str,
        settings: &[&str],
        configure: &[(&str, Value)],
        how: &dyn Fn(&Sshd) -> String,
        two: bool,
    ) -> anyhow::Result<Self> {
        let mut builder = World::builder().without_agent();
        for (pointer, value) in configure {
            builder = builder.configure(pointer, value.clone());
        }
        let mut world = builder.start()?;
        let folder = world.folder().join("ssh");
        let sshd = Sshd::start(&folder, &world.far, HOST, settings)?;
        let secrets = world.folder().join("secrets");
        for (name, key) in [("ssh", "login"), ("user_ca", "user_ca")] {
            fs::copy(sshd.key(key), secrets.join(name))?;
        }
        for (name, text) in
            [("ssh_password", sshd.password()), ("vault_token", VAULT_TOKEN), ("vault_jwt", VAULT_JWT)]
        {
            fs::write(secrets.join(name), text)?;
        }
        for name in ["ssh", "user_ca", "ssh_password", "vault_token", "vault_jwt"] {
            fs::set_permissions(secrets.join(name), fs::Permissions::from_mode(0o600))?;
        }
        let mut resources = how(&sshd);
        let second = match two {
            true => Some(Sshd::start(&world.folder().join("ssh2"), &world.far, SECOND, settings)?),
            false => None,
        };
        if let Some(second) = &second {
            let key = secrets.join("ssh2");
            fs::copy(second.key("login"), &key)?;
            fs::set_permissions(key, fs::Permissions::from_mode(0o600))?;
            let how = pinned(second).replace("secrets/ssh", "secrets/ssh2");
            resources += &format!(
                "\n  - name: db\n    kind: ssh\n    hosts: [{SECOND}]\n    ports: [22]\n    users: [\"*\"]\n    {how}"
            );
        }
        world.write_policy(&policy(&resources, rules))?;
        world.agent.start()?;
        Ok(Self { world, sshd, second })
    }

    /// A command in a job.
    #[track_caller]
    pub(crate) fn job(&self, words: &[&str]) -> Job {
        self.world.job(words)
    }

    /// `ssh HOST COMMAND…` in a job, which never asks for anything.
    #[track_caller]
    pub(crate) fn ssh(&self, words: &[&str]) -> Job {
        let mut all = vec!["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"];
        all.extend_from_slice(words);
        self.job(&all)
    }

    /// A program of Python at the second address of the far side, which says when it listens.
    #[track_caller]
    pub(crate) fn there(&self, script: &str, words: &[&str]) -> Running {
        let (log, path) = (self.world.folder().join("there.log"), self.world.folder().join("there.py"));
        fs::remove_file(&log).ok();
        fs::write(&path, script).expect("a file");
        let mut command = self.world.far.command(self.world.python());
        command.arg("-u").arg(&path).args(words);
        let running = Running::logging(&mut command, &log).expect("a program");
        wait_for("it to listen", || {
            fs::read_to_string(&log).unwrap_or_default().contains("listening").then_some(())
        });
        running
    }

    /// What that program said.
    pub(crate) fn said_there(&self) -> String {
        fs::read_to_string(self.world.folder().join("there.log")).unwrap_or_default()
    }

    /// From now on the resource is at the second address.
    #[track_caller]
    pub(crate) fn moved(&self, rules: &str) {
        let text = policy(&pinned(&self.sshd), rules).replace(HOST, SECOND);
        self.world.write_policy(&text).expect("written");
        wait_for("the policy", || {
            let out = self.ssh(&["-o", "ConnectTimeout=5", SECOND, "true"]).run();
            (!out.stderr.contains("Operation not permitted")).then_some(())
        });
    }

    /// The recording of the one session there was.
    #[track_caller]
    pub(crate) fn recording(&self) -> String {
        let key = self.world.folder().join("state/recording.key.pub").display().to_string();
        wait_for("one recording, sealed", || {
            let all = recordings(&self.world);
            let sealed = |file: &str| {
                self.world.agent.cli(&["verify", "--key", &key, file]).is_ok_and(|out| out.success())
            };
            (all.len() == 1 && sealed(&all[0])).then(|| all[0].clone())
        })
    }
}

/// By its key, with a key.
pub(crate) fn pinned(sshd: &Sshd) -> String {
    format!(
        "host_keys: [\"{}\"]\n    login: {{ user: {}, key: {{ file: @DIR@/secrets/ssh }} }}",
        sshd.public_key("host_ed25519"),
        Sshd::USER
    )
}

/// The policy of a ground. `how` the host is known and logged in to.
pub(crate) fn policy(how: &str, rules: &str) -> String {
    format!(
        "version: 1\nsubjects:\n  - name: payments-agent\n    issuer: https://token.example\n    \
         claims: {{ repository: acme/payments }}\nresources:\n  - name: web\n    kind: ssh\n    hosts: [{HOST}]\n    \
         ports: [22]\n    users: [\"*\"]\n    {how}\nrules:{rules}"
    )
}

/// Files of recordings.
pub(crate) fn recordings(world: &World) -> Vec<String> {
    let days = fs::read_dir(world.agent.recordings()).into_iter().flatten().flatten();
    let files = days.flat_map(|day| fs::read_dir(day.path()).into_iter().flatten().flatten());
    files.map(|file| file.path().display().to_string()).filter(|path| path.ends_with(".gwr")).collect()
}

/// Waits for a condition, for as long as anything may take.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    match process::wait_for(what, Duration::from_secs(30), ask) {
        Ok(answer) => answer,
        Err(error) => panic!("{error:#}"),
    }
}

/// Audit lines of one kind.
#[track_caller]
pub(crate) fn audited(world: &World, event: &str) -> Vec<Value> {
    let events = world.agent.audit().expect("an audit log");
    events.into_iter().filter(|line| line["event"] == event).collect()
}

/// Polls the audit log for a line of one kind that satisfies a condition.
#[track_caller]
pub(crate) fn wait_for_audit(world: &World, event: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait_for(event, || audited(world, event).into_iter().find(|line| is(line)))
}
