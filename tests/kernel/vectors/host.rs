//! Doors on the host itself: unix sockets of daemons, descriptors and memory of other processes.

use gateway_agent::kernel::Reason::{self, BpfCall, ForeignProcess, UnixSocket};

use super::{Place, RESOURCE, far, steps::addr};
use crate::{
    ask::{Ask, Step},
    attempt::{Attempt, Expect, both},
    ground::{User, World},
    matrix::lsm_is_on,
    scenario::{Scenario, scenarios},
};

pub(super) fn attempts(place: &Place) -> Vec<Attempt> {
    let lsm = |rows: &'static [u8], name: &str, step: Step, reason: Reason| {
        both(rows, name, vec![step], Expect::Lsm(vec![reason]))
    };
    let mut all = vec![
        lsm(
            &[20, 21, 22, 23],
            "connect to a daemon's unix socket",
            Step::UnixConnect { path: place.stream.clone() },
            UnixSocket,
        ),
        lsm(
            &[21],
            "a datagram to a daemon's unix socket",
            Step::UnixSend { path: place.datagram.clone() },
            UnixSocket,
        ),
        lsm(
            &[33],
            "a socket from a helper outside",
            Step::ReceiveSocket { path: place.stream.clone() },
            UnixSocket,
        ),
        lsm(
            &[31],
            "detach a pinned link, where nothing but LSM refuses",
            Step::DetachPin { path: place.pin_dir.join("link_connect4") },
            BpfCall,
        )
        .plain(Expect::Skip("the pins are root's")),
    ];
    let [plain, contained] = place.neighbours;
    for (pid, user) in [(plain, User::Plain), (contained, User::Contained)] {
        let only = |attempt: Attempt| match user {
            User::Plain => attempt.contained(Expect::Skip("the other one is of its user")),
            User::Contained | User::Root => attempt.plain(Expect::Skip("the other one is of its user")),
        };
        let whose = user.name();
        let steal = Step::StealSocket { pid, fd: 0 };
        all.push(only(lsm(
            &[32],
            &format!("pidfd_getfd of a {whose} process outside"),
            steal,
            ForeignProcess,
        )));
        let signal = Step::Signal { pid };
        all.push(only(lsm(
            &[32, 53],
            &format!("a signal to a {whose} process outside"),
            signal,
            ForeignProcess,
        )));
    }
    all
}

pub(super) const SCENARIOS: &[Scenario] = scenarios![
    [34] a_socket_from_outside_is_refused_inside,
    [33] a_socket_from_outside_is_not_received,
    [20, 32] a_jobs_own_doors_stay_open,
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

/// Passed by whatever way: inside, it is not taken.
fn a_socket_from_outside_is_not_received() {
    let World { ground, mut gateway, job: _job } = World::start();
    let mut stranger = ground.actor("bystander");
    for v6 in [false, true] {
        stranger.done(&Ask::Enter { cgroup: ground.cgroup.join("bystander") });
        stranger.done(&Ask::Prepare { v6 });
        stranger.done(&Ask::Enter { cgroup: ground.cgroup.join("job") });
        if lsm_is_on(&gateway.kernel) {
            assert_eq!(stranger.refused(&Ask::PassPrepared), libc::EPERM);
            let event = gateway.event(Reason::ForeignDescriptor);
            assert_eq!(event.job, Some(ground.id("job")));
        } else {
            println!("   the LSM tier is off: passing is not refused, and using it is");
            stranger.done(&Ask::PassPrepared);
            let to = addr(&far(RESOURCE)[usize::from(v6)]);
            assert_eq!(stranger.refused(&Ask::ConnectPrepared { to }), libc::EPERM);
        }
    }
    assert_eq!(ground.canary(), 0);
}

/// What is refused of others works within: unix sockets, descriptors, signals, a look at one's own processes.
fn a_jobs_own_doors_stay_open() {
    let World { ground, gateway: _gateway, job } = World::start();
    drop(job);
    for cgroup in ["job", "job/nested"] {
        for user in User::JOBS {
            ground.actor_as(cgroup, user).done(&Ask::Script(vec![Step::OwnDoors]));
        }
    }
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
