//! Who a job is, and what it may do as that.

use serde_json::json;
use tests::process::LIMIT;

use crate::{builder, inside, wait_for, world};

#[test]
fn every_job_has_a_user_of_its_own_also_after_a_restart() {
    let mut world = builder().configure("/jobs/uids", "1999990001-1999990003").up();
    let mut first = world.job(&["sh", "-c", "id -u; cat"]).open().expect("a job");
    let jobs = |world: &tests::World| world.agent.json(&["jobs"]).expect("jobs");
    let uid = wait_for("the first job", || jobs(&world)[0]["uid"].as_u64());
    assert_eq!(uid, 1_999_990_001);
    let other = || world.job(&["id", "-u"]).run().ok().text().parse::<u64>().expect("a number");
    let (second, third) = (other(), other());
    assert_eq!((second, third), (1_999_990_002, 1_999_990_003), "not again at once");

    world.agent.kill();
    world.agent.start().expect("another agent");
    let used: Vec<u64> =
        (0..4).map(|_| world.job(&["id", "-u"]).run().ok().text().parse().expect("a number")).collect();
    assert_eq!(used, [second, third, second, third], "the first one's still is its own");
    first.close_stdin();
    let out = first.finish(LIMIT).expect("its end").ok();
    assert_eq!(out.text(), uid.to_string());
    let after: u64 = world.job(&["id", "-u"]).run().ok().text().parse().expect("a number");
    assert_eq!(after, uid, "the one used longest ago");
}

#[test]
fn a_range_that_is_used_up_makes_no_job() {
    let world = builder().configure("/jobs/uids", "1999990101-1999990101").up();
    let mut first = world.job(&["cat"]).open().expect("a job");
    wait_for("the first job", || world.agent.json(&["jobs"]).ok()?[0]["uid"].as_u64());
    let out = world.job(&["echo", "ran"]).run().failed();
    assert_eq!(out.status.code(), Some(125), "{out}");
    assert!(
        out.stderr.contains("jobs.uids (1999990101-1999990101) is in use") && out.stdout.is_empty(),
        "{out}"
    );
    first.close_stdin();
}

#[test]
fn a_job_holds_nothing_and_gains_nothing() {
    let world = world();
    let said = inside(
        &world,
        r#"
import json, os
status = dict(line.rstrip("\n").split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
said = {name: status[name] for name in ["NoNewPrivs", "Seccomp", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Groups"]}
said["same"] = len(set(status["Uid"].split())) == 1 and status["Uid"].split()[0] == status["Gid"].split()[0]
said["oom"] = int(open("/proc/self/oom_score_adj").read())
said["fds"] = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1]
print(json.dumps(said))
"#,
    );
    let none = "0000000000000000";
    assert_eq!(
        said,
        json!({
            "NoNewPrivs": "1", "Seccomp": "2", "CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none,
            "CapAmb": none, "Groups": " ", "same": true, "oom": 500, "fds": [0, 1, 2],
        })
    );
}

#[test]
fn kept_capabilities_are_held_and_no_others() {
    let world = builder().configure("/jobs/capabilities", json!(["CHOWN", "CAP_NET_BIND_SERVICE"])).up();
    let out = world.job(&["grep", "^Cap", "/proc/self/status"]).run().ok();
    let bits = format!("{:016x}", 1 | 1 << 10);
    assert_eq!(out.stdout.matches(&bits).count(), 5, "{out}");
}

#[test]
fn descriptors_that_lead_out_are_refused_or_closed() {
    let world = world();
    let job = |redirect: &str| {
        let mut sh = world.host.command("bash");
        let words: Vec<String> = {
            let command = world.job(&["ls", "/proc/self/fd"]).into_command();
            std::iter::once(command.get_program())
                .chain(command.get_args())
                .map(|w| w.to_string_lossy().into_owned())
                .collect()
        };
        sh.args(["-c", &format!(r#""$@" {redirect}"#), "sh"]).args(words);
        sh.env("GATEWAY_CONFIG", world.agent.config_file()).current_dir(world.folder());
        tests::process::run(&mut sh).expect("a job")
    };
    let out = job("7</etc/hostname 9</").ok();
    assert_eq!(
        out.stdout.lines().collect::<Vec<_>>(),
        ["0", "1", "2", "3"],
        "3 is the folder that ls reads: {out}"
    );
    let out = job("</").failed();
    assert!(out.status.code() == Some(125) && out.stderr.contains("standard input is a folder"), "{out}");
    let out = job("</dev/udp/198.51.100.10/9").failed();
    assert!(out.status.code() == Some(125) && out.stderr.contains("network socket"), "{out}");
}

#[test]
fn credentials_of_the_launcher_stay_with_it() {
    let world =
        builder().configure("/jobs/environment", json!({ "remove": ["X_*"], "keep": ["NPM_TOKEN"] })).up();
    let mut job = world.job(&["env"]);
    for name in [
        "PGPASSFILE",
        "PGSERVICEFILE",
        "AWS_SECRET_ACCESS_KEY",
        "KUBECONFIG",
        "DOCKER_HOST",
        "SSH_AUTH_SOCK",
        "DBUS_SESSION_BUS_ADDRESS",
        "GITHUB_TOKEN",
        "X_ANYTHING",
        "NPM_TOKEN",
        "PLAIN",
    ] {
        job = job.env(name, "was-here");
    }
    let out = job.env("PGPASSWORD", "real-one").run().ok();
    let here: Vec<&str> = out.stdout.lines().filter(|line| line.contains("was-here")).collect();
    assert_eq!(here, ["NPM_TOKEN=was-here", "PLAIN=was-here"], "{out}");
    assert!(out.stdout.contains("PGPASSWORD=placeholder\n") && out.stdout.contains("PGUSER=job\n"), "{out}");
    assert!(out.stdout.contains("HOME=/tmp/home\n"), "{out}");
}
