//! Writes that need not be durable before the caller goes on: one thread, one transaction for all that is
//! waiting. Nothing here grants access, so losing the tail in a crash loses history and nothing else.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread::JoinHandle,
};

use super::{SessionRow, StateError, Store};
use crate::approval;

/// Waiting writes; a full queue refuses instead of growing.
const QUEUE: usize = 16 * 1024;
/// Writes a transaction.
const BATCH: usize = 512;

/// One write.
#[derive(Debug, Clone)]
pub enum Write {
    Approval(Box<approval::Record>),
    Session(SessionRow),
}

enum Message {
    Write(Write),
    Flush(SyncSender<()>),
}

/// Handle of the writer thread. Dropping the last one writes what is waiting and ends the thread.
#[derive(Clone)]
pub struct Lazy {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
}

impl Lazy {
    /// Starts the writer thread.
    pub fn start(store: Arc<dyn Store>) -> std::io::Result<Self> {
        let (queue, waiting) = mpsc::sync_channel(QUEUE);
        let thread =
            std::thread::Builder::new().name("state".into()).spawn(move || work(&*store, &waiting))?;
        Ok(Self { inner: Arc::new(Inner { queue: Some(queue), thread: Some(thread) }) })
    }

    /// Queues a write; never blocks.
    pub fn write(&self, write: Write) -> Result<(), StateError> {
        let Some(queue) = &self.inner.queue else { return Err(StateError::Behind) };
        queue.try_send(Message::Write(write)).map_err(|e| match e {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => StateError::Behind,
        })
    }

    /// Returns once everything queued before is on disk. Blocks: not for a session's thread.
    pub fn flush(&self) {
        let (done, wait) = mpsc::sync_channel(1);
        if let Some(queue) = &self.inner.queue
            && queue.send(Message::Flush(done)).is_ok()
        {
            // An error means that the thread ended, and it writes everything before it does.
            let _ = wait.recv();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panicked writer has logged itself; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn work(store: &dyn Store, waiting: &Receiver<Message>) {
    let mut batch = Vec::new();
    while let Ok(first) = waiting.recv() {
        let mut flushes = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Write(w) => batch.push(w),
                Message::Flush(done) => flushes.push(done),
            }
            next = if batch.len() < BATCH { waiting.try_recv().ok() } else { None };
        }
        if let Err(error) = store.write(&batch) {
            tracing::error!(%error, lost = batch.len(), "history could not be written");
        }
        batch.clear();
        for done in flushes {
            // Whoever asked may have gone.
            let _ = done.send(());
        }
    }
}
