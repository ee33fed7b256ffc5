//! The units, under a systemd that is PID 1 of namespaces of its own and may do what it likes to one cgroup.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::{
    cgroup,
    names::Name,
    process::{self, Output, Running},
};

use crate::ci::packaging;

const BOOT: &str = include_str!("systemd/boot.sh");
/// Of the system's own units; the rest of the machine is not started.
const TARGETS: [&str; 9] =
    ["basic", "local-fs", "network", "network-online", "paths", "shutdown", "slices", "sockets", "sysinit"];
const LIMIT: Duration = Duration::from_secs(30);

/// A booted systemd; its end is that of everything in it.
struct Machine {
    name: Name,
    booted: Option<Running>,
    init: u32,
}

impl Machine {
    fn boot() -> Self {
        let name = Name::new().expect("a name");
        let folder = name.folder();
        let root = cgroup::mount().expect("cgroup v2").join(name.as_str());
        cgroup::make(&root).expect("a cgroup");
        let files = folder.join("files");
        let write = |path: &str, text: &str| {
            let path = files.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        };
        let units = packaging().join("systemd");
        let unit = |name: &str| fs::read_to_string(units.join(name)).expect("a unit");
        write("etc/units/gateway-agent.service", &unit("gateway-agent.service"));
        write("etc/units/gateway.slice", &unit("gateway.slice"));
        write("etc/units/runner.service.d/gateway.conf", &unit("gateway-runner.conf"));
        write("etc/units/runner.service", "[Service]\nExecStart=/bin/sleep infinity\n");
        write("etc/units/test.target", "[Unit]\nDefaultDependencies=no\nWants=runner.service\n");
        write("etc/units/gateway-agent.service.d/log.conf", "[Service]\nStandardError=append:/agent.log\n");
        for target in TARGETS {
            let path = PathBuf::from(format!("/lib/systemd/system/{target}.target"));
            write(&format!("etc/units/{target}.target"), &fs::read_to_string(path).expect("systemd's own"));
        }
        let below = PathBuf::from("/sys/fs/cgroup").join(name.as_str());
        write("etc/gateway/agent.yaml", &CONFIG.replace("@CGROUP@", &below.display().to_string()));
        write("etc/gateway/policy.yaml", POLICY);
        write("etc/gateway/secret", "secret");
        write(
            "etc/gateway/jwks.json",
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
        );
        fs::set_permissions(files.join("etc/gateway/secret"), fs::Permissions::from_mode(0o600))
            .expect("private");
        fs::create_dir_all(files.join("usr/bin")).expect("a folder");
        fs::copy(tests::program("gateway-agent").expect("built"), files.join("usr/bin/gateway-agent"))
            .expect("copied");
        fs::write(folder.join("boot.sh"), BOOT).expect("a script");

        let mut boot = Command::new("sh");
        boot.args(["-c", r#"echo $$ > "$CGROUP/cgroup.procs" && exec unshare --mount --pid --fork --kill-child --net --uts --ipc sh "$FOLDER/boot.sh""#]);
        boot.env("FOLDER", &folder).env("CGROUP", &root);
        let booted = Running::capturing(&mut boot, Some(b"")).expect("unshare");
        let mut machine = Self { name, booted: Some(booted), init: 0 };
        let ready = process::wait_for("the agent under systemd", LIMIT, || {
            let alive = machine.booted.as_mut().is_some_and(Running::alive);
            machine.init = fs::read_to_string(root.join("init.scope/cgroup.procs"))
                .ok()?
                .lines()
                .next()?
                .parse()
                .ok()?;
            (!alive || machine.active("runner")).then_some(alive)
        });
        if ready.as_ref().ok() != Some(&true) {
            let said = machine.booted.take().map(|booted| booted.finish(Duration::ZERO));
            let log = machine.run(&["cat", "/agent.log"]).stdout;
            panic!("{ready:?}: {said:?}\n{log}");
        }
        machine
    }

    /// Runs a command inside that has to succeed.
    #[track_caller]
    fn must(&self, words: &[&str]) {
        assert!(self.run(words).ok().success());
    }

    /// Runs a command inside.
    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-m", "-p", "-n", "-u", "-i", "--"]).args(words);
        process::run(&mut command).expect("nsenter")
    }

    fn active(&self, unit: &str) -> bool {
        self.run(&["systemctl", "is-active", unit]).text() == "active"
    }

    /// The unit's main process, by its number inside.
    fn pid(&self, unit: &str) -> u32 {
        self.run(&["systemctl", "show", "--property=MainPID", "--value", unit])
            .ok()
            .text()
            .parse()
            .expect("a number")
    }

    fn signal(&self, unit: &str, signal: &str) {
        self.must(&["kill", signal, &self.pid(unit).to_string()]);
    }

    /// `status`, once another agent than `before` serves.
    #[track_caller]
    fn served_by_another_than(&self, before: u32) -> Value {
        let ask = || {
            let out = self.run(&["gateway-agent", "--json", "status"]);
            let status: Value = serde_json::from_str(out.success().then_some(out.stdout.as_str())?).ok()?;
            (status["pid"].as_u64()? != u64::from(before)).then_some(status)
        };
        process::wait_for("the next agent", LIMIT, ask).expect("an agent")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(init) = i32::try_from(self.init).ok().and_then(Pid::from_raw) {
            kill_process(init, Signal::KILL).ok();
        }
        self.booted = None;
        self.name.remove();
    }
}

const CONFIG: &str = "
state_dir: /var/lib/gateway
runtime_dir: /run/gateway
kernel: { pin_dir: /sys/fs/bpf/gateway, virtual_port: 15001, cgroup_root: @CGROUP@ }
dns: { upstreams: [127.0.0.53] }
identity: { issuers: [ { issuer: https://token.example, audience: gateway-agent, jwks_file: /etc/gateway/jwks.json } ] }
policy: { files: [/etc/gateway/policy.yaml] }
control: { socket: /run/gateway/control.sock }
recording: { dir: /var/lib/gateway/recordings, signing_key: /var/lib/gateway/recording.key, required: true }
audit: { file: /var/lib/gateway/audit.jsonl }
metrics: { listen: 127.0.0.1:9464 }
";

const POLICY: &str = "
version: 1
subjects: [ { name: agent, issuer: https://token.example, claims: { repository: acme/payments } } ]
resources:
  - name: orders
    kind: postgres
    hosts: [198.51.100.10]
    databases: [orders]
    login: { user: gateway, password: { file: /etc/gateway/secret } }
    tls: { mode: disable }
rules: [ { id: connect, effect: allow, subjects: [agent], resources: [orders], connect: true } ]
";

#[test]
fn the_unit_starts_sandboxed_and_runners_outlive_the_gateways_ends() {
    let machine = Machine::boot();
    let status = machine.served_by_another_than(0);
    assert_eq!((&status["mode"], &status["sandbox"]), (&"enforce".into(), &"on".into()), "{status}");
    let runner = machine.pid("runner");

    // Every way to end, and the runner is none the wiser.
    let killed = machine.pid("gateway-agent");
    machine.signal("gateway-agent", "-KILL");
    machine.served_by_another_than(killed);
    let stuck = machine.pid("gateway-agent");
    machine.signal("gateway-agent", "-STOP");
    machine.served_by_another_than(stuck);
    let upgraded = machine.pid("gateway-agent");
    machine.must(&["systemctl", "restart", "gateway-agent"]);
    machine.served_by_another_than(upgraded);
    let log = || machine.run(&["cat", "/agent.log"]).ok().stdout;
    let loads = log().matches("policy in force").count();
    machine.must(&["systemctl", "reload", "gateway-agent"]);
    process::wait_for("the policy to be read again", LIMIT, || {
        (log().matches("policy in force").count() > loads).then_some(())
    })
    .expect("a reload");
    assert_eq!(machine.pid("runner"), runner);

    // What is enforced outlives the agent; a runner does not start without it.
    machine.must(&["systemctl", "stop", "gateway-agent"]);
    let pins = machine.run(&["ls", "/sys/fs/bpf/gateway"]).ok().stdout;
    assert!(pins.contains("link_connect4") && pins.contains("link_egress"), "{pins}");
    assert_eq!(machine.pid("runner"), runner);
    machine.must(&["systemctl", "stop", "runner"]);
    machine.must(&["mv", "/etc/gateway/policy.yaml", "/etc/gateway/away.yaml"]);
    assert!(!machine.run(&["systemctl", "start", "runner"]).success());
    machine.must(&["mv", "/etc/gateway/away.yaml", "/etc/gateway/policy.yaml"]);
    process::wait_for("the runner", LIMIT, || {
        machine.run(&["systemctl", "start", "runner"]).success().then_some(())
    })
    .expect("a runner behind the gateway");
    assert!(machine.active("gateway-agent"));
}
