//! The facts of a socket address hook.

use core::ptr;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::bpf_get_socket_cookie,
    programs::SockAddrContext,
};
use gateway_common::{
    Addr,
    decide::{AF_INET, AF_INET6},
};

use crate::report::Facts;

/// The address that the hook is about, as the caller wrote it. IPv4 hooks give the mapped form.
#[inline(always)]
pub fn addr<const V6: bool>(ctx: &SockAddrContext) -> Addr {
    let raw = ctx.sock_addr;
    // SAFETY: fields of the context; volatile, because the verifier wants them read word by word.
    unsafe {
        if V6 {
            let ip = &raw const (*raw).user_ip6;
            Addr([
                ptr::read_volatile(&raw const (*ip)[0]),
                ptr::read_volatile(&raw const (*ip)[1]),
                ptr::read_volatile(&raw const (*ip)[2]),
                ptr::read_volatile(&raw const (*ip)[3]),
            ])
        } else {
            Addr::v4(ptr::read_volatile(&raw const (*raw).user_ip4))
        }
    }
}

/// Network order.
#[inline(always)]
pub fn port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: field of the context.
    unsafe { ptr::read_volatile(&raw const (*ctx.sock_addr).user_port) as u16 }
}

/// Replaces address and port. An IPv4 hook takes the last word only.
#[inline(always)]
pub fn rewrite<const V6: bool>(ctx: &SockAddrContext, addr: Addr, port: u16) {
    let raw = ctx.sock_addr;
    let Addr([a, b, c, d]) = addr;
    // SAFETY: writable fields of the context; volatile for the same reason as above.
    unsafe {
        if V6 {
            let ip = &raw mut (*raw).user_ip6;
            ptr::write_volatile(&raw mut (*ip)[0], a);
            ptr::write_volatile(&raw mut (*ip)[1], b);
            ptr::write_volatile(&raw mut (*ip)[2], c);
            ptr::write_volatile(&raw mut (*ip)[3], d);
        } else {
            ptr::write_volatile(&raw mut (*raw).user_ip4, d);
        }
        ptr::write_volatile(&raw mut (*raw).user_port, port as u32);
    }
}

#[inline(always)]
pub fn protocol(ctx: &SockAddrContext) -> u32 {
    let raw: *const bpf_sock_addr = ctx.sock_addr;
    // SAFETY: field of the context.
    unsafe { ptr::read_volatile(&raw const (*raw).protocol) }
}

#[inline(always)]
pub fn sock(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: field of the context; the union has this one member.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}

#[inline(always)]
pub fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the argument is the context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// Fills in what an event says about the socket.
#[inline(always)]
pub fn describe<const V6: bool>(ctx: &SockAddrContext, facts: &mut Facts) {
    facts.cookie = cookie(ctx);
    facts.family = if V6 { AF_INET6 } else { AF_INET } as u8;
    facts.protocol = protocol(ctx) as u8;
}
