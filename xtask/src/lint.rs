//! `xtask lint`: clippy, with warnings denied, over everything.

use anyhow::Result;

use crate::{
    host::{self, Host},
    setup,
};

pub(crate) fn run(host: &Host) -> Result<()> {
    setup::for_building(host)?;
    host::run(host.cargo().args([
        "clippy",
        "--all-targets",
        "--features",
        "xtask/world",
        "--",
        "-D",
        "warnings",
    ]))?;
    // The kernel programs' own decisions are an ordinary library; the programs around them only
    // compile for the BPF target, which gateway-agent's build script does.
    host::run(host.cargo().args(["clippy", "--package", "gateway-ebpf", "--lib", "--", "-D", "warnings"]))
}
