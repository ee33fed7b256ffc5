use std::sync::Arc;

use policy::{Limits, Named, Obligations};
use protocol::{
    Step,
    postgres::{Allowed, AskKind, Decision, Event},
};

use crate::support::*;

fn pipeline(rig: &mut Rig, sql: &str) {
    rig.job(
        &[parse("", sql), bind("", "", &["a"], 0), describe('P', ""), execute("", 0), SYNC.to_vec()].concat(),
    );
}

#[test]
fn a_pipeline_goes_through_unchanged() {
    let mut rig = Rig::ready();
    pipeline(&mut rig, "SELECT $1");
    assert_eq!(rig.step(), Step::Ask);
    assert_eq!(rig.session.pending().unwrap().kind, AskKind::Parse);
    rig.session.allow(plain());
    rig.need();
    let sent =
        [parse("", "SELECT $1"), bind("", "", &["a"], 0), describe('P', ""), execute("", 0), SYNC.to_vec()]
            .concat();
    assert_eq!(rig.sent_up(), sent);
    let answer = [
        PARSED.to_vec(),
        BOUND.to_vec(),
        columns(&[("x", 0, 0, 25, 0)]),
        texts(&["a"]),
        done("SELECT 1"),
        ready('I'),
    ]
    .concat();
    assert_eq!(rig.reply(&answer), answer);
    assert_eq!(rig.ends(), [(1, 0, "SELECT 1".to_owned(), 1, 0)]);
}

#[test]
fn events_carry_the_parameters() {
    let mut rig = Rig::ready();
    pipeline(&mut rig, "SELECT $1");
    assert_eq!(rig.step(), Step::Ask);
    rig.session.allow(plain());
    rig.need();
    let mut events = rig.session.events();
    let Some(Event::Started { run, ask, sql, params, .. }) = events.next() else { panic!("no start") };
    assert_eq!((run, ask, sql), (1, 1, "SELECT $1"));
    assert_eq!(params.iter().next().unwrap().value, Some(&b"a"[..]));
}

#[test]
fn a_prepared_statement_is_asked_once() {
    let mut rig = Rig::ready();
    rig.run(&[parse("s", "SELECT $1"), SYNC.to_vec()].concat(), &plain());
    rig.reply(&[PARSED.to_vec(), ready('I')].concat());
    for _ in 0..3 {
        rig.job(&[bind("", "s", &["a"], 0), execute("", 0), SYNC.to_vec()].concat());
        rig.need();
        rig.reply(&[BOUND.to_vec(), done("SELECT 0"), ready('I')].concat());
    }
    assert_eq!(rig.ends().len(), 3);
    assert_eq!(rig.session.prepared("s").unwrap().0, "SELECT $1");
}

#[test]
fn a_denied_parse_discards_up_to_sync() {
    let mut rig = Rig::ready();
    pipeline(&mut rig, "DROP TABLE t");
    assert_eq!(rig.step(), Step::Ask);
    rig.session.deny(&denied());
    rig.need();
    assert_eq!(rig.sent_up(), SYNC);
    assert_eq!(rig.sent_to_job(), refused(&denied()));
    assert_eq!(rig.reply(&ready('I')), ready('I'));
    pipeline(&mut rig, "SELECT 1");
    assert_eq!(rig.step(), Step::Ask);
}

#[test]
fn a_deny_after_something_ran_makes_the_server_roll_it_back() {
    let mut rig = Rig::ready();
    let insert = [parse("", "INSERT"), bind("", "", &[], 0), execute("", 0)].concat();
    rig.run(&insert, &plain());
    assert_eq!(rig.sent_up(), insert);
    rig.job(&[parse("", "DROP TABLE t"), bind("", "", &[], 0), execute("", 0), SYNC.to_vec()].concat());
    assert_eq!(rig.step(), Step::Ask);
    rig.session.deny(&denied());
    rig.need();
    let sent = rig.sent_up();
    assert!(sent.starts_with(b"P") && sent.ends_with(SYNC) && !has(&sent, "DROP"));
    let before = [PARSED.to_vec(), BOUND.to_vec(), done("INSERT 0 1")].concat();
    assert_eq!(rig.reply(&before), before);
    let after = [failure(&[('S', "ERROR"), ('C', "42601"), ('M', "syntax error")]), ready('I')].concat();
    assert_eq!(rig.reply(&after), [refused(&denied()), ready('I')].concat());
    assert_eq!(rig.ends(), [(1, 0, "INSERT 0 1".to_owned(), 0, 0)]);
}

