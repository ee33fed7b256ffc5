//! Subcommands, one per file.

pub mod replay;
pub mod verify;
