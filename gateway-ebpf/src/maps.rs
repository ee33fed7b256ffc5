//! Every map, and safe ways to read them.

use core::ptr::{self, NonNull};

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::{
        Array, ArrayOfMaps, HashMap, LpmTrie, PerCpuArray, RingBuf, SkStorage, SockMap, lpm_trie::Key,
    },
    helpers::{bpf_ktime_get_ns, generated::bpf_sk_storage_get},
    macros::btf_map,
};
use gateway_common::{
    Addr, Beat, Config, DestKey, Ends, Event, Job, Kin, Origin, Reason, Released, Seen, Stamp, decide, limits,
};

#[btf_map]
static CONFIG: Array<Config, 1> = Array::new();

#[btf_map]
static BEAT: Array<Beat, 1> = Array::new();

/// Enrolled jobs by cgroup id.
#[btf_map]
static JOBS: HashMap<u64, Job, { limits::MAX_JOBS as usize }> = HashMap::new();

/// Whose each cgroup is, by the low bits of its id. A miss costs a walk, and decides nothing.
#[btf_map]
static KIN: PerCpuArray<Kin, { limits::MAX_KIN as usize }> = PerCpuArray::new();

/// Jobs that are refused everything until the agent trusts their cgroup again.
#[btf_map]
static QUARANTINE: HashMap<u64, u32, { limits::MAX_JOBS as usize }> = HashMap::new();

/// What sockets of jobs carry.
#[btf_map]
static STAMPS: SkStorage<Stamp> = SkStorage::new();

/// Original destinations by socket cookie. Never an LRU: a full map denies, it does not forget.
#[btf_map]
pub static ORIGINS: HashMap<u64, Origin, { limits::MAX_ORIGINS as usize }> = HashMap::new();

/// Connections that were closed before the agent accepted them, by their ends.
#[btf_map]
static RELEASED: HashMap<Ends, Released, { limits::MAX_RELEASED as usize }> = HashMap::new();

/// How many of those the agent has taken, by job: its own side of the job's count, which it alone writes.
#[btf_map]
static RETURNED: HashMap<u64, u64, { limits::MAX_JOBS as usize }> = HashMap::new();

type Trie = LpmTrie<DestKey, u32, { limits::MAX_DESTINATIONS as usize }>;

/// The declared destinations: one trie, replaced whole.
#[btf_map]
static DESTINATIONS: ArrayOfMaps<Trie, 1> = ArrayOfMaps::new();

/// What it said about each destination, by the bits of its key. A miss costs a search, and decides nothing.
#[btf_map]
static SEEN: PerCpuArray<Seen, { limits::MAX_SEEN as usize }> = PerCpuArray::new();

/// Network namespaces with listeners: namespace cookie to slot.
#[btf_map]
static NETNS: HashMap<u64, u32, { limits::MAX_NETNS as usize }> = HashMap::new();

/// The gateway's sockets; see `decide::listener` for who is where.
#[btf_map]
pub static LISTENERS: SockMap<{ limits::MAX_LISTENERS as usize }> = SockMap::new();

#[btf_map]
pub static EVENTS: RingBuf<Event, { limits::EVENT_BYTES as usize }> = RingBuf::new();

/// How often each [`Reason`] was met.
#[btf_map]
static COUNTERS: PerCpuArray<u64, { limits::MAX_REASONS as usize }> = PerCpuArray::new();

#[inline(always)]
pub fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// Whether the agent lives.
#[inline(always)]
pub fn alive() -> bool {
    let Some(beat) = BEAT.get_ptr(0) else { return false };
    // SAFETY: the pointer comes from a lookup that did not miss. Volatile, and read before the clock, so that
    // a beat written in between is younger than the time it is compared with, not older.
    let at_ns = unsafe { ptr::read_volatile(&raw const (*beat).at_ns) };
    // SAFETY: no arguments, always available.
    decide::alive(at_ns, unsafe { bpf_ktime_get_ns() })
}

#[inline(always)]
pub fn is_job(cgroup: u64) -> bool {
    JOBS.get_ptr(cgroup).is_some()
}

/// Takes an entry of this CPU for writing, if it is as it was read. A program may be interrupted by one that handles a
/// packet, and on kernels that preempt also by one of another process, which may be preempted itself: of several that
/// began to write, one goes on.
#[inline(always)]
fn claim(sequence: *mut u64, read: u64) -> bool {
    if read & 1 != 0 {
        return false;
    }
    let mut found = read;
    // SAFETY: the pointer comes from a lookup that did not miss, and the field is 8-aligned. The target has no atomic
    // read-modify-write in core.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({sequence} + 0, r0, {odd})",
            sequence = in(reg) sequence,
            odd = in(reg) read.wrapping_add(1),
            inout("r0") found,
        );
    }
    found == read
}

