//! What the tests do to BPF objects behind everybody's back.
#![expect(unsafe_code, reason = "bpf(2) has no safe interface")]

use std::{
    ffi::CString,
    io,
    net::Ipv4Addr,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use gateway_agent::kernel::Hook;

const PROG_LOAD: libc::c_long = 5;
const OBJ_GET: libc::c_long = 7;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const LINK_DETACH: libc::c_long = 34;

const CGROUP_INET4_CONNECT: u32 = 10;

/// Calls bpf(2).
///
/// # Safety
/// `attr` is the attribute of `command`, and every address in it is valid for what the command does with it.
unsafe fn bpf<const N: usize>(command: libc::c_long, attr: &mut [u64; N]) -> io::Result<i32> {
    // SAFETY: the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), N * 8) };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: a new descriptor that nobody else knows.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn number(fd: &OwnedFd) -> u64 {
    u64::from(fd.as_raw_fd().unsigned_abs())
}

/// Takes a hook's program off, whoever holds the link. Nothing, when the hook is off already.
pub(crate) fn detach(pin_dir: &Path, hook: Hook) {
    let path = CString::new(pin_dir.join(format!("link_{}", hook.name())).as_os_str().as_bytes()).unwrap();
    let mut get = [path.as_ptr().expose_provenance() as u64, 0];
    // SAFETY: the path is NUL-terminated and outlives the call.
    let link = owned(unsafe { bpf(OBJ_GET, &mut get) }.unwrap_or_else(|error| panic!("{path:?}: {error}")));
    let mut attr = [number(&link)];
    // SAFETY: the attribute is a descriptor alone.
    unsafe { bpf(LINK_DETACH, &mut attr) }.unwrap_or_else(|error| panic!("detaching {path:?}: {error}"));
}

/// The two ways in which a cgroup shares a hook with its parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Override,
    Multi,
}

/// Detaches on drop.
pub(crate) struct Attached {
    cgroup: OwnedFd,
    program: OwnedFd,
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut attr =
            [number(&self.cgroup) | (number(&self.program) << 32), u64::from(CGROUP_INET4_CONNECT)];
        // SAFETY: the attribute holds descriptors and numbers.
        if let Err(error) = unsafe { bpf(PROG_DETACH, &mut attr) } {
            eprintln!("detaching: {error}");
        }
    }
}

/// Attaches a connect4 program that sends everything to one address and allows it.
pub(crate) fn attach_rewriting_connect4(cgroup: &Path, to: Ipv4Addr, how: How) -> io::Result<Attached> {
    let address = u64::from(u32::from_ne_bytes(to.octets()));
    let code: [u64; 4] = [
        0x0000_0000_0000_02b4 | (address << 32), // w2 = address
        0x0000_0000_0004_2163,                   // *(u32 *)(r1 + 4) = w2: user_ip4
        0x0000_0001_0000_00b4,                   // w0 = 1
        0x0000_0000_0000_0095,                   // exit
    ];
    let program = load(18, CGROUP_INET4_CONNECT, &code)?;
    let cgroup: OwnedFd = std::fs::File::open(cgroup)?.into();
    let flags = match how {
        How::Override => 1,
        How::Multi => 2,
    };
    let mut attr =
        [number(&cgroup) | (number(&program) << 32), u64::from(CGROUP_INET4_CONNECT) | (flags << 32), 0];
    // SAFETY: the attribute holds descriptors and numbers.
    unsafe { bpf(PROG_ATTACH, &mut attr) }?;
    Ok(Attached { cgroup, program })
}

fn load(kind: u32, attach: u32, code: &[u64]) -> io::Result<OwnedFd> {
    let licence = c"GPL";
    let mut attr = [0_u64; 9];
    attr[0] = u64::from(kind) | ((code.len() as u64) << 32);
    attr[1] = code.as_ptr().expose_provenance() as u64;
    attr[2] = licence.as_ptr().expose_provenance() as u64;
    // expected_attach_type lies at byte 68.
    attr[8] = u64::from(attach) << 32;
    // SAFETY: code and licence outlive the call, and the count is the code's.
    unsafe { bpf(PROG_LOAD, &mut attr) }.map(owned)
}
