//! Connections that their client closed before the agent accepted them.
//!
//! What identifies a live client is its socket's cookie. A closed one is known by the connection's two ends alone, and
//! ends are used again. So the record of a closed socket is made by the kernel when it closes, only for a connection
//! that was established; and whoever connects with the same ends afterwards deletes it on the way (sk_lookup), job or
//! not. Hence a record that is found was made after the accepted connection began; and as long as that one lives, no
//! other socket can have its ends in an established state. The caller checks that it still does.

use std::{net::SocketAddr, sync::PoisonError, time::Duration};

use gateway_common::{Addr, Ends, Reason};

use super::{Error, Kernel, Origin, sys};

/// When the records were last looked through.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// How many there had been until then.
    made: u64,
    /// How many were left.
    left: usize,
}

impl Kernel {
    /// Takes the record of a connection whose client is gone, with the cookie that its socket had. `netns` is the
    /// cookie of the network namespace. Exactly one caller gets it.
    ///
    /// It tells who is at the other end of an accepted connection only if that connection is still open afterwards.
    pub fn take_released(
        &self,
        netns: u64,
        client: SocketAddr,
        gateway: SocketAddr,
    ) -> Result<Option<(u64, Origin)>, Error> {
        let ends = Ends {
            netns,
            client: Addr::from(client.ip()),
            gateway: Addr::from(gateway.ip()),
            port: client.port().to_be(),
            zero: [0; 3],
        };
        let Some(released) = self.origins.take_released(&ends)? else { return Ok(None) };
        self.maps().give_back(released.origin.job)?;
        Ok(Some((released.cookie, released.origin.into())))
    }

    /// Forgets records that nobody came for in this time; how many. Cheap while there are none: call it often.
    pub fn sweep_released(&self, older_than: Duration) -> Result<usize, Error> {
        let made = self.counters()?.into_iter().find(|(reason, _)| *reason == Reason::ClosedEarly);
        let made = made.map_or(0, |(_, count)| count);
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.made == made && swept.left == 0 {
            return Ok(0);
        }
        let now =
            sys::monotonic_ns().map_err(|source| Error::System { what: "reading the clock", source })?;
        let mut gone = 0;
        let all = self.origins.released();
        for (ends, released) in &all {
            if Duration::from_nanos(now.saturating_sub(released.at_ns)) < older_than {
                continue;
            }
            // Taken meanwhile, or replaced by a younger one of the same ends, which then is lost: nobody is let in.
            if let Some(released) = self.origins.take_released(ends)? {
                self.maps().give_back(released.origin.job)?;
                gone += 1;
            }
        }
        *swept = Swept { made, left: all.len().saturating_sub(gone) };
        Ok(gone)
    }
}
