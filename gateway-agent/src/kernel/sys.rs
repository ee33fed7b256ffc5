//! The system calls that no library offers: links that are replaced in place, and a few of their relatives.
//!
//! Every function takes and returns owned or borrowed descriptors and plain values; no pointer leaves it.
#![expect(unsafe_code, reason = "bpf(2) and friends have no safe interface")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;

/// Attach points, `enum bpf_attach_type` of linux/bpf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum AttachType {
    Ingress = 0,
    Egress = 1,
    SockCreate = 2,
    Bind4 = 8,
    Bind6 = 9,
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    Recvmsg4 = 19,
    Recvmsg6 = 20,
    Setsockopt = 22,
    Getpeername4 = 29,
    Getpeername6 = 30,
    SockRelease = 34,
    SkLookup = 36,
    LsmCgroup = 43,
}

/// What the kernel says about a link.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkInfo {
    pub(super) program: u32,
    /// Cgroup id, or inode of the network namespace; 0 when the target is gone.
    pub(super) target: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    rest: [u64; 6],
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Info {
    fd: u32,
    len: u32,
    info: u64,
}

/// `struct bpf_link_info` up to the members that cgroup and netns links fill, with room to spare.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    zero: u32,
    /// Cgroup: id as u64. Netns: inode as u32, then the attach type.
    target: [u32; 2],
    rest: [u64; 8],
}

#[repr(C)]
struct Element {
    map_fd: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `struct { … } query` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    zero: u32,
    rest: [u64; 4],
}

const LINK_TYPE_NETNS: u32 = 5;

/// Calls bpf(2).
///
/// # Safety
/// `attr` is the attribute struct of `command`, and every address inside it is valid for what the command
/// does with it.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    let attr: *mut T = attr;
    // SAFETY: the caller's promise; the kernel reads and writes size_of::<T>() bytes at most.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A descriptor that the kernel just made for us.
fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: a new descriptor, close-on-exec, that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    // A valid descriptor is never negative.
    fd.as_raw_fd().unsigned_abs()
}

/// Attaches a program to a cgroup or network namespace.
pub(super) fn link_create(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: AttachType,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        prog_fd: number(program),
        target_fd: number(target),
        attach_type: attach_type as u32,
        ..LinkCreate::default()
    };
    // SAFETY: the attribute struct of this command; it holds no address.
    owned(unsafe { bpf(BPF_LINK_CREATE, &mut attr) }?)
}

/// Puts another program behind a link; packets and calls see the old one or the new one, never none.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr =
        LinkUpdate { link_fd: number(link), new_prog_fd: number(program), ..LinkUpdate::default() };
    // SAFETY: the attribute struct of this command; it holds no address.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

/// Detaches a link for good, whoever else holds it. Returns when the program runs no more.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = number(link);
    // SAFETY: the attribute of this command is the descriptor alone.
    unsafe { bpf(BPF_LINK_DETACH, &mut attr) }.map(drop)
}

pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = RawLinkInfo::default();
    let mut attr = Info {
        fd: number(link),
        len: size_of::<RawLinkInfo>() as u32,
        info: (&raw mut info).expose_provenance() as u64,
    };
    // SAFETY: `info` is as long as it says, and outlives the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let [low, high] = info.target;
    let target = if info.kind == LINK_TYPE_NETNS {
        u64::from(low)
    } else {
        let mut id = [0; 8];
        id[..4].copy_from_slice(&low.to_ne_bytes());
        id[4..].copy_from_slice(&high.to_ne_bytes());
        u64::from_ne_bytes(id)
    };
    Ok(LinkInfo { program: info.prog_id, target })
}

