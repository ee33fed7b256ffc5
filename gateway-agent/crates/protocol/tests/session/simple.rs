use std::sync::Arc;

use policy::{Limits, Obligations, OutputMasks};
use protocol::{
    CloseReason, Step,
    postgres::{AskKind, Decision, Settings},
};

use crate::support::*;

#[test]
fn an_allowed_query_goes_through_unchanged() {
    let mut rig = Rig::ready();
    let sql = query("SELECT 1");
    rig.job(&sql);
    assert_eq!(rig.step(), Step::Ask);
    rig.need();
    let pending = rig.session.pending().unwrap();
    assert_eq!((pending.ask, pending.kind, pending.sql), (1, AskKind::Query, "SELECT 1"));
    assert!(rig.sent_up().is_empty());
    rig.session.allow(plain());
    rig.need();
    assert_eq!(rig.sent_up(), sql);
    let answer =
        [columns(&[("?column?", 0, 0, 23, 0)]), texts(&["1"]), done("SELECT 1"), ready('I')].concat();
    assert_eq!(rig.reply(&answer), answer);
    assert_eq!(rig.ends(), [(1, 0, "SELECT 1".to_owned(), 1, 0)]);
    assert!(rig.session.idle());
}

#[test]
fn replies_in_single_bytes() {
    let mut rig = Rig::ready();
    rig.run(&query("SELECT 1"), &plain());
    let answer = [columns(&[("x", 0, 0, 25, 0)]), texts(&["hello"]), done("SELECT 1"), ready('I')].concat();
    let mut seen = Vec::new();
    for byte in &answer {
        seen.extend(rig.reply(&[*byte]));
    }
    assert_eq!(seen, answer);
}

#[test]
fn queries_in_single_bytes() {
    let mut rig = Rig::ready();
    let sql = query("SELECT 1");
    for byte in &sql[..sql.len() - 1] {
        rig.job(&[*byte]);
        rig.need();
    }
    rig.job(&sql[sql.len() - 1..]);
    assert_eq!(rig.step(), Step::Ask);
}

#[test]
fn a_denied_query_leaves_the_session_usable() {
    let mut rig = Rig::ready();
    rig.job(&query("DROP TABLE t"));
    assert_eq!(rig.step(), Step::Ask);
    rig.session.deny(&denied());
    rig.need();
    assert_eq!(rig.sent_to_job(), [refused(&denied()), ready('I')].concat());
    assert!(rig.sent_up().is_empty());
    rig.run(&query("SELECT 1"), &plain());
    assert_eq!(rig.sent_up(), query("SELECT 1"));
}

#[test]
fn a_deny_tells_the_transaction_as_it_is() {
    let mut rig = Rig::ready();
    rig.run(&query("BEGIN"), &plain());
    rig.reply(&[done("BEGIN"), ready('T')].concat());
    rig.job(&query("DROP TABLE t"));
    assert_eq!(rig.step(), Step::Ask);
    rig.session.deny(&denied());
    rig.need();
    assert_eq!(rig.sent_to_job(), [refused(&denied()), ready('T')].concat());
}

#[test]
fn a_deny_waits_for_the_replies_before_it() {
    let mut rig = Rig::ready();
    rig.run(&query("BEGIN"), &plain());
    rig.job(&query("DROP TABLE t"));
    assert_eq!(rig.step(), Step::Ask);
    rig.session.deny(&denied());
    rig.need();
    assert!(rig.sent_to_job().is_empty());
    rig.run(&query("SELECT 1"), &plain());
    // The status is the one after BEGIN, not the one when it was denied.
    let begun = [done("BEGIN"), ready('T')].concat();
    assert_eq!(rig.reply(&begun), [begun, refused(&denied()), ready('T')].concat());
    let selected = [columns(&[("x", 0, 0, 25, 0)]), done("SELECT 0"), ready('T')].concat();
    assert_eq!(rig.reply(&selected), selected);
}

#[test]
fn statements_of_one_query_are_told_apart() {
    let mut rig = Rig::ready();
    let both = decision(vec![allowed(Obligations::default()), allowed(Obligations::default())]);
    rig.run(&query("SELECT 1; SELECT 2"), &both);
    let one = [columns(&[("x", 0, 0, 25, 0)]), texts(&["1"]), done("SELECT 1")].concat();
    rig.reply(&[one.clone(), one, ready('I')].concat());
    assert_eq!(rig.ends(), [(1, 0, "SELECT 1".to_owned(), 1, 0), (1, 1, "SELECT 1".to_owned(), 1, 0)]);
}

