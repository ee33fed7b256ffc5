//! What the job may not see, replaced in rows, COPY data and error texts.
//!
//! A [`Plan`] says for each column of one result what to do with its cells; it is made once per row description
//! and decision. Where a value cannot be replaced by text in its type, it becomes NULL. Where columns are not
//! known well enough, everything that may need a mask gets one.

mod copy;
mod kind;
mod plan;
mod report;
mod row;

pub(crate) use copy::{CopyOut, untouched as copy_untouched};
pub(crate) use plan::{Formats, Plan, Source, untouched};
pub(crate) use report::Veil;
pub(crate) use row::{Rewriter, Row};