/// Ids of the programs that run on a cgroup, those of its ancestors included, or in a network namespace, in the
/// order in which they run. Fails with ENOSPC when there are more than 1024.
pub(super) fn effective_programs(target: BorrowedFd<'_>, attach_type: AttachType) -> io::Result<Vec<u32>> {
    const EFFECTIVE: u32 = 1;
    let mut ids = vec![0u32; 1024];
    let mut attr = Query {
        target_fd: number(target),
        attach_type: attach_type as u32,
        // Network namespaces have no ancestors, and no flags.
        query_flags: if attach_type == AttachType::SkLookup { 0 } else { EFFECTIVE },
        prog_ids: ids.as_mut_ptr().expose_provenance() as u64,
        prog_cnt: ids.len() as u32,
        ..Query::default()
    };
    // SAFETY: the attribute struct of this command; the array is as long as it says and outlives the call.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr) }?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

/// Opens what is pinned at a path.
pub(super) fn object_get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut attr = Object { path: path.as_ptr().expose_provenance() as u64, ..Object::default() };
    // SAFETY: the path is NUL-terminated and outlives the call.
    owned(unsafe { bpf(BPF_OBJ_GET, &mut attr) }?)
}

/// Pins a map, program or link.
pub(super) fn object_pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut attr =
        Object { path: path.as_ptr().expose_provenance() as u64, fd: number(object), ..Object::default() };
    // SAFETY: the path is NUL-terminated and outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// Takes an element out of a hash map: of several callers, exactly one gets it. The map's key and value must
/// have the sizes of `K` and `V`.
pub(super) fn map_take<K: aya::Pod, V: aya::Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = std::mem::MaybeUninit::<V>::zeroed();
    let mut attr = Element {
        map_fd: number(map),
        zero: 0,
        key: (&raw const *key).expose_provenance() as u64,
        value: value.as_mut_ptr().expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: key and value outlive the call and have the map's sizes, which the caller promises and the one
    // caller checks when it opens the map.
    match unsafe { bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) } {
        // SAFETY: V is plain data, zeroed before and filled by the kernel.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first four bytes of element 0 of an array map, whatever its layout. Values of up to 256 bytes.
pub(super) fn map_first_word(map: BorrowedFd<'_>) -> io::Result<u32> {
    let key = 0u32;
    let mut value = [0u32; 64];
    let mut attr = Element {
        map_fd: number(map),
        zero: 0,
        key: (&raw const key).expose_provenance() as u64,
        value: value.as_mut_ptr().expose_provenance() as u64,
        flags: 0,
    };
    let size = map_shape(map)?.value;
    if size > size_of_val(&value) {
        return Err(io::Error::other(format!("values of {size} bytes")));
    }
    // SAFETY: an array map's key has four bytes, and its values fit, as just checked; both outlive the call.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) }?;
    Ok(value[0])
}

/// Sizes of a map's elements in bytes, and how many it holds at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) key: usize,
    pub(super) value: usize,
    pub(super) entries: u32,
}

pub(super) fn map_shape(map: BorrowedFd<'_>) -> io::Result<Shape> {
    // struct bpf_map_info: type, id, key_size, value_size, max_entries, …
    let mut info = [0u32; 64];
    let mut attr = Info {
        fd: number(map),
        len: size_of_val(&info) as u32,
        info: info.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: `info` is as long as it says, and outlives the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let [_, _, key, value, entries, ..] = info;
    Ok(Shape { key: key as usize, value: value as usize, entries })
}

/// CLOCK_MONOTONIC in nanoseconds: the clock of bpf_ktime_get_ns.
pub(super) fn monotonic_ns() -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct outlives the call.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).map_err(io::Error::other)?;
    let nanos = u64::try_from(time.tv_nsec).map_err(io::Error::other)?;
    Ok(seconds * 1_000_000_000 + nanos)
}

/// Identity of the network namespace that a socket lives in. Linux 5.14.
pub(super) fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the value is as long as `len` says, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// The user namespace that a namespace belongs to: who made it. EPERM when that one is not below the caller's.
/// Linux 4.9.
pub(super) fn ns_owner(ns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: the request takes no argument.
    let fd = unsafe { libc::ioctl(ns.as_raw_fd(), NS_GET_USERNS as _) };
    if fd < 0 { Err(io::Error::last_os_error()) } else { owned(fd.into()) }
}

/// Waits until a descriptor is readable. `false` after the timeout.
pub(super) fn readable(fd: BorrowedFd<'_>, timeout: std::time::Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one element, which outlives the call.
    match unsafe { libc::poll(&raw mut poll, 1, millis) } {
        0 => Ok(false),
        count if count > 0 => Ok(true),
        _ => {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) }
        }
    }
}
