//! Whatever comes, nothing panics, and nothing undecided goes upstream.

use std::sync::Arc;

use policy::{Obligations, OutputMasks};
use proptest::prelude::*;
use protocol::Step;

use crate::{model, support::*};

/// Something a client or server could send, or nearly.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![Just(""), Just("a"), Just("b")];
    let sql = prop_oneof![Just("SELECT 1"), Just("DROP"), Just("LATER"), Just("")];
    prop_oneof![
        sql.clone().prop_map(query),
        (name.clone(), sql).prop_map(|(name, sql)| parse(name, sql)),
        (name.clone(), name.clone(), 0..2u8).prop_map(|(p, s, f)| bind(p, s, &["x"], f)),
        (prop_oneof![Just('S'), Just('P')], name.clone()).prop_map(|(kind, name)| describe(kind, name)),
        (prop_oneof![Just('S'), Just('P')], name.clone()).prop_map(|(kind, name)| close(kind, name)),
        (name, 0..3u8).prop_map(|(name, rows)| execute(name, rows)),
        Just(SYNC.to_vec()),
        Just(FLUSH.to_vec()),
        Just(message(b'd', b"1\ta\n")),
        Just(message(b'c', b"")),
        Just(message(b'f', b"no\0")),
        Just(PARSED.to_vec()),
        Just(BOUND.to_vec()),
        Just(CLOSED.to_vec()),
        Just(NO_DATA.to_vec()),
        Just(NO_PARAMS.to_vec()),
        Just(columns(&[("x", 100, 2, 25, 0)])),
        Just(texts(&["secret"])),
        Just(done("SELECT 1")),
        Just(ready('I')),
        Just(ready('T')),
        Just(failure(&[('S', "ERROR"), ('C', "22012"), ('M', "secret")])),
        Just(message(b'G', b"\0\0\x01\0\0")),
        Just(message(b'H', b"\0\0\x01\0\0")),
        Just(message(b's', b"")),
        prop::collection::vec(any::<u8>(), 0..40),
    ]
}

#[derive(Debug, Clone)]
enum Move {
    Job(Vec<u8>),
    Up(Vec<u8>),
    Epoch,
    Cancelled,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        6 => piece().prop_map(Move::Job),
        6 => piece().prop_map(Move::Up),
        1 => Just(Move::Epoch),
        1 => Just(Move::Cancelled),
    ];
    prop::collection::vec(one, 0..60)
}

/// Plays the moves and answers asks: DROP is denied, LATER deferred, the rest masked.
fn play(rig: &mut Rig, moves: &[Move]) -> (Vec<u8>, Vec<u8>) {
    let (mut up, mut job) = (Vec::new(), Vec::new());
    let mut epoch = 1;
    for one in moves {
        match one {
            Move::Job(bytes) => rig.job(bytes),
            Move::Up(bytes) => rig.up(bytes),
            Move::Epoch => {
                epoch += 1;
                rig.session.set_epoch(epoch);
            }
            Move::Cancelled => {
                rig.session.take_cancel();
                rig.session.cancel_done();
            }
        }
        for _ in 0..100 {
            match rig.step() {
                Step::Ask => {
                    let sql = rig.session.pending().unwrap().sql.to_owned();
                    match sql.as_str() {
                        "DROP" => rig.session.deny(&denied()),
                        "LATER" if epoch % 2 == 1 => rig.session.defer(),
                        _ => {
                            let outputs = OutputMasks::Unknown;
                            let statement = allowed(Obligations { outputs, ..Obligations::default() });
                            let mut decision = Arc::into_inner(decision(vec![statement])).unwrap();
                            decision.epoch = epoch;
                            rig.session.allow(Arc::new(decision));
                        }
                    }
                }
                _ => break,
            }
        }
        while rig.session.events().next().is_some() {}
        up.extend(rig.sent_up());
        job.extend(rig.sent_to_job());
    }
    (up, job)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_model_of_both_sides_finds_nothing(entropy in prop::collection::vec(any::<u8>(), 0..400)) {
        let decide = |each: Vec<Obligations>| decision(each.into_iter().map(allowed).collect());
        model::play(&entropy, Rig::ready().session, 1, &decide);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_from_the_start(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut rig = Rig::new();
        play(&mut rig, &[Move::Job(bytes)]);
    }

    #[test]
    fn random_bytes_from_the_server_at_login(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut rig = Rig::new();
        rig.job(&startup(0, &[("user", "u")]));
        let _ = rig.step();
        rig.session.login(login());
        play(&mut rig, &[Move::Up(bytes)]);
    }

    #[test]
    fn plausible_messages_in_any_order(moves in moves()) {
        let mut rig = Rig::ready();
        let (up, job) = play(&mut rig, &moves);
        prop_assert!(!has(&up, "DROP"));
        // Every column is masked, and with it every message that could quote one.
        prop_assert!(!has(&job, "\0\0\0\x06secret"), "{:?}", job);
    }
}
