//! Datagrams and connections of jobs, as they come.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Front, asked::Asked};
use crate::{
    intercept::{Flow, Questions, Refused},
    kernel::Kernel,
    telemetry::DnsResult,
};

/// Longest question, over either transport. One name takes 255 bytes.
const LONGEST: usize = 4096;
/// A TCP connection that asks nothing for so long ends.
const IDLE: Duration = Duration::from_secs(10);
/// A job that does not take its answer for so long loses its connection.
const WRITE: Duration = Duration::from_secs(5);

impl Front {
    /// Answers datagrams for as long as it is polled. `unknown` is told of those whose job cannot be found out;
    /// they are not answered.
    pub async fn serve_datagrams(
        self: Arc<Self>,
        questions: Questions,
        kernel: Arc<Kernel>,
        unknown: impl Fn(&Refused),
    ) {
        // One byte more: a longer datagram shows.
        let mut buffer = vec![0; LONGEST + 1];
        loop {
            let (length, peer) = match questions.receive(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // Out of memory, say: what waits meanwhile is read later.
                    tracing::error!(%error, "receiving DNS questions");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(bytes) = buffer.get(..length).filter(|bytes| bytes.len() <= LONGEST) else {
                self.count(DnsResult::Malformed);
                continue;
            };
            let flow = match questions.identify(&kernel, peer) {
                Ok(flow) => flow,
                Err(refused) => {
                    self.count(DnsResult::Unidentified);
                    unknown(&refused);
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else {
                self.count(DnsResult::Overloaded);
                continue;
            };
            let (front, socket, bytes) = (Arc::clone(&self), questions.socket(), bytes.to_vec());
            tokio::spawn(async move {
                if let Some(answer) = front.answer(&bytes, &flow, true).await
                    && let Err(error) = socket.send_to(&answer, peer).await
                {
                    // The job closed its socket meanwhile.
                    tracing::debug!(%error, %peer, "a DNS answer was not taken");
                }
                drop(permit);
            });
        }
    }

    /// Answers the questions of one connection to its end.
    pub async fn serve_connection(self: Arc<Self>, mut stream: TcpStream, flow: Flow) {
        let Some(_open) = Open::new(&self, flow.job) else {
            self.count(DnsResult::Overloaded);
            return;
        };
        if let Err(error) = self.converse(&mut stream, &flow).await {
            tracing::debug!(%error, job = flow.job, "a DNS connection ended early");
        }
    }

    async fn converse(&self, stream: &mut TcpStream, flow: &Flow) -> std::io::Result<()> {
        let mut buffer = vec![0; LONGEST];
        loop {
            let mut length = [0; 2];
            match timeout(IDLE, stream.read_exact(&mut length)).await {
                Ok(Ok(_)) => {}
                // It said nothing more, or hung up.
                Ok(Err(_)) | Err(_) => return Ok(()),
            }
            let Some(message) = buffer.get_mut(..usize::from(u16::from_be_bytes(length))) else {
                self.count(DnsResult::Malformed);
                return Ok(());
            };
            timeout(IDLE, stream.read_exact(message)).await??;
            let Ok(permit) = self.in_flight.try_acquire() else {
                self.count(DnsResult::Overloaded);
                return Ok(());
            };
            let Some(answer) = self.answer(message, flow, false).await else { return Ok(()) };
            drop(permit);
            let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
            let framed = [&length.to_be_bytes(), answer.as_slice()].concat();
            timeout(WRITE, stream.write_all(&framed)).await??;
        }
    }
}

/// One of the connections that a job may hold.
struct Open<'a> {
    front: &'a Front,
    job: u64,
}

impl<'a> Open<'a> {
    fn new(front: &'a Front, job: u64) -> Option<Self> {
        let now = Instant::now();
        let in_force = front.shared.policy.load();
        let limits = in_force.policy.name_limits();
        let free = front.jobs().entry(job).or_insert_with(|| Asked::new(limits, now)).connect();
        free.then_some(Self { front, job })
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(asked) = self.front.jobs().get_mut(&self.job) {
            asked.disconnect();
        }
    }
}
