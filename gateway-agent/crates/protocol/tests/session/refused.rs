//! What is refused here leaves the server and the names as the client believes them to be.

use policy::{Obligations, OutputMask, OutputMasks};
use protocol::Step;

use crate::support::*;

/// The unnamed statement is there on both sides.
fn prepared(rig: &mut Rig) {
    rig.run(&[parse("", "SELECT 1"), SYNC.to_vec()].concat(), &plain());
    rig.reply(&[PARSED.to_vec(), ready('I')].concat());
    rig.sent_up();
}

fn bound(rig: &mut Rig) -> bool {
    rig.job(&[bind("", "", &[], 0), SYNC.to_vec()].concat());
    rig.need();
    rig.sent_up().starts_with(b"B")
}

fn deny(rig: &mut Rig, message: &[u8]) {
    rig.job(message);
    assert_eq!(rig.step(), Step::Ask);
    rig.session.deny(&denied());
    rig.need();
}

#[test]
fn a_denied_statement_does_not_leave_the_one_it_was_to_replace() {
    let mut rig = Rig::ready();
    prepared(&mut rig);
    deny(&mut rig, &[parse("", "DROP TABLE t"), SYNC.to_vec()].concat());
    assert!(rig.reply(&ready('I')).ends_with(&ready('I')));
    rig.sent_up();
    assert!(!bound(&mut rig), "a client that did not look would run what it replaced");
    rig.reply(&[syntax_error(), ready('I')].concat());
    rig.job(&[describe('S', ""), SYNC.to_vec()].concat());
    rig.need();
    assert_eq!(rig.sent_up(), [provoked(), SYNC.to_vec()].concat());
    assert!(has(&rig.reply(&syntax_error()), "26000"));
}

#[test]
fn a_named_one_that_is_denied_leaves_the_unnamed_one() {
    let mut rig = Rig::ready();
    prepared(&mut rig);
    deny(&mut rig, &[parse("n", "DROP TABLE t"), SYNC.to_vec()].concat());
    rig.reply(&ready('I'));
    rig.sent_up();
    assert!(bound(&mut rig));
}

#[test]
fn what_the_server_skipped_did_not_replace_anything() {
    let mut rig = Rig::ready();
    prepared(&mut rig);
    // The first fails, so the server does not look at the second.
    rig.job(&[parse("s", "SELECT nope"), parse("", "SELECT 2"), SYNC.to_vec()].concat());
    for _ in 0..2 {
        assert_eq!(rig.step(), Step::Ask);
        rig.session.allow(plain());
    }
    rig.need();
    rig.sent_up();
    rig.reply(&[failure(&[('S', "ERROR"), ('C', "42703"), ('M', "no column")]), ready('I')].concat());
    assert!(bound(&mut rig));
}

#[test]
fn a_denial_that_the_server_skipped_did_not_replace_anything_either() {
    let mut rig = Rig::ready();
    prepared(&mut rig);
    rig.run(&[parse("s", "SELECT nope"), FLUSH.to_vec()].concat(), &plain());
    deny(&mut rig, &[parse("", "DROP TABLE t"), SYNC.to_vec()].concat());
    rig.sent_up();
    let said =
        rig.reply(&[failure(&[('S', "ERROR"), ('C', "42703"), ('M', "no column")]), ready('I')].concat());
    assert!(has(&said, "42703") && !has(&said, "no-drop"));
    assert!(bound(&mut rig));
}

/// libpq has no way to send this; the protocol has.
#[test]
fn a_query_that_is_denied_between_execute_and_sync_rolls_back_what_ran() {
    let mut rig = Rig::ready();
    rig.run(&[parse("", "INSERT"), bind("", "", &[], 0), execute("", 0)].concat(), &plain());
    rig.sent_up();
    deny(&mut rig, &query("DROP TABLE t"));
    // Whether the server gets that far is not known yet.
    assert_eq!(rig.sent_up(), FLUSH);
    assert!(rig.sent_to_job().is_empty());
    rig.reply(&[PARSED.to_vec(), BOUND.to_vec(), done("INSERT 0 1")].concat());
    assert_eq!(rig.sent_up(), [provoked(), SYNC.to_vec()].concat());
    assert_eq!(rig.reply(&[syntax_error(), ready('I')].concat()), [refused(&denied()), ready('I')].concat());
    rig.run(&query("SELECT 1"), &plain());
    assert_eq!(rig.sent_up(), query("SELECT 1"));
}

