//! `xtask fuzz`: cargo-fuzz over the parsers that read what a peer sent.

use std::{
    fs,
    num::NonZero,
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{host, host::Host, setup};

/// The fuzz crate, which is a workspace of its own: it needs nightly and a sanitizer.
const CRATE: &str = "gateway-agent/crates/protocol/fuzz";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// One target; all of them by default.
    target: Option<String>,
    /// Seconds for each target.
    #[arg(default_value_t = 60)]
    seconds: u32,
    /// Only build them.
    #[arg(long)]
    build: bool,
}

impl Arguments {
    pub(crate) fn all(seconds: u32) -> Self {
        Self { target: None, seconds, build: false }
    }
}

pub(crate) fn run(host: &Host, arguments: &Arguments) -> Result<()> {
    setup::cargo_tool(host, "cargo-fuzz", "0.13")?;
    let folder = host.root.join(CRATE);
    let targets = targets(host)?;
    ensure!(!targets.is_empty(), "{CRATE} has no fuzz targets");
    let chosen: Vec<&String> = match &arguments.target {
        None => targets.iter().collect(),
        Some(name) => match targets.iter().find(|target| *target == name) {
            Some(target) => vec![target],
            None => bail!("no fuzz target `{name}`; there are: {}", targets.join(", ")),
        },
    };
    let fuzz = |command: &str| {
        let mut cargo = host.nightly();
        cargo.args(["fuzz", command, "--fuzz-dir"]).arg(&folder);
        cargo.arg("--target-dir").arg(host.target.join("fuzz"));
        // Its own wrapper flags need nightly's cargo and no target folder of ours.
        cargo.env_remove("CARGO_TARGET_DIR");
        cargo
    };
    eprintln!("-- building the fuzz targets");
    host::run(&mut fuzz("build"))?;
    if arguments.build {
        return Ok(());
    }
    let run = |target: &str| -> Result<()> {
        let seeds = folder.join("seeds").join(target);
        let corpus = host.target.join("fuzz-corpus").join(target);
        fs::create_dir_all(&corpus).with_context(|| format!("making {}", corpus.display()))?;
        let mut cargo = fuzz("run");
        cargo.arg(target).arg(&corpus);
        if seeds.is_dir() {
            cargo.arg(&seeds);
        }
        cargo.args(["--", &format!("-max_total_time={}", arguments.seconds), "-timeout=10"]);
        cargo.args(["-rss_limit_mb=4096", "-print_final_stats=1"]);
        host::quietly(&format!("fuzz {target} for {} s", arguments.seconds), &mut cargo)
    };
    // Each has a processor to itself.
    let next = Mutex::new(chosen.iter());
    let failed = Mutex::new(Vec::new());
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                while let Some(target) = take() {
                    if let Err(error) = run(target) {
                        eprintln!("{error:#}");
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(target.as_str());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("fuzz: {} passed, {} failed", chosen.len() - failed.len(), failed.len());
    ensure!(failed.is_empty(), "fuzzing found failures in: {}", failed.join(", "));
    Ok(())
}

fn targets(host: &Host) -> Result<Vec<String>> {
    let manifest = host.root.join(CRATE).join("Cargo.toml");
    ensure!(manifest.is_file(), "{} is missing", manifest.display());
    let metadata = host::output(
        host.cargo().args(["metadata", "--no-deps", "--format-version=1", "--manifest-path"]).arg(&manifest),
    )?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let targets =
        packages.iter().flat_map(|package| package["targets"].as_array().cloned().unwrap_or_default());
    let bins =
        targets.filter(|target| target["kind"].as_array().is_some_and(|kinds| kinds.contains(&"bin".into())));
    Ok(bins.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect())
}
