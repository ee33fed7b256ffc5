//! As much of a server as the frames need: transactions, names, portals, COPY, and what it holds back until it is asked.

use std::collections::{HashMap, VecDeque};

use super::{DENIED, REFUSED, masked, number};

/// How values begin that are to be masked, and what the client gets for them.
pub(super) const SECRET: &[u8] = b"secret";
pub(super) const MASKED: &str = "[redacted]";

#[derive(Default)]
pub(super) struct Server {
    /// Denies and masks by itself, as client and server together see it through a session.
    ideal: bool,
    /// Somebody lied in its name: what comes may not fit what it does.
    pub(super) slandered: bool,
    inbox: Vec<u8>,
    frames: VecDeque<(u8, Vec<u8>)>,
    out: Vec<u8>,
    /// So much of `out` has to leave.
    due: usize,
    /// `T` and `E` in a transaction block.
    status: u8,
    /// After an error, until Sync.
    skips: bool,
    /// Something was executed since the last Sync.
    ran: bool,
    copying: Option<Copying>,
    statements: HashMap<String, String>,
    portals: HashMap<String, Portal>,
}

/// COPY … FROM STDIN, and what of a simple query comes after it.
struct Copying {
    tag: String,
    rest: Option<VecDeque<String>>,
}

struct Portal {
    sql: String,
    rows: u32,
    /// It ended, or its transaction failed.
    over: bool,
    /// It was there when the savepoint was made, and outlives what is rolled back to that.
    kept: bool,
}

impl Server {
    pub(super) fn behind() -> Self {
        Self { status: b'I', ..Self::default() }
    }

    pub(super) fn ideal() -> Self {
        Self { ideal: true, ..Self::behind() }
    }

    pub(super) fn read(&mut self, bytes: &[u8]) {
        self.inbox.extend_from_slice(bytes);
        while let Some((tag, body)) = next(&mut self.inbox) {
            if !self.ideal {
                assert!(b"QPBDECSHdcfFX".contains(&tag), "frame {:?} went upstream", char::from(tag));
                let has = |text: &str| body.windows(text.len()).any(|part| part == text.as_bytes());
                assert!(tag == b'd' || !has(DENIED), "a denied text went upstream");
            }
            self.frames.push_back((tag, body));
        }
    }

    /// What it does not hold back any longer.
    pub(super) fn release(&mut self) -> Vec<u8> {
        let held = self.out.split_off(self.due);
        self.due = 0;
        std::mem::replace(&mut self.out, held)
    }

