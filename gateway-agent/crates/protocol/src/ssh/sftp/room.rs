//! Memory for the contents that are searched.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::session::MASKED_MAX;

/// Bytes that all channels that are given it may hold together.
#[derive(Debug)]
pub struct Room(AtomicUsize);

impl Room {
    pub const fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// For a few of the largest files.
impl Default for Room {
    fn default() -> Self {
        Self::new(4 * MASKED_MAX)
    }
}

/// Contents, and the room they take until they are dropped.
#[derive(Debug)]
pub(super) struct Contents {
    bytes: Vec<u8>,
    room: Arc<Room>,
}

impl Contents {
    pub(super) fn new(room: &Arc<Room>) -> Self {
        Self { bytes: Vec::new(), room: Arc::clone(room) }
    }

    /// False: there is no room for more.
    pub(super) fn add(&mut self, data: &[u8]) -> bool {
        let taken = self.room.take(data.len());
        if taken {
            self.bytes.extend_from_slice(data);
        }
        taken
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        self.room.0.fetch_add(self.bytes.len(), Relaxed);
    }
}
