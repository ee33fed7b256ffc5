//! From configuration and caller to a job's sandbox.

use std::{
    ffi::CString,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use nix::unistd::User as Account;

use crate::{
    config::{Config, JobUser as Choice},
    identity::JobUser,
    sandbox::{Added, HOME, Spec, User, View, Workspace},
};

/// Below the home of a user who is not the job's own: folders in which agents make their sockets.
const DOORS_AT_HOME: &[&str] = &[".gnupg", ".ssh/agent", ".docker/run", ".docker/desktop"];

/// Who the job will be, as far as it is known before the job is.
pub(super) struct Who {
    choice: Choice,
    pub(super) account: Option<Account>,
}

impl Who {
    pub(super) fn new(choice: Choice) -> anyhow::Result<Self> {
        let account = match choice {
            Choice::Own => None,
            Choice::Caller => Account::from_uid(nix::unistd::getuid()).context("user database")?,
            Choice::Fixed(uid) => Account::from_uid(uid.into()).context("user database")?,
        };
        Ok(Self { choice, account })
    }

    /// What the daemon is told.
    pub(super) fn enrolled_as(&self) -> JobUser {
        match self.choice {
            Choice::Own => JobUser::Own,
            Choice::Caller => JobUser::Uid(rustix::process::getuid().as_raw()),
            Choice::Fixed(uid) => JobUser::Uid(uid),
        }
    }

    /// Where a job without an account lives.
    pub(super) fn home(&self, config: &Config) -> Option<&'static Path> {
        let home = if config.jobs.scratch_mib.is_some() { HOME } else { "/" };
        (self.account.is_none()).then(|| Path::new(home))
    }

    fn user(&self, uid: u32) -> anyhow::Result<User> {
        let groups = match (self.choice, &self.account) {
            (Choice::Caller, _) => {
                let groups = rustix::process::getgroups().context("groups")?;
                let gid = rustix::process::getgid().as_raw();
                return Ok(User { uid, gid, groups: groups.iter().map(|g| g.as_raw()).collect() });
            }
            (_, Some(account)) => {
                let name = CString::new(account.name.as_str()).context("user name")?;
                nix::unistd::getgrouplist(&name, account.gid).context("group database")?
            }
            // A user without an entry gets a group of its own number and no other.
            (_, None) => return Ok(User { uid, gid: uid, groups: Vec::new() }),
        };
        let gid = self.account.as_ref().map_or(uid, |a| a.gid.as_raw());
        Ok(User { uid, gid, groups: groups.iter().map(|g| g.as_raw()).collect() })
    }
}

/// The sandbox of a job that the daemon enrolled for this user.
pub(super) fn make(config: &Config, who: &Who, uid: u32) -> anyhow::Result<Spec> {
    let jobs = &config.jobs;
    let user = who.user(uid)?;
    let directory = std::env::current_dir().context("working directory")?;
    let mut hide = jobs.hide.clone();
    // A job has no use for it any more.
    hide.push(config.control.socket.clone());
    hide.extend(std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from).filter(|p| p.is_absolute()));
    if let Some(account) = &who.account {
        hide.extend(DOORS_AT_HOME.iter().map(|door| account.dir.join(door)));
    }
    let mut show = jobs.show.clone();
    show.extend([config.ca_file(), config.ca_bundle(), config.java_roots()]);
    // In a scratch folder the work goes on; in a hidden one there are sockets beside it.
    let hidden =
        |path: &PathBuf| std::fs::canonicalize(path).is_ok_and(|hidden| directory.starts_with(hidden));
    if directory.parent().is_some() && !hide.iter().any(hidden) {
        show.push(directory.clone());
    }
    let workspace = workspace(&jobs.workspaces, &directory, &user)?;
    Ok(Spec {
        view: View {
            added: added(config, who, uid)?,
            workspace,
            scratch_mib: jobs.scratch_mib,
            own_proc: jobs.private_pids,
            hide,
            show,
            user: (user.uid, user.gid),
        },
        user,
        capabilities: jobs.capabilities,
        refused: jobs.refused,
        directory,
        init: jobs.private_pids,
    })
}

/// Lines that the job's view adds to files of the host: a name for a user who has none, as SSH clients insist on, and the gateway's
/// keys for them to know it by.
fn added(config: &Config, who: &Who, uid: u32) -> anyhow::Result<Vec<Added>> {
    let mut added = Vec::new();
    let nameless = nix::unistd::User::from_uid(uid.into()).context("user database")?.is_none();
    if nameless && let Some(home) = who.home(config) {
        added.push(Added {
            path: "/etc/passwd".into(),
            lines: format!("job:x:{uid}:{uid}:job:{}:/bin/sh\n", home.display()),
        });
    }
    // Without them no SSH client trusts the gateway, which is what files that cannot be read come to.
    for (path, source) in [
        ("/etc/ssh/ssh_known_hosts", config.known_hosts()),
        ("/etc/ssh/ssh_known_hosts2", config.known_authorities()),
    ] {
        added.extend(std::fs::read_to_string(source).ok().map(|lines| Added { path: path.into(), lines }));
    }
    Ok(added)
}

/// The working directory, when it is below one of these folders and not the job's anyway.
fn workspace(among: &[PathBuf], directory: &Path, user: &User) -> anyhow::Result<Option<Workspace>> {
    let below = |folder: &PathBuf| {
        std::fs::canonicalize(folder)
            .is_ok_and(|folder| directory != folder.as_path() && directory.starts_with(&folder))
    };
    if !among.iter().any(below) {
        return Ok(None);
    }
    let stat = rustix::fs::stat(directory).context("working directory")?;
    let owner = (stat.st_uid, stat.st_gid);
    if owner.0 == user.uid {
        return Ok(None);
    }
    if owner.0 == 0 || owner.1 == 0 {
        bail!(
            "working directory {} belongs to root or its group, and jobs.workspaces would give it to the job: give it \
             to the user who made the checkout, or run in another",
            directory.display()
        );
    }
    Ok(Some(Workspace { path: directory.to_owned(), owner }))
}
