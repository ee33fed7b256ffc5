use std::sync::Arc;

use mask::Transform;
use policy::{Obligations, OutputMask, OutputMasks};
use protocol::{
    CloseReason, Step,
    postgres::{Allowed, CopyOptions, Decision},
};

use crate::support::*;

const WANTS: &[u8] = b"G\0\0\0\x09\0\0\x01\0\0";

fn out(columns: u8) -> Vec<u8> {
    let mut body = vec![0, 0, columns];
    body.extend((0..columns).flat_map(|_| [0, 0]));
    message(b'H', &body)
}

fn data(text: &[u8]) -> Vec<u8> {
    message(b'd', text)
}

fn masked(copy: Option<CopyOptions>) -> Arc<Decision> {
    let masks = vec![None, Some(OutputMask::new(Transform::Redact))];
    let obligations = Obligations { outputs: OutputMasks::Columns(masks), ..Obligations::default() };
    decision(vec![Allowed { copy: copy.map(Into::into), ..allowed(obligations) }])
}

#[test]
fn in_by_simple_query() {
    let mut rig = Rig::ready();
    rig.run(&query("COPY t FROM STDIN"), &plain());
    assert_eq!(rig.reply(WANTS), WANTS);
    rig.sent_up();
    let sent = [data(b"1\n"), data(b"2\n"), message(b'c', b"")].concat();
    rig.job(&sent[..9]);
    rig.need();
    rig.job(&sent[9..]);
    rig.need();
    assert_eq!(rig.sent_up(), sent);
    rig.reply(&[done("COPY 2"), ready('I')].concat());
    assert_eq!(rig.ends(), [(1, 0, "COPY 2".to_owned(), 0, 0)]);
    assert!(rig.session.idle());
}

#[test]
fn in_by_execute_with_a_sync_that_the_server_ignores() {
    let mut rig = Rig::ready();
    let begin =
        [parse("", "COPY t FROM STDIN"), bind("", "", &[], 0), execute("", 0), SYNC.to_vec()].concat();
    rig.run(&begin, &plain());
    rig.reply(&[PARSED, BOUND, WANTS].concat());
    rig.sent_up();
    let sent = [data(b"1\n"), message(b'c', b""), SYNC.to_vec()].concat();
    rig.job(&sent);
    rig.need();
    assert_eq!(rig.sent_up(), sent);
    let answer = [done("COPY 1"), ready('I')].concat();
    assert_eq!(rig.reply(&answer), answer);
    assert!(rig.session.idle());
}

#[test]
fn in_that_fails_drops_what_is_still_sent() {
    let mut rig = Rig::ready();
    rig.run(&query("COPY t FROM STDIN"), &plain());
    rig.reply(WANTS);
    rig.job(&data(b"bad\n"));
    rig.need();
    rig.sent_up();
    rig.reply(&[failure(&[('S', "ERROR"), ('C', "22P02"), ('M', "bad")]), ready('I')].concat());
    rig.job(&[data(b"more\n"), message(b'c', b"")].concat());
    rig.need();
    assert!(rig.sent_up().is_empty());
    rig.run(&query("SELECT 1"), &plain());
}

#[test]
fn data_before_the_server_wants_it_waits() {
    let mut rig = Rig::ready();
    rig.job(&[query("COPY t FROM STDIN"), data(b"1\n"), message(b'c', b"")].concat());
    assert_eq!(rig.step(), Step::Ask);
    rig.session.allow(plain());
    rig.need();
    assert_eq!(rig.sent_up(), query("COPY t FROM STDIN"));
    rig.reply(WANTS);
    assert_eq!(rig.sent_up(), [data(b"1\n"), message(b'c', b"")].concat());
}

#[test]
fn other_messages_in_copy_data_end_the_session() {
    let mut rig = Rig::ready();
    rig.run(&query("COPY t FROM STDIN"), &plain());
    rig.reply(WANTS);
    rig.job(&query("SELECT 1"));
    assert!(matches!(rig.closes(), CloseReason::Job(_)));
}

#[test]
fn out_unmasked() {
    let mut rig = Rig::ready();
    rig.run(&query("COPY t TO STDOUT"), &plain());
    let answer = [out(2), data(b"1\ta\n"), message(b'c', b""), done("COPY 1"), ready('I')].concat();
    assert_eq!(rig.reply(&answer), answer);
    assert_eq!(rig.ends(), [(1, 0, "COPY 1".to_owned(), 1, 0)]);
}

#[test]
fn out_masked() {
    let mut rig = Rig::ready();
    rig.run(&query("COPY t TO STDOUT"), &masked(Some(CopyOptions::text())));
    let seen = rig.reply(
        &[out(2), data(b"1\ta@b.c\n"), data(b"2\t\\N\n"), message(b'c', b""), done("COPY 2")].concat(),
    );
    let wanted =
        [out(2), data(b"1\t[redacted]\n"), data(b"2\t\\N\n"), message(b'c', b""), done("COPY 2")].concat();
    assert_eq!(seen, wanted);
    assert_eq!(rig.ends(), [(1, 0, "COPY 2".to_owned(), 2, 1)]);
}

#[test]
fn out_of_unknown_format_is_withheld() {
    let mut rig = Rig::ready();
    rig.run(&query("COPY t TO STDOUT"), &masked(None));
    let seen = rig.reply(&[out(2), data(b"1\ta@b.c\n")].concat());
    assert!(has(&seen, "42501") && !has(&seen, "a@b.c"));
    assert!(rig.session.take_cancel());
    rig.session.cancel_done();
    let rest =
        [data(b"2\tx\n"), failure(&[('S', "ERROR"), ('C', "57014"), ('M', "canceled")]), ready('I')].concat();
    assert_eq!(rig.reply(&rest), ready('I'));
}

#[test]
fn a_row_without_an_end_ends_the_session() {
    let mut rig = Rig::ready();
    rig.run(&query("COPY t TO STDOUT"), &masked(Some(CopyOptions::text())));
    rig.reply(&out(2));
    rig.up(&data(b"1\tsecr"));
    assert!(matches!(rig.closes(), CloseReason::Upstream(_)));
    assert!(!has(&rig.sent_to_job(), "secr"));
}
