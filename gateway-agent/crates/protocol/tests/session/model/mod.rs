//! A client and a server made of a few dozen lines, on either side of a session, and what must hold whatever they do.
//!
//! Everything is drawn from a string of bytes, so that proptest and the fuzzer play the same game. The server of the model
//! is used twice: behind the session, where it must never see a denied text, and beside it, as one that denies and
//! masks by itself and reads the client's frames directly. What the client gets through the session has to be what the second
//! one says, frame by frame; and it has to come as soon as that one lets it go.

mod server;

use std::{collections::HashMap, sync::Arc};

use policy::{Obligations, OutputMask, OutputMasks, Recording};
use protocol::{
    Step,
    postgres::{AskKind, Decision, Event, Refusal, Session},
};

use self::server::{SECRET, Server, frame, next};

/// Texts with this are denied.
const DENIED: &str = "DROP";

/// SQLSTATE of what policy refuses.
const REFUSED: &str = Refusal::DENIED;

/// More than this in a buffer towards somebody who takes everything at once is no bound.
const BOUND: usize = 1 << 20;

/// Makes a decision of what each statement of a text is allowed under.
pub type Decide<'a> = &'a dyn Fn(Vec<Obligations>) -> Arc<Decision>;

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

/// Statements of an odd number are masked; each third is recorded with its rows.
fn masked(sql: &str) -> bool {
    number(sql) % 2 == 1
}

fn recorded(sql: &str) -> bool {
    number(sql).is_multiple_of(3)
}

fn number(sql: &str) -> u32 {
    sql.split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap_or_default()
}

fn obligations(sql: &str) -> Obligations {
    if !sql.starts_with("SELECT") {
        return Obligations::default();
    }
    let mask = OutputMask::new(mask::Transform::Redact);
    Obligations {
        outputs: if masked(sql) { OutputMasks::Columns([Some(mask)].into()) } else { OutputMasks::None },
        record: if recorded(sql) { Recording::Results } else { Recording::Statements },
        ..Obligations::default()
    }
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
        self.of(&["", "a", "b"])
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.below(u8::try_from(all.len()).expect("a short list")))]
    }
}

/// Who keeps to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    Both,
    Server,
    Client,
}

struct Game<'a> {
    draw: Draw<'a>,
    session: Session,
    epoch: u64,
    decide: Decide<'a>,
    server: Server,
    /// What a server would say that denied and masked by itself.
    ideal: Server,
    manners: Manners,
    closed: bool,
    asked: u32,
    /// What the client sent, for whoever has to find out.
    sent: Vec<String>,
    /// From the session to the client, and how much of it was compared.
    got: Vec<u8>,
    frames: Vec<String>,
    /// Runs that began, and how many ends were told of each.
    runs: HashMap<u64, usize>,
}

impl<'a> Game<'a> {
    fn new(entropy: &'a [u8], session: Session, epoch: u64, decide: Decide<'a>) -> Self {
        let mut draw = Draw(entropy);
        let manners =
            draw.of(&[Manners::Both, Manners::Both, Manners::Both, Manners::Server, Manners::Client]);
        Self {
            draw,
            session,
            epoch,
            decide,
            server: Server::behind(),
            ideal: Server::ideal(),
            manners,
            closed: false,
            asked: 0,
            sent: Vec::new(),
            got: Vec::new(),
            frames: Vec::new(),
            runs: HashMap::new(),
        }
    }

