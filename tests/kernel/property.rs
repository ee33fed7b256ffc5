//! Random socket calls by both users: nothing reaches the far end, whatever they are.

use std::time::{Duration, Instant};

use crate::{
    ask::{Answer, Ask},
    ground::{Gateway, Ground, User, resources_only},
    matrix::lsm_is_on,
};

/// What was seen, or what leaked.
pub(crate) fn run(time: Duration, seed: u64) -> Result<String, String> {
    let ground = Ground::new();
    let gateway = Gateway::start(&ground);
    gateway.kernel.replace_destinations(&resources_only()).unwrap();
    gateway.kernel.add_job(ground.id("job")).unwrap();
    let raw = lsm_is_on(&gateway.kernel);
    let mut actors = User::JOBS.map(|user| (user, ground.actor_as("job", user)));
    let (mut calls, mut refused) = (0, 0);
    let deadline = Instant::now() + time;
    let mut round = 0_u64;
    while Instant::now() < deadline {
        for (user, actor) in &mut actors {
            let seed = seed.wrapping_add(round);
            round += 1;
            let Answer::Called { calls: made, refused: denied } =
                actor.ask(&Ask::Random { seed, millis: 250, raw: raw || *user == User::Plain })
            else {
                return Err("the actor lost its way".into());
            };
            calls += made;
            refused += denied;
            let arrived = ground.canary();
            if arrived > 0 {
                return Err(format!(
                    "{arrived} packets reached the far end: --seed {seed} as {} repeats the calls",
                    user.name()
                ));
            }
        }
        while gateway.try_flow().is_ok() {}
    }
    if refused == 0 {
        return Err(format!("{calls} calls and nothing was refused: are they random?"));
    }
    Ok(format!("{calls} random calls, {refused} of them refused, 0 packets (--seed {seed})"))
}
