//! Scripts: steps in a process of their own, so that namespaces, cgroups and descriptors of one do not outlive it.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    Ends,
    ask::{Answer, Step},
    door, errno, raw, ring,
};

/// How long a step may wait for a peer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The process of a script, which keeps its sockets open until this is dropped.
pub(crate) struct Running {
    pid: rustix::process::Pid,
    /// The child waits until this end is closed.
    _here: UnixStream,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It cannot have been reaped by anybody else.
        let _ = rustix::process::kill_process(self.pid, rustix::process::Signal::KILL);
        let _ = rustix::process::waitpid(Some(self.pid), rustix::process::WaitOptions::empty());
    }
}

pub(crate) fn run(steps: &[Step]) -> io::Result<(Running, Answer)> {
    let (mut here, there) = UnixStream::pair()?;
    let Some(pid) = raw::fork()? else {
        drop(here);
        // Longer than every step may take: a script never hangs the suite.
        raw::alarm(20);
        let mut there = there;
        let (answer, _open) = play(steps);
        let line = serde_json::to_vec(&answer).unwrap_or_default();
        let told = there.write_all(&line).and_then(|()| there.shutdown(std::net::Shutdown::Write));
        if told.is_ok() {
            // Until the parent is gone, or kills this process.
            let _ = there.read(&mut [0; 1]);
        }
        raw::exit_now(0)
    };
    drop(there);
    let mut line = Vec::new();
    let read = here.read_to_end(&mut line);
    let running = Running { pid, _here: here };
    read?;
    // A child that died of the attempt said nothing.
    let answer = serde_json::from_slice(&line).unwrap_or(Answer::Failed { errno: 0, micros: 0, step: 0 });
    Ok((running, answer))
}

fn play(steps: &[Step]) -> (Answer, Open) {
    let mut open = Open::default();
    let mut last = Duration::ZERO;
    for (step, what) in steps.iter().enumerate() {
        let started = Instant::now();
        let result = open.step(what);
        last = started.elapsed();
        if let Err(error) = result {
            return (Answer::Failed { errno: errno(&error), micros: micros(last), step }, open);
        }
    }
    let (peer, local) = open.ends();
    (Answer::Done { peer, local, micros: micros(last) }, open)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Default)]
struct Open {
    sockets: Vec<OwnedFd>,
}

impl Open {
    fn top(&self) -> io::Result<&OwnedFd> {
        self.sockets.last().ok_or_else(|| io::Error::other("the script has made no socket"))
    }

    fn ends(&self) -> Ends {
        let Some(socket) = self.sockets.last() else { return (None, None) };
        let peer = rustix::net::getpeername(socket).ok().and_then(|peer| SocketAddr::try_from(peer?).ok());
        let local = rustix::net::getsockname(socket).ok().and_then(|local| SocketAddr::try_from(local).ok());
        (peer, local)
    }

    fn step(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Socket { family, kind, protocol } => {
                self.sockets.push(raw::socket(*family, *kind, *protocol)?);
                Ok(())
            }
            Step::Option { level, name, value } => raw::set_option(self.top()?, *level, *name, value),
            Step::Bind { to } => raw::bind(self.top()?, *to),
            Step::Connect { to } => raw::connect_within(self.top()?, *to, PATIENCE),
            Step::Disconnect => raw::disconnect(self.top()?),
            Step::Send => {
                rustix::net::send(self.top()?, b"datagram", rustix::net::SendFlags::NOSIGNAL)?;
                Ok(())
            }
            Step::SendTo { to, flags, control } => raw::send_to(self.top()?, *to, *flags, control.as_ref()),
            Step::Listen => rustix::net::listen(self.top()?, 8).map_err(Into::into),
            Step::Receive => {
                raw::ready(self.top()?, libc::POLLIN, PATIENCE)?;
                rustix::net::recv(self.top()?, &mut [0; 64][..], rustix::net::RecvFlags::DONTWAIT)?;
                Ok(())
            }
            Step::ReceiveFrom { from } => {
                raw::ready(self.top()?, libc::POLLIN, PATIENCE)?;
                let (_, _, sender) =
                    rustix::net::recvfrom(self.top()?, &mut [0; 64][..], rustix::net::RecvFlags::DONTWAIT)?;
                let sender = sender.and_then(|sender| SocketAddr::try_from(sender).ok());
                if sender.is_some_and(|sender| (sender.ip(), sender.port()) == (from.ip(), from.port())) {
                    Ok(())
                } else {
                    Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL))
                }
            }
            Step::RingConnect { to, polled } => ring::connect(self.top()?, *to, *polled),
            Step::RingSend { to, polled } => ring::send(self.top()?, *to, *polled),
            Step::CompatConnect { to } => raw::compat_connect(*to),
            Step::X32Connect { to } => raw::x32_connect(self.top()?, *to),
            Step::Unshare { user, net } => {
                let flags =
                    if *user { libc::CLONE_NEWUSER } else { 0 } | if *net { libc::CLONE_NEWNET } else { 0 };
                raw::unshare(flags)
            }
            Step::Setns { path } => {
                let netns = fs::File::open(path)?;
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).map_err(Into::into)
            }
            Step::EnterCgroup { path } => crate::enter(path),
            Step::MakeDir { path } => fs::create_dir(path),
            Step::Unlink { path } => fs::remove_file(path),
            Step::Unmount { path } => {
                rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).map_err(Into::into)
            }
            Step::DetachPin { path } => raw::detach_pin(path),
            Step::LoadProgram => raw::load_program(),
            Step::UnixConnect { path } => {
                self.sockets.push(UnixStream::connect(path)?.into());
                Ok(())
            }
            Step::UnixSend { path } => UnixDatagram::unbound()?.send_to(b"datagram", path).map(drop),
            Step::OwnDoors => door::own(),
            Step::Signal { pid } => door::signal(*pid),
            Step::PassSocket => {
                let passed = door::pass(self.top()?)?;
                self.sockets.push(passed);
                Ok(())
            }
            Step::ReceiveSocket { path } => self.receive(path),
            Step::StealSocket { pid, fd } => {
                self.sockets.push(raw::steal(*pid, *fd)?);
                Ok(())
            }
            Step::Comm { name } => fs::write("/proc/thread-self/comm", name),
        }
    }

    fn receive(&mut self, path: &std::path::Path) -> io::Result<()> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let passed = door::receive(&stream)?;
        self.sockets.push(stream.into());
        // The passed one on top.
        self.sockets.push(passed);
        Ok(())
    }
}
