//! Open files: which path a handle stands for, and what went through it.

use std::collections::HashMap;

use aws_lc_rs::digest::{Context, SHA256};
use policy::FileRequest;

use super::room::Contents;

/// Longest handle, in bytes (draft-ietf-secsh-filexfer-02, section 6.2).
pub(super) const HANDLE_MAX: usize = 256;
/// Most handles open at once.
pub(super) const HANDLES_MAX: usize = 1024;

/// What happened to files, for recordings and audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileEvent {
    Opened {
        file: u64,
        path: String,
        read: bool,
        write: bool,
    },
    /// Contents, where a copy of them is kept.
    Data {
        file: u64,
        write: bool,
        offset: u64,
        bytes: Vec<u8>,
    },
    Closed(FileTotals),
    /// An operation that opens nothing, and the status that the server answered with (0: it was done).
    Done {
        request: FileRequest,
        status: u32,
    },
}

/// What went through an open file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTotals {
    pub file: u64,
    pub path: String,
    pub read: Transferred,
    pub written: Transferred,
}

/// Bytes in one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transferred {
    pub bytes: u64,
    /// Of the contents from the beginning; `None` = they did not pass in order, or none did.
    pub sha256: Option<[u8; 32]>,
}

/// One direction of an open file.
pub(crate) struct Flow {
    bytes: u64,
    /// While everything has passed in order.
    digest: Option<Context>,
}

impl Flow {
    pub(crate) fn new() -> Self {
        Self { bytes: 0, digest: Some(Context::new(&SHA256)) }
    }

    pub(crate) fn passed(&mut self, offset: u64, data: &[u8]) {
        if offset != self.bytes {
            self.digest = None;
        }
        if let Some(digest) = &mut self.digest {
            digest.update(data);
        }
        self.bytes = self.bytes.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
    }

    pub(crate) fn total(self) -> Transferred {
        let digest = self.digest.filter(|_| self.bytes > 0);
        Transferred {
            bytes: self.bytes,
            sha256: digest.and_then(|digest| <[u8; 32]>::try_from(digest.finish().as_ref()).ok()),
        }
    }
}

/// An open file or folder.
pub(super) struct Open {
    pub(super) path: String,
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) folder: bool,
    /// What passes is shown as [`FileEvent::Data`].
    pub(super) keep: bool,
    /// Contents, with what was found hidden: reads are answered from here.
    pub(super) masked: Option<Contents>,
    pub(super) reads: Flow,
    pub(super) writes: Flow,
}

/// All of them.
#[derive(Default)]
pub(super) struct Handles {
    by_handle: HashMap<Vec<u8>, u64>,
    files: HashMap<u64, Open>,
    next: u64,
}

impl Handles {
    pub(super) fn is_full(&self) -> bool {
        self.by_handle.len() >= HANDLES_MAX
    }

    pub(super) fn add(&mut self, handle: Vec<u8>, open: Open) -> u64 {
        self.next += 1;
        self.by_handle.insert(handle, self.next);
        self.files.insert(self.next, open);
        self.next
    }

    pub(super) fn number(&self, handle: &[u8]) -> Option<u64> {
        self.by_handle.get(handle).copied()
    }

    pub(super) fn find(&self, handle: &[u8]) -> Option<(u64, &Open)> {
        let number = self.number(handle)?;
        Some((number, self.files.get(&number)?))
    }

    pub(super) fn file(&mut self, number: u64) -> Option<&mut Open> {
        self.files.get_mut(&number)
    }

    /// The client gives a handle back: it names nothing from now on.
    pub(super) fn forget(&mut self, handle: &[u8]) -> Option<u64> {
        self.by_handle.remove(handle)
    }

    /// The file is closed.
    pub(super) fn close(&mut self, number: u64) -> Option<FileEvent> {
        let open = self.files.remove(&number)?;
        (!open.folder).then(|| {
            FileEvent::Closed(FileTotals {
                file: number,
                path: open.path,
                read: open.reads.total(),
                written: open.writes.total(),
            })
        })
    }

    pub(super) fn all(&self) -> Vec<u64> {
        let mut numbers: Vec<_> = self.files.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }
}
