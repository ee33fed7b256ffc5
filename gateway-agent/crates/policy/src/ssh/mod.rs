//! SSH: what jobs ask for, which hosts there are, and how both are decided.
//!
//! An exec is read as a shell reads it (the protocol crate does) and arrives here as the programs that would run, the files that
//! redirections open and the variables that are set. It is allowed only when rules grant every one of them.

mod action;
pub(crate) mod check;
mod command;
mod environment;
pub(crate) mod evaluate;
pub(crate) mod explain;
pub(crate) mod matcher;
mod model;
mod obligations;
pub(crate) mod pattern;
pub(crate) mod raw;
mod testing;
mod vault;

pub use action::{
    Assignment, Certainty, Exec, FileOperation, FileRequest, Invocation, PathUse, Route, Ssh, SshRequest,
    Word,
};
pub use model::{
    HostKey, LoginMethod, PublicKey, Signer, SshLogin, SshUpstream, UserCertificate, Vault, VaultLogin,
};
pub use obligations::{Bounded, SshLimits, SshObligations};
pub use testing::{FileCase, SshCase};
