//! The ways around, by theme.

mod address;
mod closed;
mod datagram;
mod gateway;
mod host;
mod inbound;
mod lifecycle;
mod namespace;
mod option;
mod outside;
mod protocol;
mod quota;
mod steps;
mod watch;

use std::path::PathBuf;

use crate::{
    attempt::Attempt,
    ground::{FAR_V4, FAR_V6},
    scenario::Scenario,
};

/// Where things are in the world that an attempt runs in.
pub(crate) struct Place {
    /// The attach root.
    pub(crate) cgroup: PathBuf,
    pub(crate) pin_dir: PathBuf,
    /// The file of the far network namespace.
    pub(crate) far: PathBuf,
    /// A daemon's unix sockets, outside of the job.
    pub(crate) stream: PathBuf,
    pub(crate) datagram: PathBuf,
    /// Processes outside of the job: of its user, and of root as a container gives it.
    pub(crate) neighbours: [u32; 2],
}

/// A declared resource, on both addresses of the far end.
pub(crate) const RESOURCE: u16 = 5432;

/// Nothing there is declared, and it is behind the default route.
pub(crate) const BEYOND_V4: &str = "203.0.113.9";
pub(crate) const BEYOND_V6: &str = "2001:db8:99::9";

pub(crate) fn attempts(place: &Place) -> Vec<Attempt> {
    let mut all = address::attempts();
    all.extend(option::attempts());
    all.extend(protocol::attempts());
    all.extend(datagram::attempts());
    all.extend(namespace::attempts(place));
    all.extend(gateway::attempts());
    all.extend(host::attempts(place));
    all
}

pub(crate) fn scenarios() -> Vec<Scenario> {
    [
        address::SCENARIOS,
        closed::SCENARIOS,
        datagram::SCENARIOS,
        gateway::SCENARIOS,
        host::SCENARIOS,
        inbound::SCENARIOS,
        lifecycle::SCENARIOS,
        namespace::SCENARIOS,
        outside::SCENARIOS,
        quota::SCENARIOS,
        watch::SCENARIOS,
    ]
    .concat()
}

/// Both far ends with this port.
pub(crate) fn far(port: u16) -> [String; 2] {
    [format!("{FAR_V4}:{port}"), format!("[{FAR_V6}]:{port}")]
}
