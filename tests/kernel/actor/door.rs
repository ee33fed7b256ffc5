//! Unix sockets, passed descriptors and processes: the host's doors beside the network.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    time::Duration,
};

use rustix::{
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
    process::{Pid, test_kill_process},
};

use crate::raw;

/// The first descriptor that comes.
pub(crate) fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    recvmsg(stream, &mut [io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut passed) = message
            && let Some(passed) = passed.next()
        {
            return Ok(passed);
        }
    }
    // What security modules refuse is left out of the message.
    Err(io::Error::from_raw_os_error(libc::EPERM))
}

/// To itself, and back as another descriptor.
pub(crate) fn pass(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let (here, there) = UnixStream::pair()?;
    let descriptors = [socket.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(&here, &[io::IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
    receive(&there)
}

/// Whether somebody may signal it.
pub(crate) fn signal(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("no pid"))?;
    test_kill_process(pid).map_err(Into::into)
}

/// Streams, datagrams, descriptors and processes within the job. Names what does not work.
pub(crate) fn own() -> io::Result<()> {
    let failed = |what: &'static str| {
        move |error: io::Error| {
            eprintln!("{what}: {error}");
            error
        }
    };
    let name = std::env::temp_dir().join(format!("own-{}", std::process::id()));
    let (streams, datagrams) = (name.with_extension("stream"), name.with_extension("datagram"));
    let done = (|| {
        let listener = UnixListener::bind(&streams)?;
        UnixStream::connect(&streams).map_err(failed("connecting to its own listener"))?;
        drop(listener);
        let receiver = UnixDatagram::bind(&datagrams)?;
        let sender = UnixDatagram::unbound()?;
        sender.send_to(b"x", &datagrams).map_err(failed("a datagram to its own socket"))?;
        receiver.set_read_timeout(Some(Duration::from_secs(1)))?;
        receiver.recv(&mut [0; 8])?;
        let (one, other) = UnixDatagram::pair()?;
        one.send(b"x").map_err(failed("a datagram through a pair"))?;
        other.recv(&mut [0; 8])?;
        let socket = raw::socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
        pass(&socket).map_err(failed("passing its own socket"))?;
        let Some(child) = raw::fork()? else {
            raw::alarm(20);
            loop {
                std::thread::park();
            }
        };
        let pid = child.as_raw_nonzero().get().unsigned_abs();
        let looked = signal(pid).map_err(failed("signalling its own child")).and_then(|()| {
            fs::read_link(format!("/proc/{pid}/exe")).map_err(failed("looking into its own child"))
        });
        let killed = rustix::process::kill_process(child, rustix::process::Signal::KILL);
        rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty())?;
        looked?;
        killed.map_err(io::Error::from)
    })();
    for path in [streams, datagrams] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    done
}
