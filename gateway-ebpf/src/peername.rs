//! getpeername4, getpeername6: a redirected socket's peer is the one it asked for.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{PASS, maps, sockaddr};

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    show::<false>(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    show::<true>(&ctx)
}

/// These hooks cannot refuse; they change what is shown, or not.
#[inline(always)]
pub fn show<const V6: bool>(ctx: &SockAddrContext) -> i32 {
    // SAFETY: the socket of this context.
    let Some(stamp) = (unsafe { maps::stamp(sockaddr::sock(ctx)) }) else { return PASS };
    // SAFETY: the pointer comes from a lookup that did not miss.
    let stamp = unsafe { *stamp.as_ptr() };
    let Some(config) = maps::config() else { return PASS };
    if stamp.redirected == 1
        && sockaddr::port(ctx) == config.port
        && sockaddr::addr::<V6>(ctx).is_loopback()
        && (V6 || stamp.shown.as_v4().is_some())
    {
        sockaddr::rewrite::<V6>(ctx, stamp.shown, stamp.port);
    }
    PASS
}
