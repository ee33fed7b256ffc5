//! The system calls of the sandbox that no library offers.
//!
//! Every function takes and returns owned or borrowed descriptors and plain values; no pointer leaves it.
#![expect(unsafe_code, reason = "clone3, mount_setattr and close_range have no safe interface")]

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
};

/// `struct clone_args` of linux/sched.h, up to the member that Linux 5.7 added.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Starts a program as a child that is born in a cgroup, so that it never was anywhere else, and in new mount and
/// IPC namespaces and, when asked, in a new pid namespace whose first process it is. Returns its pidfd.
///
/// The program gets this process's standard streams and whatever else is not close-on-exec. When it cannot be
/// run, the child ends with status 125.
pub(crate) fn spawn_in_cgroup(
    cgroup: BorrowedFd<'_>,
    program: &CStr,
    arguments: &[CString],
    environment: &[CString],
    new_pids: bool,
) -> io::Result<OwnedFd> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let flag = |flag: libc::c_int| u64::from(flag.unsigned_abs());
    let mut flags =
        CLONE_INTO_CGROUP | flag(libc::CLONE_PIDFD) | flag(libc::CLONE_NEWNS) | flag(libc::CLONE_NEWIPC);
    if new_pids {
        flags |= flag(libc::CLONE_NEWPID);
    }
    let list = |words: &[CString]| -> Vec<*const libc::c_char> {
        words.iter().map(|w| w.as_ptr()).chain([ptr::null()]).collect()
    };
    // Made before the child exists: it must not allocate.
    let (arguments, environment) = (list(arguments), list(environment));
    let mut pidfd: RawFd = -1;
    let args = CloneArgs {
        flags,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: flag(libc::SIGCHLD),
        cgroup: u64::from(cgroup.as_raw_fd().unsigned_abs()),
        ..CloneArgs::default()
    };
    // SAFETY: the argument struct is as long as stated, and the address in it outlives the call. Without CLONE_VM
    // the child has a copy of this process's memory, as after fork(2), and does nothing but execve(2) and
    // _exit(2), which are async-signal-safe.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match pid {
        0 => {
            // SAFETY: in the child. Both lists end with a null pointer, and their strings are in its copy of memory.
            unsafe {
                libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr());
                libc::_exit(125)
            }
        }
        pid if pid > 0 => {
            // SAFETY: a new descriptor, close-on-exec, that the kernel put there and nobody else knows.
            Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a mount and everything mounted below it read-only. Linux 5.12.
pub(crate) fn read_only_below(mount: &Path) -> io::Result<()> {
    let path = CString::new(mount.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is NUL-terminated, the struct is as long as stated, and both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A user namespace in which `uid` and `gid` of its inside are `to` outside, and nothing else is anything: what
/// [`map_owner`] takes. Needs /proc of the caller's own pid namespace, and CAP_SETUID and CAP_SETGID.
pub(crate) fn owner_namespace(from: (u32, u32), to: (u32, u32)) -> io::Result<OwnedFd> {
    let mut pidfd: RawFd = -1;
    let args = CloneArgs {
        flags: u64::from(libc::CLONE_NEWUSER.unsigned_abs() | libc::CLONE_PIDFD.unsigned_abs()),
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        ..CloneArgs::default()
    };
    // SAFETY: the argument struct is as long as stated, and the address in it outlives the call. Without CLONE_VM
    // the child has a copy of this process's memory, as after fork(2), and does nothing but pause(2), which is
    // async-signal-safe.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match pid {
        // In the child. It waits to be killed; should its parent end first, the namespace's init or the death signal
        // of the whole job ends it.
        0 => loop {
            // SAFETY: takes nothing, and touches no memory.
            unsafe { libc::pause() };
        },
        pid if pid > 0 => {
            // SAFETY: a new descriptor, close-on-exec, that the kernel put there and nobody else knows.
            let child = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let made = describe_owner(pid, from, to);
            rustix::process::pidfd_send_signal(&child, rustix::process::Signal::KILL)?;
            rustix::process::waitid(
                rustix::process::WaitId::PidFd(child.as_fd()),
                rustix::process::WaitIdOptions::EXITED,
            )?;
            made
        }
        _ => Err(io::Error::last_os_error()),
    }
}

fn describe_owner(pid: libc::c_long, from: (u32, u32), to: (u32, u32)) -> io::Result<OwnedFd> {
    std::fs::write(format!("/proc/{pid}/uid_map"), format!("{} {} 1\n", from.0, to.0))?;
    std::fs::write(format!("/proc/{pid}/gid_map"), format!("{} {} 1\n", from.1, to.1))?;
    Ok(std::fs::File::open(format!("/proc/{pid}/ns/user"))?.into())
}

/// Files on a detached mount that belong to an id inside of the namespace belong to the id outside, and the other way
/// round when they are made; those of others belong to nobody, and set-user-ID means nothing. mount_setattr(2), "ID-mapped
/// mounts"; Linux 5.12, and a file system that can.
pub(crate) fn map_owner(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(namespace.as_raw_fd().unsigned_abs()),
    };
    // SAFETY: the path is NUL-terminated, the struct is as long as stated, and both outlive the call; the descriptors
    // are borrowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Every descriptor from 3 on closes when this process becomes another program.
pub(crate) fn close_on_exec_from_3() -> io::Result<()> {
    let flags = libc::c_int::try_from(libc::CLOSE_RANGE_CLOEXEC).map_err(io::Error::other)?;
    // SAFETY: close_range(2) with CLOSE_RANGE_CLOEXEC closes nothing now and touches no memory; it sets the
    // close-on-exec flag on descriptors from 3 on, which no owner of them in this process can observe as a
    // descriptor gone.
    let result = unsafe { libc::close_range(3, libc::c_uint::MAX, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes over a socket that this process was started with, under a new number; the old number is closed.
///
/// Call it before anything else opens descriptors: a number that is taken meanwhile would be somebody else's.
pub(crate) fn take_inherited_socket(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_DUPFD_CLOEXEC takes a number and touches no memory; a bad number is an error.
    let fd = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else knows.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::net::sockopt::socket_type(&fd)?;
    // SAFETY: the number was inherited for this, so no value in this process owns it.
    unsafe { libc::close(number) };
    Ok(fd)
}
