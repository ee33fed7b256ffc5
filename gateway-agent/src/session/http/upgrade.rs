//! Connections that have become something else: their bytes, both ways, for as long as the request's allow holds.

use std::time::Duration;

use hyper::upgrade::Upgraded as Connection;
use hyper_util::rt::TokioIo;
use policy::Recording;
use record::Stream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    time::timeout,
};

use super::{
    exchange::{Exchange, Stopped},
    kind::Upgraded,
};

const PIECE: usize = 16 * 1024;
/// How long the other direction may go on when one is over.
const FAREWELL: Duration = Duration::from_secs(30);

/// Both ends.
pub(super) struct Ends {
    pub(super) here: Connection,
    pub(super) there: Connection,
}

/// Until one of them is over.
pub(super) async fn relay(exchange: &Exchange, ends: Ends, protocol: &str) -> Result<(), Stopped> {
    let (here_in, here_out) = split(TokioIo::new(ends.here));
    let (there_in, there_out) = split(TokioIo::new(ends.there));
    let kind = exchange.session.kind();
    let (up, down) = (kind.upgraded(&exchange.asked, protocol), kind.upgraded(&exchange.asked, protocol));
    let up = pass(exchange, up, true, here_in, there_out);
    let down = pass(exchange, down, false, there_in, here_out);
    tokio::pin!(up, down);
    // What is closed on one side is closed on the other; what is still on its way back comes.
    tokio::select! {
        over = &mut up => {
            over?;
            timeout(FAREWELL, down).await.unwrap_or(Ok(()))
        }
        over = &mut down => {
            over?;
            timeout(FAREWELL, up).await.unwrap_or(Ok(()))
        }
    }
}

async fn pass(
    exchange: &Exchange,
    mut look: Upgraded,
    from_job: bool,
    mut from: ReadHalf<TokioIo<Connection>>,
    mut to: WriteHalf<TokioIo<Connection>>,
) -> Result<(), Stopped> {
    let mut room = vec![0; PIECE];
    // Whichever direction has bytes first begins the recording; a second beginning says the same.
    let mut channel = false;
    let stream = if from_job { Stream::Input } else { Stream::Output };
    loop {
        let n = from.read(&mut room).await.map_err(|_| Stopped::Left)?;
        let bytes = room.get(..n).unwrap_or_default();
        if bytes.is_empty() {
            // The other side may be gone.
            let _ = to.shutdown().await;
            return Ok(());
        }
        if !look.passes(from_job, bytes) {
            return Err(Stopped::Host("says what may not be said there".to_owned()));
        }
        if exchange.running.level == Recording::Results {
            exchange.record(bytes, stream, "upgrade", &mut channel).await?;
        }
        to.write_all(bytes).await.map_err(|_| Stopped::Left)?;
        to.flush().await.map_err(|_| Stopped::Left)?;
        let moved = if from_job { &exchange.moved.from_job } else { &exchange.moved.to_job };
        moved.set(moved.get().saturating_add(u64::try_from(n).unwrap_or(u64::MAX)));
    }
}
