use std::sync::Arc;

use mask::{Detector, Detectors, Transform};
use policy::{Obligations, OutputMask, OutputMasks, Recording};
use protocol::postgres::{Allowed, Decision, Event};

use crate::support::*;

const TEXT: u32 = 25;
const INT: u32 = 23;
const JSONB: u32 = 3802;

/// Masks on public.customers.email by origin.
fn by_origin() -> Obligations {
    let obligations = allow().obligations;
    assert!(obligations.columns.is_some());
    obligations
}

fn positions(masks: &[Option<Transform>]) -> Obligations {
    let masks = masks.iter().map(|mask| mask.map(OutputMask::new)).collect();
    Obligations { outputs: OutputMasks::Columns(masks), ..Obligations::default() }
}

fn detecting() -> Obligations {
    let detectors = Detectors::new(&[(Detector::Email, None)]);
    Obligations { detectors: Some(Arc::new(detectors)), ..Obligations::default() }
}

fn one(obligations: Obligations) -> Arc<Decision> {
    decision(vec![allowed(obligations)])
}

const REDACT: Option<Transform> = Some(Transform::Redact);

/// What the job gets of one simple query's rows.
#[track_caller]
fn rows(obligations: Obligations, head: &[u8], rows: &[u8]) -> Vec<u8> {
    let mut rig = Rig::ready();
    rig.run(&query("SELECT"), &one(obligations));
    assert_eq!(rig.reply(head), head);
    rig.reply(rows)
}

#[test]
fn by_position() {
    let head = columns(&[("id", 0, 0, INT, 0), ("x", 0, 0, TEXT, 0)]);
    let seen = rows(positions(&[None, REDACT]), &head, &[texts(&["1", "a@b.c"]), texts(&["2", ""])].concat());
    assert_eq!(seen, [texts(&["1", "[redacted]"]), texts(&["2", "[redacted]"])].concat());
}

#[test]
fn null_stays_null() {
    let head = columns(&[("x", 0, 0, TEXT, 0)]);
    assert_eq!(rows(positions(&[REDACT]), &head, &row(&[None])), row(&[None]));
}

#[test]
fn other_types_become_null() {
    let head = columns(&[("x", 0, 0, INT, 0), ("y", 0, 0, 1009, 1)]);
    let seen = rows(positions(&[REDACT, REDACT]), &head, &row(&[Some(b"42"), Some(b"\0\0\0\x01")]));
    assert_eq!(seen, row(&[None, None]));
}

#[test]
fn binary_text_and_json() {
    let head = columns(&[("x", 0, 0, TEXT, 1), ("y", 0, 0, JSONB, 1), ("z", 0, 0, 114, 0)]);
    let seen = rows(
        positions(&[REDACT, REDACT, REDACT]),
        &head,
        &row(&[Some(b"a@b.c"), Some(b"\x01{\"a\":1}"), Some(b"{}")]),
    );
    assert_eq!(seen, row(&[Some(b"[redacted]"), Some(b"\x01\"[redacted]\""), Some(b"\"[redacted]\"")]));
}

#[test]
fn by_origin_through_an_alias() {
    let head = columns(&[("harmless", 100, 2, TEXT, 0), ("id", 100, 1, INT, 0)]);
    assert_eq!(rows(by_origin(), &head, &texts(&["a@b.c", "1"])), texts(&["[redacted]", "1"]));
}

#[test]
fn unknown_lineage_shows_base_columns_only() {
    let obligations = Obligations { outputs: OutputMasks::Unknown, ..by_origin() };
    let head = columns(&[
        ("email", 100, 2, TEXT, 0),
        ("name", 100, 3, TEXT, 0),
        ("view", 200, 1, TEXT, 0),
        ("expr", 0, 0, TEXT, 0),
        ("new table", 999, 1, TEXT, 0),
    ]);
    let seen = rows(obligations, &head, &texts(&["a@b.c", "Ann", "v", "e", "n"]));
    assert_eq!(seen, texts(&["[redacted]", "Ann", "[redacted]", "[redacted]", "[redacted]"]));
}

#[test]
fn lineage_of_another_length_masks_everything() {
    let head = columns(&[("a", 100, 3, TEXT, 0), ("b", 0, 0, TEXT, 0)]);
    assert_eq!(rows(positions(&[None]), &head, &texts(&["x", "y"])), texts(&["[redacted]", "[redacted]"]));
}

