//! Bounds that both sides rely on.

/// Version of everything in this crate that crosses a pinned map. Raise it when a shared type changes.
pub const LAYOUT: u32 = 3;

/// Cgroup levels below the attach root that are searched for a job. A job enrolled deeper is refused by the
/// agent; whatever is nested below an enrolled job is found through its ancestor.
pub const MAX_DEPTH: u32 = 16;

/// Enrolled jobs.
pub const MAX_JOBS: u32 = 16_384;

/// Cgroups whose kin each CPU remembers; a power of two. Two that share a place displace each other.
pub const MAX_KIN: u32 = 256;

/// Destinations whose answer each CPU remembers; a power of two. Two that share a place displace each other.
pub const MAX_SEEN: u32 = 512;

/// Redirected sockets whose original destination the agent has not read yet.
pub const MAX_ORIGINS: u32 = 65_536;

/// Redirected connections that their process closed before the agent accepted them.
pub const MAX_RELEASED: u32 = 65_536;

/// How long the record of such a connection is kept for the agent, in nanoseconds. Longer than it accepts late
/// without being taken for dead.
pub const RELEASED_NS: u64 = 10_000_000_000;

/// Declared destinations, counting one per port and protocol.
pub const MAX_DESTINATIONS: u32 = 131_072;

/// Network namespaces with a listener of the gateway.
pub const MAX_NETNS: u32 = 1024;

/// Sockets of the gateway in the socket map: four a network namespace.
pub const MAX_LISTENERS: u32 = LISTENERS_PER_NETNS * MAX_NETNS;

/// TCP over IPv4, TCP over IPv6, UDP over IPv4, UDP over IPv6.
pub const LISTENERS_PER_NETNS: u32 = 4;

/// Bytes of the event ring buffer; a power of two and a multiple of the page size.
pub const EVENT_BYTES: u32 = 1 << 20;

/// Age at which the agent's heartbeat counts as dead, in nanoseconds.
pub const STALE_NS: u64 = 2_000_000_000;

/// Kinds of [`crate::Reason`] that are counted. Fixed, so that a new reason leaves pinned maps as they are.
pub const MAX_REASONS: u32 = 64;
