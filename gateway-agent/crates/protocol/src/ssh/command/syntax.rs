//! A command line as a tree: no more of it than it takes to say what would run.

use std::rc::Rc;

/// Commands one after the other.
pub(super) type List = Vec<Entry>;

/// An and-or list, and whether it runs in the background.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) first: Pipeline,
    pub(super) rest: Vec<(Join, Pipeline)>,
    pub(super) background: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Join {
    And,
    Or,
}

#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) negated: bool,
    pub(super) commands: Vec<Command>,
}

#[derive(Debug)]
pub(super) enum Command {
    Simple(Simple),
    /// `{ … }`: in this shell.
    Group(List, Vec<Redirect>),
    /// `( … )`.
    Subshell(List, Vec<Redirect>),
    /// Lists of which any may run, once or not at all: `if`, `case`.
    Choice(Vec<List>, Vec<Word>, Vec<Redirect>),
    /// Lists that run again and again; the variable that a `for` or `select` sets, and its words.
    Loop(Vec<List>, Option<String>, Vec<Word>, Vec<Redirect>),
    /// A function: what it does counts as done.
    Function(Box<Command>),
}

#[derive(Debug, Default)]
pub(super) struct Simple {
    pub(super) assignments: Vec<(String, Word)>,
    pub(super) words: Vec<Word>,
    pub(super) redirects: Vec<Redirect>,
}

#[derive(Debug)]
pub(super) struct Redirect {
    pub(super) kind: RedirectKind,
    pub(super) target: Word,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RedirectKind {
    Read,
    Write,
    /// `&>`: where it is not known, the command is put into the background, and another that is only a redirection follows.
    WriteBoth,
    ReadWrite,
    /// `>&`, `<&`: a descriptor, or for some shells a file.
    Duplicate,
    /// A here-document or here-string: no file.
    Here,
}

/// A word before expansion.
#[derive(Debug, Default, Clone)]
pub(super) struct Word {
    pub(super) pieces: Vec<Piece>,
    pub(super) written: String,
    /// What runs while it is expanded.
    pub(super) runs: Vec<Rc<List>>,
    /// Variables that `${x:=…}` sets.
    pub(super) sets: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Stands for itself. `quoted`: so that it can be no reserved word, pattern or tilde.
    Text { text: String, quoted: bool },
    /// `~name` at the beginning.
    Tilde(String),
    /// `*`, `?` or `[`.
    Glob(char),
    /// An unquoted `{`: bash expands `{a,b}`, others do not.
    Brace,
    /// Something that is expanded. `one`: to exactly one word.
    Unknown { one: bool },
}

impl Word {
    /// Unquoted plain text, or nothing.
    pub(super) fn bare(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Text { text, quoted: false }] => Some(text),
            _ => None,
        }
    }

    /// What is known of its value.
    pub(super) fn known(&self) -> policy::Word {
        use policy::Certainty;
        let mut text = String::new();
        let mut prefix: Option<String> = None;
        let (mut glob, mut value, mut words, mut home) = (false, false, false, false);
        for (at, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Text { text: part, quoted } => {
                    // zsh replaces `=name` by the path of that program.
                    if at == 0 && !quoted && part.len() > 1 && part.starts_with('=') {
                        value = true;
                        prefix.get_or_insert_default();
                    }
                    // `~` is followed by a slash or nothing; quotes in between make it a name.
                    if home && at == 1 && (*quoted || !part.starts_with('/')) {
                        value = true;
                    }
                    text.push_str(part);
                }
                Piece::Tilde(user) if user.is_empty() && at == 0 => {
                    home = true;
                    text.push('~');
                }
                Piece::Tilde(_) => {
                    value = true;
                    prefix.get_or_insert_with(|| text.clone());
                }
                // A bracket that nothing closes is one: `[`, `[[`.
                Piece::Glob('[') if !self.written.contains(']') => text.push('['),
                Piece::Glob(c) => {
                    prefix.get_or_insert_with(|| text.clone());
                    glob = true;
                    text.push(*c);
                }
                Piece::Brace => {
                    prefix.get_or_insert_with(|| text.clone());
                    words |= self.written.contains(',') || self.written.contains("..");
                    text.push('{');
                }
                Piece::Unknown { one } => {
                    prefix.get_or_insert_with(|| text.clone());
                    value |= *one;
                    words |= !*one;
                }
            }
        }
        let certainty = match (words || (glob && (value || home)), value, glob, home) {
            (true, ..) => Certainty::Words,
            (_, true, ..) => Certainty::Value,
            (_, _, true, _) => Certainty::Glob,
            (_, _, _, true) => Certainty::Home,
            _ => Certainty::Literal,
        };
        let prefix = match certainty {
            Certainty::Words => String::new(),
            Certainty::Literal | Certainty::Home => text.clone(),
            Certainty::Glob | Certainty::Value => prefix.unwrap_or_default(),
        };
        let text = match certainty {
            Certainty::Literal | Certainty::Home | Certainty::Glob => text,
            Certainty::Value | Certainty::Words => self.written.clone(),
        };
        policy::Word { text, certainty, prefix }
    }
}
