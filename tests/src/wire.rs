//! PostgreSQL's protocol by hand, for clients that keep every byte they are sent.
//!
//! The program `wire-client` runs [`Exchange`]s inside a job and prints one [`Outcome`] a line.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// How statements are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Query messages.
    Simple,
    /// Parse, Describe, Bind, Execute, Sync; results in text.
    Extended,
    /// The same; results in binary.
    Binary,
    /// All statements before one Sync, binary, and nobody asks what the results are.
    Pipeline,
}

/// Statements that one session runs in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exchange {
    pub mode: Mode,
    /// `\fn OID ARG…` sends a FunctionCall.
    pub steps: Vec<String>,
    /// What to send whenever the server takes COPY data.
    pub copy: Vec<u8>,
}

/// What came of one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// SQLSTATE and message of every error.
    pub errors: Vec<(String, String)>,
    /// Cells of rows, and COPY data.
    pub cells: Vec<Option<Vec<u8>>>,
    pub copied: Vec<Vec<u8>>,
    pub rows: usize,
    /// The session did not survive.
    pub ended: bool,
    /// Every byte that arrived, from the first to the last.
    pub received: Vec<u8>,
}

/// One session.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    /// Logs in without TLS.
    ///
    /// # Errors
    /// When the server refuses, or is silent for 20 s.
    pub fn connect(host: &str, port: u16, database: &str) -> Result<Self> {
        let stream = TcpStream::connect((host, port)).context("connecting")?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        let mut wire = Self { stream, buffer: Vec::new() };
        let mut body = 196_608u32.to_be_bytes().to_vec();
        for text in ["user", "job", "database", database, ""] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        let mut start = length(body.len()).to_vec();
        start.extend(body);
        wire.stream.write_all(&start)?;
        let mut outcome = Outcome::default();
        wire.replies(&mut outcome, None)?;
        ensure!(!outcome.ended && outcome.errors.is_empty(), "no login: {:?}", outcome.errors);
        Ok(wire)
    }

    /// Runs one exchange to its end.
    ///
    /// # Errors
    /// When the server is silent, or says what is no message.
    pub fn run(&mut self, exchange: &Exchange) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut out = Vec::new();
        for step in &exchange.steps {
            match (step.strip_prefix("\\fn "), exchange.mode) {
                (Some(call), _) => function_call(call, &mut out)?,
                (None, Mode::Simple) => message(b'Q', &[step.as_bytes(), b"\0"].concat(), &mut out),
                (None, mode) => extended(step, mode, &mut out),
            }
            if exchange.mode != Mode::Pipeline {
                if exchange.mode != Mode::Simple && !step.starts_with("\\fn ") {
                    message(b'S', &[], &mut out);
                }
                self.send(&mut out)?;
                self.replies(&mut outcome, Some(exchange))?;
            }
            if outcome.ended {
                return Ok(outcome);
            }
        }
        if exchange.mode == Mode::Pipeline {
            message(b'S', &[], &mut out);
            self.send(&mut out)?;
            self.replies(&mut outcome, Some(exchange))?;
        }
        Ok(outcome)
    }

    fn send(&mut self, out: &mut Vec<u8>) -> Result<()> {
        // A session that ended says so when it is read.
        let sent = self.stream.write_all(out);
        out.clear();
        sent.or_else(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => Ok(()),
            _ => Err(error.into()),
        })
    }

    /// Reads until the server is ready.
    fn replies(&mut self, outcome: &mut Outcome, exchange: Option<&Exchange>) -> Result<()> {
        loop {
            let Some((tag, body)) = self.message(outcome)? else {
                outcome.ended = true;
                return Ok(());
            };
            match tag {
                b'Z' => return Ok(()),
                b'D' => {
                    outcome.rows += 1;
                    cells(&body, &mut outcome.cells).context("a row")?;
                }
                b'V' => {
                    let mut row = vec![0, 1];
                    row.extend(&body);
                    cells(&row, &mut outcome.cells).context("a function's result")?;
                }
                b'E' => outcome.errors.push(error(&body)),
                b'd' => outcome.copied.push(body),
                b'G' => {
                    let exchange = exchange.context("COPY, and nobody asked for it")?;
                    let mut out = Vec::new();
                    message(b'd', &exchange.copy, &mut out);
                    message(b'c', &[], &mut out);
                    if exchange.mode != Mode::Simple {
                        // The Sync that was sent already is ignored while the server copies.
                        message(b'S', &[], &mut out);
                    }
                    self.send(&mut out)?;
                }
                _ => {}
            }
        }
    }

    fn message(&mut self, outcome: &mut Outcome) -> Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
                let end = usize::try_from(length)?.checked_add(1).context("a length")?;
                ensure!((5..1 << 26).contains(&end), "a message of {end} bytes");
                if self.buffer.len() >= end {
                    let rest = self.buffer.split_off(end);
                    let whole = std::mem::replace(&mut self.buffer, rest);
                    return Ok(Some((whole[0], whole[5..].to_vec())));
                }
            }
            let mut piece = [0; 16384];
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(count) => {
                    let piece = piece.get(..count).context("a count")?;
                    self.buffer.extend_from_slice(piece);
                    outcome.received.extend_from_slice(piece);
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => bail!("reading: {error}"),
            }
        }
    }
}

fn length(body: usize) -> [u8; 4] {
    u32::try_from(body + 4).unwrap_or(u32::MAX).to_be_bytes()
}

fn message(tag: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend(length(body.len()));
    out.extend_from_slice(body);
}

fn extended(sql: &str, mode: Mode, out: &mut Vec<u8>) {
    message(b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"].concat(), out);
    let format: &[u8] = if mode == Mode::Extended { &[0, 1, 0, 0] } else { &[0, 1, 0, 1] };
    message(b'B', &[b"\0\0\0\0\0\0", format].concat(), out);
    if mode != Mode::Pipeline {
        message(b'D', b"P\0", out);
    }
    message(b'E', b"\0\0\0\0\0", out);
}

/// `OID ARG…`, everything in text.
fn function_call(call: &str, out: &mut Vec<u8>) -> Result<()> {
    let mut words = call.split(' ');
    let oid: u32 = words.next().context("an oid")?.parse()?;
    let args: Vec<&str> = words.collect();
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 0]);
    body.extend(u16::try_from(args.len())?.to_be_bytes());
    for arg in args {
        body.extend(u32::try_from(arg.len())?.to_be_bytes());
        body.extend(arg.as_bytes());
    }
    body.extend([0, 0]);
    message(b'F', &body, out);
    Ok(())
}

fn cells(body: &[u8], out: &mut Vec<Option<Vec<u8>>>) -> Option<()> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        rest = after;
        match usize::try_from(length) {
            Ok(length) => {
                let (cell, after) = rest.split_at_checked(length)?;
                out.push(Some(cell.to_vec()));
                rest = after;
            }
            Err(_) => out.push(None),
        }
    }
    rest.is_empty().then_some(())
}

fn error(body: &[u8]) -> (String, String) {
    let field = |letter: u8| {
        let mut fields = body.split(|byte| *byte == 0).filter_map(<[u8]>::split_first);
        let text = fields.find(|(found, _)| **found == letter).map_or(&b""[..], |(_, text)| text);
        String::from_utf8_lossy(text).into_owned()
    };
    (field(b'C'), field(b'M'))
}
