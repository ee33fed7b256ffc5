//! cgroup_skb egress and ingress: the backstop on the real packet.
//!
//! Whatever a socket was told before, a job's packet leaves only to the gateway or to an allowed destination,
//! and comes in only from there. This also stops what no other hook sees: UDP-Lite, raw headers, routing
//! headers, the SYN-ACK of a job's listener to somebody outside.

use core::ptr;

use aya_ebpf::{
    bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes, macros::cgroup_skb, programs::SkBuffContext,
};
use gateway_common::{
    Addr, Hook, Reason,
    decide::{self, AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, dest},
};

use crate::{
    PASS, maps,
    report::{self, Facts},
    who::{self, Who},
};

const ETH_P_IP: u16 = 0x0800_u16.to_be();
const TCP_SYN: u8 = 0x02;

#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    judge::<true>(ctx.skb.skb, Hook::Egress)
}

#[cgroup_skb(ingress)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    judge::<false>(ctx.skb.skb, Hook::Ingress)
}

#[inline(always)]
fn judge<const OUT: bool>(skb: *mut __sk_buff, hook: Hook) -> i32 {
    let packet = Packet::read(skb);
    let mut facts = Facts { family: packet.family, protocol: packet.protocol, ..Facts::new(hook) };
    (facts.addr, facts.port) = if OUT { (packet.dst, packet.dport) } else { (packet.src, packet.sport) };
    match examine::<OUT>(skb, &packet, &mut facts) {
        Ok(()) => PASS,
        Err(reason) => report::drop(&facts, reason),
    }
}

#[inline(always)]
fn examine<const OUT: bool>(skb: *mut __sk_buff, packet: &Packet, facts: &mut Facts) -> Result<(), Reason> {
    let config = maps::config().ok_or(Reason::NotConfigured)?;
    // The bulk of all traffic that matters ends here. It does not matter whose packet it is: the gateway's
    // port on loopback is answered by the gateway or by nobody.
    if packet.plain && decide::gateway_leg(&packet.src, packet.sport, &packet.dst, packet.dport, config.port)
    {
        return Ok(());
    }
    // SAFETY: `skb` is the context.
    facts.job = match unsafe { who::of_packet(skb, config) } {
        Who::Job(job) => job,
        Who::Gateway => return Ok(()),
        Who::Nobody if OUT => return bystander(skb, packet),
        Who::Nobody => return Ok(()),
    };
    if !packet.plain {
        return Err(Reason::PacketHeader);
    }
    if maps::is_quarantined(config, facts.job) {
        return Err(Reason::Quarantined);
    }
    // Packets still come in when the agent is silent: an RST must reach the job, so that it learns at once.
    if OUT && !maps::alive() {
        return Err(Reason::Stale);
    }
    if maps::allowed(facts.addr, facts.port, packet.protocol) {
        return Ok(());
    }
    // The other half of an allowed exchange between two sockets of this host.
    if packet.src.is_loopback() && packet.dst.is_loopback() {
        let (addr, port) = if OUT { (packet.src, packet.sport) } else { (packet.dst, packet.dport) };
        if maps::allowed(addr, port, packet.protocol) {
            return Ok(());
        }
    }
    Err(if OUT { Reason::PacketOut } else { Reason::PacketIn })
}

/// A socket outside every job must not open a connection to a resource. Without a SYN there is none to open,
/// so established traffic of the host costs no lookup.
#[inline(always)]
fn bystander(skb: *mut __sk_buff, packet: &Packet) -> Result<(), Reason> {
    if packet.protocol != IPPROTO_TCP || !packet.has_ports {
        return Ok(());
    }
    let mut flags = 0u8;
    if !load(skb, packet.transport + 13, &mut flags) || flags & TCP_SYN == 0 {
        return Ok(());
    }
    let Some(addr) = decide::lookup_form(packet.dst) else { return Ok(()) };
    if maps::destination(addr, packet.dport, IPPROTO_TCP) & dest::PROTECT == 0 {
        return Ok(());
    }
    Err(Reason::Protected)
}

/// The headers that count.
struct Packet {
    family: u8,
    protocol: u8,
    /// TCP or UDP right behind an IP header without options.
    plain: bool,
    has_ports: bool,
    /// Offset of the transport header.
    transport: u32,
    src: Addr,
    dst: Addr,
    /// Network order.
    sport: u16,
    dport: u16,
}

#[repr(C)]
struct V4 {
    version_ihl: u8,
    _tos: u8,
    _len: u16,
    _id: u16,
    fragment: u16,
    _ttl: u8,
    protocol: u8,
    _check: u16,
    src: u32,
    dst: u32,
}

#[repr(C)]
struct V6 {
    _head: u32,
    _len: u16,
    next: u8,
    _hops: u8,
    src: [u32; 4],
    dst: [u32; 4],
}

impl Packet {
    /// A header that cannot be read leaves the packet not plain.
    #[inline(always)]
    fn read(skb: *mut __sk_buff) -> Self {
        // SAFETY: field of the context.
        let ethertype = unsafe { ptr::read_volatile(&raw const (*skb).protocol) } as u16;
        let mut packet = Self {
            family: 0,
            protocol: 0,
            plain: false,
            has_ports: false,
            transport: 0,
            src: Addr([0; 4]),
            dst: Addr([0; 4]),
            sport: 0,
            dport: 0,
        };
        let whole;
        if ethertype == ETH_P_IP {
            // SAFETY: integers only; zero is a value of each.
            let mut ip: V4 = unsafe { core::mem::zeroed() };
            packet.family = AF_INET as u8;
            if !load(skb, 0, &mut ip) {
                return packet;
            }
            packet.protocol = ip.protocol;
            packet.transport = u32::from(ip.version_ihl & 0x0f) * 4;
            packet.src = Addr::v4(ip.src);
            packet.dst = Addr::v4(ip.dst);
            // The offset of a fragment, without the flags: only a first fragment has ports.
            whole = u16::from_be(ip.fragment) & 0x1fff == 0;
            packet.plain = whole && packet.transport == 20;
        } else {
            // SAFETY: as above.
            let mut ip: V6 = unsafe { core::mem::zeroed() };
            packet.family = AF_INET6 as u8;
            if !load(skb, 0, &mut ip) {
                return packet;
            }
            packet.protocol = ip.next;
            packet.transport = 40;
            packet.src = Addr(ip.src);
            packet.dst = Addr(ip.dst);
            whole = true;
            packet.plain = true;
        }
        let ported = packet.protocol == IPPROTO_TCP || packet.protocol == IPPROTO_UDP;
        let mut ports = [0u16; 2];
        packet.has_ports = whole && ported && load(skb, packet.transport, &mut ports);
        packet.plain &= packet.has_ports;
        [packet.sport, packet.dport] = ports;
        packet
    }
}

#[inline(always)]
fn load<T>(skb: *mut __sk_buff, offset: u32, to: &mut T) -> bool {
    let to: *mut T = to;
    // SAFETY: `skb` is the context, and the target is as long as it says.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, to.cast(), size_of::<T>() as u32) == 0 }
}
