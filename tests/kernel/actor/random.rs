//! Random socket calls. The same seed makes the same calls; what the kernel does between them may differ.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use crate::{
    ask::{Answer, Control},
    raw, ring,
};

/// xorshift64*, which is random enough to pick calls.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.roll() >> 16) % limit
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let place = usize::try_from(self.below(all.len() as u64)).unwrap_or(0);
        all[place]
    }

    fn bytes(&mut self, limit: u64) -> Vec<u8> {
        (0..self.below(limit)).map(|_| self.roll().to_le_bytes()[3]).collect()
    }
}

/// AF_PACKET, AF_VSOCK and AF_XDP, which only the LSM tier sees, are tried when `raw` is set.
pub(crate) fn run(seed: u64, time: Duration, raw: bool) -> Answer {
    let mut dice = Dice(seed | 1);
    let deadline = Instant::now() + time;
    let (mut calls, mut refused) = (0, 0);
    let mut sockets: Vec<OwnedFd> = Vec::new();
    while Instant::now() < deadline {
        if sockets.is_empty() || dice.below(4) == 0 {
            if sockets.len() >= 16 {
                drop(sockets.swap_remove(usize::try_from(dice.below(16)).unwrap_or(0)));
            }
            match make(&mut dice, raw) {
                Ok(socket) => sockets.push(socket),
                Err(error) => refused += u64::from(is_refusal(&error)),
            }
            calls += 1;
            continue;
        }
        let place = usize::try_from(dice.below(sockets.len() as u64)).unwrap_or(0);
        if let Err(error) = call(&mut dice, &sockets[place]) {
            refused += u64::from(is_refusal(&error));
        }
        calls += 1;
    }
    Answer::Called { calls, refused }
}

fn is_refusal(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPERM)
}

fn make(dice: &mut Dice, raw: bool) -> io::Result<OwnedFd> {
    let inet = [libc::AF_INET, libc::AF_INET6];
    let family = match dice.below(12) {
        0..=9 => dice.one_of(&inet),
        // Any family at all; netlink stays out, because root could take the wire itself away with it.
        10 => i32::try_from(dice.below(48)).unwrap_or(0),
        _ => dice.one_of(&[libc::AF_PACKET, libc::AF_VSOCK, libc::AF_XDP, 43, 30]),
    };
    let lsm_only = matches!(family, libc::AF_PACKET | libc::AF_VSOCK | libc::AF_XDP);
    if family == libc::AF_NETLINK || (lsm_only && !raw) {
        return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
    }
    let kind = dice.one_of(&[
        libc::SOCK_STREAM,
        libc::SOCK_STREAM,
        libc::SOCK_DGRAM,
        libc::SOCK_DGRAM,
        libc::SOCK_RAW,
        libc::SOCK_SEQPACKET,
        libc::SOCK_RDM,
        6,  // SOCK_DCCP
        10, // SOCK_PACKET
    ]);
    let protocol = match dice.below(4) {
        0 | 1 => 0,
        2 => dice.one_of(&[1, 2, 6, 17, 33, 41, 47, 58, 115, 132, 136, 255, 256, 262]),
        _ => i32::try_from(dice.below(300)).unwrap_or(0),
    };
    raw::socket(family, kind | libc::SOCK_NONBLOCK, protocol)
}

