//! SSH, as far as policy has to see into it. russh speaks the transport; here is what flows over its channels.

pub mod command;
mod files;
pub mod scp;
pub mod sftp;
#[cfg(test)]
mod testing;
