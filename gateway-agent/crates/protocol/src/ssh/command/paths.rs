//! Paths as far as a command line tells them.

use policy::{Certainty, Word};

use super::collect::Folder;

/// Folders in which a program is the one of that name.
const STANDARD: &[&str] = &["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// What a program is called, and whether it is certainly the one that goes by that name: its name is bare, or its path leads into
/// a standard folder.
pub(super) fn name(program: &Word) -> Option<(&str, bool)> {
    let text = program.value()?;
    match text.rsplit_once('/') {
        None => Some((text, true)),
        Some((folder, name)) => {
            let folder = normal(folder).filter(|_| folder.starts_with('/'));
            Some((name, folder.is_some_and(|folder| STANDARD.contains(&folder.as_str()))))
        }
    }
}

/// Where `cd` leads to.
pub(super) fn changed(from: &Folder, arguments: &[Word]) -> Folder {
    let mut words = arguments;
    while let Some((first, rest)) = words.split_first() {
        match first.value() {
            // With and without symbolic links: the text is the same.
            Some("-L" | "-P" | "-e" | "--") => words = rest,
            _ => break,
        }
    }
    let [to] = words else {
        return words.is_empty().then(|| "~".to_owned());
    };
    match (to.certainty, to.text.as_str()) {
        (Certainty::Home, path) => normal(path),
        (Certainty::Literal, "") => None,
        (Certainty::Literal, "-") => None,
        (Certainty::Literal, path) if path.starts_with('/') => normal(path),
        // Without a dot in front CDPATH may have a say; whoever sets that is not followed at all.
        (Certainty::Literal, path) => normal(&format!("{}/{path}", from.as_deref()?)),
        _ => None,
    }
}

/// Without doubled slashes and `.`; a `..` is the end of knowing, because of symbolic links.
fn normal(path: &str) -> Folder {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    Some(if path.starts_with('/') { format!("/{joined}") } else { joined })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders() {
        let to = |from: &str, to: &str| changed(&Some(from.into()), &[Word::literal(to)]);
        assert_eq!(to("~", "/srv/app").as_deref(), Some("/srv/app"));
        assert_eq!(to("~", "//srv/./app/").as_deref(), Some("/srv/app"));
        assert_eq!(to("~", "app").as_deref(), Some("~/app"));
        assert_eq!(to("/srv", "./app").as_deref(), Some("/srv/app"));
        assert_eq!(to("/srv", ".."), None);
        assert_eq!(to("/srv", "-"), None);
        assert_eq!(changed(&None, &[]).as_deref(), Some("~"));
        assert_eq!(changed(&Some("/a".into()), &[Word::unknown("$x", Certainty::Value)]), None);
        assert_eq!(name(&Word::literal("/usr/bin/git")), Some(("git", true)));
        assert_eq!(name(&Word::literal("//usr/./bin//git")), Some(("git", true)));
        assert_eq!(name(&Word::literal("/tmp/git")), Some(("git", false)));
        assert_eq!(name(&Word::literal("/usr/bin/../x/git")), Some(("git", false)));
        assert_eq!(name(&Word::literal("./git")), Some(("git", false)));
        assert_eq!(name(&Word::unknown("$x", Certainty::Words)), None);
    }
}
