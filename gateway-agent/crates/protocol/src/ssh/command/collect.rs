//! Walks the tree of a command line and lists what would run, what is opened and what is set.
//!
//! The folder is followed as far as it can be: `cd /srv && ./deploy` runs `/srv/deploy`, but after `cd /srv; …` the next command
//! may also run where the one before did.

use std::collections::BTreeSet;

use policy::{Assignment, Certainty, Exec, FileOperation, Invocation, PathUse, Route, Word};

use super::{
    launch,
    parse::{self, Bad, parse},
    paths,
    syntax::{self, Command, Entry, Join, List, Pipeline, Redirect, RedirectKind, Simple},
};

/// Most programs of one command line.
const INVOCATIONS_MAX: usize = 512;

/// Levels of lists, texts inside of texts included.
const DEPTH_MAX: usize = 100;

/// Where a command runs: `~` is home, `None` cannot be told.
pub(super) type Folder = Option<String>;

/// Whether, and where, the next command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reach {
    Never,
    At(Folder),
}

impl Reach {
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, other) | (other, Self::Never) => other,
            (a, b) if a == b => a,
            _ => Self::At(None),
        }
    }

    fn folder(&self) -> Folder {
        match self {
            Self::Never => None,
            Self::At(folder) => folder.clone(),
        }
    }
}

/// What a command leaves behind when it succeeds, and when it fails.
struct After {
    succeeded: Reach,
    failed: Reach,
}

impl After {
    fn same(folder: Folder) -> Self {
        Self { succeeded: Reach::At(folder.clone()), failed: Reach::At(folder) }
    }

    fn never() -> Self {
        Self { succeeded: Reach::Never, failed: Reach::Never }
    }
}

#[derive(Default)]
pub(super) struct Collector {
    pub(super) exec: Exec,
    /// Something may have changed what `cd` means, or moved without a word: folders are no longer followed.
    lost: bool,
    /// Levels that are being walked; a text inside of a text may nest as deeply as is left.
    pub(super) depth: usize,
    /// Whether output goes to a terminal, where some programs show it by a pager.
    pub(super) terminal: bool,
    /// Variables that stand where some shells compute: each has to be a number, wherever it is set.
    numbers: BTreeSet<String>,
}

impl Collector {
    /// `terminal`: the command line runs on one.
    pub(super) fn new(terminal: bool) -> Self {
        Self { terminal, ..Self::default() }
    }

    pub(super) fn opaque(&mut self, why: impl Into<String>) {
        let why = why.into();
        if !self.exec.opaque.contains(&why) {
            self.exec.opaque.push(why);
        }
    }

    /// Reads a text that a shell would be given, and walks it.
    pub(super) fn text(&mut self, text: &str, folder: &mut Folder, via: &[String]) {
        match parse(text, self.depth) {
            Ok((list, parser)) => {
                for body in &parser.bodies {
                    // Wherever the command is that it belongs to.
                    self.runs(body, &None, via);
                }
                self.list(&list, folder, via);
            }
            Err(Bad(why)) => self.opaque(why),
        }
    }

    fn list(&mut self, list: &List, folder: &mut Folder, via: &[String]) {
        if self.depth >= DEPTH_MAX {
            return self.opaque("it is nested too deeply");
        }
        self.depth += 1;
        for entry in list {
            let after = self.entry(entry, folder.clone(), via);
            if !entry.background {
                *folder = if self.lost { None } else { after };
            }
        }
        self.depth -= 1;
    }

    fn entry(&mut self, entry: &Entry, folder: Folder, via: &[String]) -> Folder {
        let After { mut succeeded, mut failed } = self.pipeline(&entry.first, folder, via);
        for (join, pipeline) in &entry.rest {
            match join {
                Join::And => {
                    let after = self.pipeline(pipeline, succeeded.folder(), via);
                    if succeeded == Reach::Never {
                        continue;
                    }
                    succeeded = after.succeeded;
                    failed = failed.or(after.failed);
                }
                Join::Or => {
                    let after = self.pipeline(pipeline, failed.folder(), via);
                    if failed == Reach::Never {
                        continue;
                    }
                    succeeded = succeeded.or(after.succeeded);
                    failed = after.failed;
                }
            }
        }
        succeeded.or(failed).folder()
    }

    fn pipeline(&mut self, pipeline: &Pipeline, folder: Folder, via: &[String]) -> After {
        let after = match pipeline.commands.as_slice() {
            [only] => self.command(only, folder, via),
            several => {
                // Each runs in a shell of its own, but some shells keep the last one.
                let mut moved = false;
                for command in several {
                    let after = self.command(command, folder.clone(), via);
                    moved |= after.succeeded.or(after.failed).folder() != folder;
                }
                After::same(if moved { None } else { folder })
            }
        };
        match pipeline.negated {
            true => After { succeeded: after.failed, failed: after.succeeded },
            false => after,
        }
    }