#[test]
fn more_results_than_statements_end_the_session() {
    let mut rig = Rig::ready();
    rig.run(&query("SELECT 1"), &plain());
    rig.reply(&[columns(&[("x", 0, 0, 25, 0)]), done("SELECT 0")].concat());
    rig.up(&columns(&[("secret", 0, 0, 25, 0)]));
    assert!(matches!(rig.closes(), CloseReason::Upstream(_)));
    assert!(!has(&rig.sent_to_job(), "secret"));
}

#[test]
fn rows_without_a_question_end_the_session() {
    let mut rig = Rig::ready();
    rig.up(&texts(&["secret"]));
    assert!(matches!(rig.closes(), CloseReason::Upstream(_)));
    assert!(!has(&rig.sent_to_job(), "secret"));
}

#[test]
fn an_empty_query() {
    let mut rig = Rig::ready();
    rig.run(&query(""), &decision(Vec::new()));
    let answer = [message(b'I', b""), ready('I')].concat();
    assert_eq!(rig.reply(&answer), answer);
    assert_eq!(rig.ends(), [(1, 0, String::new(), 0, 0)]);
}

#[test]
fn a_server_error_is_told_as_it_is() {
    let mut rig = Rig::ready();
    rig.run(&query("SELECT 1/0"), &plain());
    let answer = [failure(&[('S', "ERROR"), ('C', "22012"), ('M', "division by zero")]), ready('I')].concat();
    assert_eq!(rig.reply(&answer), answer);
    assert_eq!(rig.ends(), [(1, 0, "failed 22012".to_owned(), 0, 0)]);
}

#[test]
fn a_decision_of_another_epoch_does_not_count() {
    let mut rig = Rig::ready();
    rig.job(&query("SELECT 1"));
    assert_eq!(rig.step(), Step::Ask);
    rig.session.set_epoch(2);
    rig.session.allow(plain());
    assert_eq!(rig.step(), Step::Ask);
    assert!(rig.sent_up().is_empty());
}

#[test]
fn too_long_a_query_is_refused_while_it_streams() {
    let mut rig = Rig::with(Settings { sql_max: 100, ..Settings::new(key()) });
    let long = query(&"x".repeat(1000));
    rig.job(&long[..500]);
    rig.need();
    rig.job(&long[500..]);
    rig.need();
    let told = rig.sent_to_job();
    assert!(has(&told, "54000") && told.ends_with(&ready('I')));
    assert!(rig.session.job_in().is_empty());
    rig.run(&query("SELECT 1"), &plain());
}

#[test]
fn calls_of_unknown_functions_are_refused() {
    let mut rig = Rig::ready();
    rig.job(&message(b'F', b"\0\0\0\x01\0\0\0\0\0\0"));
    rig.need();
    let told = rig.sent_to_job();
    assert!(has(&told, "42501") && told.ends_with(&ready('I')));
    assert!(rig.sent_up().is_empty());
}

/// lo_open (952) or loread (954) of two integers.
fn function_call(function: u32) -> Vec<u8> {
    let mut body = function.to_be_bytes().to_vec();
    body.extend_from_slice(b"\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x04\0\0\0\x09\0\x01");
    message(b'F', &body)
}

#[test]
fn a_function_call_is_decided_as_the_sql_that_does_the_same() {
    let mut rig = Rig::ready();
    rig.job(&function_call(952));
    assert_eq!(rig.step(), Step::Ask);
    let pending = rig.session.pending().unwrap();
    assert_eq!((pending.kind, pending.sql), (AskKind::Function, "SELECT pg_catalog.lo_open($1, $2)"));
    assert_eq!(pending.params.iter().count(), 2);
    assert!(rig.sent_up().is_empty());
    rig.session.allow(plain());
    rig.need();
    assert_eq!(rig.sent_up(), function_call(952));
    let answer = [message(b'V', b"\0\0\0\x04\0\0\0\0"), ready('T')].concat();
    assert_eq!(rig.reply(&answer), answer);
    assert_eq!(rig.ends(), [(1, 0, "FUNCTION".to_owned(), 1, 0)]);
    // A failed one leaves the session as it is.
    rig.run(&function_call(952), &plain());
    let failed =
        [failure(&[('S', "ERROR"), ('V', "ERROR"), ('C', "42704"), ('M', "no such object")]), ready('E')]
            .concat();
    assert_eq!(rig.reply(&failed), failed);
    rig.job(&function_call(952));
    assert_eq!(rig.step(), Step::Ask);
    rig.session.deny(&denied());
    rig.need();
    assert_eq!(rig.sent_to_job(), [refused(&denied()), ready('E')].concat());
}

