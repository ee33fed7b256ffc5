//! What goes out on one leg of a channel: in order, as fast as the peer's window lets it, and counted while it waits.

use std::{cell::Cell, future::Future, rc::Rc};

use bytes::Bytes;
use russh::{ChannelWriteHalf, Sig, client, server};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use super::{held::Credit, job::Terminal};

/// Bytes that may wait; whoever fills it looks at [`Outlet::has_room`] before taking more.
const ROOM: usize = 1024 * 1024;
/// What an item counts for besides its data.
const ITEM: usize = 64;

/// To the job.
pub(super) enum ToJob {
    Data(Bytes),
    Error(Bytes),
    Eof,
    Status(u32),
    Signal { name: Sig, core_dumped: bool, message: String },
    Close,
}

/// To the host.
pub(super) enum ToHost {
    Data(Bytes),
    /// As it came from the job, counted there until it is gone.
    Relayed(Credit),
    Eof,
    Size(Terminal),
    Signal(Sig),
    Close,
}

trait Weighed {
    fn weight(&self) -> usize;
}

impl Weighed for ToJob {
    fn weight(&self) -> usize {
        match self {
            Self::Data(data) | Self::Error(data) => data.len().saturating_add(ITEM),
            _ => ITEM,
        }
    }
}

impl Weighed for ToHost {
    fn weight(&self) -> usize {
        match self {
            Self::Data(data) => data.len().saturating_add(ITEM),
            Self::Relayed(credit) => credit.data.len().saturating_add(ITEM),
            _ => ITEM,
        }
    }
}

/// The sending end. What waits is lost when it is dropped before [`finish`](Self::finish).
pub(super) struct Outlet<T> {
    items: mpsc::UnboundedSender<T>,
    waiting: Rc<Waiting>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Waiting {
    bytes: Cell<usize>,
    fewer: Notify,
}

#[expect(private_bounds, reason = "of the two kinds here")]
impl<T: Weighed + 'static> Outlet<T> {
    fn start<F>(send: impl Fn(T) -> F + 'static) -> Self
    where
        F: Future<Output = Result<(), russh::Error>> + 'static,
    {
        let (items, mut queue) = mpsc::unbounded_channel::<T>();
        let waiting = Rc::new(Waiting::default());
        let counted = Rc::clone(&waiting);
        let task = tokio::task::spawn_local(async move {
            let mut gone = false;
            while let Some(item) = queue.recv().await {
                let weight = item.weight();
                // To a leg that is gone there is nothing more to say; its other end tells why.
                if !gone {
                    gone = send(item).await.is_err();
                }
                counted.bytes.set(counted.bytes.get().saturating_sub(weight));
                counted.fewer.notify_one();
            }
        });
        Self { items, waiting, task }
    }

    pub(super) fn push(&self, item: T) {
        self.waiting.bytes.set(self.waiting.bytes.get().saturating_add(item.weight()));
        // The task ends only with this.
        let _ = self.items.send(item);
    }

    /// Returns when there is room for more.
    pub(super) async fn has_room(&self) {
        while self.waiting.bytes.get() >= ROOM {
            self.waiting.fewer.notified().await;
        }
    }

    /// Returns when everything has been sent.
    pub(super) async fn emptied(&self) {
        while self.waiting.bytes.get() > 0 {
            self.waiting.fewer.notified().await;
        }
    }
}

impl<T> Drop for Outlet<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The job's end of a channel.
pub(super) fn to_job(half: ChannelWriteHalf<server::Msg>, handle: server::Handle) -> Outlet<ToJob> {
    let half = Rc::new(half);
    Outlet::start(move |item| {
        let (half, handle) = (Rc::clone(&half), handle.clone());
        async move {
            match item {
                ToJob::Data(data) => half.data_bytes(data).await,
                ToJob::Error(data) => half.extended_data_bytes(1, data).await,
                ToJob::Eof => half.eof().await,
                ToJob::Status(status) => half.exit_status(status).await,
                ToJob::Signal { name, core_dumped, message } => handle
                    .exit_signal_request(half.id(), name, core_dumped, message, String::new())
                    .await
                    .map_err(|()| russh::Error::SendError),
                ToJob::Close => half.close().await,
            }
        }
    })
}

/// The host's end of a channel.
pub(super) fn to_host(half: ChannelWriteHalf<client::Msg>) -> Outlet<ToHost> {
    let half = Rc::new(half);
    Outlet::start(move |item| {
        let half = Rc::clone(&half);
        async move {
            match item {
                ToHost::Data(data) => half.data_bytes(data).await,
                ToHost::Relayed(credit) => half.data_bytes(credit.data.clone()).await,
                ToHost::Eof => half.eof().await,
                ToHost::Size(size) => {
                    half.window_change(size.columns, size.rows, size.width, size.height).await
                }
                ToHost::Signal(signal) => half.signal(signal).await,
                ToHost::Close => half.close().await,
            }
        }
    })
}
