//! Who may answer: users and `@groups` of the host.

use nix::unistd::{Gid, Group, Uid, User};

/// The host's users and groups, as far as approvals need them.
pub trait Directory: Send + Sync {
    fn user_name(&self, uid: u32) -> Option<String>;
    fn uid(&self, user: &str) -> Option<u32>;
    /// By primary or supplementary membership.
    fn in_group(&self, uid: u32, group: &str) -> bool;
}

/// `getpwnam` and friends, so that NSS sources count too. Calls may block on a slow source.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostDirectory;

impl Directory for HostDirectory {
    fn user_name(&self, uid: u32) -> Option<String> {
        Some(User::from_uid(Uid::from_raw(uid)).ok()??.name)
    }

    fn uid(&self, user: &str) -> Option<u32> {
        Some(User::from_name(user).ok()??.uid.as_raw())
    }

    fn in_group(&self, uid: u32, group: &str) -> bool {
        let found = || -> Option<bool> {
            let group = Group::from_name(group).ok()??;
            let user = User::from_uid(Uid::from_raw(uid)).ok()??;
            if user.gid == group.gid || group.mem.contains(&user.name) {
                return Some(true);
            }
            let name = std::ffi::CString::new(user.name).ok()?;
            let groups: Vec<Gid> = nix::unistd::getgrouplist(&name, user.gid).ok()?;
            Some(groups.contains(&group.gid))
        };
        found().unwrap_or(false)
    }
}

/// Whether `uid` is one of `approvers`. A name that the host does not know matches nobody.
pub(crate) fn may_answer(directory: &dyn Directory, approvers: &[String], uid: u32) -> bool {
    approvers.iter().any(|who| match who.strip_prefix('@') {
        Some(group) => directory.in_group(uid, group),
        None => directory.uid(who) == Some(uid),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_by_group() {
        let host = HostDirectory;
        assert_eq!(host.uid("root"), Some(0));
        assert_eq!(host.user_name(0).as_deref(), Some("root"));
        assert!(may_answer(&host, &["@root".into()], 0));
        assert!(may_answer(&host, &["root".into()], 0));
    }

    #[test]
    fn unknown_names_match_nobody() {
        let host = HostDirectory;
        for who in ["no-such-user-here", "@no-such-group-here", "@", ""] {
            assert!(!may_answer(&host, &[who.into()], 0), "{who}");
        }
        assert!(!may_answer(&host, &[], 0));
    }
}
