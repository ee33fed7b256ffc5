//! Counters and events.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_ns, generated::bpf_get_current_comm,
};
use gateway_common::{Addr, Event, Hook, Reason, flags};

use crate::{DENY, PASS, maps};

/// What a hook knows when it refuses.
#[derive(Clone, Copy)]
pub struct Facts {
    pub hook: Hook,
    pub job: u64,
    pub cookie: u64,
    pub addr: Addr,
    pub port: u16,
    pub family: u8,
    pub protocol: u8,
    pub kind: u32,
    pub detail: u32,
}

impl Facts {
    #[inline(always)]
    pub const fn new(hook: Hook) -> Self {
        Self {
            hook,
            job: 0,
            cookie: 0,
            addr: Addr([0; 4]),
            port: 0,
            family: 0,
            protocol: 0,
            kind: 0,
            detail: 0,
        }
    }
}

/// Refuses in a hook that runs as the calling process.
#[inline(always)]
pub fn deny(facts: &Facts, reason: Reason) -> i32 {
    verdict(facts, reason, true)
}

/// Refuses what a process asks only to see whether it may: counted, and told to nobody.
#[inline(always)]
pub fn deny_quietly(reason: Reason) -> i32 {
    maps::count(reason);
    if observing() { PASS } else { DENY }
}

/// Drops in a hook that runs for a packet: no process is to blame.
#[inline(always)]
pub fn drop(facts: &Facts, reason: Reason) -> i32 {
    verdict(facts, reason, false)
}

/// Says what was refused, and refuses it unless the mode is to observe. Without settings there is no such mode.
#[inline(always)]
fn verdict(facts: &Facts, reason: Reason, process: bool) -> i32 {
    let observe = observing();
    emit(facts, reason, process, observe);
    if observe { PASS } else { DENY }
}

#[inline(always)]
fn observing() -> bool {
    maps::config().is_some_and(|config| config.flags & flags::OBSERVE != 0)
}

#[inline(always)]
fn emit(facts: &Facts, reason: Reason, process: bool, observed: bool) {
    maps::count(reason);
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(
        (),
        "refused: hook {} reason {} job {} port {}",
        facts.hook.code(),
        reason.code(),
        facts.job,
        u16::from_be(facts.port)
    );
    let Some(mut entry) = maps::EVENTS.reserve(0) else {
        return maps::count(Reason::EventLost);
    };
    let (pid, uid) = if process {
        ((bpf_get_current_pid_tgid() >> 32) as u32, bpf_get_current_uid_gid() as u32)
    } else {
        (0, 0)
    };
    let event = entry.write(Event {
        // SAFETY: no arguments, always available.
        at_ns: unsafe { bpf_ktime_get_ns() },
        job: facts.job,
        cookie: facts.cookie,
        addr: facts.addr,
        port: facts.port,
        reason: reason.code(),
        hook: facts.hook.code(),
        family: facts.family,
        protocol: facts.protocol,
        observed: observed as u8,
        kind: facts.kind,
        detail: facts.detail,
        pid,
        uid,
        comm: [0; 16],
    });
    if process {
        // SAFETY: the buffer is the event's own and 16 bytes long. A failure leaves it zeroed.
        unsafe { bpf_get_current_comm((&raw mut event.comm).cast(), 16) };
    }
    entry.submit(0);
}
