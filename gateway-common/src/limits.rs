//! Bounds that both sides rely on.

/// Version of everything in this crate that crosses a pinned map. Raise it when a shared type changes.
pub const LAYOUT: u32 = 1;

/// Cgroup levels below the attach root that are searched for a job. A job enrolled deeper is refused by the
/// agent; whatever is nested below an enrolled job is found through its ancestor.
pub const MAX_DEPTH: u32 = 16;

/// Enrolled jobs.
pub const MAX_JOBS: u32 = 4096;

/// Redirected sockets whose original destination the agent has not read yet.
pub const MAX_ORIGINS: u32 = 65_536;

/// Declared destinations, counting one per port and protocol.
pub const MAX_DESTINATIONS: u32 = 65_536;

/// Network namespaces with a listener of the gateway.
pub const MAX_NETNS: u32 = 1024;

/// Listeners in the socket map: two a network namespace, IPv4 first.
pub const MAX_LISTENERS: u32 = 2 * MAX_NETNS;

/// Bytes of the event ring buffer; a power of two and a multiple of the page size.
pub const EVENT_BYTES: u32 = 1 << 20;

/// Age at which the agent's heartbeat counts as dead, in nanoseconds.
pub const STALE_NS: u64 = 2_000_000_000;
