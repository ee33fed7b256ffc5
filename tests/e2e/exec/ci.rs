//! The hooks of CI systems, against a real gateway. The runners themselves are played: a process tree with the names,
//! variables and helpers that theirs have.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use tests::{
    World,
    process::{self, Output},
    world::{Builder, DATABASE},
};

pub(crate) fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../gateway-agent/packaging")
        .canonicalize()
        .expect("packaging")
}

/// Programs that a host with a runner has, and this one may not.
struct Runner {
    world: World,
    bin: PathBuf,
}

impl Runner {
    fn new(builder: Builder) -> Self {
        let world = builder.up();
        let bin = world.folder().join("bin");
        fs::create_dir(&bin).expect("a folder");
        let runner = Self { world, bin };
        // Here everybody is root already.
        runner.program(
            "sudo",
            "#!/bin/sh\nshift\nSUDO_UID=0 SUDO_GID=0\nexport SUDO_UID SUDO_GID\nexec \"$@\"\n",
        );
        runner
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.bin.join(name);
        fs::write(&path, text).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }

    /// Runs a shell script under a name of its own, as the runner's process of one job.
    fn job(&self, name: &str, script: &str, variables: &[(&str, &str)]) -> Command {
        let file = self.bin.join(name);
        fs::copy("/bin/sh", &file).expect("a shell");
        let mut command = self.world.host.command(&file);
        let path = format!("{}:{}", self.bin.display(), std::env::var("PATH").unwrap_or_default());
        command
            .args(["-c", script])
            .env("PATH", path)
            .env("GATEWAY_CONFIG", self.world.agent.config_file())
            .env("GATEWAY_AGENT", tests::program("gateway-agent").expect("built"))
            .env("GATEWAY_CGROUP_ROOT", self.world.cgroup())
            .env("GATEWAY_JOB", packaging().join("ci/gateway-job"))
            .env("CI", packaging().join("ci"))
            .env("PGHOST", DATABASE)
            .env("PGDATABASE", "orders")
            .env("PGUSER", "job")
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", self.world.agent.job_ca())
            .envs(variables.iter().copied())
            .current_dir(self.world.folder());
        command
    }

    fn run(&self, name: &str, script: &str, variables: &[(&str, &str)]) -> Output {
        process::run(&mut self.job(name, script, variables)).expect("a runner")
    }

    fn jobs(&self) -> Vec<Value> {
        let jobs = self.world.agent.json(&["jobs"]).expect("jobs");
        jobs.as_array().expect("jobs").iter().filter(|job| job["ended"].is_null()).cloned().collect()
    }

    fn token(&self) -> String {
        self.world.token().mint().expect("a token")
    }
}

fn with_nonce() -> Builder {
    World::builder().configure("/identity/issuers/0/nonce", true)
}

/// What every hook has to show: before it nothing, after it the job's identity, without it no step.
const STEP: &str = "psql -Atc 'SELECT count(*) FROM orders'";