    fn command(&mut self, command: &Command, folder: Folder, via: &[String]) -> After {
        match command {
            Command::Simple(simple) => self.simple(simple, folder, via),
            Command::Group(list, redirects) => {
                self.redirects(redirects, &folder, via);
                let mut inside = folder;
                self.list(list, &mut inside, via);
                After::same(inside)
            }
            Command::Subshell(list, redirects) => {
                self.redirects(redirects, &folder, via);
                self.list(list, &mut folder.clone(), via);
                After::same(folder)
            }
            Command::Choice(lists, words, redirects) => {
                self.redirects(redirects, &folder, via);
                self.words(words, &folder, via);
                After::same(self.any_of(lists, folder, via))
            }
            Command::Loop(lists, name, words, redirects) => {
                self.redirects(redirects, &folder, via);
                self.words(words, &folder, via);
                if let Some(name) = name {
                    self.sets(name, Word::unknown(name.clone(), Certainty::Value), false);
                }
                // What runs again runs where the round before has left it.
                let before = self.mark();
                let after = self.any_of(lists, folder.clone(), via);
                if after == folder {
                    return After::same(folder);
                }
                self.back_to(before);
                self.any_of(lists, None, via);
                After::same(None)
            }
            Command::Function(body) => {
                // Called whenever, from wherever; and it may go by the name of something known here.
                self.lost = true;
                self.command(body, None, via);
                After::same(None)
            }
        }
    }

    /// Lists of which any may run, each perhaps after the ones before.
    fn any_of(&mut self, lists: &[List], folder: Folder, via: &[String]) -> Folder {
        let mut after = folder.clone();
        for list in lists {
            let mut inside = after.clone();
            self.list(list, &mut inside, via);
            if inside != after {
                after = None;
            }
        }
        after
    }

    fn mark(&self) -> [usize; 4] {
        let Exec { invocations, files, assignments, opaque, .. } = &self.exec;
        [invocations.len(), files.len(), assignments.len(), opaque.len()]
    }

    fn back_to(&mut self, [invocations, files, assignments, opaque]: [usize; 4]) {
        self.exec.invocations.truncate(invocations);
        self.exec.files.truncate(files);
        self.exec.assignments.truncate(assignments);
        self.exec.opaque.truncate(opaque);
    }

    fn words(&mut self, words: &[syntax::Word], folder: &Folder, via: &[String]) {
        for word in words {
            self.runs(word, folder, via);
        }
    }

    /// What runs while a word is expanded.
    fn runs(&mut self, word: &syntax::Word, folder: &Folder, via: &[String]) {
        for list in &word.runs {
            self.list(list, &mut folder.clone(), via);
        }
        for name in &word.sets {
            self.sets(name, Word::unknown(word.written.clone(), Certainty::Value), false);
        }
    }

    fn redirects(&mut self, redirects: &[Redirect], folder: &Folder, via: &[String]) {
        for redirect in redirects {
            self.runs(&redirect.target, folder, via);
            let path = redirect.target.known();
            match redirect.kind {
                RedirectKind::Here => {}
                RedirectKind::Duplicate
                    if path.value().is_some_and(|to| {
                        to.chars().all(|c| c.is_ascii_digit() || c == '-') && !to.is_empty()
                    }) => {}
                RedirectKind::Read => self.opens(FileOperation::Read, path, folder),
                RedirectKind::Write => self.opens(FileOperation::Write, path, folder),
                RedirectKind::WriteBoth => {
                    self.opens(FileOperation::Write, path, folder);
                    // dash has put the command into the background: where a `cd` leads to is not where the next one runs.
                    self.lost = true;
                }
                RedirectKind::ReadWrite | RedirectKind::Duplicate => {
                    self.opens(FileOperation::Read, path.clone(), folder);
                    self.opens(FileOperation::Write, path, folder);
                }
            }
        }
    }

