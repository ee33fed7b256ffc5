//! Whatever is done to a file, `verify` says so and says where.

use crate::common::{frames, header, key, recording, scribe, statement};
use record::{Ending, Fault, ReadError, Report, SigningKey, What, Writer, recover, verify};

const SQL: [&str; 6] = ["SELECT 1", "SELECT 2", "SELECT 3", "SELECT 4", "SELECT 5", "SELECT 6"];

fn check(file: &[u8]) -> Result<Report, Fault> {
    verify(file, &key().public()).map_err(|error| match error {
        ReadError::Fault(fault) => fault,
        ReadError::Io { source, .. } => panic!("memory cannot fail: {source}"),
    })
}

fn fault(file: &[u8]) -> Fault {
    check(file).unwrap_err()
}

/// Recomputes every hash of a file, as somebody without the key would.
fn rehash(file: &mut [u8]) {
    let mut previous = *blake3::hash(&file[..16]).as_bytes();
    for (i, (_, start, end)) in frames(file).into_iter().enumerate() {
        file[start + 8..start + 16].copy_from_slice(&(i as u64).to_le_bytes());
        file[start + 40..start + 72].copy_from_slice(&previous);
        let content = *blake3::hash(&file[start + 136..end]).as_bytes();
        file[start + 72..start + 104].copy_from_slice(&content);
        previous = *blake3::hash(&file[start..start + 104]).as_bytes();
        file[start + 104..start + 136].copy_from_slice(&previous);
    }
}

#[test]
fn a_whole_file_verifies() {
    let file = recording(&SQL, true);
    let report = check(&file).unwrap();
    assert_eq!(report.ending, Ending::Sealed);
    assert_eq!((report.blocks, report.records, report.bytes), (3, 6, file.len() as u64));
    assert_eq!(report.header.unwrap(), header());
    assert_eq!(report.duration_ns, 5000);
}

#[test]
fn every_flipped_bit_is_found_in_the_frame_it_is_in() {
    let file = recording(&SQL, true);
    let frames = frames(&file);
    for at in 0..file.len() {
        for bit in [0, 3, 7] {
            let mut bad = file.clone();
            bad[at] ^= 1 << bit;
            let fault = fault(&bad);
            let frame = frames.iter().position(|(_, start, end)| (*start..*end).contains(&at));
            assert_eq!(fault.frame, frame.map(|n| n as u64), "byte {at} bit {bit}: {fault}");
        }
    }
}

#[test]
fn every_truncation_is_found_and_is_not_called_tampering() {
    let file = recording(&SQL, true);
    let frames = frames(&file);
    for len in 0..file.len() {
        let report = check(&file[..len]).unwrap();
        let whole = frames.iter().rev().map(|frame| frame.2).find(|end| *end <= len);
        let offset = whole.unwrap_or(if len < 16 { 0 } else { 16 }) as u64;
        assert_eq!(report.ending, Ending::Unsealed { offset, partial: len as u64 - offset }, "cut to {len}");
        let signed = frames.iter().rfind(|(kind, _, end)| kind == b"SIGN" && *end <= len);
        assert_eq!(report.last_checkpoint.map(|c| c.end), signed.map(|frame| frame.2 as u64), "cut to {len}");
    }
}

#[test]
fn swapped_blocks_are_found() {
    let file = recording(&SQL, true);
    let data: Vec<_> = frames(&file).into_iter().filter(|frame| &frame.0 == b"DATA").collect();
    let [(_, a, b), (_, c, d), ..] = data[..] else { panic!("blocks") };
    let swapped = [&file[..a], &file[c..d], &file[a..b], &file[d..]].concat();
    assert_eq!(fault(&swapped).what, What::Sequence { expected: 2, found: 3 });
    assert_eq!(fault(&swapped).offset, a as u64);

    let mut rehashed = swapped;
    rehash(&mut rehashed);
    // The rewritten order shows in the times, and did it not, in the signature.
    assert_eq!(fault(&rehashed).what, What::Time);
}

#[test]
fn a_dropped_block_is_found() {
    let file = recording(&SQL, true);
    for (i, (_, start, end)) in frames(&file).into_iter().enumerate() {
        let mut dropped = [&file[..start], &file[end..]].concat();
        if i + 1 == frames(&file).len() {
            assert!(matches!(check(&dropped).unwrap().ending, Ending::Unsealed { .. }));
            continue;
        }
        assert_eq!(fault(&dropped).frame, Some(i as u64));
        rehash(&mut dropped);
        assert!(check(&dropped).is_err(), "frame {i} dropped and everything rehashed");
    }
}

#[test]
fn a_repeated_block_is_found() {
    let file = recording(&SQL, true);
    for (_, start, end) in frames(&file) {
        let repeated = [&file[..end], &file[start..end], &file[end..]].concat();
        assert!(check(&repeated).is_err());
    }
}

