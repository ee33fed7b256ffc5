//! Detectors and transforms that hide values.
//!
//! Two ways to decide that a value must not be shown: policy names the column it came from (then a
//! [`Transform`] replaces the cell), or a recogniser finds something inside it ([`Detectors`]). Both work on
//! textual cells; a value that has no textual form is the caller's to turn into NULL.
//!
//! Pure functions over bytes: no input can make them panic, and a cell in which nothing is found costs no
//! allocation.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::as_conversions
    )
)]

mod detect;
mod recognise;
mod token;
mod transform;

pub use detect::{Detector, Detectors, Found, UnknownDetector};
pub use transform::{Key, Masked, Partial, REDACTED, Transform, WeakKey};
