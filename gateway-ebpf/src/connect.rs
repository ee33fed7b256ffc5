//! connect4, connect6: a job's connection goes to the gateway, to an allowed destination, or nowhere. Questions
//! to a resolver go to the gateway over TCP and UDP alike.
//!
//! TCP Fast Open and io_uring connects come through here too.

use core::ptr::NonNull;

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_ns,
        generated::bpf_get_netns_cookie,
    },
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use gateway_common::{
    Addr, Config, Hook, Origin, Reason, Stamp,
    decide::{self, IPPROTO_TCP, IPPROTO_UDP, Outcome, dest},
};

use crate::{
    PASS, maps,
    report::{self, Facts},
    sockaddr,
    who::{self, Who},
};

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    judge::<false, true>(&ctx, Hook::Connect4)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    judge::<true, true>(&ctx, Hook::Connect6)
}

/// Judges a destination that a process asks for. `CONNECT` is false for datagrams.
#[inline(always)]
pub fn judge<const V6: bool, const CONNECT: bool>(ctx: &SockAddrContext, hook: Hook) -> i32 {
    let shown = sockaddr::addr::<V6>(ctx);
    let mut facts = Facts { addr: shown, port: sockaddr::port(ctx), ..Facts::new(hook) };
    match examine::<V6, CONNECT>(ctx, shown, &mut facts) {
        Ok(()) => PASS,
        Err(reason) => {
            sockaddr::describe::<V6>(ctx, &mut facts);
            report::deny(&facts, reason)
        }
    }
}

#[inline(always)]
fn examine<const V6: bool, const CONNECT: bool>(
    ctx: &SockAddrContext,
    shown: Addr,
    facts: &mut Facts,
) -> Result<(), Reason> {
    let config = maps::config().ok_or(Reason::NotConfigured)?;
    let who = who::current(config);
    // SAFETY: the socket of this context.
    let stamp = unsafe { maps::stamp(sockaddr::sock(ctx)) };
    // SAFETY: the pointer comes from a lookup that did not miss.
    let born = stamp.map_or(0, |stamp| unsafe { (*stamp.as_ptr()).job });

    // The stricter of both: a job's socket is judged as the job's wherever it is used.
    facts.job = match who {
        Who::Job(job) => job,
        Who::Nobody | Who::Gateway if born != 0 => born,
        Who::Gateway => return Ok(()),
        Who::Nobody => return bystander(ctx, config, facts),
    };
    if maps::is_quarantined(config, facts.job) {
        return Err(Reason::Quarantined);
    }
    let stamp = stamp.filter(|_| born == facts.job).ok_or(Reason::ForeignSocket)?;
    // SAFETY: the argument is the context.
    if !maps::has_listener(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }) {
        return Err(Reason::UnknownNetns);
    }
    if !maps::alive() {
        return Err(Reason::Stale);
    }
    facts.addr = decide::lookup_form(shown).ok_or(Reason::Tunnelled)?;
    let protocol = match sockaddr::protocol(ctx) as u8 {
        protocol @ (IPPROTO_TCP | IPPROTO_UDP) => protocol,
        _ => return Err(Reason::SocketKind),
    };
    if decide::resolver(facts.port, config) {
        return redirect::<V6>(ctx, config, facts, stamp, shown);
    }
    // A connected IPv6 socket whose peer is an IPv4 one names the rewritten address with every datagram.
    // SAFETY: `stamp` comes from a lookup that did not miss.
    let redirected = unsafe { (*stamp.as_ptr()).redirected } == 1;
    if !CONNECT && protocol == IPPROTO_UDP && facts.port == config.port && shown.is_loopback() && redirected {
        return Ok(());
    }
    match decide::destination(
        maps::destination(config, facts.addr, facts.port, protocol),
        protocol as u32,
        CONNECT,
    ) {
        Outcome::Deny(Reason::Undeclared) => Err(decide::undeclared(&facts.addr)),
        Outcome::Deny(reason) => Err(reason),
        Outcome::Pass => {
            if CONNECT {
                forget(stamp, sockaddr::cookie(ctx));
            }
            maps::count(Reason::Allowed);
            Ok(())
        }
        Outcome::Redirect => redirect::<V6>(ctx, config, facts, stamp, shown),
    }
}

/// A process outside every job: resources are closed to it, everything else is not our business.
#[inline(always)]
fn bystander(ctx: &SockAddrContext, config: &Config, facts: &mut Facts) -> Result<(), Reason> {
    let Some(addr) = decide::lookup_form(facts.addr) else { return Ok(()) };
    let protocol = sockaddr::protocol(ctx) as u8;
    if maps::destination(config, addr, facts.port, protocol) & dest::PROTECT == 0 {
        return Ok(());
    }
    facts.addr = addr;
    Err(Reason::Protected)
}

#[inline(always)]
fn redirect<const V6: bool>(
    ctx: &SockAddrContext,
    config: &Config,
    facts: &Facts,
    stamp: NonNull<Stamp>,
    shown: Addr,
) -> Result<(), Reason> {
    let stamp = stamp.as_ptr();
    // SAFETY: `stamp` comes from a lookup that did not miss, and stays valid while the program runs.
    let (cgroup, counted) = unsafe { ((*stamp).cgroup, (*stamp).counted) };
    if counted == 0 {
        if !maps::acquire(facts.job, config.flows_per_job) {
            return Err(Reason::Quota);
        }
        // SAFETY: as above.
        unsafe { (*stamp).counted = 1 };
    }
    let ids = bpf_get_current_uid_gid();
    let origin = Origin {
        job: facts.job,
        cgroup,
        // SAFETY: no arguments, always available.
        at_ns: unsafe { bpf_ktime_get_ns() },
        addr: facts.addr,
        port: facts.port,
        zero: 0,
        pid: (bpf_get_current_pid_tgid() >> 32) as u32,
        uid: ids as u32,
        gid: (ids >> 32) as u32,
        comm: bpf_get_current_comm().unwrap_or([0; 16]),
    };
    maps::ORIGINS.insert(&sockaddr::cookie(ctx), &origin, 0).map_err(|_| Reason::OriginFull)?;
    // SAFETY: as above.
    unsafe {
        (*stamp).shown = shown;
        (*stamp).port = facts.port;
        (*stamp).redirected = 1;
        (*stamp).ends.port = 0;
        (*stamp).origin = origin;
    }
    // The family stays what the socket expects: a mapped destination keeps an IPv6 socket on IPv4.
    let gateway = if shown.as_v4().is_some() { Addr::LOOPBACK_V4 } else { Addr::LOOPBACK_V6 };
    sockaddr::rewrite::<V6>(ctx, gateway, config.port);
    maps::count(Reason::Redirected);
    Ok(())
}

/// The socket now goes somewhere directly: what an earlier connect left must not speak for it.
#[inline(always)]
fn forget(stamp: NonNull<Stamp>, cookie: u64) {
    let stamp = stamp.as_ptr();
    // SAFETY: `stamp` comes from a lookup that did not miss, and stays valid while the program runs.
    unsafe {
        if (*stamp).redirected == 0 {
            return;
        }
        (*stamp).redirected = 0;
    }
    // Already taken by the agent, or not: both are fine.
    let _ = maps::ORIGINS.remove(&cookie);
}
