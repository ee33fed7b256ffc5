//! POSIX shell grammar (POSIX.1-2024, Shell Command Language 2.10), and of bash what is common.
//!
//! Written for one question: what would run? Where shells read a text differently, it is refused or read as the union of
//! both. Recursive, with a depth that is counted; never runs anything.

mod compound;

use super::syntax::{Command, Entry, Join, List, Piece, Pipeline, Redirect, RedirectKind, Simple, Word};

/// Levels of groups, substitutions and quotes.
const DEPTH_MAX: usize = 40;

/// Why a text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad(pub(super) &'static str);

pub(super) type Read<T> = Result<T, Bad>;

/// Reserved words that end a list.
const CLOSERS: &[&str] = &["then", "else", "elif", "fi", "do", "done", "esac", "}"];

pub(super) struct Parser {
    pub(super) chars: Vec<char>,
    pub(super) at: usize,
    pub(super) depth: usize,
    /// Here-documents whose bodies begin at the next newline: the delimiter, and whether tabs are stripped and the body is
    /// expanded.
    pending: Vec<Here>,
    /// Bodies that were expanded: words whose substitutions run.
    pub(super) bodies: Vec<Word>,
}

struct Here {
    delimiter: String,
    strip: bool,
    expand: bool,
}

/// Reads a whole text.
pub(super) fn parse(text: &str, depth: usize) -> Read<(List, Parser)> {
    let mut parser =
        Parser { chars: text.chars().collect(), at: 0, depth, pending: Vec::new(), bodies: Vec::new() };
    let list = parser.list()?;
    match parser.peek() {
        None => Ok((list, parser)),
        Some(')') => Err(Bad("a `)` without its `(`")),
        Some(_) => Err(Bad("a reserved word or operator out of place")),
    }
}

impl Parser {
    /// The next character, continuation lines joined.
    pub(super) fn peek(&mut self) -> Option<char> {
        while self.raw(0) == Some('\\') && self.raw(1) == Some('\n') {
            self.at += 2;
        }
        self.raw(0)
    }

    /// The one after it, when nothing has to be joined in between.
    pub(super) fn peek_second(&mut self) -> Option<char> {
        self.peek()?;
        let at = self.at;
        self.at += 1;
        let second = self.peek();
        self.at = at;
        second
    }

