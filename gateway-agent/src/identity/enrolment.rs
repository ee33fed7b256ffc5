//! Binding cgroups to identities.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use policy::{Denial, UnixTime};
use serde::{Deserialize, Serialize};

use super::{Cgroups, Clock, EnrolError, Job, Peer, Place, PlaceError, TokenError, Verifier, uids};
use crate::state::{StateError, Store};

/// A nonce is good this long, in seconds.
const NONCE_SECONDS: u64 = 60;
/// Nonces that may be out at once, over all cgroups and for one.
const MAX_NONCES: usize = 4096;
const MAX_NONCES_PER_CGROUP: usize = 4;

/// A cgroup may be enrolled before its first process moves in; after this many seconds empty means over.
const EMPTY_GRACE: u64 = 30;

/// What enrolment needs of the rest of the agent.
pub trait Host: Send + Sync {
    /// Policy's name for verified claims, by the policy in force.
    fn subject(&self, issuer: &str, claims: &serde_json::Value) -> Result<Arc<str>, Denial>;
    /// Confines a cgroup: redirect and default-deny from here on. Idempotent. Sockets that the cgroup opened
    /// before must not survive it.
    fn confine(&self, cgroup_id: u64, dir: &Path) -> Result<(), String>;
    /// The cgroup is gone or empty: the kernel may forget it.
    fn forget(&self, cgroup_id: u64);
    /// The identity ended: its sessions end, its approvals are withdrawn. Called once a job.
    fn ended(&self, job: &Job, why: JobEnd);
}

/// Why an identity ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobEnd {
    /// The cgroup was removed, or nothing runs in it any more.
    CgroupGone,
    TokenExpired,
    Released,
    /// The policy in force names no subject for its claims.
    NoSubject,
}

impl JobEnd {
    /// For people and the audit.
    pub fn words(self) -> &'static str {
        match self {
            Self::CgroupGone => "cgroup gone",
            Self::TokenExpired => "token expired",
            Self::Released => "released",
            Self::NoSubject => "no subject in policy",
        }
    }
}

/// Which cgroup is meant.
#[derive(Debug)]
pub enum Target<'a> {
    /// The caller's own.
    Caller(&'a Peer),
    /// Another one, on its behalf. Whoever passes this has checked that the caller may.
    Directory { dir: &'a Path, user: JobUser },
}

/// The user that the processes of a cgroup enrolled from outside will have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobUser {
    /// The owner of the cgroup's directory.
    #[default]
    Owner,
    Uid(u32),
    /// One of the gateway's range that nobody else has, until the cgroup is gone.
    Own,
}

/// A begun enrolment.
#[derive(Debug, Clone)]
pub struct Begun {
    pub nonce: String,
    /// Issuer and the audience that its token must carry.
    pub audiences: Vec<(String, String)>,
    pub expires_in: Duration,
}

/// All jobs of this boot.
pub struct Enrolments {
    verifier: Verifier,
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    clock: Arc<dyn Clock>,
    cgroups: Cgroups,
    boot: Arc<str>,
    uids: RangeInclusive<u32>,
    nonces: Mutex<HashMap<String, Nonce>>,
    /// Read on every connection, so without a lock.
    jobs: ArcSwap<HashMap<u64, Arc<Job>>>,
    /// Held while jobs change.
    changing: Mutex<()>,
}

struct Nonce {
    cgroup: u64,
    until: UnixTime,
    /// Grows with every nonce.
    number: u64,
}