    /// All that it ever said, and how many frames of that had to leave.
    pub(super) fn shown(&self) -> (usize, Vec<String>) {
        let all = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            std::iter::from_fn(|| next(&mut bytes)).map(|(tag, body)| shown(tag, &body)).collect::<Vec<_>>()
        };
        (all(&self.out[..self.due]).len(), all(&self.out))
    }

    /// Answers everything that came.
    pub(super) fn work(&mut self) {
        while let Some((tag, body)) = self.frames.pop_front() {
            if self.copying.is_some() {
                self.copy(tag);
                continue;
            }
            match tag {
                b'S' => {
                    self.skips = false;
                    self.ready();
                }
                b'd' | b'c' | b'f' => {}
                b'H' => self.due = self.out.len(),
                _ if self.skips => {}
                b'Q' => self.query(&string(&body, 0)),
                b'P' => self.parse(string(&body, 0), string(&body, 1)),
                b'B' => self.bind(string(&body, 0), &string(&body, 1)),
                b'D' => self.describe(body[0], &string(&body[1..], 0)),
                b'C' => {
                    let name = string(&body[1..], 0);
                    match body[0] {
                        b'S' => drop(self.statements.remove(&name)),
                        _ => drop(self.portals.remove(&name)),
                    }
                    self.say(b'3', &[]);
                }
                b'E' => {
                    let name = string(&body, 0);
                    let most = u32::from_be_bytes(body[name.len() + 1..].try_into().expect("a count"));
                    self.execute(&name, most);
                }
                b'F' => {
                    if self.status == b'E' {
                        self.fail("25P02");
                    } else {
                        self.say(b'V', &[0, 0, 0, 1, b'1']);
                    }
                    self.skips = false;
                    self.ready();
                }
                _ => {}
            }
        }
    }

    fn say(&mut self, tag: u8, body: &[u8]) {
        frame(tag, body, &mut self.out);
    }

    fn ready(&mut self) {
        self.ran = false;
        if self.status == b'I' {
            self.portals.clear();
        }
        self.say(b'Z', &[self.status]);
        self.due = self.out.len();
    }

    fn fail(&mut self, code: &str) {
        self.refuse(code);
        if self.status == b'T' {
            self.status = b'E';
        }
        self.portals.values_mut().filter(|portal| !portal.kept).for_each(|portal| portal.over = true);
        if self.status == b'I' {
            self.portals.clear();
        }
    }

    /// An error that the transaction does not notice.
    fn refuse(&mut self, code: &str) {
        self.say(b'E', &[b"SERROR\0VERROR\0C", code.as_bytes(), b"\0Mfailed\0\0"].concat());
        self.skips = true;
        self.due = self.out.len();
    }

    /// As the session does it: what ran since the last Sync is rolled back, and nothing else is changed.
    fn deny(&mut self) {
        if self.ran { self.fail(REFUSED) } else { self.refuse(REFUSED) }
    }

    fn query(&mut self, sql: &str) {
        if self.ideal && sql.contains(DENIED) {
            self.deny();
            self.skips = false;
            return self.ready_again();
        }
        self.statements.remove("");
        self.portals.remove("");
        let all: VecDeque<_> = sql.split(';').filter(|one| !one.is_empty()).map(str::to_owned).collect();
        if all.is_empty() {
            self.say(b'I', &[]);
        }
        self.run_all(all);
    }

    /// The ReadyForQuery of a denied query. Portals of a pipeline that is still open stay.
    fn ready_again(&mut self) {
        if self.ran {
            return self.ready();
        }
        self.say(b'Z', &[self.status]);
        self.due = self.out.len();
    }

    fn run_all(&mut self, mut rest: VecDeque<String>) {
        while let Some(one) = rest.pop_front() {
            if one.starts_with("COPY") && one.ends_with("IN") && self.status != b'E' {
                return self.take_copy(one, Some(rest));
            }
            self.statement(&one, None);
            if self.skips {
                break;
            }
        }
        self.skips = false;
        self.ready();
    }

    fn take_copy(&mut self, tag: String, rest: Option<VecDeque<String>>) {
        self.say(b'G', &[0, 0, 1, 0, 0]);
        self.due = self.out.len();
        self.copying = Some(Copying { tag, rest });
    }

    fn copy(&mut self, tag: u8) {
        let ends = matches!(tag, b'c' | b'f');
        let Some(copying) = self.copying.take_if(|_| ends) else {
            assert!(
                self.slandered || b"dSHX".contains(&tag),
                "{:?} in the middle of COPY data",
                char::from(tag)
            );
            return;
        };
        if tag == b'f' {
            self.fail("57014");
        } else {
            self.say(b'C', &[copying.tag.as_bytes(), b"\0"].concat());
        }
        match copying.rest {
            Some(_) if self.skips => {
                self.skips = false;
                self.ready();
            }
            Some(rest) => self.run_all(rest),
            None => {}
        }
    }

    fn parse(&mut self, name: String, sql: String) {
        if self.ideal && sql.contains(DENIED) {
            // The name that was to be given anew is not what the client may go on with.
            if name.is_empty() {
                self.statements.remove(&name);
            }
            return self.deny();
        }
        if name.is_empty() {
            self.statements.remove(&name);
        }
        if !sql.is_empty() && !sql.bytes().next().is_some_and(|first| first.is_ascii_uppercase()) {
            return self.fail("42601");
        }
        if self.status == b'E' && !ends(&sql) {
            return self.fail("25P02");
        }
        if self.statements.contains_key(&name) {
            return self.fail("42P05");
        }
        self.statements.insert(name, sql);
        self.say(b'1', &[]);
    }

    fn bind(&mut self, portal: String, statement: &str) {
        let Some(sql) = self.statements.get(statement).cloned() else { return self.fail("26000") };
        if self.status == b'E' && !ends(&sql) {
            return self.fail("25P02");
        }
        if !portal.is_empty() && self.portals.contains_key(&portal) {
            return self.fail("42P03");
        }
        let rows = if sql.starts_with("SELECT") { number(&sql) % 4 } else { 0 };
        self.portals.insert(portal, Portal { sql, rows, over: false, kept: false });
        self.say(b'2', &[]);
    }

    fn describe(&mut self, kind: u8, name: &str) {
        let sql = match kind {
            b'S' => self.statements.get(name).cloned(),
            _ => self.portals.get(name).map(|portal| portal.sql.clone()),
        };
        let Some(sql) = sql else { return self.fail(if kind == b'S' { "26000" } else { "34000" }) };
        let rows = sql.starts_with("SELECT");
        if rows && self.status == b'E' {
            return self.fail("25P02");
        }
        if kind == b'S' {
            self.say(b't', &[0, 0]);
        }
        if rows {
            self.say(b'T', COLUMN);
        } else {
            self.say(b'n', &[]);
        }
    }

    fn execute(&mut self, name: &str, most: u32) {
        let Some(portal) = self.portals.get(name) else { return self.fail("34000") };
        let (sql, rows, over) = (portal.sql.clone(), portal.rows, portal.over);
        self.ran = true;
        if sql.is_empty() {
            return self.say(b'I', &[]);
        }
        if self.status == b'E' && !ends(&sql) {
            return self.fail("25P02");
        }
        let select = sql.starts_with("SELECT");
        if over && !select {
            return self.fail("55000");
        }
        if let Some(portal) = self.portals.get_mut(name) {
            portal.over = true;
            portal.rows = rows.saturating_sub(if most == 0 { rows } else { most });
        }
        if sql.starts_with("COPY") && sql.ends_with("IN") {
            return self.take_copy(sql, None);
        }
        self.statement(&sql, select.then_some((rows, most)));
    }

    /// `portal`: the rows that are left and how many are wanted, of a statement that was described.
    fn statement(&mut self, sql: &str, portal: Option<(u32, u32)>) {
        if self.status == b'E' && !ends(sql) {
            return self.fail("25P02");
        }
        match sql.split(' ').next().unwrap_or_default() {
            "BEGIN" => self.status = b'T',
            "SAVEPOINT" | "ROLLBACK" if sql != "ROLLBACK" && self.status == b'I' => {
                return self.fail("25P01");
            }
            "SAVEPOINT" => self.portals.values_mut().for_each(|portal| portal.kept = true),
            "ROLLBACK" if sql == "ROLLBACK TO" => {
                self.status = b'T';
                self.portals.retain(|_, portal| portal.kept);
            }
            "COMMIT" | "ROLLBACK" => {
                self.status = b'I';
                self.portals.clear();
            }
            "FAIL" => return self.fail("22012"),
            "NOTICE" => self.say(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0"),
            "SET" => self.say(b'S', b"application_name\0x\0"),
            "COPY" => {
                self.say(b'H', &[0, 0, 1, 0, 0]);
                self.say(b'd', b"1\tx\n");
                self.say(b'd', b"2\ty\n");
                self.say(b'c', &[]);
            }
            "SELECT" => {
                let (left, most) = portal.unwrap_or((number(sql) % 4, 0));
                if portal.is_none() {
                    self.say(b'T', COLUMN);
                }
                let count = if most == 0 { left } else { left.min(most) };
                for row in 0..count {
                    let value = match (masked(sql), self.ideal) {
                        (true, true) => MASKED.to_owned(),
                        (true, false) => format!("{} {sql}", String::from_utf8_lossy(SECRET)),
                        (false, _) => format!("{sql} {}", left - row),
                    };
                    let length = u32::try_from(value.len()).expect("a short value").to_be_bytes();
                    self.say(b'D', &[&[0, 1], &length[..], value.as_bytes()].concat());
                }
                if most > 0 && count == most {
                    return self.say(b's', &[]);
                }
            }
            _ => return self.fail("42601"),
        }
        self.say(b'C', &[sql.as_bytes(), b"\0"].concat());
    }
}

