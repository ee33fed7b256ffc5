//! The password that only the gateway has is nowhere else.

use std::{fs, path::Path};

use tests::{World, world::MARKER};

use crate::support::wait_for;

/// Files below a folder that contain the marker, the given ones left out.
fn holders(folder: &Path, except: &[&Path], found: &mut Vec<String>) {
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let kind = fs::symlink_metadata(&path).expect("a file").file_type();
        if except.contains(&path.as_path()) {
            continue;
        }
        if kind.is_dir() {
            holders(&path, except, found);
        } else if kind.is_file() && fs::read(&path).is_ok_and(|bytes| contains(&bytes)) {
            found.push(path.display().to_string());
        }
    }
}

fn contains(bytes: &[u8]) -> bool {
    bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes())
}

#[test]
fn the_password_is_in_no_log_no_recording_no_environment_and_no_error() {
    let world = World::new();
    // Ordinary work, refusals, errors, an approval that nobody answers, garbage.
    let out = world
        .job(&["psql", "-XAt", "-v", "VERBOSITY=verbose"])
        .stdin("SELECT * FROM customers LIMIT 3;\nDROP TABLE orders;\nSELECT 1/0;\nSELECT value FROM secrets;\nSHOW ALL;\n\\conninfo\n")
        .run();
    assert!(!contains(out.stdout.as_bytes()) && !contains(out.stderr.as_bytes()));
    let out = world.job(&["env"]).run().ok();
    assert!(!contains(out.stdout.as_bytes()), "{out}");
    let token = world.token().mint().expect("a token");
    let out = world.job_as(&token, &["env"]).expect("a job").run().ok();
    assert!(!out.stdout.contains(&token), "the token stays outside too: {out}");

    // Environments as the kernel shows them, of the job and of the agent.
    let mut job = world.job(&["psql", "-XAt"]).open().expect("a job");
    job.write(b"SELECT 'connected';\n").expect("written");
    wait_for("the session", || {
        (world.agent.metric("gateway_sessions_active", &[]).ok()? == 1.0).then_some(())
    });
    let mut looked = 0;
    for pid in pids_below(world.cgroup()) {
        for file in ["environ", "cmdline"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            assert!(!contains(&bytes), "/proc/{pid}/{file}");
            looked += usize::from(!bytes.is_empty());
        }
    }
    assert!(looked >= 4, "the agent and the job were looked at");
    drop(job);

    for what in [&["status"][..], &["jobs"], &["sessions"], &["approvals", "list", "--all"]] {
        let out = world.agent.json(what).expect("an answer").to_string();
        assert!(!contains(out.as_bytes()), "{what:?}");
    }
    assert!(!contains(world.agent.metrics().expect("metrics").as_bytes()));
    // A login that fails upstream says so without the password.
    world.db.ask("ALTER ROLE gateway PASSWORD 'changed'");
    let out = world.psql("SELECT 1;").run().failed();
    assert!(!contains(out.stderr.as_bytes()), "{out}");

    let mut found = Vec::new();
    let secret = world.folder().join("secrets/orders");
    let skip = [
        secret.as_path(),
        &world.folder().join("programs"),
        &world.folder().join("venv"),
        &world.folder().join("pg/data"),
    ];
    holders(world.folder(), &skip, &mut found);
    assert_eq!(found, Vec::<String>::new());
    // The files that were looked at are there.
    for file in ["state/audit.jsonl", "agent.log"] {
        assert!(fs::metadata(world.folder().join(file)).is_ok_and(|meta| meta.len() > 0), "{file}");
    }
}

fn pids_below(cgroup: &Path) -> Vec<u32> {
    let mut pids = Vec::new();
    for path in fs::read_dir(cgroup).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            pids.extend(pids_below(&path));
        } else if path.ends_with("cgroup.procs") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
    }
    pids
}