fn address(dice: &mut Dice) -> SocketAddr {
    let port = dice.one_of(&[1, 22, 53, 80, 443, 853, 5432, 15001, 33434, 65535]);
    let v4 = match dice.below(9) {
        0 => Ipv4Addr::new(198, 51, 100, 2),
        1 => Ipv4Addr::new(203, 0, 113, 9),
        2 => Ipv4Addr::UNSPECIFIED,
        3 => Ipv4Addr::LOCALHOST,
        4 => Ipv4Addr::BROADCAST,
        5 => Ipv4Addr::new(224, 0, 0, 251),
        6 => Ipv4Addr::new(198, 51, 100, 1),
        7 => Ipv4Addr::new(198, 51, 100, 255),
        _ => Ipv4Addr::from_bits(dice.roll() as u32),
    };
    let v6: Ipv6Addr = match dice.below(12) {
        0 => return SocketAddr::new(v4.into(), port),
        1 | 2 => v4.to_ipv6_mapped(),
        3 => Ipv6Addr::UNSPECIFIED,
        4 => Ipv6Addr::LOCALHOST,
        5 => Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 2),
        6 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        7 => Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xc633, 0x6402),
        8 => Ipv6Addr::new(0x2002, 0xc633, 0x6402, 0, 0, 0, 0, 1),
        9 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2),
        10 => Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 9),
        _ => return SocketAddr::new(v4.into(), port),
    };
    std::net::SocketAddrV6::new(v6, port, 0, u32::try_from(dice.below(4)).unwrap_or(0)).into()
}

fn control(dice: &mut Dice) -> Option<Control> {
    if dice.below(2) == 0 {
        return None;
    }
    let (level, kind) = match dice.below(3) {
        0 => (libc::IPPROTO_IPV6, dice.one_of(&[50, 52, 54, 55, 57, 59, 66, 67, 2, 3, 4, 5])),
        1 => (libc::IPPROTO_IP, dice.one_of(&[1, 2, 6, 7, 8])),
        _ => (libc::SOL_SOCKET, dice.one_of(&[36, 37, 47, 61])),
    };
    let mut data = dice.bytes(48);
    if dice.below(2) == 0 {
        // A routing header of the kind that the kernel still sends.
        data = vec![0, 2, dice.one_of(&[0, 2, 4]), 1, 0, 0, 0, 0];
        data.extend(Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 2).octets());
    }
    Some(Control { level, kind, data })
}

fn call(dice: &mut Dice, socket: &OwnedFd) -> io::Result<()> {
    let to = address(dice);
    match dice.below(14) {
        0 | 1 => rustix::net::connect(socket, &to).map_err(Into::into),
        2 => raw::disconnect(socket),
        3 | 4 => {
            let control = control(dice);
            let flags = dice.one_of(&[
                0,
                0,
                libc::MSG_FASTOPEN,
                libc::MSG_MORE,
                libc::MSG_DONTROUTE,
                libc::MSG_CONFIRM,
            ]);
            raw::send_to(socket, to, flags | libc::MSG_DONTWAIT, control.as_ref())
        }
        5 => {
            rustix::net::send(
                socket,
                b"datagram",
                rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT,
            )?;
            Ok(())
        }
        6 => rustix::net::bind(socket, &to).map_err(Into::into),
        7 => rustix::net::listen(socket, 4).map_err(Into::into),
        8 | 9 => {
            let level = dice.one_of(&[0, 0, 1, 6, 17, 41, 41, 255, 263]);
            let name = i32::try_from(dice.below(80)).unwrap_or(0);
            let value = match dice.below(3) {
                0 => 1_i32.to_ne_bytes().to_vec(),
                1 => b"veth0\0".to_vec(),
                _ => dice.bytes(64),
            };
            raw::set_option(socket, level, name, &value)
        }
        10 => rustix::net::shutdown(
            socket,
            dice.one_of(&[rustix::net::Shutdown::Read, rustix::net::Shutdown::Both]),
        )
        .map_err(Into::into),
        11 => raw::x32_connect(socket, to),
        // A connection attempt that hangs would wait for its end: datagrams only.
        12 if rustix::net::sockopt::socket_type(socket) == Ok(rustix::net::SocketType::DGRAM) => {
            ring::connect(socket, to, dice.below(8) == 0)
        }
        _ => match rustix::net::sockopt::socket_type(socket) {
            Ok(rustix::net::SocketType::DGRAM) => ring::send(socket, to, dice.below(8) == 0),
            _ => rustix::net::accept(socket).map(drop).map_err(Into::into),
        },
    }
}
