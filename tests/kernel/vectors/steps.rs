//! Short words for what most attempts are made of.

use std::net::SocketAddr;

use crate::ask::{Control, Step};

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(super) fn socket(family: i32, kind: i32, protocol: i32) -> Step {
    Step::Socket { family, kind, protocol }
}

/// Of the family that the address is written in.
fn like(to: SocketAddr, kind: i32) -> Step {
    socket(if to.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET }, kind, 0)
}

pub(super) fn stream(to: &str) -> Step {
    like(addr(to), libc::SOCK_STREAM)
}

pub(super) fn datagram(to: &str) -> Step {
    like(addr(to), libc::SOCK_DGRAM)
}

pub(super) fn to(to: &str) -> Step {
    Step::Connect { to: addr(to) }
}

pub(super) fn tcp(dial: &str) -> Vec<Step> {
    vec![stream(dial), to(dial)]
}

pub(super) fn send(to: &str) -> Step {
    Step::SendTo { to: addr(to), flags: 0, control: None }
}

pub(super) fn send_with(to: &str, level: i32, kind: i32, data: Vec<u8>) -> Step {
    Step::SendTo { to: addr(to), flags: 0, control: Some(Control { level, kind, data }) }
}

pub(super) fn udp(to: &str) -> Vec<Step> {
    vec![datagram(to), send(to)]
}

pub(super) fn udp_connected(dial: &str) -> Vec<Step> {
    vec![datagram(dial), to(dial)]
}

pub(super) fn option(level: i32, name: i32, value: &[u8]) -> Step {
    Step::Option { level, name, value: value.to_vec() }
}

pub(super) const ONE: [u8; 4] = 1_i32.to_ne_bytes();
