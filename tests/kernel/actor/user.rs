//! Who an actor is.
//!
//! | name | is |
//! |---|---|
//! | `root` | root with everything, for what is not a job |
//! | `contained` | root as a container gives it: without what reaches beyond its cgroup and namespaces |
//! | `plain` | uid 1000 without capabilities |

use std::io;

use rustix::{
    process::{Gid, Uid},
    thread::{self, CapabilitySet, CapabilitySets},
};

/// What root in a job's cgroup does not have: the initial namespaces, the kernel's memory and code, the memory
/// of other processes.
const WITHHELD: [CapabilitySet; 8] = [
    CapabilitySet::SYS_ADMIN,
    CapabilitySet::BPF,
    CapabilitySet::PERFMON,
    CapabilitySet::SYS_MODULE,
    CapabilitySet::SYS_RAWIO,
    CapabilitySet::SYS_PTRACE,
    CapabilitySet::SYS_BOOT,
    CapabilitySet::MAC_ADMIN,
];

pub(crate) fn become_user(name: &str) -> io::Result<()> {
    match name {
        "root" => Ok(()),
        "contained" => {
            let withheld = WITHHELD.into_iter().fold(CapabilitySet::empty(), CapabilitySet::union);
            for capability in WITHHELD {
                thread::remove_capability_from_bounding_set(capability)?;
            }
            let now = thread::capabilities(None)?;
            thread::set_capabilities(
                None,
                CapabilitySets {
                    effective: now.effective.difference(withheld),
                    permitted: now.permitted.difference(withheld),
                    inheritable: CapabilitySet::empty(),
                },
            )?;
            Ok(())
        }
        "plain" => {
            thread::set_thread_groups(&[])?;
            thread::set_thread_res_gid(Gid::from_raw(1000), Gid::from_raw(1000), Gid::from_raw(1000))?;
            thread::set_thread_res_uid(Uid::from_raw(1000), Uid::from_raw(1000), Uid::from_raw(1000))?;
            // As exec would leave it; without this, nobody of the same user could trace the process.
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?;
            Ok(())
        }
        other => Err(io::Error::other(format!("{other} is nobody"))),
    }
}
