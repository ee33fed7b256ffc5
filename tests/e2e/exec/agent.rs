//! The agent's own sandbox.

use std::fs;

use tests::World;

use crate::{builder, wait_for};

fn status(world: &World, task: &str, field: &str) -> String {
    let pid = world.agent.pid().expect("it runs");
    let status = fs::read_to_string(format!("/proc/{pid}/task/{task}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
    line.unwrap_or_else(|| panic!("{field} in {status}")).to_owned()
}

fn tasks(world: &World) -> Vec<String> {
    let pid = world.agent.pid().expect("it runs");
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("tasks").flatten();
    tasks.map(|task| task.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_thread_is_inside_and_everything_still_works() {
    let mut world = builder().up();
    assert_eq!(world.agent.json(&["status"]).expect("status")["sandbox"], "on");
    // BPF, NET_ADMIN, PERFMON, SYS_ADMIN, SYS_RESOURCE, SYS_PTRACE, DAC_READ_SEARCH, NET_BIND_SERVICE.
    let most = [39, 12, 38, 21, 24, 19, 2, 10].iter().fold(0u64, |bits, bit| bits | 1 << bit);
    let tasks = tasks(&world);
    assert!(tasks.len() > 8, "{tasks:?}");
    for task in &tasks {
        assert_eq!(status(&world, task, "NoNewPrivs"), "1");
        assert_eq!(status(&world, task, "Seccomp"), "2");
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            let held = u64::from_str_radix(&status(&world, task, set), 16).expect("bits");
            assert_eq!(held & !most, 0, "{set} {held:x}");
        }
        assert_eq!(status(&world, task, "CapInh"), "0000000000000000");
    }
    // Recordings, SQLite, TLS, DNS and the kernel's maps.
    let count = || world.psql("SELECT count(*) FROM orders;").run();
    assert_eq!(count().ok().text(), "1000");
    let policy = world.policy().expect("a policy");
    let version = world.agent.json(&["status"]).expect("status")["policy_version"].clone();
    world.write_policy(&policy.replace("nobody reads the secrets", "not even now")).expect("written");
    wait_for("the reload", || {
        (world.agent.json(&["status"]).ok()?["policy_version"] != version).then_some(())
    });
    assert_eq!(count().ok().text(), "1000");
    world.agent.kill();
    world.agent.start().expect("a restart takes pinned programs over");
    assert_eq!(world.psql("SELECT count(*) FROM orders;").run().ok().text(), "1000");
    assert!(world.agent.stop().expect("stopped").success());
}

#[test]
fn it_is_off_by_configuration_alone_and_says_so() {
    let world = builder().configure("/sandbox", "off").up();
    assert_eq!(world.agent.json(&["status"]).expect("status")["sandbox"], "off by configuration");
    assert_eq!(status(&world, &tasks(&world)[0], "Seccomp"), "0");
    assert!(world.agent.log().contains("without its own sandbox"), "{}", world.agent.log());
}
