//! The job's first process: waits until it is enrolled, gives up what it must not keep, becomes the command.

use std::{
    ffi::{CString, OsString},
    io::{Read, Write},
    os::unix::process::CommandExt,
    process::ExitCode,
};

use anyhow::{Context, bail};
use rustix::{
    process::{Gid, Pid, Signal, Uid, getppid, set_parent_process_death_signal, setsid},
    thread::{
        CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
        set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use super::FAILED;

/// Not for people; `exec` calls it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Descriptor to read the word to go on from
    #[arg(long)]
    wait: u32,
    /// Who has to be alive
    #[arg(long)]
    parent: i32,
    #[arg(long)]
    uid: Option<u32>,
    /// Leave the launcher's session and terminal
    #[arg(long)]
    new_session: bool,
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let error = match self.become_command() {
            Ok(error) => error,
            Err(error) => {
                complain(&format!("{error:#}"));
                return Ok(ExitCode::from(FAILED));
            }
        };
        let name = self.command.first().map(|c| c.to_string_lossy()).unwrap_or_default();
        complain(&format!("{name}: {error}"));
        let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
        Ok(ExitCode::from(code))
    }

    /// Returns only when the command cannot be run.
    fn become_command(&self) -> anyhow::Result<std::io::Error> {
        let Some((program, arguments)) = self.command.split_first() else { bail!("no command") };
        self.wait_for_enrolment()?;
        if self.new_session {
            setsid().context("setsid")?;
        }
        match self.uid {
            Some(uid) => switch_user(uid)?,
            None => drop_capabilities()?,
        }
        set_no_new_privs(true).context("no_new_privs")?;
        // After the user changed, which clears it.
        set_parent_process_death_signal(Some(Signal::KILL)).context("parent death signal")?;
        if getppid().map(Pid::as_raw_pid) != Some(self.parent) {
            bail!("the launcher is gone");
        }
        close_stray_descriptors()?;
        Ok(std::process::Command::new(program).args(arguments).exec())
    }

    fn wait_for_enrolment(&self) -> anyhow::Result<()> {
        let mut word = [0];
        let mut pipe = std::fs::File::open(format!("/proc/self/fd/{}", self.wait)).context("waiting")?;
        match pipe.read(&mut word).context("waiting")? {
            1 => Ok(()),
            // The launcher has said why.
            _ => std::process::exit(i32::from(FAILED)),
        }
    }
}

fn switch_user(uid: u32) -> anyhow::Result<()> {
    let user = nix::unistd::User::from_uid(uid.into()).context("user database")?;
    let (gid, groups) = match &user {
        Some(user) => {
            let name = CString::new(user.name.as_str()).context("user name")?;
            let groups = nix::unistd::getgrouplist(&name, user.gid).context("group database")?;
            (user.gid.as_raw(), groups.into_iter().map(|g| Gid::from_raw(g.as_raw())).collect())
        }
        // A user without an entry gets a group of its own number and no other.
        None => (uid, Vec::new()),
    };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&groups).context("setgroups")?;
    set_thread_res_gid(gid, gid, gid).context("setresgid")?;
    set_thread_res_uid(uid, uid, uid).context("setresuid")?;
    Ok(())
}

/// A job that stays root keeps what file work and dropping to other users need, and loses what reaches the
/// kernel, the network stack or other processes.
fn drop_capabilities() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let keep = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::KILL
        | CapabilitySet::SETGID
        | CapabilitySet::SETUID
        | CapabilitySet::NET_BIND_SERVICE
        | CapabilitySet::SYS_CHROOT
        | CapabilitySet::SETFCAP;
    let held = rustix::thread::capabilities(None).context("capabilities")?;
    for one in CapabilitySet::all().difference(keep).iter() {
        match remove_capability_from_bounding_set(one) {
            // Unknown to this kernel.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error).context("capability bounding set"),
        }
    }
    let rest = held.permitted & keep;
    let sets = CapabilitySets { effective: rest, permitted: rest, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).context("capabilities")
}

/// Whatever else this process inherited closes when it becomes the command.
#[expect(unsafe_code, reason = "no safe wrapper of close_range exists in the crates used here")]
fn close_stray_descriptors() -> anyhow::Result<()> {
    let flags = libc::c_int::try_from(libc::CLOSE_RANGE_CLOEXEC).context("close_range")?;
    // SAFETY: close_range(2) with CLOSE_RANGE_CLOEXEC closes nothing now and touches no memory; it sets the
    // close-on-exec flag on descriptors from 3 on, which no owner of them in this process can observe as a
    // descriptor gone.
    let result = unsafe { libc::close_range(3, libc::c_uint::MAX, flags) };
    match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()).context("close_range"),
    }
}

fn complain(text: &str) {
    // Nowhere left to complain when this fails.
    let _ = writeln!(std::io::stderr(), "gateway-agent exec: {text}");
}
