//! sendmsg4, sendmsg6: every unconnected datagram of a job is judged like a connect; questions to a resolver are
//! the only ones that are redirected.
//! recvmsg4, recvmsg6: like getpeername, they show the peer that the job asked for.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use gateway_common::Hook;

use crate::{connect, peername};

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    connect::judge::<false, false>(&ctx, Hook::Sendmsg4)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    connect::judge::<true, false>(&ctx, Hook::Sendmsg6)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    peername::show::<false>(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    peername::show::<true>(&ctx)
}