    /// As it is written.
    pub(super) fn raw(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    pub(super) fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    pub(super) fn written(&self, from: usize) -> String {
        self.chars.get(from..self.at).unwrap_or_default().iter().collect()
    }

    pub(super) fn enter<T>(&mut self, inside: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        if self.depth >= DEPTH_MAX {
            return Err(Bad("it is nested too deeply"));
        }
        self.depth += 1;
        let done = inside(self);
        self.depth -= 1;
        done
    }

    /// Commands up to a closing word or parenthesis, or the end.
    pub(super) fn list(&mut self) -> Read<List> {
        self.enter(|parser| {
            let mut list = Vec::new();
            loop {
                parser.lines()?;
                match parser.peek() {
                    None | Some(')') => return Ok(list),
                    Some(';') if parser.peek_second() == Some(';') => return Ok(list),
                    _ => {}
                }
                if parser.reserved().is_some_and(|word| CLOSERS.contains(&word.as_str())) {
                    return Ok(list);
                }
                let mut entry = parser.and_or()?;
                parser.blanks();
                let more = match (parser.peek(), parser.peek_second()) {
                    (Some(';'), Some(';')) => false,
                    (Some(';'), _) => {
                        parser.at += 1;
                        true
                    }
                    (Some('&'), _) => {
                        parser.at += 1;
                        entry.background = true;
                        true
                    }
                    (Some('\n'), _) => true,
                    _ => false,
                };
                list.push(entry);
                if !more {
                    return Ok(list);
                }
            }
        })
    }

    fn and_or(&mut self) -> Read<Entry> {
        let first = self.pipeline()?;
        let mut rest = Vec::new();
        loop {
            self.blanks();
            let join = match (self.peek(), self.peek_second()) {
                (Some('&'), Some('&')) => Join::And,
                (Some('|'), Some('|')) => Join::Or,
                _ => return Ok(Entry { first, rest, background: false }),
            };
            self.eat('&');
            self.eat('&');
            self.eat('|');
            self.eat('|');
            self.lines()?;
            rest.push((join, self.pipeline()?));
        }
    }

    fn pipeline(&mut self) -> Read<Pipeline> {
        self.blanks();
        let mut negated = false;
        while self.reserved().as_deref() == Some("!") {
            self.at += 1;
            negated = !negated;
            self.blanks();
        }
        let mut commands = vec![self.command()?];
        loop {
            self.blanks();
            if self.peek() != Some('|') || self.peek_second() == Some('|') {
                return Ok(Pipeline { negated, commands });
            }
            self.at += 1;
            // bash: `|&`.
            self.eat('&');
            self.lines()?;
            commands.push(self.command()?);
        }
    }

    fn command(&mut self) -> Read<Command> {
        self.blanks();
        if self.peek() == Some('(') {
            self.at += 1;
            if self.peek() == Some('(') {
                return Err(Bad("`((` is arithmetic to some shells and a group to others"));
            }
            let list = self.list()?;
            self.close(')', "a `(` is not closed")?;
            return Ok(Command::Subshell(list, self.redirects()?));
        }
        let Some(word) = self.reserved() else { return self.simple() };
        match word.as_str() {
            "{" => {
                self.take(&word);
                let list = self.list()?;
                self.word_here("}")?;
                Ok(Command::Group(list, self.redirects()?))
            }
            "if" => self.choice_if(),
            "case" => self.choice_case(),
            "while" | "until" => {
                self.take(&word);
                let condition = self.list()?;
                self.word_here("do")?;
                let body = self.list()?;
                self.word_here("done")?;
                Ok(Command::Loop(vec![condition, body], None, Vec::new(), self.redirects()?))
            }
            "for" | "select" => self.loop_for(&word),
            "function" => {
                self.take(&word);
                self.blanks();
                self.word()?;
                self.blanks();
                if self.eat('(') {
                    self.blanks();
                    self.close(')', "a function without `)`")?;
                }
                self.lines()?;
                Ok(Command::Function(Box::new(self.enter(Self::command)?)))
            }
            word if CLOSERS.contains(&word) || word == "!" => {
                Err(Bad("a reserved word where a command should be"))
            }
            _ => self.simple(),
        }
    }

    fn simple(&mut self) -> Read<Command> {
        let mut simple = Simple::default();
        loop {
            self.blanks();
            if let Some(redirect) = self.redirect()? {
                simple.redirects.push(redirect);
                continue;
            }
            match self.peek() {
                Some('(') => {
                    let named = matches!(simple.words.as_slice(), [only] if only.bare().is_some_and(is_function_name))
                        && simple.assignments.is_empty()
                        && simple.redirects.is_empty();
                    if !named {
                        return Err(Bad("a `(` inside of a command"));
                    }
                    self.at += 1;
                    self.blanks();
                    self.close(')', "a `(` inside of a command")?;
                    self.lines()?;
                    return Ok(Command::Function(Box::new(self.enter(Self::command)?)));
                }
                None | Some('\n' | ';' | '&' | '|' | ')') => break,
                Some(_) => {}
            }
            if simple.redirects.iter().any(|of| of.kind == RedirectKind::WriteBoth) {
                return Err(Bad("words behind `&>`, which some shells read as another command"));
            }
            let word = self.word()?;
            match split_assignment(&word)? {
                Some(assignment) if simple.words.is_empty() => simple.assignments.push(assignment),
                _ => simple.words.push(word),
            }
        }
        if simple.words.is_empty() && simple.assignments.is_empty() && simple.redirects.is_empty() {
            return Err(Bad("a command is missing"));
        }
        Ok(Command::Simple(simple))
    }

    fn redirects(&mut self) -> Read<Vec<Redirect>> {
        let mut redirects = Vec::new();
        loop {
            self.blanks();
            match self.redirect()? {
                Some(redirect) => redirects.push(redirect),
                None => return Ok(redirects),
            }
        }
    }

    /// A redirection, if one begins here.
    fn redirect(&mut self) -> Read<Option<Redirect>> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        let both = self.at == start && self.peek() == Some('&') && self.peek_second() == Some('>');
        if both {
            self.at += 1;
        }
        let (first, second) = (self.peek(), self.peek_second());
        if !matches!(first, Some('<' | '>')) || second == Some('(') {
            self.at = start;
            return Ok(None);
        }
        self.at += 1;
        let kind = match (first, second) {
            _ if both => RedirectKind::WriteBoth,
            (Some('<'), Some('<')) => {
                self.eat('<');
                return self.here().map(Some);
            }
            (Some('<'), Some('>')) => RedirectKind::ReadWrite,
            (_, Some('&')) => RedirectKind::Duplicate,
            (Some('>'), Some('>' | '|')) => RedirectKind::Write,
            (Some('<'), _) => RedirectKind::Read,
            _ => RedirectKind::Write,
        };
        let doubled = match first {
            Some('<') => matches!(second, Some('>' | '&')),
            _ => matches!(second, Some('>' | '|' | '&')),
        };
        if doubled && let Some(second) = second {
            self.eat(second);
        }
        self.blanks();
        if self.peek() == Some('!') {
            return Err(Bad("`>!` writes to what follows, to some shells"));
        }
        Ok(Some(Redirect { kind, target: self.word()? }))
    }

