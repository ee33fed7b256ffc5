//! What a process uses, from /proc.

use std::fs;

use anyhow::{Context, Result};

/// CPU seconds of all threads of a process so far. Threads that ended are not counted.
pub(super) fn cpu(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        // A thread may end while we look.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
        let ran: u64 = text.split(' ').next().unwrap_or_default().parse().context("reading schedstat")?;
        nanoseconds += ran;
    }
    Ok(std::time::Duration::from_nanos(nanoseconds).as_secs_f64())
}

/// The memory that a process has resident now, in MiB.
pub(super) fn resident(pid: u32) -> Result<f64> {
    status(pid, "VmRSS:")
}

/// The most memory that a process ever had resident since [`forget_peak`], in MiB.
pub(super) fn peak(pid: u32) -> Result<f64> {
    status(pid, "VmHWM:")
}

fn status(pid: u32, field: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        text.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

pub(super) fn forget_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("forgetting the peak of memory")
}