#[test]
fn a_query_that_is_denied_behind_a_failure_is_skipped_as_the_server_skips_it() {
    let mut rig = Rig::ready();
    rig.run(&[parse("", "INSERT"), bind("", "", &[], 0), execute("", 0)].concat(), &plain());
    rig.sent_up();
    deny(&mut rig, &query("DROP TABLE t"));
    rig.sent_up();
    let error = failure(&[('S', "ERROR"), ('C', "23505"), ('M', "twice")]);
    let answer = [PARSED.to_vec(), BOUND.to_vec(), error].concat();
    assert_eq!(rig.reply(&answer), answer);
    assert!(rig.sent_up().is_empty());
    rig.job(SYNC);
    rig.need();
    assert_eq!(rig.sent_up(), SYNC);
    assert_eq!(rig.reply(&ready('I')), ready('I'));
}

#[test]
fn a_query_that_nobody_could_read_fails_a_transaction() {
    let mut rig = Rig::ready();
    rig.job(&message(b'Q', b"SELECT '\xff'\0"));
    rig.need();
    assert_eq!(rig.sent_up(), [provoked(), SYNC.to_vec()].concat());
    let said = rig.reply(&[syntax_error(), ready('E')].concat());
    assert!(has(&said, "22021") && said.ends_with(&ready('E')));
}

/// Where the Describe failed, the columns are not known; they are asked for before rows are masked.
#[test]
fn a_describe_that_was_skipped_tells_nothing_about_columns() {
    let mut rig = Rig::ready();
    let masks = [Some(OutputMask::new(mask::Transform::Redact))];
    let obligations = Obligations { outputs: OutputMasks::Columns(masks.into()), ..Obligations::default() };
    let masked = decision(vec![allowed(obligations)]);
    rig.run(&[parse("s", "SELECT x"), SYNC.to_vec()].concat(), &masked);
    rig.reply(&[PARSED.to_vec(), ready('I')].concat());
    // It comes behind a failure.
    rig.job(&[close('P', "x"), describe('S', "s"), SYNC.to_vec()].concat());
    rig.need();
    rig.sent_up();
    rig.reply(&[failure(&[('S', "ERROR"), ('C', "XX000"), ('M', "odd")]), ready('I')].concat());
    rig.job(&[bind("", "s", &[], 0), execute("", 0), SYNC.to_vec()].concat());
    rig.need();
    assert!(has(&rig.sent_up(), "D\0\0\0\x06P\0"), "the columns are asked for");
    let rows = [columns(&[("x", 0, 0, 25, 0)]), texts(&["secret"]), done("SELECT 1"), ready('I')].concat();
    let said = rig.reply(&[BOUND.to_vec(), rows].concat());
    assert!(has(&said, "[redacted]") && !has(&said, "secret"), "{said:?}");
}

/// A Parse of a name that is taken fails; behind the next Sync the name still means the older statement.
#[test]
fn rows_of_the_statement_that_a_name_still_means_are_masked_by_its_own_decision() {
    for failing in ["taken", "skipped", "unnamed"] {
        let name = if failing == "unnamed" { "" } else { "s" };
        let mut rig = Rig::ready();
        let masks = [Some(OutputMask::new(mask::Transform::Redact))];
        let obligations =
            Obligations { outputs: OutputMasks::Columns(masks.into()), ..Obligations::default() };
        let sent = [parse(name, "SELECT secret"), SYNC.to_vec()].concat();
        rig.run(&sent, &decision(vec![allowed(obligations)]));
        rig.reply(&[PARSED.to_vec(), ready('I')].concat());
        rig.sent_up();
        // All at once: the older one's successor, which the server does not take, and its use.
        let before = if failing == "taken" { Vec::new() } else { parse("x", "SELECT nope") };
        let tail = [bind("", name, &[], 0), execute("", 0), SYNC.to_vec()].concat();
        rig.job(&[before, parse(name, "SELECT 1"), SYNC.to_vec(), tail].concat());
        while rig.step() == Step::Ask {
            rig.session.allow(plain());
        }
        let sent = rig.sent_up();
        assert!(!has(&sent, "E\0\0\0"), "{failing}: what the name means is not known yet");
        rig.reply(&[failure(&[('S', "ERROR"), ('C', "42P05"), ('M', "taken")]), ready('I')].concat());
        assert!(has(&rig.sent_up(), "D\0\0\0\x06P\0"), "{failing}: its columns are asked for");
        let rows =
            [columns(&[("x", 0, 0, 25, 0)]), texts(&["secret"]), done("SELECT 1"), ready('I')].concat();
        let said = rig.reply(&[BOUND.to_vec(), rows].concat());
        assert!(has(&said, "[redacted]") && !has(&said, "secret"), "{failing}: {said:?}");
    }
}

