//! A server and a client made of a few dozen lines, on either side of a session, and what must hold whatever they do.
//!
//! Everything is drawn from a string of bytes, so that proptest and the fuzzer play the same game. The server is strict: a
//! frame that it cannot read is a defect of the session. With a well-behaved server, the client must see every result
//! that the server made, once and in order, as many `ReadyForQuery` as it asked for, and the true transaction status.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use protocol::{
    Step,
    postgres::{AskKind, Decision, Event, Refusal, Session},
};

/// What the driver says about a text.
pub enum Answer {
    Allow(Arc<Decision>),
    Deny,
    Defer,
}

/// Texts with this are denied.
pub const DENIED: &str = "DROP";

/// More than this in a buffer towards somebody who takes everything at once is no bound.
const BOUND: usize = 1 << 20;

/// Gives the answer to a text, and is told whether it may be deferred.
pub type Decide<'a> = &'a dyn Fn(&str, bool) -> Answer;

/// Plays one game on a session that has logged in under an epoch.
///
/// # Panics
/// When something does not hold.
pub fn play(entropy: &[u8], session: Session, epoch: u64, decide: Decide<'_>) {
    let mut game = Game::new(entropy, session, epoch, decide);
    while !game.draw.0.is_empty() && !game.closed {
        game.turn();
    }
    game.finish();
}

struct Draw<'a>(&'a [u8]);

impl Draw<'_> {
    fn below(&mut self, bound: u8) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                first % bound
            }
            None => 0,
        }
    }

    fn name(&mut self) -> &'static str {
        ["", "a", "b"][usize::from(self.below(3))]
    }
}

struct Game<'a> {
    draw: Draw<'a>,
    session: Session,
    epoch: u64,
    decide: Decide<'a>,
    server: Server,
    client: Client,
    /// Neither side sent what the other may not expect.
    honest: bool,
    closed: bool,
    asked: u32,
}

impl<'a> Game<'a> {
    fn new(entropy: &'a [u8], session: Session, epoch: u64, decide: Decide<'a>) -> Self {
        let mut draw = Draw(entropy);
        let honest = draw.below(4) != 0;
        let server = Server { status: b'I', ..Server::default() };
        let client = Client { status: b'I', ..Client::default() };
        Self { draw, session, epoch, decide, server, client, honest, closed: false, asked: 0 }
    }

    fn turn(&mut self) {
        let mut out = Vec::new();
        match self.draw.below(if self.honest { 14 } else { 18 }) {
            0 => {
                let one = self.text();
                self.client.query(one, &mut out);
            }
            1 => self.client.query(format!("{DENIED} TABLE t"), &mut out),
            2 => {
                let both = format!("{};{}", self.text(), self.text());
                self.client.query(both, &mut out);
            }
            3 => {
                let status = ["BEGIN", "ROLLBACK", "FAIL", ""][usize::from(self.draw.below(4))];
                self.client.query(status.to_owned(), &mut out);
            }
            4 => {
                let (name, sql) = (self.draw.name(), self.text());
                frame(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat(), &mut out);
            }
            5 => {
                let name = self.draw.name();
                frame(b'P', &[name.as_bytes(), b"\0", DENIED.as_bytes(), b" x\0\0\0"].concat(), &mut out);
            }
            6 => {
                let (portal, statement) = (self.draw.name(), self.draw.name());
                frame(
                    b'B',
                    &[portal.as_bytes(), b"\0", statement.as_bytes(), b"\0\0\0\0\0\0\0"].concat(),
                    &mut out,
                );
            }
            7 => {
                let kind = [b'S', b'P'][usize::from(self.draw.below(2))];
                let tag = [b'D', b'C'][usize::from(self.draw.below(2))];
                frame(tag, &[&[kind], self.draw.name().as_bytes(), b"\0"].concat(), &mut out);
            }
            8 | 9 => {
                let (name, most) = (self.draw.name(), self.draw.below(3));
                frame(b'E', &[name.as_bytes(), &[0, 0, 0, 0, most]].concat(), &mut out);
            }
            10 | 11 => {
                frame(b'S', &[], &mut out);
                self.client.owed += 1;
            }
            12 => frame(b'H', &[], &mut out),
            13 => self.answer(),
            14 => frame(b"dcfQPX"[usize::from(self.draw.below(6))], b"x\0", &mut out),
            15 => {
                let cut = usize::from(self.draw.below(40)).min(self.draw.0.len());
                let (garbage, rest) = self.draw.0.split_at(cut);
                out.extend_from_slice(garbage);
                self.draw.0 = rest;
            }
            16 => {
                let tag = b"12CDETZnsGHIKNRA3"[usize::from(self.draw.below(17))];
                let mut lie = Vec::new();
                frame(tag, &vec![0; usize::from(self.draw.below(12))], &mut lie);
                self.session.up_in().extend_from_slice(&lie);
            }
            _ => {
                self.epoch += 1;
                self.session.set_epoch(self.epoch);
            }
        }
        match out.first() {
            Some(b'P' | b'B' | b'D' | b'C' | b'E') => self.client.open = true,
            Some(b'S') => self.client.open = false,
            _ => {}
        }
        // In pieces of any size.
        let mut rest = out.as_slice();
        while !rest.is_empty() {
            let cut = (usize::from(self.draw.below(30)) + 1).min(rest.len());
            let (piece, after) = rest.split_at(cut);
            self.session.job_in().extend_from_slice(piece);
            rest = after;
            self.steps();
        }
        self.steps();
    }

