//! Proof at start that a refusal is a refusal.
//!
//! A helper process in a throw-away cgroup does what jobs do, over every mandatory path: once before the cgroup
//! is a job, where it has to work, and once after, where it has to fail with EPERM, while the far ends, which
//! belong to the agent, hear nothing. A path that this host does not have (no IPv6) fails before and is left out.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Error, Kernel, cgroup_id};

/// How long the helper may take for all of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// One path, tried before and after the cgroup was a job. `Err` is an errno.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub path: String,
    pub before: Result<(), i32>,
    pub after: Result<(), i32>,
}

impl Probe {
    /// What it shows.
    pub fn verdict(&self) -> Verdict {
        match (&self.before, &self.after) {
            (Err(_), _) => Verdict::Absent,
            (Ok(()), Err(libc::EPERM)) => Verdict::Refused,
            _ => Verdict::Open,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It worked outside of a job, and was refused inside.
    Refused,
    /// It does not work on this host anyway.
    Absent,
    /// It was not refused, or not by us.
    Open,
}

/// Why nothing was proved.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    #[error("self-test: {step}: {source}")]
    Step { step: &'static str, source: io::Error },
    #[error(transparent)]
    Kernel(#[from] Error),
    #[error("self-test: the helper process said {0:?}")]
    Helper(String),
    #[error("self-test: a job's packet reached the agent's own {0}")]
    Heard(&'static str),
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> SelfTestError {
    move |source| SelfTestError::Step { step, source }
}

/// What the helper is told, and how it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Targets {
    tcp: Vec<SocketAddr>,
    udp: Vec<SocketAddr>,
    virtual_port: u16,
}

impl Kernel {
    /// Runs the test, with a helper that was started meanwhile or long before. `closed` says whether loopback is closed to
    /// jobs, as it is unless the configuration opens it: where it is open, the job is put in quarantine instead,
    /// which closes everything.
    ///
    /// # Errors
    /// When the test could not be made. What it found is in the probes.
    pub fn self_test(&self, mut helper: Helper, closed: bool) -> Result<Vec<Probe>, SelfTestError> {
        let ends = Ends::listen().map_err(step("listening on loopback"))?;
        let place = Place::make(&self.config.cgroup_root).map_err(step("making a cgroup"))?;
        let id = cgroup_id(&place.dir)?;
        fs::write(place.dir.join("cgroup.procs"), helper.child.id().to_string())
            .map_err(step("moving the helper into its cgroup"))?;
        let targets = Targets { tcp: ends.tcp(), udp: ends.udp(), virtual_port: self.config.virtual_port };
        let before: Vec<(String, Result<(), i32>)> = helper.ask(&targets)?;
        ends.drain();
        self.add_job(id)?;
        let confined = Confined { kernel: self, id };
        if !closed {
            self.quarantine(id, true)?;
        }
        let after: Vec<(String, Result<(), i32>)> = helper.ask(&targets)?;
        drop(helper);
        if let Some(heard) = ends.drain() {
            return Err(SelfTestError::Heard(heard));
        }
        drop(confined);
        let pairs = before.into_iter().zip(after);
        Ok(pairs.map(|((path, before), (_, after))| Probe { path, before, after }).collect())
    }
}

/// The job goes with the test.
struct Confined<'a> {
    kernel: &'a Kernel,
    id: u64,
}

impl Drop for Confined<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.kernel.remove_job(self.id) {
            tracing::warn!(%error, "the self-test's job stays in the kernel until the next boot");
        }
    }
}

/// The cgroup goes with the test, once nobody is in it.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn make(root: &Path) -> io::Result<Self> {
        let dir = root.join(format!("gateway-self-test-{}", std::process::id()));
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                Err(io::Error::other(format!(
                    "{} is mounted read-only; under systemd, set ProtectControlGroups=no",
                    root.display()
                )))
            }
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Self { dir }),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let until = Instant::now() + PATIENCE;
        while let Err(error) = fs::remove_dir(&self.dir) {
            // A killed process leaves its cgroup a moment after it was waited for.
            if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() > until {
                tracing::warn!(%error, cgroup = %self.dir.display(), "the self-test's cgroup stays");
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// The agent's own far ends.
struct Ends {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Ends {
    fn listen() -> io::Result<Self> {
        let mut ends = Self { tcp: Vec::new(), udp: Vec::new() };
        for ip in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()] {
            // Without the family there is nothing to refuse.
            let (Ok(tcp), Ok(udp)) = (TcpListener::bind(ip), UdpSocket::bind(ip)) else { continue };
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            ends.tcp.push(tcp);
            ends.udp.push(udp);
        }
        if ends.tcp.is_empty() {
            return Err(io::Error::other("neither 127.0.0.1 nor ::1 is there"));
        }
        Ok(ends)
    }

    fn tcp(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|end| end.local_addr().ok()).collect()
    }

    fn udp(&self) -> Vec<SocketAddr> {
        self.udp.iter().filter_map(|end| end.local_addr().ok()).collect()
    }

    /// Takes what arrived; says where, if anything did.
    fn drain(&self) -> Option<&'static str> {
        let mut heard = None;
        for end in &self.tcp {
            while end.accept().is_ok() {
                heard = Some("TCP listener");
            }
        }
        for end in &self.udp {
            while end.recv_from(&mut [0; 16]).is_ok() {
                heard = Some("UDP socket");
            }
        }
        heard
    }
}

