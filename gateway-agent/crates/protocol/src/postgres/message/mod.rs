//! Single messages: checked readers and writers.
//!
//! A reader borrows from the message and never runs past it; a body with bytes left over is malformed.

pub mod data_row;

mod reader;

pub use reader::{I16List, Malformed, Reader};
