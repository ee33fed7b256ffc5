//! The book of requests.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use policy::UnixTime;
use tokio::sync::{oneshot, watch};

use super::{
    Approved, Directory, Outcome, Record, Request, State, Ticket, Vote, Voter, approvers::may_answer,
};
use crate::{
    identity::Clock,
    state::{Lazy, StateError, Store, Write},
};

/// Requests that may wait at once, over all jobs and for one job.
const MAX_WAITING: usize = 1000;
const MAX_WAITING_PER_JOB: usize = 32;
/// Finished ones kept at hand for `list --all` and `show`.
const MAX_FINISHED: usize = 500;
/// Longest reason kept, in bytes.
const MAX_REASON: usize = 1024;

/// Requests, waiting and finished. Cheap to clone.
#[derive(Clone)]
pub struct Approvals {
    shared: Arc<Shared>,
}

/// Called after every change of a record, outside of locks: for audit and metrics. Must not block.
pub type OnChange = Box<dyn Fn(&Record) + Send + Sync>;

pub(super) struct Shared {
    book: Mutex<Book>,
    lazy: Lazy,
    clock: Arc<dyn Clock>,
    directory: Arc<dyn Directory>,
    default_approvers: Vec<String>,
    changed: watch::Sender<u64>,
    on_change: OnChange,
}

#[derive(Default)]
struct Book {
    waiting: HashMap<Arc<str>, Waiting>,
    /// Oldest first.
    finished: VecDeque<Record>,
}

struct Waiting {
    record: Record,
    hash: blake3::Hash,
    answer: oneshot::Sender<Outcome>,
}

/// Why a request could not be made. The action is denied then.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("too many approvals are waiting{}", if *.0 { " for this job" } else { "" })]
    TooMany(bool),
    #[error("nobody may approve this: the rule and approvals.approvers name no one")]
    Nobody,
    #[error("{0}")]
    State(#[from] StateError),
    #[error("no randomness for an approval id")]
    Random,
}

