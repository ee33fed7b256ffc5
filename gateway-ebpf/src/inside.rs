//! Whose another process or socket is. No helper tells for anybody but the caller, so the programs follow the
//! kernel's own pointers, by the offsets that the agent took from the kernel's description of itself.
//!
//! What cannot be read is nobody's: good for no permission.

use core::{ffi::c_void, mem::MaybeUninit, ptr};

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use gateway_common::{Config, Offsets};

use crate::{maps, who::Who};

/// Set when the programs are loaded.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::UNKNOWN;

/// Cgroups from a process's own up to the root.
const MAX_LEVELS: u32 = 32;

/// One of [`OFFSETS`].
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: a static; volatile, because what the compiler sees in it is not what the agent puts there.
        u64::from(unsafe { ptr::read_volatile(&raw const OFFSETS.$field) })
    };
}

/// An address of the kernel's as a number: to the verifier a pointer of a hook is more than that, and may not be
/// calculated with.
#[inline(always)]
pub fn address<T>(pointer: *const T) -> u64 {
    let spilled = pointer;
    // SAFETY: reads the variable itself.
    unsafe { read((&raw const spilled).cast()) }.unwrap_or(0)
}

/// The process at the address of its `task_struct`.
#[inline(always)]
pub fn of_task(config: &Config, task: u64) -> Who {
    let set = word(task.wrapping_add(offset!(task_cgroups)));
    of_cgroup(config, word(set.wrapping_add(offset!(set_cgroup))))
}

/// Whoever made the socket at the address of its `struct sock`.
#[inline(always)]
pub fn of_sock(config: &Config, sock: u64) -> Who {
    of_cgroup(config, word(sock.wrapping_add(offset!(sock_cgroup))))
}

/// The `struct sock` of a `struct socket`.
#[inline(always)]
pub fn sock(socket: u64) -> u64 {
    word(socket.wrapping_add(offset!(socket_sk)))
}

#[inline(always)]
pub fn family(sock: u64) -> u16 {
    let at = sock.wrapping_add(offset!(sock_family));
    // SAFETY: as in `word`.
    unsafe { read(at as *const c_void) }.unwrap_or(0)
}

#[inline(always)]
fn of_cgroup(config: &Config, mut cgroup: u64) -> Who {
    let mut who = Who::Nobody;
    for _ in 0..MAX_LEVELS {
        if cgroup == 0 {
            break;
        }
        let node = word(cgroup.wrapping_add(offset!(cgroup_node)));
        let id = word(node.wrapping_add(offset!(node_id)));
        if id != 0 && maps::is_job(id) {
            return Who::Job(id);
        }
        if id != 0 && id == config.gateway {
            who = Who::Gateway;
        }
        // A cgroup contains its own state, and that one knows the parent's.
        let parent = word(cgroup.wrapping_add(offset!(cgroup_self)).wrapping_add(offset!(css_parent)));
        cgroup = if parent == 0 { 0 } else { parent.wrapping_sub(offset!(cgroup_self)) };
    }
    who
}

/// Eight bytes of the kernel's memory, or 0.
#[inline(always)]
fn word(at: u64) -> u64 {
    // SAFETY: the helper checks the address, and fails where nothing is mapped.
    unsafe { read(at as *const c_void) }.unwrap_or(0)
}

/// # Safety
/// Any bytes are a value of `T`.
#[inline(always)]
unsafe fn read<T>(at: *const c_void) -> Option<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the target is as long as it says; the helper checks the source. The caller's promise for the rest.
    unsafe {
        (bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, at) == 0)
            .then(|| value.assume_init())
    }
}