#[test]
fn a_deny_behind_unflushed_replies_flushes_them() {
    let mut rig = Rig::ready();
    rig.run(&[parse("a", "SELECT 1"), describe('S', "a")].concat(), &plain());
    rig.sent_up();
    rig.job(&[parse("b", "DROP TABLE t"), FLUSH.to_vec()].concat());
    assert_eq!(rig.step(), Step::Ask);
    rig.session.deny(&denied());
    rig.need();
    assert_eq!(rig.sent_up(), FLUSH);
    assert!(rig.sent_to_job().is_empty());
    let answers = [PARSED, NO_PARAMS, NO_DATA].concat();
    assert_eq!(rig.reply(&answers), [answers.clone(), refused(&denied())].concat());
    rig.job(SYNC);
    rig.need();
    assert_eq!(rig.sent_up(), SYNC);
    assert_eq!(rig.reply(&ready('I')), ready('I'));
}

#[test]
fn a_server_error_discards_up_to_sync() {
    let mut rig = Rig::ready();
    pipeline(&mut rig, "SELECT nope");
    assert_eq!(rig.step(), Step::Ask);
    rig.session.allow(plain());
    rig.need();
    let error = failure(&[('S', "ERROR"), ('C', "42703"), ('M', "no column")]);
    let answer = [error, ready('I')].concat();
    assert_eq!(rig.reply(&answer), answer);
    assert_eq!(rig.ends(), [(1, 0, "skipped".to_owned(), 0, 0)]);
    // The statement does not exist: binding it is refused here, and the server fails as it would have.
    rig.sent_up();
    rig.job(&[bind("", "", &[], 0), SYNC.to_vec()].concat());
    rig.need();
    assert_eq!(rig.sent_up(), [provoked(), SYNC.to_vec()].concat());
    let said = rig.reply(&[syntax_error(), ready('E')].concat());
    assert!(has(&said, "26000") && !has(&said, "42601") && said.ends_with(&ready('E')));
}

#[test]
fn an_error_before_the_sync_came_drops_what_follows() {
    let mut rig = Rig::ready();
    rig.run(&[parse("", "SELECT nope"), FLUSH.to_vec()].concat(), &plain());
    rig.sent_up();
    rig.reply(&failure(&[('S', "ERROR"), ('C', "42703"), ('M', "no column")]));
    rig.job(&[parse("", "SELECT 2"), query("SELECT 3"), SYNC.to_vec()].concat());
    rig.need();
    assert_eq!(rig.sent_up(), SYNC);
    assert_eq!(rig.reply(&ready('I')), ready('I'));
}

#[test]
fn an_ask_overtaken_by_an_error_is_dropped() {
    let mut rig = Rig::ready();
    rig.run(&[parse("", "SELECT nope"), FLUSH.to_vec()].concat(), &plain());
    rig.sent_up();
    rig.job(&parse("", "SELECT 2"));
    assert_eq!(rig.step(), Step::Ask);
    rig.reply(&failure(&[('S', "ERROR"), ('C', "42703"), ('M', "no column")]));
    rig.session.allow(plain());
    rig.need();
    assert!(rig.sent_up().is_empty());
    assert!(rig.sent_to_job().is_empty());
}

#[test]
fn a_failed_parse_does_not_replace_the_statement() {
    let mut rig = Rig::ready();
    rig.run(&[parse("s", "SELECT masked"), SYNC.to_vec()].concat(), &plain());
    rig.reply(&[PARSED.to_vec(), ready('I')].concat());
    rig.run(&[parse("s", "SELECT other"), SYNC.to_vec()].concat(), &plain());
    assert_eq!(rig.session.prepared("s").unwrap().0, "SELECT other");
    rig.reply(&[failure(&[('S', "ERROR"), ('C', "42P05"), ('M', "exists")]), ready('I')].concat());
    assert_eq!(rig.session.prepared("s").unwrap().0, "SELECT masked");
}