    fn turn(&mut self) {
        let mut out = Vec::new();
        match self.draw.below(if self.manners == Manners::Both { 22 } else { 24 }) {
            0 | 1 => {
                let one = self.text();
                query(&one, &mut out);
            }
            2 => query(&format!("{DENIED} TABLE t"), &mut out),
            3 => {
                let last = if self.draw.below(4) == 0 { DENIED.to_owned() } else { self.text() };
                query(&format!("{};{last}", self.text()), &mut out);
            }
            4 => self.copy(&mut out),
            5..=7 => {
                let (name, sql) = (self.draw.name(), self.text());
                parse(name, &sql, &mut out);
            }
            8 => parse(self.draw.name(), &format!("{DENIED} x"), &mut out),
            9..=11 => bind(self.draw.name(), self.draw.name(), &mut out),
            12 => target(b'D', self.draw.of(b"SP"), self.draw.name(), &mut out),
            13 => target(b'C', self.draw.of(b"SP"), self.draw.name(), &mut out),
            14 | 15 => execute(self.draw.name(), self.draw.below(3), &mut out),
            16 | 17 => frame(b'S', &[], &mut out),
            18 => frame(b'H', &[], &mut out),
            19 => {
                self.epoch += 1;
                self.session.set_epoch(self.epoch);
            }
            20 => {
                self.answer();
                self.compare();
            }
            21 if self.manners == Manners::Both => {
                // lo_creat(1).
                frame(b'F', b"\0\0\x03\xbd\0\0\0\x01\0\0\0\x011\0\0", &mut out);
            }
            21 if self.manners == Manners::Server => {
                frame(self.draw.of(b"dcfQPBEDCFX"), b"x\0", &mut out);
            }
            21 => {
                let tag = self.draw.of(b"12CDETZnsGHIKNRA3tVWcdS");
                let mut lie = Vec::new();
                frame(tag, &vec![0; usize::from(self.draw.below(12))], &mut lie);
                self.session.up_in().extend_from_slice(&lie);
                self.server.slandered = true;
            }
            22 if self.manners == Manners::Server => {
                let cut = usize::from(self.draw.below(40)).min(self.draw.0.len());
                let (garbage, rest) = self.draw.0.split_at(cut);
                out.extend_from_slice(garbage);
                self.draw.0 = rest;
            }
            _ => frame(b'S', &[], &mut out),
        }
        if self.manners == Manners::Both {
            self.ideal(&out);
        }
        // In pieces of any size, and the server is at work meanwhile.
        let mut rest = out.as_slice();
        while !rest.is_empty() && !self.closed {
            let cut = (usize::from(self.draw.below(60)) + 1).min(rest.len());
            let (piece, after) = rest.split_at(cut);
            self.session.job_in().extend_from_slice(piece);
            rest = after;
            self.steps();
            if self.draw.below(5) == 4 {
                self.answer();
            }
        }
        self.steps();
    }

    fn ideal(&mut self, out: &[u8]) {
        let mut rest = out.to_vec();
        while let Some((tag, body)) = next(&mut rest) {
            self.sent.push(server::shown(tag, &body));
        }
        self.ideal.read(out);
        self.ideal.work();
    }

    /// COPY … FROM STDIN, and what a client sends then.
    fn copy(&mut self, out: &mut Vec<u8>) {
        self.asked += 1;
        let sql = format!("COPY {} IN", self.asked);
        if self.draw.below(2) == 0 {
            let more = self.draw.of(&["", ";SELECT 2"]);
            query(&format!("{sql}{more}"), out);
        } else {
            parse("", &sql, out);
            bind("", "", out);
            execute("", 0, out);
            if self.draw.below(3) == 0 {
                frame(b'S', &[], out);
            }
        }
        for _ in 0..self.draw.below(3) {
            frame(b'd', b"1\ta\n", out);
            if self.draw.below(4) == 0 {
                frame(b'H', &[], out);
            }
        }
        match self.draw.below(3) {
            0 => frame(b'f', b"no\0", out),
            _ => frame(b'c', &[], out),
        }
        frame(b'S', &[], out);
        // So that nothing else runs it, and leaves the server waiting for data.
        target(b'C', b'S', "", out);
        target(b'C', b'P', "", out);
        frame(b'S', &[], out);
    }

    /// A text of its own, so that its results can be told from others.
    fn text(&mut self) -> String {
        self.asked += 1;
        match self.draw.below(16) {
            0 => "BEGIN".to_owned(),
            1 => "COMMIT".to_owned(),
            2 => "ROLLBACK".to_owned(),
            3 => "FAIL".to_owned(),
            4 => String::new(),
            5 => format!("NOTICE {}", self.asked),
            6 => format!("SET {}", self.asked),
            7 => format!("COPY {} OUT", self.asked),
            8 => "SAVEPOINT".to_owned(),
            9 => "ROLLBACK TO".to_owned(),
            _ => format!("SELECT {}", self.asked),
        }
    }

    /// Lets the server do all it can, and the session with what comes of it.
    fn answer(&mut self) {
        loop {
            self.server.work();
            let replies = self.server.release();
            if replies.is_empty() || self.closed {
                return;
            }
            let mut rest = replies.as_slice();
            while !rest.is_empty() {
                let cut = (usize::from(self.draw.below(200)) + 1).min(rest.len());
                let (piece, after) = rest.split_at(cut);
                self.session.up_in().extend_from_slice(piece);
                rest = after;
                self.steps();
            }
        }
    }

