//! Whether our programs still run on a cgroup, and whether somebody else's could undo what they decide.
//!
//! On one hook the kernel runs the programs of the innermost cgroup first and those of the outermost last, each
//! seeing what the one before made of the address. So a program that is attached inside a job comes before ours,
//! and ours judges what it left; what comes after ours has the last word. That is why ours are not attached with
//! `BPF_F_PREORDER`: it would let a job's own program rewrite a destination that was judged already.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
};

use gateway_common::Hook;

use super::{Error, Kernel, hooks, sys};

/// Cgroups of one job that are looked at.
const MAX_CGROUPS: usize = 1024;

/// What is wrong with a job's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// Our program does not run there.
    Missing { hook: Hook, cgroup: PathBuf },
    /// A program of somebody else's runs after ours and can change what ours decided.
    After { hook: Hook, cgroup: PathBuf, program: u32 },
    /// A program of somebody else's was attached inside the job where it can change what is asked of ours.
    Inside { hook: Hook, cgroup: PathBuf, program: u32 },
    /// Another program chooses sockets in the gateway's network namespace.
    Lookup { program: u32 },
    /// So many cgroups below the job that they are not all looked at.
    TooMany { cgroup: PathBuf },
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { hook, cgroup } => {
                write!(f, "the gateway's {} does not run on {}", hook.name(), cgroup.display())
            }
            Self::After { hook, cgroup, program } => write!(
                f,
                "program {program} runs after the gateway's {} on {}: start the gateway after whatever attached it",
                hook.name(),
                cgroup.display()
            ),
            Self::Inside { hook, cgroup, program } => write!(
                f,
                "program {program} is attached to {} of {} inside the job: `bpftool cgroup tree` tells whose it is",
                hook.name(),
                cgroup.display()
            ),
            Self::Lookup { program } => {
                write!(f, "program {program} chooses sockets in the gateway's network namespace")
            }
            Self::TooMany { cgroup } => {
                write!(f, "{} has more than {MAX_CGROUPS} cgroups below it", cgroup.display())
            }
        }
    }
}

/// Hooks whose programs change what others see or what becomes of it. A program on one of the others can only
/// refuse more.
const fn rewrites(hook: Hook) -> bool {
    matches!(
        hook,
        Hook::Connect4
            | Hook::Connect6
            | Hook::Sendmsg4
            | Hook::Sendmsg6
            | Hook::Setsockopt
            | Hook::SockCreate
    )
}

/// What has to run on every job now.
pub struct Expected {
    hooks: Vec<ExpectedHook>,
    /// Drift that concerns every job.
    everywhere: Vec<Drift>,
}

struct ExpectedHook {
    hook: Hook,
    attach_type: sys::AttachType,
    ours: u32,
    /// What runs on the attach root itself.
    outside: Vec<u32>,
}

impl Kernel {
    /// Looks at a job's cgroup and everything below it. Empty when all is as it should be. For one job; who looks
    /// at many asks [`Kernel::expected`] once.
    pub fn inspect(&self, job: &Path) -> Result<Vec<Drift>, Error> {
        self.expected()?.inspect(job)
    }

    /// What has to run on every job, as of now. A hook that is off is not expected: status tells of it.
    pub fn expected(&self) -> Result<Expected, Error> {
        let root = open(&self.config.cgroup_root)?;
        let mut hooks = Vec::new();
        for attached in &self.hooks {
            let (Some(attach_type), Some(ours)) =
                (hooks::cgroup_attach_type(attached.hook), program(attached))
            else {
                continue;
            };
            let outside = query(root.as_fd(), attach_type)?;
            hooks.push(ExpectedHook { hook: attached.hook, attach_type, ours, outside });
        }
        Ok(Expected { hooks, everywhere: self.foreign_lookups()? })
    }

    fn foreign_lookups(&self) -> Result<Vec<Drift>, Error> {
        let lookup = self.hooks.iter().find(|hook| hook.hook == Hook::SkLookup);
        let Some(ours) = lookup.and_then(program) else { return Ok(Vec::new()) };
        let found = query(self.netns.as_fd(), sys::AttachType::SkLookup)?;
        Ok(found.into_iter().filter(|id| *id != ours).map(|program| Drift::Lookup { program }).collect())
    }
}

