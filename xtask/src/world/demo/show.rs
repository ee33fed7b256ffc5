//! What a spectator sees: narration, commands, what they say, and what that proves.

use std::io::{IsTerminal, Write};

use anyhow::{Result, bail};

/// Who types a command.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who {
    /// The job: confined, nobody in particular.
    Job,
    /// Whoever operates the host.
    Operator,
}

/// Writes to standard output and remembers all of it.
#[derive(Debug)]
pub(super) struct Show {
    colour: bool,
    step: usize,
    said: String,
}

impl Show {
    pub(super) fn new() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: std::io::stdout().is_terminal() && !plain, step: 0, said: String::new() }
    }

    /// Everything shown so far.
    pub(super) fn said(&self) -> &str {
        &self.said
    }

    /// A heading that does not count, with its explanation.
    pub(super) fn chapter(&mut self, title: &str, why: &str) -> Result<()> {
        self.line("")?;
        self.styled("1;36", title)?;
        self.line(why)
    }

    /// Begins a step: what is shown, and a line of explanation.
    pub(super) fn step(&mut self, title: &str, why: &str) -> Result<()> {
        self.step += 1;
        let title = format!("{}. {title}", self.step);
        self.chapter(&title, why)
    }

    /// A command as it was typed.
    pub(super) fn command(&mut self, who: Who, command: &str) -> Result<()> {
        let prompt = match who {
            Who::Job => "job$",
            Who::Operator => "operator#",
        };
        self.styled("1", &format!("  {prompt} {command}"))
    }

    /// What it said.
    pub(super) fn output(&mut self, text: &str) -> Result<()> {
        for line in text.trim_end().lines() {
            self.line(format!("    {line}").trim_end())?;
        }
        Ok(())
    }

    /// A claim, and whether it holds. The demo ends when it does not.
    pub(super) fn check(&mut self, claim: &str, holds: bool) -> Result<()> {
        if !holds {
            self.styled("1;31", &format!("  ✗ {claim}"))?;
            bail!("this did not hold: {claim}");
        }
        self.styled("32", &format!("  ✓ {claim}"))
    }

    pub(super) fn line(&mut self, text: &str) -> Result<()> {
        self.said.push_str(text);
        self.said.push('\n');
        Ok(writeln!(std::io::stdout(), "{text}")?)
    }

    fn styled(&mut self, style: &str, text: &str) -> Result<()> {
        if !self.colour {
            return self.line(text);
        }
        self.said.push_str(text);
        self.said.push('\n');
        Ok(writeln!(std::io::stdout(), "\x1b[{style}m{text}\x1b[0m")?)
    }
}
