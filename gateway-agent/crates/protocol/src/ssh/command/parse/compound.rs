//! `if`, `case`, `for` and `select`.

use super::{Bad, Parser, Read, is_name};
use crate::ssh::command::syntax::Command;

impl Parser {
    pub(super) fn choice_if(&mut self) -> Read<Command> {
        let mut lists = Vec::new();
        self.take("if");
        loop {
            lists.push(self.list()?);
            self.word_here("then")?;
            lists.push(self.list()?);
            match self.reserved().as_deref() {
                Some("elif") => self.take("elif"),
                Some("else") => {
                    self.take("else");
                    lists.push(self.list()?);
                    break;
                }
                _ => break,
            }
        }
        self.word_here("fi")?;
        Ok(Command::Choice(lists, Vec::new(), self.redirects()?))
    }

    pub(super) fn choice_case(&mut self) -> Read<Command> {
        self.take("case");
        self.blanks();
        let mut words = vec![self.word()?];
        let mut lists = Vec::new();
        self.lines()?;
        self.word_here("in")?;
        loop {
            self.lines()?;
            if self.reserved().as_deref() == Some("esac") {
                break;
            }
            self.eat('(');
            loop {
                self.blanks();
                words.push(self.word()?);
                self.blanks();
                if !self.eat('|') {
                    break;
                }
            }
            self.close(')', "a pattern of `case` without `)`")?;
            lists.push(self.list()?);
            self.lines()?;
            if self.peek() == Some(';') && self.peek_second() == Some(';') {
                self.eat(';');
                self.eat(';');
                self.eat('&');
            } else if self.reserved().as_deref() != Some("esac") {
                return Err(Bad("a `case` without `esac`"));
            }
        }
        self.take("esac");
        Ok(Command::Choice(lists, words, self.redirects()?))
    }

    pub(super) fn loop_for(&mut self, word: &str) -> Read<Command> {
        self.take(word);
        self.blanks();
        if self.peek() == Some('(') {
            return Err(Bad("`for ((` is arithmetic"));
        }
        let name = self.word()?;
        let Some(name) = name.bare().filter(|name| is_name(name)).map(str::to_owned) else {
            return Err(Bad("the variable of a loop is not a name"));
        };
        let mut words = Vec::new();
        self.lines()?;
        if self.reserved().as_deref() == Some("in") {
            self.take("in");
            loop {
                self.blanks();
                match self.peek() {
                    None | Some(';' | '\n') => break,
                    Some('&' | '|' | '<' | '>' | '(' | ')') => {
                        return Err(Bad("an operator in the words of a loop"));
                    }
                    Some(_) => words.push(self.word()?),
                }
            }
        }
        self.eat(';');
        self.lines()?;
        if self.reserved().as_deref() == Some("{") {
            return Err(Bad("a `for` without `do`"));
        }
        self.word_here("do")?;
        let body = self.list()?;
        self.word_here("done")?;
        Ok(Command::Loop(vec![body], Some(name), words, self.redirects()?))
    }
}
