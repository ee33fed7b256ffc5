//! Map keys and values about jobs, sockets and destinations.

use crate::Addr;

/// Settings of the programs: the only element of the `config` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// [`crate::limits::LAYOUT`] of whoever made the maps; anything else is not touched.
    pub layout: u32,
    /// Cgroup level of the attach root; levels above it are nobody's job.
    pub root_level: u32,
    /// Cgroup id of the gateway itself; 0 until it is known.
    pub gateway: u64,
    /// Live redirected sockets that one job may hold, and as many records of closed ones.
    pub flows_per_job: u32,
    /// Loopback port that stands for the gateway, network order.
    pub port: u16,
    /// [`flags`].
    pub flags: u16,
    /// Jobs in the `quarantine` map; 0 saves looking.
    pub quarantined: u32,
    /// Changes with the jobs, the gateway's cgroup and the destinations: what was remembered before counts no more.
    pub generation: u32,
}

/// Bits of [`Config::flags`].
pub mod flags {
    /// Port 53 of every address is the gateway's.
    pub const DNS: u16 = 1;
    /// What would be refused is reported and let through.
    pub const OBSERVE: u16 = 2;
}

/// When the agent last proved to be alive: the only element of the `beat` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Beat {
    /// CLOCK_MONOTONIC, nanoseconds. 0 = never.
    pub at_ns: u64,
}

/// An enrolled job, by cgroup id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Job {
    /// Redirected sockets that are still open. Only the kernel programs change it. Negative when sockets from
    /// before the job was released and enrolled again have been closed.
    pub live: i64,
    /// Of those that were closed before the agent accepted them: records made. Only the kernel programs change it; how
    /// many the agent took is counted by itself, in the map `returned`.
    pub kept: i64,
    /// CLOCK_MONOTONIC at enrolment, nanoseconds.
    pub since_ns: u64,
}

/// Whose a cgroup is, remembered from the last walk to its ancestors. Each CPU has its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Kin {
    /// Odd while it is written; a reader that sees it change or odd has read nothing.
    pub sequence: u64,
    pub cgroup: u64,
    /// The job, or 0.
    pub job: u64,
    /// [`Config::generation`] before the walk.
    pub generation: u32,
    /// 1 for the gateway's own.
    pub gateway: u32,
}

/// What a socket carries from its birth to its release.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamp {
    /// The job that created the socket.
    pub job: u64,
    /// The very cgroup it was created in, a descendant of the job's or the same.
    pub cgroup: u64,
    /// The destination as the client wrote it, for getpeername.
    pub shown: Addr,
    /// Network order.
    pub port: u16,
    /// 1 while the socket's latest connect was redirected.
    pub redirected: u8,
    /// 1 once the socket is part of its job's [`Job::live`].
    pub counted: u8,
    pub zero: u32,
    /// Of the latest redirected connection, once its SYN has left: until then its port is 0. The namespace stays 0.
    pub ends: Ends,
    /// What the latest redirected connect noted.
    pub origin: Origin,
}

/// The two ends of a redirected TCP connection. In one network namespace, no two live sockets of clients share them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ends {
    /// Cookie of the network namespace.
    pub netns: u64,
    pub client: Addr,
    /// The gateway's port is [`Config::port`].
    pub gateway: Addr,
    /// The client's, network order.
    pub port: u16,
    pub zero: [u16; 3],
}

/// A redirected connection that its process closed before the agent accepted it: found by its [`Ends`], because
/// the socket with its cookie is gone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Released {
    pub origin: Origin,
    /// Of the client's socket.
    pub cookie: u64,
    /// CLOCK_MONOTONIC when it was closed, nanoseconds.
    pub at_ns: u64,
}

/// Where a redirected socket wanted to go, by socket cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    pub job: u64,
    /// The cgroup that the socket was created in.
    pub cgroup: u64,
    /// CLOCK_MONOTONIC at connect, nanoseconds.
    pub at_ns: u64,
    /// Canonical.
    pub addr: Addr,
    /// Network order.
    pub port: u16,
    pub zero: u16,
    /// Process (thread group) that called connect.
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    /// Not an identity: any process can set its own.
    pub comm: [u8; 16],
}

/// What the destination trie is keyed by, after the prefix length. Port and protocol come first, so that the
/// longest prefix is the most specific network of exactly that port and protocol.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DestKey {
    /// Network order; 0 = any, looked up on its own.
    pub port: u16,
    /// IPPROTO_TCP or IPPROTO_UDP.
    pub protocol: u8,
    pub zero: u8,
    pub addr: Addr,
}

/// What the trie said about a destination, remembered from the last time that it was asked. Each CPU has its own.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// As in [`Kin`].
    pub sequence: u64,
    pub key: DestKey,
    pub flags: u32,
    /// [`Config::generation`] before the trie was asked.
    pub generation: u32,
    pub zero: u32,
}

impl DestKey {
    /// Its place among `places`, a power of two.
    #[inline(always)]
    pub const fn place(&self, places: u32) -> u32 {
        let [a, b, c, d] = self.addr.0;
        let mixed = a ^ b ^ c ^ d ^ ((self.port as u32) << 8) ^ self.protocol as u32;
        (mixed.wrapping_mul(0x9e37_79b1) >> 16) & (places - 1)
    }

    /// Bits before the address.
    pub const HEAD_BITS: u32 = 32;
    /// Bits of a full key.
    pub const BITS: u32 = Self::HEAD_BITS + 128;

    #[inline(always)]
    pub const fn new(addr: Addr, port: u16, protocol: u8) -> Self {
        Self { port, protocol, zero: 0, addr }
    }
}

const _: () = {
    assert!(size_of::<Config>() == 32);
    assert!(size_of::<Beat>() == 8);
    assert!(size_of::<Job>() == 24);
    assert!(size_of::<Kin>() == 32);
    assert!(size_of::<Stamp>() == 160);
    assert!(size_of::<Ends>() == 48);
    assert!(size_of::<Released>() == 88);
    assert!(size_of::<Origin>() == 72);
    assert!(size_of::<DestKey>() == 20 && align_of::<DestKey>() == 4);
    assert!(size_of::<Seen>() == 40);
};

#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "aya's marker for types that may cross into the kernel")]
mod pod {
    use super::{Beat, Config, DestKey, Ends, Job, Origin, Released, Stamp};

    // SAFETY: repr(C), Copy, made of integers only, and their sizes above leave no room for padding.
    unsafe impl aya::Pod for Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Beat {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Job {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Stamp {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Origin {}
    // SAFETY: as above.
    unsafe impl aya::Pod for DestKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Ends {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Released {}
}
