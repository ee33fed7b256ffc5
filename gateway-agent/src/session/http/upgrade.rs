//! Connections that have become something else: their bytes, both ways, for as long as the request's allow holds.

use std::time::{Duration, Instant};

use hyper::upgrade::Upgraded as Connection;
use hyper_util::rt::TokioIo;
use policy::{Obligations, Recording};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    time::timeout,
};

use super::{
    ask::Granted,
    exchange::{Exchange, Stopped},
    kind::{Passed, Upgraded},
};
use crate::session::log::Ended;

const PIECE: usize = 16 * 1024;
/// How long the other direction may go on when one is over.
const FAREWELL: Duration = Duration::from_secs(30);

/// Both ends.
pub(super) struct Ends {
    pub(super) here: Connection,
    pub(super) there: Connection,
}

/// Until one of them is over.
pub(super) async fn relay(exchange: &Exchange, ends: Ends) -> Result<(), Stopped> {
    let (here_in, here_out) = split(TokioIo::new(ends.here));
    let (there_in, there_out) = split(TokioIo::new(ends.there));
    let kind = exchange.session.kind();
    let look = |from_job| kind.upgraded(&exchange.asked, &exchange.allow.obligations, from_job);
    let (up, down) = (look(true), look(false));
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
    loop {
        let reading = from.read(&mut room);
        let n = match look.patience() {
            None => reading.await,
            Some(patience) => match timeout(patience, reading).await {
                Ok(read) => read,
                Err(_) => {
                    let passed = look.pause();
                    pass_on(exchange, passed, from_job, &mut to, &mut channel).await?;
                    continue;
                }
            },
        };
        let n = n.map_err(|_| Stopped::Left)?;
        let bytes = room.get(..n).unwrap_or_default();
        if bytes.is_empty() {
            let passed = look.pause();
            pass_on(exchange, passed, from_job, &mut to, &mut channel).await?;
            // The other side may be gone.
            let _ = to.shutdown().await;
            return Ok(());
        }
        let passed = look.pass(from_job, bytes).map_err(Stopped::Host)?;
        pass_on(exchange, passed, from_job, &mut to, &mut channel).await?;
    }
}

async fn pass_on(
    exchange: &Exchange,
    passed: Passed,
    from_job: bool,
    to: &mut WriteHalf<TokioIo<Connection>>,
    channel: &mut bool,
) -> Result<(), Stopped> {
    for port in &passed.opened {
        exchange.opens(*port).await?;
    }
    if exchange.running.level == Recording::Results {
        for (stream, data) in passed.recorded.iter().filter(|(_, data)| !data.is_empty()) {
            exchange.record(data, *stream, "upgrade", channel).await?;
        }
    }
    if passed.bytes.is_empty() {
        return Ok(());
    }
    to.write_all(&passed.bytes).await.map_err(|_| Stopped::Left)?;
    to.flush().await.map_err(|_| Stopped::Left)?;
    let moved = if from_job { &exchange.moved.from_job } else { &exchange.moved.to_job };
    moved.set(moved.get().saturating_add(u64::try_from(passed.bytes.len()).unwrap_or(u64::MAX)));
    Ok(())
}

impl Exchange {
    /// A connection through a tunnel to a port of the pod, before it is opened.
    async fn opens(&self, port: u16) -> Result<(), Stopped> {
        let since = Instant::now();
        let (session, asked) = (&self.session, self.asked.to_port(port));
        let policy = session.shared().policy.load_full();
        let verdict = session.decide(&policy.policy, &asked.action, None);
        let granted = session.ask(&asked, verdict, &policy.policy, (None, None), since).await?;
        let Granted { rules, allow, approval } = granted.map_err(Stopped::Refused)?;
        let Obligations { masks, record, .. } = &allow.obligations;
        let running = session
            .log
            .allowed(asked.said(), &rules, masks, approval.as_ref(), *record, since.elapsed())
            .await?;
        running.ended(&Ended { tag: "opened", bytes_in: 0, bytes_out: 0, masked: 0 }).await?;
        let mut opened = self.opened.borrow_mut();
        if !opened.contains(&asked.action) {
            opened.push(asked.action);
        }
        Ok(())
    }
}
