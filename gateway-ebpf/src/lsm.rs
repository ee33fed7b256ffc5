//! BPF LSM, below the attach root: what no cgroup hook sees. Optional: needs a kernel with `bpf` among its
//! security modules, and 6.0.
//!
//! socket_create: families beyond the internet's (packet, vsock, XDP, SMC, TIPC, RDS, RxRPC). bpf: a job loads
//! and attaches no programs.

use aya_ebpf::{macros::lsm_cgroup, programs::LsmContext};
use gateway_common::{Hook, Reason, decide};

use crate::{
    PASS, maps,
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
