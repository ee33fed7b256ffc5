//! The wall clock, in the unit that policy takes.

use std::time::{SystemTime, UNIX_EPOCH};

use policy::UnixTime;

/// Now. A clock before 1970 counts as 1970, which expires nothing early and everything that checks `iat` late.
pub fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}
