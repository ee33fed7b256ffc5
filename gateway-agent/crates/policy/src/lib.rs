//! Subject, action and time to verdict.
//!
//! Pure and total: no clock, no file, no socket. The only maker of [`Permit`]: without one nothing reaches an
//! upstream.

mod action;
pub mod functions;
mod verdict;

pub use action::{
    Access, Action, Class, Column, ColumnUse, Connect, Lineage, Named, Outputs, RelationUse, Statement,
};
pub use verdict::{
    Allow, ApprovalTerms, ColumnMasks, Denial, Effect, Limits, Obligations, OutputMasks, Permit, Recording,
    UnixTime, Verdict,
};
