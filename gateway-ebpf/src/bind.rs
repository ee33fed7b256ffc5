//! bind4, bind6: a job binds to loopback or to no address in particular, and never to the gateway's port.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use gateway_common::{Hook, Reason, decide};

use crate::{
    PASS, maps,
    report::{self, Facts},
    sockaddr,
    who::{self, Who},
};

#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    judge::<false>(&ctx, Hook::Bind4)
}

#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    judge::<true>(&ctx, Hook::Bind6)
}

#[inline(always)]
fn judge<const V6: bool>(ctx: &SockAddrContext, hook: Hook) -> i32 {
    let addr = sockaddr::addr::<V6>(ctx);
    let port = sockaddr::port(ctx);
    let mut facts = Facts { addr, port, ..Facts::new(hook) };
    let reason = match maps::config() {
        Some(config) => {
            let Who::Job(job) = who::current(config) else { return PASS };
            if decide::bind(addr, port, config) {
                return PASS;
            }
            facts.job = job;
            Reason::BindAddress
        }
        None => Reason::NotConfigured,
    };
    sockaddr::describe::<V6>(ctx, &mut facts);
    report::deny(&facts, reason)
}
