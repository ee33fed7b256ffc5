//! What goes in comes out; what is not a recording is refused without panic or waste.

use std::borrow::Cow;

use crate::common::{frames, header, key, names, recording, scribe, statement};
use proptest::prelude::*;
use record::{
    Batch, Ending, Event, Item, List, Param, Params, PushError, Reader, Stream, Verdict, Writer, limits,
    read, to_json_lines, verify,
};

fn text() -> impl Strategy<Value = Cow<'static, str>> {
    ".{0,40}".prop_map(Cow::Owned)
}

fn list() -> impl Strategy<Value = List<'static>> {
    prop::collection::vec(".{0,12}", 0..4).prop_map(List::Owned)
}

fn params() -> impl Strategy<Value = Params<'static>> {
    let param = prop_oneof![
        Just(Param::Null),
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|data| Param::Value { total: data.len() as u64, data }),
    ];
    prop_oneof![
        Just(Params::None),
        any::<u64>().prop_map(Params::Hidden),
        prop::collection::vec(param, 1..5).prop_map(Params::Kept),
    ]
}

fn event() -> impl Strategy<Value = Event<'static>> {
    let verdict = prop_oneof![Just(Verdict::Allow), Just(Verdict::Approved), Just(Verdict::Deny)];
    prop_oneof![
        (any::<u64>(), text(), params(), verdict, list(), prop::option::of(text())).prop_map(
            |(n, sql, params, verdict, rules, approval)| Event::Statement {
                n,
                sql,
                params,
                verdict,
                rules,
                approval
            }
        ),
        (any::<[u64; 5]>(), text(), prop::option::of(text())).prop_map(
            |([n, rows, bytes, micros, masked], tag, sqlstate)| {
                Event::Finished { n, tag, rows, bytes, sqlstate, micros, masked }
            }
        ),
        (any::<u64>(), list()).prop_map(|(n, names)| Event::Columns { n, names }),
        (any::<u64>(), prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(n, data)| Event::Rows { n, data: data.into() }),
        (any::<u64>(), text(), text(), list()).prop_map(|(n, id, outcome, by)| Event::Approval {
            n,
            id,
            outcome,
            by
        }),
        text().prop_map(|text| Event::Notice { text }),
        (any::<[u64; 2]>(), text()).prop_map(|([n, channel], what)| Event::Channel { n, channel, what }),
        (any::<[u64; 3]>(), text()).prop_map(|([channel, columns, rows], term)| Event::Terminal {
            channel,
            columns,
            rows,
            term
        }),
        (
            any::<u64>(),
            prop_oneof![Just(Stream::Input), Just(Stream::Output), Just(Stream::Error)],
            prop::collection::vec(any::<u8>(), 0..300)
        )
            .prop_map(|(channel, stream, data)| Event::Data { channel, stream, data: data.into() }),
        (any::<[u64; 3]>(), text(), list(), text(), prop::option::of(text())).prop_map(
            |([n, channel, bytes], operation, paths, outcome, digest)| Event::File {
                n,
                channel,
                bytes,
                operation,
                paths,
                outcome,
                digest
            }
        ),
        (any::<[u64; 3]>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(
            |([n, channel, offset], write, data)| Event::Contents {
                n,
                channel,
                offset,
                write,
                data: data.into()
            }
        ),
        (any::<u64>(), prop::option::of(any::<u32>()), prop::option::of(text()))
            .prop_map(|(channel, status, signal)| Event::ChannelClosed { channel, status, signal }),
        text().prop_map(|reason| Event::Closed { reason }),
        (100_u8..).prop_map(|kind| Event::Other { kind }),
    ]
}

