//! A connection of a client that speaks SSH.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose peer has to begin as SSH does, or it is closed.
pub(super) struct Confirmed<S> {
    stream: S,
    seen: usize,
}

impl<S> Confirmed<S> {
    const BEGINS: &[u8] = b"SSH-";

    pub(super) fn new(stream: S) -> Self {
        Self { stream, seen: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Confirmed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let wanted = Self::BEGINS.get(self.seen..).unwrap_or_default();
        if !wanted.is_empty() {
            let new = buf.filled().get(before..).unwrap_or_default();
            let both = new.len().min(wanted.len());
            if new.get(..both) != wanted.get(..both) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "not SSH")));
            }
            self.seen += both;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Confirmed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
