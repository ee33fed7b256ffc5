//! Words: quotes and expansions (POSIX.1-2024, Shell Command Language 2.2 and 2.6).

use std::rc::Rc;

use super::{
    parse::{Bad, Parser, Read, is_name, parse},
    syntax::{Piece, Word},
};

/// Where characters are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// Nothing: words end at blanks and operators.
    Plain,
    /// Double quotes.
    Quotes,
    /// `${name:-…}`, up to the brace.
    Brace { quoted: bool },
    /// An expanded here-document.
    Here,
}

impl Inside {
    fn quoted(self) -> bool {
        matches!(self, Self::Quotes | Self::Here | Self::Brace { quoted: true })
    }
}

impl Parser {
    /// The word that begins here; an error when there is none.
    pub(super) fn word(&mut self) -> Read<Word> {
        let start = self.at;
        let mut word = Word::default();
        self.pieces(&mut word, Inside::Plain)?;
        word.written = self.written(start);
        if word.pieces.is_empty() {
            return Err(Bad("a word is missing"));
        }
        Ok(word)
    }

    /// The body of a here-document.
    pub(super) fn expanded(&mut self, body: &str) -> Read<Word> {
        let chars = std::mem::replace(&mut self.chars, body.chars().collect());
        let at = std::mem::take(&mut self.at);
        let mut word = Word::default();
        let read = self.enter(|parser| parser.pieces(&mut word, Inside::Here));
        self.chars = chars;
        self.at = at;
        read.map(|()| word)
    }

    fn pieces(&mut self, word: &mut Word, inside: Inside) -> Read<()> {
        while let Some(c) = self.peek() {
            match (c, inside) {
                (' ' | '\t' | '\n' | ';' | '&' | '|' | '(' | ')', Inside::Plain) => return Ok(()),
                // Also in `${x:-<(…)}`.
                ('<' | '>', Inside::Plain | Inside::Brace { .. }) if self.peek_second() == Some('(') => {
                    self.process(word)?;
                }
                ('<' | '>', Inside::Plain) => return Ok(()),
                ('"', Inside::Quotes) | ('}', Inside::Brace { .. }) => return Ok(()),
                ('\'', Inside::Brace { quoted: true }) => {
                    return Err(Bad("single quotes inside of an expansion in double quotes"));
                }
                ('\'', Inside::Plain | Inside::Brace { quoted: false }) => self.single(word)?,
                ('"', Inside::Plain | Inside::Brace { .. }) => self.double(word)?,
                ('\\', _) => self.escape(word, inside),
                ('$', _) => self.dollar(word, inside)?,
                ('`', _) => self.backticks(word, inside)?,
                ('*' | '?' | '[', Inside::Plain) => self.push(word, Piece::Glob(c)),
                ('{', Inside::Plain) => self.push(word, Piece::Brace),
                ('~', Inside::Plain) if tilde_may_stand(word) => self.tilde(word),
                _ => {
                    self.at += 1;
                    add(word, c, inside.quoted());
                }
            }
        }
        match inside {
            Inside::Plain | Inside::Here => Ok(()),
            Inside::Quotes => Err(Bad("a double quote is not closed")),
            Inside::Brace { .. } => Err(Bad("a `${` is not closed")),
        }
    }

    fn push(&mut self, word: &mut Word, piece: Piece) {
        self.at += 1;
        word.pieces.push(piece);
    }

