//! Patterns over paths, programs and their arguments.
//!
//! Two questions are asked of each: does it *grant* a thing, that is, is the thing within the pattern whatever the unknown parts
//! of it turn out to be; and *may* it mean a thing, that is, could it be.

use super::{Certainty, Word};
use crate::pattern::{BadPattern, Glob, bad};

/// Where a path starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Slash,
    /// The login's home, wherever that is.
    Home,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// One name.
    Name(Glob),
    /// `**`: any number of names.
    Any,
}

/// A path with wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathPattern {
    text: String,
    root: Root,
    segments: Vec<Segment>,
}

/// A path that is asked for, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path<'a> {
    root: Root,
    names: Vec<Name<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name<'a> {
    Exactly(&'a str),
    /// One name that a shell's pattern finds.
    Wild,
}

impl PathPattern {
    pub(crate) fn new(text: &str) -> Result<Self, BadPattern> {
        let (root, rest) = match text.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => (Root::Home, rest),
            Some(_) => {
                return bad(
                    format!("`{text}`: whose home that is only the host knows"),
                    "write the path, or `~/…` for the login's own home",
                );
            }
            None if text.starts_with('/') => (Root::Slash, text),
            None => {
                return bad(
                    format!("`{text}` is no absolute path"),
                    "write `/srv/app/**`, or `~/…` for what is below the login's home",
                );
            }
        };
        let mut segments = Vec::new();
        for name in rest.split('/').skip(1) {
            segments.push(match name {
                "" if rest.len() == 1 => continue,
                "" => return bad(format!("`{text}` has a slash too many"), "leave it out"),
                "." | ".." => {
                    return bad(
                        format!("`{text}` is not normalised"),
                        "paths are compared without `.` and `..`: leave them out",
                    );
                }
                "**" => Segment::Any,
                name => Segment::Name(segment(name, text)?),
            });
        }
        Ok(Self { text: text.to_owned(), root, segments })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Every path that `path` can turn out to be is within.
    pub(crate) fn grants(&self, path: &Path<'_>) -> bool {
        self.root == path.root && covers(&self.segments, &path.names)
    }

    /// The same, for everything below it as well.
    pub(crate) fn grants_below(&self, path: &Path<'_>) -> bool {
        self.segments.last() == Some(&Segment::Any) && self.grants(path)
    }

    /// As a restriction: it could be that path. `None` is any path.
    pub(crate) fn may_mean(&self, path: Option<&Path<'_>>) -> bool {
        path.is_none_or(|path| self.overlaps(path, false))
    }

    /// As a restriction: it could be that path or something below it.
    pub(crate) fn may_mean_below(&self, path: Option<&Path<'_>>) -> bool {
        path.is_none_or(|path| self.overlaps(path, true))
    }

    fn overlaps(&self, path: &Path<'_>, below: bool) -> bool {
        let ours: Vec<Piece<'_>> = self.segments.iter().map(Piece::from).collect();
        let mut theirs: Vec<Piece<'_>> = path.names.iter().map(Piece::from).collect();
        match (self.root, path.root) {
            (Root::Slash, Root::Slash) | (Root::Home, Root::Home) => {
                if below {
                    theirs.push(Piece::Any);
                }
                meet(&ours, &theirs)
            }
            (Root::Slash, Root::Home) => {
                // Home can be any folder on the way to what the pattern names, but none of the system's own.
                let system = matches!(self.segments.first(), Some(Segment::Name(name)) if SYSTEM.contains(&name.as_str()));
                if system && path.names.is_empty() {
                    return false;
                }
                if below {
                    theirs.push(Piece::Any);
                }
                let first = match self.segments.first() {
                    Some(Segment::Name(name)) => name.as_str(),
                    _ => "",
                };
                let last = self.segments.iter().rposition(|of| matches!(of, Segment::Name(_)));
                // `/`, `/root`, `/home/x` and `/srv/x`, `/var/lib/x`.
                (0..=last.unwrap_or_default().min(3))
                    .filter(|from| *from != 1 || first == "root")
                    .any(|from| meet(ours.get(from..).unwrap_or_default(), &theirs))
            }
            (Root::Home, Root::Slash) => {
                let somewhere: Vec<_> = std::iter::once(Piece::Any).chain(ours).collect();
                // Where homes usually are, a folder above may be meant with all that is in it.
                let above = path.names.len() <= 2
                    && path.names.first().is_none_or(|name| {
                        matches!(name, Name::Wild | Name::Exactly("home" | "root" | "Users"))
                    });
                if below && above {
                    theirs.push(Piece::Any);
                }
                meet(&somewhere, &theirs)
            }
        }
    }

