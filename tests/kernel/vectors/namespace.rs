//! Namespaces and cgroups.

use gateway_agent::kernel::Reason::{self, Protected, Undeclared, UnknownNetns};

use super::{
    Place, RESOURCE, far,
    steps::{addr, tcp, udp},
};
use crate::{
    ask::{Answer, Ask, Step},
    attempt::{Attempt, Expect, both, refused},
    bpf,
    ground::{FAR_V4, FAR_V6, User, World},
    scenario::{Scenario, scenarios},
};

pub(super) fn attempts(place: &Place) -> Vec<Attempt> {
    let mut all = Vec::new();
    let with = |first: Vec<Step>, then: Vec<Step>| [first, then].concat();

    // A network namespace of one's own.
    for dial in far(80) {
        let own = vec![Step::Unshare { user: true, net: true }];
        all.push(refused(
            &[25],
            format!("tcp to {dial} from a user and network namespace of its own"),
            with(own.clone(), tcp(&dial)),
            &[UnknownNetns],
        ));
        all.push(refused(
            &[25],
            format!("udp to {dial} from a user and network namespace of its own"),
            with(own, udp(&dial)),
            &[UnknownNetns],
        ));
    }
    all.push(refused(
        &[25],
        "the resource from a namespace of its own",
        with(vec![Step::Unshare { user: true, net: true }], tcp(&far(RESOURCE)[0])),
        &[UnknownNetns],
    ));
    let denied = Expect::Kernel(&[libc::EPERM, libc::EACCES]);
    all.push(both(
        &[26],
        "setns into another namespace",
        with(vec![Step::Setns { path: place.far.clone() }], tcp(&far(80)[0])),
        denied.clone(),
    ));
    all.push(both(
        &[26],
        "setns into another namespace from a user namespace of its own",
        with(
            vec![Step::Unshare { user: true, net: false }, Step::Setns { path: place.far.clone() }],
            tcp(&far(80)[0]),
        ),
        denied.clone(),
    ));

    // Another cgroup.
    let leave = Step::EnterCgroup { path: place.cgroup.join("bystander") };
    for dial in far(RESOURCE) {
        all.push(
            refused(
                &[27, 24],
                format!("leave the job, then {dial}"),
                with(vec![leave.clone()], tcp(&dial)),
                &[Protected],
            )
            .plain(denied.clone()),
        );
    }
    for dial in far(80) {
        let nested = vec![Step::EnterCgroup { path: place.cgroup.join("job/nested") }];
        all.push(
            refused(
                &[28],
                format!("tcp to {dial} from a nested cgroup"),
                with(nested, tcp(&dial)),
                &[Undeclared],
            )
            .plain(denied.clone()),
        );
    }

    // Programs of one's own, and the gateway's pins.
    let no = Expect::Kernel(&[libc::EPERM, libc::EACCES]);
    all.push(both(&[29], "load a program of one's own", vec![Step::LoadProgram], no.clone()));
    let pin = place.pin_dir.join("link_connect4");
    let steps = |step| vec![step];
    all.push(
        both(&[31], "unpin a link", steps(Step::Unlink { path: pin.clone() }), no.clone())
            .contained(Expect::Skip("root can unlink; see `unpinning_detaches_nothing`")),
    );
    all.push(
        both(&[31], "detach a pinned link", steps(Step::DetachPin { path: pin }), no.clone())
            .contained(Expect::Skip("root opens what root pinned, unless the LSM tier refuses")),
    );
    let bpffs = place.pin_dir.parent().unwrap_or(&place.pin_dir).to_owned();
    all.push(both(&[31], "unmount the BPF file system", steps(Step::Unmount { path: bpffs }), no));
    all
}

pub(super) const SCENARIOS: &[Scenario] = scenarios![
    [28] a_nested_cgroup_is_still_the_job,
    [27, 24] leaving_the_job_loses_access,
    [29] a_program_of_a_child_cgroup_decides_nothing,
    [31] unpinning_detaches_nothing,
    [26, 54] another_network_namespace_is_refused,
    [50] a_new_cgroup_of_the_same_name_is_no_job,
];

fn a_nested_cgroup_is_still_the_job() {
    let World { ground, gateway, mut job } = World::start();
    assert!(matches!(job.ask(&Ask::Enter { cgroup: ground.cgroup.join("job/nested") }), Answer::Done { .. }));
    assert_eq!(job.refused(&Ask::Connect { to: addr(&far(80)[0]) }), libc::EPERM);
    job.connect(&far(RESOURCE)[0]);
    assert_eq!(gateway.flow().unwrap().job, ground.id("job"));
    let nested = ground.cgroup.join("job/nested");
    assert!(gateway.kernel.job_cgroup(&nested).is_err(), "a job inside a job");
    assert_eq!(ground.canary(), 0);
}

