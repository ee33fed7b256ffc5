//! Socket calls that the standard library would not make.
#![expect(unsafe_code, reason = "system calls with arguments of the test's choice")]

use std::{
    io,
    mem::size_of,
    net::{SocketAddr, SocketAddrV4, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use crate::ask::Control;

pub(crate) fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn set_option(socket: &OwnedFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the value is as long as it says and outlives the call.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len) }).map(drop)
}

pub(crate) fn bind(socket: &OwnedFd, addr: SocketAddr) -> io::Result<()> {
    rustix::net::bind(socket, &addr).map_err(Into::into)
}

pub(crate) fn connect(socket: OwnedFd, addr: SocketAddr) -> io::Result<TcpStream> {
    rustix::net::connect(&socket, &addr)?;
    Ok(TcpStream::from(socket))
}

/// Connects without blocking, and waits until it is decided.
pub(crate) fn connect_within(socket: &OwnedFd, addr: SocketAddr, time: Duration) -> io::Result<()> {
    rustix::io::ioctl_fionbio(socket, true)?;
    match rustix::net::connect(socket, &addr) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    ready(socket, libc::POLLOUT, time)?;
    Ok(rustix::net::sockopt::socket_error(socket)??)
}

pub(crate) fn ready(socket: &OwnedFd, events: i16, time: Duration) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
    let millis = i32::try_from(time.as_millis()).map_err(io::Error::other)?;
    // SAFETY: one element, which outlives the call.
    match check(unsafe { libc::poll(&raw mut poll, 1, millis) })? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// connect(2) to AF_UNSPEC.
pub(crate) fn disconnect(socket: &OwnedFd) -> io::Result<()> {
    let nobody = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let len = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the address is as long as it says and outlives the call.
    check(unsafe { libc::connect(socket.as_raw_fd(), &raw const nobody, len) }).map(drop)
}

/// A socket address as the kernel takes it.
pub(crate) enum Name {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl Name {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(v4) => Self::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => Self::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            }),
        }
    }

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        match self {
            Self::V4(name) => (&raw const *name).cast(),
            Self::V6(name) => (&raw const *name).cast(),
        }
    }

    pub(crate) fn len(&self) -> libc::socklen_t {
        let size = match self {
            Self::V4(_) => size_of::<libc::sockaddr_in>(),
            Self::V6(_) => size_of::<libc::sockaddr_in6>(),
        };
        size as libc::socklen_t
    }
}

/// Builds a message to an address, and lends it.
pub(crate) fn with_message<T>(
    to: SocketAddr,
    control: Option<&Control>,
    work: impl FnOnce(*const libc::msghdr) -> io::Result<T>,
) -> io::Result<T> {
    let name = Name::new(to);
    let mut payload = *b"datagram";
    let mut part = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    let mut buffer = [0_u64; 64];
    // SAFETY: integers and pointers; zero is a value of each.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = name.as_ptr().cast_mut().cast();
    message.msg_namelen = name.len();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(control) = control {
        let len = u32::try_from(control.data.len()).map_err(io::Error::other)?;
        // SAFETY: arithmetic only.
        let space = unsafe { libc::CMSG_SPACE(len) } as usize;
        if space > size_of_val(&buffer) {
            return Err(io::Error::other("too much ancillary data"));
        }
        message.msg_control = buffer.as_mut_ptr().cast();
        message.msg_controllen = space as _;
        // SAFETY: the buffer is 8-aligned and holds one header with this much data.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = control.level;
            (*header).cmsg_type = control.kind;
            (*header).cmsg_len = libc::CMSG_LEN(len) as _;
            std::ptr::copy_nonoverlapping(control.data.as_ptr(), libc::CMSG_DATA(header), control.data.len());
        }
    }
    work(&raw const message)
}

