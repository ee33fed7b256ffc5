//! What a job sees of the host's files.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use serde_json::json;
use tests::process;

use crate::{builder, inside, outside, world};

/// A folder of this test's own at a place where the host keeps sockets.
struct Folder(PathBuf);

impl Folder {
    fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn no_socket_of_the_host_is_reachable() {
    let world = world();
    let name = world.name().as_str().to_owned();
    let folders = [
        Folder::new(format!("/run/{name}")),
        Folder::new(format!("/var/tmp/{name}")),
        Folder::new(format!("/tmp/{name}-agent")),
    ];
    let mut listeners = Vec::new();
    let mut paths = vec![world.folder().join("run/control.sock")];
    for folder in &folders {
        for door in ["docker.sock", "bus", ".s.PGSQL.5432"] {
            let path = folder.0.join(door);
            listeners.push(UnixListener::bind(&path).expect("a socket"));
            fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).expect("open to all");
            paths.push(path);
        }
    }
    let program = format!(
        r#"
import json, os, socket
said = {{}}
for path in json.loads('{}') + ["\0{name}"]:
    with socket.socket(socket.AF_UNIX) as door:
        try:
            door.connect(path)
            said[path.replace("\0", "@")] = "open"
        except OSError as error:
            said[path.replace("\0", "@")] = error.strerror
print(json.dumps(said))
"#,
        json!(paths)
    );
    use std::os::linux::net::SocketAddrExt as _;
    let nameless = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
    // Abstract names are of a network namespace: that of the world's jobs.
    let hidden = world.host.enter(|| UnixListener::bind_addr(&nameless)).expect("entered").expect("a socket");
    let there = outside(&world, &program);
    assert!(there.as_object().expect("answers").values().all(|v| v == "open"), "{there}");
    let seen = inside(&world, &program);
    for (path, answer) in seen.as_object().expect("answers") {
        assert_ne!(answer, "open", "{path}: {seen}");
    }
    assert_eq!(seen[format!("@{name}")], "Operation not permitted", "{seen}");
    assert_eq!(seen[&*paths[0].to_string_lossy()], "Connection refused", "covered, not gone: {seen}");
    drop((hidden, listeners));
    // A socket that is made anew while the job runs does not appear to it.
    let late = folders[0].0.join("late.sock");
    let mut job = world
        .job(&["sh", "-c", &format!("echo up; read line; ls /run /var/run; test ! -e {}", late.display())])
        .open()
        .expect("a job");
    crate::wait_for("the job", || world.agent.json(&["jobs"]).ok()?[0]["uid"].as_u64());
    let _late = UnixListener::bind(&late).expect("a socket");
    job.write(b"now\n").expect("told");
    let out = job.finish(process::LIMIT).expect("its end").ok();
    assert!(!out.stdout.contains(&name), "{out}");
}

#[test]
fn scratch_folders_are_the_jobs_own() {
    let world = world();
    let name = world.name().as_str();
    let scratch = ["/tmp", "/var/tmp", "/dev/shm"].map(|folder| Folder::new(format!("{folder}/{name}-host")));
    let script = format!(
        "for d in /tmp /var/tmp /dev/shm; do test ! -e $d/{name}-host || echo shown $d; echo x > $d/{name}-job; done; \
         cd; pwd; echo x > in-home; cd /tmp; cd ..; ls tmp | grep -c host; cd {}; cd ..; ls | grep -c host",
        world.folder().display(),
    );
    let out = world.job(&["sh", "-c", &script]).run();
    assert_eq!(out.text(), "/tmp/home\n0\n0", "{out}");
    for folder in &scratch {
        let left = folder.0.with_file_name(format!("{name}-job"));
        assert!(!left.exists(), "{}", left.display());
    }
}