    /// A text of its own, so that its results can be told from others.
    fn text(&mut self) -> String {
        self.asked += 1;
        format!("SELECT {}", self.asked)
    }

    /// Lets the server work, and the session with what comes of it.
    fn answer(&mut self) {
        let replies = self.server.work();
        let mut rest = replies.as_slice();
        while !rest.is_empty() {
            let cut = (usize::from(self.draw.below(60)) + 1).min(rest.len());
            let (piece, after) = rest.split_at(cut);
            self.session.up_in().extend_from_slice(piece);
            rest = after;
            self.steps();
        }
    }

    fn steps(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "the session never rests");
            let step = self.session.step();
            self.drain();
            match step {
                Step::Ask => {
                    let question = self.session.pending().expect("an Ask without a question");
                    let may_wait = matches!(question.kind, AskKind::Parse | AskKind::Bind);
                    match (self.decide)(question.sql, may_wait) {
                        Answer::Allow(decision) => {
                            let mut decision = Arc::into_inner(decision).expect("a decision of its own");
                            decision.epoch = self.epoch;
                            self.session.allow(Arc::new(decision));
                        }
                        Answer::Deny => self.session.deny(&Refusal::policy("model", "no", None)),
                        Answer::Defer => self.session.defer(),
                    }
                }
                Step::Need | Step::Cancel => return,
                Step::Close(reason) => {
                    assert!(!self.honest, "closed: {reason}");
                    self.closed = true;
                    return;
                }
                Step::Login | Step::StartTls(_) => panic!("logged in already"),
            }
        }
    }

    fn drain(&mut self) {
        let mut events = self.session.events();
        while let Some(event) = events.next() {
            match event {
                Event::Started { .. } => self.client.started += 1,
                Event::Finished { index: 0, .. } => self.client.finished += 1,
                Event::Row { row, .. } => drop(row.cells().count()),
                _ => {}
            }
        }
        drop(events);
        if self.session.take_cancel() {
            self.session.cancel_done();
        }
        for buffered in [self.session.job_out().len(), self.session.up_out().len()] {
            assert!(buffered < BOUND, "{buffered} bytes wait for somebody who takes everything");
        }
        let up = self.session.up_out();
        self.server.inbox.extend(up.bytes());
        let taken = up.bytes().len();
        up.advance(taken);
        let job = self.session.job_out();
        self.client.inbox.extend_from_slice(job.bytes());
        let taken = job.bytes().len();
        job.advance(taken);
        self.server.read();
        self.client.read();
    }

    fn finish(&mut self) {
        if !self.honest || self.closed {
            return;
        }
        // Whatever was left open is closed, and everything answered.
        let mut out = Vec::new();
        frame(b'S', &[], &mut out);
        self.client.owed += 1;
        self.session.job_in().extend_from_slice(&out);
        self.steps();
        for _ in 0..100 {
            self.answer();
        }
        assert_eq!(self.client.ready, self.client.owed, "as many ReadyForQuery as were asked for");
        assert_eq!(self.client.tags, self.server.tags, "every result, once and in order");
        assert_eq!(self.client.status, self.server.status, "the true transaction status");
        assert_eq!(self.client.rows, self.server.rows, "every row");
    }
}

/// What the client sent, and what it has seen.
#[derive(Default)]
struct Client {
    inbox: Vec<u8>,
    /// Messages of the extended protocol since the last Sync.
    open: bool,
    /// ReadyForQuery that it is owed, and that it got.
    owed: usize,
    ready: usize,
    status: u8,
    tags: Vec<String>,
    rows: usize,
    started: usize,
    finished: usize,
}

impl Client {
    fn query(&mut self, sql: String, out: &mut Vec<u8>) {
        // After an error everything up to Sync is discarded, queries too.
        if std::mem::take(&mut self.open) {
            frame(b'S', &[], out);
            self.owed += 1;
        }
        frame(b'Q', &[sql.as_bytes(), b"\0"].concat(), out);
        self.owed += 1;
    }

    fn read(&mut self) {
        while let Some((tag, body)) = next(&mut self.inbox) {
            match tag {
                b'Z' => {
                    self.ready += 1;
                    self.status = body[0];
                }
                b'C' => self.tags.push(text(&body)),
                b'D' => self.rows += 1,
                _ => {}
            }
        }
        assert!(self.finished <= self.started, "what ends has begun");
    }
}

