//! `xtask test kernel --vm VERSION`: the same runner on other kernels, in software emulation.
//!
//! Debian's own kernel packages, an initramfs of ours with the runner and the libraries that it is linked with,
//! and QEMU without hardware acceleration. Nothing is installed but busybox; kernels and QEMU are fetched into
//! the target folder through an apt state of our own, from the mirror that the machine is configured with.

mod emulator;
mod fetch;
mod initramfs;
mod qemu;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{host::Host, setup};

/// A guest of the matrix.
#[derive(Debug, Clone, Copy)]
struct Guest {
    /// What a person asks for.
    name: &'static str,
    /// Debian release whose archive has the kernel.
    suite: &'static str,
    /// How the version begins; empty for whatever is newest.
    version: &'static str,
    /// `bpf` among the security modules.
    lsm: bool,
    /// Below the floor: the programs must refuse to start, and say why.
    refused: bool,
}

const GUESTS: &[Guest] = &[
    Guest { name: "5.10", suite: "bullseye", version: "5.10.", lsm: false, refused: true },
    Guest { name: "6.1", suite: "bookworm", version: "6.1.", lsm: false, refused: false },
    Guest { name: "6.12", suite: "trixie", version: "6.12.", lsm: false, refused: false },
    Guest { name: "6.12-lsm", suite: "trixie", version: "6.12.", lsm: true, refused: false },
    Guest { name: "newest", suite: "sid", version: "", lsm: true, refused: false },
];

/// A guest that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(1500);

/// What the runner printed at its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    guest: String,
    kernel: String,
    lsm: bool,
    ok: bool,
    summary: String,
    seconds: u64,
}

/// The programs that go into the guest.
pub(crate) struct Programs {
    pub(crate) runner: PathBuf,
    pub(crate) actor: PathBuf,
}

/// Runs the runner with these words in one guest, or in all of them.
pub(crate) fn run(host: &Host, which: &str, programs: &Programs, words: &[String]) -> Result<()> {
    let guests: Vec<&Guest> = GUESTS.iter().filter(|guest| which == "all" || guest.name == which).collect();
    let names: Vec<_> = GUESTS.iter().map(|guest| guest.name).collect();
    ensure!(!guests.is_empty(), "no guest is called {which}: all, {}", names.join(", "));
    setup::for_guests(host)?;
    let emulator = emulator::fetch(host)?;
    let folder = host.target.join("vm");
    let mut results = Vec::new();
    for guest in guests {
        let result =
            one(host, &emulator, guest, programs, words).with_context(|| format!("guest {}", guest.name))?;
        remember(&folder.join("results.json"), &result)?;
        results.push(result);
    }
    println!("\n| guest | kernel | BPF LSM | result |\n|---|---|---|---|");
    for result in &results {
        let lsm = if result.lsm { "on" } else { "off" };
        println!("| {} | {} | {lsm} | {} |", result.guest, result.kernel, result.summary);
    }
    let failed: Vec<_> =
        results.iter().filter(|result| !result.ok).map(|result| result.guest.as_str()).collect();
    if !failed.is_empty() {
        bail!("failed on {}", failed.join(", "));
    }
    Ok(())
}

/// Keeps the last result of each guest.
fn remember(file: &Path, result: &Outcome) -> Result<()> {
    let mut all: Vec<Outcome> = match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| file.display().to_string())?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    };
    all.retain(|known| known.guest != result.guest);
    all.push(result.clone());
    fs::write(file, serde_json::to_string_pretty(&all)?)?;
    Ok(())
}

fn one(
    host: &Host,
    emulator: &emulator::Emulator,
    guest: &Guest,
    programs: &Programs,
    words: &[String],
) -> Result<Outcome> {
    let kernel = fetch::kernel(host, guest.suite, guest.version)?;
    let words = if guest.refused { vec!["--expect-refusal".to_owned()] } else { words.to_vec() };
    let image = host.target.join("vm").join(format!("{}.cpio", guest.name));
    initramfs::build(host, &kernel, programs, &words, &image)?;
    eprintln!("-- guest {}: Linux {}", guest.name, kernel.release);
    let seen = qemu::boot(emulator, &kernel.vmlinuz, &image, guest.lsm, PATIENCE);
    fs::remove_file(&image).ok();
    let seen = seen?;
    let summary = if guest.refused {
        seen.said("refused: ").unwrap_or_else(|| "was not refused".into())
    } else {
        seen.said("test result: ").unwrap_or_else(|| "the guest ended before the tests did".into())
    };
    Ok(Outcome {
        guest: guest.name.to_owned(),
        kernel: kernel.release,
        lsm: guest.lsm,
        ok: seen.code == Some(0),
        summary,
        seconds: seen.took.as_secs(),
    })
}