/// What this CPU remembers about a cgroup, if it still counts: its job, and whether it is the gateway's. The sequence
/// tells whether anybody wrote meanwhile.
#[inline(always)]
pub fn kin(config: &Config, cgroup: u64) -> Option<(u64, bool)> {
    let kin = KIN.get_ptr_mut(cgroup as u32 & (limits::MAX_KIN - 1))?;
    // SAFETY: the pointer comes from a lookup that did not miss. Volatile, so that the order is kept.
    unsafe {
        let sequence = ptr::read_volatile(&raw const (*kin).sequence);
        let generation = ptr::read_volatile(&raw const (*kin).generation);
        let of = ptr::read_volatile(&raw const (*kin).cgroup);
        let job = ptr::read_volatile(&raw const (*kin).job);
        let gateway = ptr::read_volatile(&raw const (*kin).gateway);
        let still = ptr::read_volatile(&raw const (*kin).sequence);
        let whole = sequence & 1 == 0 && sequence == still;
        if whole && of == cgroup && generation == config.generation {
            Some((job, gateway != 0))
        } else {
            None
        }
    }
}

/// `generation`: of the settings that the walk began with.
#[inline(always)]
pub fn remember(generation: u32, cgroup: u64, job: u64, gateway: bool) {
    let Some(kin) = KIN.get_ptr_mut(cgroup as u32 & (limits::MAX_KIN - 1)) else { return };
    // SAFETY: as above.
    unsafe {
        let sequence = ptr::read_volatile(&raw const (*kin).sequence);
        if !claim(&raw mut (*kin).sequence, sequence) {
            return;
        }
        ptr::write_volatile(&raw mut (*kin).generation, generation);
        ptr::write_volatile(&raw mut (*kin).cgroup, cgroup);
        ptr::write_volatile(&raw mut (*kin).job, job);
        ptr::write_volatile(&raw mut (*kin).gateway, gateway as u32);
        ptr::write_volatile(&raw mut (*kin).sequence, sequence.wrapping_add(2));
    }
}

/// Whether the agent found something wrong with a job's cgroup.
#[inline(always)]
pub fn is_quarantined(config: &Config, job: u64) -> bool {
    config.quarantined != 0 && QUARANTINE.get_ptr(job).is_some()
}

/// One redirected socket more for the job. `false` at its limit; sockets racing for the last places may exceed
/// it by one for each CPU. `false` too when the job is gone.
#[inline(always)]
pub fn acquire(job: u64, limit: u32) -> bool {
    let Some(job) = JOBS.get_ptr_mut(job) else { return false };
    // SAFETY: the pointer comes from a lookup that did not miss.
    if unsafe { ptr::read_volatile(&raw const (*job).live) } >= limit as i64 {
        return false;
    }
    add(live(job), 1);
    true
}

#[inline(always)]
fn live(job: *mut Job) -> *mut i64 {
    // SAFETY: an address inside of what the caller looked up.
    unsafe { &raw mut (*job).live }
}

#[inline(always)]
fn kept(job: *mut Job) -> *mut i64 {
    // SAFETY: as above.
    unsafe { &raw mut (*job).kept }
}

#[inline(always)]
fn returned(job: u64) -> i64 {
    let Some(count) = RETURNED.get_ptr(job) else { return 0 };
    // SAFETY: the pointer comes from a lookup that did not miss. Volatile, because the agent writes it.
    unsafe { ptr::read_volatile(count) as i64 }
}

/// One redirected socket less.
#[inline(always)]
pub fn release(job: u64) {
    if let Some(job) = JOBS.get_ptr_mut(job) {
        add(live(job), 1_u64.wrapping_neg());
    }
}

/// Keeps the record of a connection that outlives its socket, if the agent has not taken it yet: from now on it is
/// found by the connection's ends. At no moment is there none. A job that has as many as its limit keeps no more, so
/// that it takes nobody else's place.
#[inline(always)]
pub fn keep(ends: &Ends, released: &Released, limit: u32) -> bool {
    let (id, cookie) = (released.origin.job, released.cookie);
    if ORIGINS.get_ptr(cookie).is_none() {
        return false;
    }
    let Some(job) = JOBS.get_ptr_mut(id) else { return false };
    // SAFETY: the pointer comes from a lookup that did not miss.
    let made = unsafe { ptr::read_volatile(kept(job)) };
    if made.wrapping_sub(returned(id)) >= limit as i64
        || RELEASED.insert(ends, released, BPF_NOEXIST.into()).is_err()
    {
        return false;
    }
    if ORIGINS.remove(cookie).is_ok() {
        add(kept(job), 1);
        return true;
    }
    // The agent was faster.
    let _ = RELEASED.remove(ends);
    false
}

/// Somebody connects with these ends: what an earlier connection with the same ones left speaks for it no more.
#[inline(always)]
pub fn outdate(ends: &Ends) {
    let Some(released) = RELEASED.get_ptr(ends) else { return };
    // SAFETY: the pointer comes from a lookup that did not miss.
    let job = unsafe { ptr::read_volatile(&raw const (*released).origin.job) };
    // Otherwise the agent was faster, and what was read may be anybody's.
    if RELEASED.remove(ends).is_ok()
        && let Some(job) = JOBS.get_ptr_mut(job)
    {
        add(kept(job), 1_u64.wrapping_neg());
    }
}