#[test]
fn github_jobs_are_bound_by_their_hooks() {
    let runner = Runner::new(with_nonce());
    let mint = runner.world.mint_command().expect("a mint");
    // GitHub's token service, by the command that the hook calls it with.
    runner.program(
        "curl",
        &format!(
            "#!/bin/sh\nfor last; do :; done\ncase $* in *'Bearer request-token'*) ;; *) exit 22 ;; esac\n\
             GATEWAY_AUDIENCE=${{last#*audience=}}\nexport GATEWAY_AUDIENCE\nprintf '{{\"count\":1,\"value\":\"%s\"}}' \"$({mint})\"\n"
        ),
    );
    let variables = [
        ("GITHUB_RUN_ID", "77"),
        ("GITHUB_RUN_ATTEMPT", "1"),
        ("GITHUB_JOB", "build all/of it"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://tokens.example/?v=1"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request-token"),
    ];
    let script = format!(
        "sh $CI/github/job-started.sh && sh -c \"{STEP}\" && \
         {{ setsid sleep 1000 & }}; sh $CI/github/job-completed.sh && ! {STEP} 2>/dev/null"
    );
    let out = runner.run("Runner.Worker", &script, &variables).ok();
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert!(lines[0].contains("/gateway-jobs/github-77-1-build_all_of_it-"), "{out}");
    assert_eq!(lines[1..], ["1000", "released"], "{out}");
    assert_eq!(runner.jobs(), Vec::<Value>::new());

    // Under anything but the worker, and without the permission.
    let out = runner.run("other", "sh $CI/github/job-started.sh && echo step", &variables).failed();
    assert!(out.stderr.contains("no Runner.Worker above") && !out.stdout.contains("step"), "{out}");
    let out =
        runner.run("Runner.Worker", "sh $CI/github/job-started.sh && echo step", &variables[..3]).failed();
    assert!(out.stderr.contains("id-token: write") && !out.stdout.contains("step"), "{out}");
}

#[test]
fn gitlab_jobs_are_bound_by_the_runners_script() {
    let runner = Runner::new(World::builder());
    let token = runner.token();
    let variables = [("CI_JOB_ID", "4711"), ("GATEWAY_ID_TOKEN", &*token)];
    let script = format!("sh $CI/gitlab/pre-build.sh || exit 1; {STEP}");
    let out = runner.run("bash-of-gitlab", &script, &variables).ok();
    assert!(
        out.stdout.contains("/gateway-jobs/gitlab-4711 is payments-agent") && out.stdout.ends_with("1000\n"),
        "{out}"
    );
    // A cgroup counts as left when it is empty 30 s after it was enrolled.
    let left = || runner.jobs().is_empty().then_some(());
    tests::process::wait_for("its end with its shell", Duration::from_secs(60), left).expect("an end");
    // The token was used, and the cgroup's name too.
    let out = runner.run("bash-of-gitlab", &script, &variables).failed();
    assert!(!out.stdout.contains("1000"), "{out}");
    let out = runner.run("bash-of-gitlab", &script, &variables[..1]).failed();
    assert!(out.stderr.contains("id_tokens") && !out.stdout.contains("1000"), "{out}");

    // Docker executor: the container is a cgroup that is there already.
    let container = runner.world.cgroup().join("docker-4712");
    fs::create_dir(&container).expect("a cgroup");
    let token = runner.token();
    let variables = [("CI_DISPOSABLE_ENVIRONMENT", "true"), ("GATEWAY_ID_TOKEN", &*token)];
    let inside = format!("echo $$ > {}/cgroup.procs; {script}", container.display());
    let out = runner.run("container", &inside, &variables).ok();
    assert!(out.stdout.contains("docker-4712 is payments-agent") && out.stdout.ends_with("1000\n"), "{out}");
}

#[test]
fn buildkite_jobs_are_bound_by_the_agents_hooks() {
    let runner = Runner::new(with_nonce());
    let mint = runner.world.mint_command().expect("a mint");
    runner.program(
        "buildkite-agent",
        &format!(
            "#!/bin/sh\ncase \"$1 $2\" in\n'oidc request-token') GATEWAY_AUDIENCE=$4; export GATEWAY_AUDIENCE; exec {mint} ;;\nesac\nexit 2\n"
        ),
    );
    let script = format!(
        ": buildkite-agent bootstrap; sh $CI/buildkite/environment || exit 1; {STEP}; sh $CI/buildkite/pre-exit"
    );
    let variables = [("BUILDKITE_JOB_ID", "0190-ab")];
    let out = runner.run("bootstrap", &script, &variables).ok();
    assert!(
        out.stdout.contains("/gateway-jobs/buildkite-0190-ab is payments-agent")
            && out.stdout.contains("\n1000\n"),
        "{out}"
    );
    assert_eq!(runner.jobs(), Vec::<Value>::new());
}

#[test]
fn jenkins_commands_become_jobs() {
    let runner = Runner::new(World::builder().configure("/jobs/uid", "own"));
    let token = runner.token();
    let root = packaging().join("ci/jenkins/gateway-run-as-root").display().to_string();
    let script = format!("$CI/jenkins/gateway-run sh -c \"id -u; env | grep -c ID_TOKEN; {STEP}; exit 9\"");
    let variables = [("GATEWAY_ID_TOKEN", &*token), ("GATEWAY_RUN_AS_ROOT", &*root)];
    let out = runner.run("sh-step", &script, &variables);
    assert_eq!(out.status.code(), Some(9), "{out}");
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert!(lines[0].starts_with("19000") && lines[1..] == ["0", "1000"], "{out}");
    let out = runner.run("sh-step", &script, &variables);
    assert_eq!(out.status.code(), Some(125), "the token was used: {out}");
}

#[test]
fn kubernetes_containers_enrol_before_their_command() {
    let runner = Runner::new(World::builder());
    let pod = runner.world.cgroup().join("kubepods/pod1");
    fs::create_dir_all(&pod).expect("a cgroup");
    let token = runner.world.token_file(&runner.token()).expect("a token").display().to_string();
    let script =
        format!("echo $$ > {}/cgroup.procs; exec $CI/kubernetes/entrypoint.sh {STEP}", pod.display());
    let out = runner.run("runc", &script, &[("GATEWAY_TOKEN_FILE", &*token)]).ok();
    assert!(
        out.stdout.contains("kubepods/pod1 is payments-agent") && out.stdout.ends_with("1000\n"),
        "{out}"
    );
    let out = runner.run("runc", &script, &[("GATEWAY_TOKEN_FILE", &*token)]).failed();
    assert!(!out.stdout.contains("1000"), "{out}");
}

#[test]
fn without_the_gateway_no_hook_lets_a_step_run() {
    let mut runner = Runner::new(World::builder());
    let token = runner.token();
    runner.world.agent.stop().expect("stopped");
    let root = packaging().join("ci/jenkins/gateway-run-as-root").display().to_string();
    let file = runner.world.token_file(&token).expect("a token").display().to_string();
    runner.program("buildkite-agent", "#!/bin/sh\necho token\n");
    runner.program("curl", "#!/bin/sh\necho '{\"value\":\"token\"}'\n");
    let variables = [
        ("GITHUB_RUN_ID", "1"),
        ("GITHUB_RUN_ATTEMPT", "1"),
        ("GITHUB_JOB", "j"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://tokens.example/"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t"),
        ("CI_JOB_ID", "1"),
        ("GATEWAY_ID_TOKEN", &*token),
        ("GATEWAY_RUN_AS_ROOT", &*root),
        ("GATEWAY_TOKEN_FILE", &*file),
        ("BUILDKITE_JOB_ID", "1"),
    ];
    for (name, hook) in [
        ("Runner.Worker", "sh $CI/github/job-started.sh && echo step"),
        ("gitlab", "sh $CI/gitlab/pre-build.sh && echo step"),
        ("bootstrap", ": buildkite-agent bootstrap; sh $CI/buildkite/environment && echo step"),
        ("jenkins", "$CI/jenkins/gateway-run echo step"),
        ("runc", "$CI/kubernetes/entrypoint.sh echo step"),
    ] {
        let out = runner.run(name, hook, &variables).failed();
        assert!(!out.stdout.contains("step") && out.stderr.contains("does not answer"), "{out}");
    }
}

#[test]
fn the_helper_moves_whole_trees_and_only_the_callers_own() {
    let runner = Runner::new(World::builder());
    let job = |script: &str| runner.run("worker", script, &[]);
    // A child that is there before, and one of its own.
    let out = job("sh -c 'sleep 1000 & wait' >/dev/null 2>&1 & sudo -n $GATEWAY_JOB enter tree-1 $$ && \
         cat $GATEWAY_CGROUP_ROOT/gateway-jobs/tree-1/cgroup.procs | wc -l; kill $!; \
         cat /proc/self/cgroup | grep ^0:; sudo -n $GATEWAY_JOB enter tree-2 $$ && echo twice");
    assert!(
        !out.success() && out.stderr.contains("is in a job already") && !out.stdout.contains("twice"),
        "{out}"
    );
    let count: u32 = out.stdout.lines().next().and_then(|l| l.trim().parse().ok()).expect("a number");
    assert!(count >= 3 && out.stdout.contains("/gateway-jobs/tree-1"), "{out}");
    for (call, says) in [
        ("enter tree-1 $$", "exists"),
        ("enter ../up $$", "cannot name a cgroup"),
        ("enter .hidden $$", "cannot name a cgroup"),
        ("enter tree-3 1", "is no ancestor"),
        ("enter tree-3 self", "is no process"),
        ("end", "is in no job"),
        ("else", "usage"),
    ] {
        let out = job(&format!("sudo -n $GATEWAY_JOB {call}")).failed();
        assert!(out.stderr.contains(says), "{call}: {out}");
    }
    assert!(!runner.world.cgroup().join("up").exists());
}

#[test]
fn the_scripts_are_clean_and_the_units_are_valid() {
    let root = packaging();
    let mut scripts = vec![root.join("ci/gateway-job")];
    for folder in ["github", "gitlab", "buildkite", "jenkins", "kubernetes"] {
        let files = fs::read_dir(root.join("ci").join(folder)).expect("a folder").flatten().map(|e| e.path());
        scripts.extend(files.filter(|path| path.extension().is_none_or(|e| e != "md")));
    }
    assert!(scripts.len() > 7, "{scripts:?}");
    for script in &scripts {
        process::must(Command::new("sh").arg("-n").arg(script)).expect("POSIX sh");
        let mode = fs::metadata(script).expect("a file").permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{}", script.display());
    }
    match process::which("shellcheck") {
        Some(shellcheck) => process::must(Command::new(shellcheck).args(&scripts)).expect("clean"),
        None => eprintln!("skipped: no shellcheck here"),
    }
    let Some(analyze) = process::which("systemd-analyze") else {
        eprintln!("skipped: no systemd-analyze here");
        return;
    };
    // The program has to be where the unit says, and the drop-in at a runner's unit.
    let dir = tempfile::tempdir().expect("a folder");
    let agent = tests::program("gateway-agent").expect("built");
    let unit = fs::read_to_string(root.join("systemd/gateway-agent.service")).expect("the unit");
    let unit = unit.replace("/usr/bin/gateway-agent", &agent.display().to_string());
    fs::write(dir.path().join("gateway-agent.service"), unit).expect("written");
    fs::copy(root.join("systemd/gateway.slice"), dir.path().join("gateway.slice")).expect("copied");
    fs::write(dir.path().join("runner.service"), "[Service]\nExecStart=/bin/true\n").expect("written");
    let drop_ins = dir.path().join("runner.service.d");
    fs::create_dir(&drop_ins).expect("a folder");
    let drop_in = fs::read_to_string(root.join("systemd/gateway-runner.conf")).expect("the drop-in");
    let drop_in = drop_in.replace("/usr/bin/gateway-agent", &agent.display().to_string());
    fs::write(drop_ins.join("gateway.conf"), drop_in).expect("written");
    let mut verify = Command::new(analyze);
    verify.args(["verify", "--man=no"]).env("SYSTEMD_UNIT_PATH", format!("{}:", dir.path().display()));
    verify.arg(dir.path().join("gateway-agent.service")).arg(dir.path().join("runner.service"));
    let out = process::run(&mut verify).expect("systemd-analyze").ok();
    let ours = |line: &&str| line.contains("gateway") || line.contains("runner");
    assert_eq!(out.stderr.lines().find(ours), None, "{out}");
}
