//! sock_create: a job's internet sockets are TCP or UDP, and stamped with the job. sock_release: what was
//! remembered about the socket goes with it.
//!
//! These hooks run for AF_INET and AF_INET6 only; see `lsm` for every other family.

use core::ptr;

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock,
    helpers::generated::{bpf_get_current_cgroup_id, bpf_get_socket_cookie},
    macros::cgroup_sock,
    programs::SockContext,
};
use gateway_common::{Hook, Reason, decide};

use crate::{
    PASS, maps,
    report::{self, Facts},
    who::{self, Who},
};

#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    let sock = ctx.sock;
    // SAFETY: fields of the context; volatile, because the verifier wants them read one by one.
    let (family, kind, protocol) = unsafe {
        (
            ptr::read_volatile(&raw const (*sock).family),
            ptr::read_volatile(&raw const (*sock).type_),
            ptr::read_volatile(&raw const (*sock).protocol),
        )
    };
    let mut facts = Facts {
        family: family as u8,
        protocol: protocol as u8,
        kind,
        detail: protocol,
        ..Facts::new(Hook::SockCreate)
    };
    match admit(sock, &mut facts) {
        Ok(()) => PASS,
        Err(reason) => report::deny(&facts, reason),
    }
}

#[inline(always)]
fn admit(sock: *mut bpf_sock, facts: &mut Facts) -> Result<(), Reason> {
    let config = maps::config().ok_or(Reason::NotConfigured)?;
    let Who::Job(job) = who::current(config) else { return Ok(()) };
    facts.job = job;
    if !decide::inet_socket(facts.family as u32, facts.kind, facts.detail) {
        return Err(Reason::SocketKind);
    }
    // SAFETY: no arguments; and the socket is the context.
    let stamped = unsafe { maps::stamp_new(sock, job, bpf_get_current_cgroup_id()) };
    if stamped { Ok(()) } else { Err(Reason::OriginFull) }
}

#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    // SAFETY: the socket is the context.
    let Some(stamp) = (unsafe { maps::stamp(ctx.sock) }) else { return PASS };
    // SAFETY: the pointer comes from a lookup that did not miss.
    let (job, counted) = unsafe { ((*stamp.as_ptr()).job, (*stamp.as_ptr()).counted) };
    if counted == 1 {
        // SAFETY: as above; a second release must not count again.
        unsafe { (*stamp.as_ptr()).counted = 0 };
        maps::release(job);
        // SAFETY: the argument is the context.
        let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
        // Usually taken by the agent already.
        let _ = maps::ORIGINS.remove(&cookie);
    }
    PASS
}
