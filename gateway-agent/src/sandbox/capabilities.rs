//! Capabilities of a job: none, or a few that reach nothing but files and processes.

use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, clear_ambient_capability_set, configure_capability_in_ambient_set,
        remove_capability_from_bounding_set, set_capabilities,
    },
};

/// Those that a job may keep, by their names. What loads code into the kernel, configures the network, reads
/// other processes or other users' files by handle, or makes device nodes is not among them.
pub const KEEPABLE: &[(&str, CapabilitySet)] = &[
    ("CHOWN", CapabilitySet::CHOWN),
    ("DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
    ("FOWNER", CapabilitySet::FOWNER),
    ("FSETID", CapabilitySet::FSETID),
    ("IPC_LOCK", CapabilitySet::IPC_LOCK),
    ("KILL", CapabilitySet::KILL),
    ("NET_BIND_SERVICE", CapabilitySet::NET_BIND_SERVICE),
    ("SETGID", CapabilitySet::SETGID),
    ("SETUID", CapabilitySet::SETUID),
    ("SYS_NICE", CapabilitySet::SYS_NICE),
];

/// The capability of that name, with or without `CAP_`, if a job may keep it.
#[must_use]
pub fn keepable(name: &str) -> Option<CapabilitySet> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    KEEPABLE.iter().find(|(known, _)| *known == name).map(|(_, set)| *set)
}

/// Empties the bounding set down to `keep`: no program, whatever its file says, gives back what is gone.
pub(crate) fn bound(keep: CapabilitySet) -> Result<(), Errno> {
    for one in CapabilitySet::all().difference(keep).iter() {
        match remove_capability_from_bounding_set(one) {
            // Unknown to this kernel.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Holds `keep` and nothing else from here on, across execve(2) too.
pub(crate) fn hold(keep: CapabilitySet) -> Result<(), Errno> {
    clear_ambient_capability_set()?;
    set_capabilities(None, CapabilitySets { effective: keep, permitted: keep, inheritable: keep })?;
    for one in keep.iter() {
        configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_people_write_them() {
        assert_eq!(keepable("CAP_CHOWN"), Some(CapabilitySet::CHOWN));
        assert_eq!(keepable("net_bind_service"), Some(CapabilitySet::NET_BIND_SERVICE));
        for never in ["SYS_ADMIN", "NET_RAW", "NET_ADMIN", "BPF", "SYS_PTRACE", "PERFMON", "MKNOD", "SETPCAP"]
        {
            assert_eq!(keepable(never), None, "{never}");
        }
    }
}
