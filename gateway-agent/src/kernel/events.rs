//! Refusals as they happen.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use gateway_common::{Event, Hook, Reason};

use super::sys;

/// One refusal by a kernel program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub hook: Hook,
    /// It was let through all the same: [`super::Mode::Observe`].
    pub observed: bool,
    /// CLOCK_MONOTONIC.
    pub at: Duration,
    /// Cgroup id of the job, when the process or socket belongs to one.
    pub job: Option<u64>,
    pub cookie: u64,
    /// Where it wanted to go, or where a packet came from; `None` in hooks without an address.
    pub peer: Option<SocketAddr>,
    pub protocol: u8,
    pub family: u8,
    /// Socket type, or level of an option.
    pub kind: u32,
    /// Socket protocol, or name of an option.
    pub detail: u32,
    /// `None` in hooks that run for packets.
    pub process: Option<Process>,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub uid: u32,
    /// Chosen by the process itself: for people, never for decisions.
    pub comm: String,
}

/// Reads events; made once, by [`super::Kernel::events`], for one thread.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// The next refusal, waiting for it; `None` when none came within the timeout. An event that this build
    /// does not understand is skipped.
    pub fn next(&mut self, timeout: Duration) -> io::Result<Option<Refusal>> {
        loop {
            while let Some(item) = self.ring.next() {
                if let Some(refusal) = read(&item) {
                    return Ok(Some(refusal));
                }
            }
            if !sys::readable(self.ring.as_fd(), timeout)? {
                return Ok(None);
            }
        }
    }
}

fn read(bytes: &[u8]) -> Option<Refusal> {
    let event = parse(bytes)?;
    let ip = event.addr.ip();
    let unset = event.port == 0 && matches!(ip, IpAddr::V6(v6) if v6.is_unspecified());
    Some(Refusal {
        reason: Reason::from_code(event.reason)?,
        hook: Hook::from_code(event.hook)?,
        observed: event.observed != 0,
        at: Duration::from_nanos(event.at_ns),
        job: Some(event.job).filter(|job| *job != 0),
        cookie: event.cookie,
        peer: (!unset).then(|| SocketAddr::new(ip, u16::from_be(event.port))),
        protocol: event.protocol,
        family: event.family,
        kind: event.kind,
        detail: event.detail,
        process: (event.pid != 0).then(|| Process {
            pid: event.pid,
            uid: event.uid,
            comm: comm(&event.comm),
        }),
    })
}

pub(super) fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// Field by field, in the order of the struct: no transmute, and the length is checked once.
fn parse(bytes: &[u8]) -> Option<Event> {
    let bytes: &[u8; size_of::<Event>()] = bytes.try_into().ok()?;
    let mut rest = bytes.as_slice();
    let mut u64s = || take::<8>(&mut rest).map(u64::from_ne_bytes);
    let (at_ns, job, cookie) = (u64s()?, u64s()?, u64s()?);
    let mut u32s = || take::<4>(&mut rest).map(u32::from_ne_bytes);
    let addr = gateway_common::Addr([u32s()?, u32s()?, u32s()?, u32s()?]);
    let mut u16s = || take::<2>(&mut rest).map(u16::from_ne_bytes);
    let (port, reason) = (u16s()?, u16s()?);
    let [hook, family, protocol, observed] = take(&mut rest)?;
    let mut u32s = || take::<4>(&mut rest).map(u32::from_ne_bytes);
    let (kind, detail, pid, uid) = (u32s()?, u32s()?, u32s()?, u32s()?);
    let comm = take(&mut rest)?;
    Some(Event {
        at_ns,
        job,
        cookie,
        addr,
        port,
        reason,
        hook,
        family,
        protocol,
        observed,
        kind,
        detail,
        pid,
        uid,
        comm,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}
