//! Socket calls that the standard library would not make.
#![expect(
    unsafe_code,
    reason = "socket(2), setsockopt(2) and sendmsg(2) with arguments of the test's choice"
)]

use std::{
    io,
    mem::size_of,
    net::{Ipv6Addr, SocketAddr, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

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

/// A UDP datagram with a type 0 routing header whose last hop is `to` and whose first is `via`.
pub(crate) fn routed_datagram(to: SocketAddr, via: Ipv6Addr) -> io::Result<()> {
    const IPV6_RTHDR: i32 = 57;
    let SocketAddr::V6(to) = to else { return Err(io::Error::other("IPv6 only")) };
    let socket = socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?;
    // Next header (the kernel's), length in 8 bytes, type 2 (one address, what the kernel still sends),
    // segments left, four reserved bytes, one address.
    let mut header = vec![0, 2, 2, 1, 0, 0, 0, 0];
    header.extend(to.ip().octets());
    let mut name = libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as libc::sa_family_t,
        sin6_port: to.port().to_be(),
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: via.octets() },
        sin6_scope_id: 0,
    };
    let mut payload = *b"datagram";
    let mut part = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    let mut control = [0u64; 16];
    let header_len = u32::try_from(header.len()).map_err(io::Error::other)?;
    // SAFETY: everything that the message points to outlives the call; the control buffer is 8-aligned and
    // holds one header of this length.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_name = (&raw mut name).cast();
        message.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(header_len) as _;
        let cmsg = libc::CMSG_FIRSTHDR(&raw const message);
        (*cmsg).cmsg_level = libc::IPPROTO_IPV6;
        (*cmsg).cmsg_type = IPV6_RTHDR;
        (*cmsg).cmsg_len = libc::CMSG_LEN(header_len) as _;
        std::ptr::copy_nonoverlapping(header.as_ptr(), libc::CMSG_DATA(cmsg), header.len());
        if libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
