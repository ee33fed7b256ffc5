//! Fixtures: a small world of network namespaces, a real PostgreSQL, a token issuer and the agent,
//! in which a job runs as it would on a build host.
//!
//! ```text
//!   namespace host                         namespace far
//!   ┌──────────────────────────────┐       ┌─────────────────────────┐
//!   │ cgroup gateway: agent        │ veth  │ 198.51.100.10 PostgreSQL│
//!   │ cgroup gateway-jobs/…: jobs  ├───────┤ 198.51.100.30 discovery │
//!   │                              │       └─────────────────────────┘
//!   │                              │ veth  ┌─────────────────────────┐
//!   │              (default route) ├───────┤ namespace canary        │
//!   └──────────────────────────────┘       │ counts what arrives     │
//!                                          └─────────────────────────┘
//! ```
//!
//! The canary sits on the default route: whatever leaves for a destination that is not the
//! declared server arrives there and is counted. Worlds have names of their own and run side by
//! side; dropping one removes everything it made, and the next run sweeps what a killed one left.

pub mod agent;
pub mod cgroup;
pub mod https;
pub mod issuer;
pub mod job;
pub mod kubelet;
pub mod kubernetes;
pub mod names;
pub mod nameserver;
pub mod netns;
pub mod openssh;
pub mod pki;
pub mod postgres;
pub mod process;
pub mod provider;
pub mod regress;
pub mod sample;
pub mod sshd;
pub mod vault;
pub mod web;
pub mod wire;
pub mod world;

use std::{env, path::PathBuf};

use anyhow::{Context, Result, ensure};

pub use crate::world::{Builder, World};

/// A program of this workspace: the agent, or one of the test clients.
///
/// # Errors
/// When it has not been built.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = programs()?.join(name);
    ensure!(
        path.is_file(),
        "{} is missing: `cargo xtask build`, or run this by `cargo xtask test`",
        path.display()
    );
    Ok(path)
}

pub(crate) fn programs() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("GATEWAY_BIN_DIR") {
        return Ok(folder.into());
    }
    // target/PROFILE/deps/TEST-HASH
    let mut path = env::current_exe().context("where is this program?")?;
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    Ok(path)
}

/// The Python environment that has the drivers.
pub(crate) fn venv() -> Result<PathBuf> {
    let path = target()?.join("tools/venv");
    ensure!(path.join("bin/python").exists(), "{} is missing: `cargo xtask setup` makes it", path.display());
    Ok(path)
}

/// Cargo's target folder.
pub(crate) fn target() -> Result<PathBuf> {
    match env::var_os("GATEWAY_TARGET_DIR") {
        Some(target) => Ok(target.into()),
        None => Ok(programs()?.parent().context("a target folder")?.to_owned()),
    }
}
