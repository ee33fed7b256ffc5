//! The wire oracle: a packet socket at the far end.
#![expect(unsafe_code, reason = "one socket option that rustix does not offer")]

use std::{
    net::UdpSocket,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use super::{FAR_V4, enter};

/// Sees every IP packet that arrives at the far end, whoever it claims to be from. Neighbour discovery and
/// multicast reports, which are the kernel's own, do not count.
pub(super) struct Canary {
    packets: OwnedFd,
    /// Of the last marker: an older one says nothing about what came after it.
    marker: AtomicU64,
}

impl Canary {
    pub(super) fn new(netns: &str) -> Self {
        let netns = netns.to_owned();
        let packets = std::thread::spawn(move || {
            const ETH_P_ALL: u32 = 3;
            enter(&netns);
            let all = rustix::net::RawProtocol::new(ETH_P_ALL.to_be() >> 16).unwrap();
            let protocol = rustix::net::Protocol::from_raw(all);
            let socket =
                socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::NONBLOCK, Some(protocol))
                    .unwrap();
            ignore_outgoing(&socket);
            rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20).unwrap();
            socket
        })
        .join()
        .unwrap();
        Self { packets, marker: AtomicU64::new(0) }
    }

    /// Sends a marker from the host, which no program concerns, and counts what arrived before it.
    pub(super) fn drain_until_marker(&self) -> u32 {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut buffer = [0; 2048];
        let mut count = 0;
        let sender = UdpSocket::bind("198.51.100.1:0").unwrap();
        let mut sent = None::<Instant>;
        let first = self.marker.load(Ordering::Relaxed) + 1;
        loop {
            // Sent again, because the first ones of a new namespace may be lost.
            if sent.is_none_or(|at| at.elapsed() > Duration::from_millis(200)) {
                let number = self.marker.fetch_add(1, Ordering::Relaxed) + 1;
                sender.send_to(&marker(number), (FAR_V4, 9)).unwrap();
                sent = Some(Instant::now());
            }
            match recv(&self.packets, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, length)) => match classify(&buffer[..length]) {
                    Packet::Marker(number) if number >= first => return count,
                    Packet::Marker(_) | Packet::Noise => {}
                    Packet::Canary => count += 1,
                },
                Err(rustix::io::Errno::AGAIN) => std::thread::yield_now(),
                Err(error) => panic!("canary: {error}"),
            }
            assert!(Instant::now() < deadline, "the marker never arrived");
        }
    }
}

/// Only what comes from the host counts, not what the far end sends.
fn ignore_outgoing(socket: &OwnedFd) {
    const PACKET_IGNORE_OUTGOING: i32 = 23;
    let on = 1_i32;
    // SAFETY: the value is as long as it says and outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_IGNORE_OUTGOING,
            (&raw const on).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "PACKET_IGNORE_OUTGOING: {}", std::io::Error::last_os_error());
}

enum Packet {
    Marker(u64),
    Noise,
    Canary,
}

const MARKER: &[u8] = b"marker of the canary";

fn marker(number: u64) -> Vec<u8> {
    [MARKER, &number.to_be_bytes()].concat()
}

fn classify(frame: &[u8]) -> Packet {
    if let Some((head, number)) = frame.split_last_chunk::<8>()
        && head.ends_with(MARKER)
    {
        return Packet::Marker(u64::from_be_bytes(*number));
    }
    match frame.get(12..14) {
        Some([0x08, 0x06]) => Packet::Noise,
        Some([0x86, 0xdd]) if is_housekeeping(frame) => Packet::Noise,
        _ => Packet::Canary,
    }
}

/// Multicast listener reports and neighbour discovery.
fn is_housekeeping(frame: &[u8]) -> bool {
    let Some(next) = frame.get(20) else { return false };
    let kind = match next {
        // A hop-by-hop header of eight bytes comes before listener reports.
        0 if frame.get(54) == Some(&58) => frame.get(62),
        58 => frame.get(54),
        _ => None,
    };
    matches!(kind, Some(130..=137 | 143))
}
