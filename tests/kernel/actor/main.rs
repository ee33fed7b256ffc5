//! A process that does what a test asks, inside the network namespace and cgroup that it is started in:
//! `kernel-actor NETNS CGROUP USER`. Also the agent that a test kills: `kernel-actor NETNS CGROUP root agent …`.
//! `kernel-actor self-test-helper` is the process that the kernel module's self-test puts into a job.

mod agent;
#[path = "../ask.rs"]
mod ask;
mod door;
mod random;
mod raw;
mod repeat;
mod ring;
mod script;
mod user;

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

const USAGE: &str = "usage: kernel-actor NETNS CGROUP root|contained|plain [agent …]";

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("self-test-helper") {
        return Ok(gateway_agent::kernel::help()?);
    }
    let mut args = std::env::args().skip(1);
    let netns = args.next().context(USAGE)?;
    let cgroup = args.next().context(USAGE)?;
    let user = args.next().context(USAGE)?;
    enter(Path::new(&cgroup)).with_context(|| format!("entering {cgroup}"))?;
    let netns = fs::File::open(&netns).with_context(|| format!("opening {netns}"))?;
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .context("entering the namespace")?;
    drop(netns);
    user::become_user(&user).with_context(|| format!("becoming {user}"))?;
    if args.next().is_some() {
        return agent::run(args);
    }
    let mut actor = Actor::default();
    for line in io::stdin().lock().lines() {
        let ask: Ask = serde_json::from_str(&line?)?;
        let answer = actor.answer(ask)?;
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &answer)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

pub(crate) fn enter(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
}

pub(crate) fn errno(error: &io::Error) -> i32 {
    let timeout = if error.kind() == io::ErrorKind::TimedOut { libc::ETIMEDOUT } else { 0 };
    error.raw_os_error().unwrap_or(timeout)
}

#[derive(Default)]
struct Actor {
    prepared: Option<OwnedFd>,
    streams: Vec<TcpStream>,
    datagrams: Vec<UdpSocket>,
    listeners: Vec<TcpListener>,
    script: Option<script::Running>,
}

pub(crate) type Ends = (Option<SocketAddr>, Option<SocketAddr>);

impl Actor {
    fn answer(&mut self, ask: Ask) -> io::Result<Answer> {
        match ask {
            Ask::Script(steps) => {
                drop(self.script.take());
                let (running, answer) = script::run(&steps)?;
                self.script = Some(running);
                return Ok(answer);
            }
            Ask::Random { seed, millis, raw } => {
                return Ok(random::run(seed, Duration::from_millis(millis), raw));
            }
            Ask::Hammer { millis, redirected, allowed, forbidden } => {
                return Ok(repeat::hammer(Duration::from_millis(millis), redirected, allowed, forbidden));
            }
            _ => {}
        }
        let started = Instant::now();
        let result = self.act(ask);
        let micros = u64::try_from(started.elapsed().as_micros()).map_err(io::Error::other)?;
        Ok(match result {
            Ok((peer, local)) => Answer::Done { peer, local, micros },
            Err(error) => Answer::Failed { errno: errno(&error), micros, step: 0 },
        })
    }

    fn act(&mut self, ask: Ask) -> io::Result<Ends> {
        match ask {
            Ask::Connect { to } => {
                let stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
                self.keep(stream)
            }
            Ask::ConnectFrom { from, to } => {
                let socket = raw::socket(family(to), libc::SOCK_STREAM, 0)?;
                // Closing resets the connection, so that the same addresses can be used again at once.
                raw::set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32.to_ne_bytes())?;
                let linger = [1_i32.to_ne_bytes(), 0_i32.to_ne_bytes()].concat();
                raw::set_option(&socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger)?;
                raw::bind(&socket, from)?;
                let stream = raw::connect(socket, to)?;
                self.keep(stream)
            }
            Ask::Leave { from, to, words, count } => leave(from, to, &words, count),
            Ask::Prepare { v6 } => {
                let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
                self.prepared = Some(raw::socket(family, libc::SOCK_STREAM, 0)?);
                Ok((None, None))
            }
            Ask::PassPrepared => {
                let socket = self.prepared.take().ok_or_else(|| io::Error::other("nothing prepared"))?;
                self.prepared = Some(door::pass(&socket)?);
                Ok((None, None))
            }
            Ask::ConnectPrepared { to } => {
                let socket = self.prepared.take().ok_or_else(|| io::Error::other("nothing prepared"))?;
                let stream = raw::connect(socket, to)?;
                self.keep(stream)
            }
            Ask::Datagram { to, connected } => {
                let socket = UdpSocket::bind(any(to))?;
                if connected {
                    socket.connect(to)?;
                    socket.send(b"datagram")?;
                } else {
                    socket.send_to(b"datagram", to)?;
                }
                self.datagrams.push(socket);
                Ok((None, None))
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
            Ask::Repeat { what, to, count } => repeat::repeat(what, to, count).map(|()| (None, None)),
            Ask::Bulk { to, mebibytes } => repeat::bulk(to, mebibytes).map(|()| (None, None)),
            Ask::CloseAll => {
                *self = Self::default();
                Ok((None, None))
            }
            Ask::Script(_) | Ask::Random { .. } | Ask::Hammer { .. } => {
                Err(io::Error::other("answered before"))
            }
        }
    }

    fn keep(&mut self, stream: TcpStream) -> io::Result<Ends> {
        let ends = (Some(stream.peer_addr()?), Some(stream.local_addr()?));
        self.streams.push(stream);
        Ok(ends)
    }
}

/// As a client does that wants no answer. The local end is that of the last turn.
fn leave(from: Option<SocketAddr>, to: SocketAddr, words: &str, count: u32) -> io::Result<Ends> {
    let mut last = None;
    for turn in 0..count {
        let socket = raw::socket(family(to), libc::SOCK_STREAM, 0)?;
        if let Some(from) = from {
            raw::set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32.to_ne_bytes())?;
            raw::bind(&socket, from)?;
        }
        let mut stream = raw::connect(socket, to)?;
        last = Some(stream.local_addr()?);
        stream.write_all(format!("{words} {turn}").as_bytes())?;
    }
    Ok((None, last))
}

pub(crate) fn family(addr: SocketAddr) -> i32 {
    if addr.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET }
}

pub(crate) fn any(like: SocketAddr) -> SocketAddr {
    if like.is_ipv6() {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    }
}
