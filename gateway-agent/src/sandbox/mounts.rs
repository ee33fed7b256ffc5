//! What is mounted where.

use std::{io, path::PathBuf};

/// One line of /proc/self/mountinfo, proc_pid_mountinfo(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The part of the file system that is mounted.
    pub root: String,
    pub point: PathBuf,
    /// Type of the file system.
    pub kind: String,
}

impl Mount {
    pub(crate) fn is_sysfs_or_cgroup(&self) -> bool {
        matches!(&*self.kind, "sysfs" | "cgroup" | "cgroup2")
    }

    /// Pinned kernel programs and the kernel's debugging trees.
    pub(crate) fn is_debugging(&self) -> bool {
        matches!(
            &*self.kind,
            "bpf" | "tracefs" | "debugfs" | "configfs" | "securityfs" | "pstore" | "efivarfs"
        )
    }
}

/// Those of the calling process, in the order in which they were mounted.
pub(crate) fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
}

pub(crate) fn parse(mountinfo: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let kind = after.split(' ').next()?.to_owned();
        Some(Mount { root: root.to_owned(), point: unescape(point), kind })
    };
    mountinfo.lines().filter_map(mount).collect()
}

/// `\040` and friends.
fn unescape(point: &str) -> PathBuf {
    let mut out = String::with_capacity(point.len());
    let mut rest = point;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let info = "31 20 0:26 / /sys/fs/cgroup/uni\\040fied rw shared:4 - cgroup2 cgroup2 rw\nnonsense\n";
        let [one] = &parse(info)[..] else { panic!("one mount") };
        assert_eq!(one.point, PathBuf::from("/sys/fs/cgroup/uni fied"));
        assert!(one.root == "/" && one.is_sysfs_or_cgroup() && !one.is_debugging());
    }
}