impl Enrolments {
    /// Loads what this boot knew before a restart and confines it again. Jobs whose cgroup went away meanwhile
    /// end here. `uids`: those that jobs get as their own.
    pub fn open(
        verifier: Verifier,
        store: Arc<dyn Store>,
        host: Arc<dyn Host>,
        clock: Arc<dyn Clock>,
        cgroups: Cgroups,
        boot: Arc<str>,
        uids: RangeInclusive<u32>,
    ) -> Result<Self, EnrolError> {
        store.begin_boot(&boot)?;
        let known: HashMap<u64, Arc<Job>> =
            store.jobs()?.into_iter().map(|j| (j.cgroup_id, Arc::new(j))).collect();
        let this = Self {
            verifier,
            store,
            host,
            clock,
            cgroups,
            boot,
            uids,
            nonces: Mutex::default(),
            jobs: ArcSwap::from_pointee(known),
            changing: Mutex::default(),
        };
        this.sweep();
        for job in this.all() {
            this.host.confine(job.cgroup_id, &job.cgroup).map_err(EnrolError::Kernel)?;
        }
        Ok(this)
    }

    /// Hands out a nonce for one enrolment of one cgroup.
    pub fn begin(&self, target: &Target<'_>) -> Result<Begun, EnrolError> {
        let place = self.place(target)?;
        let now = self.clock.now();
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| EnrolError::State("no randomness".into()))?;
        let nonce = hex::encode(bytes);
        let mut nonces = self.nonces();
        nonces.retain(|_, n| n.until > now);
        while nonces.values().filter(|n| n.cgroup == place.id).count() >= MAX_NONCES_PER_CGROUP {
            let oldest = nonces.iter().filter(|(_, n)| n.cgroup == place.id).min_by_key(|(_, n)| n.number);
            let Some(oldest) = oldest.map(|(k, _)| k.clone()) else { break };
            nonces.remove(&oldest);
        }
        if nonces.len() >= MAX_NONCES {
            return Err(EnrolError::Busy);
        }
        let until = UnixTime(now.0.saturating_add(NONCE_SECONDS));
        let number = nonces.values().map(|n| n.number).max().unwrap_or(0).saturating_add(1);
        nonces.insert(nonce.clone(), Nonce { cgroup: place.id, until, number });
        Ok(Begun {
            audiences: self.verifier.audiences(&nonce),
            nonce,
            expires_in: Duration::from_secs(NONCE_SECONDS),
        })
    }

    /// Binds the target's cgroup to the token's identity.
    ///
    /// A cgroup that is bound already may present a fresh token of the very same identity (issuer, sub and
    /// subject), which moves its expiry; any other is refused.
    pub async fn complete(
        &self,
        target: &Target<'_>,
        token: &str,
        nonce: Option<&str>,
    ) -> Result<Arc<Job>, EnrolError> {
        let place = self.place(target)?;
        if let Some(nonce) = nonce {
            self.spend(nonce, &place)?;
        }
        let now = self.clock.now();
        let claims = self.verifier.verify(token, nonce, now, &*self.store).await?;
        let subject = self
            .host
            .subject(&claims.issuer, &claims.all)
            .map_err(|d| EnrolError::Subject { reason: d.reason, hint: d.hint })?;
        // The keys may have taken seconds to come: the caller has to be where it was.
        let again = self.place(target)?;
        if again.id != place.id {
            return Err(PlaceError::Unreadable(place.dir).into());
        }
        let fresh = Job {
            cgroup_id: place.id,
            cgroup: place.dir.clone(),
            subject,
            issuer: claims.issuer,
            sub: claims.sub,
            claims: claims.all,
            expires: claims.expires,
            enrolled: now,
            ended: None,
            uid: match target {
                Target::Caller(peer) => peer.uid,
                Target::Directory { user: JobUser::Uid(uid), .. } => *uid,
                // An own one is taken when the cgroup is bound.
                Target::Directory { user: JobUser::Owner | JobUser::Own, .. } => place.uid,
            },
            boot: self.boot.clone(),
        };
        let own_user = matches!(target, Target::Directory { user: JobUser::Own, .. });
        let _changing = self.changing();
        match self.related(&place) {
            None => self.bind(fresh, own_user),
            Some(bound) => self.renew(&bound, fresh),
        }
    }

    /// With `changing` held.
    fn bind(&self, mut job: Job, own_user: bool) -> Result<Arc<Job>, EnrolError> {
        // Confined first: a failure after this leaves the cgroup with less than it had, never with more.
        self.host.confine(job.cgroup_id, &job.cgroup).map_err(EnrolError::Kernel)?;
        if own_user {
            job.uid = uids::choose(&self.uids, &*self.store)?;
            self.store.take_uid(job.uid, job.cgroup_id, &self.boot)?;
        }
        let inserted = self.store.insert_job(&job);
        if own_user && !matches!(inserted, Ok(true)) {
            self.store.free_uid(job.cgroup_id)?;
        }
        match inserted {
            Ok(true) => Ok(self.publish(job)),
            Ok(false) => Err(EnrolError::Bound(job.cgroup)),
            Err(e) => Err(e.into()),
        }
    }

    fn renew(&self, bound: &Job, fresh: Job) -> Result<Arc<Job>, EnrolError> {
        let inside = fresh.cgroup.starts_with(&bound.cgroup);
        let same = bound.issuer == fresh.issuer && bound.sub == fresh.sub && bound.subject == fresh.subject;
        let renewable = matches!(bound.ended, None | Some(JobEnd::TokenExpired));
        if !(inside && same && renewable) {
            return Err(EnrolError::Bound(fresh.cgroup));
        }
        let job = Job {
            expires: fresh.expires.max(bound.expires),
            claims: fresh.claims,
            ended: None,
            ..bound.clone()
        };
        self.store.update_job(&job)?;
        Ok(self.publish(job))
    }

    /// The live identity of a cgroup id that the kernel reported for a flow.
    pub fn job(&self, cgroup_id: u64) -> Option<Arc<Job>> {
        let now = self.clock.now();
        self.jobs.load().get(&cgroup_id).filter(|j| j.active(now)).cloned()
    }

    /// Every known job, ended ones too while their cgroup lives.
    pub fn all(&self) -> Vec<Arc<Job>> {
        let mut all: Vec<_> = self.jobs.load().values().cloned().collect();
        all.sort_by_key(|j| (j.enrolled, j.cgroup_id));
        all
    }

    /// The job that a process is inside of, ended or not. Unplaceable processes are an error, so that nobody
    /// passes as an outsider by being hard to find.
    pub fn inside(&self, peer: &Peer) -> Result<Option<Arc<Job>>, PlaceError> {
        Ok(self.above(&self.cgroups.locate(peer)?))
    }

    /// Ends an identity. What still runs in the cgroup stays confined. `false`: there is no such job.
    pub fn release(&self, cgroup_id: u64) -> Result<bool, EnrolError> {
        let _changing = self.changing();
        let Some(job) = self.jobs.load().get(&cgroup_id).cloned() else { return Ok(false) };
        self.end(&job, JobEnd::Released)?;
        Ok(true)
    }

    /// The job that holds this directory or is it.
    pub fn at(&self, dir: &Path) -> Option<Arc<Job>> {
        let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        self.jobs.load().values().find(|j| dir.starts_with(&j.cgroup)).cloned()
    }

    /// Ends what is over: expired tokens, cgroups that went away or ran empty. Call it every second.
    pub fn sweep(&self) {
        let _changing = self.changing();
        let now = self.clock.now();
        for job in self.all() {
            let gone = !self.cgroups.exists(job.cgroup_id, &job.cgroup)
                || (now.0 >= job.enrolled.0.saturating_add(EMPTY_GRACE)
                    && !self.cgroups.populated(&job.cgroup));
            let why = match gone {
                true => JobEnd::CgroupGone,
                false if job.ended.is_none() && now >= job.expires => JobEnd::TokenExpired,
                false => continue,
            };
            if let Err(error) = self.end(&job, why) {
                tracing::error!(%error, job = job.cgroup_id, "a job's end could not be written");
            }
        }
        self.nonces().retain(|_, n| n.until > now);
        if let Err(error) = self.store.forget_tokens(now) {
            tracing::error!(%error, "used tokens could not be forgotten");
        }
    }

    /// Gives every live job the subject that the policy now in force has for it; ends those without one.
    pub fn policy_changed(&self) {
        let _changing = self.changing();
        for job in self.all().into_iter().filter(|j| j.ended.is_none()) {
            let result = match self.host.subject(&job.issuer, &job.claims) {
                Ok(subject) if subject == job.subject => continue,
                Ok(subject) => {
                    let job = Job { subject, ..(*job).clone() };
                    self.store.update_job(&job).map_err(EnrolError::from).map(|()| {
                        self.publish(job);
                    })
                }
                Err(_) => self.end(&job, JobEnd::NoSubject),
            };
            if let Err(error) = result {
                tracing::error!(%error, job = job.cgroup_id, "a job's new subject could not be written");
            }
        }
    }

    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    fn place(&self, target: &Target<'_>) -> Result<Place, PlaceError> {
        let place = match target {
            Target::Caller(peer) => self.cgroups.locate(peer)?,
            Target::Directory { dir, .. } => self.cgroups.place(dir)?,
        };
        self.cgroups.check(&place)?;
        Ok(place)
    }

    fn spend(&self, nonce: &str, place: &Place) -> Result<(), TokenError> {
        let now = self.clock.now();
        // A nonce presented from the wrong cgroup is spent all the same.
        match self.nonces().remove(nonce) {
            Some(n) if n.until > now && n.cgroup == place.id => Ok(()),
            _ => Err(TokenError::Nonce),
        }
    }

    /// The job that a place belongs to.
    fn above(&self, place: &Place) -> Option<Arc<Job>> {
        let jobs = self.jobs.load();
        let found = jobs.get(&place.id).or_else(|| jobs.values().find(|j| place.dir.starts_with(&j.cgroup)));
        found.cloned()
    }

    /// The job that a place is, is inside of, or would be around.
    fn related(&self, place: &Place) -> Option<Arc<Job>> {
        self.above(place)
            .or_else(|| self.jobs.load().values().find(|j| j.cgroup.starts_with(&place.dir)).cloned())
    }

    /// With `changing` held. Identity first, then the kernel's memory.
    fn end(&self, job: &Arc<Job>, why: JobEnd) -> Result<(), EnrolError> {
        let gone = !self.cgroups.exists(job.cgroup_id, &job.cgroup) || !self.cgroups.populated(&job.cgroup);
        let first = job.ended.is_none();
        if gone {
            self.store.remove_job(job.cgroup_id)?;
            self.store.free_uid(job.cgroup_id)?;
            self.change(|jobs| {
                jobs.remove(&job.cgroup_id);
            });
        } else if first || (why == JobEnd::Released && job.ended != Some(why)) {
            let ended = Job { ended: Some(why), ..(**job).clone() };
            self.change(|jobs| {
                jobs.insert(ended.cgroup_id, Arc::new(ended.clone()));
            });
            self.store.update_job(&ended)?;
        }
        if first {
            self.host.ended(job, why);
        }
        if gone {
            self.host.forget(job.cgroup_id);
        }
        Ok(())
    }

    fn publish(&self, job: Job) -> Arc<Job> {
        let job = Arc::new(job);
        self.change(|jobs| {
            jobs.insert(job.cgroup_id, job.clone());
        });
        job
    }

    /// With `changing` held, so that no change is lost between load and store.
    fn change(&self, f: impl FnOnce(&mut HashMap<u64, Arc<Job>>)) {
        let mut jobs = HashMap::clone(&self.jobs.load());
        f(&mut jobs);
        self.jobs.store(Arc::new(jobs));
    }

    fn nonces(&self) -> MutexGuard<'_, HashMap<String, Nonce>> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<StateError> for EnrolError {
    fn from(e: StateError) -> Self {
        Self::State(e.to_string())
    }
}

#[cfg(test)]
#[path = "enrolment_tests.rs"]
mod tests;
