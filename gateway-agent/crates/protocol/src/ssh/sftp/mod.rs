//! SFTP version 3, between a client and a server of which neither is trusted to keep to it.
//!
//! [`Sftp`] is fed both sides' bytes and says what has to be decided: each operation on each path, after the server was asked for
//! its realpath, so that symbolic links and `..` are behind. What is allowed goes through unchanged; what is refused is
//! answered with SSH_FX_PERMISSION_DENIED and never reaches the server. Handles remember what they were opened for.

mod handle;
mod packet;
mod room;
mod session;

#[cfg(test)]
mod tests;

pub(crate) use handle::Flow;
pub use handle::{FileEvent, FileTotals, Transferred};
pub use room::Room;
pub use session::{Sftp, SftpError, SftpStep};
