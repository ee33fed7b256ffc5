//! What a job may not ask of the kernel: the calls that would go around the cgroup hooks, or that reach other
//! processes and the host.
//!
//! Two filters. The first looks at the ABI alone: another calling convention than the native one would number
//! calls differently and pass the second by. The second names calls and arguments. Both hold for everything that
//! the job ever starts; seccomp(2), and Documentation/userspace-api/seccomp_filter.rst of the kernel.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};
use serde::{Deserialize, Serialize};

/// What of the optional rest a job is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// io_uring: its requests are made by the kernel, where this filter does not see the socket families.
    pub io_uring: bool,
    /// New namespaces.
    pub namespaces: bool,
    /// Looking into other processes.
    pub ptrace: bool,
}

impl Default for Refused {
    fn default() -> Self {
        Self { io_uring: true, namespaces: true, ptrace: true }
    }
}

/// The filters, compiled. Making them allocates; installing them does not fail for lack of anything but the
/// kernel's will.
#[derive(Debug)]
pub struct Filters {
    abi: BpfProgram,
    calls: BpfProgram,
}

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("seccomp: {0}")]
    Compile(#[from] seccompiler::BackendError),
    #[error("seccomp: {0}")]
    Install(#[from] seccompiler::Error),
}

impl Filters {
    /// Compiles them.
    ///
    /// # Errors
    /// When this architecture is not one that the filter knows.
    pub fn new(refused: Refused) -> Result<Self, FilterError> {
        let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
        let calls = SeccompFilter::new(
            rules(refused)?,
            SeccompAction::Allow,
            SeccompAction::Errno(libc::EPERM.unsigned_abs()),
            architecture,
        )?;
        let clone3 = if refused.namespaces { Clone3::Hidden } else { Clone3::Exists };
        Ok(Self { abi: abi(clone3), calls: BpfProgram::try_from(calls)? })
    }

    /// Puts the calling thread and all that it starts under them, for good. Wants no_new_privs.
    ///
    /// # Errors
    /// When the kernel has no seccomp filters.
    pub fn install(&self) -> Result<(), FilterError> {
        seccompiler::apply_filter(&self.abi)?;
        seccompiler::apply_filter(&self.calls)?;
        Ok(())
    }
}

/// The last call that the lists below were checked against (Linux 6.18: file_setattr). What newer kernels add does
/// not exist for jobs: ENOSYS, which programs take as an old kernel.
const NEWEST: u32 = 469;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

/// Whether there is clone3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clone3 {
    Exists,
    Hidden,
}

/// Another architecture's calls kill the process, as x86's 32-bit ones on a 64-bit kernel; x32 has its own numbers
/// on the same architecture, all beyond the newest, and does not exist. clone3 hides its flags in memory: where
/// new namespaces are refused, it does not exist either, and libc falls back to clone.
pub(super) fn abi(clone3: Clone3) -> BpfProgram {
    // linux/filter.h and the layout of struct seccomp_data.
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    const KILL_PROCESS: u32 = 0x8000_0000;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let clone3 = match clone3 {
        Clone3::Hidden => call(libc::SYS_clone3),
        Clone3::Exists => u32::MAX,
    };
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        step(LOAD, 0, 0, ARCHITECTURE),
        step(EQUAL, 1, 0, AUDIT_ARCH),
        step(RETURN, 0, 0, KILL_PROCESS),
        step(LOAD, 0, 0, NUMBER),
        step(GREATER, 2, 0, NEWEST),
        step(EQUAL, 1, 0, clone3),
        step(RETURN, 0, 0, ALLOW),
        step(RETURN, 0, 0, ERRNO | libc::ENOSYS.unsigned_abs()),
    ]
}

