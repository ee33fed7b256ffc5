//! `xtask build`, and the builds that the other commands share.
//!
//! All of them build the same selection of packages, so that cargo resolves the same features
//! and compiles a dependency once.

use std::process::Stdio;

use anyhow::{Context, Result};

use crate::{host, host::Host, setup};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Optimised, as it is deployed.
    #[arg(long)]
    release: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

impl Profile {
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

pub(crate) fn run(host: &Host, arguments: &Arguments) -> Result<()> {
    setup::for_building(host)?;
    let profile = if arguments.release { Profile::Release } else { Profile::Dev };
    let mut cargo = host.cargo();
    cargo.args(["build", "--package", "gateway-agent"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    host::run(&mut cargo)?;
    println!("{}", host.target.join(profile.folder()).join("gateway-agent").display());
    Ok(())
}

/// Every program: the agent, the test clients, demo and bench.
pub(crate) fn programs(host: &Host, profile: Profile) -> Result<()> {
    let mut cargo = host.cargo();
    cargo.args(["build", "--bins", "--features", "xtask/world"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    host::run(&mut cargo)
}

/// A compiled test program.
#[derive(Debug)]
pub(crate) struct TestProgram {
    pub(crate) package: String,
    /// The target's name: the crate for unit tests, the file for integration tests.
    pub(crate) name: String,
    pub(crate) integration: bool,
    pub(crate) executable: std::path::PathBuf,
    /// Where cargo would run it.
    pub(crate) folder: std::path::PathBuf,
}

/// Every program and every test.
pub(crate) fn tests(host: &Host) -> Result<Vec<TestProgram>> {
    let mut cargo = host.cargo();
    cargo
        .args(["build", "--bins", "--tests", "--features", "xtask/world"])
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let child = cargo.spawn().context("cannot start cargo")?;
    let out = child.wait_with_output()?;
    anyhow::ensure!(out.status.success(), "the tests do not build");
    let mut programs = Vec::new();
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line).context("reading cargo's messages")?;
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            continue;
        }
        let (Some(executable), Some(manifest), Some(name)) = (
            message["executable"].as_str(),
            message["manifest_path"].as_str(),
            message["target"]["name"].as_str(),
        ) else {
            continue;
        };
        let folder =
            std::path::Path::new(manifest).parent().context("a manifest without a folder")?.to_owned();
        let package = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let kinds = message["target"]["kind"].as_array().cloned().unwrap_or_default();
        programs.push(TestProgram {
            package,
            name: name.to_owned(),
            integration: kinds.iter().any(|kind| kind == "test"),
            executable: executable.into(),
            folder,
        });
    }
    programs.sort_by(|a, b| (&a.package, &a.name).cmp(&(&b.package, &b.name)));
    Ok(programs)
}