    fn steps(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "the session never rests");
            let step = self.session.step();
            self.drain();
            match step {
                Step::Ask => self.decided(),
                Step::Need | Step::Cancel => return,
                Step::Close(reason) => {
                    assert_ne!(self.manners, Manners::Both, "closed: {reason}");
                    self.closed = true;
                    return;
                }
                Step::Login | Step::StartTls(_) => panic!("logged in already"),
            }
        }
    }

    fn decided(&mut self) {
        let question = self.session.pending().expect("an Ask without a question");
        let sql = question.sql.to_owned();
        let may_wait = matches!(question.kind, AskKind::Parse | AskKind::Bind);
        if sql.contains(DENIED) {
            self.session.deny(&Refusal::policy("model", "no", None));
        } else if may_wait && sql.ends_with('7') {
            self.session.defer();
        } else {
            let each = sql.split(';').filter(|one| !one.is_empty()).map(obligations).collect();
            let mut decision = Arc::into_inner((self.decide)(each)).expect("a decision of its own");
            decision.epoch = self.epoch;
            self.session.allow(Arc::new(decision));
        }
    }

    fn drain(&mut self) {
        let mut events = self.session.events();
        while let Some(event) = events.next() {
            match event {
                Event::Started { run, sql, .. } => {
                    assert!(!sql.contains(DENIED), "a denied text runs");
                    assert!(self.runs.insert(run, 0).is_none(), "run {run} began twice");
                }
                Event::Finished { run, .. } => {
                    *self.runs.get_mut(&run).unwrap_or_else(|| panic!("run {run} never began")) += 1;
                }
                Event::Row { row, .. } => {
                    let told = row.cells().flatten().any(|cell| cell.starts_with(SECRET));
                    assert!(!told || self.manners == Manners::Client, "a masked value is recorded");
                }
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
        self.server.read(up.bytes());
        let taken = up.bytes().len();
        up.advance(taken);
        let job = self.session.job_out();
        self.got.extend_from_slice(job.bytes());
        let taken = job.bytes().len();
        job.advance(taken);
        while let Some((tag, body)) = next(&mut self.got) {
            let told = tag == b'D' && body.windows(SECRET.len()).any(|part| part == SECRET);
            // A server that lies about where rows belong tells what it likes.
            assert!(!told || self.manners == Manners::Client, "a masked value reaches the client");
            self.frames.push(server::shown(tag, &body));
        }
    }

    /// With everything answered, the client has what an ideal server would have sent by now.
    fn compare(&mut self) {
        if self.manners != Manners::Both || self.closed {
            return;
        }
        let (sent, all) = self.ideal.shown();
        let same = self.frames.iter().zip(&all).take_while(|(one, other)| one == other).count();
        assert!(
            same == self.frames.len() && same >= sent,
            "after {same} frames of {sent} that are due:\n   got {:?}\n  want {:?}\n  sent {:#?}",
            self.frames.get(same.saturating_sub(4)..).unwrap_or_default(),
            all.get(same.saturating_sub(4)..).unwrap_or_default(),
            self.sent,
        );
    }

    fn finish(&mut self) {
        if self.manners != Manners::Both {
            return;
        }
        self.answer();
        self.compare();
        // Whatever was left open is closed, and everything answered.
        let mut out = Vec::new();
        frame(b'S', &[], &mut out);
        self.ideal(&out);
        self.session.job_in().extend_from_slice(&out);
        self.steps();
        self.answer();
        self.compare();
        let left = self.session.pending();
        assert!(self.session.idle(), "{left:?} is left to do: got {:?}\n sent {:#?}", self.frames, self.sent);
        for (run, ends) in &self.runs {
            assert!(*ends > 0, "run {run} never ended");
        }
    }
}

fn query(sql: &str, out: &mut Vec<u8>) {
    frame(b'Q', &[sql.as_bytes(), b"\0"].concat(), out);
}

fn parse(name: &str, sql: &str, out: &mut Vec<u8>) {
    frame(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat(), out);
}

fn bind(portal: &str, statement: &str, out: &mut Vec<u8>) {
    frame(b'B', &[portal.as_bytes(), b"\0", statement.as_bytes(), b"\0\0\0\0\0\0\0"].concat(), out);
}

fn target(tag: u8, kind: u8, name: &str, out: &mut Vec<u8>) {
    frame(tag, &[&[kind], name.as_bytes(), b"\0"].concat(), out);
}

fn execute(portal: &str, most: u8, out: &mut Vec<u8>) {
    frame(b'E', &[portal.as_bytes(), &[0, 0, 0, 0, most]].concat(), out);
}
