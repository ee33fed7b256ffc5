//! Moves bytes between two sockets and a session.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use protocol::{
    Leg,
    postgres::{Output, Session},
};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::io::poll_read_buf;

use super::stream::Stream;

/// Spare room offered to a read: small while little comes, larger while reads fill it.
const READ_MIN: usize = 8 * 1024;
const READ_MAX: usize = 64 * 1024;

/// One leg and how it has been behaving.
pub struct Pipe {
    stream: Option<Stream>,
    room: usize,
    /// Bytes were handed to the stream that it may still hold back (TLS records).
    unflushed: bool,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// What one poll of the legs brought about.
#[derive(Debug)]
pub enum Moved {
    /// Bytes went in or out.
    Bytes,
    /// The leg's peer will send no more.
    Eof(Leg),
    Failed(Leg, io::Error),
}

impl Pipe {
    pub fn new(stream: Stream) -> Self {
        Self { stream: Some(stream), room: READ_MIN, unflushed: false, bytes_in: 0, bytes_out: 0 }
    }

    /// The stream, to start TLS on; the pipe is of no use until it is restored.
    pub fn take_stream(&mut self) -> Option<Stream> {
        self.stream.take()
    }

    /// Puts the stream back, with TLS on it.
    pub fn restore(&mut self, stream: Stream) {
        self.stream = Some(stream);
    }

    /// Says goodbye and closes.
    pub async fn shutdown(&mut self, patience: Duration) {
        if let Some(mut stream) = self.stream.take() {
            // The peer may be gone already.
            let _ = tokio::time::timeout(patience, stream.shutdown()).await;
        }
    }

    /// Writes all it can. Ready(true): something was written and nothing is left.
    fn poll_write(&mut self, cx: &mut Context<'_>, output: &mut Output) -> Poll<io::Result<bool>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let mut wrote = false;
        while !output.is_empty() {
            let n = ready!(Pin::new(&mut *stream).poll_write(cx, output.bytes()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            output.advance(n);
            self.bytes_out += n as u64;
            self.unflushed = true;
            wrote = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut *stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(wrote))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, input: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        input.reserve(self.room);
        let offered = input.capacity() - input.len();
        let n = ready!(poll_read_buf(Pin::new(stream), cx, input))?;
        self.bytes_in += n as u64;
        self.room = if n == offered { (self.room * 2).min(READ_MAX) } else { self.room };
        Poll::Ready(Ok(n))
    }

    /// Gives memory back while the session idles.
    pub fn relax(&mut self) {
        self.room = READ_MIN;
    }
}

/// Writes what the session has for either leg, then reads what it can use. Pending: nothing moved that the session
/// could go on with, and the task is woken when something can.
pub fn poll(
    cx: &mut Context<'_>,
    session: &mut Session,
    job: &mut Pipe,
    upstream: Option<&mut Pipe>,
) -> Poll<Moved> {
    let mut moved = false;
    match job.poll_write(cx, session.job_out()) {
        Poll::Ready(Ok(wrote)) => moved |= wrote && !session.wants_input(),
        Poll::Ready(Err(error)) => return Poll::Ready(Moved::Failed(Leg::Job, error)),
        Poll::Pending => {}
    }
    if let Some(pipe) = upstream {
        match poll_upstream(cx, session, pipe) {
            Poll::Ready(Moved::Bytes) => moved = true,
            Poll::Ready(over) => return Poll::Ready(over),
            Poll::Pending => {}
        }
    }
    if session.reads(Leg::Job) {
        match job.poll_read(cx, session.job_in()) {
            // What came from upstream in the same turn is lost with the client that left.
            Poll::Ready(Ok(0)) => return Poll::Ready(Moved::Eof(Leg::Job)),
            Poll::Ready(Ok(_)) => moved = true,
            Poll::Ready(Err(error)) => return Poll::Ready(Moved::Failed(Leg::Job, error)),
            Poll::Pending => {}
        }
    }
    if moved { Poll::Ready(Moved::Bytes) } else { Poll::Pending }
}

/// The upstream half of [`poll`], for sessions whose other end is the gateway itself.
pub fn poll_upstream(cx: &mut Context<'_>, session: &mut Session, pipe: &mut Pipe) -> Poll<Moved> {
    let mut moved = false;
    match pipe.poll_write(cx, session.up_out()) {
        Poll::Ready(Ok(wrote)) => moved |= wrote && !session.wants_input(),
        Poll::Ready(Err(error)) => return Poll::Ready(Moved::Failed(Leg::Upstream, error)),
        Poll::Pending => {}
    }
    if session.reads(Leg::Upstream) {
        match pipe.poll_read(cx, session.up_in()) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Moved::Eof(Leg::Upstream)),
            Poll::Ready(Ok(_)) => moved = true,
            Poll::Ready(Err(error)) => return Poll::Ready(Moved::Failed(Leg::Upstream, error)),
            Poll::Pending => {}
        }
    }
    if moved { Poll::Ready(Moved::Bytes) } else { Poll::Pending }
}

/// Writes out everything a leg is owed.
///
/// # Errors
/// Fails when the peer is gone.
pub async fn flush(pipe: &mut Pipe, output: &mut Output) -> io::Result<()> {
    std::future::poll_fn(|cx| pipe.poll_write(cx, output)).await.map(drop)
}
