//! Patterns over programs and what they are given.

use super::{
    Certainty, Invocation, Word,
    pattern::{Path, PathPattern},
};
use crate::pattern::{BadPattern, Glob, bad};

/// Folders in which a program is the one of that name.
const STANDARD: &[&str] = &["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// A program, and what it may be given.
#[derive(Debug)]
pub(crate) struct CommandPattern {
    program: Program,
    /// `None` = whatever.
    arguments: Option<Vec<Entry>>,
    via: Vec<String>,
    folder: Option<PathPattern>,
}

#[derive(Debug)]
enum Program {
    Named(Glob),
    At(PathPattern),
}

/// What stands for words.
#[derive(Debug)]
struct Entry {
    what: What,
    /// Any number of times.
    repeated: bool,
}

#[derive(Debug)]
enum What {
    /// `**`.
    Anything,
    /// `*`: one word that is no option.
    Operand,
    /// `--file=/srv/**`, `/srv/**`.
    Path(String, PathPattern),
    /// Text whose wildcards do not cross a slash.
    Text(Vec<Glob>),
}

impl CommandPattern {
    pub(crate) fn new(
        program: Result<ProgramPattern, BadPattern>,
        arguments: Option<Vec<ArgumentPattern>>,
        via: Vec<String>,
        folder: Option<PathPattern>,
    ) -> Result<Self, BadPattern> {
        let arguments = arguments.map(|entries| entries.into_iter().map(|entry| entry.0).collect());
        Ok(Self { program: program?.0, arguments, via, folder })
    }

    /// Whatever the unknown parts turn out to be, this is what the rule names.
    pub(crate) fn grants(&self, run: &Invocation) -> bool {
        let folder = run.folder.as_deref();
        let program = match &self.program {
            Program::Named(glob) => certain_name(run).is_some_and(|name| glob.matches(name)),
            Program::At(path) => {
                run.program.text.contains('/')
                    && run.program.certainty != Certainty::Glob
                    && Path::of_word(&run.program, folder).is_some_and(|found| path.grants(&found))
            }
        };
        let here = self
            .folder
            .as_ref()
            .is_none_or(|wanted| folder.and_then(at_folder).is_some_and(|found| wanted.grants(&found)));
        program
            && here
            && self.via == run.via
            && self.arguments.as_ref().is_none_or(|entries| given(entries, &run.arguments, folder))
    }

    /// It could be what the rule names.
    pub(crate) fn may_mean(&self, run: &Invocation) -> bool {
        let folder = run.folder.as_deref();
        let last = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
        let program = match (&self.program, run.program.value()) {
            (_, None) => true,
            (Program::Named(glob), Some(text)) => glob.matches(&last(text)),
            (Program::At(path), Some(text)) if text.contains('/') => {
                path.may_mean(Path::of_word(&run.program, folder).as_ref())
            }
            // By its bare name it may be that one.
            (Program::At(path), Some(text)) => {
                let name = last(path.as_str());
                Glob::new(&name).map_or(true, |glob| name == "**" || glob.matches(text))
            }
        };
        let here =
            self.folder.as_ref().is_none_or(|wanted| wanted.may_mean(folder.and_then(at_folder).as_ref()));
        let via = self.via.is_empty() || self.via.iter().any(|wanted| run.via.contains(wanted));
        program
            && here
            && via
            && self.arguments.as_ref().is_none_or(|entries| may_be_given(entries, &run.arguments, folder))
    }
}

fn at_folder(folder: &str) -> Option<Path<'_>> {
    let certainty = if folder.starts_with('~') { Certainty::Home } else { Certainty::Literal };
    Path::of_text(folder, certainty, None)
}

/// The name of a program that is certainly the one that goes by it.
pub(crate) fn certain_name(run: &Invocation) -> Option<&str> {
    let text = run.program.value()?;
    if !text.contains('/') {
        return (!text.is_empty()).then_some(text);
    }
    let path = Path::absolute(text)?;
    let standard = STANDARD.iter().any(|folder| path.is_in(folder));
    path.last().filter(|_| standard)
}

