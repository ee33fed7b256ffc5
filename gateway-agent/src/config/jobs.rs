//! `jobs:`, how `exec` makes jobs.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{ConfigError, check::Checker};
use crate::sandbox;

/// Where `exec` makes jobs, and what they may do besides the network.
#[derive(Debug, Clone)]
pub struct Jobs {
    /// Relative to the attach root; made when absent.
    pub parent: PathBuf,
    pub user: JobUser,
    /// Those that the daemon gives to jobs as their own. Group ids of the same numbers go with them.
    pub uids: RangeInclusive<u32>,
    /// Bits by linux/capability.h.
    pub capabilities: u64,
    /// Size of each private scratch folder (/tmp, /var/tmp, /dev/shm) in MiB; `None`: jobs use the host's.
    pub scratch_mib: Option<u32>,
    /// A pid namespace for each job.
    pub private_pids: bool,
    /// Covered in the job's view of the files, where it exists.
    pub hide: Vec<PathBuf>,
    /// Shown although below something covered.
    pub show: Vec<PathBuf>,
    /// Below these the working directory of a job is its own while it runs.
    pub workspaces: Vec<PathBuf>,
    pub refused: sandbox::seccomp::Refused,
    pub environment: Environment,
    pub limits: Limits,
}

/// What one job may take of the host, all of its processes together; `None`: as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processes and threads.
    pub pids: Option<u32>,
    pub memory_mib: Option<u32>,
}

/// The user of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobUser {
    /// One that no other job has: the daemon gives it and takes it back.
    Own,
    /// Whoever calls `exec`.
    Caller,
    /// Always this one.
    Fixed(u32),
}

/// Which of the launcher's variables a job does not get.
#[derive(Debug, Clone)]
pub struct Environment {
    remove: Vec<Pattern>,
    keep: Vec<Pattern>,
}

/// A name, with at most one `*`.
#[derive(Debug, Clone)]
struct Pattern(String, Option<String>);

/// Credentials, and ways to doors that are hidden, by the names that tools give them. Names of secrets in general end
/// the list.
pub const REMOVED: &[&str] = &[
    "ACTIONS_ID_TOKEN_REQUEST_*",
    "ACTIONS_RUNTIME_*",
    "AWS_*",
    "AZURE_*",
    "BUILDKIT_HOST",
    "BUILDKITE_AGENT_*",
    "CI_JOB_JWT*",
    "CLOUDSDK_*",
    "CONTAINERD_*",
    "CONTAINER_HOST",
    "CREDENTIALS_DIRECTORY",
    "DBUS_*",
    "DOCKER_*",
    "GATEWAY_*",
    "GNUPGHOME",
    "GOOGLE_*",
    "GPG_*",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "KRB5*",
    "KUBECONFIG",
    "LISTEN_*",
    "LIBVIRT_*",
    "MYSQL_PWD",
    "NOTIFY_SOCKET",
    "PGPASS*",
    "PGSERVICE*",
    "PGSSLCERT",
    "PGSSLKEY",
    "PODMAN_*",
    "REDISCLI_AUTH",
    "SSH_*",
    "SUDO_*",
    "VAULT_*",
    "WATCHDOG_*",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "*_CREDENTIALS",
    "*_JWT",
    "*_PASSWD",
    "*_PASSWORD",
    "*_PRIVATE_KEY",
    "*_SECRET",
    "*_SECRET_KEY",
    "*_TOKEN",
];

/// Outside of what distributions, systemd and user namespaces give out (systemd's "Users, Groups, UIDs and GIDs").
const UIDS: RangeInclusive<u32> = 1_900_000_000..=1_900_009_999;
/// Some programs take user ids as signed.
const LARGEST_UID: u32 = i32::MAX.unsigned_abs();
const SCRATCH_MIB: u32 = 1024;