#[test]
fn a_name_whose_end_the_server_skipped_is_still_there() {
    let mut rig = Rig::ready();
    rig.run(&[parse("s", "SELECT 1"), SYNC.to_vec()].concat(), &plain());
    rig.reply(&[PARSED.to_vec(), ready('I')].concat());
    rig.sent_up();
    rig.job(&[parse("x", "SELECT nope"), close('S', "s"), SYNC.to_vec(), bind("", "s", &[], 0)].concat());
    assert_eq!(rig.step(), Step::Ask);
    rig.session.allow(plain());
    rig.need();
    assert_eq!(rig.sent_up(), [parse("x", "SELECT nope"), close('S', "s"), SYNC.to_vec()].concat());
    rig.job(SYNC);
    rig.need();
    rig.reply(&[failure(&[('S', "ERROR"), ('C', "42703"), ('M', "no column")]), ready('I')].concat());
    assert_eq!(rig.sent_up(), [bind("", "s", &[], 0), SYNC.to_vec()].concat());
}

/// As without the gateway: the transaction is over, and the code says why.
#[test]
fn what_is_no_sql_fails_a_transaction() {
    let refusal = protocol::postgres::Refusal { sqlstate: "42601", ..denied() };
    let mut rig = Rig::ready();
    rig.job(&query("SELEC 1"));
    assert_eq!(rig.step(), Step::Ask);
    rig.session.deny(&refusal);
    rig.need();
    assert_eq!(rig.sent_up(), [provoked(), SYNC.to_vec()].concat());
    assert_eq!(rig.reply(&[syntax_error(), ready('E')].concat()), [refused(&refusal), ready('E')].concat());
}

/// As with statements, where a savepoint keeps the older portal alive.
#[test]
fn rows_of_the_portal_that_a_name_still_means_are_masked_by_its_own_decision() {
    let mut rig = Rig::ready();
    let masks = [Some(OutputMask::new(mask::Transform::Redact))];
    let obligations = Obligations { outputs: OutputMasks::Columns(masks.into()), ..Obligations::default() };
    rig.run(&query("BEGIN"), &plain());
    rig.reply(&[done("BEGIN"), ready('T')].concat());
    let bound = [parse("", "SELECT secret"), bind("p", "", &[], 0), SYNC.to_vec()].concat();
    rig.run(&bound, &decision(vec![allowed(obligations)]));
    rig.reply(&[PARSED.to_vec(), BOUND.to_vec(), ready('T')].concat());
    rig.run(&query("SAVEPOINT a"), &plain());
    rig.reply(&[done("SAVEPOINT"), ready('T')].concat());
    rig.sent_up();
    let tail = [query("ROLLBACK TO a"), execute("p", 0), SYNC.to_vec()].concat();
    let wrong = [parse("", "SELECT 1"), parse("x", "SELECT nope"), bind("p", "", &[], 0), SYNC.to_vec()];
    rig.job(&[wrong.concat(), tail].concat());
    while rig.step() == Step::Ask {
        rig.session.allow(plain());
    }
    assert!(!has(&rig.sent_up(), "E\0\0\0\x0ap"), "which portal it is is not known yet");
    let error = failure(&[('S', "ERROR"), ('C', "42703"), ('M', "no column")]);
    rig.reply(&[PARSED.to_vec(), error, ready('E'), done("ROLLBACK"), ready('T')].concat());
    assert!(has(&rig.sent_up(), "D\0\0\0\x07Pp\0"), "its columns are asked for");
    let said = rig.reply(&[columns(&[("x", 0, 0, 25, 0)]), texts(&["secret"]), done("SELECT 1")].concat());
    assert!(has(&said, "[redacted]") && !has(&said, "secret"), "{said:?}");
}
