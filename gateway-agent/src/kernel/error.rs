//! What can go wrong between the agent and the kernel, and what to do about it.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} cannot be used as the attach root: {source}; it must be a directory of a cgroup2 mount", path.display())]
    Root { path: PathBuf, source: io::Error },

    #[error("no cgroup2 file system is mounted; mount one, or name it in `kernel.cgroup_root`")]
    NoCgroup2,

    #[error("pin directory {}: {step} failed: {source}", path.display())]
    PinDir { path: PathBuf, step: &'static str, source: io::Error },

    #[error(
        "pin directory {} is open to others (mode {mode:o}, owner {owner}): it must be 0700 and belong to root",
        path.display()
    )]
    PinDirOpen { path: PathBuf, mode: u32, owner: u32 },

    #[error(
        "the maps in {} were made by another version (layout {found}, this is {expected}): stop all jobs, then run `gateway-agent uninstall` and start again",
        path.display()
    )]
    Layout { path: PathBuf, found: u32, expected: u32 },

    #[error("loading the kernel programs failed: {0}")]
    Load(#[from] EbpfError),

    #[error(
        "pinned map {name} in {} has another shape than this version's ({found}): stop all jobs, then run `gateway-agent uninstall` and start again",
        path.display()
    )]
    MapShape { path: PathBuf, name: &'static str, found: String },

    #[error("{}", missing(.0))]
    Missing(Vec<Missing>),

    #[error("hook sk_lookup in a job's network namespace: {0}")]
    Elsewhere(String),

    #[error("kernel map {name} is missing from the program object")]
    NoMap { name: &'static str },

    #[error("kernel map {name}: {source}")]
    Map { name: &'static str, source: MapError },

    #[error("kernel map {name}: {source}")]
    MapSyscall { name: &'static str, source: io::Error },

    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },

    #[error("{} cannot be a job: {reason}", path.display())]
    Job { path: PathBuf, reason: String },

    #[error("the destinations need {count} entries, and the kernel map holds {limit}")]
    TooManyDestinations { count: usize, limit: u32 },
}

/// Something mandatory that this kernel does not give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// A hook, or a feature of the kernel.
    pub what: &'static str,
    /// The first Linux that has it.
    pub since: &'static str,
    pub why: String,
}

fn missing(all: &[Missing]) -> String {
    let mut text = "this kernel lacks what enforcement needs, so `mode: enforce` does not start:".to_owned();
    for Missing { what, since, why } in all {
        text.push_str(&format!("\n  {what} (Linux {since}): {why}"));
    }
    text.push_str(
        "\n  hint: Linux 6.1 or newer has all of it; `kernel: { mode: observe }` starts without, and refuses nothing",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_hook_is_named_with_its_kernel() {
        let missing = |what, since| Missing { what, since, why: "not here".into() };
        let text = Error::Missing(vec![missing("connect4", "5.8"), missing("sk_lookup", "5.9")]).to_string();
        for says in ["connect4 (Linux 5.8): not here", "sk_lookup (Linux 5.9)", "6.1", "mode: observe"] {
            assert!(text.contains(says), "{text}");
        }
    }
}
