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
    kernel_programs(host)
}

/// The kernel programs only compile for the BPF target and with nightly, as gateway-agent's build script does it.
fn kernel_programs(host: &Host) -> Result<()> {
    host::run(
        host.nightly()
            .args([
                "clippy",
                "--package",
                "gateway-ebpf",
                "--target",
                "bpfel-unknown-none",
                "-Z",
                "build-std=core",
            ])
            .arg("--target-dir")
            .arg(host.target.join("lint-ebpf"))
            // aya's bindings differ by the architecture of the kernel.
            .env("RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH))
            .args(["--", "-D", "warnings"]),
    )
}
