//! What `gateway-agent exec` makes of a job, seen from inside: real jobs, real kernel. Needs root.

mod agent;
mod ci;
mod files;
mod kernel;
mod lifecycle;
mod systemd;
mod users;

use serde_json::{Value, json};
use tests::{World, world::Builder};

/// A world whose jobs are as `exec` makes them unless told otherwise; only the world's own folder, which is in /tmp,
/// is shown to them.
fn world() -> World {
    builder().up()
}

fn builder() -> Builder {
    World::builder().configure("/jobs", json!({ "parent": "gateway-jobs", "show": ["@DIR@"] }))
}

/// What a Python program prints as JSON from inside a job.
#[track_caller]
fn inside(world: &World, program: &str) -> Value {
    let out = world.job(&[&world.python(), "-c", program]).run().ok();
    serde_json::from_str(out.text()).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// The same from outside, as root: what there is to be refused.
#[track_caller]
fn outside(world: &World, program: &str) -> Value {
    let out =
        tests::process::run(world.host.command(world.python()).args(["-c", program])).expect("python").ok();
    serde_json::from_str(out.text()).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// Waits for a condition, for as long as anything may take.
#[track_caller]
fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    match tests::process::wait_for(what, std::time::Duration::from_secs(30), ask) {
        Ok(answer) => answer,
        Err(error) => panic!("{error:#}"),
    }
}
