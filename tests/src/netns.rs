//! Network namespaces, and the wires between them.

use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{must, output};

/// A namespace as `ip netns` knows it.
#[derive(Debug, Clone)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with its loopback up.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn make(name: String) -> Result<Self> {
        // The first `ip netns add` of a machine prepares the folder; two at once trip over it.
        static FIRST: Mutex<()> = Mutex::new(());
        let guard = FIRST.lock();
        must(Command::new("ip").args(["netns", "add", &name]))?;
        drop(guard);
        let made = Self { name };
        // No neighbour discovery or router solicitations on their own account: what a counter
        // counts is then what someone sent.
        for (file, value) in [
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv6/conf/default/router_solicitations", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/addr_gen_mode", "1"),
        ] {
            made.sysctl(file, value)?;
        }
        made.ip(&["link", "set", "lo", "up"])?;
        Ok(made)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// `ip …` inside.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn ip(&self, arguments: &[&str]) -> Result<()> {
        must(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// A command that will run inside.
    ///
    /// Not `ip netns exec`: that also hides the cgroup mounts behind a fresh /sys.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs a function on a thread inside.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the function panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(self.path()).with_context(|| format!("opening {}", self.path().display()))?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || -> Result<T> {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            });
            inside.join().map_err(|_| anyhow!("the work inside {} panicked", self.name))?
        })
    }

    /// The counters of /proc/net/NAME inside, as text.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn proc_net(&self, name: &str) -> Result<String> {
        output(self.command("cat").arg(format!("/proc/net/{name}")))
    }

    fn sysctl(&self, file: &str, value: &str) -> Result<()> {
        self.enter(|| fs::write(Path::new("/proc/sys/net").join(file), value))?
            .with_context(|| format!("setting {file} in {}", self.name))
    }
}

/// One end of a wire.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    pub space: &'a Netns,
    pub device: &'a str,
    /// With prefix length.
    pub addresses: &'a [&'a str],
}

/// Connects two namespaces.
///
/// # Errors
/// When `ip` refuses.
pub fn connect(one: End<'_>, other: End<'_>) -> Result<()> {
    one.space.ip(&[
        "link",
        "add",
        one.device,
        "type",
        "veth",
        "peer",
        "name",
        other.device,
        "netns",
        other.space.name(),
    ])?;
    for end in [one, other] {
        for address in end.addresses {
            end.space
                .ip(&["address", "add", address, "dev", end.device, "nodad"])
                .or_else(|_| end.space.ip(&["address", "add", address, "dev", end.device]))?;
        }
        end.space.ip(&["link", "set", end.device, "up"])?;
    }
    Ok(())
}

/// Namespaces whose name begins with this.
pub(crate) fn named(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'))).collect()
}

/// Kills every process that lives in a namespace.
pub(crate) fn kill_all(name: &str) {
    let pids = output(Command::new("ip").args(["netns", "pids", name])).unwrap_or_default();
    for pid in pids.split_whitespace().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?)) {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
    }
}

pub(crate) fn delete(name: &str) {
    if let Err(error) = must(Command::new("ip").args(["netns", "delete", name])) {
        eprintln!("{error:#}");
    }
}
