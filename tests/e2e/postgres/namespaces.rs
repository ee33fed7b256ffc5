//! Jobs in network namespaces of their own, as containers are: by hand, because an engine is not everywhere.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::{
    World,
    netns::Netns,
    process::{self, LIMIT, Output, Running},
    world,
};

use crate::support::{REDACTED, audited, ran, wait_for, wait_for_audit};

pub(crate) const ID: &str = "5ca1ab1e00000000000000000000000000000000000000000000000000000001";

/// A container as docker's cgroupfs driver would have made it, with a process that keeps it alive.
pub(crate) struct Container {
    cgroup: PathBuf,
    space: Netns,
    _init: Running,
}

impl Container {
    pub(crate) fn start(world: &World) -> Self {
        let cgroup = world.cgroup().join("docker").join(ID);
        tests::cgroup::make(&cgroup).expect("a cgroup");
        let space = world.space("box", 2).expect("a namespace");
        let mut init = world.inside(&space, &cgroup, &["sh", "-c", "echo up; exec sleep 600"]);
        let mut init = Running::capturing(&mut init, None).expect("a process");
        wait_for("the container", || inhabited(&cgroup).then_some(()));
        assert!(init.alive());
        Self { cgroup, space, _init: init }
    }

    pub(crate) fn enrol(&self, world: &World, how: &[&str]) -> Output {
        let token = world.token().mint().expect("a token");
        let file = world.token_file(&token).expect("a file");
        let mut words = vec!["enroll", "--token-file", file.to_str().expect("UTF-8")];
        words.extend(how);
        world.agent.cli(&words).expect("it ran")
    }

    pub(crate) fn run(&self, world: &World, words: &[&str]) -> Output {
        process::run(&mut world.inside(&self.space, &self.cgroup, words)).expect("it ran")
    }

    fn psql(&self, world: &World, sql: &str) -> Output {
        self.run(world, &["psql", "-XAtc", sql])
    }
}

fn inhabited(cgroup: &Path) -> bool {
    std::fs::read_to_string(cgroup.join("cgroup.procs")).is_ok_and(|procs| !procs.is_empty())
}

fn followed(world: &World) -> Value {
    world.agent.json(&["status"]).expect("status")["namespaces"].clone()
}

/// Connects, and says what came of it.
const DIAL: &str = r#"
import socket, sys
sock = socket.socket()
sock.settimeout(5)
try:
    sock.connect((sys.argv[1], int(sys.argv[2])))
    print("reached", sock.getpeername()[0])
except OSError as refused:
    print(refused.strerror)
"#;

#[test]
fn a_container_is_served_in_its_own_namespace() {
    let mut world = World::new();
    let container = Container::start(&world);
    let _out = container.enrol(&world, &["--container", &ID[..12]]).ok();

    let jobs = world.agent.json(&["jobs"]).expect("jobs");
    assert_eq!(jobs[0]["container"]["engine"], "docker", "{jobs}");
    assert_eq!(jobs[0]["container"]["id"], ID, "{jobs}");
    let enrolled = wait_for_audit(&world, "job_enrolled", |_| true);
    assert_eq!((&enrolled["engine"], &enrolled["container"]), (&"docker".into(), &ID.into()), "{enrolled}");
    wait_for_audit(&world, "namespace_followed", |_| true);
    assert_eq!(followed(&world), 1);

    // It has no way to the server but the gateway's own socket in there.
    let out = container.psql(&world, "SELECT id, email FROM public.customers WHERE id = 1").ok();
    assert_eq!(out.text(), format!("1|{REDACTED}"));
    let _out = container.psql(&world, "SELECT * FROM public.secrets").failed();
    let dial = |host: &str, port: &str| {
        container.run(&world, &["python3", "-c", DIAL, host, port]).ok().text().to_owned()
    };
    assert_eq!(dial(world::DATABASE, "5432"), format!("reached {}", world::DATABASE));
    for (host, port) in [(world::CANARY, "5432"), ("192.0.2.20", "443"), (world::DATABASE, "22")] {
        assert_eq!(dial(host, port), "Operation not permitted", "{host}:{port}");
    }
    let before = world.canary().expect("a count");

    // Nobody in there takes the gateway's place while it is away: not even who listens on its port.
    world.agent.kill();
    let squat = r#"
import socket
sock = socket.create_server(("127.0.0.1", 15001))
print("up", flush=True)
sock.settimeout(600)
sock.accept()
print("squatted", flush=True)
"#;
    let mut squatter = container.space.command("python3");
    let mut squatter = Running::capturing(squatter.args(["-c", squat]), None).expect("a squatter");
    wait_for("the squatter", || {
        let tcp = container.space.proc_net("tcp").ok()?;
        tcp.contains("0100007F:3A99 00000000:0000 0A").then_some(())
    });
    let reached = ran(&world, "public.customers");
    let _out = container.psql(&world, "SELECT id FROM public.customers").failed();
    assert_eq!(ran(&world, "public.customers"), reached);
    assert!(squatter.alive(), "it still waits for somebody");

    // The next agent serves the same job where it is, squatter or not.
    world.agent.start().expect("the agent again");
    let out = container.psql(&world, "SELECT count(*) FROM public.customers").ok();
    assert_eq!(out.text(), "200");
    assert_eq!(followed(&world), 1);
    assert!(squatter.alive());
    assert_eq!(world.canary().expect("a count"), before, "nothing went out by the container's own wire");
}

