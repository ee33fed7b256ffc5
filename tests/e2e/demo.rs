//! `cargo xtask demo`, as the program that it runs: it shows what it says, fails when something
//! does not hold, finds leaked secrets, and leaves nothing behind. Needs root.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use rustix::process::Signal;
use tests::{
    cgroup,
    process::{self, LIMIT, Output, Running, wait_for},
    world::MARKER,
};

/// How many steps it has.
const STEPS: usize = 13;

fn demo(words: &[&str]) -> Command {
    let program = tests::program("xtask-world").expect("a program");
    let mut command = Command::new(&program);
    command.arg("demo").args(words);
    command.env("GATEWAY_BIN_DIR", program.parent().expect("a folder"));
    command
}

/// With an agent of which one subcommand does something else first.
fn with_agent(subcommand: &str, instead: &str) -> (tempfile::TempDir, Command) {
    let folder = tempfile::tempdir().expect("a folder");
    let real = tests::program("gateway-agent").expect("a program");
    let script =
        format!("#!/bin/sh\ncase \"$1\" in {subcommand}) {instead};; esac\nexec {} \"$@\"\n", real.display());
    let path = folder.path().join("gateway-agent");
    fs::write(&path, script).expect("written");
    for path in [folder.path(), &path] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let mut command = demo(&[]);
    if std::env::var_os("GATEWAY_TARGET_DIR").is_none() {
        let target = real.parent().and_then(Path::parent).expect("a target folder");
        command.env("GATEWAY_TARGET_DIR", target);
    }
    command.env("GATEWAY_BIN_DIR", folder.path());
    (folder, command)
}

/// The name of the world that a demo made, from what it said.
fn name(said: &str) -> String {
    let folder = said.lines().find_map(|line| line.trim().strip_prefix("folder ")).expect("a folder");
    Path::new(folder.trim()).file_name().expect("a name").to_string_lossy().into_owned()
}

/// Everything that carries a name.
fn traces(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for place in [std::env::temp_dir(), "/run/netns".into(), cgroup::mount().expect("cgroup v2")] {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            found.push(entry.path().display().to_string());
        }
    }
    found.extend(fs::read_to_string("/proc/self/mounts").expect("mounts").lines().map(str::to_owned));
    for entry in fs::read_dir("/proc").expect("processes").flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        found.push(String::from_utf8_lossy(&command).into_owned());
    }
    found.retain(|trace| trace.contains(name));
    found
}

#[track_caller]
fn left_nothing(out: &Output) {
    assert!(out.stdout.contains("Nothing is left behind"), "{out}");
    assert_eq!(traces(&name(&out.stdout)), Vec::<String>::new(), "{out}");
}

#[test]
fn every_step_holds_and_nothing_is_left() {
    let out = process::run(&mut demo(&[])).expect("the demo").ok();
    for step in 1..=STEPS {
        assert!(out.stdout.contains(&format!("\n{step}. ")), "step {step} is missing: {out}");
    }
    assert!(!out.stdout.contains('\x1b'), "colour without a terminal: {out}");
    assert!(!out.stdout.contains(MARKER), "the password is shown");
    left_nothing(&out);
}

#[test]
fn what_does_not_hold_fails_it() {
    let (_folder, mut command) = with_agent("approvals", "exit 0");
    let out = process::run(&mut command).expect("the demo").failed();
    assert!(out.stdout.contains("✗ it is listed"), "{out}");
    assert!(out.stderr.contains("this did not hold: it is listed"), "{out}");
    left_nothing(&out);
}

#[test]
fn a_password_in_the_log_fails_it_and_is_not_shown() {
    let (_folder, mut command) = with_agent("run", "cat secrets/orders >&2; echo >&2");
    let out = process::run(&mut command).expect("the demo").failed();
    assert!(out.stderr.contains("the gateway's password upstream is in"), "{out}");
    assert!(out.stderr.contains("agent.log"), "{out}");
    assert!(!out.stdout.contains(MARKER) && !out.stderr.contains(MARKER), "the error shows the password");
    left_nothing(&out);
}

#[test]
fn a_password_in_the_job_s_environment_fails_it() {
    let (_folder, mut command) = with_agent("exec", "export LEAKED=$(cat secrets/orders)");
    let out = process::run(&mut command).expect("the demo").failed();
    assert!(out.stderr.contains("the gateway's password upstream is in /proc/"), "{out}");
    assert!(!out.stdout.contains(MARKER) && !out.stderr.contains(MARKER), "the error shows the password");
}

#[test]
fn interrupted_it_leaves_nothing() {
    for (signal, when) in
        [(Signal::INT, "folder"), (Signal::TERM, "4. A DELETE"), (Signal::HUP, "8. The gateway")]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let mut running = Running::logging(&mut demo(&[]), &log).expect("the demo");
        wait_for(when, LIMIT, || said().contains(when).then_some(())).expect("the step");
        running.signal(signal);
        let status = running.wait(LIMIT).expect("an end");
        assert!(!status.success(), "{signal:?}: {}", said());
        assert!(said().contains("Nothing is left behind"), "{signal:?}: {}", said());
        assert_eq!(traces(&name(&said())), Vec::<String>::new(), "{signal:?}");
    }
}

#[test]
fn kept_it_works_until_it_is_cleaned() {
    // To a file: what is kept holds on to its standard output.
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let status = Running::logging(&mut demo(&["--keep"]), &log).expect("the demo").wait(LIMIT);
    let said = fs::read_to_string(&log).expect("a log");
    assert!(status.expect("an end").success(), "{said}");
    let name = name(&said);
    let world = std::env::temp_dir().join(&name);

    // Another world does not sweep it away.
    drop(tests::World::builder().without_agent().up());
    for _ in 0..2 {
        let mut job = Command::new(world.join("job"));
        let out = process::run(job.args(["psql", "-Atc", "SELECT email FROM customers LIMIT 1"]));
        assert_eq!(out.expect("a job").ok().text(), "[redacted]");
    }
    let status = process::run(Command::new(world.join("gateway")).arg("status")).expect("status").ok();
    assert!(status.stdout.contains("serving"), "{status}");
    let real = process::run(Command::new(world.join("database")).args(["-Atc", "SELECT 1"])).expect("psql");
    assert_eq!(real.ok().text(), "1");

    let cleaned = process::run(&mut demo(&["--clean", &name])).expect("cleaning").ok();
    assert!(cleaned.stdout.contains(&format!("removed {name}")), "{cleaned}");
    wait_for("everything to be gone", LIMIT, || traces(&name).is_empty().then_some(())).expect("gone");
}