/// Why an answer was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecideError {
    #[error("there is no approval `{0}`")]
    Unknown(String),
    #[error("`{0}` fits several approvals; write more of the id")]
    Ambiguous(String),
    #[error("approval {id} is no longer waiting: it is {state}")]
    Finished { id: Arc<str>, state: &'static str },
    #[error("nobody approves their own: {0}")]
    Own(&'static str),
    #[error("uid {uid} is not one of the approvers ({approvers})")]
    NotApprover { uid: u32, approvers: String },
    #[error("uid {0} has answered already; the quorum counts distinct people")]
    Twice(u32),
}

impl Approvals {
    /// Loads history; whatever a dead daemon left waiting becomes expired.
    pub fn open(
        store: &dyn Store,
        lazy: Lazy,
        clock: Arc<dyn Clock>,
        directory: Arc<dyn Directory>,
        default_approvers: Vec<String>,
        on_change: OnChange,
    ) -> Result<Self, StateError> {
        store.expire_approvals(clock.now())?;
        let mut finished: VecDeque<Record> = store.approvals(MAX_FINISHED as u32)?.into();
        finished.make_contiguous().reverse();
        let book = Mutex::new(Book { waiting: HashMap::new(), finished });
        let (changed, _) = watch::channel(0);
        Ok(Self {
            shared: Arc::new(Shared { book, lazy, clock, directory, default_approvers, changed, on_change }),
        })
    }

    /// Asks. Does not block; the answer comes through the ticket.
    pub fn request(&self, request: Request) -> Result<Ticket, AskError> {
        let shared = &self.shared;
        let approvers = match request.terms.approvers.is_empty() {
            true => shared.default_approvers.clone(),
            false => request.terms.approvers.clone(),
        };
        if approvers.is_empty() {
            return Err(AskError::Nobody);
        }
        let quorum = request.terms.quorum.max(1);
        let wait = request.terms.expires_after;
        let now = shared.clock.now();
        let expires = UnixTime(now.0.saturating_add(wait.as_secs().max(1)));
        let hash = request.binding.hash();
        let id = new_id()?;
        let record = Record {
            id: id.clone(),
            state: State::Waiting,
            params: request.binding.params_for_display(),
            statement: request.binding.statement,
            session: request.session,
            subject: request.subject,
            job: request.binding.job,
            cgroup: request.cgroup,
            job_uid: request.job_uid,
            process: request.process,
            resource: request.binding.resource,
            rules: request.rules,
            because: request.because,
            policy_version: request.binding.policy_version,
            hash: hash.to_hex().to_string(),
            quorum,
            approvers: approvers.clone(),
            requested: now,
            expires,
            votes: Vec::new(),
            decided: None,
        };
        let (answer, receiver) = oneshot::channel();
        {
            let mut book = shared.book();
            if book.waiting.len() >= MAX_WAITING {
                return Err(AskError::TooMany(false));
            }
            if book.waiting.values().filter(|w| w.record.job == record.job).count() >= MAX_WAITING_PER_JOB {
                return Err(AskError::TooMany(true));
            }
            shared.lazy.write(Write::Approval(Box::new(record.clone())))?;
            book.waiting.insert(id.clone(), Waiting { record: record.clone(), hash, answer });
        }
        shared.announce(&record);
        Ok(Ticket { shared: shared.clone(), id, approvers, quorum, expires, wait, answer: Some(receiver) })
    }

    /// Takes one person's answer. One no ends it; `quorum` distinct yeses approve it.
    ///
    /// `id` may be shortened to any unambiguous beginning of at least four characters.
    pub fn decide(
        &self,
        id: &str,
        voter: &Voter,
        approve: bool,
        reason: &str,
    ) -> Result<Record, DecideError> {
        let shared = &self.shared;
        let id = self.full_id(id)?;
        let now = shared.clock.now();
        // The directory may be slow: ask it before the lock is taken.
        let (job_uid, process_uid, approvers) = match self.get(&id) {
            Some(r) if r.state == State::Waiting => (r.job_uid, r.process.uid, r.approvers),
            Some(r) => return Err(DecideError::Finished { id: r.id, state: r.state.word() }),
            None => return Err(DecideError::Unknown(id.to_string())),
        };
        if voter.inside_job.is_some() {
            return Err(DecideError::Own("the answer came from a process inside a job"));
        }
        if voter.uid == job_uid || voter.uid == process_uid {
            return Err(DecideError::Own("the job runs as the same user"));
        }
        if !may_answer(&*shared.directory, &approvers, voter.uid) {
            return Err(DecideError::NotApprover { uid: voter.uid, approvers: approvers.join(", ") });
        }
        let user = shared.directory.user_name(voter.uid).unwrap_or_else(|| format!("uid {}", voter.uid));
        let vote = Vote { uid: voter.uid, user, approve, reason: shorten(reason), at: now };
        let record = {
            let mut book = shared.book();
            let Some(waiting) = book.waiting.get_mut(&id) else {
                let state =
                    book.finished.iter().rev().find(|r| r.id == id).map_or("gone", |r| r.state.word());
                return Err(DecideError::Finished { id, state });
            };
            if waiting.record.expires <= now {
                let record = shared.finish(&mut book, &id, State::Expired, |_| Outcome::Expired);
                drop(book);
                if let Some(record) = record {
                    shared.announce(&record);
                }
                return Err(DecideError::Finished { id, state: State::Expired.word() });
            }
            if waiting.record.votes.iter().any(|v| v.uid == voter.uid) {
                return Err(DecideError::Twice(voter.uid));
            }
            waiting.record.votes.push(vote.clone());
            let yes = waiting.record.votes.iter().filter(|v| v.approve).count();
            let finished = if !approve {
                shared.finish(&mut book, &id, State::Denied, |_| Outcome::Denied {
                    by: vote.user.clone(),
                    reason: vote.reason.clone(),
                })
            } else if yes >= waiting.record.quorum as usize {
                shared.finish(&mut book, &id, State::Approved, |w| {
                    Outcome::Approved(Approved {
                        shared: shared.clone(),
                        id: w.record.id.clone(),
                        hash: w.hash,
                        rules: w.record.rules.clone(),
                        policy_version: w.record.policy_version.clone(),
                        expires: w.record.expires,
                        by: w.record.votes.iter().map(|v| v.user.clone()).collect(),
                    })
                })
            } else {
                let record = waiting.record.clone();
                shared.save(&record);
                Some(record)
            };
            finished.ok_or_else(|| DecideError::Unknown(id.to_string()))?
        };
        shared.announce(&record);
        Ok(record)
    }

    /// Ends every waiting request that another policy made: it would be stale at redemption anyway.
    pub fn policy_changed(&self, version: &str) {
        self.end_where(
            |r| &*r.policy_version != version,
            "the policy changed while this waited; run it again",
        );
    }

    /// Ends every waiting request of a job.
    pub fn job_ended(&self, cgroup_id: u64) {
        self.end_where(|r| r.job == cgroup_id, "the job ended");
    }

    /// Waiting ones, oldest first; with `all` also finished ones.
    pub fn list(&self, all: bool) -> Vec<Record> {
        let now = self.shared.clock.now();
        let book = self.shared.book();
        let mut records: Vec<Record> =
            book.waiting.values().map(|w| w.record.clone()).filter(|r| all || r.expires > now).collect();
        if all {
            records.extend(book.finished.iter().cloned());
        }
        records.sort_by(|a, b| (a.requested, &a.id).cmp(&(b.requested, &b.id)));
        records
    }

    /// By full id.
    pub fn get(&self, id: &str) -> Option<Record> {
        let book = self.shared.book();
        match book.waiting.get(id) {
            Some(w) => Some(w.record.clone()),
            None => book.finished.iter().rev().find(|r| &*r.id == id).cloned(),
        }
    }

    /// The one id that begins like this.
    pub fn full_id(&self, start: &str) -> Result<Arc<str>, DecideError> {
        let book = self.shared.book();
        let mut fitting = book
            .waiting
            .keys()
            .chain(book.finished.iter().map(|r| &r.id))
            .filter(|id| &***id == start || (start.len() >= 4 && id.starts_with(start)));
        match (fitting.next(), fitting.next()) {
            (Some(id), None) => Ok(id.clone()),
            (None, _) => Err(DecideError::Unknown(start.to_owned())),
            (Some(_), Some(_)) => Err(DecideError::Ambiguous(start.to_owned())),
        }
    }

    pub fn waiting(&self) -> usize {
        self.shared.book().waiting.len()
    }

    /// Grows with every change; for those who watch.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    fn end_where(&self, ends: impl Fn(&Record) -> bool, why: &str) {
        let ended: Vec<Record> = {
            let mut book = self.shared.book();
            let ids: Vec<Arc<str>> =
                book.waiting.values().filter(|w| ends(&w.record)).map(|w| w.record.id.clone()).collect();
            ids.iter()
                .filter_map(|id| {
                    self.shared.finish(&mut book, id, State::Withdrawn, |_| Outcome::Denied {
                        by: "gateway".into(),
                        reason: why.to_owned(),
                    })
                })
                .collect()
        };
        for record in &ended {
            self.shared.announce(record);
        }
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Every change of the book is complete before anything can panic.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seconds_until(&self, t: UnixTime) -> Duration {
        Duration::from_secs(t.0.saturating_sub(self.clock.now().0))
    }

    /// `false`: it was not waiting any more.
    pub(super) fn expire(&self, id: &str) -> bool {
        self.end(id, State::Expired)
    }

    pub(super) fn withdraw(&self, id: &str) {
        self.end(id, State::Withdrawn);
    }

    fn end(&self, id: &str, state: State) -> bool {
        let record = self.finish(&mut self.book(), id, state, |_| Outcome::Expired);
        if let Some(record) = &record {
            self.announce(record);
        }
        record.is_some()
    }

    /// The one way from approved to used.
    pub(super) fn mark_used(&self, id: &str) -> bool {
        let used = {
            let mut book = self.book();
            match book.finished.iter_mut().rev().find(|r| &*r.id == id) {
                Some(r) if r.state == State::Approved => {
                    r.state = State::Used;
                    Some(r.clone())
                }
                _ => None,
            }
        };
        if let Some(record) = &used {
            self.save(record);
            self.announce(record);
        }
        used.is_some()
    }

    fn finish(
        &self,
        book: &mut Book,
        id: &str,
        state: State,
        outcome: impl FnOnce(&Waiting) -> Outcome,
    ) -> Option<Record> {
        let mut waiting = book.waiting.remove(id)?;
        waiting.record.state = state;
        waiting.record.decided = Some(self.clock.now());
        let outcome = outcome(&waiting);
        let record = waiting.record;
        if book.finished.len() >= MAX_FINISHED {
            book.finished.pop_front();
        }
        book.finished.push_back(record.clone());
        self.save(&record);
        // The ticket may be gone: then there is nobody to tell.
        let _ = waiting.answer.send(outcome);
        Some(record)
    }

    fn save(&self, record: &Record) {
        if let Err(error) = self.lazy.write(Write::Approval(Box::new(record.clone()))) {
            tracing::error!(%error, id = %record.id, "approval history is behind");
        }
    }

    fn announce(&self, record: &Record) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
        (self.on_change)(record);
    }
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Used => "used",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// 64 random bits: ids cannot be guessed ahead, and are short enough to type.
fn new_id() -> Result<Arc<str>, AskError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| AskError::Random)?;
    Ok(hex::encode(bytes).into())
}

fn shorten(reason: &str) -> String {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