#[test]
fn the_kernels_trees_are_read_only_or_gone() {
    let world = world();
    let bpf = world.folder().join("bpf");
    assert!(fs::read_dir(&bpf).expect("bpffs").next().is_some(), "the agent's pins");
    let said = inside(
        &world,
        &format!(
            r#"
import json, os
flags = {{}}
for line in open("/proc/self/mountinfo"):
    before, after = line.split(" - ")
    if after.split()[0] in ("cgroup", "cgroup2", "sysfs", "bpf", "debugfs", "tracefs"):
        flags[before.split()[4] + " " + after.split()[0]] = "ro" in before.split()[5].split(",")
pids = [int(p) for p in os.listdir("/proc") if p.isdigit()]
print(json.dumps({{
    "writable": [m for m, ro in flags.items() if not ro and not m.endswith((" bpf", " debugfs", " tracefs"))],
    "cgroups": sum(m.endswith(" cgroup2") for m in flags),
    "pins": os.listdir("{bpf}"),
    "sysctl": os.statvfs("/proc/sys").f_flag & os.ST_RDONLY,
    "kcore": os.stat("/proc/kcore").st_rdev == os.stat("/dev/null").st_rdev if os.path.exists("/proc/kcore") else True,
    "pids": len(pids), "me": os.getpid() < 10, "init": os.access("/proc/1/environ", os.R_OK),
}}))
"#,
            bpf = bpf.display()
        ),
    );
    assert_eq!(said["writable"], json!([]), "{said}");
    assert!(said["cgroups"].as_u64() > Some(0) && said["pids"].as_u64() < Some(4), "{said}");
    assert_eq!(
        (&said["pins"], &said["sysctl"], &said["kcore"]),
        (&json!([]), &json!(1), &json!(true)),
        "{said}"
    );
    assert_eq!((&said["me"], &said["init"]), (&json!(true), &json!(false)), "{said}");
}

#[test]
fn psql_verifies_the_gateway_with_what_exec_gives_it() {
    let world = world();
    let out = world
        .psql("SELECT count(*) FROM orders;")
        .env("PGSSLROOTCERT", "/nonexistent")
        .env("PGSSLMODE", "verify-full")
        .run()
        .ok();
    assert_eq!(out.text(), tests::sample::ORDERS.to_string());
    let said = inside(
        &world,
        r#"
import json, os, ssl
roots = lambda path: len(ssl.create_default_context(cafile=path).get_ca_certs())
names = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"]
print(json.dumps({
    "one": [len({os.environ[name] for name in names}), roots(os.environ["PGSSLROOTCERT"]), roots(os.environ["NODE_EXTRA_CA_CERTS"])],
    "more": roots(os.environ["SSL_CERT_FILE"]) >= 1,
}))
"#,
    );
    assert_eq!(said, json!({ "one": [1, 1, 1], "more": true }));
}

#[test]
fn a_checkout_of_somebody_else_is_the_jobs_while_it_runs() {
    const OWNER: (u32, u32) = (1_999_980_001, 1_999_980_002);
    let world = builder().configure("/jobs/workspaces", json!(["@DIR@/builds"])).up();
    let builds = world.folder().join("builds");
    let checkout = builds.join("repository");
    fs::create_dir_all(checkout.join(".git")).expect("a checkout");
    let file = |name: &str, mode: u32, owner: (u32, u32)| {
        let path = checkout.join(name);
        fs::write(&path, name).expect("a file");
        chown(&path, Some(owner.0), Some(owner.1)).expect("its owner");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    };
    file("source", 0o600, OWNER);
    file("of-another", 0o600, (1_999_980_003, 1_999_980_003));
    for folder in [checkout.join(".git"), checkout.clone()] {
        chown(&folder, Some(OWNER.0), Some(OWNER.1)).expect("its owner");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("its mode");
    }
    let run = |folder: &Path, script: &str| {
        let mut job = world.job(&["sh", "-c", script]).into_command();
        process::run(job.current_dir(folder)).expect("a job")
    };
    let out = run(
        &checkout,
        "cat source; echo; stat -c %u:%g . source .git | sort -u | grep -x \"$(id -u):$(id -g)\"; \
         echo made > new; cp /usr/bin/id .; chmod 4755 id; mkdir deep; touch deep/file; \
         cat of-another || echo closed; rm source && mv new source; stat -c %u of-another",
    )
    .ok();
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert!(matches!(lines[..], ["source", _, "closed", "65534"]), "{out}");
    for made in ["source", "id", "deep", "deep/file"] {
        let stat = fs::metadata(checkout.join(made)).expect("what the job made");
        assert_eq!((stat.uid(), stat.gid()), OWNER, "{made}");
    }
    assert_eq!(fs::read_to_string(checkout.join("source")).expect("the file"), "made\n");

    let out = run(&builds, "touch here").failed();
    assert!(out.stderr.contains("Permission denied"), "only folders below are given: {out}");
    let of_root = builds.join("of-root");
    fs::create_dir(&of_root).expect("a folder");
    let out = run(&of_root, "echo ran").failed();
    assert!(out.status.code() == Some(125) && out.stderr.contains("belongs to root"), "{out}");
    assert!(out.stdout.is_empty(), "{out}");
}
