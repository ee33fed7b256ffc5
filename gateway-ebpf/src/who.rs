//! Whose process or packet it is.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_skb_ancestor_cgroup_id},
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
    // SAFETY: any level may be asked; one that does not exist is 0.
    walk(config, |level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })
}

/// The socket that a packet belongs to, also in softirq, where the current process is anybody.
///
/// # Safety
/// `skb` is the program's context.
#[inline(always)]
pub unsafe fn of_packet(skb: *mut __sk_buff, config: &Config) -> Who {
    // SAFETY: the caller's promise.
    walk(config, |level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) })
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
