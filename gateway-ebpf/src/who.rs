//! Whose process or packet it is.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_skb_ancestor_cgroup_id,
        bpf_skb_cgroup_id,
    },
};
use gateway_common::{Config, limits::MAX_DEPTH};

use crate::maps;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Neither a job nor the gateway.
    Nobody,
    Gateway,
    /// The outermost enrolled ancestor.
    Job(u64),
}

/// The current process. Only in hooks that run in the caller's context.
#[inline(always)]
pub fn current(config: &Config) -> Who {
    // SAFETY: no arguments.
    let leaf = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: any level may be asked; one that does not exist is 0.
    find(config, leaf, |level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })
}

/// The socket that a packet belongs to, also in softirq, where the current process is anybody.
///
/// # Safety
/// `skb` is the program's context.
#[inline(always)]
pub unsafe fn of_packet(skb: *mut __sk_buff, config: &Config) -> Who {
    // SAFETY: the caller's promise.
    let leaf = unsafe { bpf_skb_cgroup_id(skb) };
    // SAFETY: the caller's promise.
    find(config, leaf, |level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) })
}

/// Answers from memory, or walks and remembers.
#[inline(always)]
fn find(config: &Config, leaf: u64, id_at: impl Fn(i32) -> u64) -> Who {
    // Before the walk: what changes meanwhile must not be remembered as newer than it is.
    // SAFETY: a field of a map value; volatile, because the agent writes it.
    let generation = unsafe { core::ptr::read_volatile(&raw const config.generation) };
    match maps::kin(config, leaf) {
        Some((0, false)) => return Who::Nobody,
        Some((0, true)) => return Who::Gateway,
        Some((job, _)) => return Who::Job(job),
        None => {}
    }
    let who = walk(config, id_at);
    // A packet without a socket has no cgroup.
    if leaf != 0 {
        let (job, gateway) = match who {
            Who::Job(job) => (job, false),
            Who::Gateway => (0, true),
            Who::Nobody => (0, false),
        };
        maps::remember(generation, leaf, job, gateway);
    }
    who
}

/// From the attach root inwards, so that nesting below a job never hides it.
#[inline(always)]
fn walk(config: &Config, id_at: impl Fn(i32) -> u64) -> Who {
    let root = config.root_level;
    let mut who = Who::Nobody;
    for step in 1..=MAX_DEPTH {
        let id = id_at(root.wrapping_add(step) as i32);
        if id == 0 {
            break;
        }
        if maps::is_job(id) {
            return Who::Job(id);
        }
        if id == config.gateway {
            who = Who::Gateway;
        }
    }
    who
}
