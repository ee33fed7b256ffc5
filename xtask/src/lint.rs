//! `xtask lint`: clippy, with warnings denied, over everything.

use anyhow::Result;

use crate::{
    host::{self, Host},
    setup,
};

pub(crate) fn run(host: &Host) -> Result<()> {
    setup::for_building(host)?;
    // The kernel programs only compile for the BPF target, which gateway-agent's build script does; what they
    // decide is in gateway-common and checked here.
    host::run(host.cargo().args([
        "clippy",
        "--all-targets",
        "--features",
        "xtask/world",
        "--",
        "-D",
        "warnings",
    ]))
}
