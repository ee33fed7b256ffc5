//! Where suites say how they came out through the gateway and past it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use tests::process;

/// The folder of a suite's reports.
pub(crate) fn reports(suite: &str) -> Result<PathBuf> {
    let target = std::env::var_os("GATEWAY_TARGET_DIR")
        .with_context(|| format!("run this by `cargo xtask test e2e {suite}`"))?;
    let folder = PathBuf::from(target).join(suite);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Two texts, as diff shows them.
pub(crate) fn difference(direct: &str, gateway: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let paths = [("direct", direct), ("gateway", gateway)].map(|(way, text)| {
        let path = folder.path().join(way);
        fs::write(&path, text).map(|()| path)
    });
    let [direct, gateway] = paths;
    Ok(process::run(Command::new("diff").arg("-U3").arg(direct?).arg(gateway?))?.stdout)
}
