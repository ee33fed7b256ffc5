//! Bodies on their way through: counted, bounded, with backpressure.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use policy::Bounded;
use protocol::http::fields;
use tokio::sync::mpsc;

/// What has moved of one exchange, body bytes.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) from_job: Cell<u64>,
    pub(super) to_job: Cell<u64>,
    /// The request's body was longer than it may be.
    pub(super) too_long: Cell<bool>,
}

/// A request's body on its way to the host.
pub(super) enum Upload {
    Streaming {
        body: Incoming,
        moved: Rc<Moved>,
        limit: Option<Bounded<u64>>,
    },
    /// It was looked at before.
    Held {
        body: Option<Bytes>,
        moved: Rc<Moved>,
    },
}

/// Why a request's body ends early; the connection to the host ends with it.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("the request's body is longer than rule {0} allows")]
    TooLong(std::sync::Arc<str>),
    #[error("from the client: {0}")]
    Client(#[from] hyper::Error),
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match self.get_mut() {
            Self::Held { body, moved } => {
                let body = body.take().filter(|body| !body.is_empty());
                if let Some(body) = &body {
                    moved.from_job.set(count(body));
                }
                Poll::Ready(body.map(|body| Ok(Frame::data(body))))
            }
            Self::Streaming { body, moved, limit } => {
                let frame = match std::task::ready!(Pin::new(body).poll_frame(cx)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    Some(Ok(frame)) => frame,
                };
                let frame = match frame.into_data() {
                    Ok(data) => {
                        moved.from_job.set(moved.from_job.get().saturating_add(count(&data)));
                        if let Some(limit) = limit
                            && moved.from_job.get() > limit.most
                        {
                            moved.too_long.set(true);
                            return Poll::Ready(Some(Err(UploadError::TooLong(limit.rule.clone()))));
                        }
                        Frame::data(data)
                    }
                    Err(other) => match other.into_trailers() {
                        Ok(mut trailers) => {
                            fields::trailers(&mut trailers);
                            Frame::trailers(trailers)
                        }
                        Err(_) => return Poll::Ready(None),
                    },
                };
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Streaming { body, .. } => body.is_end_stream(),
            Self::Held { body, .. } => body.as_ref().is_none_or(Bytes::is_empty),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Streaming { body, .. } => body.size_hint(),
            Self::Held { body, .. } => SizeHint::with_exact(body.as_ref().map_or(0, count)),
        }
    }
}

/// The rest of a response does not come.
#[derive(Debug, thiserror::Error)]
#[error("the response was cut off")]
pub(super) struct CutOff;

/// A response's body on its way to the job.
pub(super) enum ToJob {
    Full(Option<Bytes>),
    Pumped { pieces: mpsc::Receiver<Piece>, hint: SizeHint, ended: bool },
}

/// A part of a response.
pub(super) enum Piece {
    Frame(Frame<Bytes>),
    /// The last one, which HTTP/2 can say with it.
    Last(Frame<Bytes>),
    /// There is no more: without it, the response is cut off.
    End,
}

impl ToJob {
    pub(super) fn full(body: Bytes) -> Self {
        Self::Full(Some(body))
    }

    pub(super) fn empty() -> Self {
        Self::Full(None)
    }

    /// A body whose pieces come through the sender.
    pub(super) fn pumped(hint: SizeHint) -> (mpsc::Sender<Piece>, Self) {
        let (sender, pieces) = mpsc::channel(1);
        (sender, Self::Pumped { pieces, hint, ended: false })
    }
}

impl Body for ToJob {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match self.get_mut() {
            Self::Full(body) => {
                let body = body.take().filter(|body| !body.is_empty());
                Poll::Ready(body.map(|body| Ok(Frame::data(body))))
            }
            Self::Pumped { ended: true, .. } => Poll::Ready(None),
            Self::Pumped { pieces, ended, .. } => match std::task::ready!(pieces.poll_recv(cx)) {
                Some(Piece::Frame(frame)) => Poll::Ready(Some(Ok(frame))),
                Some(Piece::Last(frame)) => {
                    *ended = true;
                    Poll::Ready(Some(Ok(frame)))
                }
                Some(Piece::End) => {
                    *ended = true;
                    Poll::Ready(None)
                }
                None => Poll::Ready(Some(Err(CutOff))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(body) => body.as_ref().is_none_or(Bytes::is_empty),
            Self::Pumped { ended, .. } => *ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(body) => SizeHint::with_exact(body.as_ref().map_or(0, count)),
            Self::Pumped { hint, .. } => *hint,
        }
    }
}

pub(super) fn count(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