#[test]
fn a_new_epoch_asks_at_bind() {
    let mut rig = Rig::ready();
    rig.run(&[parse("s", "SELECT $1"), SYNC.to_vec()].concat(), &plain());
    rig.reply(&[PARSED.to_vec(), ready('I')].concat());
    rig.sent_up();
    rig.session.set_epoch(2);
    rig.job(&[bind("", "s", &["secret"], 0), execute("", 0), SYNC.to_vec()].concat());
    assert_eq!(rig.step(), Step::Ask);
    let pending = rig.session.pending().unwrap();
    assert_eq!((pending.kind, pending.sql), (AskKind::Bind, "SELECT $1"));
    assert_eq!(pending.params.iter().next().unwrap().value, Some(&b"secret"[..]));
    assert!(pending.previous.is_some());
    rig.session.deny(&denied());
    rig.need();
    assert_eq!(rig.sent_up(), SYNC);
    assert_eq!(rig.sent_to_job(), refused(&denied()));
    rig.reply(&ready('I'));
    // Allowed anew, it is not asked again.
    rig.job(&[bind("", "s", &["x"], 0), execute("", 0), SYNC.to_vec()].concat());
    assert_eq!(rig.step(), Step::Ask);
    let anew = Decision {
        statements: vec![allowed(Obligations::default())],
        epoch: 2,
        open: false,
        context: Arc::new(()),
    };
    rig.session.allow(Arc::new(anew));
    rig.need();
    rig.job(&[bind("", "s", &["y"], 0), execute("", 0), SYNC.to_vec()].concat());
    rig.need();
}

#[test]
fn a_new_epoch_asks_at_execute() {
    let mut rig = Rig::ready();
    rig.run(&[parse("s", "SELECT $1"), bind("p", "s", &["a"], 0), FLUSH.to_vec()].concat(), &plain());
    rig.reply(&[PARSED, BOUND].concat());
    rig.session.set_epoch(2);
    rig.job(&execute("p", 0));
    assert_eq!(rig.step(), Step::Ask);
    assert_eq!(rig.session.pending().unwrap().kind, AskKind::Execute);
}

#[test]
fn a_deferred_statement_asks_with_its_parameters_each_time() {
    let mut rig = Rig::ready();
    rig.job(&[parse("s", "DELETE $1"), bind("", "s", &["7"], 0), execute("", 0), SYNC.to_vec()].concat());
    assert_eq!(rig.step(), Step::Ask);
    rig.session.defer();
    assert_eq!(rig.step(), Step::Ask);
    let pending = rig.session.pending().unwrap();
    assert_eq!((pending.kind, pending.sql), (AskKind::Execute, "DELETE $1"));
    assert!(pending.params.complete());
    assert_eq!(pending.params.iter().next().unwrap().value, Some(&b"7"[..]));
    assert!(!has(&rig.sent_up(), "E\0\0\0\x09"));
    rig.session.allow(plain());
    rig.need();
    assert_eq!(rig.sent_up(), [execute("", 0), SYNC.to_vec()].concat());
    rig.reply(&[PARSED.to_vec(), BOUND.to_vec(), done("DELETE 1"), ready('I')].concat());
    rig.job(&[bind("", "s", &["8"], 0), execute("", 0), SYNC.to_vec()].concat());
    assert_eq!(rig.step(), Step::Ask);
    assert_eq!(rig.session.pending().unwrap().params.iter().next().unwrap().value, Some(&b"8"[..]));
}

#[test]
fn a_suspended_portal_goes_on_without_asking_again() {
    let mut rig = Rig::ready();
    rig.job(&[parse("", "SELECT"), bind("", "", &[], 0), execute("", 1), FLUSH.to_vec()].concat());
    assert_eq!(rig.step(), Step::Ask);
    rig.session.defer();
    assert_eq!(rig.step(), Step::Ask);
    rig.session.allow(plain());
    rig.need();
    rig.reply(&[PARSED.to_vec(), BOUND.to_vec(), texts(&["1"]), message(b's', b"")].concat());
    rig.job(&[execute("", 1), SYNC.to_vec()].concat());
    rig.need();
    rig.reply(&[texts(&["2"]), done("SELECT 1"), ready('I')].concat());
    assert_eq!(rig.ends(), [(1, 0, "suspended".to_owned(), 1, 0), (2, 0, "SELECT 1".to_owned(), 1, 0)]);
}

