//! The body of a response on its way to the job: masked, recorded, shown, piece by piece.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{
    StatusCode,
    body::{Body as _, Frame, Incoming},
};
use policy::Recording;
use protocol::http::fields;
use record::{Event as Recorded, Stream};
use tokio::{sync::mpsc, task::yield_now, time::timeout};

use super::{
    body::{Piece, count},
    exchange::{Exchange, Stopped, too_long},
    kind::{Filter, hide_in_fields},
};
use crate::session::observer::Lost;

/// A response that pauses for this long is shown as far as it came.
const PAUSE: Duration = Duration::from_secs(1);

/// A response's body on its way to the job.
pub(super) struct Showing {
    sender: mpsc::Sender<Piece>,
    /// Its length, if that was announced.
    announced: Option<u64>,
    /// Its beginning is recorded.
    channel: bool,
    /// Nothing more comes, and the client knows.
    whole: bool,
}

impl Showing {
    pub(super) fn new(sender: mpsc::Sender<Piece>, announced: Option<u64>) -> Self {
        Self { sender, announced, channel: false, whole: false }
    }
}

/// The first frame of a body, or its end, where that was there already.
pub(super) type Beginning = Option<Option<hyper::Result<Frame<Bytes>>>>;

/// Looks whether a body begins at once: then its first bytes go out together with the head.
pub(super) async fn beginning(body: &mut Incoming) -> Beginning {
    for turn in 0..2 {
        tokio::select! {
            biased;
            frame = body.frame() => return Some(frame),
            () = std::future::ready(()) => {}
        }
        if turn == 0 {
            // Whoever reads the connection gives what it has to those who have asked.
            yield_now().await;
        }
    }
    None
}

impl Exchange {
    /// Passes the body on, piece by piece; how much was hidden in it.
    pub(super) async fn pump(
        &self,
        (mut first, mut body): (Beginning, Incoming),
        mut filter: Option<Filter>,
        mut showing: Showing,
        status: StatusCode,
    ) -> Result<u64, Stopped> {
        let mut received = 0_u64;
        let mut trailers = None;
        loop {
            let frame = match &mut filter {
                _ if first.is_some() => first.take().flatten(),
                None => body.frame().await,
                Some(filter) => match timeout(PAUSE, body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => {
                        let mut out = Vec::new();
                        filter.pause(&mut out);
                        self.show(out.into(), false, &mut showing).await?;
                        body.frame().await
                    }
                },
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| Stopped::Host(format!("breaks off: {error}")))?;
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(other) => {
                    trailers = other.into_trailers().ok();
                    continue;
                }
            };
            received = received.saturating_add(count(&data));
            if let Some(limit) = &self.limits.response_bytes
                && received > limit.most
            {
                return Err(too_long(limit));
            }
            let Some(filter) = &mut filter else {
                self.show(data, body.is_end_stream(), &mut showing).await?;
                continue;
            };
            let mut input: &[u8] = &data;
            loop {
                let mut out = Vec::new();
                let more = filter.step(&mut input, &mut out).map_err(|why| Stopped::Host(why.to_string()))?;
                self.show(out.into(), false, &mut showing).await?;
                if !more {
                    break;
                }
            }
        }
        let mut hidden = 0;
        if let Some(filter) = &mut filter {
            let mut out = Vec::new();
            filter.finish(&mut out).map_err(|why| Stopped::Host(why.to_string()))?;
            self.show(out.into(), trailers.is_none(), &mut showing).await?;
            hidden = filter.hidden();
        }
        if let Some(mut trailers) = trailers {
            fields::trailers(&mut trailers);
            if let Some(detectors) = &self.allow.obligations.detectors {
                hidden = hidden.saturating_add(hide_in_fields(&mut trailers, detectors));
            }
            let piece = Piece::Last(Frame::trailers(trailers));
            showing.sender.send(piece).await.map_err(|_| Stopped::Left)?;
            showing.whole = true;
        }
        if showing.channel {
            let closed = Recorded::ChannelClosed {
                channel: self.running.n,
                status: Some(status.as_u16().into()),
                signal: None,
            };
            self.session.log.append(&closed).await?;
        }
        // Of a response whose length was announced nobody waits for the end.
        let sent = showing.whole || showing.sender.send(Piece::End).await.is_ok();
        if !sent && showing.announced != Some(received) {
            return Err(Stopped::Left);
        }
        Ok(hidden)
    }

    /// Shows a piece, which is in the recording before.
    async fn show(&self, piece: Bytes, last: bool, showing: &mut Showing) -> Result<(), Stopped> {
        if piece.is_empty() {
            return Ok(());
        }
        if self.running.level == Recording::Results {
            self.record(&piece, Stream::Output, "response", &mut showing.channel).await?;
        }
        let length = count(&piece);
        let frame = Frame::data(piece);
        let piece = if last { Piece::Last(frame) } else { Piece::Frame(frame) };
        showing.sender.send(piece).await.map_err(|_| Stopped::Left)?;
        showing.whole = last;
        self.moved.to_job.set(self.moved.to_job.get().saturating_add(length));
        Ok(())
    }

    /// Records bytes; `channel`: its beginning is recorded.
    pub(super) async fn record(
        &self,
        data: &[u8],
        stream: Stream,
        what: &str,
        channel: &mut bool,
    ) -> Result<(), Lost> {
        let n = self.running.n;
        if !*channel {
            *channel = true;
            self.session.log.append(&Recorded::Channel { n, channel: n, what: what.into() }).await?;
        }
        self.session.log.append(&Recorded::Data { channel: n, stream, data: data.into() }).await
    }
}
