//! Paths of hosts, as text.

/// Longest path, in bytes: Linux's own bound.
pub(super) const PATH_MAX: usize = 4096;

/// `path` from `folder`, without `.` and doubled slashes. `..` stays: only the host knows where it leads to.
pub(super) fn joined(folder: &str, path: &str) -> String {
    let mut joined = String::from("/");
    let from = if path.starts_with('/') { "" } else { folder };
    for name in from.split('/').chain(path.split('/')) {
        if !matches!(name, "" | ".") {
            if joined.len() > 1 {
                joined.push('/');
            }
            joined.push_str(name);
        }
    }
    joined
}

/// The folder that an absolute path is in.
pub(super) fn folder_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((folder, _)) => folder,
    }
}

/// The last name of an absolute path.
pub(super) fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

pub(super) fn leads_upwards(path: &str) -> bool {
    path.split('/').any(|name| name == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(joined("/home/x", "a/./b//c"), "/home/x/a/b/c");
        assert_eq!(joined("/home/x", "/a/"), "/a");
        assert_eq!(joined("/home/x", ""), "/home/x");
        assert_eq!(joined("/", "."), "/");
        assert_eq!(joined("/home/x", "../y"), "/home/x/../y");
        assert_eq!((folder_of("/a/b"), name_of("/a/b")), ("/a", "b"));
        assert_eq!((folder_of("/a"), name_of("/a")), ("/", "a"));
        assert!(leads_upwards("/a/../b") && !leads_upwards("/a/..b"));
    }
}
