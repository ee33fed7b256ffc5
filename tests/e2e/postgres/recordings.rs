//! What was recorded, and that nobody changes it unseen.

use std::{fs, path::PathBuf, process::Command};

use tests::{
    World,
    process::{self, Output},
};

use crate::support::{REDACTED, wait_for};

/// Runs some SQL and returns its sealed recording.
fn recorded(world: &World, sql: &str) -> PathBuf {
    let _out = world.psql(sql).run();
    wait_for("the recording to be sealed", || {
        let found: Vec<PathBuf> = recordings(&world.agent.recordings());
        let file = found.into_iter().next()?;
        verify(world, &file).success().then_some(file)
    })
}

fn recordings(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(recordings(&path));
        } else if path.extension().is_some_and(|extension| extension == "gwr") {
            found.push(path);
        }
    }
    found
}

fn verify(world: &World, file: &std::path::Path) -> Output {
    let key = world.folder().join("state/recording.key.pub").display().to_string();
    world.agent.cli(&["verify", "--key", &key, &file.display().to_string()]).expect("verify runs")
}

#[test]
fn any_changed_byte_a_cut_and_a_swap_are_found() {
    let world = World::new();
    let sql: String =
        (0..40).map(|n| format!("SELECT {n}, email FROM customers WHERE id = {n};\n")).collect();
    let file = recorded(&world, &sql);
    let good = fs::read(&file).expect("a recording");
    let _fine = verify(&world, &file).ok();

    let check = |what: &str, bytes: &[u8]| {
        fs::write(&file, bytes).expect("written");
        let out = verify(&world, &file);
        assert!(!out.success(), "{what}: {out}");
    };
    // A byte in each part of the file, the first and the last.
    for at in (0..good.len()).step_by(good.len() / 12).chain([good.len() - 1]) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        check(&format!("byte {at} flipped"), &bad);
    }
    for length in [good.len() - 1, good.len() / 2, 1, 0] {
        check(&format!("cut to {length}"), &good[..length]);
    }
    let mut longer = good.clone();
    longer.extend_from_slice(b"more");
    check("lengthened", &longer);
    let mut twice = good.clone();
    twice.extend_from_slice(&good);
    check("doubled", &twice);
    fs::write(&file, &good).expect("written");
    let _fine = verify(&world, &file).ok();
}

#[test]
fn swapped_recordings_are_found() {
    let world = World::new();
    let _out = world.psql("SELECT 'one';").run().ok();
    let _out = world.psql("SELECT 'two';").run().ok();
    let files = wait_for("two recordings", || {
        let files = recordings(&world.agent.recordings());
        (files.len() == 2 && files.iter().all(|file| verify(&world, file).success())).then_some(files)
    });
    let aside = files[0].with_extension("aside");
    fs::rename(&files[0], &aside).expect("moved");
    fs::rename(&files[1], &files[0]).expect("moved");
    fs::rename(&aside, &files[1]).expect("moved");
    for file in &files {
        let _bad = verify(&world, file).failed();
    }
}

#[test]
fn a_replay_tells_the_session_without_what_was_masked() {
    let world = World::new();
    let file = recorded(&world, "SELECT id, email FROM customers WHERE id = 1;\nDROP TABLE orders;\n");
    let out = world.agent.cli(&["replay", &file.display().to_string()]).expect("replay").ok();
    for told in ["SELECT id, email FROM customers", "DROP TABLE orders", "no-ddl", "payments-agent"] {
        assert!(out.stdout.contains(told), "{told} in {out}");
    }
    assert!(!out.stdout.contains("mail.example"), "{out}");
}

#[test]
fn recorded_results_are_what_the_job_saw() {
    let policy = tests::sample::POLICY.replace("record: statements", "record: results");
    let world = World::builder().policy(&policy).up();
    let file = recorded(&world, "SELECT id, name, email FROM customers WHERE id = 9;");
    let out = world.agent.cli(&["replay", "--json", &file.display().to_string()]).expect("replay").ok();
    assert!(out.stdout.contains("Customer 9") && out.stdout.contains(REDACTED), "{out}");
    assert!(!out.stdout.contains("mail.example"), "{out}");
}