#[test]
fn a_function_call_s_data_cannot_be_masked() {
    let masked =
        || decision(vec![allowed(Obligations { outputs: OutputMasks::Unknown, ..Obligations::default() })]);
    let mut rig = Rig::ready();
    rig.run(&function_call(954), &masked());
    assert!(rig.sent_up().is_empty());
    let told = rig.sent_to_job();
    assert!(has(&told, "42501") && told.ends_with(&ready('I')), "{told:?}");
    // A descriptor is no data.
    rig.run(&function_call(952), &masked());
    assert_eq!(rig.sent_up(), function_call(952));
}

#[test]
fn a_reply_without_a_call_ends_the_session() {
    let mut rig = Rig::ready();
    rig.run(&query("SELECT 1"), &plain());
    rig.up(&message(b'V', b"\0\0\0\x04\0\0\0\0"));
    assert!(matches!(rig.step(), Step::Close(CloseReason::Upstream(_))));
}

#[test]
fn open_decisions_take_any_number_of_results_and_no_closed_ones_after() {
    let open = Arc::new(Decision {
        statements: vec![allowed(Obligations::default())],
        epoch: 1,
        open: true,
        context: Arc::new(()),
    });
    let mut rig = Rig::ready();
    rig.run(&query("what the gateway cannot read"), &open);
    assert_eq!(rig.sent_up(), query("what the gateway cannot read"));
    let answer =
        [done("SET"), columns(&[("x", 0, 0, 25, 0)]), texts(&["a"]), done("SELECT 1"), ready('I')].concat();
    assert_eq!(rig.reply(&answer), answer);
    // Settings that reading rests on may change now.
    let setting = message(b'S', b"standard_conforming_strings\0off\0");
    assert_eq!(rig.reply(&setting), setting);
    rig.job(&query("SELECT 1"));
    assert_eq!(rig.step(), Step::Ask);
    rig.session.allow(plain());
    assert_eq!(rig.step(), Step::Close(CloseReason::Refused));
    assert!(!rig.sent_up().starts_with(b"Q"));
}

#[test]
fn broken_messages_end_the_session() {
    for wrong in [
        &b"Q\0\0\0\x03"[..],
        b"Q\xff\xff\xff\xff",
        b"Q\0\0\0\x06ab",
        b"?\0\0\0\x04",
        b"p\0\0\0\x05\0",
        b"S\0\0\0\x05x",
        b"D\0\0\0\x06X\0",
        b"P\0\0\0\x06\0\0",
    ] {
        let mut rig = Rig::ready();
        rig.job(wrong);
        assert!(matches!(rig.closes(), CloseReason::Job(_)), "{wrong:?}");
        assert!(has(&rig.sent_to_job(), "08P01"), "{wrong:?}");
        assert_eq!(rig.sent_up(), b"X\0\0\0\x04", "{wrong:?}");
    }
}

#[test]
fn goodbye_is_passed_on() {
    let mut rig = Rig::ready();
    rig.job(b"X\0\0\0\x04");
    assert_eq!(rig.closes(), CloseReason::Ended);
    assert_eq!(rig.sent_up(), b"X\0\0\0\x04");
}

#[test]
fn notices_go_between_messages() {
    let mut rig = Rig::ready();
    rig.run(&query("SELECT 1"), &plain());
    let long = row(&[Some(&[b'x'; 100])]);
    rig.reply(&[columns(&[("x", 0, 0, 25, 0)]), long[..50].to_vec()].concat());
    rig.session.notice("waiting for @dba", None);
    assert!(rig.sent_to_job().is_empty());
    let rest = [long[50..].to_vec(), done("SELECT 1"), ready('I')].concat();
    let seen = rig.reply(&rest);
    assert!(seen.starts_with(&long[50..]));
    assert!(has(&seen, "waiting for @dba"));
    assert!(seen.ends_with(&ready('I')));
}

