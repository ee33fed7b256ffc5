//! sk_lookup: the gateway's port on loopback is the gateway's socket, whoever binds it meanwhile. Loaded once for
//! each network namespace, because the hook cannot ask in which one it runs.

use core::ptr;

use aya_ebpf::{
    bindings::{
        bpf_sk_lookup,
        sk_action::{SK_DROP, SK_PASS},
    },
    macros::sk_lookup,
    programs::SkLookupContext,
};
use gateway_common::{
    Addr, Ends, Hook, Reason,
    decide::{self, AF_INET, IPPROTO_TCP, IPPROTO_UDP},
};

use crate::{
    maps::{self, LISTENERS},
    report::{self, Facts},
};

/// Of the namespace that this program is attached to. Set when it is loaded.
#[unsafe(no_mangle)]
static SLOT: u32 = 0;

/// Its cookie. Set when it is loaded.
#[unsafe(no_mangle)]
static NETNS_COOKIE: u64 = 0;

#[sk_lookup]
// Not named after its section: the linker would take the two for one symbol.
pub fn listener(ctx: SkLookupContext) -> u32 {
    let raw: *const bpf_sk_lookup = ctx.lookup;
    let Some(config) = maps::config() else {
        report::drop(&Facts::new(Hook::SkLookup), Reason::NotConfigured);
        return SK_PASS;
    };
    // SAFETY: fields of the context; volatile, because the verifier wants them read one by one.
    let (family, protocol, port) = unsafe {
        (
            ptr::read_volatile(&raw const (*raw).family),
            ptr::read_volatile(&raw const (*raw).protocol),
            ptr::read_volatile(&raw const (*raw).local_port),
        )
    };
    let transport = protocol as u8;
    if !(transport == IPPROTO_TCP || transport == IPPROTO_UDP) || port != u32::from(u16::from_be(config.port))
    {
        return SK_PASS;
    }
    let v4 = family == AF_INET;
    let gateway = local(raw, v4);
    if !gateway.is_loopback() {
        return SK_PASS;
    }
    // SAFETY: statics; volatile, because what the compiler sees in them is not what the agent puts there.
    let (slot, netns) =
        unsafe { (ptr::read_volatile(&raw const SLOT), ptr::read_volatile(&raw const NETNS_COOKIE)) };
    if transport == IPPROTO_TCP {
        // SAFETY: field of the context.
        let port = unsafe { ptr::read_volatile(&raw const (*raw).remote_port) };
        maps::outdate(&Ends { netns, client: remote(raw, v4), gateway, port, zero: [0; 3] });
    }
    if LISTENERS.redirect_sk_lookup(&ctx, decide::listener(slot, transport, v4), 0).is_ok() {
        return SK_PASS;
    }
    let facts =
        Facts { port: config.port, family: family as u8, protocol: transport, ..Facts::new(Hook::SkLookup) };
    report::drop(&facts, Reason::NoListener);
    SK_DROP
}

#[inline(always)]
fn local(raw: *const bpf_sk_lookup, v4: bool) -> Addr {
    // SAFETY: fields of the context, as above.
    unsafe {
        if v4 {
            return Addr::v4(ptr::read_volatile(&raw const (*raw).local_ip4));
        }
        let ip = &raw const (*raw).local_ip6;
        Addr([
            ptr::read_volatile(&raw const (*ip)[0]),
            ptr::read_volatile(&raw const (*ip)[1]),
            ptr::read_volatile(&raw const (*ip)[2]),
            ptr::read_volatile(&raw const (*ip)[3]),
        ])
    }
}

#[inline(always)]
fn remote(raw: *const bpf_sk_lookup, v4: bool) -> Addr {
    // SAFETY: fields of the context, as above; those of the other family are 0. All are read, whatever the family is:
    // two ways to one read would be made one read at a computed place, which the verifier refuses.
    let (short, long) = unsafe {
        let ip = &raw const (*raw).remote_ip6;
        (
            ptr::read_volatile(&raw const (*raw).remote_ip4),
            [
                ptr::read_volatile(&raw const (*ip)[0]),
                ptr::read_volatile(&raw const (*ip)[1]),
                ptr::read_volatile(&raw const (*ip)[2]),
                ptr::read_volatile(&raw const (*ip)[3]),
            ],
        )
    };
    if v4 { Addr::v4(short) } else { Addr(long) }
}
