//! Prepared statements and portals, as the server has them.
//!
//! A name is changed when the message that changes it is sent on, since what follows in the same pipeline
//! relies on it. When the server then refuses that message, the change is undone.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::events::Counts;
use crate::postgres::{
    Decision,
    mask::{Formats, untouched},
    reply::Expect,
};

/// Longest name: the server cuts longer ones, so that two of them may be one to it.
pub(crate) const NAME_MAX: usize = 63;

/// A prepared statement.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pub(crate) id: u64,
    pub(crate) text: Arc<Text>,
    /// What allowed it and the Ask of that; `None` when it was deferred.
    pub(crate) decision: Option<(u64, Arc<Decision>)>,
    /// Between which Syncs it was parsed.
    pub(crate) part: u64,
}

impl Statement {
    /// What is sent in this part and uses the name means this statement, or is not looked at: where its Parse fails, the
    /// server skips the rest of that part. Beyond, it has to be known: the name may still stand for an older one.
    pub(crate) fn certain(&self, part: u64) -> bool {
        self.part == part || self.text.confirmed.load(Ordering::Relaxed)
    }
}

/// What does not change when a statement is decided again.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) sql: Box<str>,
    /// The middle of its Parse message: parameter types that the client named.
    pub(crate) types: Box<[u8]>,
    /// Body of the last RowDescription that a Describe of it got.
    pub(crate) columns: Mutex<Option<Arc<[u8]>>>,
    pub(crate) described: Described,
    /// The server has it.
    pub(crate) confirmed: AtomicBool,
}

/// A bound statement.
#[derive(Debug)]
pub(crate) struct Portal {
    pub(crate) id: u64,
    pub(crate) statement: Statement,
    pub(crate) formats: Formats,
    /// The middle of the Bind message; empty when too long.
    pub(crate) params: Vec<u8>,
    pub(crate) complete: bool,
    /// Between which Syncs it was bound.
    pub(crate) part: u64,
    pub(crate) state: Mutex<PortalState>,
}

impl Portal {
    /// Its rows may have to be looked at. Where it is not decided yet, they may.
    pub(crate) fn looked_at(&self) -> bool {
        self.statement.decision.as_ref().is_none_or(|(_, decision)| {
            decision.statements.iter().any(|allowed| !untouched(&allowed.allow.obligations))
        })
    }
}

#[derive(Debug, Default)]
pub(crate) struct PortalState {
    /// What allowed this portal in particular.
    pub(crate) decision: Option<(u64, Arc<Decision>)>,
    /// Body of the RowDescription that a Describe of it got.
    pub(crate) columns: Option<Arc<[u8]>>,
    pub(crate) described: Described,
    /// Of runs that were suspended.
    pub(crate) used: Counts,
    /// The job may go on with it where it was suspended.
    pub(crate) begun: bool,
    /// The server has it: as of a statement.
    pub(crate) confirmed: bool,
}

/// How a Describe came out: 0 = none was sent, or else the part between two Syncs in which the last one was.
#[derive(Debug, Default)]
pub(crate) struct Described(AtomicU64);

impl Described {
    const KNOWN: u64 = u64::MAX;

    /// One was sent.
    pub(crate) fn asked(&self, part: u64) {
        if self.0.load(Ordering::Relaxed) != Self::KNOWN {
            self.0.store(part, Ordering::Relaxed);
        }
    }

    /// The server answered.
    pub(crate) fn known(&self) {
        self.0.store(Self::KNOWN, Ordering::Relaxed);
    }

    /// What is executed in this part comes after an answer: should the Describe fail, the server skips the rest of its part.
    pub(crate) fn holds(&self, part: u64) -> bool {
        let asked = self.0.load(Ordering::Relaxed);
        asked == Self::KNOWN || asked == part
    }
}

/// No code panics while it holds one of these; what it guards is whole at any time.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A change of a name that the server has not confirmed.
#[derive(Debug)]
pub(crate) enum Change {
    Statement(Version<Statement>),
    Portal(Version<Arc<Portal>>),
}