/// A checked `program`.
pub(crate) struct ProgramPattern(Program);

impl ProgramPattern {
    pub(crate) fn new(text: &str) -> Result<Self, BadPattern> {
        if text.starts_with(['/', '~']) {
            return PathPattern::new(text).map(|path| Self(Program::At(path)));
        }
        if text.contains('/') {
            return bad(
                format!("`{text}` is relative to a folder that is not said"),
                "write the name alone, or its path from `/` or `~/`",
            );
        }
        if text.chars().any(char::is_whitespace) {
            return bad(
                format!("`{text}` is more than a program"),
                "what it is given goes into `arguments`, one entry a word",
            );
        }
        Glob::new(text).map(|glob| Self(Program::Named(glob)))
    }
}

/// A checked entry of `arguments`.
pub(crate) struct ArgumentPattern(Entry);

impl ArgumentPattern {
    pub(crate) fn new(text: &str) -> Result<Self, BadPattern> {
        let (text, repeated) = match text.strip_suffix("...") {
            Some(text) if !text.is_empty() => (text, true),
            _ => (text, false),
        };
        let is_path = |text: &str| text.starts_with('/') || text == "~" || text.starts_with("~/");
        let what = match (text, text.split_once('=')) {
            ("**", _) => What::Anything,
            ("*", _) => What::Operand,
            (path, _) if is_path(path) => What::Path(String::new(), PathPattern::new(path)?),
            (_, Some((name, path))) if is_path(path) => {
                What::Path(format!("{name}="), PathPattern::new(path)?)
            }
            (text, _) if text.contains("**") => {
                return bad(
                    format!("`{text}`: `**` is any words, and stands alone, or is part of a path"),
                    "write `\"**\"` as an entry of its own, or `*` for any part of a name",
                );
            }
            (text, _) => {
                // An empty name between slashes stands for itself.
                let parts = text.split('/').map(|part| match part {
                    "" => Ok(Glob::exact(String::new())),
                    part => Glob::new(part),
                });
                What::Text(parts.collect::<Result<_, _>>()?)
            }
        };
        Ok(Self(Entry { what, repeated }))
    }
}

impl Entry {
    fn grants(&self, word: &Word, folder: Option<&str>) -> bool {
        match &self.what {
            What::Anything => true,
            What::Operand => {
                let plain = |text: &str| !text.starts_with('-');
                match word.certainty {
                    Certainty::Literal => plain(&word.text),
                    Certainty::Home => true,
                    Certainty::Value => !word.prefix.is_empty() && plain(&word.prefix),
                    Certainty::Glob => self.repeated && !word.prefix.is_empty() && plain(&word.prefix),
                    Certainty::Words => false,
                }
            }
            What::Path(before, pattern) => {
                let Some(path) = word.text.strip_prefix(before.as_str()) else { return false };
                let one = matches!(word.certainty, Certainty::Literal | Certainty::Home);
                let many = self.repeated && word.certainty == Certainty::Glob && before.is_empty();
                (one || many)
                    && !(before.is_empty() && path.starts_with('-'))
                    && Path::of_text(path, word.certainty, folder).is_some_and(|path| pattern.grants(&path))
            }
            What::Text(parts) => word.value().is_some_and(|text| is_text(parts, text)),
        }
    }

    fn may_mean(&self, word: &Word, folder: Option<&str>) -> bool {
        match (&self.what, word.certainty) {
            (What::Anything, _) | (_, Certainty::Value | Certainty::Words | Certainty::Glob) => true,
            (What::Operand, _) => !word.text.starts_with('-'),
            (What::Path(before, pattern), certainty) => {
                let path = word.text.strip_prefix(before.as_str());
                path.is_some_and(|path| pattern.may_mean(Path::of_text(path, certainty, folder).as_ref()))
            }
            (What::Text(parts), _) => {
                let written: Vec<&str> = word.text.split('/').collect();
                parts.len() == written.len()
                    && parts.iter().zip(written).all(|(glob, part)| glob.matches(part))
            }
        }
    }

