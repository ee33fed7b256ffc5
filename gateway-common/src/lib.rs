//! Types and decisions shared by the kernel programs and the agent.
//!
//! Everything that crosses a map is `repr(C)`, free of padding, bool and enum, and its size is asserted: both
//! sides are compiled apart, and a pinned map outlives the program that made it. The decisions are pure
//! functions over plain values so that the host can test what the kernel will do.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod addr;
pub mod decide;
pub mod event;
pub mod flow;
pub mod limits;
pub mod offsets;

pub use addr::{Addr, Canonical};
pub use event::{Event, Hook, Reason};
pub use flow::{Beat, Config, DestKey, Ends, Job, Kin, Origin, Released, Seen, Stamp, flags};
pub use offsets::Offsets;
