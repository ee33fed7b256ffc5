use std::path::PathBuf;

use super::{
    super::testing::{NOW, SigningKey, TestClock, TestHost, claims, identity, plain_cgroup, write_jwks},
    *,
};
use crate::{
    config::{Algorithm, KeySource},
    state::SqliteStore,
};

/// Nobody on the machine of a test runs as one of these.
const UIDS: RangeInclusive<u32> = 1_999_999_001..=1_999_999_003;

struct Bench {
    dir: tempfile::TempDir,
    key: SigningKey,
    host: Arc<TestHost>,
    clock: Arc<TestClock>,
    store: Arc<SqliteStore>,
    enrolments: Enrolments,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::new("k", Algorithm::EdDSA);
        write_jwks(&dir.path().join("jwks"), &[&key]);
        let store = Arc::new(SqliteStore::open(&dir.path().join("state")).unwrap());
        let (host, clock) = (TestHost::new(), TestClock::new());
        let enrolments = open(&dir, &host, &clock, &store, "boot-1");
        Self { dir, key, host, clock, store, enrolments }
    }

    fn restart(&mut self, boot: &str) {
        self.enrolments = open(&self.dir, &self.host, &self.clock, &self.store, boot);
    }

    fn cgroup(&self, name: &str) -> PathBuf {
        plain_cgroup(&self.dir.path().join("tree"), name)
    }

    /// Begins and completes with a good token, changed by `change`.
    async fn enrol_with(
        &self,
        dir: &Path,
        change: impl FnOnce(&mut serde_json::Value),
    ) -> Result<Arc<Job>, EnrolError> {
        self.enrol_as(dir, JobUser::Uid(1000), change).await
    }

    async fn enrol_as(
        &self,
        dir: &Path,
        user: JobUser,
        change: impl FnOnce(&mut serde_json::Value),
    ) -> Result<Arc<Job>, EnrolError> {
        let target = Target::Directory { dir, user };
        let begun = self.enrolments.begin(&target)?;
        let mut claims = claims(&begun.audiences[0].1);
        change(&mut claims);
        self.enrolments.complete(&target, &self.key.sign(&claims), Some(&begun.nonce)).await
    }

    async fn enrol(&self, dir: &Path) -> Result<Arc<Job>, EnrolError> {
        self.enrol_with(dir, |_| ()).await
    }

    fn ended(&self) -> Vec<JobEnd> {
        self.host.ended.lock().unwrap().iter().map(|(_, why)| *why).collect()
    }

    fn confined(&self) -> usize {
        self.host.confined.lock().unwrap().len()
    }
}

fn open(
    dir: &tempfile::TempDir,
    host: &Arc<TestHost>,
    clock: &Arc<TestClock>,
    store: &Arc<SqliteStore>,
    boot: &str,
) -> Enrolments {
    let tree = dir.path().join("tree");
    std::fs::create_dir_all(&tree).unwrap();
    let verifier = Verifier::new(&identity(KeySource::File(dir.path().join("jwks")), true)).unwrap();
    let cgroups = Cgroups::plain(&tree);
    Enrolments::open(verifier, store.clone(), host.clone(), clock.clone(), cgroups, boot.into(), UIDS)
        .unwrap()
}

#[tokio::test]
async fn a_job_is_bound_confined_and_remembered() {
    let mut b = Bench::new();
    let job = b.enrol(&b.cgroup("a")).await.unwrap();
    assert_eq!((&*job.subject, job.uid), ("payments-agent", 1000));
    assert_eq!(b.enrolments.job(job.cgroup_id).as_ref(), Some(&job));
    assert_eq!(*b.host.confined.lock().unwrap(), [job.cgroup_id]);

    b.host.confined.lock().unwrap().clear();
    b.restart("boot-1");
    assert_eq!(b.enrolments.job(job.cgroup_id), Some(job.clone()), "survives a restart");
    assert_eq!(b.confined(), 1, "and is confined again");

    b.restart("boot-2");
    assert_eq!(b.enrolments.all(), [], "cgroup ids do not survive a boot");
}

