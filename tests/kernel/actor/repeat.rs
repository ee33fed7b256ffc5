//! The same call many times: for measuring, and for hammering while programs are replaced.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use crate::{
    any,
    ask::{Answer, Hammered, Repeat},
    errno,
};

pub(crate) fn repeat(what: Repeat, to: SocketAddr, count: u32) -> io::Result<()> {
    match what {
        Repeat::RefusedConnect => {
            for _ in 0..count {
                if TcpStream::connect(to).is_ok() {
                    return Err(io::Error::other("it was not refused"));
                }
            }
        }
        Repeat::DatagramConnect => {
            let socket = UdpSocket::bind(any(to))?;
            for _ in 0..count {
                socket.connect(to)?;
            }
        }
        Repeat::DatagramSend => {
            let socket = UdpSocket::bind(any(to))?;
            for _ in 0..count {
                socket.send_to(b"datagram", to)?;
            }
        }
    }
    Ok(())
}

pub(crate) fn bulk(to: SocketAddr, mebibytes: u32) -> io::Result<()> {
    let chunk = vec![0_u8; 1 << 18];
    let mut stream = TcpStream::connect(to)?;
    for _ in 0..mebibytes * 4 {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

/// TCP connects that are redirected, UDP connects that are allowed (no packet leaves for those), and forbidden
/// ones of both.
pub(crate) fn hammer(
    time: Duration,
    redirected: SocketAddr,
    allowed: SocketAddr,
    forbidden: SocketAddr,
) -> Answer {
    let mut seen = Hammered::default();
    let mut good = |result: io::Result<()>| {
        seen.allowed += 1;
        if let Err(error) = result {
            seen.refused += 1;
            seen.errno = errno(&error);
        }
    };
    let deadline = Instant::now() + time;
    let mut bad = (0, 0);
    while Instant::now() < deadline {
        good(TcpStream::connect_timeout(&redirected, Duration::from_secs(5)).map(drop));
        good(datagram(allowed));
        let tcp = TcpStream::connect_timeout(&forbidden, Duration::from_millis(500)).map(drop);
        for result in [tcp, datagram(forbidden)] {
            bad.0 += 1;
            if !matches!(&result, Err(error) if error.raw_os_error() == Some(libc::EPERM)) {
                bad.1 += 1;
            }
        }
    }
    (seen.forbidden, seen.passed) = bad;
    Answer::Hammered(seen)
}

fn datagram(to: SocketAddr) -> io::Result<()> {
    UdpSocket::bind(any(to))?.connect(to)
}