    /// Something below `path` is granted: whoever may have that may know that `path` is there.
    pub(crate) fn leads_through(&self, path: &Path<'_>) -> bool {
        self.root == path.root
            && path.names.len() <= self.segments.len()
            && self.segments.iter().zip(&path.names).all(|(segment, name)| match (segment, name) {
                (Segment::Any, _) => true,
                (Segment::Name(glob), Name::Exactly(name)) => glob.matches(name),
                (Segment::Name(glob), Name::Wild) => glob.is_any(),
            })
    }
}

/// Folders that hold nobody's home.
const SYSTEM: &[&str] = &["bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr"];

/// One name of a path, whose wildcards do not cross a slash.
fn segment(name: &str, whole: &str) -> Result<Glob, BadPattern> {
    if name.contains("**") {
        return bad(
            format!("`{whole}`: `**` stands for whole names"),
            "write it between slashes, as `/srv/**/log`; `*` is any part of one name",
        );
    }
    Glob::new(name)
}

impl<'a> Path<'a> {
    /// A normalised absolute path.
    pub(crate) fn absolute(path: &'a str) -> Option<Self> {
        let names = path.strip_prefix('/')?;
        Some(Self { root: Root::Slash, names: literal(names)? })
    }

    /// The same below the login's home, if it is there.
    pub(crate) fn below_home(path: &'a str, home: &str) -> Option<Self> {
        let rest = path.strip_prefix(home.trim_end_matches('/'))?;
        let names = if rest.is_empty() { rest } else { rest.strip_prefix('/')? };
        Some(Self { root: Root::Home, names: literal(names)? })
    }

    /// A word that a program takes for a path. `None`: it could be any.
    pub(crate) fn of_word(word: &'a Word, folder: Option<&'a str>) -> Option<Self> {
        Self::of_text(&word.text, word.certainty, folder)
    }

    /// The same for a part of a word.
    pub(crate) fn of_text(text: &'a str, certainty: Certainty, folder: Option<&'a str>) -> Option<Self> {
        let rooted = |text: &'a str| match (text.strip_prefix('/'), text.strip_prefix('~')) {
            (Some(names), _) => Some((Root::Slash, names)),
            (None, Some(names)) if names.is_empty() || names.starts_with('/') => {
                Some((Root::Home, names.trim_start_matches('/')))
            }
            _ => None,
        };
        let (root, names) = match certainty {
            Certainty::Literal | Certainty::Glob if text.starts_with('/') => rooted(text)?,
            Certainty::Home => rooted(text)?,
            Certainty::Literal | Certainty::Glob => {
                let (root, names) = rooted(folder?)?;
                let mut path = Self { root, names: literal(names)? };
                path.names.extend(shell(text, certainty)?);
                return Some(path);
            }
            Certainty::Value | Certainty::Words => return None,
        };
        Some(Self { root, names: shell(names, certainty)? })
    }

    /// What a program found by this path is called.
    pub(crate) fn last(&self) -> Option<&'a str> {
        match self.names.last() {
            Some(Name::Exactly(name)) => Some(name),
            _ => None,
        }
    }

    /// The folder it is in.
    pub(crate) fn is_in(&self, folder: &str) -> bool {
        let Some((_, names)) = self.names.split_last() else { return false };
        let wanted = folder.split('/').filter(|name| !name.is_empty());
        self.root == Root::Slash && names.iter().copied().eq(wanted.map(Name::Exactly))
    }
}

/// Names of a path without wildcards; none when a `..` makes it unknown where it leads to.
fn literal(path: &str) -> Option<Vec<Name<'_>>> {
    shell(path, Certainty::Literal)
}