#[tokio::test]
async fn the_first_bind_wins_for_the_cgroup_and_all_around_it() {
    let b = Bench::new();
    b.enrol(&b.cgroup("a/b")).await.unwrap();
    let other = |c: &mut serde_json::Value| c["sub"] = "someone else".into();
    for taken in ["a/b", "a/b/inside", "a"] {
        let e = b.enrol_with(&b.cgroup(taken), other).await.unwrap_err();
        assert_eq!(e.code(), "already_bound", "{taken}");
    }
    b.enrol_with(&b.cgroup("a/c"), other).await.unwrap();
    b.enrol_with(&b.cgroup("a/bb"), other).await.unwrap();
}

#[tokio::test]
async fn the_same_identity_moves_its_expiry_and_nothing_else() {
    let b = Bench::new();
    let dir = b.cgroup("a");
    let first = b.enrol(&dir).await.unwrap();
    let later = b.enrol_with(&dir, |c| c["exp"] = (NOW + 1200).into()).await.unwrap();
    assert_eq!((later.expires.0, later.enrolled), (NOW + 1200, first.enrolled));
    let around = b.enrol(dir.parent().unwrap()).await.unwrap_err();
    assert_eq!(around.code(), "place", "the attach root is no job");
    b.clock.advance(1300);
    b.enrolments.sweep();
    assert_eq!(b.enrolments.job(first.cgroup_id), None);
    let back = b.enrol_with(&dir, |c| {
        c["iat"] = (NOW + 1300).into();
        c["exp"] = (NOW + 1900).into();
    });
    assert!(back.await.unwrap().active(b.clock.now()), "also after it expired");
}

#[tokio::test]
async fn an_expired_job_is_nobody_but_stays_confined_while_it_runs() {
    let b = Bench::new();
    let dir = b.cgroup("a");
    let job = b.enrol(&dir).await.unwrap();
    b.clock.advance(601);
    assert_eq!(b.enrolments.job(job.cgroup_id), None, "before any sweep");
    b.enrolments.sweep();
    b.enrolments.sweep();
    assert_eq!(b.ended(), [JobEnd::TokenExpired], "told once");
    assert_eq!(b.confined(), 1);
    assert!(b.enrolments.at(&dir).is_some(), "its processes are still known to be a job's");

    std::fs::write(dir.join("cgroup.events"), "populated 0\n").unwrap();
    b.enrolments.sweep();
    assert_eq!((b.confined(), b.ended().len(), b.enrolments.all().len()), (0, 1, 0));
}

#[tokio::test]
async fn a_removed_cgroup_ends_its_job() {
    let b = Bench::new();
    let dir = b.cgroup("a");
    b.enrol(&dir).await.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    b.enrolments.sweep();
    assert_eq!((b.ended(), b.confined()), (vec![JobEnd::CgroupGone], 0));
    assert!(b.store.jobs().unwrap().is_empty());
}

#[tokio::test]
async fn release_ends_the_identity_and_it_cannot_come_back() {
    let b = Bench::new();
    let dir = b.cgroup("a");
    let job = b.enrol(&dir).await.unwrap();
    assert!(b.enrolments.release(job.cgroup_id).unwrap());
    assert_eq!(b.enrolments.job(job.cgroup_id), None);
    assert_eq!((b.ended(), b.confined()), (vec![JobEnd::Released], 1));
    assert_eq!(b.enrol(&dir).await.unwrap_err().code(), "already_bound");
    assert!(!b.enrolments.release(12345).unwrap());
}

#[tokio::test]
async fn a_nonce_is_for_one_cgroup_one_use_and_one_minute() {
    let b = Bench::new();
    let (mine, other) = (b.cgroup("mine"), b.cgroup("other"));
    let target = |dir| Target::Directory { dir, user: JobUser::Owner };
    let begin = |dir: &Path| {
        let begun = b.enrolments.begin(&Target::Directory { dir, user: JobUser::Owner }).unwrap();
        let token = b.key.sign(&claims(&begun.audiences[0].1));
        (begun.nonce, token)
    };
    let code = |r: Result<Arc<Job>, EnrolError>| r.unwrap_err().code();

    let (nonce, token) = begin(&mine);
    assert_eq!(code(b.enrolments.complete(&target(&other), &token, Some(&nonce)).await), "nonce", "stolen");
    assert_eq!(code(b.enrolments.complete(&target(&mine), &token, Some(&nonce)).await), "nonce", "spent");

    let (nonce, token) = begin(&mine);
    b.clock.advance(60);
    assert_eq!(code(b.enrolments.complete(&target(&mine), &token, Some(&nonce)).await), "nonce", "old");
    assert_eq!(code(b.enrolments.complete(&target(&mine), &token, None).await), "nonce", "left out");

    let (first, _) = begin(&mine);
    for _ in 0..MAX_NONCES_PER_CGROUP {
        begin(&mine);
    }
    let (_, token) = begin(&mine);
    assert_eq!(
        code(b.enrolments.complete(&target(&mine), &token, Some(&first)).await),
        "nonce",
        "pushed out"
    );
    assert!(b.enrol(&mine).await.is_ok());
}

