//! What processes may do, apart from the network: seccomp, capabilities, mounts, Landlock.
//!
//! [`Spec`] is a job's sandbox, decided by the launcher and put on by the job's first process ([`Spec::enter`]).

mod capabilities;
pub(crate) mod daemon;
pub(crate) mod mounts;
mod scope;
pub mod seccomp;
pub(crate) mod sys;
mod view;

pub use capabilities::{KEEPABLE, keepable};
pub use view::{Added, HIDDEN, HOME, SHOWN, View, Workspace};

use std::path::PathBuf;

use anyhow::{Context, bail};
use rustix::{
    fs::FileType,
    net::AddressFamily,
    process::{DumpableBehavior, Gid, Signal, Uid, set_dumpable_behavior, set_parent_process_death_signal},
    thread::{
        CapabilitySet, set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
        set_thread_res_uid,
    },
};
use serde::{Deserialize, Serialize};

/// A job's sandbox. Travels from the launcher to the job's first process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    pub user: User,
    /// Bits of the capabilities that the job keeps, by linux/capability.h.
    pub capabilities: u64,
    pub view: View,
    pub refused: seccomp::Refused,
    /// The working directory, by its path in the job's view.
    pub directory: PathBuf,
    /// The first process is the init of a pid namespace and stays beside the command.
    pub init: bool,
}

/// Who a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

impl Spec {
    /// Puts the sandbox on the calling process, which has one thread. Nothing of it can be taken off again.
    ///
    /// # Errors
    /// With the step that failed. The process must end then: it is half inside.
    pub fn enter(&self) -> anyhow::Result<()> {
        check_standard_streams()?;
        // Compiled while everything is allowed.
        let filters = seccomp::Filters::new(self.refused)?;
        self.view.make()?;
        std::env::set_current_dir(&self.directory)
            .with_context(|| format!("working directory {} in the job's view", self.directory.display()))?;
        prefer_to_be_killed()?;
        let keep = CapabilitySet::from_bits_retain(self.capabilities);
        capabilities::bound(keep).context("capability bounding set")?;
        set_keep_capabilities(true).context("capabilities")?;
        self.user.become_it()?;
        capabilities::hold(keep).context("capabilities")?;
        set_no_new_privs(true).context("no_new_privs")?;
        // After the user changed, which clears it.
        set_parent_process_death_signal(Some(Signal::KILL)).context("parent death signal")?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable).context("dumpable")?;
        sys::close_on_exec_from_3().context("close_range")?;
        scope::close().context("landlock")?;
        filters.install()?;
        Ok(())
    }
}

impl User {
    fn become_it(&self) -> anyhow::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<Gid> = self.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        set_thread_groups(&groups).context("setgroups")?;
        set_thread_res_gid(gid, gid, gid).context("setresgid")?;
        set_thread_res_uid(uid, uid, uid).context("setresuid")?;
        Ok(())
    }
}

/// The three descriptors that a job inherits: a socket that somebody else connected would be a way out, and an open
/// folder a way around what covers it.
fn check_standard_streams() -> anyhow::Result<()> {
    let streams = [
        ("input", rustix::stdio::stdin()),
        ("output", rustix::stdio::stdout()),
        ("error", rustix::stdio::stderr()),
    ];
    for (name, stream) in streams {
        let stat = match rustix::fs::fstat(stream) {
            Ok(stat) => stat,
            // Closed.
            Err(rustix::io::Errno::BADF) => continue,
            Err(error) => return Err(error).with_context(|| format!("standard {name}")),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                bail!("standard {name} is a folder; give the job a file, a pipe or a terminal")
            }
            FileType::Socket => {
                let family = rustix::net::sockopt::socket_domain(stream)
                    .with_context(|| format!("standard {name}"))?;
                if family != AddressFamily::UNIX {
                    bail!(
                        "standard {name} is a network socket, which the gateway has not seen; put a pipe in between (`| cat`)"
                    );
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// When memory runs out, the job goes and not the gateway.
fn prefer_to_be_killed() -> anyhow::Result<()> {
    const FILE: &str = "/proc/self/oom_score_adj";
    const FIRST: i32 = 500;
    let now = std::fs::read_to_string(FILE).context(FILE)?;
    match now.trim().parse::<i32>() {
        Ok(now) if now >= FIRST => Ok(()),
        _ => std::fs::write(FILE, FIRST.to_string()).context(FILE),
    }
}