#[test]
fn a_recording_that_cannot_be_written_refuses_the_session() {
    let world = World::new();
    assert_eq!(world.psql("SELECT 1;").run().ok().text(), "1");
    // Where recordings go is no folder any more.
    let folder = world.agent.recordings();
    fs::rename(&folder, folder.with_extension("away")).expect("moved");
    fs::write(&folder, "").expect("a file in its place");
    let out = world.psql("SELECT 'unrecorded';").run().failed();
    assert!(!out.stdout.contains("unrecorded"), "{out}");
    assert_eq!(crate::support::ran(&world, "unrecorded"), 0);
    fs::remove_file(&folder).expect("removed");
    fs::rename(folder.with_extension("away"), &folder).expect("back");
    assert_eq!(world.psql("SELECT 'recorded';").run().ok().text(), "recorded");
}

#[test]
fn recordings_of_a_killed_agent_are_closed_by_the_next() {
    let mut world = World::new();
    let mut job = world.job(&["psql", "-XAt"]).open().expect("a job");
    job.write(b"SELECT 'before the end';\nSELECT pg_sleep(60) AS cut_off;\n").expect("written");
    wait_for("the statement", || (crate::support::ran(&world, "cut_off") == 1).then_some(()));
    wait_for("the recording to reach the disk", || {
        let file = recordings(&world.agent.recordings()).into_iter().next()?;
        let out = world.agent.cli(&["replay", "--json", &file.display().to_string()]).ok()?;
        out.stdout.contains("cut_off").then_some(())
    });
    world.agent.kill();
    world.agent.start().expect("the agent again");
    let line = wait_for("the audit line of the session", || {
        let lines = world.agent.audit().expect("the audit log");
        lines.into_iter().find(|line| line["event"] == "session_cut_off")
    });
    assert_eq!(line["subject"], "payments-agent", "{line}");
    assert_eq!(line["unfinished"], 1, "{line}");
    let file = recordings(&world.agent.recordings()).remove(0);
    wait_for("the recovery", || verify(&world, &file).success().then_some(()));
    let _strictly = world
        .agent
        .cli(&[
            "verify",
            "--strict",
            "--key",
            &world.folder().join("state/recording.key.pub").display().to_string(),
            &file.display().to_string(),
        ])
        .expect("verify runs")
        .failed();
}

#[test]
fn nothing_runs_that_the_audit_log_cannot_take() {
    let mut world = World::builder().configure("/audit/file", "@DIR@/small/audit.jsonl").without_agent().up();
    let small = world.folder().join("small");
    fs::create_dir(&small).expect("a folder");
    // The world unmounts what is mounted below its folder.
    process::must(Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(&small))
        .expect("a small disk");
    world.agent.start().expect("the agent");
    let mut job = world.job(&["psql", "-XAt"]).open().expect("a job");
    job.write(b"INSERT INTO imports VALUES (1, 'before');\n").expect("written");
    wait_for("the first statement", || (crate::support::ran(&world, "'before'") == 1).then_some(()));
    let filler = small.join("filler");
    // No byte is left for the next line.
    let mut all = fs::File::create(&filler).expect("a file");
    while std::io::Write::write(&mut all, &[0; 512]).is_ok() {}
    drop(all);
    wait_for("refusal of a new session", || (!world.psql("SELECT 1;").run().success()).then_some(()));

    // The session that is open already is no way around it.
    job.write(b"INSERT INTO imports VALUES (2, 'unaudited');\n").expect("written");
    let out = job.finish(std::time::Duration::from_secs(30)).expect("the job ends");
    assert!(out.stderr.contains("audit log"), "{out}");
    assert_eq!(crate::support::ran(&world, "'unaudited'"), 0);

    fs::remove_file(&filler).expect("room again");
    wait_for("a new session", || world.psql("SELECT 1;").run().success().then_some(()));
}