/// Every event of a file, owned by virtue of having been compared.
fn assert_holds(file: &[u8], expected: &[(u64, Event<'_>)]) {
    let mut reader = Reader::new(file, Some(key().public())).unwrap();
    assert_eq!(reader.header(), Some(&header()));
    let mut expected = expected.iter();
    while let Some(item) = reader.next_item().unwrap() {
        if let Item::Event { at_ns, event } = item {
            let (at, wanted) = expected.next().expect("an event too many");
            assert_eq!((at_ns, &event), (*at, wanted));
        }
    }
    assert_eq!(expected.next(), None);
    assert_eq!(reader.ending(), Some(Ending::Sealed));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn events_survive(events in prop::collection::vec((0..1_000_000_u64, event()), 0..60), flush in 1..20_usize) {
        let mut scribe = scribe();
        let mut writer = Writer::open(Vec::new(), &header(), &mut scribe).unwrap();
        let mut now = 0;
        let mut expected = Vec::new();
        for (i, (step, event)) in events.into_iter().enumerate() {
            now += step;
            writer.append(now, &event, &mut scribe).unwrap();
            if i % flush == 0 {
                writer.flush(&mut scribe).unwrap();
            }
            expected.push((now, event));
        }
        let file = writer.seal(now, &mut scribe).unwrap();
        assert_holds(&file, &expected);
    }

    #[test]
    fn rubbish_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = read(&bytes);
        let file = recording(&["SELECT 1", "SELECT 2"], false);
        // Rubbish where a frame should begin.
        let _ = read(&[&file[..], &bytes].concat());
    }

    /// Frames whose hashes are right and whose content is anything: only the caps and the parsers stand in between.
    #[test]
    fn well_hashed_rubbish_is_refused(
        body in prop::collection::vec(any::<u8>(), 0..400),
        compress in any::<bool>(),
        raw in prop_oneof![Just(None), any::<u32>().prop_map(Some)],
        records in 0..4_u32,
        kind in prop_oneof![Just(*b"DATA"), Just(*b"SIGN"), Just(*b"HEAD")],
    ) {
        let mut file = recording(&[], false);
        let (_, start, _) = *frames(&file).last().unwrap();
        let previous = file[start + 104..start + 136].to_vec();
        let stored = if compress { zstd::bulk::compress(&body, 1).unwrap() } else { body.clone() };
        let mut frame = Vec::new();
        frame.extend_from_slice(&kind);
        frame.extend_from_slice(&records.to_le_bytes());
        frame.extend_from_slice(&2_u64.to_le_bytes());
        frame.extend_from_slice(&[0; 16]);
        frame.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        frame.extend_from_slice(&raw.unwrap_or(body.len() as u32).to_le_bytes());
        frame.extend_from_slice(&previous);
        frame.extend_from_slice(blake3::hash(&stored).as_bytes());
        let own = blake3::hash(&frame);
        frame.extend_from_slice(own.as_bytes());
        file.extend(frame);
        file.extend(stored);
        let _ = read(&file);
    }
}

#[test]
fn a_long_recording_is_cut_into_blocks_and_signed_on_the_way() {
    let mut scribe = scribe();
    let mut writer = Writer::open(Vec::new(), &header(), &mut scribe).unwrap();
    let mut expected = Vec::new();
    let sql: Vec<String> = (0..20_000).map(|i| format!("SELECT * FROM orders WHERE id = {i}")).collect();
    for (i, sql) in sql.iter().enumerate() {
        // Five minutes in all.
        let now = i as u64 * 15_000_000;
        writer.append(now, &statement(i as u64, sql), &mut scribe).unwrap();
        expected.push((now, statement(i as u64, sql)));
    }
    let file = writer.seal(300_000_000_000, &mut scribe).unwrap();
    assert_holds(&file, &expected);
    let report = verify(&file[..], &key().public()).unwrap();
    assert!(report.blocks > 10, "{report:?}");
    let signatures = frames(&file).iter().filter(|frame| &frame.0 == b"SIGN").count();
    assert!(signatures > 10, "{signatures} checkpoints in five minutes");
}

#[test]
fn long_parameters_are_cut_and_their_length_is_kept() {
    let (long, short) = (vec![b'x'; limits::PARAM + 1], b"7".to_vec());
    let many: Vec<Option<&[u8]>> = std::iter::repeat_n(Some(&long[..]), 40).collect();
    let rules = names(&["read", "more"]);
    let mut scribe = scribe();
    let mut writer = Writer::open(Vec::new(), &header(), &mut scribe).unwrap();
    for params in [&[Some(&long[..]), None, Some(&short)][..], &many] {
        let event = Event::Statement {
            n: 1,
            sql: "SELECT $1".into(),
            params: Params::Shared(params),
            verdict: Verdict::Approved,
            rules: List::Shared(&rules),
            approval: Some("a1".into()),
        };
        writer.append(1, &event, &mut scribe).unwrap();
    }
    let file = writer.seal(1, &mut scribe).unwrap();
    let mut out = Vec::new();
    to_json_lines(&mut Reader::new(&file[..], None).unwrap(), &mut out).unwrap();
    let lines: Vec<serde_json::Value> = out
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0]["event"], "session");
    assert_eq!(lines[0]["subject"], "payments-agent");
    assert_eq!(lines[1]["event"], "statement");
    assert_eq!(lines[1]["verdict"], "approved");
    assert_eq!(lines[1]["rules"], serde_json::json!(["read", "more"]));
    assert_eq!(lines[1]["params"][0]["total"], limits::PARAM + 1);
    assert_eq!(lines[1]["params"][0]["start"].as_str().unwrap().len(), limits::PARAM);
    assert_eq!(lines[1]["params"][1], serde_json::Value::Null);
    assert_eq!(lines[1]["params"][2], "7");
    let kept: usize =
        lines[2]["params"].as_array().unwrap().iter().map(|p| p["start"].as_str().unwrap().len()).sum();
    assert_eq!(kept, limits::PARAMS);
    assert_eq!(lines[3], serde_json::json!({"event": "end", "state": "sealed"}));
}