/// As much of a server as the frames need.
#[derive(Default)]
struct Server {
    inbox: VecDeque<u8>,
    frames: VecDeque<(u8, Vec<u8>)>,
    status: u8,
    /// After an error, until Sync.
    skips: bool,
    statements: HashMap<String, String>,
    portals: HashMap<String, String>,
    tags: Vec<String>,
    rows: usize,
}

impl Server {
    fn read(&mut self) {
        let mut bytes: Vec<u8> = self.inbox.drain(..).collect();
        while let Some((tag, body)) = next(&mut bytes) {
            assert!(b"QPBDECSHdcfX".contains(&tag), "frame {:?} went upstream", char::from(tag));
            let has = |text: &str| body.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(!has(DENIED), "a denied text went upstream");
            self.frames.push_back((tag, body));
        }
        self.inbox.extend(bytes);
    }

    /// Answers everything that came.
    fn work(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some((tag, body)) = self.frames.pop_front() {
            let mut strings = body.split(|byte| *byte == 0);
            let mut string = || String::from_utf8_lossy(strings.next().unwrap_or_default()).into_owned();
            match tag {
                b'Q' => {
                    let sql = string();
                    self.skips = false;
                    self.query(&sql, &mut out);
                    frame(b'Z', &[self.status], &mut out);
                }
                b'S' => {
                    self.skips = false;
                    frame(b'Z', &[self.status], &mut out);
                }
                _ if self.skips => {}
                b'P' => {
                    let (name, sql) = (string(), string());
                    if !name.is_empty() && self.statements.contains_key(&name) {
                        self.fail("42P05", &mut out);
                    } else {
                        self.statements.insert(name, sql);
                        frame(b'1', &[], &mut out);
                    }
                }
                b'B' => {
                    let (portal, statement) = (string(), string());
                    match self.statements.get(&statement) {
                        Some(sql) if portal.is_empty() || !self.portals.contains_key(&portal) => {
                            self.portals.insert(portal, sql.clone());
                            frame(b'2', &[], &mut out);
                        }
                        _ => self.fail("26000", &mut out),
                    }
                }
                b'D' => {
                    let name = String::from_utf8_lossy(&body[1..body.len() - 1]).into_owned();
                    match (body[0], self.statements.contains_key(&name), self.portals.contains_key(&name)) {
                        (b'S', true, _) => {
                            frame(b't', &[0, 0], &mut out);
                            describe(&mut out);
                        }
                        (b'P', _, true) => describe(&mut out),
                        _ => self.fail("34000", &mut out),
                    }
                }
                b'C' => {
                    let name = String::from_utf8_lossy(&body[1..body.len() - 1]).into_owned();
                    match body[0] {
                        b'S' => drop(self.statements.remove(&name)),
                        _ => drop(self.portals.remove(&name)),
                    }
                    frame(b'3', &[], &mut out);
                }
                b'E' => match self.portals.get(&string()).cloned() {
                    Some(sql) => self.statement(&sql, false, &mut out),
                    None => self.fail("34000", &mut out),
                },
                _ => {}
            }
        }
        out
    }

    fn query(&mut self, sql: &str, out: &mut Vec<u8>) {
        if sql.is_empty() {
            frame(b'I', &[], out);
        }
        for one in sql.split(';').filter(|one| !one.is_empty()) {
            self.statement(one, true, out);
            if self.skips {
                self.skips = false;
                break;
            }
        }
    }

    fn statement(&mut self, sql: &str, described: bool, out: &mut Vec<u8>) {
        match sql {
            "ROLLBACK" => self.status = b'I',
            _ if self.status == b'E' => return self.fail("25P02", out),
            "BEGIN" => self.status = b'T',
            "FAIL" => return self.fail("22012", out),
            _ => {
                if described {
                    describe(out);
                }
                frame(b'D', &[0, 1, 0, 0, 0, 1, b'x'], out);
                self.rows += 1;
            }
        }
        self.tags.push(sql.to_owned());
        frame(b'C', &[sql.as_bytes(), b"\0"].concat(), out);
    }

    fn fail(&mut self, code: &str, out: &mut Vec<u8>) {
        frame(b'E', &[b"SERROR\0VERROR\0C", code.as_bytes(), b"\0Mfailed\0\0"].concat(), out);
        self.skips = true;
        if self.status == b'T' {
            self.status = b'E';
        }
    }
}

/// A RowDescription of one column of text.
fn describe(out: &mut Vec<u8>) {
    frame(b'T', b"\0\x01x\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0", out);
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(body)).into_owned()
}

fn frame(tag: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&u32::try_from(body.len() + 4).expect("a short body").to_be_bytes());
    out.extend_from_slice(body);
}

/// Takes the first whole frame.
fn next(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let head = bytes.first_chunk::<5>()?;
    let end =
        1 + usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).expect("a length");
    assert!((5..BOUND).contains(&end), "a frame of {end} bytes");
    (bytes.len() >= end).then(|| {
        let rest = bytes.split_off(end);
        let whole = std::mem::replace(bytes, rest);
        (whole[0], whole[5..].to_vec())
    })
}