impl Environment {
    /// Whether a job gets the variable of this name.
    #[must_use]
    pub fn passes(&self, name: &str) -> bool {
        let is = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(name));
        is(&self.keep) || !is(&self.remove)
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let (before, after) = match text.split_once('*') {
            Some((before, after)) => (before, Some(after)),
            None => (text, None),
        };
        let plain = |part: &str| !part.contains(['*', '=', '\0']);
        let says_something = !before.is_empty() || after.is_some_and(|a| !a.is_empty());
        (plain(before) && after.is_none_or(plain) && says_something)
            .then(|| Self(before.to_owned(), after.map(str::to_owned)))
    }

    fn matches(&self, name: &str) -> bool {
        let Self(before, after) = self;
        match after {
            None => name == before,
            Some(after) => {
                name.strip_prefix(before.as_str()).is_some_and(|rest| rest.ends_with(after.as_str()))
            }
        }
    }
}

/// As written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    parent: Option<PathBuf>,
    uid: Option<RawUser>,
    uids: Option<String>,
    capabilities: Vec<String>,
    private_tmp: Option<bool>,
    tmp_mib: Option<u32>,
    private_pids: Option<bool>,
    hide: Vec<PathBuf>,
    show: Vec<PathBuf>,
    workspaces: Vec<PathBuf>,
    io_uring: RawAccess,
    namespaces: RawAccess,
    ptrace: RawAccess,
    environment: RawEnvironment,
    pids_max: Option<u32>,
    memory_mib: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawUser {
    Number(u32),
    Word(String),
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawAccess {
    Allow,
    #[default]
    Deny,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawEnvironment {
    remove: Vec<String>,
    keep: Vec<String>,
}

impl Checker<'_> {
    pub(super) fn jobs(&self, raw: Raw) -> Result<Jobs, ConfigError> {
        let parent = raw.parent.unwrap_or_else(|| "gateway-jobs".into());
        let plain = !parent.as_os_str().is_empty()
            && parent.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if !plain {
            return Err(self.wrong(
                "parent",
                &parent.to_string_lossy(),
                "jobs.parent is not a path below the cgroup root",
                "write a relative name without `..`, such as gateway-jobs",
            ));
        }
        let tmp_mib = raw.tmp_mib.unwrap_or(SCRATCH_MIB);
        if tmp_mib == 0 {
            return Err(self.wrong("tmp_mib", "0", "jobs.tmp_mib is 0", "write a size in MiB, such as 1024"));
        }
        if raw.private_tmp == Some(false) && raw.tmp_mib.is_some() {
            return Err(self.wrong(
                "tmp_mib",
                "",
                "jobs.tmp_mib is given, but private_tmp is false",
                "remove one of them",
            ));
        }
        for (name, value) in [("pids_max", raw.pids_max), ("memory_mib", raw.memory_mib)] {
            if value == Some(0) {
                let hint = "write a positive number, or leave it out for no limit";
                return Err(self.wrong(name, "0", &format!("jobs.{name} is 0: no job could run"), hint));
            }
        }
        Ok(Jobs {
            parent,
            user: self.job_user(raw.uid)?,
            uids: self.uids(raw.uids.as_deref())?,
            capabilities: self.capabilities(&raw.capabilities)?,
            scratch_mib: raw.private_tmp.unwrap_or(true).then_some(tmp_mib),
            private_pids: raw.private_pids.unwrap_or(true),
            hide: self.job_paths("hide", &raw.hide, sandbox::HIDDEN)?,
            show: self.job_paths("show", &raw.show, sandbox::SHOWN)?,
            workspaces: self.job_paths("workspaces", &raw.workspaces, &[])?,
            refused: sandbox::seccomp::Refused {
                io_uring: raw.io_uring == RawAccess::Deny,
                namespaces: raw.namespaces == RawAccess::Deny,
                ptrace: raw.ptrace == RawAccess::Deny,
            },
            environment: Environment {
                remove: self.patterns("remove", REMOVED.iter().copied(), &raw.environment.remove)?,
                keep: self.patterns("keep", std::iter::empty(), &raw.environment.keep)?,
            },
            limits: Limits { pids: raw.pids_max, memory_mib: raw.memory_mib },
        })
    }

    fn job_user(&self, raw: Option<RawUser>) -> Result<JobUser, ConfigError> {
        match raw {
            None => Ok(JobUser::Own),
            Some(RawUser::Number(uid)) if uid < u32::MAX => Ok(JobUser::Fixed(uid)),
            Some(RawUser::Number(uid)) => Err(self.wrong(
                "uid",
                &uid.to_string(),
                &format!("jobs.uid {uid} is no user: the kernel reads it as \"unchanged\""),
                "write a smaller number, `own` or `caller`",
            )),
            Some(RawUser::Word(word)) => match &*word {
                "own" => Ok(JobUser::Own),
                "caller" => Ok(JobUser::Caller),
                other => Err(self.wrong(
                    "uid",
                    other,
                    &format!("jobs.uid `{other}` is neither a number nor a known word"),
                    "write `own` (a user for each job), `caller` (whoever calls exec), or a user's number",
                )),
            },
        }
    }

    fn uids(&self, text: Option<&str>) -> Result<RangeInclusive<u32>, ConfigError> {
        let Some(text) = text else { return Ok(UIDS) };
        let bad = |message: &str| {
            self.wrong(
                "uids",
                text,
                &format!("jobs.uids `{text}` {message}"),
                "write FIRST-LAST of numbers that nobody else uses, such as 1900000000-1900009999",
            )
        };
        let (first, last) = text.split_once('-').ok_or_else(|| bad("is not a range"))?;
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| bad("is not a range of numbers"));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(bad("ends before it begins"));
        }
        if first == 0 || last > LARGEST_UID {
            return Err(bad("goes beyond 1 to 2147483647"));
        }
        if last - first >= 65_536 {
            return Err(bad("has more than 65536 numbers"));
        }
        Ok(first..=last)
    }

    fn capabilities(&self, names: &[String]) -> Result<u64, ConfigError> {
        names.iter().try_fold(0, |bits, name| match sandbox::keepable(name) {
            Some(set) => Ok(bits | set.bits()),
            None => {
                let known: Vec<&str> = sandbox::KEEPABLE.iter().map(|(name, _)| *name).collect();
                Err(self.wrong(
                    "capabilities",
                    name,
                    &format!("jobs.capabilities: a job may not keep `{name}`"),
                    &format!("it may keep some of {}", known.join(", ")),
                ))
            }
        })
    }

    fn job_paths(
        &self,
        field: &str,
        given: &[PathBuf],
        always: &[&str],
    ) -> Result<Vec<PathBuf>, ConfigError> {
        if let Some(bad) = given.iter().find(|p| !p.is_absolute() || p.parent().is_none()) {
            return Err(self.wrong(
                field,
                &bad.to_string_lossy(),
                &format!("jobs.{field}: `{}` is not a path below /", bad.display()),
                "write an absolute path of a folder or file",
            ));
        }
        Ok(always.iter().map(Path::new).map(Path::to_owned).chain(given.iter().cloned()).collect())
    }

    fn patterns<'t>(
        &self,
        field: &str,
        always: impl Iterator<Item = &'t str>,
        given: &'t [String],
    ) -> Result<Vec<Pattern>, ConfigError> {
        let read = |text: &str| {
            Pattern::parse(text).ok_or_else(|| {
                self.wrong(
                    field,
                    text,
                    &format!("jobs.environment.{field}: `{text}` is not a name or a pattern of names"),
                    "write NAME, PREFIX_*, or *_SUFFIX",
                )
            })
        };
        always.chain(given.iter().map(String::as_str)).map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn jobs(yaml: &str) -> Result<Jobs, String> {
        let text = format!(
            "policy: {{ files: [p] }}\nidentity: {{ issuers: [ {{ issuer: https://i, audience: a, jwks_file: k }} ] }}\njobs: {{ {yaml} }}\n"
        );
        Config::parse(Path::new("/etc/agent.yaml"), &text).map(|c| c.jobs).map_err(|e| e.to_string())
    }

    #[test]
    fn everything_is_closed_unless_opened() {
        let jobs = jobs("").unwrap();
        assert_eq!(jobs.user, JobUser::Own);
        assert_eq!((jobs.capabilities, jobs.private_pids, jobs.scratch_mib), (0, true, Some(1024)));
        assert_eq!(jobs.refused, sandbox::seccomp::Refused::default());
        assert!(jobs.refused.io_uring && jobs.refused.namespaces && jobs.refused.ptrace);
        assert!(jobs.hide.contains(&PathBuf::from("/run")));
    }

    #[test]
    fn what_is_given_is_taken() {
        let jobs = jobs(
            "uid: caller, uids: 70000-70009, capabilities: [cap_chown], private_tmp: false, private_pids: false, \
             hide: [/srv/door], show: [/run/shared], workspaces: [/srv/builds], io_uring: allow, namespaces: allow, ptrace: allow",
        )
        .unwrap();
        assert_eq!((jobs.user, jobs.uids), (JobUser::Caller, 70000..=70009));
        assert_eq!((jobs.capabilities, jobs.scratch_mib, jobs.private_pids), (1, None, false));
        assert!(!jobs.refused.io_uring && !jobs.refused.namespaces && !jobs.refused.ptrace);
        assert!(jobs.hide.contains(&"/srv/door".into()) && jobs.hide.contains(&"/run".into()));
        assert!(jobs.show.contains(&"/run/shared".into()));
        assert_eq!(jobs.workspaces, [PathBuf::from("/srv/builds")]);
    }

    #[test]
    fn wrong_values_are_refused_with_line_and_hint() {
        for (yaml, says) in [
            ("uid: somebody", "neither a number nor a known word"),
            ("uid: 4294967295", "is no user"),
            ("uids: many", "is not a range"),
            ("uids: 9-5", "ends before"),
            ("uids: 0-5", "beyond"),
            ("uids: 5-4000000000", "beyond"),
            ("uids: 1-70000", "more than"),
            ("capabilities: [SYS_ADMIN]", "may not keep `SYS_ADMIN`"),
            ("capabilities: [NET_RAW]", "may not keep `NET_RAW`"),
            ("tmp_mib: 0", "is 0"),
            ("private_tmp: false, tmp_mib: 5", "remove one"),
            ("hide: [run]", "not a path below /"),
            ("show: [/]", "not a path below /"),
            ("workspaces: [work]", "not a path below /"),
            ("io_uring: maybe", "maybe"),
            ("environment: { remove: ['*'] }", "pattern of names"),
            ("environment: { keep: ['A*B*C'] }", "pattern of names"),
            ("sandbox: off", "unknown field"),
        ] {
            let error = jobs(yaml).unwrap_err();
            assert!(error.starts_with("/etc/agent.yaml:3"), "{yaml}: {error}");
            assert!(error.contains(says) && error.contains("hint:"), "{yaml}: {error}");
        }
    }

    #[test]
    fn credentials_are_removed_unless_kept() {
        let e = jobs("environment: { remove: [MY_*], keep: [NPM_TOKEN, MY_NAME] }").unwrap().environment;
        for gone in
            ["PGPASSWORD", "PGSERVICEFILE", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "X_TOKEN", "MY_KEY"]
        {
            assert!(!e.passes(gone), "{gone}");
        }
        for stays in ["PATH", "PGHOST", "PGSSLMODE", "NPM_TOKEN", "MY_NAME", "TOKENS", "CI"] {
            assert!(e.passes(stays), "{stays}");
        }
    }
}
