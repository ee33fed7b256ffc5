//! Builds the kernel programs with the nightly toolchain and leaves them in `OUT_DIR/gateway`.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail};
use aya_build::Toolchain;

/// Which toolchain compiles for BPF; `rustup` knows it by this name.
const TOOLCHAIN: &str = "GATEWAY_EBPF_TOOLCHAIN";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("run this through cargo")?);
    let workspace = package.parent().context("the agent lies inside the workspace")?;
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={TOOLCHAIN}");
    // aya-build watches the programs themselves.
    let common = workspace.join("gateway-common");
    println!("cargo:rerun-if-changed={}", common.join("src").display());
    println!("cargo:rerun-if-changed={}", common.join("Cargo.toml").display());

    let toolchain = env::var(TOOLCHAIN).unwrap_or_else(|_| "nightly".to_owned());
    check_rust_src(&toolchain)?;
    let path = path_with_linker(workspace)?;
    // SAFETY: the build script has one thread, and nothing has read the environment on another.
    #[expect(unsafe_code, reason = "the only way to hand PATH to the cargo that aya-build starts")]
    unsafe {
        env::set_var("PATH", path);
        // Progress lines of the inner cargo would show up as warnings of every later build.
        env::set_var("CARGO_TERM_QUIET", "true");
    }

    let root = workspace.join("gateway-ebpf");
    let root = root.to_str().context("the workspace's path is not UTF-8")?;
    let features: &[&str] = if env::var_os("CARGO_FEATURE_EBPF_LOG").is_some() { &["log"] } else { &[] };
    aya_build::build_ebpf(
        [aya_build::Package { name: "gateway-ebpf", root_dir: root, features, ..Default::default() }],
        Toolchain::Custom(&toolchain),
    )
    .context("building the kernel programs failed; `cargo xtask setup` checks and installs what it needs")
}

/// bpf-linker from PATH, or the one that setup put into the target folder.
fn path_with_linker(workspace: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let has_linker = |folder: &PathBuf| folder.join("bpf-linker").is_file();
    if !folders.iter().any(has_linker) {
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
        let own = [target.join("tools/bin"), workspace.join("target/tools/bin")];
        let Some(found) = own.into_iter().find(has_linker) else {
            bail!(
                "bpf-linker is neither on PATH nor in {}: run `cargo xtask setup`",
                workspace.join("target/tools/bin").display()
            );
        };
        folders.push(found);
    }
    env::join_paths(folders).context("PATH cannot be joined")
}

/// core is compiled for the target, from source.
fn check_rust_src(toolchain: &str) -> Result<()> {
    let sysroot = Command::new("rustup")
        .args(["run", toolchain, "rustc", "--print", "sysroot"])
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok());
    let Some(sysroot) = sysroot else {
        bail!(
            "rustup has no toolchain `{toolchain}`, which compiles the kernel programs: run `cargo xtask setup`"
        );
    };
    if !Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir() {
        bail!(
            "toolchain `{toolchain}` lacks rust-src: run `cargo xtask setup`, or \
             `rustup component add rust-src --toolchain {toolchain}`"
        );
    }
    Ok(())
}
