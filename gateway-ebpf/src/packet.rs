//! cgroup_skb egress and ingress: the backstop on the real packet.
//!
//! Whatever a socket was told before, a job's packet leaves only to the gateway or to an allowed destination,
//! and comes in only from there. This also stops what no other hook sees: UDP-Lite, raw headers, routing
//! headers, the SYN-ACK of a job's listener to somebody outside.

use core::ptr::{self, NonNull};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_sk_fullsock, bpf_skb_load_bytes},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use gateway_common::{
    Addr, Config, Ends, Hook, Reason,
    decide::{self, AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, SOCK_STREAM, dest},
};

use crate::{
    PASS, maps,
    report::{self, Facts},
    who::{self, Who},
};

const ETH_P_IP: u16 = 0x0800_u16.to_be();
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

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
    let mut facts = Facts::new(hook);
    match examine::<OUT>(skb, &mut facts) {
        Ok(()) => PASS,
        Err(reason) => report::drop(&facts, reason),
    }
}

#[inline(always)]
fn examine<const OUT: bool>(skb: *mut __sk_buff, facts: &mut Facts) -> Result<(), Reason> {
    let config = maps::config().ok_or(Reason::NotConfigured)?;
    // First of all: most packets of a host are nobody's concern, and need not be read.
    // SAFETY: `skb` is the context.
    facts.job = match unsafe { who::of_packet(skb, config) } {
        Who::Job(job) => job,
        Who::Gateway => return Ok(()),
        Who::Nobody if OUT => return bystander(skb, config, facts),
        Who::Nobody => return Ok(()),
    };
    let packet = Packet::read(skb);
    packet.describe::<OUT>(facts);
    // The bulk of a job's traffic ends here: the gateway's port on loopback is answered by the gateway or by nobody.
    if packet.plain && decide::gateway_leg(&packet.src, packet.sport, &packet.dst, packet.dport, config.port)
    {
        if OUT && packet.flags & (SYN | ACK) == SYN && packet.dport == config.port {
            // SAFETY: `skb` is the context.
            unsafe { note_ends(skb, &packet) };
        }
        return Ok(());
    }
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
    if maps::allowed(config, facts.addr, facts.port, packet.protocol) {
        return Ok(());
    }
    // The other half of an allowed exchange between two sockets of this host.
    if packet.src.is_loopback() && packet.dst.is_loopback() {
        let (addr, port) = if OUT { (packet.src, packet.sport) } else { (packet.dst, packet.dport) };
        if maps::allowed(config, addr, port, packet.protocol) {
            return Ok(());
        }
    }
    Err(if OUT { Reason::PacketOut } else { Reason::PacketIn })
}

/// A socket outside every job must not open a connection to a resource. Without a SYN there is none to open,
/// so established traffic of the host is not even read.
#[inline(always)]
fn bystander(skb: *mut __sk_buff, config: &Config, facts: &mut Facts) -> Result<(), Reason> {
    // SAFETY: `skb` is the context.
    if unsafe { is_established(skb) } {
        return Ok(());
    }
    let packet = Packet::read(skb);
    packet.describe::<true>(facts);
    if packet.flags & SYN == 0 {
        return Ok(());
    }
    let Some(addr) = decide::lookup_form(packet.dst) else { return Ok(()) };
    if maps::destination(config, addr, packet.dport, IPPROTO_TCP) & dest::PROTECT == 0 {
        return Ok(());
    }
    Err(Reason::Protected)
}

/// Whether the packet is sent by a TCP connection, not by one that only begins, nor by a raw socket.
///
/// # Safety
/// `skb` is the program's context.
#[inline(always)]
unsafe fn is_established(skb: *mut __sk_buff) -> bool {
    // SAFETY: the caller's promise.
    let Some(sk) = (unsafe { socket(skb) }) else { return false };
    let sk = sk.as_ptr();
    // SAFETY: fields of a whole socket; volatile, because the verifier wants them read one by one.
    let (kind, protocol, state) = unsafe {
        (
            ptr::read_volatile(&raw const (*sk).type_),
            ptr::read_volatile(&raw const (*sk).protocol),
            ptr::read_volatile(&raw const (*sk).state),
        )
    };
    kind == SOCK_STREAM && decide::outlives(protocol, state)
}