#[test]
fn back_pressure_on_both_legs() {
    let mut rig = Rig::with(Settings { high_water: 1000, ..Settings::new(key()) });
    rig.run(&query("SELECT x"), &plain());
    rig.reply(&columns(&[("x", 0, 0, 25, 0)]));
    let one = row(&[Some(&[b'x'; 500])]);
    for _ in 0..400 {
        rig.up(&one);
    }
    rig.need();
    assert!(!rig.session.reads(UPSTREAM));
    let mut seen = rig.sent_to_job();
    assert!(seen.len() < 3000);
    loop {
        rig.need();
        let more = rig.sent_to_job();
        if more.is_empty() {
            break;
        }
        seen.extend(more);
    }
    assert!(rig.session.reads(UPSTREAM));
    assert_eq!(seen.len(), one.len() * 400);
}

#[test]
fn denied_queries_do_not_pile_up_for_a_client_that_never_reads() {
    let mut rig = Rig::with(Settings { high_water: 1000, ..Settings::new(key()) });
    for _ in 0..1000 {
        rig.job(&query("DROP TABLE t"));
    }
    let mut asked = 0;
    while rig.step() == Step::Ask {
        asked += 1;
        rig.session.deny(&denied());
    }
    assert!(asked < 20, "{asked}");
    assert!(rig.sent_to_job().len() < 2000);
}

#[test]
fn a_row_limit_cuts_the_result() {
    let mut rig = Rig::ready();
    let limits = Limits { rows: Some(2), bytes: None };
    rig.run(&query("SELECT x"), &decision(vec![allowed(Obligations { limits, ..Obligations::default() })]));
    let head = columns(&[("x", 0, 0, 25, 0)]);
    let seen =
        rig.reply(&[head.clone(), texts(&["1"]), texts(&["2"]), texts(&["3"]), texts(&["4"])].concat());
    assert!(seen.starts_with(&[head, texts(&["1"]), texts(&["2"])].concat()));
    assert!(has(&seen, "54000") && has(&seen, "policy rule read"));
    assert!(!has(&seen, "Z\0\0\0\x05"));
    assert!(rig.session.take_cancel());
    assert!(!rig.session.take_cancel());
    // Nothing is sent while the cancel is on its way, so that it cannot hit something else.
    rig.job(&query("SELECT 2"));
    rig.need();
    let cancelled = [failure(&[('S', "ERROR"), ('C', "57014"), ('M', "canceled")]), ready('I')].concat();
    assert_eq!(rig.reply(&cancelled), ready('I'));
    rig.need();
    assert!(rig.session.pending().is_none());
    rig.session.cancel_done();
    assert_eq!(rig.step(), Step::Ask);
    assert_eq!(rig.ends(), [(1, 0, "limited".to_owned(), 2, 0)]);
}

#[test]
fn a_byte_limit_cuts_the_result() {
    let mut rig = Rig::ready();
    let limits = Limits { rows: None, bytes: Some(30) };
    rig.run(&query("SELECT x"), &decision(vec![allowed(Obligations { limits, ..Obligations::default() })]));
    let seen =
        rig.reply(&[columns(&[("x", 0, 0, 25, 0)]), texts(&["1"]), texts(&["2"]), texts(&["3"])].concat());
    assert!(has(&seen, "54000") && has(&seen, "limit of bytes"));
    let rest = [done("SELECT 3"), ready('I')].concat();
    assert_eq!(rig.reply(&rest), ready('I'));
    // It finished before anyone took the cancel: there is nothing to cancel any more.
    assert!(!rig.session.take_cancel());
}

#[test]
fn the_server_going_away_is_told() {
    let mut rig = Rig::ready();
    rig.run(&query("SELECT 1"), &plain());
    rig.session.upstream_gone();
    assert_eq!(rig.closes(), CloseReason::UpstreamGone);
    assert!(has(&rig.sent_to_job(), "08006"));
}

#[test]
fn the_servers_own_farewell_is_enough() {
    let mut rig = Rig::ready();
    let fatal = failure(&[('S', "FATAL"), ('V', "FATAL"), ('C', "57P01"), ('M', "shutting down")]);
    rig.up(&fatal);
    rig.session.upstream_gone();
    assert_eq!(rig.closes(), CloseReason::UpstreamGone);
    assert_eq!(rig.sent_to_job(), fatal);
}

