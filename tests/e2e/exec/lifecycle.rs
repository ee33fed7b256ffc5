//! How a job begins, gets signals, and ends.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tests::{World, process::LIMIT};

use crate::{builder, wait_for, world};

/// Pids in any job's cgroup, as the host sees them.
fn members(world: &World) -> Vec<u32> {
    let jobs = fs::read_dir(world.cgroup().join("gateway-jobs")).expect("jobs").flatten();
    let files = jobs.filter_map(|job| fs::read_to_string(job.path().join("cgroup.procs")).ok());
    files.flat_map(|text| text.lines().filter_map(|l| l.parse().ok()).collect::<Vec<u32>>()).collect()
}

fn command_of(pid: u32) -> String {
    fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default()
}

#[test]
fn the_first_process_is_born_in_the_jobs_cgroup() {
    let world = world();
    // No token: whoever waits for one sees the processes before they are enrolled.
    let fifo = world.folder().join("token-later");
    tests::process::must(std::process::Command::new("mkfifo").arg(&fifo)).expect("a fifo");
    let mut exec = world.agent.command(&["exec", "--token-file", &fifo.display().to_string(), "--", "id"]);
    let exec = tests::process::Running::capturing(&mut exec, Some(b"")).expect("exec");
    // Between clone and execve it still has the launcher's command line.
    let pid = wait_for("the first process", || {
        members(&world).into_iter().find(|pid| command_of(*pid).contains("exec-child"))
    });
    let audit = world.agent.json(&["jobs"]).expect("jobs");
    assert_eq!(audit.as_array().map(Vec::len), Some(0), "not enrolled yet");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let pids = status.lines().find_map(|l| l.strip_prefix("NSpid:\t")).expect("pids");
    assert_eq!(pids.split_whitespace().collect::<Vec<_>>(), [&*pid.to_string(), "1"]);
    fs::write(&fifo, world.token().mint().expect("a token")).expect("told");
    assert!(exec.finish(LIMIT).expect("its end").ok().stdout.contains("uid="));
}

#[test]
fn a_daemon_that_left_everything_behind_is_killed_with_the_job() {
    for private_pids in [true, false] {
        let world = builder().configure("/jobs/private_pids", private_pids).up();
        // Forks twice, leaves session, group and streams.
        let program = r#"
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(3): os.close(fd)
        open("/tmp/daemon-is-up", "w").close()
        time.sleep(1000)
    os._exit(0)
os.wait()
while not os.path.exists("/tmp/daemon-is-up"): time.sleep(0.01)
print("started")
sys.stdin.read()
"#;
        let mut job = world.job(&[&world.python(), "-c", program]).open().expect("a job");
        // Init if there is one, the program, the daemon.
        let count = if private_pids { 3 } else { 2 };
        let pids = wait_for("the daemon", || Some(members(&world)).filter(|pids| pids.len() == count));
        job.close_stdin();
        assert_eq!(job.finish(LIMIT).expect("its end").ok().text(), "started");
        assert_eq!(pids.iter().filter(|pid| command_of(**pid).contains("daemon-is-up")).count(), 0);
        assert!(members(&world).is_empty());
        assert_eq!(
            fs::read_dir(world.cgroup().join("gateway-jobs"))
                .expect("jobs")
                .flatten()
                .filter(|e| e.path().is_dir())
                .count(),
            0
        );
    }
}

#[test]
fn a_killed_launcher_takes_everything_along() {
    let world = world();
    let job = world.job(&["sh", "-c", "setsid sleep 1000 & exec sleep 1000"]).start().expect("a job");
    wait_for("the job", || (members(&world).len() == 3).then_some(()));
    job.signal(Signal::KILL);
    wait_for("its end", || members(&world).is_empty().then_some(()));
}