impl Expected {
    /// Looks at a job's cgroup and everything below it: some 20 system calls for each cgroup. One that goes away
    /// meanwhile is no drift.
    pub fn inspect(&self, job: &Path) -> Result<Vec<Drift>, Error> {
        let mut drift = self.everywhere.clone();
        let (cgroups, all) = below(job)?;
        if !all {
            drift.push(Drift::TooMany { cgroup: job.to_owned() });
        }
        for expected in &self.hooks {
            for (path, cgroup) in &cgroups {
                let found = match query(cgroup.as_fd(), expected.attach_type) {
                    Ok(found) => found,
                    // Removed since it was opened: nobody is in it.
                    Err(_) if !path.exists() => continue,
                    Err(error) => return Err(error),
                };
                drift.extend(judge(expected.hook, expected.ours, &expected.outside, &found, path));
            }
        }
        Ok(drift)
    }
}

fn query(target: BorrowedFd<'_>, attach_type: sys::AttachType) -> Result<Vec<u32>, Error> {
    sys::effective_programs(target, attach_type)
        .map_err(|source| Error::System { what: "asking which programs run", source })
}

/// `found` in the order in which the kernel runs them; `outside` is what runs on the attach root itself.
fn judge(hook: Hook, ours: u32, outside: &[u32], found: &[u32], cgroup: &Path) -> Vec<Drift> {
    let cgroup = cgroup.to_owned();
    let Some(at) = found.iter().position(|id| *id == ours) else {
        return vec![Drift::Missing { hook, cgroup }];
    };
    if !rewrites(hook) {
        return Vec::new();
    }
    let after = found.iter().skip(at + 1);
    let after = after.map(|program| Drift::After { hook, cgroup: cgroup.clone(), program: *program });
    let inside = found.iter().take(at).filter(|id| !outside.contains(id));
    let inside = inside.map(|program| Drift::Inside { hook, cgroup: cgroup.clone(), program: *program });
    after.chain(inside).collect()
}

/// The program behind our link now; none where the hook is off, which status tells.
fn program(attached: &hooks::Attached) -> Option<u32> {
    let link = attached.link.as_ref().ok()?;
    sys::link_info(link.as_fd()).ok().map(|info| info.program)
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Root { path: path.to_owned(), source })
}

/// A cgroup and those below it, breadth first, open; and whether these are all.
fn below(job: &Path) -> Result<(Vec<(PathBuf, File)>, bool), Error> {
    let mut found = vec![(job.to_owned(), open(job)?)];
    let mut at = 0;
    while let Some((path, _)) = found.get(at) {
        at += 1;
        let children = match fs::read_dir(path) {
            Ok(entries) => entries
                .filter_map(Result::ok)
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path())
                .collect::<Vec<_>>(),
            Err(_) => continue,
        };
        for child in children {
            if found.len() == MAX_CGROUPS {
                return Ok((found, false));
            }
            match File::open(&child) {
                Ok(file) => found.push((child, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Root { path: child, source }),
            }
        }
    }
    Ok((found, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(hook: Hook, outside: &[u32], found: &[u32]) -> Vec<Drift> {
        judge(hook, 7, outside, found, Path::new("/c"))
    }

    #[test]
    fn ours_alone_or_after_the_hosts_is_fine() {
        assert_eq!(judged(Hook::Connect4, &[7], &[7]), []);
        assert_eq!(judged(Hook::Connect4, &[3, 7], &[3, 7]), [], "the host's own program was there first");
        assert_eq!(judged(Hook::Egress, &[7], &[5, 7, 9]), [], "packet programs only refuse more");
        assert_eq!(judged(Hook::Bind4, &[7], &[5, 7]), [], "a unit's own socket rules");
    }

    #[test]
    fn what_can_undo_a_decision_is_drift() {
        let cgroup = || PathBuf::from("/c");
        let hook = Hook::Connect6;
        assert_eq!(judged(hook, &[7], &[]), [Drift::Missing { hook, cgroup: cgroup() }]);
        assert_eq!(judged(hook, &[7, 9], &[7, 9]), [Drift::After { hook, cgroup: cgroup(), program: 9 }]);
        assert_eq!(judged(hook, &[7], &[5, 7]), [Drift::Inside { hook, cgroup: cgroup(), program: 5 }]);
        assert_eq!(judged(Hook::Egress, &[7], &[5]).len(), 1, "without ours no packet is judged");
    }
}
