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
    Addr, Hook, Reason,
    decide::{self, AF_INET, IPPROTO_TCP, IPPROTO_UDP},
};

use crate::{
    maps::{self, LISTENERS},
    report::{self, Facts},
};

/// Of the namespace that this program is attached to. Set when it is loaded.
#[unsafe(no_mangle)]
static SLOT: u32 = 0;

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
    if !local(raw, v4).is_loopback() {
        return SK_PASS;
    }
    // SAFETY: a static; volatile, because what the compiler sees in it is not what the agent puts there.
    let slot = unsafe { ptr::read_volatile(&raw const SLOT) };
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