    fn single(&mut self, word: &mut Word) -> Read<()> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let c = self.raw(0).ok_or(Bad("a single quote is not closed"))?;
            self.at += 1;
            if c == '\'' {
                break;
            }
            text.push(c);
        }
        word.pieces.push(Piece::Text { text, quoted: true });
        Ok(())
    }

    fn double(&mut self, word: &mut Word) -> Read<()> {
        self.at += 1;
        word.pieces.push(Piece::Text { text: String::new(), quoted: true });
        self.enter(|parser| parser.pieces(word, Inside::Quotes))?;
        self.at += 1;
        Ok(())
    }

    fn escape(&mut self, word: &mut Word, inside: Inside) {
        self.at += 1;
        let next = self.raw(0);
        let special = match inside {
            Inside::Plain | Inside::Brace { quoted: false } => true,
            Inside::Quotes => next.is_some_and(|c| "$`\"\\".contains(c)),
            Inside::Brace { quoted: true } => next.is_some_and(|c| "$`\"\\}".contains(c)),
            Inside::Here => next.is_some_and(|c| "$`\\".contains(c)),
        };
        match next {
            Some(c) if special => {
                self.at += 1;
                add(word, c, true);
            }
            // A backslash that escapes nothing is one.
            _ => add(word, '\\', true),
        }
    }

    fn tilde(&mut self, word: &mut Word) {
        self.at += 1;
        let mut user = String::new();
        while let Some(c) = self.peek() {
            if "/ \t\n;&|()<>".contains(c) {
                break;
            }
            user.push(c);
            self.at += 1;
            if "'\"\\$`*?[{".contains(c) {
                // Whatever it is, it is nobody's name.
                self.at -= 1;
                break;
            }
        }
        word.pieces.push(Piece::Tilde(user));
    }

    fn dollar(&mut self, word: &mut Word, inside: Inside) -> Read<()> {
        self.at += 1;
        let one = inside.quoted();
        match self.peek() {
            Some('(') if self.peek_second() == Some('(') => {
                self.arithmetic()?;
                word.pieces.push(Piece::Unknown { one: true });
            }
            Some('(') => {
                self.at += 1;
                let list = self.apart(Self::list)?;
                self.blanks();
                if !self.eat(')') {
                    return Err(Bad("a `$(` is not closed"));
                }
                word.runs.push(Rc::new(list));
                word.pieces.push(Piece::Unknown { one });
            }
            Some('{') => {
                self.at += 1;
                let all = self.parameter(word, inside)?;
                word.pieces.push(Piece::Unknown { one: one && !all });
            }
            Some('[') => return Err(Bad("`$[` is arithmetic to some shells")),
            Some('\'') if !inside.quoted() => {
                let mut ignored = Word::default();
                self.single(&mut ignored)?;
                if ignored.pieces.iter().any(|p| matches!(p, Piece::Text { text, .. } if text.contains('\\')))
                {
                    return Err(Bad("escapes in `$'…'` are read differently by shells"));
                }
                word.pieces.push(Piece::Unknown { one: true });
            }
            Some('"') if !inside.quoted() => {
                self.double(word)?;
                word.pieces.push(Piece::Unknown { one: true });
            }
            Some('@' | '*') => self.push(word, Piece::Unknown { one: false }),
            // Numbers.
            Some('#' | '?' | '$' | '!') => self.push(word, Piece::Unknown { one: true }),
            Some('-') => self.push(word, Piece::Unknown { one }),
            Some(c) if c.is_ascii_digit() => self.push(word, Piece::Unknown { one }),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                    self.at += 1;
                }
                word.pieces.push(Piece::Unknown { one });
            }
            // zsh expands these as well.
            Some('=' | '~' | '^' | '+' | ':') => word.pieces.push(Piece::Unknown { one: false }),
            _ => {
                add(word, '$', inside.quoted());
                return Ok(());
            }
        }
        match self.peek() {
            // What stands in brackets is arithmetic, which can run commands.
            Some('[') if !matches!(inside, Inside::Here) => Err(Bad("a subscript to some shells")),
            _ => Ok(()),
        }
    }

    /// `$((…))`, numbers only: bash runs what a variable's value says in a subscript.
    fn arithmetic(&mut self) -> Read<()> {
        self.at += 2;
        let mut open = 2usize;
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                '(' => open += 1,
                ')' => open -= 1,
                c if c.is_ascii_digit() || " \t+-*/%<>=!&|^~?:,".contains(c) => {}
                _ => return Err(Bad("arithmetic with names, which can run commands")),
            }
            if open == 0 {
                return Ok(());
            }
        }
        Err(Bad("a `$((` is not closed"))
    }

    /// After `${`. True: it may be any number of words even in quotes.
    fn parameter(&mut self, word: &mut Word, inside: Inside) -> Read<bool> {
        if self.peek() == Some('!') {
            return Err(Bad("an indirect expansion"));
        }
        if self.peek() == Some('#') && self.peek_second() != Some('}') {
            self.at += 1;
        }
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
            self.at += 1;
        }
        let mut all = false;
        if name.is_empty() {
            let special = self.peek().filter(|c| "@*#?-$".contains(*c));
            all = matches!(special, Some('@' | '*'));
            self.at += 1;
            if special.is_none() {
                return Err(Bad("an expansion without a name"));
            }
        }
        if self.eat('[') {
            while let Some(c) = self.peek().filter(|c| c.is_ascii_digit() || "@*".contains(*c)) {
                all |= !c.is_ascii_digit();
                self.at += 1;
            }
            if !self.eat(']') {
                return Err(Bad("a subscript that is no number"));
            }
        }
        let colon = self.eat(':');
        match self.peek() {
            Some('}') if !colon => {
                self.at += 1;
                return Ok(all);
            }
            Some('=') if is_name(&name) => word.sets.push(name),
            Some('-' | '=' | '?' | '+') => {}
            Some('#' | '%' | '/' | '^' | ',') if !colon => {}
            Some(c) if colon && (c.is_ascii_digit() || c == ' ') => {
                while self.peek().is_some_and(|c| c.is_ascii_digit() || " :-".contains(c)) {
                    self.at += 1;
                }
                if !self.eat('}') {
                    return Err(Bad("arithmetic in an expansion"));
                }
                return Ok(all);
            }
            _ => return Err(Bad("an expansion of a kind that is not known")),
        }
        self.at += 1;
        let mut rest = Word::default();
        self.enter(|parser| parser.pieces(&mut rest, Inside::Brace { quoted: inside.quoted() }))?;
        self.at += 1;
        word.runs.append(&mut rest.runs);
        word.sets.append(&mut rest.sets);
        let many = rest.pieces.contains(&Piece::Unknown { one: false });
        Ok(all || many)
    }

    /// `<(…)` and `>(…)`.
    fn process(&mut self, word: &mut Word) -> Read<()> {
        self.at += 2;
        let list = self.apart(Self::list)?;
        self.blanks();
        if !self.eat(')') {
            return Err(Bad("a process substitution is not closed"));
        }
        word.runs.push(Rc::new(list));
        word.pieces.push(Piece::Unknown { one: true });
        Ok(())
    }

    /// `` `…` ``: a text of its own, after one level of backslashes.
    fn backticks(&mut self, word: &mut Word, inside: Inside) -> Read<()> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let c = self.raw(0).ok_or(Bad("a backtick is not closed"))?;
            self.at += 1;
            match c {
                '`' => break,
                '\\' => match self.raw(0) {
                    Some(next) if "$`\\".contains(next) || (next == '"' && inside == Inside::Quotes) => {
                        self.at += 1;
                        text.push(next);
                    }
                    Some('"') if inside.quoted() => {
                        return Err(Bad("an escaped quote in backticks, which shells read differently"));
                    }
                    _ => text.push('\\'),
                },
                c => text.push(c),
            }
        }
        let (list, inner) = self.enter(|parser| parse(&text, parser.depth))?;
        self.bodies.extend(inner.bodies);
        word.runs.push(Rc::new(list));
        word.pieces.push(Piece::Unknown { one: inside.quoted() });
        Ok(())
    }
}

/// At the beginning of a word, and where bash has it as well: behind the `=` and `:` of what looks like an assignment.
fn tilde_may_stand(word: &Word) -> bool {
    match word.pieces.last() {
        None => true,
        Some(Piece::Text { text, quoted: false }) => text.ends_with(['=', ':']),
        Some(_) => false,
    }
}

fn add(word: &mut Word, c: char, quoted: bool) {
    match word.pieces.last_mut() {
        Some(Piece::Text { text, quoted: same }) if *same == quoted => text.push(c),
        _ => word.pieces.push(Piece::Text { text: c.to_string(), quoted }),
    }
}