#[test]
fn ends_and_signals_are_the_commands() {
    for private_pids in [true, false] {
        let world = builder().configure("/jobs/private_pids", private_pids).up();
        let code = |script: &str| world.job(&["sh", "-c", script]).run().status.code();
        assert_eq!(code("exit 0"), Some(0));
        assert_eq!(code("exit 77"), Some(77));
        assert_eq!(code("kill -TERM $$"), Some(128 + 15));
        assert_eq!(code("kill -KILL $$"), Some(128 + 9));
        if private_pids {
            // Orphans are init's to reap.
            assert_eq!(code("(true &); while ps -eo stat= | grep -q Z; do :; done; exit 5"), Some(5));
        }
        let not_found = world.job(&["/no/such/program"]).run();
        assert_eq!(not_found.status.code(), Some(127), "{not_found}");
        let not_a_program = world.job(&["/etc/passwd"]).run();
        assert_eq!(not_a_program.status.code(), Some(126), "{not_a_program}");
        for (signal, number) in [(Signal::TERM, 15), (Signal::USR1, 10), (Signal::HUP, 1)] {
            let script = format!(
                "trap 'exit {}' {number}; echo up > /tmp/up; while :; do sleep 0.02; done",
                40 + number
            );
            let job = world.job(&["sh", "-c", &script]).start().expect("a job");
            let up =
                || members(&world).iter().any(|pid| Path::new(&format!("/proc/{pid}/root/tmp/up")).exists());
            wait_for("the trap", || up().then_some(()));
            job.signal(signal);
            assert_eq!(job.finish(LIMIT).expect("its end").status.code(), Some(40 + number), "{number}");
        }
    }
}

#[test]
fn a_signal_before_the_command_runs_is_not_lost() {
    let world = world();
    let fifo = world.folder().join("token-later");
    tests::process::must(std::process::Command::new("mkfifo").arg(&fifo)).expect("a fifo");
    let mut exec =
        world.agent.command(&["exec", "--token-file", &fifo.display().to_string(), "--", "sleep", "1000"]);
    let exec = tests::process::Running::capturing(&mut exec, Some(b"")).expect("exec");
    wait_for("the first process", || members(&world).first().copied());
    exec.signal(Signal::TERM);
    fs::write(&fifo, world.token().mint().expect("a token")).expect("told");
    assert_eq!(exec.finish(LIMIT).expect("its end").status.code(), Some(128 + 15));
}

#[test]
fn what_ran_upstream_is_cancelled_when_the_job_ends() {
    let world = world();
    let running = || {
        world.db.ask("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(500)%' AND usename = 'gateway'")
    };
    // The gateway's own connections, by which it reads names and looks after what runs long, end with the last session.
    let backends = || world.db.ask("SELECT count(*) FROM pg_stat_activity WHERE usename = 'gateway'");
    let sleeping = || wait_for("the statement", || (running() == "1").then_some(()));
    let gone = || {
        let since = Instant::now();
        wait_for("its cancellation", || (running() == "0").then_some(()));
        // Nobody waits for the server to notice by itself.
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        wait_for("the backends' end", || (backends() == "0").then_some(()));
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    };
    // The command ends, and leaves psql behind.
    let out = world
        .job(&["sh", "-c", "psql -c 'SELECT pg_sleep(500)' >/dev/null 2>&1 & read line"])
        .open()
        .expect("a job");
    sleeping();
    drop_stdin_and_finish(out);
    gone();
    // The launcher dies.
    let job = world.psql("SELECT pg_sleep(500);").start().expect("a job");
    sleeping();
    job.signal(Signal::KILL);
    gone();
    // An operator ends the identity under a running job.
    let job = world.psql("SELECT pg_sleep(500);").start().expect("a job");
    sleeping();
    let jobs = world.agent.json(&["jobs"]).expect("jobs");
    let live =
        jobs.as_array().expect("jobs").iter().find(|j| j["sessions"] == 1).expect("one with a session");
    let _ = world.agent.cli(&["release", &live["cgroup_id"].to_string()]).expect("release").ok();
    gone();
    assert!(!job.finish(LIMIT).expect("its end").success());
}

fn drop_stdin_and_finish(mut job: tests::process::Running) {
    job.close_stdin();
    job.finish(LIMIT).expect("its end");
}

#[test]
fn processes_of_other_jobs_are_out_of_reach() {
    let world = world();
    let _job = world.job(&["sleep", "1000"]).start().expect("a job");
    let pid =
        wait_for("the job", || members(&world).into_iter().find(|pid| command_of(*pid).starts_with("sleep")));
    let script = format!("kill -0 {pid}; echo $?; ls /proc/{pid}/fd; echo $?");
    let out = world.job(&["sh", "-c", &script]).run().ok();
    assert_eq!(out.text(), "1\n2", "{out}");
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, Signal::CONT).expect("it is there");
}
