//! BPF LSM, below the attach root: what no cgroup hook sees. Optional: needs a kernel with `bpf` among its
//! security modules, and 6.0.
//!
//! socket_create: families beyond the internet's (packet, vsock, XDP, SMC, TIPC, RDS, RxRPC). bpf: a job loads
//! and attaches no programs. The others close the host's local doors: unix sockets, descriptors and processes of
//! anybody who is not of the job.

use core::ffi::c_void;

use aya_ebpf::{helpers::generated::bpf_sock_from_file, macros::lsm_cgroup, programs::LsmContext};
use gateway_common::{
    Config, Hook, Reason,
    decide::{self, AF_UNIX},
};

use crate::{
    PASS,
    inside::{self, address},
    maps,
    report::{self, Facts},
    who::{self, Who},
};

#[lsm_cgroup(hook = "socket_create")]
pub fn socket_create(ctx: LsmContext) -> i32 {
    let family: u32 = ctx.arg(0);
    let kind: u32 = ctx.arg(1);
    let protocol: u32 = ctx.arg(2);
    let kernel: u32 = ctx.arg(3);
    if kernel != 0 || decide::socket_family(family, protocol) {
        return PASS;
    }
    let mut facts = Facts {
        family: family as u8,
        protocol: protocol as u8,
        kind,
        detail: protocol,
        ..Facts::new(Hook::SocketCreate)
    };
    let reason = match maps::config() {
        Some(config) => {
            let Who::Job(job) = who::current(config) else { return PASS };
            facts.job = job;
            Reason::SocketKind
        }
        None => Reason::NotConfigured,
    };
    report::deny(&facts, reason)
}

#[lsm_cgroup(hook = "bpf")]
pub fn bpf(ctx: LsmContext) -> i32 {
    let command: u32 = ctx.arg(0);
    let mut facts = Facts { detail: command, ..Facts::new(Hook::Bpf) };
    let reason = match maps::config() {
        Some(config) => {
            let Who::Job(job) = who::current(config) else { return PASS };
            facts.job = job;
            Reason::BpfCall
        }
        // The agent itself makes calls before there are settings.
        None => return PASS,
    };
    report::deny(&facts, reason)
}

/// What a job asks of a socket, process or descriptor that is not its own. Everybody else may.
#[inline(always)]
fn judge(hook: Hook, reason: Reason, quietly: bool, allowed: impl Fn(&Config, u64) -> bool) -> i32 {
    let mut facts = Facts::new(hook);
    let Some(config) = maps::config() else { return report::deny(&facts, Reason::NotConfigured) };
    let Who::Job(job) = who::current(config) else { return PASS };
    if allowed(config, job) {
        return PASS;
    }
    if quietly {
        return report::deny_quietly(reason);
    }
    facts.job = job;
    report::deny(&facts, reason)
}

/// A job connects to its own unix sockets and to the gateway's control socket. Whatever else listens on the host
/// (container engines, D-Bus, agents that hold keys, databases) would act outside of the job.
#[lsm_cgroup(hook = "unix_stream_connect")]
pub fn unix_stream_connect(ctx: LsmContext) -> i32 {
    let other = address(ctx.arg::<*const c_void>(1));
    judge(Hook::UnixStreamConnect, Reason::UnixSocket, false, |config, job| {
        let whose = inside::of_sock(config, other);
        whose == Who::Gateway || whose == Who::Job(job)
    })
}

/// The same for datagrams, unless the sending socket was made and handed over by somebody outside.
#[lsm_cgroup(hook = "unix_may_send")]
pub fn unix_may_send(ctx: LsmContext) -> i32 {
    let (own, other) = (address(ctx.arg::<*const c_void>(0)), address(ctx.arg::<*const c_void>(1)));
    judge(Hook::UnixMaySend, Reason::UnixSocket, false, |config, job| {
        let (own, other) = (inside::sock(own), inside::sock(other));
        is(config, other, job) || !is(config, own, job)
    })
}

#[inline(always)]
fn is(config: &Config, sock: u64, job: u64) -> bool {
    inside::of_sock(config, sock) == Who::Job(job)
}

/// A descriptor by SCM_RIGHTS or pidfd_getfd. A job receives no network socket but its own: one that was connected
/// outside passes no hook any more.
#[lsm_cgroup(hook = "file_receive")]
pub fn file_receive(ctx: LsmContext) -> i32 {
    let file = ctx.arg::<*const c_void>(0);
    // SAFETY: the hook's own argument; null for what is no socket.
    let socket = unsafe { bpf_sock_from_file(file.cast_mut().cast()) };
    if socket.is_null() {
        return PASS;
    }
    let sock = inside::sock(address(socket.cast_const()));
    judge(Hook::FileReceive, Reason::ForeignDescriptor, false, |config, job| {
        u32::from(inside::family(sock)) == AF_UNIX || is(config, sock, job)
    })
}

/// PTRACE_MODE_NOAUDIT: whether a process may look is asked for itself, as by `ps` of every process there is.
const NOAUDIT: u32 = 0x04;

/// ptrace, pidfd_getfd, process_vm_readv and what /proc shows of a process's inside.
#[lsm_cgroup(hook = "ptrace_access_check")]
pub fn ptrace_access_check(ctx: LsmContext) -> i32 {
    let task = address(ctx.arg::<*const c_void>(0));
    let mode: u32 = ctx.arg(1);
    judge(Hook::PtraceAccessCheck, Reason::ForeignProcess, mode & NOAUDIT != 0, |config, job| {
        inside::of_task(config, task) == Who::Job(job)
    })
}

/// kill(2) and its relatives.
#[lsm_cgroup(hook = "task_kill")]
pub fn task_kill(ctx: LsmContext) -> i32 {
    // Sent in somebody else's name, by an interrupt: the current process is anybody.
    // As a number: to the verifier an argument is never null.
    if address(ctx.arg::<*const c_void>(3)) != 0 {
        return PASS;
    }
    let task = address(ctx.arg::<*const c_void>(0));
    judge(Hook::TaskKill, Reason::ForeignProcess, false, |config, job| {
        inside::of_task(config, task) == Who::Job(job)
    })
}
