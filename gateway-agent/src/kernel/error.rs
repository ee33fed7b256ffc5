//! What can go wrong between the agent and the kernel, and what to do about it.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use gateway_common::Hook;

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

    #[error("mandatory hook {} cannot be loaded: {source}; Linux 5.15 or newer has it", hook.name())]
    Program { hook: Hook, source: ProgramError },

    #[error("mandatory hook {} cannot be attached: {step} failed: {source}", hook.name())]
    Attach { hook: Hook, step: &'static str, source: io::Error },

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