fn leaving_the_job_loses_access() {
    let World { ground, mut gateway, mut job } = World::start();
    let to = addr(&far(RESOURCE)[0]);
    assert!(matches!(job.ask(&Ask::Prepare { v6: false }), Answer::Done { .. }));
    assert!(matches!(job.ask(&Ask::Enter { cgroup: ground.cgroup.join("bystander") }), Answer::Done { .. }));
    // A socket from before stays the job's.
    assert!(matches!(job.ask(&Ask::ConnectPrepared { to }), Answer::Done { .. }));
    assert_eq!(gateway.flow().unwrap().job, ground.id("job"));
    // A new one is a bystander's, to whom resources are closed.
    assert_eq!(job.refused(&Ask::Connect { to }), libc::EPERM);
    let event = gateway.event(Reason::Protected);
    assert_eq!(event.job, None);
    assert_eq!(ground.canary(), 0);
}

/// Attached by root outside the job, in both ways there are: it runs before the gateway's program, which judges
/// what the child made of the destination.
fn a_program_of_a_child_cgroup_decides_nothing() {
    let World { ground, mut gateway, job } = World::start();
    drop(job);
    let nested = ground.cgroup.join("job/nested");
    let beyond: std::net::Ipv4Addr = super::BEYOND_V4.parse().unwrap();
    for how in [bpf::How::Override, bpf::How::Multi] {
        let attached = match bpf::attach_rewriting_connect4(&nested, beyond, how) {
            Ok(attached) => attached,
            // A parent with links does not let a child override.
            Err(error) if how == bpf::How::Override => {
                assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
                continue;
            }
            Err(error) => panic!("attaching to the child: {error}"),
        };
        for user in User::JOBS {
            let mut job = ground.actor_as("job/nested", user);
            for to in [format!("{FAR_V4}:80"), format!("{FAR_V4}:{RESOURCE}"), format!("{FAR_V4}:53")] {
                assert_eq!(job.refused(&Ask::Connect { to: addr(&to) }), libc::EPERM, "{to} {how:?}");
                let event = gateway.event(Reason::Undeclared);
                assert_eq!(event.peer.unwrap().ip(), beyond, "the gateway's program has the last word");
            }
        }
        drop(attached);
        assert_eq!(ground.canary(), 0);
    }
}

/// The agent holds the links as well: without their files, every hook still runs.
fn unpinning_detaches_nothing() {
    let World { ground, gateway, job } = World::start();
    drop(job);
    let mut root = ground.actor_as("job", User::Contained);
    let pins: Vec<_> = std::fs::read_dir(&ground.pin_dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("link_"))
        .collect();
    assert!(pins.len() > 10, "{pins:?}");
    for path in pins {
        // Removed or not: that the hooks still run is what counts.
        root.ask(&Ask::Script(vec![Step::Unlink { path }]));
    }
    for dial in far(80) {
        assert_eq!(root.refused(&Ask::Connect { to: addr(&dial) }), libc::EPERM);
        assert_eq!(root.refused(&Ask::Datagram { to: addr(&dial), connected: false }), libc::EPERM);
    }
    root.connect(&far(RESOURCE)[0]);
    gateway.flow().unwrap();
    // Pinned again, for the next agent.
    drop(gateway_agent::kernel::Kernel::attach(ground.config()).unwrap());
    assert_eq!(ground.canary(), 0);
}

/// As a container with a network of its own would be: a job, and a process outside every job.
fn another_network_namespace_is_refused() {
    let World { ground, mut gateway, job } = World::start();
    drop(job);
    let mut job = ground.actor_in_far("job");
    let mut bystander = ground.actor_in_far("bystander");
    for dial in far(RESOURCE) {
        assert_eq!(job.refused(&Ask::Connect { to: addr(&dial) }), libc::EPERM);
        gateway.event(Reason::UnknownNetns);
        assert_eq!(bystander.refused(&Ask::Connect { to: addr(&dial) }), libc::EPERM);
        gateway.event(Reason::Protected);
    }
    for dial in [format!("{FAR_V4}:80"), format!("[{FAR_V6}]:80")] {
        assert_eq!(job.refused(&Ask::Connect { to: addr(&dial) }), libc::EPERM);
        gateway.event(Reason::UnknownNetns);
    }
}

/// Ids of cgroups are not used again, so what is left of an ended job speaks for nobody.
fn a_new_cgroup_of_the_same_name_is_no_job() {
    let World { ground, gateway, job } = World::start();
    let other = ground.cgroup.join("other");
    let first = ground.id("other");
    gateway.kernel.add_job(first).unwrap();
    drop(job);
    std::fs::remove_dir(&other).unwrap();
    std::fs::create_dir(&other).unwrap();
    let second = ground.id("other");
    assert_ne!(first, second, "the kernel numbers cgroups anew");
    let mut process = ground.actor("other");
    // Not the job that ended, and a resource is still closed to it.
    assert_eq!(process.refused(&Ask::Connect { to: addr(&far(RESOURCE)[0]) }), libc::EPERM);
    assert!(gateway.kernel.jobs().unwrap().contains(&first));
    assert!(!gateway.kernel.jobs().unwrap().contains(&second));
    assert_eq!(ground.canary(), 0);
}