fn shell(path: &str, certainty: Certainty) -> Option<Vec<Name<'_>>> {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => return None,
            name if certainty == Certainty::Glob && name.contains(['*', '?', '[']) => {
                // Some shells find `..` by `.*`.
                if name.starts_with(['.', '[', '?']) {
                    return None;
                }
                names.push(Name::Wild);
            }
            name => names.push(Name::Exactly(name)),
        }
    }
    Some(names)
}

/// Whether every path of these names is within the pattern.
fn covers(segments: &[Segment], names: &[Name<'_>]) -> bool {
    // reached[i]: the first i segments cover the names so far.
    let mut reached = vec![false; segments.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    skip_any(segments, &mut reached);
    for name in names {
        let mut next = vec![false; segments.len() + 1];
        for (at, segment) in segments.iter().enumerate() {
            if !reached.get(at).copied().unwrap_or_default() {
                continue;
            }
            let (to, fits) = match (segment, name) {
                (Segment::Any, _) => (at, true),
                (Segment::Name(glob), Name::Exactly(name)) => (at + 1, glob.matches(name)),
                (Segment::Name(glob), Name::Wild) => (at + 1, glob.is_any()),
            };
            if fits && let Some(slot) = next.get_mut(to) {
                *slot = true;
            }
        }
        skip_any(segments, &mut next);
        reached = next;
    }
    reached.last().copied().unwrap_or_default()
}

/// `**` may stand for nothing.
fn skip_any(segments: &[Segment], reached: &mut [bool]) {
    for (at, segment) in segments.iter().enumerate() {
        if *segment == Segment::Any
            && reached.get(at).copied().unwrap_or_default()
            && let Some(slot) = reached.get_mut(at + 1)
        {
            *slot = true;
        }
    }
}

/// A part of either side, when two patterns are held against each other.
#[derive(Debug, Clone, Copy)]
enum Piece<'a> {
    Any,
    Glob(&'a Glob),
    Exactly(&'a str),
    Wild,
}

impl<'a> From<&'a Segment> for Piece<'a> {
    fn from(segment: &'a Segment) -> Self {
        match segment {
            Segment::Any => Self::Any,
            Segment::Name(glob) => Self::Glob(glob),
        }
    }
}

impl<'a> From<&Name<'a>> for Piece<'a> {
    fn from(name: &Name<'a>) -> Self {
        match name {
            Name::Exactly(name) => Self::Exactly(name),
            Name::Wild => Self::Wild,
        }
    }
}

impl Piece<'_> {
    fn may_be(self, other: Self) -> bool {
        match (self, other) {
            (Self::Glob(a), Self::Glob(b)) => a.overlaps(b),
            (Self::Glob(glob), Self::Exactly(name)) | (Self::Exactly(name), Self::Glob(glob)) => {
                glob.matches(name)
            }
            (Self::Exactly(a), Self::Exactly(b)) => a == b,
            _ => true,
        }
    }
}