#[test]
fn an_oversized_record_is_refused_and_changes_nothing() {
    let mut batch = Batch::default();
    batch.push(5, &statement(1, "SELECT 1")).unwrap();
    let len = batch.len();
    let huge = "x".repeat(limits::RECORD);
    assert!(matches!(batch.push(6, &statement(2, &huge)), Err(PushError::TooLarge(_))));
    assert_eq!(batch.len(), len);
    let rows = Event::Rows { n: 1, data: vec![0xff; limits::RECORD - 100].into() };
    batch.push(7, &rows).unwrap();
    assert_eq!(batch.push(8, &rows), Err(PushError::Full));

    let mut scribe = scribe();
    let mut writer = Writer::open(Vec::new(), &header(), &mut scribe).unwrap();
    writer.write(&batch, &mut scribe).unwrap();
    let file = writer.seal(9, &mut scribe).unwrap();
    assert_holds(&file, &[(5, statement(1, "SELECT 1")), (7, rows)]);
}

#[test]
fn the_largest_incompressible_block_fits_the_caps() {
    // Noise, so that zstd cannot shrink it.
    let mut noise = vec![0_u8; limits::RECORD - 100];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let mut scribe = scribe();
    let mut writer = Writer::open(Vec::new(), &header(), &mut scribe).unwrap();
    let small = Event::Rows { n: 1, data: noise[..limits::BLOCK_TARGET - 40].to_vec().into() };
    let large = Event::Rows { n: 1, data: noise.into() };
    let mut batch = Batch::default();
    batch.push(1, &small).unwrap();
    batch.push(2, &large).unwrap();
    writer.write(&batch, &mut scribe).unwrap();
    let file = writer.seal(3, &mut scribe).unwrap();
    assert_holds(&file, &[(1, small), (2, large)]);
}

#[test]
fn older_records_are_refused() {
    let mut scribe = scribe();
    let mut writer = Writer::open(Vec::new(), &header(), &mut scribe).unwrap();
    let (mut late, mut early) = (Batch::default(), Batch::default());
    late.push(10, &statement(1, "SELECT 1")).unwrap();
    early.push(5, &statement(2, "SELECT 2")).unwrap();
    writer.write(&late, &mut scribe).unwrap();
    assert!(writer.write(&early, &mut scribe).is_err());
}