#[test]
fn a_job_that_moves_is_followed_at_its_second_attempt_and_left_when_it_is_over() {
    let world = World::new();
    let container = Container::start(&world);
    let pid = std::fs::read_to_string(container.cgroup.join("cgroup.procs")).expect("a process");
    let _out = container.enrol(&world, &["--pid", pid.lines().next().expect("one")]).ok();
    let _out = container.psql(&world, "SELECT 1").ok();
    // Root makes another namespace, and a process of the job is in it.
    let elsewhere = world.space("elsewhere", 3).expect("a namespace");
    let mut once =
        world.inside(&elsewhere, &container.cgroup, &["python3", "-c", DIAL, world::DATABASE, "5432"]);
    assert_eq!(process::run(&mut once).expect("it ran").ok().text(), "Operation not permitted");
    let denied = wait_for_audit(&world, "kernel_denied", |line| line["reason"] == "unknown_netns");
    assert!(denied["destination"].as_str().expect("a destination").starts_with(world::DATABASE));
    // One that stays is found while it lives.
    let script = "until psql -XAtc \"SELECT 'served'\" 2>/dev/null; do sleep 0.1; done; read end";
    let mut stays = world.inside(&elsewhere, &container.cgroup, &["sh", "-c", script]);
    let mut stays = Running::capturing(&mut stays, None).expect("a process");
    wait_for("the second namespace", || (followed(&world) == 2).then_some(()));
    stays.write(b"end\n").expect("it listens");
    assert_eq!(stays.finish(LIMIT).expect("an end").ok().text(), "served");
    wait_for("the namespace to be left", || (followed(&world) == 1).then_some(()));
    wait_for_audit(&world, "namespace_left", |_| true);
    // What it left can be deleted for good: nobody holds it.
    let _out = container.psql(&world, "SELECT 1").ok();
}

#[test]
fn a_namespace_that_the_job_made_for_itself_stays_refused() {
    // Unless told otherwise, `exec` lets a job make none at all.
    let world = World::builder().configure("/jobs/namespaces", "allow").up();
    // A process that ends before the agent looks tells nothing: the last one stays until it was looked at.
    let script = format!(
        "ip link set lo up && for try in 1 2 3; do python3 -c '{DIAL}' {host} 5432; done; \
         exec python3 -c '{DIAL}sys.stdin.read()' {host} 5432",
        host = world::DATABASE
    );
    let mut job = world
        .job(&["unshare", "--user", "--map-root-user", "--net", "sh", "-c", &script])
        .open()
        .expect("a job");
    wait_for_audit(&world, "kernel_denied", |line| line["reason"] == "unknown_netns");
    let refused = wait_for_audit(&world, "namespace_refused", |_| true);
    job.close_stdin();
    let out = job.finish(LIMIT).expect("its end").ok();
    assert_eq!(out.text(), "Operation not permitted\n".repeat(4).trim());
    assert!(refused["reason"].as_str().expect("a reason").contains("user namespace"), "{refused}");
    assert_eq!(audited(&world, "namespace_refused").len(), 1, "told once");
    assert_eq!(followed(&world), 0);
    assert_eq!(world.canary().expect("a count"), 0);
}

#[test]
fn following_can_be_switched_off() {
    let world = World::builder().configure("/kernel/namespaces", "deny").up();
    let container = Container::start(&world);
    let _out = container.enrol(&world, &["--cgroup", container.cgroup.to_str().expect("UTF-8")]).ok();
    for _ in 0..2 {
        let _out = container.psql(&world, "SELECT 1").failed();
    }
    assert_eq!(followed(&world), Value::Null);
    assert_eq!(world.canary().expect("a count"), 0);
}

#[test]
fn only_an_operator_enrols_another_cgroup() {
    let world = World::new();
    let container = Container::start(&world);
    let out = container.enrol(&world, &["--container", "nonsense"]).failed();
    assert!(out.stderr.contains("at least 12"), "{out}");
    let out = container.enrol(&world, &["--container", "ffffffffffff"]).failed();
    assert!(out.stderr.contains("no container"), "{out}");
    // From inside a job it is refused before anything is looked up, whether or not `exec` hid the socket.
    let token = world.token().mint().expect("a token");
    let file = world.token_file(&token).expect("a file");
    let program = world.program("gateway-agent");
    let config = world.agent.config_file().display().to_string();
    let file = file.display().to_string();
    let words = [&program, "--config", &config, "enroll", "--container", ID, "--token-file", &file];
    let _job = world.job(&["cat"]).open().expect("a job");
    let cgroup =
        wait_for("the job", || world.agent.json(&["jobs"]).ok()?[0]["cgroup"].as_str().map(PathBuf::from));
    let out = process::run(&mut world.inside(&world.host, &cgroup, &words)).expect("it ran").failed();
    assert!(out.stderr.contains("a job may enrol only itself"), "{out}");
}
