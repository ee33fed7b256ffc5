//! A process that does what a test asks, inside the network namespace and cgroup that it is started in:
//! `kernel-actor NETNS CGROUP`. Also the agent that a test kills: `kernel-actor NETNS CGROUP agent …`.

mod agent;
mod ask;
mod raw;

use std::{
    fs,
    io::{self, BufRead as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ask::{Answer, Ask};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    if std::env::args().nth(1).as_deref() == Some("self-test-helper") {
        return Ok(gateway_agent::kernel::help()?);
    }
    let netns = args.next().context("usage: kernel-actor NETNS CGROUP [agent …]")?;
    let cgroup = args.next().context("usage: kernel-actor NETNS CGROUP [agent …]")?;
    enter(Path::new(&cgroup)).with_context(|| format!("entering {cgroup}"))?;
    let netns = fs::File::open(&netns).with_context(|| format!("opening {netns}"))?;
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .context("entering the namespace")?;
    if args.next().is_some() {
        return agent::run(args);
    }
    let mut actor = Actor::default();
    for line in io::stdin().lock().lines() {
        let ask: Ask = serde_json::from_str(&line?)?;
        let started = Instant::now();
        let result = actor.act(ask);
        let micros = u64::try_from(started.elapsed().as_micros())?;
        let answer = match result {
            Ok((peer, local)) => Answer::Done { peer, local, micros },
            Err(error) => Answer::Failed {
                errno: error.raw_os_error().unwrap_or(if error.kind() == io::ErrorKind::TimedOut {
                    libc::ETIMEDOUT
                } else {
                    0
                }),
                micros,
            },
        };
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &answer)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

fn enter(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
}

#[derive(Default)]
struct Actor {
    prepared: Option<OwnedFd>,
    streams: Vec<TcpStream>,
    datagrams: Vec<UdpSocket>,
    listeners: Vec<TcpListener>,
}

type Ends = (Option<SocketAddr>, Option<SocketAddr>);

impl Actor {
    fn act(&mut self, ask: Ask) -> io::Result<Ends> {
        match ask {
            Ask::Connect { to } => {
                let stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
                self.keep(stream)
            }
            Ask::ConnectFrom { from, to } => {
                let socket = raw::socket(family(to), libc::SOCK_STREAM, 0)?;
                raw::bind(&socket, from)?;
                let stream = raw::connect(socket, to)?;
                self.keep(stream)
            }
            Ask::Prepare { v6 } => {
                let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
                self.prepared = Some(raw::socket(family, libc::SOCK_STREAM, 0)?);
                Ok((None, None))
            }
            Ask::ConnectPrepared { to } => {
                let socket = self.prepared.take().ok_or_else(|| io::Error::other("nothing prepared"))?;
                let stream = raw::connect(socket, to)?;
                self.keep(stream)
            }
            Ask::Datagram { to, connected } => {
                let any: SocketAddr = if to.is_ipv6() { "[::]:0".parse() } else { "0.0.0.0:0".parse() }
                    .map_err(io::Error::other)?;
                let socket = UdpSocket::bind(any)?;
                if connected {
                    socket.connect(to)?;
                    socket.send(b"datagram")?;
                } else {
                    socket.send_to(b"datagram", to)?;
                }
                self.datagrams.push(socket);
                Ok((None, None))
            }
            Ask::RoutedDatagram { to, via } => raw::routed_datagram(to, via).map(|()| (None, None)),
            Ask::Socket { family, kind, protocol } => {
                raw::socket(family, kind, protocol).map(drop).map(|()| (None, None))
            }
            Ask::Option { v6, level, name, value } => {
                let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
                let socket = raw::socket(family, libc::SOCK_STREAM, 0)?;
                raw::set_option(&socket, level, name, &value).map(|()| (None, None))
            }
            Ask::Listen { on } => {
                let listener = TcpListener::bind(on)?;
                let local = listener.local_addr()?;
                self.listeners.push(listener);
                Ok((None, Some(local)))
            }
            Ask::Enter { cgroup } => enter(&cgroup).map(|()| (None, None)),
            Ask::Cycle { to, count } => {
                for _ in 0..count {
                    TcpStream::connect(to)?;
                }
                Ok((None, None))
            }
            Ask::CloseAll => {
                *self = Self::default();
                Ok((None, None))
            }
        }
    }

    fn keep(&mut self, stream: TcpStream) -> io::Result<Ends> {
        let ends = (Some(stream.peer_addr()?), Some(stream.local_addr()?));
        self.streams.push(stream);
        Ok(ends)
    }
}

fn family(addr: SocketAddr) -> i32 {
    if addr.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET }
}
