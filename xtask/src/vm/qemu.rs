//! Booting a guest and listening to its console.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::emulator::Emulator;

/// What the console said.
pub(super) struct Seen {
    lines: Vec<String>,
    /// Of the runner; `None` when the guest did not get so far.
    pub(super) code: Option<i32>,
    pub(super) took: Duration,
}

impl Seen {
    /// The rest of the last line that begins like this.
    pub(super) fn said(&self, begins: &str) -> Option<String> {
        self.lines.iter().rev().find_map(|line| line.strip_prefix(begins)).map(str::to_owned)
    }
}

/// Runs until the guest powers off, or the time is over.
pub(super) fn boot(
    emulator: &Emulator,
    kernel: &Path,
    initramfs: &Path,
    lsm: bool,
    patience: Duration,
) -> Result<Seen> {
    let started = Instant::now();
    let modules = if lsm { "landlock,yama,bpf" } else { "landlock,yama" };
    let mut qemu = emulator.command();
    // Never hardware acceleration: what a machine offers under that name may not run these kernels.
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"])
        .args(["-nographic", "-no-reboot", "-nic", "none", "-no-user-config"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .arg("-append")
        .arg(format!("console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off lsm={modules}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut child = qemu.spawn().context("cannot start QEMU")?;
    let console = BufReader::new(child.stdout.take().context("no console")?);
    let (send, receive) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        // A console may say anything; lines that are no text are still lines.
        for line in console.split(b'\n').map_while(std::result::Result::ok) {
            if send.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    let mut seen = Seen { lines: Vec::new(), code: None, took: Duration::ZERO };
    while let Some(left) = patience.checked_sub(started.elapsed()) {
        match receive.recv_timeout(left) {
            Ok(line) => {
                println!("   | {line}");
                if let Some(code) = line.strip_prefix("guest ended with ") {
                    seen.code = code.trim().parse().ok();
                }
                seen.lines.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("   the guest did not end within {} s", patience.as_secs());
                break;
            }
        }
    }
    // Gone already, unless the time was over.
    child.kill().ok();
    child.wait()?;
    drop(receive);
    reading.join().ok();
    seen.took = started.elapsed();
    Ok(seen)
}
