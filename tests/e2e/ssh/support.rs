//! A world with an SSH host in it.

use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt, time::Duration};

use serde_json::Value;
use tests::{World, job::Job, process, sshd::Sshd};

/// Where the host is.
pub(crate) const HOST: &str = "198.51.100.10";
/// A card number and a key that detectors find.
pub(crate) const CARD: &str = "4111 1111 1111 1111";
pub(crate) const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

/// A world, and an SSH host in it. Fields are dropped in order.
pub(crate) struct Ground {
    pub(crate) world: World,
    pub(crate) sshd: Sshd,
}

/// What policy says about the host.
pub(crate) const RULES: &str = r#"
  - { id: connect, effect: allow, subjects: [payments-agent], resources: [web], connect: true, record: results }
  - id: ask
    effect: approve
    subjects: [payments-agent]
    resources: [web]
    connect: true
    approval: { quorum: 1, approvers: [root], expires_after: 30s }
    record: results
"#;

impl Ground {
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self::with(RULES, &[], &[])
    }

    /// With other rules, lines for sshd, and settings of the agent.
    #[track_caller]
    pub(crate) fn with(rules: &str, settings: &[&str], configure: &[(&str, Value)]) -> Self {
        match Self::make(rules, settings, configure) {
            Ok(ground) => ground,
            Err(error) => panic!("{error:#}"),
        }
    }

    fn make(rules: &str, settings: &[&str], configure: &[(&str, Value)]) -> anyhow::Result<Self> {
        let mut builder = World::builder().without_agent();
        for (pointer, value) in configure {
            builder = builder.configure(pointer, value.clone());
        }
        let mut world = builder.start()?;
        let folder = world.folder().join("ssh");
        let sshd = Sshd::start(&folder, &world.far, HOST, settings)?;
        let secret = world.folder().join("secrets/ssh");
        fs::copy(sshd.key("login"), &secret)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        world.write_policy(&policy(&sshd, rules))?;
        world.agent.start()?;
        Ok(Self { world, sshd })
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

/// The policy of a ground.
pub(crate) fn policy(sshd: &Sshd, rules: &str) -> String {
    let mut text = String::from(
        "version: 1\nsubjects:\n  - name: payments-agent\n    issuer: https://token.example\n    claims: { repository: acme/payments }\nresources:\n",
    );
    writeln!(
        text,
        "  - name: web\n    kind: ssh\n    hosts: [{HOST}]\n    ports: [22]\n    databases: [\"{}\"]\n    login: {{ user: {}, password: {{ file: @DIR@/secrets/ssh }} }}\n    tls: {{ mode: disable }}\n",
        sshd.public_key("host_ed25519"),
        Sshd::USER,
    )
    .expect("a string takes text");
    text.push_str("rules:");
    text.push_str(rules);
    text.push_str(
        "masks:\n  - { id: found, resources: [web], detectors: [card, aws_access_key], transform: redact }\n",
    );
    text
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