/// A process that waits to be told what to try: started before an agent gives up running programs. Killed when
/// dropped, and ends by itself when its starter is gone.
#[derive(Debug)]
pub struct Helper {
    child: Child,
}

impl Helper {
    /// `command` starts a program that calls [`help`].
    ///
    /// # Errors
    /// Those of starting a process.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(Self { child })
    }

    fn ask<T: for<'a> Deserialize<'a>>(&mut self, targets: &Targets) -> Result<T, SelfTestError> {
        let mut talk = || -> io::Result<String> {
            let (stdin, stdout) = (self.child.stdin.as_mut(), self.child.stdout.as_mut());
            let (stdin, stdout) = stdin.zip(stdout).ok_or_else(|| io::Error::other("no pipes"))?;
            serde_json::to_writer(&mut *stdin, targets)?;
            stdin.write_all(b"\n")?;
            stdin.flush()?;
            if !super::sys::readable(stdout.as_fd(), PATIENCE)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // One line at a time: nothing of a next answer is read ahead.
            let mut line = String::new();
            BufReader::with_capacity(64 * 1024, stdout).read_line(&mut line)?;
            Ok(line)
        };
        let line = talk().map_err(step("talking to the helper"))?;
        serde_json::from_str(&line).map_err(|_| SelfTestError::Helper(line))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The helper's own part: for each line on standard input, tries every path and answers with a line.
///
/// # Errors
/// When standard input or output end in the middle of something.
pub fn help() -> io::Result<()> {
    let mut kept = Vec::new();
    for line in io::stdin().lock().lines() {
        let targets: Targets = serde_json::from_str(&line?)?;
        let answer = try_all(&targets, &mut kept);
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &answer)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

type Answer = Vec<(String, Result<(), i32>)>;

/// `kept`: datagram sockets that were connected in the first round and only send in the second.
fn try_all(targets: &Targets, kept: &mut Vec<Socket>) -> Answer {
    let mut answer = Vec::new();
    let mut note = |path: String, result: io::Result<()>| {
        answer.push((path, result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))));
    };
    for to in &targets.tcp {
        let connect = || tcp(*to)?.connect_timeout(&(*to).into(), PATIENCE / 10);
        note(format!("connect {}", family(*to)), connect());
    }
    let first = kept.is_empty();
    for (number, to) in targets.udp.iter().enumerate() {
        let at: SockAddr = (*to).into();
        let connected = || {
            let socket = udp(*to)?;
            socket.connect(&at)?;
            socket.send(b"self-test")?;
            Ok(socket)
        };
        note(
            format!("datagram {}", family(*to)),
            udp(*to).and_then(|socket| socket.send_to(b"self-test", &at)).map(drop),
        );
        match connected() {
            Ok(socket) if first => {
                kept.push(socket);
                note(format!("connected datagram {}", family(*to)), Ok(()));
            }
            result => note(format!("connected datagram {}", family(*to)), result.map(drop)),
        }
        let old = kept.get(number).map_or(Ok(()), |socket| socket.send(b"self-test").map(drop));
        note(format!("datagram {} on a socket from before", family(*to)), old);
    }
    for to in &targets.tcp {
        let bind = || {
            let mut at = *to;
            at.set_port(targets.virtual_port);
            let socket = tcp(*to)?;
            socket.set_reuse_address(true)?;
            socket.bind(&at.into())
        };
        note(format!("bind {} to the gateway's port", family(*to)), bind());
        let option =
            || tcp(*to).and_then(|socket| setsockopt(&socket, sockopt::Mark, &0).map_err(io::Error::from));
        note(format!("mark {}", family(*to)), option());
        let raw = || {
            Socket::new(Domain::for_address(*to), Type::from(libc::SOCK_RAW), Some(Protocol::TCP)).map(drop)
        };
        note(format!("raw socket {}", family(*to)), raw());
    }
    answer
}

fn tcp(to: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))
}

fn udp(to: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))
}

fn family(addr: SocketAddr) -> &'static str {
    if addr.is_ipv6() { "IPv6" } else { "IPv4" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_by_us_counts() {
        let probe = |before, after| Probe { path: "connect".into(), before, after }.verdict();
        assert_eq!(probe(Ok(()), Err(libc::EPERM)), Verdict::Refused);
        assert_eq!(probe(Ok(()), Ok(())), Verdict::Open);
        assert_eq!(
            probe(Ok(()), Err(libc::ECONNREFUSED)),
            Verdict::Open,
            "somebody else's refusal proves nothing"
        );
        assert_eq!(probe(Err(libc::EAFNOSUPPORT), Err(libc::EAFNOSUPPORT)), Verdict::Absent);
    }

    #[test]
    fn outside_of_a_job_every_path_works_twice() {
        let ends = Ends::listen().unwrap();
        let targets = Targets { tcp: ends.tcp(), udp: ends.udp(), virtual_port: 0 };
        let mut kept = Vec::new();
        for _ in 0..2 {
            for (path, result) in try_all(&targets, &mut kept) {
                let privileged = path.starts_with("mark") || path.starts_with("raw");
                assert!(
                    result.is_ok() || (privileged && !rustix::process::geteuid().is_root()),
                    "{path}: {result:?}"
                );
            }
        }
        assert!(ends.drain().is_some());
        assert_eq!(ends.drain(), None);
    }
}