    fn may_be_missing(&self) -> bool {
        self.repeated || matches!(self.what, What::Anything)
    }
}

fn is_text(parts: &[Glob], text: &str) -> bool {
    let written: Vec<&str> = text.split('/').collect();
    // A wildcard in front does not make an option of it, nor does one anywhere lead upwards.
    let option =
        text.starts_with('-') && parts.first().is_some_and(|glob| glob.as_str().starts_with(['*', '?']));
    let upwards =
        parts.iter().zip(&written).any(|(glob, part)| matches!(*part, "." | "..") && !glob.is_exact());
    !option
        && !upwards
        && parts.len() == written.len()
        && parts.iter().zip(written).all(|(glob, part)| glob.matches(part))
}

fn given(entries: &[Entry], words: &[Word], folder: Option<&str>) -> bool {
    matched(entries, words, |entry, word| entry.grants(word, folder), |_| false)
}

fn may_be_given(entries: &[Entry], words: &[Word], folder: Option<&str>) -> bool {
    // What is any number of words is also any entries.
    let many = |word: &Word| matches!(word.certainty, Certainty::Words | Certainty::Glob);
    matched(entries, words, |entry, word| entry.may_mean(word, folder), many)
}

/// Whether the words are the entries, one after the other. `elastic` words stand for any number of them.
fn matched(
    entries: &[Entry],
    words: &[Word],
    fits: impl Fn(&Entry, &Word) -> bool,
    elastic: impl Fn(&Word) -> bool,
) -> bool {
    let mut reached = vec![false; entries.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    skip(entries, &mut reached);
    for word in words {
        let mut next = vec![false; entries.len() + 1];
        let mut mark = |at: usize| {
            if let Some(slot) = next.get_mut(at) {
                *slot = true;
            }
        };
        for at in 0..=entries.len() {
            if !reached.get(at).copied().unwrap_or_default() {
                continue;
            }
            if elastic(word) {
                (at..=entries.len()).for_each(&mut mark);
                continue;
            }
            let Some(entry) = entries.get(at) else { continue };
            if fits(entry, word) {
                mark(at + 1);
                if entry.may_be_missing() {
                    mark(at);
                }
            }
        }
        skip(entries, &mut next);
        reached = next;
    }
    reached.last().copied().unwrap_or_default()
}

fn skip(entries: &[Entry], reached: &mut [bool]) {
    for (at, entry) in entries.iter().enumerate() {
        if entry.may_be_missing()
            && reached.get(at).copied().unwrap_or_default()
            && let Some(slot) = reached.get_mut(at + 1)
        {
            *slot = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(program: &str, arguments: &[&str]) -> CommandPattern {
        let arguments = arguments
            .iter()
            .map(|text| ArgumentPattern::new(text).unwrap_or_else(|b| panic!("{}", b.message)));
        CommandPattern::new(ProgramPattern::new(program), Some(arguments.collect()), Vec::new(), None)
            .unwrap_or_else(|b| panic!("{}", b.message))
    }

    fn run(text: &str) -> Invocation {
        let mut words = text.split(' ').map(|text| match text {
            text if text.starts_with('$') => Word::unknown(text, Certainty::Words),
            text if text.contains('*') => Word {
                prefix: text.split('*').next().unwrap().into(),
                ..Word::unknown(text, Certainty::Glob)
            },
            text => Word::literal(text),
        });
        Invocation {
            program: words.next().unwrap(),
            arguments: words.collect(),
            folder: Some("/srv/app".into()),
            via: Vec::new(),
            transfer: false,
        }
    }

    #[test]
    fn what_is_granted() {
        for (program, arguments, text, expected) in [
            ("git", &["fetch", "**"][..], "git fetch", true),
            ("git", &["fetch", "**"], "/usr/bin/git fetch --all $x", true),
            ("git", &["fetch", "**"], "/tmp/git fetch", false),
            ("git", &["fetch", "**"], "./git fetch", false),
            ("git", &["fetch", "**"], "git push", false),
            ("git", &["fetch", "*"], "git fetch origin", true),
            ("git", &["fetch", "*"], "git fetch --upload-pack=x", false),
            ("git", &["fetch", "*"], "git fetch $x", false),
            ("cat", &["/srv/app/**"], "cat /srv/app/x", true),
            ("cat", &["/srv/app/**"], "cat x", true),
            ("cat", &["/srv/app/**"], "cat /srv/app/../x", false),
            ("cat", &["/srv/app/**"], "cat -n", false),
            ("cat", &["/srv/app/**"], "cat /srv/app/a /srv/app/b", false),
            ("rm", &["-f", "/srv/app/**..."], "rm -f /srv/app/a /srv/app/*.log", true),
            ("rm", &["/srv/app/**"], "rm /srv/app/*.log", false),
            ("git", &["push", "origin", "refs/heads/*"], "git push origin refs/heads/x", true),
            ("git", &["push", "origin", "refs/heads/*"], "git push origin refs/heads/x/y", false),
            ("git", &["push", "origin", "refs/heads/*"], "git push origin refs/heads/..", false),
            ("x", &["--file=/srv/**"], "x --file=/srv/a", true),
            ("x", &["--file=/srv/**"], "x --file=/etc/a", false),
            ("x", &["*y"], "x -y", false),
            ("/srv/app/*.sh", &[], "./deploy.sh", true),
            ("/srv/app/*.sh", &[], "deploy.sh", false),
            ("uptime", &[], "uptime", true),
            ("uptime", &[], "uptime -p", false),
        ] {
            assert_eq!(
                command(program, arguments).grants(&run(text)),
                expected,
                "{program} {arguments:?} {text}"
            );
        }
        let sudo = Invocation { via: vec!["sudo".into()], ..run("uptime") };
        assert!(!command("uptime", &[]).grants(&sudo), "not as somebody else");
    }

    #[test]
    fn what_may_be_meant() {
        for (program, arguments, text, expected) in [
            ("rm", &["**"][..], "rm -rf x", true),
            ("rm", &["**"], "/tmp/rm x", true),
            ("rm", &["**"], "$x y", true),
            ("rm", &["**"], "ls", false),
            ("git", &["push", "**"], "git $x", true),
            ("git", &["push", "--force", "**"], "git push $x", true),
            ("git", &["push", "--force", "**"], "git fetch $x", false),
            ("/usr/sbin/reboot", &["**"], "reboot", true),
            ("cat", &["/etc/**"], "cat ../../etc/shadow", true),
        ] {
            assert_eq!(
                command(program, arguments).may_mean(&run(text)),
                expected,
                "{program} {arguments:?} {text}"
            );
        }
        let sudo = Invocation { via: vec!["sudo".into()], ..run("rm x") };
        assert!(command("rm", &["**"]).may_mean(&sudo), "through whatever");
    }

    proptest::proptest! {
        /// Whatever a pattern grants it may also mean: what one rule allows, the same words in a deny rule forbid.
        #[test]
        fn grants_are_within_restrictions(
            program in "(a|b|\\*|/usr/bin/a|/srv/\\*\\*)",
            entries in proptest::collection::vec("(a|-a|\\*|\\*\\*|a\\*|/srv/\\*|/srv/\\*\\*\\.\\.\\.|x=/srv/\\*\\*|\\*/a)", 0..4),
            text in "(a|b|/usr/bin/a|/srv/a|\\./a|\\$x)( (a|-a|ab|/srv/a|/srv/\\*|\\.\\./a|x=/srv/a|\\$x|a/a)){0,4}",
        ) {
            let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
            let (pattern, run) = (command(&program, &entries), run(&text));
            if pattern.grants(&run) {
                proptest::prop_assert!(pattern.may_mean(&run), "{program} {entries:?} {text}");
            }
        }
    }
}
