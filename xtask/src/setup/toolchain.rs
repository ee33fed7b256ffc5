//! The nightly toolchain with its sources, the BPF linker that fits it, and cargo's tools.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Lack;
use crate::{host, host::Host};

/// The linker reads the bitcode that the nightly writes, through the LLVM that the nightly brings:
/// which release of it fits follows from that LLVM.
const LINKERS: &[(u32, &str)] = &[(22, "0.10")];

pub(super) fn ensure(host: &Host) -> Vec<Lack> {
    [nightly(host), linker(host)].into_iter().filter_map(Result::err).collect()
}

fn nightly(host: &Host) -> Result<(), Lack> {
    let remedy = "rustup toolchain install nightly --profile minimal --component rust-src";
    let sysroot =
        host::output(host.command("rustc").args(["+nightly", "--print", "sysroot"])).map_err(|error| {
            Lack::new("a nightly Rust toolchain (kernel programs need it)", format!("{remedy}\n({error:#})"))
        })?;
    let present = || {
        std::path::Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
    };
    if present() {
        return Ok(());
    }
    let mut rustup = host.command("rustup");
    rustup.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
    let done = host::quietly("rustup component add rust-src", &mut rustup);
    if present() {
        return Ok(());
    }
    let why = done.err().map_or_else(|| "rustup said it was there".to_owned(), |error| format!("{error:#}"));
    Err(Lack::new("the sources of the nightly's core library", format!("{}\n({why})", host::show(&rustup))))
}

fn linker(host: &Host) -> Result<(), Lack> {
    let lack = |remedy: String| Lack::new("bpf-linker, which makes the kernel programs", remedy);
    let version = host::output(host.command("rustc").args(["+nightly", "-vV"]))
        .map_err(|error| lack(format!("{error:#}")))?;
    let llvm =
        llvm_of(&version).ok_or_else(|| lack(format!("`rustc +nightly -vV` names no LLVM:\n{version}")))?;
    let Some((_, series)) = LINKERS.iter().find(|(of, _)| *of == llvm) else {
        let known: Vec<_> = LINKERS.iter().map(|(llvm, _)| llvm.to_string()).collect();
        // One that was put on PATH on purpose is taken at its word.
        return match version_of(host, "bpf-linker") {
            Some(_) => Ok(()),
            None => Err(lack(format!(
                "this nightly has LLVM {llvm}, and setup knows the linker for LLVM {} only:\n\
                 install the bpf-linker whose notes name LLVM {llvm}, or a nightly with LLVM {}",
                known.join(", "),
                known.join(", ")
            ))),
        };
    };
    cargo_tool(host, "bpf-linker", series).map_err(|error| lack(format!("{error:#}")))
}

/// Finds a tool of this release series on PATH, or installs it into the target folder.
pub(crate) fn cargo_tool(host: &Host, name: &str, series: &str) -> Result<()> {
    let fits = |version: &str| version == series || version.starts_with(&format!("{series}."));
    if version_of(host, name).is_some_and(|version| fits(&version)) {
        return Ok(());
    }
    let mut cargo = host.cargo();
    cargo.args(["install", name, "--locked", "--force", "--version", &format!("~{series}"), "--root"]);
    cargo.arg(host.tools());
    // Quicker to compile than to run well: these run for seconds.
    if name != "bpf-linker" {
        cargo.args(["--profile", "dev"]);
    }
    cargo.env("CARGO_TARGET_DIR", host.tools().join("build"));
    host::quietly(&format!("cargo install {name} {series} (a few minutes, once)"), &mut cargo)
        .with_context(|| format!("get it by: cargo install {name} --locked --version '~{series}'"))?;
    std::fs::remove_dir_all(host.tools().join("build")).ok();
    match version_of(host, name) {
        Some(version) if fits(&version) => Ok(()),
        Some(version) => bail!("{name} is installed, but answers as version {version}"),
        None => bail!("{name} is installed, but does not run"),
    }
}

/// The version that `NAME --version` prints.
fn version_of(host: &Host, name: &str) -> Option<String> {
    let path = host.which(name)?;
    let mut command = Command::new(path);
    // A cargo subcommand expects its own name first.
    if let Some(subcommand) = name.strip_prefix("cargo-") {
        command.arg(subcommand);
    }
    let printed = host::output(command.arg("--version")).ok()?;
    printed.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned)
}

fn llvm_of(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_llvm_of_a_nightly_is_read_from_its_version() {
        let version =
            "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(super::llvm_of(version), Some(22));
        assert_eq!(super::llvm_of("rustc 1.97.0"), None);
    }
}