#[test]
fn hashes_need_an_origin() {
    let head = columns(&[("a", 100, 3, TEXT, 0), ("b", 0, 0, TEXT, 0)]);
    let seen = rows(positions(&[Some(Transform::Hash), Some(Transform::Hash)]), &head, &texts(&["x", "x"]));
    assert!(seen.ends_with(b"[redacted]") && seen.len() > texts(&["[redacted]", "[redacted]"]).len());
}

#[test]
fn a_row_of_another_length_ends_the_session() {
    let mut rig = Rig::ready();
    rig.run(&query("SELECT"), &one(positions(&[REDACT])));
    rig.reply(&columns(&[("x", 0, 0, TEXT, 0)]));
    rig.up(&texts(&["secret", "secret"]));
    rig.closes();
    assert!(!has(&rig.sent_to_job(), "secret"));
}

#[test]
fn detectors_rewrite_text_and_leave_the_rest() {
    let head = columns(&[("x", 0, 0, TEXT, 0), ("n", 0, 0, INT, 0)]);
    let seen =
        rows(detecting(), &head, &[texts(&["plain", "1"]), texts(&["to ann@example.com now", "2"])].concat());
    assert_eq!(seen, [texts(&["plain", "1"]), texts(&["to [redacted:email] now", "2"])].concat());
}

#[test]
fn detectors_turn_containers_to_null() {
    let head = columns(&[("x", 0, 0, 1009, 0), ("y", 0, 0, 1009, 1)]);
    let seen =
        rows(detecting(), &head, &row(&[Some(b"{ann@example.com}"), Some(b"\0\0\0\x01 ann@example.com ")]));
    assert_eq!(seen, row(&[None, None]));
}

#[test]
fn detectors_keep_json_valid() {
    let head = columns(&[("x", 0, 0, 114, 0)]);
    let seen = rows(detecting(), &head, &texts(&["{\"to\":\"ann@example.com\"}"]));
    assert_eq!(seen, texts(&["{\"to\":\"[redacted:email]\"}"]));
}

#[test]
fn portals_without_a_description_are_described_for_the_gateway() {
    let mut rig = Rig::ready();
    let sent = [parse("", "SELECT"), bind("", "", &[], 0), execute("", 0), SYNC.to_vec()].concat();
    rig.run(&sent, &one(positions(&[REDACT, None])));
    assert_eq!(
        rig.sent_up(),
        [parse("", "SELECT"), bind("", "", &[], 0), describe('P', ""), execute("", 0), SYNC.to_vec()]
            .concat()
    );
    let head = columns(&[("x", 0, 0, TEXT, 0), ("y", 0, 0, TEXT, 0)]);
    let seen = rig.reply(&[PARSED.to_vec(), BOUND.to_vec(), head, texts(&["a", "b"])].concat());
    assert_eq!(seen, [PARSED.to_vec(), BOUND.to_vec(), texts(&["[redacted]", "b"])].concat());
}

#[test]
fn portals_the_server_does_not_describe_show_nothing_masked() {
    let mut rig = Rig::ready();
    let sent = [parse("", "SELECT"), bind("", "", &[], 0), execute("", 0), SYNC.to_vec()].concat();
    rig.run(&sent, &one(positions(&[REDACT, None])));
    rig.reply(&[PARSED, BOUND, NO_DATA].concat());
    assert_eq!(rig.reply(&texts(&["a", "b"])), row(&[None, Some(b"b")]));
}

#[test]
fn described_statements_use_the_formats_of_the_bind() {
    let mut rig = Rig::ready();
    let decision = one(positions(&[REDACT, REDACT]));
    rig.run(&[parse("s", "SELECT"), describe('S', "s"), SYNC.to_vec()].concat(), &decision);
    let head = columns(&[("x", 0, 0, TEXT, 0), ("j", 0, 0, JSONB, 0)]);
    rig.reply(&[PARSED.to_vec(), NO_PARAMS.to_vec(), head, ready('I')].concat());
    rig.sent_up();
    rig.job(&[bind("", "s", &[], 1), execute("", 0), SYNC.to_vec()].concat());
    rig.need();
    assert_eq!(rig.sent_up(), [bind("", "s", &[], 1), execute("", 0), SYNC.to_vec()].concat());
    let seen = rig.reply(&[BOUND.to_vec(), row(&[Some(b"a"), Some(b"\x01{}")])].concat());
    assert!(seen.ends_with(&row(&[Some(b"[redacted]"), Some(b"\x01\"[redacted]\"")])));
    rig.reply(&[done("SELECT 1"), ready('I')].concat());
    assert_eq!(rig.ends(), [(1, 0, "SELECT 1".to_owned(), 1, 2)]);
}

