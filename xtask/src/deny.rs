//! `xtask deny`: cargo-deny over deny.toml. The advisories need a database from the network and
//! are left to those who have it: `cargo deny check`.

use anyhow::Result;

use crate::{host, host::Host, setup};

pub(crate) fn run(host: &Host) -> Result<()> {
    setup::cargo_tool(host, "cargo-deny", "0.20")?;
    // Also what other platforms' builds would need: the graph is checked as a whole, without the network.
    host::run(host.cargo().args(["fetch", "--locked"]))?;
    host::run(host.cargo().args([
        "deny",
        "--offline",
        "--workspace",
        "check",
        "--show-stats",
        "licenses",
        "bans",
        "sources",
    ]))
}