#[test]
fn limits_count_over_suspensions() {
    let mut rig = Rig::ready();
    let limits = Limits { rows: Some(3), bytes: None };
    let limited = decision(vec![allowed(Obligations { limits, ..Obligations::default() })]);
    rig.run(&[parse("", "SELECT"), bind("", "", &[], 0), execute("", 2), FLUSH.to_vec()].concat(), &limited);
    rig.reply(&[PARSED.to_vec(), BOUND.to_vec(), texts(&["1"]), texts(&["2"]), message(b's', b"")].concat());
    rig.job(&[execute("", 2), SYNC.to_vec()].concat());
    rig.need();
    let seen = rig.reply(&[texts(&["3"]), texts(&["4"])].concat());
    assert!(seen.starts_with(&texts(&["3"])) && has(&seen, "54000"));
    assert_eq!(rig.reply(&[message(b's', b""), ready('I')].concat()), ready('I'));
}

#[test]
fn a_limit_in_a_pipeline_hides_the_rest_of_it() {
    let mut rig = Rig::ready();
    let limits = Limits { rows: Some(1), bytes: None };
    let limited = decision(vec![allowed(Obligations { limits, ..Obligations::default() })]);
    rig.run(&[parse("s", "SELECT"), bind("", "s", &[], 0), execute("", 0)].concat(), &limited);
    rig.job(&[bind("", "s", &[], 0), execute("", 0), FLUSH.to_vec()].concat());
    rig.need();
    let seen = rig.reply(&[PARSED.to_vec(), BOUND.to_vec(), texts(&["1"]), texts(&["2"])].concat());
    assert!(has(&seen, "54000"));
    assert!(
        rig.reply(&[done("SELECT 2"), BOUND.to_vec(), texts(&["1"]), done("SELECT 1")].concat()).is_empty()
    );
    rig.sent_up();
    rig.job(&[parse("x", "SELECT 3"), SYNC.to_vec()].concat());
    rig.need();
    assert_eq!(rig.sent_up(), SYNC);
    assert_eq!(rig.reply(&ready('I')), ready('I'));
}

#[test]
fn several_statements_cannot_be_prepared() {
    let mut rig = Rig::ready();
    let both = decision(vec![allowed(Obligations::default()), allowed(Obligations::default())]);
    rig.run(&[parse("", "SELECT 1; SELECT 2"), SYNC.to_vec()].concat(), &both);
    assert_eq!(rig.sent_up(), [provoked(), SYNC.to_vec()].concat());
    assert!(has(&rig.reply(&syntax_error()), "cannot insert multiple commands"));
}

#[test]
fn names_that_sql_gives_leave_the_protocol() {
    let mut rig = Rig::ready();
    rig.run(&[parse("s", "SELECT a"), SYNC.to_vec()].concat(), &plain());
    rig.reply(&[PARSED.to_vec(), ready('I')].concat());
    let prepares =
        Allowed { defines: Some(Named::Prepared("s".to_owned())), ..allowed(Obligations::default()) };
    rig.run(&query("PREPARE s AS SELECT b"), &decision(vec![prepares]));
    assert!(rig.session.prepared("s").is_none());
    rig.reply(&[done("PREPARE"), ready('I')].concat());
    rig.job(&[bind("", "s", &[], 0), SYNC.to_vec()].concat());
    rig.need();
    assert!(has(&rig.reply(&syntax_error()), "26000"));
}

#[test]
fn what_sql_made_can_be_described() {
    let mut rig = Rig::ready();
    let sent = [describe('P', "c"), describe('S', "p"), SYNC.to_vec()].concat();
    rig.job(&sent);
    rig.need();
    assert_eq!(rig.sent_up(), sent);
    let head = columns(&[("x", 0, 0, 25, 0)]);
    let answer = [head.clone(), NO_PARAMS.to_vec(), head, ready('T')].concat();
    assert_eq!(rig.reply(&answer), answer);
}