    /// A file is opened by a redirection or an option.
    pub(super) fn opens(&mut self, operation: FileOperation, path: Word, folder: &Folder) {
        const NOTHING: &[&str] =
            &["/dev/null", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd/0", "/dev/fd/1", "/dev/fd/2"];
        if path.value().is_some_and(|path| NOTHING.contains(&path)) {
            return;
        }
        // Some shells connect to these instead of opening them.
        let normal = path.prefix.replace("//", "/");
        if normal.starts_with("/dev/tcp") || normal.starts_with("/dev/udp") {
            self.opaque(format!("{} is a connection to some shells", path.text));
        }
        let folder = folder.clone();
        self.exec.files.push(PathUse { operation, path, folder, recursive: false, by: Route::Exec });
    }

    pub(super) fn sets(&mut self, name: &str, value: Word, exported: bool) {
        if matches!(name, "HOME" | "CDPATH" | "PWD" | "OLDPWD") {
            self.lost = true;
        }
        // Where a shell evaluates it as a name or a number, it runs what stands in its brackets.
        if value.value().is_some_and(|text| text.contains('[') && text.contains(['$', '`'])) {
            self.opaque(format!("the value of {name} can run commands"));
        }
        self.exec.assignments.push(Assignment { name: name.to_owned(), value, exported });
    }

    fn simple(&mut self, simple: &Simple, folder: Folder, via: &[String]) -> After {
        for (_, value) in &simple.assignments {
            self.runs(value, &folder, via);
        }
        self.words(&simple.words, &folder, via);
        let here = if self.lost { None } else { folder };
        for (name, value) in &simple.assignments {
            self.sets(name, value.known(), !simple.words.is_empty());
        }
        self.redirects(&simple.redirects, &here, via);
        let words: Vec<Word> = simple.words.iter().map(syntax::Word::known).collect();
        let Some((program, arguments)) = words.split_first() else { return After::same(here) };
        let mut folder = here.clone();
        match program.value() {
            Some("cd" | "chdir") => {
                self.invoked(program.clone(), arguments.to_vec(), &here, via);
                let to = paths::changed(&here, arguments);
                return After {
                    succeeded: Reach::At(if self.lost { None } else { to }),
                    failed: Reach::At(here),
                };
            }
            Some("pushd" | "popd") => {
                self.invoked(program.clone(), arguments.to_vec(), &here, via);
                return After::same(None);
            }
            Some("exit") if certainly_ends(simple, arguments) => {
                self.invoked(program.clone(), arguments.to_vec(), &here, via);
                return After::never();
            }
            _ => {}
        }
        launch::look(self, program, arguments, &mut folder, via);
        After::same(if self.lost { None } else { folder })
    }

    /// Nothing that follows is followed any more.
    pub(super) fn lose(&mut self) {
        self.lost = true;
    }

    /// A word stands where some shells compute with it (ksh, zsh), or would be told its name; then what it says can run commands.
    /// It has to be a number, or a variable that nothing but numbers is put into.
    pub(super) fn computes(&mut self, word: &Word, with: &str) {
        let written = word.text.trim_matches('"');
        let named = written
            .strip_prefix('$')
            .map(|name| name.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(name));
        match (word.value(), named) {
            (Some(text), _) if is_number(text) => {}
            (None, Some("?" | "#" | "$" | "!")) => {}
            (None, Some(name)) if parse::is_name(name) => {
                self.numbers.insert(name.to_owned());
            }
            _ => self.opaque(format!("{with} computes with {}, to some shells", word.text)),
        }
    }

    /// A program runs.
    pub(super) fn invoked(&mut self, program: Word, arguments: Vec<Word>, folder: &Folder, via: &[String]) {
        self.moves(program, arguments, folder, via, false);
    }

    /// A program runs; `transfer`: only to move the files that are listed.
    pub(super) fn moves(
        &mut self,
        program: Word,
        arguments: Vec<Word>,
        folder: &Folder,
        via: &[String],
        transfer: bool,
    ) {
        if self.exec.invocations.len() >= INVOCATIONS_MAX {
            self.opaque("it starts too many programs");
            return;
        }
        let folder = if self.lost { None } else { folder.clone() };
        let run = Invocation { program, arguments, folder, via: via.to_vec(), transfer };
        // A program by its path is listed before it is looked through.
        if self.exec.invocations.last() != Some(&run) {
            self.exec.invocations.push(run);
        }
    }

    /// Last look at the whole.
    pub(super) fn finish(mut self, text: String) -> Exec {
        self.exec.text = text;
        if self.lost {
            // Found out late: what came before may run again, from elsewhere.
            let invocations = self.exec.invocations.iter_mut().map(|of| &mut of.folder);
            let files = self.exec.files.iter_mut().map(|of| &mut of.folder);
            invocations.chain(files).for_each(|folder| *folder = None);
        }
        for name in std::mem::take(&mut self.numbers) {
            let number = |value: &Word| {
                // As written, with the name in front.
                let written = value.text.split_once('=').map_or(value.text.as_str(), |(_, written)| written);
                value.value().is_some_and(is_number) || matches!(written, "$?" | "$#" | "$$" | "$!")
            };
            let mut set = self.exec.assignments.iter().filter(|of| of.name == name).peekable();
            if set.peek().is_none() || !set.all(|of| number(&of.value)) {
                self.opaque(format!("${name} may be no number, and some shells compute with it"));
            }
        }
        let homes: BTreeSet<_> = self.exec.assignments.iter().map(|of| of.name.as_str()).collect();
        if homes.contains("HOME") {
            self.opaque("it changes what `~` means");
        }
        self.exec
    }
}

/// Whether `exit` cannot fail to end the shell: some go on after one that is given too much, or whose redirection fails.
fn certainly_ends(simple: &Simple, arguments: &[Word]) -> bool {
    let plain = match arguments {
        [] => true,
        [status] => status.value().is_some_and(is_number) || status.text == "$?",
        _ => false,
    };
    plain && simple.redirects.is_empty() && simple.assignments.is_empty()
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.len() < 19 && digits.bytes().all(|c| c.is_ascii_digit())
}