#[test]
fn errors_lose_what_quotes_values() {
    let mut rig = Rig::ready();
    rig.run(&query("SELECT"), &one(by_origin()));
    let error = failure(&[
        ('S', "ERROR"),
        ('V', "ERROR"),
        ('C', "22P02"),
        ('M', "invalid input syntax for type integer: \"ann@example.com\""),
        ('D', "ann@example.com"),
        ('W', "function f(ann@example.com)"),
    ]);
    let seen = rig.reply(&error);
    assert!(has(&seen, "22P02") && has(&seen, "withheld"));
    assert!(!has(&seen, "ann@"));
}

#[test]
fn errors_about_names_stay_readable() {
    let mut rig = Rig::ready();
    rig.run(&query("SELECT"), &one(by_origin()));
    let fields = [
        ('S', "ERROR"),
        ('V', "ERROR"),
        ('C', "42703"),
        ('M', "column x does not exist"),
        ('H', "try y"),
        ('P', "8"),
    ];
    assert_eq!(rig.reply(&failure(&fields)), failure(&fields));
    // Without a place in the statement the name may come from a value: secret::regclass.
    rig.reply(&ready('I'));
    rig.run(&query("SELECT"), &one(by_origin()));
    let fields = [('S', "ERROR"), ('V', "ERROR"), ('C', "42P01"), ('M', "relation \"4711\" does not exist")];
    let seen = rig.reply(&failure(&fields));
    assert!(has(&seen, "42P01") && has(&seen, "withheld") && !has(&seen, "4711"));
    // A command that evaluates nothing has it from its own text; a function that it sets off may not.
    rig.reply(&ready('I'));
    let drop = Allowed { inert: true, ..allowed(by_origin()) };
    rig.run(&query("DROP TABLE nope"), &decision(vec![drop]));
    assert_eq!(rig.reply(&failure(&fields)), failure(&fields));
    let inside = [fields.as_slice(), &[('W', "SQL function \"on_drop\"")]].concat();
    assert!(!has(&rig.reply(&failure(&inside)), "4711"));
}

#[test]
fn errors_that_quote_nothing_stay_readable() {
    let mut rig = Rig::ready();
    rig.run(&query("SELECT"), &one(by_origin()));
    let fields = [('S', "ERROR"), ('V', "ERROR"), ('C', "22012"), ('M', "division by zero")];
    assert_eq!(rig.reply(&failure(&fields)), failure(&fields));
}

#[test]
fn raised_messages_are_withheld_whatever_their_code() {
    let mut rig = Rig::ready();
    rig.run(&query("SELECT"), &one(by_origin()));
    for code in ["42501", "00000", "P0001"] {
        let fields =
            [('S', "NOTICE"), ('V', "NOTICE"), ('C', code), ('M', "ann@example.com"), ('F', "pl_exec.c")];
        let mut notice = failure(&fields);
        notice[0] = b'N';
        let seen = rig.reply(&notice);
        assert!(has(&seen, code) && !has(&seen, "ann@"), "{code}");
    }
}

#[test]
fn detectors_read_errors_and_notifications() {
    let mut rig = Rig::ready();
    rig.run(&query("LISTEN x"), &one(detecting()));
    let seen = rig.reply(&failure(&[('S', "ERROR"), ('C', "P0001"), ('M', "no mail to ann@example.com")]));
    assert!(has(&seen, "no mail to [redacted:email]"));
    rig.reply(&ready('I'));
    let seen = rig.reply(&message(b'A', b"\0\0\0\x07channel\0ann@example.com\0"));
    assert!(has(&seen, "channel") && has(&seen, "[redacted:email]") && !has(&seen, "ann@"));
}

#[test]
fn recordings_hold_what_the_job_saw() {
    let mut rig = Rig::ready();
    let obligations = Obligations { record: Recording::Results, ..positions(&[REDACT, None]) };
    rig.run(&query("SELECT"), &one(obligations));
    drop(rig.session.events());
    rig.reply(&[columns(&[("x", 0, 0, TEXT, 0), ("y", 0, 0, TEXT, 0)]), texts(&["a", "b"])].concat());
    let mut events = rig.session.events();
    match events.next() {
        Some(Event::Columns { run: 1, index: 0, columns }) => {
            assert_eq!(columns.names().collect::<Vec<_>>(), ["x", "y"])
        }
        other => panic!("{other:?}"),
    }
    match events.next() {
        Some(Event::Row { row, .. }) => {
            assert_eq!(row.cells().collect::<Vec<_>>(), [Some(&b"[redacted]"[..]), Some(b"b")]);
        }
        other => panic!("{other:?}"),
    }
    assert!(events.next().is_none());
}
