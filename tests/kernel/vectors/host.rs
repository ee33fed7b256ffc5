//! Doors on the host itself: unix sockets of daemons, descriptors and memory of other processes.

use gateway_agent::kernel::Reason;

use super::{Place, RESOURCE, far, steps::addr};
use crate::{
    ask::{Ask, Step},
    attempt::Attempt,
    ground::World,
    scenario::{Scenario, scenarios},
};

pub(super) fn attempts(_place: &Place) -> Vec<Attempt> {
    Vec::new()
}

pub(super) const SCENARIOS: &[Scenario] = scenarios![
    [34] a_socket_from_outside_is_refused_inside,
    [34] sockets_connected_before_enrolment_carry_nothing,
];

fn a_socket_from_outside_is_refused_inside() {
    let World { ground, mut gateway, job: _job } = World::start();
    let mut stranger = ground.actor("bystander");
    stranger.done(&Ask::Prepare { v6: true });
    stranger.done(&Ask::Enter { cgroup: ground.cgroup.join("job") });
    let to = addr(&far(RESOURCE)[1]);
    assert_eq!(stranger.refused(&Ask::ConnectPrepared { to }), libc::EPERM);
    gateway.event(Reason::ForeignSocket);
    assert_eq!(ground.canary(), 0);
}

/// Connected while the cgroup was nobody's: after enrolment the packets are judged by the cgroup.
fn sockets_connected_before_enrolment_carry_nothing() {
    let World { ground, mut gateway, job } = World::start();
    drop(job);
    let mut server = ground.far_actor();
    for dial in far(8080) {
        server.done(&Ask::Listen { on: addr(&dial) });
    }
    for dial in far(8080) {
        assert!(gateway.kernel.remove_job(ground.id("job")).unwrap());
        let mut early = ground.actor("job");
        early.done(&Ask::Connect { to: addr(&dial) });
        early.done(&Ask::Script(vec![
            Step::Socket {
                family: if dial.starts_with('[') { libc::AF_INET6 } else { libc::AF_INET },
                kind: libc::SOCK_DGRAM,
                protocol: 0,
            },
            Step::Connect { to: addr(&dial) },
            Step::Send,
        ]));
        assert!(ground.canary() > 0, "before enrolment it is a bystander's");
        gateway.kernel.add_job(ground.id("job")).unwrap();
        // The end of the connection is a packet as well: it does not leave.
        early.ask(&Ask::CloseAll);
        let event = gateway.event(Reason::PacketOut);
        assert_eq!(event.job, Some(ground.id("job")));
        assert_eq!(ground.canary(), 0);
    }
}
