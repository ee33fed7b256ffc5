//! What the programs cost: the kernel's own count of runs and time, by hook.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use aya::{programs::loaded_programs, sys::Stats};
use gateway_common::Hook;

use super::{Error, bpffs, sys};

/// The kernel measures every BPF program of the host while this lives, which costs a little itself.
#[must_use = "measuring ends when this is dropped"]
pub struct Measuring {
    _enabled: OwnedFd,
}

/// Runs of one hook's program since it was loaded, as far as something was [`Measuring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    pub hook: Hook,
    pub runs: u64,
    pub time: Duration,
    /// Of the whole program, as the kernel translated it: the most that one run can execute, loops aside.
    pub instructions: u32,
}

/// Needs root. Linux 5.8.
pub fn measure() -> Result<Measuring, Error> {
    let enabled = aya::sys::enable_stats(Stats::RunTime)
        .map_err(|error| Error::System { what: "switching BPF statistics on", source: error.io_error })?;
    Ok(Measuring { _enabled: enabled })
}

/// Costs of the programs pinned in a directory, whoever loaded them.
pub fn costs(pin_dir: &Path) -> Result<Vec<Cost>, Error> {
    let mut hooks = BTreeMap::new();
    for hook in Hook::ALL {
        let path = bpffs::link_path(pin_dir, hook.name());
        let info = match sys::object_get(&path) {
            Ok(link) => sys::link_info(link.as_fd()),
            // Optional hooks may be off.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => Err(error),
        };
        let info = info.map_err(|source| Error::PinDir {
            path: pin_dir.to_owned(),
            step: "reading a link",
            source,
        })?;
        hooks.insert(info.program, *hook);
    }
    // One that is unloaded while the list is read is none of ours.
    let costs = loaded_programs().filter_map(Result::ok).filter_map(|program| {
        let hook = *hooks.get(&program.id())?;
        // Eight bytes each.
        let instructions = program.size_translated().unwrap_or(0) / 8;
        Some(Cost { hook, runs: program.run_count(), time: program.run_time(), instructions })
    });
    Ok(costs.collect())
}