/// `new` took the place of `old`. Id 0 is nothing.
#[derive(Debug)]
pub(crate) struct Version<T> {
    name: Box<[u8]>,
    new: u64,
    old: Option<T>,
}

pub(crate) trait Identified {
    fn id(&self) -> u64;
}

impl Identified for Statement {
    fn id(&self) -> u64 {
        self.id
    }
}

impl Identified for Arc<Portal> {
    fn id(&self) -> u64 {
        self.id
    }
}

/// Names of one kind; the unnamed one apart.
#[derive(Debug)]
pub(crate) struct Table<T> {
    unnamed: Option<T>,
    named: HashMap<Box<[u8]>, T>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { unnamed: None, named: HashMap::new() }
    }
}

impl<T: Identified> Table<T> {
    pub(crate) fn get(&self, name: &[u8]) -> Option<&T> {
        if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name) }
    }

    fn id(&self, name: &[u8]) -> u64 {
        self.get(name).map_or(0, Identified::id)
    }

    pub(crate) fn len(&self) -> usize {
        self.named.len()
    }

    /// Its memory, for what takes its place.
    pub(crate) fn take_unnamed(&mut self) -> Option<T> {
        self.unnamed.take()
    }

    pub(crate) fn set(&mut self, name: &[u8], value: T) -> Version<T> {
        let new = value.id();
        let old =
            if name.is_empty() { self.unnamed.replace(value) } else { self.named.insert(name.into(), value) };
        Version { name: name.into(), new, old }
    }

    /// As `set`, where nothing of it has to be undone.
    pub(crate) fn replace(&mut self, name: &[u8], value: T) {
        if name.is_empty() {
            self.unnamed = Some(value);
        } else if let Some(slot) = self.named.get_mut(name) {
            *slot = value;
        }
    }

    pub(crate) fn remove(&mut self, name: &[u8]) -> Version<T> {
        let old = if name.is_empty() { self.unnamed.take() } else { self.named.remove(name) };
        Version { name: name.into(), new: 0, old }
    }

    fn restore(&mut self, name: &[u8], old: Option<T>) {
        match old {
            Some(old) if name.is_empty() => self.unnamed = Some(old),
            Some(old) => {
                self.named.insert(name.into(), old);
            }
            None if name.is_empty() => self.unnamed = None,
            None => {
                self.named.remove(name);
            }
        }
    }
}

/// Both kinds.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) statements: Table<Statement>,
    pub(crate) portals: Table<Arc<Portal>>,
    last: u64,
}

impl Names {
    /// A number that no statement or portal of this session had before.
    pub(crate) fn id(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(crate) fn len(&self) -> usize {
        self.statements.len() + self.portals.len()
    }

    /// The transaction is over, and its portals with it. (The unnamed one stays for its memory; the server no
    /// longer knows it.)
    pub(crate) fn end_portals(&mut self) {
        if !self.portals.named.is_empty() {
            self.portals.named.clear();
        }
    }

    /// The server made a change.
    pub(crate) fn confirm(&self, change: &Change) {
        match change {
            Change::Statement(Version { name, new, .. }) => {
                if let Some(statement) = self.statements.get(name).filter(|statement| statement.id == *new) {
                    statement.text.confirmed.store(true, Ordering::Relaxed);
                }
            }
            Change::Portal(Version { name, new, .. }) => {
                if let Some(portal) = self.portals.get(name).filter(|portal| portal.id == *new) {
                    lock(&portal.state).confirmed = true;
                }
            }
        }
    }

    /// Takes a change back that the server did not make, because it refused it or skipped it. `later` are changes sent after it that may still work; they
    /// then have something else to go back to.
    pub(crate) fn undo(&mut self, change: Change, later: &mut VecDeque<Expect>) {
        match change {
            Change::Statement(Version { name, new, old }) => {
                if self.statements.id(&name) == new {
                    return self.statements.restore(&name, old);
                }
                let next = later.iter_mut().find_map(|expect| match expect {
                    Expect::Named(_, Change::Statement(version)) if version.follows(&name, new) => {
                        Some(version)
                    }
                    _ => None,
                });
                if let Some(next) = next {
                    next.old = old;
                }
            }
            Change::Portal(Version { name, new, old }) => {
                if self.portals.id(&name) == new {
                    return self.portals.restore(&name, old);
                }
                let next = later.iter_mut().find_map(|expect| match expect {
                    Expect::Named(_, Change::Portal(version)) if version.follows(&name, new) => Some(version),
                    _ => None,
                });
                if let Some(next) = next {
                    next.old = old;
                }
            }
        }
    }
}

impl Change {
    /// The server refused it. An unnamed statement that was to be replaced is gone all the same; one behind the failure,
    /// which the server skips, is not.
    pub(crate) fn refused(&mut self) {
        if let Self::Statement(version) = self
            && version.name.is_empty()
        {
            version.old = None;
        }
    }
}

impl<T: Identified> Version<T> {
    fn follows(&self, name: &[u8], id: u64) -> bool {
        *self.name == *name && self.old.as_ref().map_or(0, Identified::id) == id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(names: &mut Names, sql: &str) -> Statement {
        let text = Text {
            sql: sql.into(),
            types: Box::default(),
            columns: Mutex::default(),
            described: Described::default(),
            confirmed: AtomicBool::new(false),
        };
        Statement { id: names.id(), text: Arc::new(text), decision: None, part: 1 }
    }

    fn sql<'a>(names: &'a Names, name: &[u8]) -> Option<&'a str> {
        names.statements.get(name).map(|statement| &*statement.text.sql)
    }