/// Whose packet it is, if that is a whole socket.
///
/// # Safety
/// `skb` is the program's context.
#[inline(always)]
unsafe fn socket(skb: *mut __sk_buff) -> Option<NonNull<bpf_sock>> {
    // SAFETY: field of the context; the union has this one member. The kernel wants each pointer checked.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        NonNull::new(bpf_sk_fullsock(sk))
    }
}

/// A redirected connection begins: only now its own port is known. It is the connection's name should its socket
/// be gone when the agent accepts it.
///
/// # Safety
/// `skb` is the program's context.
#[inline(always)]
unsafe fn note_ends(skb: *mut __sk_buff, packet: &Packet) {
    // SAFETY: the caller's promise.
    let Some(sk) = (unsafe { socket(skb) }) else { return };
    // SAFETY: the socket of the context.
    let Some(stamp) = (unsafe { maps::stamp(sk.as_ptr()) }) else { return };
    // SAFETY: the pointer comes from a lookup that did not miss.
    unsafe {
        (*stamp.as_ptr()).ends =
            Ends { netns: 0, client: packet.src, gateway: packet.dst, port: packet.sport, zero: [0; 3] };
    }
}

/// The headers that count.
struct Packet {
    family: u8,
    protocol: u8,
    /// TCP or UDP right behind an IP header without options.
    plain: bool,
    /// Of TCP; 0 for everything else, and where they cannot be read.
    flags: u8,
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
    /// What an event says of it.
    #[inline(always)]
    fn describe<const OUT: bool>(&self, facts: &mut Facts) {
        (facts.family, facts.protocol) = (self.family, self.protocol);
        (facts.addr, facts.port) = if OUT { (self.dst, self.dport) } else { (self.src, self.sport) };
    }

    /// A header that cannot be read leaves the packet not plain.
    #[inline(always)]
    fn read(skb: *mut __sk_buff) -> Self {
        // SAFETY: field of the context.
        let ethertype = unsafe { ptr::read_volatile(&raw const (*skb).protocol) } as u16;
        let mut packet = Self {
            family: 0,
            protocol: 0,
            plain: false,
            flags: 0,
            src: Addr([0; 4]),
            dst: Addr([0; 4]),
            sport: 0,
            dport: 0,
        };
        let (whole, transport);
        if ethertype == ETH_P_IP {
            // SAFETY: integers only; zero is a value of each.
            let mut ip: V4 = unsafe { core::mem::zeroed() };
            packet.family = AF_INET as u8;
            if !load(skb, 0, &mut ip) {
                return packet;
            }
            packet.protocol = ip.protocol;
            transport = u32::from(ip.version_ihl & 0x0f) * 4;
            packet.src = Addr::v4(ip.src);
            packet.dst = Addr::v4(ip.dst);
            // The offset of a fragment, without the flags: only a first fragment has ports.
            whole = u16::from_be(ip.fragment) & 0x1fff == 0;
            packet.plain = whole && transport == 20;
        } else {
            // SAFETY: as above.
            let mut ip: V6 = unsafe { core::mem::zeroed() };
            packet.family = AF_INET6 as u8;
            if !load(skb, 0, &mut ip) {
                return packet;
            }
            packet.protocol = ip.next;
            transport = 40;
            packet.src = Addr(ip.src);
            packet.dst = Addr(ip.dst);
            whole = true;
            packet.plain = true;
        }
        // The headers up to TCP's flags, or UDP's ports.
        let mut tcp = [0u16; 7];
        let mut udp = [0u16; 2];
        let loaded = whole
            && match packet.protocol {
                IPPROTO_TCP => load(skb, transport, &mut tcp),
                IPPROTO_UDP => load(skb, transport, &mut udp),
                _ => false,
            };
        packet.plain &= loaded;
        (packet.sport, packet.dport) = (tcp[0] | udp[0], tcp[1] | udp[1]);
        packet.flags = u16::from_be(tcp[6]) as u8;
        packet
    }
}

#[inline(always)]
fn load<T>(skb: *mut __sk_buff, offset: u32, to: &mut T) -> bool {
    let to: *mut T = to;
    // SAFETY: `skb` is the context, and the target is as long as it says.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, to.cast(), size_of::<T>() as u32) == 0 }
}