    /// After `<<`.
    fn here(&mut self) -> Read<Redirect> {
        if self.eat('<') {
            self.blanks();
            return Ok(Redirect { kind: RedirectKind::Here, target: self.word()? });
        }
        let strip = self.eat('-');
        self.blanks();
        let target = self.word()?;
        let known = target.known();
        let Some(delimiter) = known.value() else {
            return Err(Bad("the end of a here-document is not plain text"));
        };
        let quoted = |piece: &Piece| matches!(piece, Piece::Text { quoted: true, .. });
        let expand = !target.pieces.iter().any(quoted);
        self.pending.push(Here { delimiter: delimiter.to_owned(), strip, expand });
        Ok(Redirect { kind: RedirectKind::Here, target })
    }

    /// Bodies of here-documents, after a newline.
    fn here_bodies(&mut self) -> Read<()> {
        for here in std::mem::take(&mut self.pending) {
            let mut body = String::new();
            loop {
                let mut line = String::new();
                while let Some(c) = self.raw(0).filter(|c| *c != '\n') {
                    line.push(c);
                    self.at += 1;
                }
                let ended = self.raw(0).is_none();
                self.at += usize::from(!ended);
                let line = if here.strip { line.trim_start_matches('\t') } else { &line };
                if line == here.delimiter {
                    break;
                }
                if ended {
                    // Shells take the rest as the body, with or without a word about it.
                    body.push_str(line);
                    break;
                }
                body.push_str(line);
                body.push('\n');
            }
            if here.expand {
                if body.contains("\\\n") {
                    return Err(Bad("continued lines in a here-document are read differently by shells"));
                }
                let word = self.expanded(&body)?;
                self.bodies.push(word);
            }
        }
        Ok(())
    }

    /// Spaces, tabs and comments.
    pub(super) fn blanks(&mut self) {
        let start = self.at;
        while self.peek().is_some_and(|c| c == ' ' || c == '\t') {
            self.at += 1;
        }
        let before = self.at.checked_sub(1).and_then(|at| self.chars.get(at)).copied();
        let fresh = self.at == 0 || self.at > start || before.is_some_and(|c| "\n;&|()".contains(c));
        if fresh && self.peek() == Some('#') {
            while self.raw(0).is_some_and(|c| c != '\n') {
                self.at += 1;
            }
        }
    }