    #[test]
    fn a_failed_parse_leaves_what_was() {
        let mut names = Names::default();
        let (a, b) = (statement(&mut names, "a"), statement(&mut names, "b"));
        names.statements.set(b"s", a);
        let change = names.statements.set(b"s", b);
        assert_eq!(sql(&names, b"s"), Some("b"));
        names.undo(Change::Statement(change), &mut VecDeque::new());
        assert_eq!(sql(&names, b"s"), Some("a"));
    }

    #[test]
    fn a_failed_close_leaves_what_was() {
        let mut names = Names::default();
        let a = statement(&mut names, "a");
        names.statements.set(b"s", a);
        let change = names.statements.remove(b"s");
        assert_eq!(sql(&names, b"s"), None);
        names.undo(Change::Statement(change), &mut VecDeque::new());
        assert_eq!(sql(&names, b"s"), Some("a"));
    }

    #[test]
    fn a_later_change_goes_back_to_what_was_before_the_failed_one() {
        let mut names = Names::default();
        let (a, b, c) = (statement(&mut names, "a"), statement(&mut names, "b"), statement(&mut names, "c"));
        names.statements.set(b"s", a);
        let failed = names.statements.set(b"s", b);
        let later = names.statements.set(b"s", c);
        let mut queue = VecDeque::from([Expect::Sync, Expect::Named(b'1', Change::Statement(later))]);
        names.undo(Change::Statement(failed), &mut queue);
        assert_eq!(sql(&names, b"s"), Some("c"));
        let Some(Expect::Named(_, later)) = queue.pop_back() else { panic!("gone") };
        names.undo(later, &mut queue);
        assert_eq!(sql(&names, b"s"), Some("a"));
    }

    #[test]
    fn the_unnamed_statement_does_not_come_back_unless_its_end_was_skipped() {
        for (refused, left) in [(true, None), (false, Some("a"))] {
            let mut names = Names::default();
            let (a, b) = (statement(&mut names, "a"), statement(&mut names, "b"));
            names.statements.set(b"", a);
            let mut change = Change::Statement(names.statements.set(b"", b));
            if refused {
                change.refused();
            }
            names.undo(change, &mut VecDeque::new());
            assert_eq!(sql(&names, b""), left);
        }
    }

    #[test]
    fn a_describe_holds_where_it_cannot_have_failed() {
        let described = Described::default();
        assert!(!described.holds(1));
        described.asked(1);
        assert!(described.holds(1) && !described.holds(2));
        described.known();
        described.asked(3);
        assert!(described.holds(4));
    }
}