/// Whether some path is within both.
fn meet(ours: &[Piece<'_>], theirs: &[Piece<'_>]) -> bool {
    // row[j]: the first pieces of ours and the first j of theirs can be the same.
    let width = theirs.len() + 1;
    let mut row = vec![false; width];
    let get = |row: &[bool], at: usize| row.get(at).copied().unwrap_or_default();
    let set = |row: &mut [bool], at: usize, value: bool| {
        if let Some(slot) = row.get_mut(at) {
            *slot = value;
        }
    };
    set(&mut row, 0, true);
    for (at, piece) in theirs.iter().enumerate() {
        let reached = matches!(piece, Piece::Any) && get(&row, at);
        set(&mut row, at + 1, reached);
    }
    for our in ours {
        let mut next = vec![false; width];
        let any = matches!(our, Piece::Any);
        set(&mut next, 0, any && get(&row, 0));
        for (at, their) in theirs.iter().enumerate() {
            let both = get(&row, at) && our.may_be(*their);
            let ours_more = any && (get(&next, at) || get(&row, at + 1));
            let theirs_more = matches!(their, Piece::Any) && (get(&row, at + 1) || get(&next, at));
            set(&mut next, at + 1, both || ours_more || theirs_more);
        }
        row = next;
    }
    get(&row, theirs.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> PathPattern {
        PathPattern::new(text).unwrap_or_else(|bad| panic!("{}", bad.message))
    }

    fn word(text: &str) -> Word {
        match text.contains('*') {
            true => Word::unknown(text, Certainty::Glob),
            false if text.starts_with('~') => Word::unknown(text, Certainty::Home),
            false => Word::literal(text),
        }
    }

    #[test]
    fn what_is_granted() {
        for (text, path, expected) in [
            ("/srv/app/**", "/srv/app/a/b", true),
            ("/srv/app/**", "/srv/app", true),
            ("/srv/app/**", "/srv/app2", false),
            ("/srv/app/**", "/srv/app/../x", false),
            ("/srv/app/*", "/srv/app/a/b", false),
            ("/srv/app/*", "/srv/app//a/", true),
            ("/srv/*/log", "/srv/a/log", true),
            ("/srv/**/log", "/srv/log", true),
            ("/srv/**/log", "/srv/a/b/log", true),
            ("/srv/app/**", "/srv/app/*.log", true),
            ("/srv/app/a*", "/srv/app/*.log", false),
            ("/srv/app/**", "/srv/app/.*", false),
            ("/srv/app/**", "/srv/*/x", false),
            ("~/**", "~/a", true),
            ("~/**", "a", true),
            ("~/**", "/root/a", false),
            ("/**", "~/a", false),
            ("/**", "/", true),
        ] {
            let word = word(path);
            let granted = Path::of_word(&word, Some("~")).is_some_and(|path| pattern(text).grants(&path));
            assert_eq!(granted, expected, "{text} {path}");
        }
    }

    #[test]
    fn what_may_be_meant() {
        for (text, path, expected) in [
            ("/etc/**", "/etc/shadow", true),
            ("/etc/**", "/srv/x", false),
            ("/etc/**", "/srv/../etc/shadow", true),
            ("/etc/**", "/*/shadow", true),
            ("/home/x/.ssh/**", "~/.ssh/id", true),
            ("~/.ssh/**", "/home/x/.ssh/id", true),
            ("~/.ssh/**", "/home/x/.bashrc", false),
            ("/home/x/.ssh/**", "~/.bashrc", false),
            ("/srv/app/secrets/**", "~/secrets/key", true),
            ("/srv/app/secrets/**", "~/fetch", false),
            ("/srv/app/secrets/**", "~/app", false),
            ("/root/x", "~/x", true),
            ("/etc/**", "~/fetch", false),
        ] {
            let word = word(path);
            assert_eq!(
                pattern(text).may_mean(Path::of_word(&word, None).as_ref()),
                expected,
                "{text} {path}"
            );
        }
        let folder = word("/srv");
        let folder = Path::of_word(&folder, None);
        assert!(pattern("/srv/a/secret").may_mean_below(folder.as_ref()));
        assert!(!pattern("/srv/a/secret").may_mean(folder.as_ref()));
        assert!(pattern("/srv/a/secret").leads_through(&folder.unwrap()));
    }

    #[test]
    fn bad_patterns() {
        for text in ["", "srv", "/srv/", "/srv//a", "/srv/../a", "~bob/x", "/srv/a**", "./a"] {
            assert!(PathPattern::new(text).is_err(), "{text}");
        }
    }

    proptest! {
        /// Whatever is granted may also be meant.
        #[test]
        fn grants_are_within_restrictions(
            text in "/([ab*]|\\*\\*)(/([ab*]|\\*\\*)){0,3}",
            path in "/[ab](/[ab]){0,3}",
        ) {
            if let Ok(pattern) = PathPattern::new(&text) {
                let path = Path::absolute(&path).unwrap();
                if pattern.grants(&path) {
                    prop_assert!(pattern.may_mean(Some(&path)));
                    prop_assert!(pattern.may_mean_below(Some(&path)));
                }
                // Without wildcards on the other side both are the same question.
                prop_assert_eq!(pattern.grants(&path), pattern.may_mean(Some(&path)));
            }
        }
    }
}
