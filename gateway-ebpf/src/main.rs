//! Kernel programs: redirect a job's connections into the gateway, deny the rest.
//!
//! One file per hook; `maps` holds every map, `who` tells whose process or packet it is, `report` counts and
//! tells the agent. What is decided is decided by pure functions of `gateway_common`, which the host tests.
//!
//! A missing lookup denies. Whatever concerns no job and no protected destination passes untouched.
#![no_std]
#![no_main]
// Inline assembly for BPF; the programs are built with the pinned nightly anyway.
#![feature(asm_experimental_arch)]

mod bind;
mod connect;
mod datagram;
mod inside;
mod lookup;
mod lsm;
mod maps;
mod option;
mod packet;
mod peername;
mod report;
mod sockaddr;
mod socket;
mod who;

/// What cgroup programs return.
const DENY: i32 = 0;
const PASS: i32 = 1;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program from which this can be reached.
    loop {}
}

// LSM programs must be GPL-compatible; see the package's licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