#[test]
fn changed_pins_end_the_session() {
    for pin in ["client_encoding\0LATIN1\0", "standard_conforming_strings\0off\0"] {
        let mut rig = Rig::ready();
        rig.up(&message(b'S', pin.as_bytes()));
        assert!(matches!(rig.closes(), CloseReason::Upstream(_)));
    }
}

#[test]
fn a_search_path_that_code_on_the_server_changed_ends_the_session() {
    let mut rig = Rig::ready();
    rig.up(&message(b'S', b"search_path\0evil, public\0"));
    assert!(matches!(rig.closes(), CloseReason::Upstream(_)));
    assert!(has(&rig.sent_to_job(), "search_path is no longer"));
}

fn canceled() -> Vec<u8> {
    failure(&[
        ('S', "ERROR"),
        ('V', "ERROR"),
        ('C', "57014"),
        ('M', "canceling statement due to user request"),
    ])
}

#[test]
fn a_run_that_is_cancelled_for_the_gateway_ends_in_its_words() {
    let mut rig = Rig::ready();
    rig.run(&query("SELECT pg_sleep(9)"), &plain());
    assert!(!rig.session.cancel_run(2, &denied()), "there is no such run");
    assert!(rig.session.cancel_run(1, &denied()));
    assert!(rig.session.take_cancel() && !rig.session.take_cancel());
    assert!(!rig.session.cancel_run(1, &denied()), "it is being cancelled");
    rig.session.cancel_done();
    let seen = rig.reply(&[canceled(), ready('I')].concat());
    assert_eq!(seen, [refused(&denied()), ready('I')].concat());
    assert_eq!(rig.ends(), [(1, 0, "failed 57014".to_owned(), 0, 0)]);
    // The next one is its own.
    rig.run(&query("SELECT 2"), &plain());
    assert_eq!(rig.reply(&[canceled(), ready('I')].concat()), [canceled(), ready('I')].concat());
}

#[test]
fn a_run_that_ends_before_it_is_cancelled_ends_as_it_does() {
    let mut rig = Rig::ready();
    rig.run(&query("UPDATE t SET a = 1"), &plain());
    assert!(rig.session.cancel_run(1, &denied()));
    let seen = rig.reply(&[done("UPDATE 1"), ready('I')].concat());
    assert_eq!(seen, [done("UPDATE 1"), ready('I')].concat());
    rig.session.cancel_done();
    rig.run(&query("SELECT 2"), &plain());
    assert_eq!(rig.reply(&[canceled(), ready('I')].concat()), [canceled(), ready('I')].concat());
}

#[test]
fn what_waits_for_a_lock_while_it_is_parsed_is_cancelled_too() {
    let mut rig = Rig::ready();
    rig.run(&parse("", "SELECT x"), &plain());
    rig.job(&[bind("", "", &[], 0), execute("", 0), b"S\0\0\0\x04".to_vec()].concat());
    rig.need();
    assert!(rig.session.cancel_run(1, &denied()));
    let seen = rig.reply(&[canceled(), ready('I')].concat());
    assert_eq!(seen, [refused(&denied()), ready('I')].concat());
    assert_eq!(rig.ends(), [(1, 0, "skipped".to_owned(), 0, 0)]);
}

#[test]
fn terminating_tells_both_sides() {
    let mut rig = Rig::ready();
    rig.job(&query("SELECT 1"));
    assert_eq!(rig.step(), Step::Ask);
    rig.session.terminate(&denied());
    rig.session.allow(plain());
    assert_eq!(rig.closes(), CloseReason::Refused);
    assert!(has(&rig.sent_to_job(), "FATAL"));
    assert_eq!(rig.sent_up(), b"X\0\0\0\x04");
}

#[test]
fn undrained_events_stop_the_session() {
    let mut rig = Rig::ready();
    let decision = plain();
    let one = query(&format!("SELECT {}", "x".repeat(60_000)));
    let mut asked = 0;
    for _ in 0..50 {
        rig.job(&one);
        if rig.step() != Step::Ask {
            break;
        }
        asked += 1;
        rig.session.allow(Arc::clone(&decision));
        rig.sent_up();
    }
    assert!((10..30).contains(&asked), "{asked}");
    drop(rig.session.events());
    assert_eq!(rig.step(), Step::Ask);
}
