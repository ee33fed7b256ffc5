//! Detectors and transforms that hide values.
//!
//! Two ways to decide that a value must not be shown: policy names the column it came from (then a
//! [`Transform`] replaces the cell), or a recogniser finds something inside it ([`Detectors`]). Recognisers look at
//! text; transforms also know numbers, dates, UUIDs and bytes in both of the server's formats, and make NULL of what
//! they cannot replace within its type.
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

mod calendar;
mod detect;
mod json;
mod national;
mod numeric;
mod recognise;
mod stream;
mod token;
mod tokenise;
mod transform;
mod typed;

pub use calendar::{Unit, date};
pub use detect::{Detector, Detectors, Found, UnknownDetector};
pub use json::{BadJson, BadJsonPath, JsonPath, JsonStream};
pub use stream::Stream;
pub use transform::{Bucket, DateShift, Key, Masked, Partial, REDACTED, Transform, WeakKey};
pub use typed::{Format, Type};
