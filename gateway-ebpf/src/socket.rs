//! sock_create: a job's internet sockets are TCP or UDP, and stamped with the job. sock_release: what was
//! remembered about the socket goes with it, unless its connection can still be accepted.
//!
//! These hooks run for AF_INET and AF_INET6 only; see `lsm` for every other family.

use core::ptr::{self, NonNull};

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock,
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_get_socket_cookie},
    },
    macros::cgroup_sock,
    programs::SockContext,
};
use gateway_common::{Ends, Hook, Reason, Released, Stamp, decide};

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
        // SAFETY: the argument is the context.
        let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
        maps::release(job);
        if outlived(&ctx, stamp, cookie) {
            maps::count(Reason::ClosedEarly);
            return PASS;
        }
        // Usually taken by the agent already.
        let _ = maps::ORIGINS.remove(&cookie);
    }
    PASS
}

/// A client may write, close and be gone before the agent accepts: tokio-postgres cancels like that. Its words
/// wait in the connection, so what the connect hook noted has to wait too.
#[inline(always)]
fn outlived(ctx: &SockContext, stamp: NonNull<Stamp>, cookie: u64) -> bool {
    let sock = ctx.sock;
    let stamp = stamp.as_ptr();
    // SAFETY: fields of the context, and of a stamp from a lookup that did not miss, which lives as long as the
    // program runs.
    let (protocol, state, redirected, ends) = unsafe {
        (
            ptr::read_volatile(&raw const (*sock).protocol),
            ptr::read_volatile(&raw const (*sock).state),
            (*stamp).redirected,
            (*stamp).ends,
        )
    };
    if redirected != 1 || ends.port == 0 || !decide::outlives(protocol, state) {
        return false;
    }
    // SAFETY: the argument is the context.
    let ends = Ends { netns: unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }, ..ends };
    // SAFETY: the stamp, as above; no arguments, always available.
    let released = unsafe { Released { origin: (*stamp).origin, cookie, at_ns: bpf_ktime_get_ns() } };
    maps::config().is_some_and(|config| maps::keep(&ends, &released, config.flows_per_job))
}