/// Runs in a transaction that failed, too.
fn ends(sql: &str) -> bool {
    matches!(sql, "COMMIT" | "ROLLBACK" | "ROLLBACK TO" | "")
}

/// A RowDescription of one column of text.
const COLUMN: &[u8] = b"\0\x01x\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0";

fn string(body: &[u8], at: usize) -> String {
    String::from_utf8_lossy(body.split(|byte| *byte == 0).nth(at).unwrap_or_default()).into_owned()
}

/// A frame for comparing: of errors, only whether they are a refusal.
pub(super) fn shown(tag: u8, body: &[u8]) -> String {
    let tag = char::from(tag);
    match tag {
        'E' => {
            let refused =
                body.split(|byte| *byte == 0).any(|field| field == format!("C{REFUSED}").as_bytes());
            format!("E {}", if refused { "refused" } else { "failed" })
        }
        'T' | 't' | 'G' | 'H' => tag.to_string(),
        _ => format!("{tag} {}", String::from_utf8_lossy(body).escape_debug()),
    }
}

pub(super) fn frame(tag: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&u32::try_from(body.len() + 4).expect("a short body").to_be_bytes());
    out.extend_from_slice(body);
}

/// Takes the first whole frame.
pub(super) fn next(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let head = bytes.first_chunk::<5>()?;
    let end =
        1 + usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).expect("a length");
    assert!(end >= 5, "a frame of impossible length");
    (bytes.len() >= end).then(|| {
        let rest = bytes.split_off(end);
        let whole = std::mem::replace(bytes, rest);
        (whole[0], whole[5..].to_vec())
    })
}
