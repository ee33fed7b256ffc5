//! The agent's own sandbox.
//!
//! [`enter`] holds for the whole process and comes before its first thread: it never runs another program, never
//! mounts, makes no namespace, loads no module, reads no other process's memory, and holds no capability that
//! enforcement does not need. [`confine_thread`] holds for the threads that read what jobs and servers send: they
//! write no file at all, run nothing, and reach no process outside. Threads share memory, so the second is a fence
//! against mistakes and confusions rather than against code that took over.

use std::collections::BTreeMap;

use anyhow::Context;
use landlock::{ABI, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError, Scope};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs},
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::{capabilities::bound, seccomp};

/// BPF, NET_ADMIN, PERFMON: programs, maps and links, also when the next policy comes. SYS_ADMIN: program ids of what
/// is attached, and a job's network namespace. SYS_RESOURCE: memory for maps on old kernels. SYS_PTRACE: a job's
/// namespaces under /proc. DAC_READ_SEARCH: credentials that belong to somebody else. NET_BIND_SERVICE: low ports.
const KEPT: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// Open files that the daemon wants: a session has two, and one for its recording.
const FILES: u64 = 65_536;

/// Puts the process, which has one thread, under its sandbox for good. The BPF file system must be mounted before.
///
/// # Errors
/// With the step that the kernel refused.
pub(crate) fn enter() -> anyhow::Result<()> {
    more_files()?;
    let filter = filter().context("seccomp")?;
    let held = capabilities(None).context("capabilities")?;
    // Not for root in a container that holds less: then there is less to take away.
    if held.effective.contains(CapabilitySet::SETPCAP) {
        bound(KEPT).context("capability bounding set")?;
    }
    let rest = held.permitted & KEPT;
    let sets = CapabilitySets { effective: rest, permitted: rest, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).context("capabilities")?;
    set_no_new_privs(true).context("no_new_privs")?;
    seccompiler::apply_filter(&seccomp::abi(seccomp::Clone3::Exists)).context("seccomp")?;
    seccompiler::apply_filter(&filter).context("seccomp")
}

/// Puts the calling thread and those that it starts under Landlock for good: no file is written, made, moved or
/// removed, none is run, and signals and abstract sockets stay inside. On kernels without Landlock, or with an older
/// one, it does what that can.
///
/// # Errors
/// When a kernel that knows Landlock refuses it.
pub(crate) fn confine_thread() -> Result<(), RulesetError> {
    let written = AccessFs::from_write(ABI::V5) | AccessFs::Execute;
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(written)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        .restrict_self()
        .map(drop)
}

fn more_files() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES, |most| most.min(FILES));
    if limit.current.is_some_and(|now| now < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })
            .context("limit of open files")?;
    }
    Ok(())
}

/// What a daemon that starts nothing and mounts nothing has no use for.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    // What jobs are refused, too, apart from what enforcement consists of.
    let kept = [libc::SYS_bpf, libc::SYS_setns, libc::SYS_perf_event_open];
    let mut calls: Vec<libc::c_long> = seccomp::REFUSED
        .iter()
        .chain(seccomp::REFUSED_HERE)
        .chain(seccomp::IO_URING)
        .chain(seccomp::PTRACE)
        .copied()
        .filter(|call| !kept.contains(call))
        .collect();
    calls.extend([libc::SYS_execve, libc::SYS_execveat, libc::SYS_unshare, libc::SYS_personality]);
    calls.extend([libc::SYS_setuid, libc::SYS_setresuid, libc::SYS_setreuid, libc::SYS_setgroups]);
    let rules: BTreeMap<i64, _> = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles() {
        assert!(filter().unwrap().len() > 100);
    }

    #[test]
    fn a_confined_thread_reads_and_does_not_write() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        std::fs::write(&old, "x").unwrap();
        let (read, written, run) = std::thread::scope(|scope| {
            let confined = scope.spawn(|| {
                confine_thread().unwrap();
                let run = std::process::Command::new("true").status();
                (std::fs::read_to_string(&old), std::fs::write(&new, "y"), run)
            });
            confined.join().unwrap()
        });
        assert_eq!(read.unwrap(), "x");
        match written {
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
                assert_eq!(run.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
            }
            Ok(()) => eprintln!("skipped: this kernel has no Landlock"),
        }
        std::fs::write(&new, "z").unwrap();
    }
}
