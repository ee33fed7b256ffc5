//! demo, bench, pg-regress and ssh-regress are programs of their own (see the `world` feature): build them, then hand over.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::{
    build::{self, Profile},
    host::{self, Host},
    setup,
};

pub(crate) fn run(host: &Host, command: &str, words: &[&str], profile: Profile) -> Result<()> {
    anyhow::ensure!(
        host::is_root(),
        "`cargo xtask {command}` needs root: it makes network namespaces and cgroups, and loads kernel programs"
    );
    setup::for_worlds(host)?;
    build::programs(host, profile)?;
    let folder = host.target.join(profile.folder());
    let mut program = host.command(folder.join("xtask-world"));
    program.arg(command).args(words).env("GATEWAY_BIN_DIR", &folder).env("GATEWAY_TARGET_DIR", &host.target);
    // In our place, as cargo put us in its own: Ctrl-C then reaches who cleans up, and the shell
    // waits for that.
    let error = program.exec();
    Err(error).with_context(|| format!("cannot start `{}`", host::show(&program)))
}