#[inline(always)]
fn add(field: *mut i64, count: u64) {
    // SAFETY: the pointer comes from a lookup that did not miss; the field is 8-aligned and only ever changed
    // by this instruction. The target has no atomic read-modify-write in core.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({field} + 0) += {count}",
            field = in(reg) field,
            count = in(reg) count,
        );
    }
}

/// Flags of every entry for this destination: exactly this port, and any port.
#[inline(always)]
pub fn destination(config: &Config, addr: Addr, port: u16, protocol: u8) -> u32 {
    let asked = DestKey::new(addr, port, protocol);
    // Before the trie: what changes meanwhile must not be remembered as newer than it is. The agent changes this
    // once no program has the old trie any more.
    // SAFETY: a field of a map value; volatile, because the agent writes it.
    let generation = unsafe { ptr::read_volatile(&raw const config.generation) };
    let seen = SEEN.get_ptr_mut(asked.place(limits::MAX_SEEN));
    if let Some(seen) = seen
        && let Some(flags) = recall(seen, generation, &asked)
    {
        return flags;
    }
    let Some(trie) = DESTINATIONS.get(0) else { return 0 };
    let mut key = Key::new(DestKey::BITS, asked);
    let exact = trie.get(&key).copied().unwrap_or(0);
    key.data.port = 0;
    let flags = exact | trie.get(&key).copied().unwrap_or(0);
    if let Some(seen) = seen {
        learn(seen, generation, &asked, flags);
    }
    flags
}

/// As in [`kin`].
#[inline(always)]
fn recall(seen: *mut Seen, generation: u32, asked: &DestKey) -> Option<u32> {
    // SAFETY: the pointer comes from a lookup that did not miss. Volatile, so that the order is kept.
    unsafe {
        let sequence = ptr::read_volatile(&raw const (*seen).sequence);
        let of = ptr::read_volatile(&raw const (*seen).generation);
        let key = ptr::read_volatile(&raw const (*seen).key);
        let flags = ptr::read_volatile(&raw const (*seen).flags);
        let still = ptr::read_volatile(&raw const (*seen).sequence);
        let whole = sequence & 1 == 0 && sequence == still;
        if whole && of == generation && key == *asked { Some(flags) } else { None }
    }
}

/// As in [`remember`].
#[inline(always)]
fn learn(seen: *mut Seen, generation: u32, asked: &DestKey, flags: u32) {
    // SAFETY: as above.
    unsafe {
        let sequence = ptr::read_volatile(&raw const (*seen).sequence);
        if !claim(&raw mut (*seen).sequence, sequence) {
            return;
        }
        ptr::write_volatile(&raw mut (*seen).generation, generation);
        ptr::write_volatile(&raw mut (*seen).key, *asked);
        ptr::write_volatile(&raw mut (*seen).flags, flags);
        ptr::write_volatile(&raw mut (*seen).sequence, sequence.wrapping_add(2));
    }
}

/// Whether jobs may exchange packets with this address directly.
#[inline(always)]
pub fn allowed(config: &Config, addr: Addr, port: u16, protocol: u8) -> bool {
    match decide::lookup_form(addr) {
        Some(addr) => {
            decide::destination(destination(config, addr, port, protocol), protocol as u32, false)
                == decide::Outcome::Pass
        }
        None => false,
    }
}

/// Whether the gateway listens in a network namespace.
#[inline(always)]
pub fn has_listener(netns: u64) -> bool {
    NETNS.get_ptr(netns).is_some()
}

#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason.code() as u32) {
        // SAFETY: the pointer comes from a lookup that did not miss; the slot belongs to this CPU, and a
        // count lost to an interrupting program is only a statistic.
        unsafe { *counter += 1 };
    }
}

/// The stamp of a socket that a job created.
///
/// # Safety
/// `sk` is the socket of the program's context.
#[inline(always)]
pub unsafe fn stamp(sk: *mut bpf_sock) -> Option<NonNull<Stamp>> {
    // SAFETY: the caller's promise; a null value without the create flag only looks up.
    NonNull::new(unsafe { bpf_sk_storage_get(stamps(), sk.cast(), ptr::null_mut(), 0) }.cast())
}

/// Stamps a socket at its birth. `false` when there is no memory for it.
///
/// # Safety
/// `sk` is the socket of the program's context.
#[inline(always)]
pub unsafe fn stamp_new(sk: *mut bpf_sock, job: u64, cgroup: u64) -> bool {
    let mut stamp = Stamp { job, cgroup, ..Stamp::default() };
    let value = (&raw mut stamp).cast();
    // SAFETY: the caller's promise; the value lives on the stack during the call, which copies it.
    let stored =
        unsafe { bpf_sk_storage_get(stamps(), sk.cast(), value, BPF_SK_STORAGE_GET_F_CREATE.into()) };
    !stored.is_null()
}

#[inline(always)]
fn stamps() -> *mut core::ffi::c_void {
    (&raw const STAMPS).cast_mut().cast()
}