fn call(number: libc::c_long) -> u32 {
    // Call numbers are small and positive.
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Calls that no job has a use for and that need no argument to be told.
pub(super) const REFUSED: &[libc::c_long] = &[
    // Kernel programs, probes, and faults handled in user space.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    // The host.
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_nfsservctl,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // Mounts, and files by handle, which no mount hides.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_pivot_root,
    libc::SYS_umount2,
    // Namespaces of others.
    libc::SYS_setns,
    // Keys are shared by user and session, not by job.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
];

/// Linux 6.15, on every architecture.
const OPEN_TREE_ATTR: libc::c_long = 467;

#[cfg(target_arch = "x86_64")]
pub(super) const REFUSED_HERE: &[libc::c_long] =
    &[libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_uselib, libc::SYS_ustat];
#[cfg(target_arch = "aarch64")]
pub(super) const REFUSED_HERE: &[libc::c_long] = &[];

pub(super) const IO_URING: &[libc::c_long] =
    &[libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_io_uring_setup];

pub(super) const PTRACE: &[libc::c_long] = &[
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
];

/// Those that make a namespace, `CLONE_NEW*` of linux/sched.h. Of clone(2) the low byte is the exit signal, so the
/// one for time is unshare's alone.
const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];
const CLONE_NEWTIME: libc::c_int = 0x80;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules(refused: Refused) -> Result<Rules, FilterError> {
    let mut rules: Rules = REFUSED.iter().chain(REFUSED_HERE).map(|call| (*call, Vec::new())).collect();
    if refused.io_uring {
        rules.extend(IO_URING.iter().map(|call| (*call, Vec::new())));
    }
    if refused.ptrace {
        rules.extend(PTRACE.iter().map(|call| (*call, Vec::new())));
    }
    if refused.namespaces {
        let has = |flag: &libc::c_int| {
            let flag = u64::from(flag.unsigned_abs());
            SeccompRule::new(vec![Condition::new(0, Len::Dword, Op::MaskedEq(flag), flag)?])
        };
        let any: Vec<SeccompRule> = NAMESPACES.iter().map(has).collect::<Result<_, _>>()?;
        rules.insert(libc::SYS_clone, any.clone());
        let mut unshare = any;
        unshare.push(has(&CLONE_NEWTIME)?);
        rules.insert(libc::SYS_unshare, unshare);
    }
    rules.insert(libc::SYS_socket, sockets()?);
    rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(vec![family(Op::Ne, libc::AF_UNIX)?])?]);
    // Typing into the terminal that the job shares with whoever started it.
    let types_ahead = [libc::TIOCSTI, libc::TIOCLINUX]
        .into_iter()
        .map(|request| SeccompRule::new(vec![Condition::new(1, Len::Dword, Op::Eq, request)?]));
    rules.insert(libc::SYS_ioctl, types_ahead.collect::<Result<_, _>>()?);
    Ok(rules)
}

/// Unix, IPv4 and IPv6 sockets, and routing netlink, by which libc asks for addresses. The other families pass no
/// cgroup address hook, or drive the kernel; so do raw sockets of the internet families and the ancient way to
/// ask for a packet socket through them.
fn sockets() -> Result<Vec<SeccompRule>, FilterError> {
    const TYPE: u64 = 0xf;
    const SOCK_PACKET: u64 = 10;
    const NETLINK_ROUTE: u64 = 0;
    let known = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let unknown = known.into_iter().map(|known| family(Op::Ne, known)).collect::<Result<Vec<_>, _>>()?;
    let mut rules = vec![SeccompRule::new(unknown)?];
    rules.push(SeccompRule::new(vec![
        family(Op::Eq, libc::AF_NETLINK)?,
        Condition::new(2, Len::Dword, Op::Ne, NETLINK_ROUTE)?,
    ])?);
    for internet in [libc::AF_INET, libc::AF_INET6] {
        for raw in [u64::from(libc::SOCK_RAW.unsigned_abs()), SOCK_PACKET] {
            rules.push(SeccompRule::new(vec![
                family(Op::Eq, internet)?,
                Condition::new(1, Len::Dword, Op::MaskedEq(TYPE), raw)?,
            ])?);
        }
    }
    Ok(rules)
}

fn family(op: Op, family: libc::c_int) -> Result<Condition, seccompiler::BackendError> {
    // The kernel looks at 32 bits of an int argument, whatever the register holds above.
    Condition::new(0, Len::Dword, op, u64::from(family.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_filters_compile_whatever_is_allowed() {
        for refused in [
            Refused::default(),
            Refused { io_uring: false, namespaces: false, ptrace: false },
            Refused { namespaces: false, ..Refused::default() },
        ] {
            let filters = Filters::new(refused).unwrap();
            assert!(filters.calls.len() > 100, "{}", filters.calls.len());
        }
    }

    #[test]
    fn what_is_allowed_is_not_in_the_rules() {
        let all = rules(Refused::default()).unwrap();
        let fewer = rules(Refused { io_uring: false, namespaces: false, ptrace: false }).unwrap();
        for optional in [libc::SYS_io_uring_setup, libc::SYS_ptrace, libc::SYS_unshare, libc::SYS_clone] {
            assert!(all.contains_key(&optional) && !fewer.contains_key(&optional), "{optional}");
        }
        assert!(fewer.contains_key(&libc::SYS_bpf) && fewer.contains_key(&libc::SYS_setns));
    }

    #[test]
    fn every_refused_call_is_one_that_the_first_filter_lets_through() {
        let newest = i64::from(NEWEST);
        assert!(rules(Refused::default()).unwrap().keys().all(|call| (0..=newest).contains(call)));
    }
}
