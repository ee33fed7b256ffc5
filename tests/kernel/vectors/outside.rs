//! Processes outside every job: what another daemon starts on a job's behalf, containers beside the job.

use gateway_agent::kernel::Reason;

use super::{
    RESOURCE, far,
    steps::{addr, socket, to},
};
use crate::{
    ask::{Answer, Ask, Step},
    ground::{FAR_V4, User, World},
    scenario::{Scenario, scenarios},
};

pub(super) const SCENARIOS: &[Scenario] = scenarios![
    [21, 24, 54] resources_are_open_to_the_gateway_and_closed_to_bystanders,
    [21, 54] a_bystander_has_no_other_way_either,
    [54] released_jobs_are_free_and_uninstall_detaches,
];

fn resources_are_open_to_the_gateway_and_closed_to_bystanders() {
    let World { ground, mut gateway, job: _job } = World::start();
    let mut server = ground.far_actor();
    for on in far(RESOURCE) {
        server.done(&Ask::Listen { on: addr(&on) });
    }
    let other = format!("{FAR_V4}:8080");
    server.done(&Ask::Listen { on: addr(&other) });
    let mut bystander = ground.actor("bystander");
    for to in far(RESOURCE) {
        assert_eq!(bystander.refused(&Ask::Connect { to: addr(&to) }), libc::EPERM);
        gateway.event(Reason::Protected);
    }
    assert_eq!(ground.canary(), 0);
    assert_eq!(bystander.connect(&other), addr(&other), "everything else is untouched");
    gateway.kernel.set_gateway_cgroup(ground.id("gateway")).unwrap();
    let mut agent = ground.actor("gateway");
    for to in far(RESOURCE) {
        assert_eq!(agent.connect(&to), addr(&to));
    }
    assert!(ground.canary() > 0);
}

/// Root beside the job, as a container with the host's network or a timer's command is: raw packets and other
/// spellings reach no resource.
fn a_bystander_has_no_other_way_either() {
    let World { ground, mut gateway, job: _job } = World::start();
    for user in User::JOBS {
        let mut bystander = ground.actor_as("bystander", user);
        for dial in [format!("[::ffff:{FAR_V4}]:{RESOURCE}"), format!("[64:ff9b::{FAR_V4}]:{RESOURCE}")] {
            let steps = vec![socket(libc::AF_INET6, libc::SOCK_STREAM, 0), to(&dial)];
            assert_eq!(bystander.refused(&Ask::Script(steps)), libc::EPERM, "{dial}");
            gateway.event(Reason::Protected);
        }
        let dial = format!("{FAR_V4}:{RESOURCE}");
        let steps = vec![
            socket(libc::AF_INET, libc::SOCK_STREAM, 0),
            Step::SendTo { to: addr(&dial), flags: libc::MSG_FASTOPEN, control: None },
        ];
        assert_eq!(bystander.refused(&Ask::Script(steps)), libc::EPERM);
        gateway.event(Reason::Protected);
        // Multipath sockets pass the hooks as TCP.
        let steps = vec![socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP), to(&dial)];
        match bystander.ask(&Ask::Script(steps)) {
            Answer::Failed { errno: libc::EPERM, .. } => {
                gateway.event(Reason::Protected);
            }
            Answer::Failed { errno: libc::ENOPROTOOPT | libc::EPROTONOSUPPORT, .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ground.canary(), 0);
}

fn released_jobs_are_free_and_uninstall_detaches() {
    let World { ground, gateway, mut job } = World::start();
    let mut server = ground.far_actor();
    let to = format!("{FAR_V4}:8080");
    server.done(&Ask::Listen { on: addr(&to) });
    assert_eq!(job.refused(&Ask::Connect { to: addr(&to) }), libc::EPERM);
    assert!(gateway.kernel.remove_job(ground.id("job")).unwrap());
    assert!(!gateway.kernel.remove_job(ground.id("job")).unwrap());
    let mut free = ground.actor("job");
    free.connect(&to);

    gateway.kernel.add_job(ground.id("job")).unwrap();
    assert_eq!(free.refused(&Ask::Connect { to: addr(&to) }), libc::EPERM);
    drop(gateway);
    let removed = gateway_agent::kernel::uninstall(&ground.pin_dir).unwrap();
    assert!(
        removed.links.iter().any(|link| link == "connect4") && removed.maps.iter().any(|map| map == "JOBS")
    );
    assert!(!ground.pin_dir.exists());
    ground.actor("job").connect(&to);
}
