//! What the guest boots into: busybox, `ip`, the runner, the libraries they need, a few modules and an init.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{Programs, fetch::Kernel};
use crate::host::{self, Host};

/// The first must load. The others are protocols that a job may try, where the kernel has them.
const MODULES: &[&str] = &[
    "veth",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "sctp",
    "dccp",
    "dccp_ipv4",
    "dccp_ipv6",
    "l2tp_ip",
    "l2tp_ip6",
    "smc",
    "rds",
    "tipc",
    "vsock",
    "vsock_loopback",
    "qrtr",
];

const INIT: &str = r#"#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
$bb mount -t tmpfs tmpfs /tmp
$bb mount -t tmpfs tmpfs /run
$bb mount -t securityfs securityfs /sys/kernel/security
$bb mount -t cgroup2 cgroup2 /sys/fs/cgroup
$bb chmod 1777 /tmp
for module in $($bb cat /modules/order); do
    $bb insmod /modules/$module.ko 2>/dev/null || echo "guest: no $module"
done
ip link set lo up
echo "guest: Linux $($bb uname -r), security modules $($bb cat /sys/kernel/security/lsm)"
export PATH=/bin GATEWAY_BIN_DIR=/bin GATEWAY_EMULATED=1 RUST_BACKTRACE=0 TMPDIR=/tmp
kernel-tests $($bb cat /words) </dev/null 2>&1
echo "guest ended with $?"
$bb poweroff -f
"#;

/// Writes the archive.
pub(super) fn build(
    host: &Host,
    kernel: &Kernel,
    programs: &Programs,
    words: &[String],
    to: &Path,
) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    let busybox = host.which("busybox").context("busybox-static is not installed")?;
    let ip = fs::canonicalize(host.which("ip").context("iproute2 is not installed")?)?;
    files.insert("bin/busybox".into(), busybox);
    files.insert("bin/ip".into(), ip.clone());
    for (name, program) in [("kernel-tests", &programs.runner), ("kernel-actor", &programs.actor)] {
        let stripped = scratch.path().join(name);
        host::run(Command::new("strip").arg("-o").arg(&stripped).arg(program))?;
        files.insert(format!("bin/{name}"), stripped);
    }
    for program in [&ip, &programs.runner, &programs.actor] {
        for library in libraries(program)? {
            files.insert(library.to_string_lossy().trim_start_matches('/').to_owned(), library);
        }
    }
    let mut order = String::new();
    for module in modules(kernel)? {
        let plain = scratch.path().join(format!("{}.ko", module.name));
        fs::write(&plain, module.bytes)?;
        files.insert(format!("modules/{}.ko", module.name), plain);
        order.push_str(&module.name);
        order.push('\n');
    }

    let mut archive = Archive::new(to)?;
    let folders = ["proc", "sys", "dev", "tmp", "run", "etc", "root"].map(str::to_owned);
    let mut made = BTreeSet::new();
    for path in folders.iter().map(|folder| format!("{folder}/x")).chain(files.keys().cloned()) {
        let mut parents: Vec<_> = Path::new(&path).ancestors().skip(1).collect();
        parents.reverse();
        for parent in parents.iter().filter(|parent| !parent.as_os_str().is_empty()) {
            if made.insert(parent.to_path_buf()) {
                archive.entry(&parent.to_string_lossy(), 0o040_755, &[])?;
            }
        }
    }
    archive.entry("init", 0o100_755, INIT.as_bytes())?;
    archive.entry("words", 0o100_644, words.join(" ").as_bytes())?;
    archive.entry("modules/order", 0o100_644, order.as_bytes())?;
    for (name, from) in &files {
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        archive.entry(
            name,
            0o100_000 | mode,
            &fs::read(from).with_context(|| from.display().to_string())?,
        )?;
    }
    archive.finish()
}

/// Every shared library of a program, the loader among them. The runner is not built statically: the standard
/// library for that target cannot be had everywhere, and libclang's C code would have to be built again.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = host::output(Command::new("ldd").arg(program))?;
    let paths = text.lines().filter_map(|line| {
        let path = line.split("=>").last()?.split_whitespace().next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    Ok(paths.collect())
}

struct Module {
    name: String,
    bytes: Vec<u8>,
}

/// The wanted modules and what they depend on, in the order in which they load.
fn modules(kernel: &Kernel) -> Result<Vec<Module>> {
    let mut all = BTreeMap::new();
    index(&kernel.modules, &mut all)?;
    let mut loaded = BTreeSet::new();
    let mut order = Vec::new();
    for name in MODULES {
        add(name, &all, &mut loaded, &mut order)?;
    }
    if !order.iter().any(|module| module.name == "veth") {
        bail!("{} has no veth module", kernel.modules.display());
    }
    Ok(order)
}

fn add(
    name: &str,
    all: &BTreeMap<String, PathBuf>,
    loaded: &mut BTreeSet<String>,
    order: &mut Vec<Module>,
) -> Result<()> {
    // Built in, or not there at all.
    let Some(path) = all.get(name) else { return Ok(()) };
    if !loaded.insert(name.to_owned()) {
        return Ok(());
    }
    let bytes = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => raw(Command::new("xz").arg("-dc").arg(path))?,
        Some("zst") => raw(Command::new("zstd").args(["-dcq"]).arg(path))?,
        _ => fs::read(path)?,
    };
    for needed in depends(&bytes) {
        add(&needed, all, loaded, order)?;
    }
    order.push(Module { name: name.to_owned(), bytes });
    Ok(())
}

fn raw(command: &mut Command) -> Result<Vec<u8>> {
    let out = command.output().with_context(|| host::show(command))?;
    anyhow::ensure!(out.status.success(), "`{}` failed", host::show(command));
    Ok(out.stdout)
}

fn index(folder: &Path, all: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            index(&path, all)?;
        } else if let Some((stem, _)) = path.file_name().and_then(|name| name.to_str()?.split_once(".ko")) {
            // File names say dashes where modules say underscores.
            all.insert(stem.replace('-', "_"), path.clone());
        }
    }
    Ok(())
}

/// The `depends=` line of a module's own description.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let rest = module.get(at + KEY.len()..).unwrap_or_default();
    let line = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    text.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// The `newc` form of cpio, which is what the kernel unpacks.
struct Archive {
    file: BufWriter<File>,
    inode: u32,
}

impl Archive {
    fn new(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Self { file: BufWriter::new(file), inode: 1 })
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.inode += 1;
        let size = u32::try_from(bytes.len()).context("a file of 4 GiB")?;
        let name_size = u32::try_from(name.len())? + 1;
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        write!(self.file, "070701")?;
        for field in fields {
            write!(self.file, "{field:08x}")?;
        }
        self.file.write_all(name.as_bytes())?;
        self.file.write_all(&[0])?;
        // Header and name together, and the content, are multiples of four.
        self.pad(110 + name.len() + 1)?;
        self.file.write_all(bytes)?;
        self.pad(bytes.len())
    }

    fn pad(&mut self, written: usize) -> Result<()> {
        let rest = (4 - written % 4) % 4;
        Ok(self.file.write_all(&[0; 3][..rest])?)
    }

    fn finish(mut self) -> Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.file.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_needs() {
        assert_eq!(
            depends(b"\x7fELF\0depends=libcrc32c,udp-tunnel\0name=sctp\0"),
            ["libcrc32c", "udp_tunnel"]
        );
        assert!(depends(b"\0depends=\0").is_empty());
        assert!(depends(b"nothing").is_empty());
    }
}
