//! The same calls through io_uring.
#![expect(unsafe_code, reason = "a submission holds addresses that must outlive it")]

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use io_uring::{IoUring, opcode, types::Fd};

use crate::raw::{self, Name};

fn ring(polled: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    if polled {
        builder.setup_sqpoll(50);
    }
    builder.build(4)
}

/// Submits one entry and waits for its result.
fn submit(polled: bool, entry: &io_uring::squeue::Entry) -> io::Result<i32> {
    let mut ring = ring(polled)?;
    // SAFETY: the callers keep what the entry points to until this returns, and it returns after completion.
    unsafe { ring.submission().push(entry) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let result = ring.completion().next().ok_or_else(|| io::Error::other("no completion"))?.result();
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

pub(crate) fn connect(socket: &OwnedFd, to: SocketAddr, polled: bool) -> io::Result<()> {
    let name = Name::new(to);
    let entry = opcode::Connect::new(Fd(socket.as_raw_fd()), name.as_ptr(), name.len()).build();
    submit(polled, &entry).map(drop)
}

pub(crate) fn send(socket: &OwnedFd, to: SocketAddr, polled: bool) -> io::Result<()> {
    raw::with_message(to, None, |message| {
        let entry = opcode::SendMsg::new(Fd(socket.as_raw_fd()), message).build();
        submit(polled, &entry).map(drop)
    })
}