#[test]
fn statements_that_refer_are_asked_at_every_execute() {
    let mut rig = Rig::ready();
    let fetches = Allowed { refers: Some(Named::Cursor("c".to_owned())), ..allowed(Obligations::default()) };
    let fetches = decision(vec![fetches]);
    rig.run(&[parse("f", "FETCH c"), SYNC.to_vec()].concat(), &fetches);
    rig.reply(&[PARSED.to_vec(), ready('I')].concat());
    for _ in 0..2 {
        rig.job(&[bind("", "f", &[], 0), execute("", 0), SYNC.to_vec()].concat());
        assert_eq!(rig.step(), Step::Ask);
        assert_eq!(rig.session.pending().unwrap().kind, AskKind::Execute);
        rig.session.allow(Arc::clone(&fetches));
        rig.need();
        rig.reply(&[BOUND.to_vec(), done("FETCH 0"), ready('I')].concat());
    }
}

#[test]
fn settling_waits_for_all_replies() {
    let mut rig = Rig::ready();
    rig.run(&[parse("p", "SELECT 1"), bind("c", "p", &[], 0)].concat(), &plain());
    rig.sent_up();
    rig.job(&query("FETCH c"));
    assert_eq!(rig.step(), Step::Ask);
    assert!(rig.session.settle());
    rig.need();
    assert_eq!(rig.sent_up(), FLUSH);
    rig.reply(PARSED);
    rig.up(BOUND);
    assert_eq!(rig.step(), Step::Ask);
    assert!(!rig.session.settle());
    assert_eq!(rig.session.portal("c").unwrap().0, "SELECT 1");
}

#[test]
fn names_longer_than_the_servers_are_refused() {
    let mut rig = Rig::ready();
    rig.job(&[parse(&"n".repeat(64), "SELECT 1"), SYNC.to_vec()].concat());
    rig.need();
    assert!(has(&rig.sent_to_job(), "42622"));
    assert_eq!(rig.sent_up(), SYNC);
}

#[test]
fn names_are_bounded() {
    let mut settings = protocol::postgres::Settings::new(key());
    settings.names_max = 2;
    let mut rig = Rig::with(settings);
    for name in ["a", "b"] {
        rig.run(&[parse(name, "SELECT 1"), SYNC.to_vec()].concat(), &plain());
        rig.reply(&[PARSED.to_vec(), ready('I')].concat());
    }
    rig.job(&[parse("c", "SELECT 1"), SYNC.to_vec()].concat());
    rig.need();
    assert!(has(&rig.sent_to_job(), "53400"));
    rig.job(&[close('S', "a"), SYNC.to_vec()].concat());
    rig.need();
    rig.reply(&[ready('I'), CLOSED.to_vec(), ready('I')].concat());
    rig.run(&[parse("c", "SELECT 1"), SYNC.to_vec()].concat(), &plain());
}

#[test]
fn many_pipelines_in_flight() {
    let mut rig = Rig::ready();
    rig.run(&[parse("s", "SELECT $1"), SYNC.to_vec()].concat(), &plain());
    rig.reply(&[PARSED.to_vec(), ready('I')].concat());
    for _ in 0..50 {
        rig.job(&[bind("", "s", &["a"], 0), describe('P', ""), execute("", 0), SYNC.to_vec()].concat());
    }
    rig.need();
    let one = [BOUND.to_vec(), columns(&[("x", 0, 0, 25, 0)]), texts(&["a"]), done("SELECT 1"), ready('I')]
        .concat();
    for _ in 0..50 {
        assert_eq!(rig.reply(&one), one);
    }
    assert_eq!(rig.ends().len(), 50);
    assert!(rig.session.to_idle());
}

trait Idle {
    fn to_idle(&mut self) -> bool;
}

impl Idle for protocol::postgres::Session {
    fn to_idle(&mut self) -> bool {
        let (job, up) = (self.job_out().len(), self.up_out().len());
        self.job_out().advance(job);
        self.up_out().advance(up);
        self.idle()
    }
}