#[test]
fn records_swapped_by_somebody_without_the_key_fail_the_signature() {
    let file = recording(&SQL, true);
    // The same session, written by somebody else's hand: two records have changed places, every hash, number and
    // time is right, and only the signatures are still the genuine ones.
    let mut sqls = SQL;
    sqls.swap(2, 3);
    let mut forged = recording(&sqls, true);
    let genuine: Vec<_> = frames(&file).into_iter().filter(|frame| &frame.0 == b"SIGN").collect();
    for ((_, _, to), (_, _, from)) in
        frames(&forged).into_iter().filter(|frame| &frame.0 == b"SIGN").zip(genuine)
    {
        forged[to - 64..to].copy_from_slice(&file[from - 64..from]);
    }
    rehash(&mut forged);
    let fault = fault(&forged);
    assert_eq!(fault.what, What::Signature);
    assert_eq!(fault.frame, Some(4), "the first checkpoint after the swap");
}

#[test]
fn another_key_is_named() {
    let file = recording(&SQL, true);
    let other = SigningKey::from_seed(&[8; 32]).unwrap().public();
    let Err(ReadError::Fault(fault)) = verify(&file[..], &other) else { panic!("accepted") };
    assert_eq!(fault.what, What::OtherKey(key().public()));
}

#[test]
fn nothing_may_follow_the_seal() {
    let mut file = recording(&SQL, true);
    file.push(0);
    assert_eq!(fault(&file).what, What::AfterEnd);
    let mut twice = recording(&SQL, true);
    twice.extend(recording(&SQL, true));
    assert_eq!(fault(&twice).what, What::AfterEnd);
}

#[test]
fn a_seal_from_another_file_does_not_fit() {
    let (mut one, two) = (recording(&SQL, true), recording(&["SELECT 7", "SELECT 8"], true));
    let (_, start, _) = *frames(&one).last().unwrap();
    let (_, from, to) = *frames(&two).last().unwrap();
    one.truncate(start);
    one.extend_from_slice(&two[from..to]);
    assert!(matches!(fault(&one).what, What::Sequence { .. } | What::Chain));
    rehash(&mut one);
    assert_eq!(fault(&one).what, What::Signature);
}

#[test]
fn recovery_keeps_whole_blocks_and_says_so() {
    let scribe = scribe();
    let open = recording(&SQL, false);
    let data_end = frames(&open).last().unwrap().2;
    for cut in [open.len(), open.len() - 1, frames(&open)[3].1 + 50] {
        let file = &open[..cut];
        let plan = recover(file, &scribe, 1_900_000_000_000_000_000).unwrap().unwrap();
        let whole = [&file[..plan.keep as usize], &plan.tail].concat();
        let report = check(&whole).unwrap();
        assert!(matches!(report.ending, Ending::Recovered { .. }), "{:?}", report.ending);
        let last = report.last_checkpoint.unwrap();
        assert_eq!(last.dropped, cut as u64 - plan.keep);
        assert_eq!(last.at_unix_ns, 1_900_000_000_000_000_000);
        assert!(record::is_ended(&whole[whole.len() - record::TAIL..]));
        assert!(!record::is_ended(&file[file.len() - record::TAIL..]));
        // A recovered file needs nothing more, and nothing may be added to it.
        assert!(recover(&whole[..], &scribe, 0).unwrap().is_none());
        let extended = [&whole[..], &open[data_end - 10..]].concat();
        assert_eq!(fault(&extended).what, What::AfterEnd);
    }
}

#[test]
fn recovery_counts_what_nobody_signed() {
    let open = recording(&SQL, false);
    let plan = recover(&open[..], &scribe(), 0).unwrap().unwrap();
    let whole = [&open[..plan.keep as usize], &plan.tail].concat();
    assert_eq!(check(&whole).unwrap().ending, Ending::Recovered { unsigned: 1 });
}

#[test]
fn a_tampered_file_is_not_recovered() {
    let mut open = recording(&SQL, false);
    let at = open.len() / 2;
    open[at] ^= 1;
    assert!(recover(&open[..], &scribe(), 0).is_err());
}

#[test]
fn a_failed_write_is_final() {
    #[derive(Debug)]
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut scribe = scribe();
    let mut writer = Writer::open(Full(1000), &header(), &mut scribe).unwrap();
    writer.append(0, &statement(0, &"x".repeat(3)), &mut scribe).unwrap();
    while writer.flush(&mut scribe).is_ok() {
        writer.append(0, &statement(0, "SELECT 1"), &mut scribe).unwrap();
    }
    writer.append(0, &statement(0, "SELECT 1"), &mut scribe).unwrap_err();
    writer.seal(0, &mut scribe).unwrap_err();
}
