//! Bytes of a session that wait to go upstream.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use tokio::sync::Notify;

/// Bytes of all channels of a session that wait to go upstream.
#[derive(Default)]
pub(super) struct Held {
    bytes: AtomicUsize,
    /// Told when there are fewer.
    pub(super) fewer: Notify,
}

/// Data, counted as held until it is dropped.
pub(super) struct Credit {
    pub(super) data: Bytes,
    held: Arc<Held>,
}

impl Credit {
    pub(super) fn new(data: Bytes, held: &Arc<Held>) -> Self {
        held.bytes.fetch_add(data.len(), Relaxed);
        Self { data, held: Arc::clone(held) }
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.data.len(), Relaxed);
        self.held.fewer.notify_one();
    }
}

impl Held {
    pub(super) fn is_over(&self, limit: usize) -> bool {
        self.bytes.load(Relaxed) > limit
    }
}