pub(crate) fn send_to(
    socket: &OwnedFd,
    to: SocketAddr,
    flags: i32,
    control: Option<&Control>,
) -> io::Result<()> {
    with_message(to, control, |message| {
        // SAFETY: the message and what it points to outlive the call.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), message, flags | libc::MSG_NOSIGNAL) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    })
}

/// connect(2) by its number in the x32 table.
pub(crate) fn x32_connect(socket: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    const X32: libc::c_long = 0x4000_0000;
    let name = Name::new(to);
    // SAFETY: the address is as long as it says and outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_connect | X32, socket.as_raw_fd(), name.as_ptr(), name.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// socket(2) and connect(2) of the 32-bit table. A kernel without it kills the process.
#[cfg(target_arch = "x86_64")]
pub(crate) fn compat_connect(to: SocketAddrV4) -> io::Result<()> {
    const SOCKET: u32 = 359;
    const CONNECT: u32 = 362;
    let Name::V4(name) = Name::new(to.into()) else { return Err(io::Error::other("IPv4 only")) };
    // SAFETY: anonymous memory, below 4 GiB, where 32-bit calls can name it.
    let low = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        )
    };
    if low == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a page is enough for an address.
    unsafe { low.cast::<libc::sockaddr_in>().write(name) };
    let call = |number: u32, first: u32, second: u32, third: u32| -> io::Result<u32> {
        let result: u32;
        // SAFETY: the kernel reads the page above at most, and keeps every register but eax and, on some
        // versions, r8 to r11. LLVM keeps rbx for itself, so it is exchanged by hand.
        unsafe {
            std::arch::asm!(
                "xchg rbx, {first:r}",
                "int 0x80",
                "xchg rbx, {first:r}",
                first = inout(reg) u64::from(first) => _,
                inout("eax") number => result,
                in("ecx") second,
                in("edx") third,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        let signed = result.cast_signed();
        if signed < 0 { Err(io::Error::from_raw_os_error(-signed)) } else { Ok(result) }
    };
    let address = u32::try_from(low.addr()).map_err(io::Error::other)?;
    let socket = call(SOCKET, libc::AF_INET.cast_unsigned(), libc::SOCK_STREAM.cast_unsigned(), 0)?;
    call(CONNECT, socket, address, size_of::<libc::sockaddr_in>() as u32).map(drop)
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn compat_connect(_to: SocketAddrV4) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// A descriptor of another process, by pidfd_getfd(2).
pub(crate) fn steal(pid: u32, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if pidfd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: no pointers.
    let stolen = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, fd, 0) };
    if stolen < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(stolen).map_err(io::Error::other)?) })
}

/// BPF_OBJ_GET, then BPF_LINK_DETACH.
pub(crate) fn detach_pin(path: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    const OBJ_GET: libc::c_long = 7;
    const LINK_DETACH: libc::c_long = 34;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut get = [path.as_ptr().expose_provenance() as u64, 0, 0];
    // SAFETY: the attribute of this command: a path, which outlives the call, and two zeros.
    let link = unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET, get.as_mut_ptr(), size_of_val(&get)) };
    if link < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut detach = [u32::try_from(link).map_err(io::Error::other)?, 0];
    // SAFETY: the attribute of this command: a descriptor.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, LINK_DETACH, detach.as_mut_ptr(), size_of_val(&detach)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// BPF_PROG_LOAD of `return 1` for the connect hook.
pub(crate) fn load_program() -> io::Result<()> {
    const PROG_LOAD: libc::c_long = 5;
    const SOCK_ADDR: u64 = 18;
    const CONNECT4: u32 = 10;
    // mov r0, 1; exit
    let code: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];
    let licence = c"GPL";
    // prog_type and insn_cnt, insns, license; expected_attach_type lies at byte 68.
    let mut attr = [0_u64; 16];
    attr[0] = SOCK_ADDR | (2 << 32);
    attr[1] = code.as_ptr().expose_provenance() as u64;
    attr[2] = licence.as_ptr().expose_provenance() as u64;
    attr[8] = u64::from(CONNECT4) << 32;
    // SAFETY: the attribute of this command; what it points to outlives the call.
    let program = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, attr.as_mut_ptr(), 72) };
    if program < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// fork(2), for a process without threads.
pub(crate) fn fork() -> io::Result<Option<rustix::process::Pid>> {
    // SAFETY: the actor has one thread, so the child may call anything.
    let pid = check(unsafe { libc::fork() })?;
    Ok(rustix::process::Pid::from_raw(pid))
}

/// Ends the process at once, without running what the parent's copy would run as well.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: no pointers; does not return.
    unsafe { libc::_exit(code) }
}

/// SIGALRM, whose default is death, after this many seconds.
pub(crate) fn alarm(seconds: u32) {
    // SAFETY: no pointers.
    unsafe { libc::alarm(seconds) };
}

pub(crate) fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: no pointers; the caller has one thread and shares nothing that this changes.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
