//! A real container engine: podman with runc, where it is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tests::{World, process, process::Output, world};

use crate::support::REDACTED;

/// An engine with its own store; its containers go when it is dropped.
struct Engine {
    folder: PathBuf,
    /// Parent of the containers' cgroups, as the engine names it.
    parent: String,
}

impl Engine {
    /// `None`: this machine has none.
    fn new(world: &World) -> Option<Self> {
        let has = |program: &str| {
            Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success())
        };
        if !has("podman") || !has("runc") {
            return None;
        }
        let folder = world.folder().join("podman");
        let root = folder.join("image");
        for dir in ["usr", "etc", "proc", "sys", "dev", "tmp", "run"] {
            fs::create_dir_all(root.join(dir)).expect("a folder");
        }
        for (name, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
            std::os::unix::fs::symlink(target, root.join(name)).expect("a link");
        }
        let mount = tests::cgroup::mount().expect("cgroup v2");
        let below = world.cgroup().strip_prefix(mount).expect("below the mount");
        let engine = Self { folder, parent: format!("/{}", below.join("pods").display()) };
        let tar = engine.folder.join("image.tar");
        process::must(Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&tar).arg("."))
            .expect("an archive");
        let _out = engine.podman(&["import", tar.to_str().expect("UTF-8"), "hollow"]).ok();
        Some(engine)
    }

    fn podman(&self, words: &[&str]) -> Output {
        let mut command = Command::new("podman");
        let path = |name: &str| self.folder.join(name);
        command.arg("--root").arg(path("store")).arg("--runroot").arg(path("run"));
        command
            .args(["--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager=cgroupfs"])
            .args(words);
        process::run(&mut command).expect("podman runs")
    }

    /// Starts a container that sleeps, with the host's programs; its id.
    fn start(&self, shown: &Path) -> String {
        let shown = format!("{0}:{0}:ro", shown.display());
        let words = [
            &["run", "--detach", "--network", "none", "--cgroup-parent", &self.parent][..],
            &["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"],
            &["--volume", "/usr:/usr:ro", "--volume", "/etc:/etc:ro", "--volume", &shown],
            &["hollow", "sleep", "600"],
        ];
        self.podman(&words.concat()).ok().text().to_owned()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let out = self.podman(&["rm", "--all", "--force", "--time", "0"]);
        if !out.success() {
            eprintln!("{out}");
        }
        // On hybrid machines the engine makes the same cgroups in every hierarchy, and leaves their parents.
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for hierarchy in hierarchies.filter(|entry| entry.file_name() != "unified") {
            let mut dir = hierarchy.path().join(self.parent.trim_start_matches('/'));
            for _ in 0..2 {
                fs::remove_dir(&dir).ok();
                dir.pop();
            }
        }
        // Its layers are mounted, and shown folders with them.
        fs::remove_dir_all(self.folder.join("run")).ok();
    }
}

#[test]
fn a_container_of_podman_is_a_job() {
    let world = World::new();
    let Some(engine) = Engine::new(&world) else {
        eprintln!("skipped: podman and runc are not installed");
        return;
    };
    let shown = world.folder().join("run");
    let id = engine.start(&shown);
    let token = world.token_file(&world.token().mint().expect("a token")).expect("a file");
    let token = token.to_str().expect("UTF-8");
    let _out =
        world.agent.cli(&["enroll", "--container", &id[..12], "--token-file", token]).expect("it ran").ok();
    let jobs = world.agent.json(&["jobs"]).expect("jobs");
    assert_eq!(jobs[0]["container"]["engine"], "podman", "{jobs}");
    assert_eq!(jobs[0]["container"]["id"], id, "{jobs}");

    let psql = |host: &str, sql: &str| {
        let host = format!("host={host} port=5432 dbname=orders user=job password=none sslmode=verify-full");
        let all = format!("{host} sslrootcert={} connect_timeout=5", world.agent.job_ca().display());
        engine.podman(&["exec", &id, "psql", "-XAtd", &all, "-c", sql])
    };
    // It has a loopback and nothing else.
    let out = psql(world::DATABASE, "SELECT id, email FROM public.customers WHERE id = 1").ok();
    assert_eq!(out.text(), format!("1|{REDACTED}"));
    let out = psql(world::DATABASE, "SELECT * FROM public.secrets").failed();
    assert!(out.stderr.contains("no-secrets"), "{out}");
    let _out = psql(world::UNDECLARED, "SELECT 1").failed();
    assert_eq!(world.canary().expect("a count"), 0);
}
