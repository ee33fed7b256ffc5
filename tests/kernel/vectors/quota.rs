//! Floods: what is full refuses, and forgets nobody.

use gateway_agent::kernel::Reason;

use super::{RESOURCE, far, steps::addr};
use crate::{
    ask::{Answer, Ask},
    ground::{Gateway, Ground, World, declared},
    scenario::{Scenario, scenarios},
};

pub(super) const SCENARIOS: &[Scenario] = scenarios![
    [45] a_job_has_a_quota_of_open_flows,
    [45] one_jobs_flood_is_not_anothers,
];

fn a_job_has_a_quota_of_open_flows() {
    let ground = Ground::new();
    let mut gateway =
        Gateway::start_with(&ground, gateway_agent::kernel::Config { flows_per_job: 3, ..ground.config() });
    gateway.kernel.replace_destinations(&declared()).unwrap();
    gateway.kernel.add_job(ground.id("job")).unwrap();
    let mut job = ground.actor("job");
    let to = far(RESOURCE)[0].clone();
    for round in 0..4 {
        if round == 3 {
            // Enrolled anew over open sockets: their end must not count against the new count.
            job.connect(&to);
            gateway.flow().unwrap();
            gateway.kernel.remove_job(ground.id("job")).unwrap();
            gateway.kernel.add_job(ground.id("job")).unwrap();
            job.ask(&Ask::CloseAll);
            job.connect(&to);
            gateway.flow().unwrap();
            return;
        }
        for _ in 0..3 {
            job.connect(&to);
            gateway.flow().unwrap();
        }
        assert_eq!(job.refused(&Ask::Connect { to: addr(&to) }), libc::EPERM, "round {round}");
        gateway.event(Reason::Quota);
        job.ask(&Ask::CloseAll);
    }
}

/// A job that opens until it is refused takes nothing from its neighbour: no record is evicted.
fn one_jobs_flood_is_not_anothers() {
    let World { ground, mut gateway, mut job } = World::start();
    gateway.kernel.add_job(ground.id("other")).unwrap();
    let mut victim = ground.actor("other");
    let to = addr(&far(RESOURCE)[0]);
    // The victim's record waits while the flood runs.
    gateway.stop_identifying();
    victim.done(&Ask::Connect { to });
    let mut opened = 0;
    loop {
        match job.ask(&Ask::Connect { to }) {
            Answer::Done { .. } => opened += 1,
            Answer::Failed { errno, .. } => {
                assert_eq!(errno, libc::EPERM, "after {opened}");
                break;
            }
            other => panic!("{other:?}"),
        }
        assert!(opened <= 1000 + 8, "no quota ends the flood");
    }
    gateway.event(Reason::Quota);
    let origins =
        gateway.kernel.status().unwrap().maps.into_iter().find(|map| map.name == "ORIGINS").unwrap();
    assert_eq!(origins.used, opened + 1, "every record is still there, the victim's among them");
    victim.done(&Ask::Connect { to });
    assert_eq!(ground.canary(), 0);
}
