//! setsockopt: a job sets no option that steers packets around the gateway.

use core::ptr;

use aya_ebpf::{macros::cgroup_sockopt, programs::SockoptContext};
use gateway_common::{Hook, Reason, decide};

use crate::{
    PASS, maps,
    report::{self, Facts},
    who::{self, Who},
};

/// The kernel copies at most this much of an option's value for the program.
const PAGE: i32 = 4096;

#[cgroup_sockopt(setsockopt)]
pub fn setsockopt(ctx: SockoptContext) -> i32 {
    let raw = ctx.sockopt;
    // SAFETY: fields of the context.
    let (level, name, len) = unsafe {
        (
            ptr::read_volatile(&raw const (*raw).level),
            ptr::read_volatile(&raw const (*raw).optname),
            ptr::read_volatile(&raw const (*raw).optlen),
        )
    };
    if len > PAGE {
        // Zero means: the value was not looked at, take the caller's own. Anything else fails the call.
        // SAFETY: writable field of the context.
        unsafe { ptr::write_volatile(&raw mut (*raw).optlen, 0) };
    }
    if decide::socket_option(level, name) {
        return PASS;
    }
    // Nearly every call ends above; who it is matters only for the rest.
    let mut facts = Facts { kind: level as u32, detail: name as u32, ..Facts::new(Hook::Setsockopt) };
    let reason = match maps::config() {
        Some(config) => {
            // SAFETY: the socket of this context; the stamp comes from a lookup that did not miss.
            let born =
                unsafe { maps::stamp((*raw).__bindgen_anon_1.sk).map_or(0, |stamp| (*stamp.as_ptr()).job) };
            facts.job = match who::current(config) {
                Who::Job(job) => job,
                Who::Nobody | Who::Gateway if born != 0 => born,
                Who::Nobody | Who::Gateway => return PASS,
            };
            Reason::SocketOption
        }
        None => Reason::NotConfigured,
    };
    report::deny(&facts, reason)
}