#[tokio::test]
async fn no_subject_or_no_kernel_means_no_job() {
    let b = Bench::new();
    let dir = b.cgroup("a");
    *b.host.subject.lock().unwrap() = None;
    assert_eq!(b.enrol(&dir).await.unwrap_err().code(), "no_subject");
    *b.host.subject.lock().unwrap() = Some("s");
    *b.host.fails.lock().unwrap() = true;
    assert_eq!(b.enrol(&dir).await.unwrap_err().code(), "kernel");
    assert_eq!((b.enrolments.all().len(), b.store.jobs().unwrap().len()), (0, 0));
}

#[tokio::test]
async fn a_policy_change_renames_or_ends_jobs() {
    let b = Bench::new();
    let job = b.enrol(&b.cgroup("a")).await.unwrap();
    *b.host.subject.lock().unwrap() = Some("renamed");
    b.enrolments.policy_changed();
    assert_eq!(&*b.enrolments.job(job.cgroup_id).unwrap().subject, "renamed");
    assert_eq!(&*b.store.jobs().unwrap()[0].subject, "renamed");
    *b.host.subject.lock().unwrap() = None;
    b.enrolments.policy_changed();
    assert_eq!(b.enrolments.job(job.cgroup_id), None);
    assert_eq!((b.ended(), b.confined()), (vec![JobEnd::NoSubject], 1));
}

#[test]
fn this_process_is_found_where_the_kernel_says() {
    let Ok(tree) = Cgroups::open(None) else { return };
    let place = tree.locate(&Peer::this_process()).unwrap();
    assert!(place.dir.starts_with(tree.root()));
    assert!(tree.exists(place.id, &place.dir));
    assert!(matches!(tree.check(&place), Err(PlaceError::Own(_) | PlaceError::Outside { .. })));
}

#[tokio::test]
async fn own_users_are_not_shared_and_come_back_last() {
    let mut b = Bench::new();
    let own = async |b: &Bench, name: &str| b.enrol_as(&b.cgroup(name), JobUser::Own, |_| ()).await;
    let first = own(&b, "a").await.unwrap();
    assert_eq!(first.uid, *UIDS.start());
    assert_eq!(own(&b, "b").await.unwrap().uid, UIDS.start() + 1);
    b.restart("boot-1");
    assert_eq!(own(&b, "c").await.unwrap().uid, UIDS.start() + 2, "known after a restart");
    let full = own(&b, "d").await.unwrap_err();
    assert!(full.code() == "no_uid" && full.to_string().contains("1999999001-1999999003"), "{full}");
    assert!(b.enrolments.all().iter().all(|j| !j.cgroup.ends_with("d")));

    std::fs::remove_dir_all(&first.cgroup).unwrap();
    b.enrolments.sweep();
    assert_eq!(own(&b, "e").await.unwrap().uid, first.uid, "the only free one");
    b.restart("boot-2");
    assert_eq!(own(&b, "f").await.unwrap().uid, UIDS.start() + 1, "of those free now, the one used first");
}

#[tokio::test]
async fn a_renewal_keeps_the_user() {
    let b = Bench::new();
    let dir = b.cgroup("a");
    let before = b.enrol_as(&dir, JobUser::Own, |_| ()).await.unwrap();
    let after = b.enrol_as(&dir, JobUser::Own, |_| ()).await.unwrap();
    assert_eq!(before.uid, after.uid);
    assert_eq!(b.store.uids().unwrap().len(), 1);
}
