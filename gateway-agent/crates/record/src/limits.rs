//! Caps, in bytes, on everything whose size a file states. Writers keep them, readers enforce them.

/// A block is closed once it holds this much.
pub const BLOCK_TARGET: usize = 64 * 1024;
/// One encoded record.
pub const RECORD: usize = 1024 * 1024;
/// A decompressed block: the target, overshot by one record.
pub const RAW: usize = BLOCK_TARGET + RECORD;
/// A frame body as stored; zstd adds little to what it cannot compress.
pub const STORED: usize = RAW + RAW / 128 + 1024;
/// The session's header as JSON.
pub const HEADER: usize = 64 * 1024;
/// What is kept of one parameter; the rest is cut and its length noted.
pub const PARAM: usize = 16 * 1024;
/// What is kept of all parameters of one statement.
pub const PARAMS: usize = 256 * 1024;