    /// Blanks and newlines.
    fn lines(&mut self) -> Read<()> {
        loop {
            self.blanks();
            if self.peek() != Some('\n') {
                return Ok(());
            }
            self.at += 1;
            self.here_bodies()?;
        }
    }

    /// The unquoted word that begins here, if it could be a reserved one.
    fn reserved(&mut self) -> Option<String> {
        let start = self.at;
        let mut word = String::new();
        while let Some(c) = self.peek() {
            if " \t\n;&|()<>".contains(c) {
                break;
            }
            if !(c.is_ascii_lowercase() || "{}!".contains(c)) {
                self.at = start;
                return None;
            }
            word.push(c);
            self.at += 1;
        }
        self.at = start;
        (!word.is_empty()).then_some(word)
    }

    /// Passes over a word that `reserved` has seen.
    fn take(&mut self, word: &str) {
        for c in word.chars() {
            self.eat(c);
        }
    }

    fn word_here(&mut self, wanted: &'static str) -> Read<()> {
        if self.reserved().as_deref() != Some(wanted) {
            return Err(Bad("a reserved word is missing or out of place"));
        }
        self.take(wanted);
        Ok(())
    }

    fn close(&mut self, wanted: char, missing: &'static str) -> Read<()> {
        self.blanks();
        if self.eat(wanted) { Ok(()) } else { Err(Bad(missing)) }
    }

    /// Whether a here-document waits for its body.
    pub(super) fn waits_for_body(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Here-documents that begin inside of a substitution end inside of it.
    pub(super) fn apart<T>(&mut self, inside: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        let outer = std::mem::take(&mut self.pending);
        let start = self.at;
        let done = inside(self);
        // Whose body begins at a newline in there, shells do not agree on.
        let lines = self.chars.get(start..self.at).is_some_and(|read| read.contains(&'\n'));
        if self.waits_for_body() || (lines && !outer.is_empty()) {
            return Err(Bad("a here-document and a substitution over several lines"));
        }
        self.pending = outer;
        done
    }
}

/// Splits `name=value`; `name+=value` too.
fn split_assignment(word: &Word) -> Read<Option<(String, Word)>> {
    let Some((Piece::Text { text, quoted: false }, rest)) = word.pieces.split_first() else {
        // `a[$x]=…`, `a[0]=…`: the subscript is arithmetic.
        return Ok(None);
    };
    let subscript = matches!(rest.first(), Some(Piece::Glob('['))) && is_name(text);
    if subscript && word.written.contains("]=") | word.written.contains("]+=") {
        return Err(Bad("an assignment to an element of an array"));
    }
    let Some((name, value)) = text.split_once('=') else { return Ok(None) };
    let name = name.strip_suffix('+').unwrap_or(name);
    if !is_name(name) {
        return Ok(None);
    }
    let mut pieces = Vec::new();
    if !value.is_empty() {
        pieces.push(Piece::Text { text: value.to_owned(), quoted: true });
    }
    // Values are not split, and their patterns and braces stay as they are.
    pieces.extend(rest.iter().map(|piece| match piece {
        Piece::Unknown { .. } => Piece::Unknown { one: true },
        Piece::Glob(c) => Piece::Text { text: c.to_string(), quoted: true },
        Piece::Brace => Piece::Text { text: "{".to_owned(), quoted: true },
        other => other.clone(),
    }));
    if value.contains('~') {
        pieces = vec![Piece::Unknown { one: true }];
    }
    let value =
        Word { pieces, written: word.written.clone(), runs: word.runs.clone(), sets: word.sets.clone() };
    Ok(Some((name.to_owned(), value)))
}

pub(super) fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What bash and dash take for the name of a function.
fn is_function_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:+@,%/!".contains(c))
}
