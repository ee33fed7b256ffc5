use std::collections::HashMap;

use policy::ApprovalTerms;

use super::{super::*, *};
use crate::{
    identity::testing::{NOW, TestClock},
    state::SqliteStore,
};

/// Users by number: 1 alice and 2 bob are dba, 3 carol is not.
struct People(HashMap<u32, &'static str>);

impl Directory for People {
    fn user_name(&self, uid: u32) -> Option<String> {
        self.0.get(&uid).map(|n| (*n).to_owned())
    }

    fn uid(&self, user: &str) -> Option<u32> {
        self.0.iter().find(|(_, n)| **n == user).map(|(u, _)| *u)
    }

    fn in_group(&self, uid: u32, group: &str) -> bool {
        group == "dba" && (1..=2).contains(&uid)
    }
}

struct Bench {
    store: Arc<SqliteStore>,
    clock: Arc<TestClock>,
    approvals: Approvals,
    seen: Arc<Mutex<Vec<State>>>,
}

fn bench() -> Bench {
    let store = Arc::new(SqliteStore::in_memory());
    let clock = TestClock::new();
    let seen: Arc<Mutex<Vec<State>>> = Arc::default();
    let log = seen.clone();
    let approvals = Approvals::open(
        &*store,
        Lazy::start(store.clone()).unwrap(),
        clock.clone(),
        Arc::new(People(HashMap::from([(0, "root"), (1, "alice"), (2, "bob"), (3, "carol"), (7, "job")]))),
        vec!["carol".into()],
        Box::new(move |r| log.lock().unwrap().push(r.state)),
    )
    .unwrap();
    Bench { store, clock, approvals, seen }
}

fn binding() -> Binding {
    Binding {
        statement: "DELETE FROM orders".into(),
        params: vec![],
        job: 42,
        resource: "orders".into(),
        policy_version: "v1".into(),
    }
}

fn request(quorum: u32) -> Request {
    Request {
        because: None,
        binding: binding(),
        session: "s1".into(),
        subject: "payments-agent".into(),
        cgroup: "/jobs/42".into(),
        job_uid: 7,
        process: Process { pid: 99, uid: 8, command: "psql".into() },
        rules: vec!["del".into()],
        terms: ApprovalTerms {
            quorum,
            approvers: vec!["@dba".into(), "job".into()],
            expires_after: Duration::from_secs(600),
        },
    }
}

fn voter(uid: u32) -> Voter {
    Voter { uid, inside_job: None }
}

fn approved(outcome: Outcome) -> Approved {
    match outcome {
        Outcome::Approved(a) => a,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_yes_is_good_once_for_exactly_what_was_shown() {
    let b = bench();
    let mut ticket = b.approvals.request(request(1)).unwrap();
    assert!(ticket.notice().contains("@dba") && ticket.notice().contains("10m"), "{}", ticket.notice());
    let id = ticket.id().clone();
    b.approvals.decide(&id[..6], &voter(1), true, "looks fine").unwrap();
    let yes = approved(ticket.wait().await);
    assert_eq!(yes.by, ["alice"]);
    let (rules, version) = yes.redeem(&binding()).unwrap();
    assert_eq!((&*rules[0], &*version), ("del", "v1"));
    assert_eq!(b.approvals.get(&id).unwrap().state, State::Used);
    assert_eq!(*b.seen.lock().unwrap(), [State::Waiting, State::Approved, State::Used]);
    drop(ticket);
    assert_eq!(b.approvals.get(&id).unwrap().state, State::Used, "a dropped ticket takes nothing back");
}

#[tokio::test]
async fn a_yes_for_something_else_is_stale() {
    let b = bench();
    for change in [
        (|b: &mut Binding| b.statement.push_str(" WHERE true")) as fn(&mut Binding),
        |b| b.policy_version = "v2".into(),
        |b| b.job = 43,
        |b| b.params.push(None),
    ] {
        let mut ticket = b.approvals.request(request(1)).unwrap();
        b.approvals.decide(ticket.id(), &voter(1), true, "").unwrap();
        let mut other = binding();
        change(&mut other);
        assert_eq!(approved(ticket.wait().await).redeem(&other).unwrap_err(), Stale::Changed);
    }
}

#[tokio::test]
async fn a_yes_expires_too() {
    let b = bench();
    let mut ticket = b.approvals.request(request(1)).unwrap();
    b.approvals.decide(ticket.id(), &voter(1), true, "").unwrap();
    let yes = approved(ticket.wait().await);
    b.clock.advance(600);
    assert_eq!(yes.redeem(&binding()).unwrap_err(), Stale::Expired);
}

#[tokio::test]
async fn a_no_carries_its_reason_to_the_client() {
    let b = bench();
    let mut ticket = b.approvals.request(request(2)).unwrap();
    b.approvals.decide(ticket.id(), &voter(1), true, "").unwrap();
    b.approvals.decide(ticket.id(), &voter(2), false, "not\x1b on a Friday").unwrap();
    match ticket.wait().await {
        Outcome::Denied { by, reason } => {
            assert_eq!((by.as_str(), reason.as_str()), ("bob", "not  on a Friday"));
        }
        other => panic!("{other:?}"),
    }
    let e = b.approvals.decide(ticket.id(), &voter(1), true, "").unwrap_err();
    assert!(matches!(e, DecideError::Finished { state: "denied", .. }));
}

#[tokio::test]
async fn a_quorum_counts_people_not_answers() {
    let b = bench();
    let mut ticket = b.approvals.request(request(2)).unwrap();
    let first = b.approvals.decide(ticket.id(), &voter(1), true, "").unwrap();
    assert_eq!(first.state, State::Waiting);
    assert_eq!(b.approvals.decide(ticket.id(), &voter(1), true, "").unwrap_err(), DecideError::Twice(1));
    assert_eq!(b.approvals.decide(ticket.id(), &voter(2), true, "").unwrap().state, State::Approved);
    assert_eq!(approved(ticket.wait().await).by, ["alice", "bob"]);
}

#[tokio::test]
async fn nobody_approves_their_own_and_only_approvers_approve() {
    let b = bench();
    let ticket = b.approvals.request(request(1)).unwrap();
    let decide = |v: &Voter| b.approvals.decide(ticket.id(), v, true, "").unwrap_err();
    assert!(matches!(decide(&voter(7)), DecideError::Own(_)), "the job's user, although listed");
    assert!(matches!(decide(&voter(8)), DecideError::Own(_)), "the process's user");
    assert!(matches!(decide(&Voter { uid: 1, inside_job: Some(5) }), DecideError::Own(_)), "from any job");
    assert!(
        matches!(decide(&voter(3)), DecideError::NotApprover { .. }),
        "the rule's list replaces the default"
    );
    assert!(
        matches!(decide(&voter(0)), DecideError::NotApprover { .. }),
        "root is no approver by being root"
    );
    assert_eq!(b.approvals.get(ticket.id()).unwrap().votes, []);
}

#[tokio::test]
async fn without_a_list_of_its_own_a_rule_uses_the_default() {
    let b = bench();
    let mut r = request(1);
    r.terms.approvers.clear();
    let ticket = b.approvals.request(r).unwrap();
    assert!(b.approvals.decide(ticket.id(), &voter(1), true, "").is_err());
    assert!(b.approvals.decide(ticket.id(), &voter(3), true, "").is_ok());
}

#[tokio::test]
async fn no_answer_is_a_no() {
    let b = bench();
    let mut brief = request(1);
    brief.terms.expires_after = Duration::from_secs(1);
    let mut ticket = b.approvals.request(brief).unwrap();
    let id = ticket.id().clone();
    assert!(matches!(ticket.wait().await, Outcome::Expired));
    assert_eq!(b.approvals.get(&id).unwrap().state, State::Expired);
    let e = b.approvals.decide(&id, &voter(1), true, "").unwrap_err();
    assert!(matches!(e, DecideError::Finished { state: "expired", .. }));
}

#[tokio::test]
async fn an_answer_after_the_time_is_not_taken_even_if_nobody_noticed_yet() {
    let b = bench();
    let mut ticket = b.approvals.request(request(1)).unwrap();
    b.clock.advance(600);
    assert!(b.approvals.list(false).is_empty());
    let e = b.approvals.decide(ticket.id(), &voter(1), true, "").unwrap_err();
    assert!(matches!(e, DecideError::Finished { state: "expired", .. }));
    assert!(matches!(ticket.wait().await, Outcome::Expired));
}

#[tokio::test]
async fn a_client_that_goes_away_withdraws() {
    let b = bench();
    let ticket = b.approvals.request(request(1)).unwrap();
    let id = ticket.id().clone();
    drop(ticket);
    assert_eq!(b.approvals.get(&id).unwrap().state, State::Withdrawn);
    assert_eq!(b.approvals.waiting(), 0);
    assert!(b.approvals.decide(&id, &voter(1), true, "").is_err());
}

#[tokio::test]
async fn a_policy_change_or_the_jobs_end_ends_what_waits() {
    let b = bench();
    let (mut one, mut two) =
        (b.approvals.request(request(1)).unwrap(), b.approvals.request(request(1)).unwrap());
    b.approvals.policy_changed("v1");
    assert_eq!(b.approvals.waiting(), 2, "the same version changes nothing");
    b.approvals.policy_changed("v2");
    assert!(matches!(one.wait().await, Outcome::Denied { .. }));
    assert!(matches!(two.wait().await, Outcome::Denied { .. }));
    let mut three = b.approvals.request(request(1)).unwrap();
    b.approvals.job_ended(41);
    assert_eq!(b.approvals.waiting(), 1);
    b.approvals.job_ended(42);
    assert!(matches!(three.wait().await, Outcome::Denied { .. }));
}

#[tokio::test]
async fn a_flood_is_bounded() {
    let b = bench();
    let held: Vec<_> = (0..MAX_WAITING_PER_JOB).map(|_| b.approvals.request(request(1)).unwrap()).collect();
    assert!(matches!(b.approvals.request(request(1)), Err(AskError::TooMany(true))));
    let mut other = request(1);
    other.binding.job = 43;
    let _other = b.approvals.request(other).unwrap();
    drop(held);
    assert!(b.approvals.request(request(1)).is_ok());
}

#[tokio::test]
async fn a_restart_expires_what_waited_and_keeps_history() {
    let b = bench();
    let waiting = b.approvals.request(request(1)).unwrap();
    let denied = b.approvals.request(request(1)).unwrap();
    b.approvals.decide(denied.id(), &voter(1), false, "no").unwrap();
    b.approvals.shared.lazy.flush();
    let again = Approvals::open(
        &*b.store,
        Lazy::start(b.store.clone()).unwrap(),
        b.clock.clone(),
        Arc::new(HostDirectory),
        vec![],
        Box::new(|_| ()),
    )
    .unwrap();
    assert_eq!(again.get(waiting.id()).unwrap().state, State::Expired);
    let old = again.get(denied.id()).unwrap();
    assert_eq!((old.state, old.votes[0].reason.as_str()), (State::Denied, "no"));
    assert_eq!(old.requested, UnixTime(NOW));
    assert!(matches!(
        again.request({
            let mut r = request(1);
            r.terms.approvers.clear();
            r
        }),
        Err(AskError::Nobody)
    ));
}

#[test]
fn ids_are_found_by_their_beginning_only_when_that_is_enough() {
    let b = bench();
    let tickets: Vec<_> = (0..20).map(|_| b.approvals.request(request(1)).unwrap()).collect();
    assert!(matches!(b.approvals.full_id(""), Err(DecideError::Unknown(_))));
    assert!(matches!(b.approvals.full_id(&tickets[0].id()[..3]), Err(DecideError::Unknown(_))));
    assert_eq!(b.approvals.full_id(tickets[3].id()).unwrap(), *tickets[3].id());
}
